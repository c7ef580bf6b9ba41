//! What algorithms with a replay memory do beyond the probes: mistakes in their configs, action masks, frame stacks, and
//! what goes on where it stopped.

mod common;

use std::path::Path;

use burn::prelude::Device;
use common::{envs, make_agent};
use hotfire_agents::{ALGORITHMS, Agent, AlgorithmSpec, EnvConfig, EnvView, Policy, Setting, evaluate};
use hotfire_core::checkpoint::{CheckpointReader, CheckpointWriter};
use hotfire_core::config::{ConfigDocument, ConfigError};
use hotfire_envs::{
    ActionRef, Buffer, Env, EnvError, EnvSpec, NpRng, ObsMut, OptionValue, Options, Space, StateReader, StateWriter,
    StepOutcome,
};

fn spec(name: &str) -> &'static AlgorithmSpec {
    ALGORITHMS.iter().find(|spec| spec.name == name).unwrap()
}

/// An agent with these settings alone, for a run of 5000 steps.
fn try_agent(algorithm: &str, env: &EnvConfig, settings: &str) -> Result<Box<dyn Agent>, ConfigError> {
    let mut document = ConfigDocument::parse("test.toml", &format!("[agent]\n{settings}"), &[])?;
    (spec(algorithm).make)(&mut document, &Setting { env, seed: 1, device: &Device::flex(), total_steps: 5000 })
}

fn refusal(algorithm: &str, env: &str, settings: &str) -> String {
    match try_agent(algorithm, &envs(env), settings) {
        Ok(_) => panic!("{algorithm} took {env} with {settings:?}"),
        Err(error) => error.to_string(),
    }
}

fn advance(agent: &mut dyn Agent, to: u64) {
    while agent.step() < to {
        let metrics = agent.iterate().unwrap();
        assert!(metrics.first_non_finite().is_none(), "{metrics}");
    }
}

fn checkpoint(agent: &dyn Agent, dir: &Path) -> CheckpointReader {
    let mut writer = CheckpointWriter::create(dir, agent.step()).unwrap();
    agent.save(&mut writer).unwrap();
    CheckpointReader::open(writer.commit().unwrap()).unwrap()
}

#[test]
fn mistakes_are_found_before_the_first_step() {
    let (cartpole, pendulum) = ("CartPole-v1", "Pendulum-v1");
    for (algorithm, env, settings, want) in [
        ("td3", cartpole, "", "td3 needs Box actions, found Discrete(2); dqn and sac serve Discrete ones"),
        ("ddpg", cartpole, "", "ddpg needs Box actions"),
        ("dqn", pendulum, "", "dqn needs Discrete actions"),
        ("rainbow", pendulum, "", "rainbow needs Discrete actions"),
        ("c51", pendulum, "", "sac and ppo serve Box actions"),
        ("sac", "CarRacing-v3", "", "sac serves no pictures, found 3x96x96; ppo does"),
        ("sac", "MinAtar/Breakout-v1", "", "sac serves no pictures, found 4x10x10; ppo and dqn do"),
        ("sac", cartpole, "noise = \"ou\"", "agent.noise: there is no noise on Discrete actions, found Discrete(2)"),
        ("sac", cartpole, "target_entropy = 0.7", "agent.target_entropy: expected a number from 0 to below 0.693"),
        ("sac", cartpole, "target_entropy = -1.0", "agent.target_entropy"),
        ("sac", pendulum, "temperature = 0.0", "agent.temperature: expected a positive number, found 0"),
        ("td3", pendulum, "policy_delay = 0", "agent.policy_delay: expected at least 1, found 0"),
        ("dqn", cartpole, "epsilon = 1.5", "agent.epsilon: expected a number from 0 to 1, found 1.5"),
        ("dqn", cartpole, "network = \"nature_cnn\"", "nature_cnn needs images, found vectors of 4 elements"),
        ("dqn", cartpole, "hidden = [64, 0]", "agent.hidden: expected positive widths"),
        ("dqn", cartpole, "doubel = true", "test.toml:2: agent.doubel: unknown key; did you mean agent.double?"),
        ("dqn", cartpole, "replay_directory = \"/no/such/place\"", "agent.replay_directory"),
        ("c51", cartpole, "atoms = 1", "agent.atoms: expected at least 2, found 1"),
        ("c51", cartpole, "v_min = 3.0\nv_max = 2.0", "agent.v_max: expected more than agent.v_min = 3, found 2"),
        ("qrdqn", cartpole, "quantiles = 0", "agent.quantiles: expected at least 1"),
        ("rainbow", cartpole, "importance_exponent = 2.0", "agent.importance_exponent"),
        ("pqn", pendulum, "", "pqn needs Discrete actions"),
        ("pqn", cartpole, "minibatches = 7", "agent.minibatches: expected a divisor of rollout_steps * num_envs = 128"),
    ] {
        let problem = refusal(algorithm, env, settings);
        assert!(problem.contains(want), "{algorithm} with {settings:?}: {problem}");
    }
    for algorithm in ["dqn", "rainbow", "sac", "td3"] {
        let env = if algorithm == "td3" { pendulum } else { cartpole };
        for (settings, want) in [
            (
                "batch_size = 200\nreplay_capacity = 100\nlearning_starts = 10",
                "agent.batch_size: expected at most agent.replay_capacity = 100, found 200",
            ),
            ("learning_starts = 5000", "agent.learning_starts: expected less than train.steps = 5000"),
            ("n_step = 0", "agent.n_step: expected at least 1, found 0"),
            ("gamma = 1.5", "agent.gamma: expected a number from 0 to 1, found 1.5"),
            ("train_freq = 0", "agent.train_freq"),
            ("train_freq = 5001", "agent.train_freq: expected at most train.steps = 5000, found 5001"),
            ("gradient_steps = 0", "agent.gradient_steps"),
            ("tau = 0.0", "agent.tau"),
        ] {
            let problem = refusal(algorithm, env, settings);
            assert!(problem.contains(want), "{algorithm} with {settings:?}: {problem}");
        }
    }
}

/// In state 0 action 0 ends the episode at a loss of 1, action 1 leads on to state 1, where every action that counts
/// loses 3. Action 2 never counts; nothing is ever learned of its value, which stays near 0, so that whoever hopes for it
/// goes on to state 1.
struct Trap {
    observations: Space,
    actions: Space,
    state: i32,
}

impl Env for Trap {
    fn observation_space(&self) -> &Space {
        &self.observations
    }

    fn action_space(&self) -> &Space {
        &self.actions
    }

    fn reset(&mut self, _: &mut NpRng, obs: ObsMut<'_>) {
        self.state = 0;
        self.show(obs);
    }

    fn step(&mut self, action: ActionRef<'_>, _: &mut NpRng, obs: ObsMut<'_>) -> StepOutcome {
        let ActionRef::I32(action) = action else { unreachable!("actions are integers") };
        assert!(action[0] < 2, "a masked action was taken");
        let (reward, terminated) = match (self.state, action[0]) {
            (0, 0) => (-1.0, true),
            (0, _) => (0.0, false),
            _ => (-3.0, true),
        };
        self.state = 1;
        self.show(obs);
        StepOutcome { reward, terminated, truncated: false }
    }

    fn action_mask(&self, mask: &mut [bool]) -> bool {
        mask.copy_from_slice(&[true, true, false]);
        true
    }

    fn save_state(&self, to: &mut StateWriter) {
        to.i32(self.state);
    }

    fn load_state(&mut self, from: &mut StateReader<'_>) -> Result<(), EnvError> {
        self.state = from.i32()?;
        Ok(())
    }
}

impl Trap {
    fn show(&self, obs: ObsMut<'_>) {
        let ObsMut::I32(obs) = obs else { unreachable!("observations are integers") };
        obs[0] = self.state;
    }

    fn make(_: &mut Options) -> Result<Box<dyn Env>, EnvError> {
        Ok(Box::new(Self { observations: Space::discrete(2), actions: Space::discrete(3), state: 0 }))
    }
}

static TRAP: EnvSpec = EnvSpec {
    id: "Trap",
    summary: "a trap for those who hope for actions that do not count",
    max_episode_steps: None,
    reward_threshold: None,
    render_fps: 1,
    controls: &[],
    make: Trap::make,
    make_batch: None,
};

#[test]
fn masked_actions_are_neither_taken_nor_hoped_for() {
    let env = EnvConfig { spec: &TRAP, num_envs: 4, options: Vec::new(), wrappers: Vec::new() };
    for algorithm in ["dqn", "ddqn", "c51", "qrdqn", "rainbow", "pqn"] {
        let bounds = if algorithm == "pqn" { "" } else { "v_min = -4.0\nv_max = 4.0" };
        let name = spec(algorithm);
        let mut agent = match algorithm {
            "pqn" => make_agent(name, &env, 1, "gamma = 0.9\nlambda = 0.0").unwrap(),
            _ => {
                let settings = "learning_rate = 5e-3\nlearning_starts = 64\ntrain_freq = 8\ngradient_steps = 4\n\
                                target_interval = 32\nexploration_fraction = 0.5\nhidden = [16, 16]\ngamma = 0.9\n";
                try_agent(algorithm, &env, &format!("{settings}{bounds}")).unwrap()
            }
        };
        advance(agent.as_mut(), 4000);
        let returns = evaluate(agent.policy().as_mut(), &env, 4, 1).unwrap();
        assert!(returns.iter().all(|(episode_return, _)| *episode_return == -1.0), "{algorithm}: {returns:?}");
    }
}

/// A frame that is in several stacks lies in the memory once, and what is learned is the same as from full stacks.
#[test]
fn stacks_of_frames_are_kept_once() {
    let stack = || ("frame_stack".to_owned(), vec![("size".to_owned(), OptionValue::Int(4))]);
    // Behind another wrapper a stack is kept as it is.
    let other = ("record_episode_statistics".to_owned(), Vec::new());
    let settings = "learning_starts = 200\nreplay_capacity = 1000\nn_step = 3\nhidden = [16, 16]";
    let run = |wrappers| {
        let env = EnvConfig { wrappers, ..envs("CartPole-v1") };
        let mut agent = try_agent("dqn", &env, settings).unwrap();
        advance(agent.as_mut(), 1600);
        let dir = tempfile::tempdir().unwrap();
        let reader = checkpoint(agent.as_ref(), dir.path());
        let read = |name: &str| reader.bytes(name).unwrap();
        (read("network.safetensors"), read("replay-observations.bin").len())
    };
    let (once, full) = (run(vec![stack()]), run(vec![stack(), other]));
    assert_eq!(once.0, full.0, "the networks differ");
    // 250 steps of each of four environments; four rows of a frame of 16 bytes go before them, one of a stack of 64.
    assert_eq!((once.1, full.1), ((250 + 4) * 4 * 16, (250 + 1) * 4 * 64));
}

/// With masks, with priorities, and with the memory in a mapped file: save, load and go on equals going on.
#[test]
fn replay_memories_go_on_bit_for_bit() {
    let mapped = tempfile::tempdir().unwrap();
    let directory = format!("replay_directory = {:?}\n", mapped.path());
    let taxi = || EnvConfig { num_envs: 2, ..envs("Taxi-v4") };
    for (algorithm, env, settings) in [
        ("dqn", taxi(), ""),
        ("rainbow", taxi(), ""),
        ("dqn", envs("CartPole-v1"), &directory[..]),
        ("rainbow", envs("CartPole-v1"), &directory),
        ("sac", envs("Pendulum-v1"), &directory),
        ("td3", envs("Pendulum-v1"), &directory),
    ] {
        // A memory so small that it is overwritten.
        let settings =
            format!("{settings}learning_starts = 64\nreplay_capacity = 300\nbatch_size = 16\nhidden = [8, 8]");
        let make = || try_agent(algorithm, &env, &settings).unwrap();
        let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let (mut whole, mut resumed) = (make(), make());
        advance(whole.as_mut(), 600);
        resumed.load(&checkpoint(whole.as_ref(), dirs[0].path())).unwrap();
        for agent in [&mut whole, &mut resumed] {
            advance(agent.as_mut(), 1000);
        }
        let (a, b) = (checkpoint(whole.as_ref(), dirs[1].path()), checkpoint(resumed.as_ref(), dirs[2].path()));
        for file in std::fs::read_dir(a.path()).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            let same = std::fs::read(a.path().join(&name)).unwrap() == std::fs::read(b.path().join(&name)).unwrap();
            assert!(same, "{algorithm} on {}: {name} differs", env.spec.id);
        }
        let masks = a.contains("replay-masks.bin");
        assert_eq!(masks, env.spec.id == "Taxi-v4", "masks are kept where there are some");
    }
}

#[test]
fn a_checkpoint_without_replay_memory_collects_anew_before_it_learns() {
    let settings =
        "learning_starts = 200\nreplay_capacity = 1000\nhidden = [8, 8]\nbatch_size = 16\ncheckpoint_replay = false";
    for (algorithm, env) in [("dqn", envs("CartPole-v1")), ("sac", envs("Pendulum-v1"))] {
        let mut whole = try_agent(algorithm, &env, settings).unwrap();
        advance(whole.as_mut(), 600);
        let dir = tempfile::tempdir().unwrap();
        let middle = checkpoint(whole.as_ref(), dir.path());
        assert!(!middle.contains("replay.json"));
        let mut resumed = try_agent(algorithm, &env, settings).unwrap();
        resumed.load(&middle).unwrap();
        let key = if algorithm == "dqn" { "loss" } else { "critic_loss" };
        let learns: Vec<bool> = (0..3).map(|_| resumed.iterate().unwrap().get(key).is_some()).collect();
        assert_eq!((resumed.step(), learns), (900, vec![false, true, true]), "{algorithm}");
    }
}

/// While the memory is too small to learn from, noisy networks act: with noise of each round, which a resumed run draws
/// alike.
#[test]
fn noisy_networks_that_do_not_learn_yet_go_on_bit_for_bit() {
    let settings = "learning_starts = 100\nbatch_size = 512\nhidden = [8, 8]\nnoise_std = 3.0";
    let make = || try_agent("rainbow", &envs("CartPole-v1"), settings).unwrap();
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let (mut whole, mut resumed) = (make(), make());
    advance(whole.as_mut(), 300);
    resumed.load(&checkpoint(whole.as_ref(), dirs[0].path())).unwrap();
    for agent in [&mut whole, &mut resumed] {
        advance(agent.as_mut(), 500);
    }
    let (a, b) = (checkpoint(whole.as_ref(), dirs[1].path()), checkpoint(resumed.as_ref(), dirs[2].path()));
    for name in ["replay-actions.bin", "replay-observations.bin", "environments.bin"] {
        assert_eq!(a.bytes(name).unwrap(), b.bytes(name).unwrap(), "{name}");
    }
}

struct Up;

impl Policy for Up {
    fn act(&mut self, _: EnvView<'_>, actions: &mut Buffer) {
        let Buffer::I32(actions) = actions else { unreachable!("actions are integers") };
        actions.fill(0);
    }
}

/// Whoever walks into the border of CliffWalking, which has no time limit, goes on for ever at a loss of 1 a step.
#[test]
fn an_evaluation_cuts_off_episodes_that_do_not_end() {
    let episodes = evaluate(&mut Up, &envs("CliffWalking-v1"), 2, 1).unwrap();
    assert_eq!(episodes, [(-100_000.0, 100_000); 2]);
}

#[test]
fn a_temperature_that_is_not_learned_is_a_setting() {
    let make = |settings: &str| try_agent("sac", &envs("Pendulum-v1"), settings).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut learned = make("");
    advance(learned.as_mut(), 200);
    let saved = checkpoint(learned.as_ref(), dir.path());
    let next = |settings: &str| {
        let mut agent = make(settings);
        agent.load(&saved).unwrap();
        agent.iterate().unwrap().get("temperature").unwrap()
    };
    assert!((0.8..0.999).contains(&next("")), "goes on where it was: {}", next(""));
    assert!((next("learn_temperature = false\ntemperature = 0.25") - 0.25).abs() < 1e-6);
}

#[test]
fn lasting_noise_goes_on_where_it_stopped() {
    let make = || make_agent(spec("sac"), &envs("Pendulum-v1"), 3, "noise = \"ou\"\nnoise_std = 0.5").unwrap();
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let checkpoint = |agent: &dyn Agent, at: usize| checkpoint(agent, dirs[at].path());
    let (mut whole, mut resumed) = (make(), make());
    whole.iterate().unwrap();
    let middle = checkpoint(whole.as_ref(), 0);
    assert!(middle.arrays("noise.safetensors").unwrap()["noise"].iter().all(|noise| *noise != 0.0));
    resumed.load(&middle).unwrap();
    whole.iterate().unwrap();
    resumed.iterate().unwrap();
    let (a, b) = (checkpoint(whole.as_ref(), 1), checkpoint(resumed.as_ref(), 2));
    for name in ["noise.safetensors", "actor.safetensors", "replay-actions.bin"] {
        assert_eq!(a.bytes(name).unwrap(), b.bytes(name).unwrap(), "{name}");
    }
}
