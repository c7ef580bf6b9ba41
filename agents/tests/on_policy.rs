//! What policy-gradient agents do beyond the probes: memory, masks, several choices at once, curiosity, mistakes.

use std::path::Path;

use burn::prelude::Device;
use hotfire_agents::{Agent, EnvConfig, Setting, algorithm, evaluate};
use hotfire_core::checkpoint::{CheckpointReader, CheckpointWriter};
use hotfire_core::config::{ConfigDocument, ConfigError};
use hotfire_envs::{
    ActionRef, Env, EnvError, EnvSpec, NpRng, ObsMut, Options, Space, StateReader, StateWriter, StepOutcome,
};

/// What a test environment asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Puzzle {
    /// A cue at the start says which of two actions is right at the end, five steps later. A third action, which is
    /// wrong at all times, is masked out.
    Recall,
    /// The first choice must be that of the observation, the second the other way round.
    Both,
    /// A bright pixel in a picture, in one of two channels, says which action is right.
    Picture,
    /// Twelve states in a row; one action leads on, the other back to the start; reward only at the end.
    Lock,
}

const RECALL_STEPS: u32 = 5;
const LOCK_STATES: i32 = 12;

struct PuzzleEnv {
    puzzle: Puzzle,
    observations: Space,
    actions: Space,
    cue: i32,
    steps: u32,
}

impl PuzzleEnv {
    fn new(puzzle: Puzzle) -> Self {
        let (observations, actions) = match puzzle {
            Puzzle::Recall => (Space::discrete(4), Space::discrete(3)),
            Puzzle::Both => (Space::multi_discrete([2]), Space::multi_discrete([2, 3])),
            Puzzle::Picture => (Space::image([6, 5, 2]), Space::discrete(2)),
            Puzzle::Lock => (Space::discrete(LOCK_STATES), Space::discrete(2)),
        };
        Self { puzzle, observations, actions, cue: 0, steps: 0 }
    }

    fn show(&self, obs: ObsMut<'_>) {
        let obs = match obs {
            ObsMut::U8(pixels) => {
                pixels.fill(0);
                pixels[2 * (7 + self.steps as usize) + self.cue as usize] = 255;
                return;
            }
            ObsMut::I32(obs) => obs,
            ObsMut::F32(_) => unreachable!("observations are integers or pixels"),
        };
        obs[0] = match self.puzzle {
            // The cue at first, then that it is over, then that it is time to answer.
            Puzzle::Recall if self.steps == 0 => self.cue,
            Puzzle::Recall => 2 + i32::from(self.steps + 1 == RECALL_STEPS),
            Puzzle::Both | Puzzle::Lock | Puzzle::Picture => self.cue,
        };
    }
}

impl Env for PuzzleEnv {
    fn observation_space(&self) -> &Space {
        &self.observations
    }

    fn action_space(&self) -> &Space {
        &self.actions
    }

    fn reset(&mut self, rng: &mut NpRng, obs: ObsMut<'_>) {
        self.cue = if self.puzzle == Puzzle::Lock { 0 } else { rng.integers(0, 2) as i32 };
        self.steps = 0;
        self.show(obs);
    }

    fn step(&mut self, action: ActionRef<'_>, _: &mut NpRng, obs: ObsMut<'_>) -> StepOutcome {
        let ActionRef::I32(action) = action else { unreachable!("actions are integers") };
        self.steps += 1;
        let sign = |right| if right { 1.0 } else { -1.0 };
        let (reward, terminated) = match self.puzzle {
            Puzzle::Recall => {
                assert!(action[0] < 2, "a masked action was taken");
                let last = self.steps == RECALL_STEPS;
                (if last { sign(action[0] == self.cue) } else { 0.0 }, last)
            }
            Puzzle::Both => (0.5 * (sign(action[0] == self.cue) + sign(action[1] == 1 - self.cue)), true),
            Puzzle::Picture => (sign(action[0] == self.cue), true),
            Puzzle::Lock => {
                // The right action is another in every other state.
                self.cue = if action[0] == self.cue % 2 { self.cue + 1 } else { 0 };
                let open = self.cue == LOCK_STATES;
                self.cue = self.cue.min(LOCK_STATES - 1);
                (f64::from(u8::from(open)), open)
            }
        };
        self.show(obs);
        StepOutcome { reward, terminated, truncated: false }
    }

    fn action_mask(&self, mask: &mut [bool]) -> bool {
        if self.puzzle == Puzzle::Recall {
            mask.copy_from_slice(&[true, true, false]);
        }
        self.puzzle == Puzzle::Recall
    }

    fn save_state(&self, to: &mut StateWriter) {
        to.i32(self.cue);
        to.u32(self.steps);
    }

    fn load_state(&mut self, from: &mut StateReader<'_>) -> Result<(), EnvError> {
        self.cue = from.i32()?;
        self.steps = from.u32()?;
        Ok(())
    }
}

const fn spec(
    id: &'static str,
    max_episode_steps: Option<u32>,
    make: fn(&mut Options) -> Result<Box<dyn Env>, EnvError>,
) -> EnvSpec {
    EnvSpec {
        id,
        summary: "a puzzle",
        max_episode_steps,
        reward_threshold: None,
        render_fps: 1,
        controls: &[],
        make,
        make_batch: None,
    }
}

static RECALL: EnvSpec = spec("Recall", None, |_| Ok(Box::new(PuzzleEnv::new(Puzzle::Recall))));
static BOTH: EnvSpec = spec("Both", None, |_| Ok(Box::new(PuzzleEnv::new(Puzzle::Both))));
static PICTURE: EnvSpec = spec("Picture", None, |_| Ok(Box::new(PuzzleEnv::new(Puzzle::Picture))));
static LOCK: EnvSpec = spec("Lock", Some(24), |_| Ok(Box::new(PuzzleEnv::new(Puzzle::Lock))));

fn envs(spec: &'static EnvSpec, num_envs: usize) -> EnvConfig {
    EnvConfig { spec, num_envs, options: Vec::new(), wrappers: Vec::new() }
}

fn try_agent(name: &str, env: &EnvConfig, seed: u64, settings: &str) -> Result<Box<dyn Agent>, ConfigError> {
    let text = format!("[agent]\nalgorithm = \"{name}\"\n{settings}");
    let mut document = ConfigDocument::parse("test.toml", &text, &[])?;
    let spec = algorithm(&mut document)?;
    (spec.make)(&mut document, &Setting { env, seed, device: &Device::flex(), total_steps: 100_000 })
}

fn agent(name: &str, env: &EnvConfig, seed: u64, settings: &str) -> Box<dyn Agent> {
    try_agent(name, env, seed, settings).unwrap()
}

fn advance(agent: &mut dyn Agent, steps: u64) {
    let end = agent.step() + steps;
    while agent.step() < end {
        let metrics = agent.iterate().unwrap();
        assert!(metrics.first_non_finite().is_none(), "{metrics}");
    }
}

fn checkpoint(agent: &dyn Agent, dir: &Path) -> CheckpointReader {
    let mut writer = CheckpointWriter::create(dir, agent.step()).unwrap();
    agent.save(&mut writer).unwrap();
    CheckpointReader::open(writer.commit().unwrap()).unwrap()
}

/// Mean return of the greedy policy.
fn score(agent: &dyn Agent, env: &EnvConfig) -> f64 {
    let episodes = evaluate(agent.policy().as_mut(), env, 200, 1).unwrap();
    episodes.iter().map(|(episode_return, _)| episode_return).sum::<f64>() / episodes.len() as f64
}

const RECALL_PPO: &str = "learning_rate = 5e-3\nrollout_steps = 20\nepochs = 4\nminibatches = 2\nhidden = [16]\n";

#[test]
fn only_a_recurrent_policy_recalls_a_cue() {
    let env = envs(&RECALL, 16);
    let recurrent = format!("{RECALL_PPO}recurrent = \"gru\"\nrecurrent_units = 16");
    for (settings, solves) in [(RECALL_PPO, false), (&recurrent, true)] {
        let mut agent = agent("ppo", &env, 1, settings);
        advance(agent.as_mut(), 25_000);
        let score = score(agent.as_ref(), &env);
        // Without memory every guess is right half of the time.
        assert!(if solves { score > 0.95 } else { score.abs() < 0.3 }, "{settings}\nmean return {score}");
    }
    let a2c = "learning_rate = 5e-3\nrollout_steps = 20\nhidden = [16]\nrecurrent = \"gru\"\nrecurrent_units = 16";
    let mut agent = agent("a2c", &env, 1, a2c);
    advance(agent.as_mut(), 80_000);
    assert!(score(agent.as_ref(), &env) > 0.95, "a2c: mean return {}", score(agent.as_ref(), &env));
}

#[test]
fn several_choices_are_learned_at_once() {
    let env = envs(&BOTH, 8);
    for (name, settings) in [
        ("ppo", "learning_rate = 1e-2\nrollout_steps = 16\nminibatches = 2\nhidden = [16]"),
        ("a2c", "learning_rate = 1e-2\nrollout_steps = 4\nhidden = [16]"),
        ("reinforce", "learning_rate = 1e-2\nhidden = [16]"),
    ] {
        let mut agent = agent(name, &env, 1, settings);
        advance(agent.as_mut(), 6000);
        assert!(score(agent.as_ref(), &env) > 0.95, "{name}: mean return {}", score(agent.as_ref(), &env));
    }
}

#[test]
fn pictures_are_told_apart() {
    let env = envs(&PICTURE, 8);
    let mut agent = agent("ppo", &env, 1, "learning_rate = 3e-3\nrollout_steps = 16\nminibatches = 2");
    advance(agent.as_mut(), 2000);
    assert!(score(agent.as_ref(), &env) > 0.95, "mean return {}", score(agent.as_ref(), &env));
}

const LOCK_PPO: &str =
    "learning_rate = 1e-3\nrollout_steps = 64\nminibatches = 4\nentropy_coef = 0.01\nhidden = [32]\n";
const LOCK_RND: &str =
    "[agent.rnd]\nlearning_rate = 1e-3\nupdate_share = 1.0\nhidden = [32, 32]\nfeatures = 16\nextrinsic_coef = 4.0";

/// A random policy opens the lock once in 4096 tries.
#[test]
fn curiosity_finds_a_reward_that_chance_does_not() {
    let env = envs(&LOCK, 8);
    for (settings, solves) in [(LOCK_PPO.to_owned(), false), (format!("{LOCK_PPO}{LOCK_RND}"), true)] {
        let mut agent = agent("ppo", &env, 2, &settings);
        advance(agent.as_mut(), 60_000);
        let score = score(agent.as_ref(), &env);
        assert!(if solves { score > 0.95 } else { score < 0.05 }, "{settings}\nmean return {score}");
    }
}

/// Everything that an agent carries from one iteration to the next, hidden states in the middle of episodes included.
#[test]
fn memory_masks_and_curiosity_go_on_bit_for_bit() {
    let bytes = |agent: &dyn Agent| -> Vec<(String, Vec<u8>)> {
        let dir = tempfile::tempdir().unwrap();
        let files = std::fs::read_dir(checkpoint(agent, dir.path()).path()).unwrap();
        let read = |path: std::path::PathBuf| {
            (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap())
        };
        let mut files: Vec<_> = files.map(|file| read(file.unwrap().path())).collect();
        files.sort();
        files
    };
    // Seven steps a rollout: episodes of five are cut in the middle.
    let settings =
        "rollout_steps = 7\nminibatches = 2\nhidden = [8]\nrecurrent = \"gru\"\nrecurrent_units = 8\nrnd = {}";
    for spec in [&RECALL, &LOCK] {
        let env = envs(spec, 4);
        let mut whole = agent("ppo", &env, 3, settings);
        advance(whole.as_mut(), 7 * 4 * 3);
        let dir = tempfile::tempdir().unwrap();
        let middle = checkpoint(whole.as_ref(), dir.path());
        let mut resumed = agent("ppo", &env, 3, settings);
        resumed.load(&middle).unwrap();
        for agent in [&mut whole, &mut resumed] {
            advance(agent.as_mut(), 7 * 4 * 3);
        }
        let (whole, resumed) = (bytes(whole.as_ref()), bytes(resumed.as_ref()));
        let differing: Vec<_> = whole.iter().zip(&resumed).filter(|(a, b)| a != b).map(|(a, _)| &a.0).collect();
        assert!(whole.len() == resumed.len() && differing.is_empty(), "{differing:?} differ");
    }
}

#[test]
fn normalisation_can_not_change_on_the_way() {
    let env = envs(hotfire_envs::spec("CartPole-v1").unwrap(), 4);
    let dir = tempfile::tempdir().unwrap();
    let mut before = agent("ppo", &env, 1, "normalize_rewards = true");
    before.iterate().unwrap();
    let saved = checkpoint(before.as_ref(), dir.path());
    let load = |settings: &str| agent("ppo", &env, 1, settings).load(&saved).map_err(|error| error.to_string());
    assert_eq!(load("normalize_rewards = true\ngamma = 0.5"), Ok(()));
    for (settings, want) in [
        ("", "agent.normalize_rewards is true there, and can't change to false on the way"),
        ("normalize_rewards = true\nnormalize_observations = true", "agent.normalize_observations is false there"),
    ] {
        let problem = load(settings).unwrap_err();
        assert!(problem.contains(want), "{settings:?}: {problem}");
    }
}

#[test]
fn mistakes_are_refused_before_the_first_step() {
    let cartpole = envs(hotfire_envs::spec("CartPole-v1").unwrap(), 4);
    let recall = envs(&RECALL, 4);
    for (name, env, settings, want) in [
        ("ppo", &cartpole, "network = \"nature_cnn\"", "nature_cnn needs images, found vectors of 4 elements"),
        ("ppo", &cartpole, "network = \"cnn\"", "\"cnn\" is not known; known: auto, mlp, nature_cnn, minatar_cnn"),
        ("ppo", &cartpole, "recurrent = \"gru\"\nminibatches = 3", "a divisor of num_envs = 4"),
        ("ppo", &cartpole, "recurrent = \"lstm\"", "agent.recurrent: \"lstm\" is not known; known: gru"),
        ("ppo", &cartpole, "rnd = { features = 0 }", "agent.rnd.features: expected at least 1, found 0"),
        ("ppo", &cartpole, "rnd = { gamma = 1.5 }", "agent.rnd.gamma: expected a number from 0 to below 1"),
        ("ppo", &cartpole, "rnd = { gama = 0.9 }", "gama"),
        ("a2c", &recall, "normalize_observations = true", "only vectors of floats can be normalised"),
        ("a2c", &cartpole, "rollout_steps = 0", "agent.rollout_steps: expected at least 1, found 0"),
        ("ppo", &cartpole, "rollout_steps = 2000000000", "agent.rollout_steps: expected at most 1073741823"),
        ("reinforce", &cartpole, "gamma = 1.5", "agent.gamma: expected a number from 0 to 1, found 1.5"),
        ("reinforce", &cartpole, "clip = 0.2", "clip"),
    ] {
        match try_agent(name, env, 1, settings) {
            Ok(_) => panic!("{name} accepts {settings}"),
            Err(error) => assert!(error.to_string().contains(want), "{settings}: {error}"),
        }
    }
}
