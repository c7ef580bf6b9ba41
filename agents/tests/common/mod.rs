//! What the tests over all registered algorithms share: probe environments, and settings for small problems.
//!
//! A new algorithm takes part as soon as it is registered and [`serves`] says of which actions; if its defaults are too
//! slow for small problems, it gets a line in [`settings`].

#![allow(dead_code)] // Each test binary uses a part.

use burn::prelude::Device;
use hotfire_agents::{Agent, AlgorithmSpec, EnvConfig, Setting};
use hotfire_core::config::{ConfigDocument, ConfigError};
use hotfire_envs::{
    ActionRef, Env, EnvError, EnvSpec, NpRng, ObsMut, Options, Space, StateReader, StateWriter, StepOutcome,
};

/// The discount of every probe.
pub const GAMMA: f64 = 0.5;

/// A problem that is solved at once unless one particular part of an algorithm is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// One state, one step, reward 1: is a value learned at all?
    Value,
    /// Two states at random, one step, the state is the reward: does the value depend on the observation?
    Backpropagation,
    /// Two states one after the other, reward 1 at the end: is the next value discounted?
    Discounting,
    /// One state, one step, the reward depends on the action: is the better action chosen?
    Action,
    /// Two states at random, one step, the better action is another in each: do actions depend on the observation?
    StateAction,
    /// One state, reward 1 for ever, cut off after two steps: is the value beyond a truncation counted?
    Truncation,
}

/// Every probe.
pub const PROBES: [Probe; 6] =
    [Probe::Value, Probe::Backpropagation, Probe::Discounting, Probe::Action, Probe::StateAction, Probe::Truncation];

impl Probe {
    /// Observations with the values that a solved probe has there.
    pub fn values(self) -> &'static [(f32, f32)] {
        match self {
            Self::Value | Self::Action => &[(1.0, 1.0)],
            Self::Backpropagation => &[(-1.0, -1.0), (1.0, 1.0)],
            Self::Discounting => &[(-1.0, GAMMA as f32), (1.0, 1.0)],
            Self::StateAction => &[(-1.0, 1.0), (1.0, 1.0)],
            Self::Truncation => &[(1.0, (1.0 / (1.0 - GAMMA)) as f32)],
        }
    }

    /// The better action as a number, where there is one: action 0 or 1, or the middle of the continuous optimum.
    pub fn best_action(self, observation: f32) -> Option<f32> {
        match self {
            Self::Action => Some(1.0),
            Self::StateAction => Some(if observation > 0.0 { 1.0 } else { 0.0 }),
            _ => None,
        }
    }
}

struct ProbeEnv {
    probe: Probe,
    observations: Space,
    actions: Space,
    observation: f32,
    steps: u32,
}

impl Env for ProbeEnv {
    fn observation_space(&self) -> &Space {
        &self.observations
    }

    fn action_space(&self) -> &Space {
        &self.actions
    }

    fn reset(&mut self, rng: &mut NpRng, obs: ObsMut<'_>) {
        let random = if rng.random() < 0.5 { -1.0 } else { 1.0 };
        self.steps = 0;
        self.observation = match self.probe {
            Probe::Backpropagation | Probe::StateAction => random,
            Probe::Discounting => -1.0,
            _ => 1.0,
        };
        self.show(obs);
    }

    fn step(&mut self, action: ActionRef<'_>, _: &mut NpRng, obs: ObsMut<'_>) -> StepOutcome {
        self.steps += 1;
        let ended = match self.probe {
            Probe::Discounting | Probe::Truncation => self.steps == 2,
            _ => true,
        };
        let reward = match self.probe {
            Probe::Value | Probe::Truncation => 1.0,
            Probe::Backpropagation => f64::from(self.observation),
            Probe::Discounting => f64::from(self.steps - 1),
            Probe::Action | Probe::StateAction => {
                let best = f64::from(self.probe.best_action(self.observation).unwrap_or(0.0));
                match action {
                    ActionRef::F32(a) => 1.0 - (f64::from(a[0]) - (best - 0.5)).powi(2),
                    ActionRef::I32(a) => 1.0 - 2.0 * (f64::from(a[0]) - best).abs(),
                    ActionRef::U8(_) => unreachable!("actions are integers or floats"),
                }
            }
        };
        if self.probe == Probe::Discounting {
            self.observation = 1.0;
        }
        self.show(obs);
        let truncated = ended && self.probe == Probe::Truncation;
        StepOutcome { reward, terminated: ended && !truncated, truncated }
    }

    fn save_state(&self, to: &mut StateWriter) {
        to.f32(self.observation);
        to.u32(self.steps);
    }

    fn load_state(&mut self, from: &mut StateReader<'_>) -> Result<(), EnvError> {
        self.observation = from.f32()?;
        self.steps = from.u32()?;
        Ok(())
    }
}

impl ProbeEnv {
    fn show(&self, obs: ObsMut<'_>) {
        let ObsMut::F32(obs) = obs else { unreachable!("observations are floats") };
        obs[0] = self.observation;
    }
}

fn make_probe<const PROBE: usize, const CONTINUOUS: bool>(_: &mut Options) -> Result<Box<dyn Env>, EnvError> {
    Ok(Box::new(ProbeEnv {
        probe: PROBES[PROBE],
        observations: Space::bounded([-1.0], [1.0], [1]),
        actions: if CONTINUOUS { Space::bounded([-1.0], [1.0], [1]) } else { Space::discrete(2) },
        observation: 0.0,
        steps: 0,
    }))
}

const fn spec<const PROBE: usize, const CONTINUOUS: bool>() -> EnvSpec {
    EnvSpec {
        id: "Probe",
        summary: "a probe",
        max_episode_steps: None,
        reward_threshold: None,
        render_fps: 1,
        controls: &[],
        make: make_probe::<PROBE, CONTINUOUS>,
        make_batch: None,
    }
}

static DISCRETE: [EnvSpec; 6] = [
    spec::<0, false>(),
    spec::<1, false>(),
    spec::<2, false>(),
    spec::<3, false>(),
    spec::<4, false>(),
    spec::<5, false>(),
];

static CONTINUOUS: [EnvSpec; 6] =
    [spec::<0, true>(), spec::<1, true>(), spec::<2, true>(), spec::<3, true>(), spec::<4, true>(), spec::<5, true>()];

/// Four environments of a probe, with two actions or with one action from -1 to 1.
pub fn probe_envs(probe: Probe, continuous: bool) -> EnvConfig {
    let specs = if continuous { &CONTINUOUS } else { &DISCRETE };
    EnvConfig { spec: &specs[probe as usize], num_envs: 4, options: Vec::new(), wrappers: Vec::new() }
}

/// Registered environments.
pub fn envs(id: &str) -> EnvConfig {
    EnvConfig { spec: hotfire_envs::spec(id).unwrap(), num_envs: 4, options: Vec::new(), wrappers: Vec::new() }
}

/// Whether an algorithm serves Discrete actions, and whether Box actions.
pub fn serves(algorithm: &str) -> (bool, bool) {
    match algorithm {
        "reinforce" | "a2c" | "ppo" | "sac" => (true, true),
        "dqn" | "ddqn" | "c51" | "qrdqn" | "rainbow" | "pqn" => (true, false),
        "td3" | "ddpg" => (false, true),
        _ => panic!("{algorithm}: say here which actions it serves"),
    }
}

/// Settings with which an algorithm solves the probes within [`PROBE_STEPS`] steps.
fn settings(algorithm: &str) -> &'static str {
    match algorithm {
        "ppo" => "learning_rate = 1e-2\nrollout_steps = 32\nhidden = [16]",
        "a2c" => "learning_rate = 1e-2\nhidden = [16]",
        "reinforce" => "learning_rate = 2e-2\nhidden = [16]",
        "dqn" | "ddqn" | "c51" | "qrdqn" | "rainbow" => {
            "learning_rate = 5e-3\nreplay_capacity = 2000\nlearning_starts = 64\ntrain_freq = 8\ngradient_steps = 4\n\
             batch_size = 32\ntarget_interval = 32\nexploration_fraction = 0.5\nhidden = [16, 16]\nv_min = -2.5\n\
             v_max = 2.5\nquantiles = 8"
        }
        "pqn" => {
            "learning_rate = 5e-3\nrollout_steps = 16\nminibatches = 2\nhidden = [16, 16]\nexploration_fraction = 0.5"
        }
        "sac" | "td3" | "ddpg" => {
            "learning_rate = 5e-3\nreplay_capacity = 2000\nlearning_starts = 64\ntrain_freq = 8\ngradient_steps = 2\n\
             batch_size = 32\ntau = 0.05\nhidden = [16, 16]"
        }
        _ => "",
    }
}

/// Environment steps in which the probes are to be solved.
pub const PROBE_STEPS: u64 = 6000;

/// Makes an agent with [`settings`] and `more` of them.
///
/// # Errors
/// If the algorithm refuses the environment.
pub fn make_agent(
    algorithm: &AlgorithmSpec,
    env: &EnvConfig,
    seed: u64,
    more: &str,
) -> Result<Box<dyn Agent>, ConfigError> {
    let text = format!("[agent]\n{}\n{more}\n", settings(algorithm.name));
    let mut document = ConfigDocument::parse("test.toml", &text, &[])?;
    let setting = Setting { env, seed, device: &Device::flex(), total_steps: PROBE_STEPS };
    (algorithm.make)(&mut document, &setting)
}
