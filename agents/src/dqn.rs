//! Deep Q-learning and its extensions, each a switch of one algorithm; the presets differ in their defaults alone.
//!
//! - `dqn`: Mnih et al. 2015, "Human-level control through deep reinforcement learning", Nature 518.
//! - `ddqn`: van Hasselt et al. 2016, "Deep reinforcement learning with double Q-learning",
//!   <https://arxiv.org/abs/1509.06461>.
//! - `c51` and `qrdqn`: returns as distributions, see [`crate::q_head`].
//! - `rainbow`: Hessel et al. 2018, <https://arxiv.org/abs/1710.02298>: double, dueling, prioritised, multi-step, C51 and
//!   noisy networks together.
//!
//! Departures: truncated episodes are bootstrapped from their final observation; the importance weights' exponent is
//! annealed over the whole run; schedules count environment steps, whatever the number of environments.

use burn::prelude::*;
use burn::tensor::TensorData;
use hotfire_core::CoreError;
use hotfire_core::checkpoint::{CheckpointReader, CheckpointWriter};
use hotfire_core::config::{ConfigDocument, ConfigError};
use hotfire_core::metrics::Metrics;
use hotfire_core::schedule::Schedule;
use hotfire_core::seed::stream;
use hotfire_envs::{Buffer, Dtype, Space, StateReader, StateWriter, VecEnv};
use hotfire_nn::{Activation, Adam, AdamConfig, AdamRecord};
use serde::{Deserialize, Serialize};

use crate::agent::{as_actions, env_failed};
use crate::q_head::{ErrorLoss, QHead, TdBatch, greedy};
use crate::q_network::{CompiledQNetwork, GreedyQ, QNetwork, QNetworkConfig};
use crate::registry::{AlgorithmSpec, Setting};
use crate::replay::{Batch, Replay, ReplayConfig};
use crate::{Agent, Policy};

/// Deep Q-learning.
pub const DQN: AlgorithmSpec = AlgorithmSpec {
    name: "dqn",
    summary: "deep Q-learning, for Discrete actions",
    source: "Mnih et al. 2015, Nature 518",
    make: |document, setting| Ok(Box::new(Dqn::from_config(document, setting, DqnConfig::default())?)),
};

/// Double Q-learning.
pub const DDQN: AlgorithmSpec = AlgorithmSpec {
    name: "ddqn",
    summary: "double deep Q-learning, for Discrete actions",
    source: "van Hasselt et al. 2016, arXiv:1509.06461",
    make: |document, setting| Ok(Box::new(Dqn::from_config(document, setting, DqnConfig::double())?)),
};

/// Categorical distributional Q-learning.
pub const C51: AlgorithmSpec = AlgorithmSpec {
    name: "c51",
    summary: "distributional Q-learning with fixed atoms, for Discrete actions",
    source: "Bellemare et al. 2017, arXiv:1707.06887",
    make: |document, setting| Ok(Box::new(Dqn::from_config(document, setting, DqnConfig::c51())?)),
};

/// Quantile-regression Q-learning.
pub const QRDQN: AlgorithmSpec = AlgorithmSpec {
    name: "qrdqn",
    summary: "distributional Q-learning with quantiles, for Discrete actions",
    source: "Dabney et al. 2018, arXiv:1710.10044",
    make: |document, setting| Ok(Box::new(Dqn::from_config(document, setting, DqnConfig::qrdqn())?)),
};

/// All extensions at once.
pub const RAINBOW: AlgorithmSpec = AlgorithmSpec {
    name: "rainbow",
    summary: "DQN with all its extensions, for Discrete actions",
    source: "Hessel et al. 2018, arXiv:1710.02298",
    make: |document, setting| Ok(Box::new(Dqn::from_config(document, setting, DqnConfig::rainbow())?)),
};

/// How returns are represented.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Distribution {
    /// By their expectation.
    None,
    /// By probabilities of fixed atoms.
    C51,
    /// By quantiles.
    Qrdqn,
}

/// The `[agent]` section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DqnConfig {
    /// Adam's step size.
    pub learning_rate: Schedule,
    /// Discount.
    pub gamma: f64,
    /// Transitions of a gradient step.
    pub batch_size: usize,
    /// Transitions that the replay memory keeps.
    pub replay_capacity: usize,
    /// Environment steps under random actions before learning starts.
    pub learning_starts: u64,
    /// Environment steps between rounds of learning.
    pub train_freq: usize,
    /// Gradient steps of a round.
    pub gradient_steps: usize,
    /// Environment steps between updates of the target network, which are made before a round of learning.
    pub target_interval: u64,
    /// Chance of a random action; it runs over the first `exploration_fraction` of the run and stays at its end.
    pub epsilon: Schedule,
    /// The part of the run over which `epsilon` runs.
    pub exploration_fraction: f64,
    /// Whether the online network chooses the action that the target network values.
    pub double: bool,
    /// Whether value and advantage are separate streams of the network.
    pub dueling: bool,
    /// Whether transitions are drawn in proportion to their errors.
    pub prioritized: bool,
    /// The power of the errors that transitions are drawn in proportion to.
    pub priority_exponent: f64,
    /// The power of the importance weights, over the run: 1 undoes the priorities in full.
    pub importance_exponent: Schedule,
    /// Steps summed into a return before the target network's value.
    pub n_step: usize,
    /// Whether the last two layers are noisy, which explores without random actions.
    pub noisy: bool,
    /// The noise's scale at the start, before division by the root of a layer's inputs.
    pub noise_std: f64,
    /// `none`, `c51` or `qrdqn`.
    pub distribution: Distribution,
    /// Number of C51's atoms.
    pub atoms: usize,
    /// The least atom.
    pub v_min: f64,
    /// The largest atom.
    pub v_max: f64,
    /// Number of QR-DQN's quantiles.
    pub quantiles: usize,
    /// `huber` or `mse`, for `distribution = "none"`.
    pub loss: ErrorLoss,
    /// Largest global gradient norm.
    pub max_grad_norm: f64,
    /// Adam's epsilon.
    pub adam_epsilon: f64,
    /// Widths of the hidden layers.
    pub hidden: Vec<usize>,
    /// Activation of the hidden layers: `tanh`, `relu` or `silu`.
    pub activation: Activation,
    /// Whether checkpoints hold the replay memory. Without it a resumed run collects `learning_starts` steps anew before
    /// it goes on learning, and is not the uninterrupted run.
    pub checkpoint_replay: bool,
    /// A directory for a memory-mapped file with the replay memory's observations; none keeps them in memory.
    pub replay_directory: Option<std::path::PathBuf>,
}

impl Default for DqnConfig {
    fn default() -> Self {
        Self {
            learning_rate: Schedule::Constant(1e-4),
            gamma: 0.99,
            batch_size: 32,
            replay_capacity: 100_000,
            learning_starts: 1000,
            train_freq: 4,
            gradient_steps: 1,
            target_interval: 1000,
            epsilon: Schedule::Linear { from: 1.0, to: 0.05 },
            exploration_fraction: 0.1,
            double: false,
            dueling: false,
            prioritized: false,
            priority_exponent: 0.6,
            importance_exponent: Schedule::Linear { from: 0.4, to: 1.0 },
            n_step: 1,
            noisy: false,
            noise_std: 0.5,
            distribution: Distribution::None,
            atoms: 51,
            v_min: -10.0,
            v_max: 10.0,
            quantiles: 50,
            loss: ErrorLoss::Huber,
            max_grad_norm: 10.0,
            adam_epsilon: 1e-8,
            hidden: vec![128, 128],
            activation: Activation::Relu,
            checkpoint_replay: true,
            replay_directory: None,
        }
    }
}

impl DqnConfig {
    fn double() -> Self {
        Self { double: true, ..Self::default() }
    }

    fn c51() -> Self {
        Self { distribution: Distribution::C51, ..Self::default() }
    }

    fn qrdqn() -> Self {
        Self { distribution: Distribution::Qrdqn, ..Self::default() }
    }

    fn rainbow() -> Self {
        Self {
            double: true,
            dueling: true,
            prioritized: true,
            priority_exponent: 0.5,
            n_step: 3,
            noisy: true,
            distribution: Distribution::C51,
            epsilon: Schedule::Constant(0.0),
            ..Self::default()
        }
    }

    fn head(&self) -> QHead {
        match self.distribution {
            Distribution::None => QHead::Value(self.loss),
            Distribution::C51 => QHead::categorical(self.atoms, self.v_min, self.v_max),
            Distribution::Qrdqn => QHead::Quantiles(self.quantiles),
        }
    }

    fn check(&self, document: &ConfigDocument, setting: &Setting<'_>) -> Result<(), ConfigError> {
        let refuse = |key: &str, expected: &str, found: String| {
            Err(document.out_of_range(&format!("agent.{key}"), expected, found))
        };
        for (key, schedule, high) in [
            ("learning_rate", self.learning_rate, f64::MAX),
            ("epsilon", self.epsilon, 1.0),
            ("importance_exponent", self.importance_exponent, 1.0),
        ] {
            let (least, most) = schedule.bounds();
            if !(0.0 <= least && most <= high) {
                let expected = if high == 1.0 { "values from 0 to 1" } else { "values not below 0" };
                return refuse(key, expected, format!("values from {least} to {most}"));
            }
        }
        for (key, value) in [
            ("gamma", self.gamma),
            ("exploration_fraction", self.exploration_fraction),
            ("priority_exponent", self.priority_exponent),
        ] {
            if !(0.0..=1.0).contains(&value) {
                return refuse(key, "a number from 0 to 1", value.to_string());
            }
        }
        for (key, value) in
            [("max_grad_norm", self.max_grad_norm), ("adam_epsilon", self.adam_epsilon), ("noise_std", self.noise_std)]
        {
            if !(value > 0.0 && value.is_finite()) {
                return refuse(key, "a positive number", value.to_string());
            }
        }
        for (key, value) in [
            ("batch_size", self.batch_size),
            ("replay_capacity", self.replay_capacity),
            ("train_freq", self.train_freq),
            ("gradient_steps", self.gradient_steps),
            ("target_interval", self.target_interval as usize),
            ("n_step", self.n_step),
            ("quantiles", self.quantiles),
        ] {
            if value == 0 {
                return refuse(key, "at least 1", value.to_string());
            }
        }
        if self.replay_capacity > u32::MAX as usize / 2 {
            return refuse("replay_capacity", "at most 2147483647", self.replay_capacity.to_string());
        }
        if self.batch_size > self.replay_capacity {
            let expected = format!("at most agent.replay_capacity = {}", self.replay_capacity);
            return refuse("batch_size", &expected, self.batch_size.to_string());
        }
        if self.learning_starts >= setting.total_steps {
            let expected = format!("less than train.steps = {}, so that something is learned", setting.total_steps);
            return refuse("learning_starts", &expected, self.learning_starts.to_string());
        }
        if self.atoms < 2 {
            return refuse("atoms", "at least 2", self.atoms.to_string());
        }
        if self.v_min >= self.v_max {
            return refuse("v_max", &format!("more than agent.v_min = {}", self.v_min), self.v_max.to_string());
        }
        if self.hidden.contains(&0) {
            return refuse("hidden", "positive widths", format!("{:?}", self.hidden));
        }
        Ok(())
    }
}

/// The agent.
pub struct Dqn {
    config: DqnConfig,
    seed: u64,
    total_steps: u64,
    step: u64,
    /// Gradient steps so far.
    updates: u64,
    /// With and without autodiff.
    device: Device,
    plain_device: Device,
    envs: VecEnv,
    num_actions: usize,
    /// The least action.
    start: i32,
    head: QHead,
    net: QNetwork,
    target: QNetwork,
    optimizer: Adam,
    replay: Replay,
    batch: Batch,
    scratch: Scratch,
    /// The network as it acts; `None` after it has learned.
    acting: Option<CompiledQNetwork>,
    actions: Buffer,
}

/// Arrays of a gradient step.
#[derive(Default)]
struct Scratch {
    /// Actions taken and greedy next actions, counted from 0: `[B]`.
    actions: Vec<usize>,
    next_actions: Vec<usize>,
    /// `[B, A]`
    next_q: Vec<f32>,
    /// `[B, M]`
    targets: Vec<f32>,
    /// `[B]`
    errors: Vec<f32>,
}

/// What a checkpoint holds besides the networks, the moments, the environments and the replay memory.
#[derive(Serialize, Deserialize)]
struct State {
    step: u64,
    updates: u64,
    optimizer_steps: u64,
}

impl Dqn {
    /// Reads and checks the rest of `[agent]`, with the preset for keys that it leaves out, and makes the agent.
    ///
    /// # Errors
    /// [`ConfigError`] for values out of range or an environment with spaces that DQN can't serve.
    pub fn from_config(
        document: &mut ConfigDocument,
        setting: &Setting<'_>,
        preset: DqnConfig,
    ) -> Result<Self, ConfigError> {
        let config: DqnConfig = document.section_over("agent", &preset)?;
        config.check(document, setting)?;
        let mut envs = setting.env.make(setting.env.num_envs).map_err(|error| document.invalid("env", error))?;
        let (observations, actions) = (envs.observation_space().clone(), envs.action_space().clone());
        if observations.dtype() != Dtype::F32 || !matches!(observations, Space::Box { .. }) {
            let problem = format!("DQN needs Box observations of floats, found {observations}");
            return Err(document.invalid("env.id", problem));
        }
        let Space::Discrete { n, start } = actions else {
            let problem = format!("DQN needs Discrete actions, found {actions}; ppo serves Box actions");
            return Err(document.invalid("env.id", problem));
        };
        let head = config.head();
        let device = setting.device.clone().autodiff();
        let shape = QNetworkConfig {
            observation_len: observations.len(),
            num_actions: n as usize,
            width: head.width(),
            hidden: &config.hidden,
            activation: config.activation,
            dueling: config.dueling,
            noise: config.noisy.then_some(config.noise_std),
        };
        let net = QNetwork::new(&shape, &mut stream(setting.seed, "network", 0), &device);
        envs.reset(stream(setting.seed, "environments", 0).next_u64() >> 1);
        let layout = ReplayConfig {
            capacity: config.replay_capacity,
            n_step: config.n_step,
            gamma: config.gamma,
            frames: 1,
            priority_exponent: config.prioritized.then_some(config.priority_exponent),
            directory: config.replay_directory.clone(),
        };
        let mut replay = Replay::new(&observations, &actions, envs.num_envs(), layout)
            .map_err(|error| document.invalid("agent.replay_directory", error))?;
        replay.begin(envs.observations());
        Ok(Self {
            seed: setting.seed,
            total_steps: setting.total_steps,
            step: 0,
            updates: 0,
            target: net.valid(),
            net,
            optimizer: Adam::new(AdamConfig {
                epsilon: config.adam_epsilon,
                max_grad_norm: Some(config.max_grad_norm),
                ..AdamConfig::default()
            }),
            replay,
            batch: Batch::new(&observations, &actions, config.batch_size),
            scratch: Scratch::default(),
            acting: None,
            actions: Buffer::new(&actions, envs.num_envs()),
            num_actions: n as usize,
            start,
            head,
            plain_device: setting.device.clone(),
            device,
            envs,
            config,
        })
    }

    /// Steps the environments for one round and stores what they give.
    fn collect(&mut self, metrics: &mut Metrics) -> Result<(), CoreError> {
        let mut rng = stream(self.seed, "actions", self.step);
        let net = &self.net;
        let (noisy, head, device) = (self.config.noisy, &self.head, &self.device);
        let mut noise_rng = stream(self.seed, "acting noise", self.step);
        let acting = self.acting.get_or_insert_with(|| {
            let noise = noisy.then(|| net.draw_noise(&mut noise_rng, device));
            net.compile(head, noise.as_ref())
        });
        let Buffer::I32(actions) = &mut self.actions else { unreachable!("the buffer is made for a Discrete space") };
        let (mut returns, mut lengths, mut episodes) = (0.0, 0.0, 0.0);
        let mut epsilon = 1.0;
        for _ in 0..self.config.train_freq.div_ceil(actions.len()) {
            if self.step >= self.config.learning_starts {
                let progress = self.step as f64 / (self.total_steps as f64 * self.config.exploration_fraction);
                epsilon = self.config.epsilon.value(if progress.is_nan() { 1.0 } else { progress });
            }
            let mut any_greedy = false;
            for action in actions.iter_mut() {
                let random = epsilon > 0.0 && rng.uniform_f64() < epsilon;
                *action = if random { rng.below(self.num_actions as u32) as i32 } else { -1 };
                any_greedy |= !random;
            }
            if any_greedy {
                let q = acting.q_values(self.envs.observations_f32());
                for (action, q) in actions.iter_mut().zip(q.chunks_exact(self.num_actions)) {
                    if *action < 0 {
                        let mut best = [0];
                        greedy(q, self.num_actions, &mut best);
                        *action = best[0] as i32;
                    }
                }
            }
            actions.iter_mut().for_each(|action| *action += self.start);
            let chosen = Buffer::I32(std::mem::take(actions));
            let stepped = self.envs.step(as_actions(&chosen)).map_err(env_failed);
            if stepped.is_ok() {
                self.replay.push(&chosen, (&self.envs).into());
            }
            let Buffer::I32(used) = chosen else { unreachable!("it was just made of integers") };
            *actions = used;
            stepped?;
            self.step += actions.len() as u64;
            for episode in self.envs.ended_episodes() {
                returns += episode.episode_return;
                lengths += f64::from(episode.length);
                episodes += 1.0;
            }
        }
        if episodes > 0.0 {
            metrics.push("episode_return", returns / episodes);
            metrics.push("episode_length", lengths / episodes);
        }
        metrics.push("epsilon", epsilon);
        Ok(())
    }

    /// One gradient step.
    fn update(&mut self, learning_rate: f64, importance_exponent: f64, stats: &mut Statistics) {
        let draw = &mut stream(self.seed, "replay", self.updates);
        self.replay.sample(draw, importance_exponent, &mut self.batch);
        let Self { batch, scratch, .. } = self;
        let b = batch.indices.len();
        let rows = |buffer: &Buffer, device: &Device| -> Tensor<2> {
            let values = buffer.as_f32().expect("observations of 32-bit floats").to_vec();
            let d = values.len() / b;
            Tensor::from_data(TensorData::new(values, [b, d]), device)
        };
        let read = |tensor: Tensor<2>| -> Vec<f32> {
            tensor.into_data().try_into_vec().expect("network outputs are 32-bit floats")
        };
        let mut noise_rng = stream(self.seed, "learning noise", self.updates);
        let noise = self.config.noisy.then(|| self.net.draw_noise(&mut noise_rng, &self.device));
        let target_noise = self.config.noisy.then(|| self.target.draw_noise(&mut noise_rng, &self.plain_device));

        let next = rows(&batch.next_observations, &self.plain_device);
        let next_outputs = read(self.target.forward(next, target_noise.as_ref()));
        scratch.next_q.resize(b * self.num_actions, 0.0);
        if self.config.double {
            let next = rows(&batch.next_observations, &self.device);
            let online = read(self.net.forward(next, noise.as_ref()).inner());
            self.head.q_values(&online, &mut scratch.next_q);
        } else {
            self.head.q_values(&next_outputs, &mut scratch.next_q);
        }
        scratch.next_actions.resize(b, 0);
        greedy(&scratch.next_q, self.num_actions, &mut scratch.next_actions);
        scratch.targets.resize(b * self.head.width(), 0.0);
        self.head.targets(&next_outputs, &scratch.next_actions, &batch.returns, &batch.discounts, &mut scratch.targets);

        let taken = batch.actions.as_i32().expect("actions of a Discrete space");
        scratch.actions.clear();
        scratch.actions.extend(taken.iter().map(|action| (action - self.start) as usize));
        let outputs = self.net.forward(rows(&batch.observations, &self.device), noise.as_ref());
        let values = read(outputs.clone().inner());
        let mut gradient = vec![0.0; values.len()];
        scratch.errors.resize(b, 0.0);
        let td = TdBatch { actions: &scratch.actions, targets: &scratch.targets, weights: &batch.weights };
        let loss = self.head.loss(&values, td, &mut gradient, &mut scratch.errors);
        // The derivative of this sum by the outputs is the loss's, so it carries the loss into the network.
        let gradient = Tensor::from_data(TensorData::new(gradient, [b, values.len() / b]), &self.device);
        let gradients = (outputs * gradient).sum().backward();
        let (net, gradient_norm) = self.optimizer.step(self.net.clone(), gradients, learning_rate);
        self.net = net;
        self.replay.update_priorities(&batch.indices, &scratch.errors);
        self.updates += 1;

        self.head.q_values(&values, &mut scratch.next_q);
        let chosen = scratch.actions.iter().enumerate().map(|(i, a)| scratch.next_q[i * self.num_actions + a]);
        stats.q += f64::from(chosen.sum::<f32>()) / b as f64;
        stats.loss += loss;
        stats.gradient_norm += gradient_norm;
        stats.updates += 1.0;
    }

    /// Whether enough was collected, also by a run that was resumed without its replay memory.
    fn can_learn(&self) -> bool {
        let needed = (self.config.learning_starts as usize).max(self.config.batch_size);
        self.step >= self.config.learning_starts && self.replay.len() >= needed.min(self.replay.capacity())
    }
}

/// Sums over the gradient steps of a round.
#[derive(Default)]
struct Statistics {
    updates: f64,
    loss: f64,
    q: f64,
    gradient_norm: f64,
}

impl Agent for Dqn {
    fn step(&self) -> u64 {
        self.step
    }

    fn iterate(&mut self) -> Result<Metrics, CoreError> {
        let mut metrics = Metrics::new();
        let before = self.step;
        self.collect(&mut metrics)?;
        if before / self.config.target_interval != self.step / self.config.target_interval {
            self.target = self.net.valid();
        }
        if !self.can_learn() {
            return Ok(metrics);
        }
        let progress = self.step as f64 / self.total_steps as f64;
        let learning_rate = self.config.learning_rate.value(progress);
        let importance_exponent = self.config.importance_exponent.value(progress);
        let mut stats = Statistics::default();
        for _ in 0..self.config.gradient_steps {
            self.update(learning_rate, importance_exponent, &mut stats);
        }
        self.acting = None;
        metrics.push("loss", stats.loss / stats.updates);
        metrics.push("q_value", stats.q / stats.updates);
        metrics.push("grad_norm", stats.gradient_norm / stats.updates);
        metrics.push("learning_rate", learning_rate);
        if let Some(scale) = self.net.mean_noise_scale() {
            metrics.push("noise_scale", scale);
        }
        Ok(metrics)
    }

    fn policy(&self) -> Box<dyn Policy> {
        Box::new(GreedyQ { net: self.net.compile(&self.head, None), start: self.start, chosen: Vec::new() })
    }

    fn state_values(&self, observations: &Buffer) -> Option<Vec<f32>> {
        let Buffer::F32(observations) = observations else { unreachable!("the network is made for floats") };
        let mut net = self.net.compile(&self.head, None);
        let q = net.q_values(observations).chunks_exact(self.num_actions);
        Some(q.map(|q| q.iter().copied().fold(f32::NEG_INFINITY, f32::max)).collect())
    }

    fn save(&self, to: &mut CheckpointWriter) -> Result<(), CoreError> {
        let record = self.optimizer.record(&self.net);
        to.module("network.safetensors", &self.net)?;
        to.module("target.safetensors", &self.target)?;
        let moments: Vec<(&str, &[f32])> = record.moments.iter().map(|(name, m)| (name.as_str(), &m[..])).collect();
        to.arrays("optimizer.safetensors", &moments)?;
        let mut envs = StateWriter::default();
        self.envs.save_state(&mut envs);
        to.bytes("environments.bin", &envs.into_bytes())?;
        if self.config.checkpoint_replay {
            self.replay.save(to)?;
        }
        to.json("agent.json", &State { step: self.step, updates: self.updates, optimizer_steps: record.steps })
    }

    fn load(&mut self, from: &CheckpointReader) -> Result<(), CoreError> {
        let misfit = |name: &str, problem: String| CoreError::Checkpoint { path: from.path().join(name), problem };
        let state: State = from.json("agent.json")?;
        let net = from.module("network.safetensors", self.net.clone())?;
        let target = from.module("target.safetensors", self.target.clone())?;
        let moments = from.arrays("optimizer.safetensors")?.into_iter().collect();
        self.optimizer
            .load(&net, AdamRecord { steps: state.optimizer_steps, moments })
            .map_err(|problem| misfit("optimizer.safetensors", problem))?;
        self.envs
            .load_state(&mut StateReader::new(&from.bytes("environments.bin")?))
            .map_err(|error| misfit("environments.bin", error.to_string()))?;
        if Replay::is_in(from) {
            self.replay.load(from)?;
        } else {
            self.replay.begin(self.envs.observations());
        }
        (self.net, self.target) = (net, target);
        (self.step, self.updates) = (state.step, state.updates);
        self.acting = None;
        Ok(())
    }
}
