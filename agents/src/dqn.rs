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
//! annealed over the whole run; schedules count environment steps, whatever the number of environments. Action masks are
//! not used: masked actions are allowed, and learning about them needs no masks in the replay memory.

use std::ops::Range;

use burn::prelude::*;
use burn::tensor::TensorData;
use hotfire_core::CoreError;
use hotfire_core::checkpoint::{CheckpointReader, CheckpointWriter};
use hotfire_core::config::{ConfigDocument, ConfigError};
use hotfire_core::metrics::Metrics;
use hotfire_core::schedule::Schedule;
use hotfire_core::seed::stream;
use hotfire_envs::{Buffer, Space, VecEnv};
use hotfire_nn::{Activation, Adam, AdamConfig, Network, ema};
use serde::{Deserialize, Serialize};

use crate::agent::{as_actions, env_failed};
use crate::checkpoint::{load_envs, load_optimizer, save_envs, save_optimizer};
use crate::observation::ObservationEncoder;
use crate::on_policy::Check;
use crate::q_head::{ErrorLoss, QHead, TdBatch, best_action};
use crate::q_network::{CompiledQNetwork, GreedyQ, QNetwork, QNetworkConfig, QNoise};
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
    /// How far an update moves the target network towards the online network: 1 copies it.
    pub tau: f64,
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
    /// What looks at observations first: `auto`, `mlp`, `nature_cnn` or `minatar_cnn`.
    pub network: Network,
    /// Widths of the hidden layers; a convolutional network has a dense layer of its own, and the heads are linear.
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
            tau: 1.0,
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
            network: Network::Auto,
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
        let check = Check { document };
        check.schedule("learning_rate", self.learning_rate)?;
        for (key, schedule) in [("epsilon", self.epsilon), ("importance_exponent", self.importance_exponent)] {
            let (low, high) = schedule.bounds();
            check.range(key, low, 0.0, 1.0)?;
            check.range(key, high, 0.0, 1.0)?;
        }
        check.range("gamma", self.gamma, 0.0, 1.0)?;
        check.range("exploration_fraction", self.exploration_fraction, 0.0, 1.0)?;
        check.range("priority_exponent", self.priority_exponent, 0.0, 1.0)?;
        check.range("tau", self.tau, 0.0, 1.0)?;
        check.positive("tau", self.tau)?;
        check.positive("max_grad_norm", self.max_grad_norm)?;
        check.positive("adam_epsilon", self.adam_epsilon)?;
        check.positive("noise_std", self.noise_std)?;
        check.at_least_one("batch_size", self.batch_size)?;
        check.at_least_one("replay_capacity", self.replay_capacity)?;
        check.at_least_one("train_freq", self.train_freq)?;
        check.at_least_one("gradient_steps", self.gradient_steps)?;
        check.at_least_one("target_interval", self.target_interval as usize)?;
        check.at_least_one("n_step", self.n_step)?;
        check.at_least_one("quantiles", self.quantiles)?;
        if self.replay_capacity > u32::MAX as usize / 2 {
            return check.refuse("replay_capacity", "at most 2147483647", self.replay_capacity);
        }
        if self.batch_size > self.replay_capacity {
            let expected = format!("at most agent.replay_capacity = {}", self.replay_capacity);
            return check.refuse("batch_size", &expected, self.batch_size);
        }
        if self.learning_starts >= setting.total_steps {
            let expected = format!("less than train.steps = {}, so that something is learned", setting.total_steps);
            return check.refuse("learning_starts", &expected, self.learning_starts);
        }
        if self.atoms < 2 {
            return check.refuse("atoms", "at least 2", self.atoms);
        }
        if self.v_min >= self.v_max {
            return check.refuse("v_max", &format!("more than agent.v_min = {}", self.v_min), self.v_max);
        }
        if self.hidden.contains(&0) {
            return check.refuse("hidden", "positive widths", format!("{:?}", self.hidden));
        }
        Ok(())
    }

    /// How many gradient steps' targets are computed at once: as many as one state of the networks serves, in parts
    /// that keep their inputs in cache-friendly bounds.
    fn steps_at_once(&self, input_len: usize) -> usize {
        if self.double || self.noisy || self.prioritized {
            return 1;
        }
        let most = (TARGET_NUMBERS / (input_len.max(1) * self.batch_size)).clamp(1, self.gradient_steps);
        (1..=most).rev().find(|steps| self.gradient_steps.is_multiple_of(*steps)).unwrap_or(1)
    }
}

/// Most numbers of next observations that go through the target network at once.
const TARGET_NUMBERS: usize = 1 << 18;

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
    encoder: ObservationEncoder,
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

/// Arrays of the gradient steps whose targets are computed at once; `B` rows in all.
#[derive(Default)]
struct Scratch {
    /// Encoded observations and next observations: `[B, D]`.
    inputs: Vec<f32>,
    next_inputs: Vec<f32>,
    /// Actions taken and greedy next actions, counted from 0: `[B]`.
    actions: Vec<usize>,
    next_actions: Vec<usize>,
    /// `[B, A]`
    q: Vec<f32>,
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
        let Space::Discrete { n, start } = actions else {
            let problem = format!("deep Q-learning needs Discrete actions, found {actions}; ppo serves Box actions");
            return Err(document.invalid("env.id", problem));
        };
        let encoder = ObservationEncoder::new(&observations);
        let head = config.head();
        let device = setting.device.clone().autodiff();
        let network =
            config.network.resolve(encoder.shape()).map_err(|problem| document.invalid("agent.network", problem))?;
        let shape = QNetworkConfig {
            input: encoder.shape(),
            network,
            num_actions: n as usize,
            width: head.width(),
            hidden: if network == Network::Mlp { &config.hidden } else { &[] },
            activation: config.activation,
            dueling: config.dueling,
            noise: config.noisy.then_some(config.noise_std),
            layer_norm: false,
        };
        let net = QNetwork::new(&shape, &mut stream(setting.seed, "network", 0), &device)
            .map_err(|problem| document.invalid("agent.network", problem))?;
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
            batch: Batch::new(&observations, &actions, config.batch_size * config.steps_at_once(encoder.outputs())),
            encoder,
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
                let input = self.encoder.input(self.envs.observations(), 0..actions.len(), &mut self.scratch.inputs);
                for (action, q) in actions.iter_mut().zip(acting.q_values(input).chunks_exact(self.num_actions)) {
                    if *action < 0 {
                        *action = best_action(q) as i32;
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

    /// Draws the batches of as many gradient steps as the batch holds, and computes their targets.
    fn draw(&mut self, importance_exponent: f64, noise: Option<&QNoise>) {
        let mut rng = stream(self.seed, "replay", self.updates);
        self.replay.sample(&mut rng, importance_exponent, &mut self.batch);
        let Self { batch, scratch, encoder, .. } = self;
        let rows = batch.indices.len();
        let (d, a) = (encoder.outputs(), self.num_actions);
        scratch.inputs.resize(rows * d, 0.0);
        encoder.encode(&batch.observations, &mut scratch.inputs);
        scratch.next_inputs.resize(rows * d, 0.0);
        encoder.encode(&batch.next_observations, &mut scratch.next_inputs);
        let taken = batch.actions.as_i32().expect("actions of a Discrete space");
        scratch.actions.clear();
        scratch.actions.extend(taken.iter().map(|action| (action - self.start) as usize));

        let target_noise = noise.map(|_| {
            let mut rng = stream(self.seed, "target noise", self.updates);
            self.target.draw_noise(&mut rng, &self.plain_device)
        });
        let next = upload(&scratch.next_inputs, d, &self.plain_device);
        let next_outputs = read(self.target.forward(next, target_noise.as_ref()));
        scratch.q.resize(rows * a, 0.0);
        if self.config.double {
            let next = upload(&scratch.next_inputs, d, &self.device);
            self.head.q_values(&read(self.net.forward(next, noise).inner()), &mut scratch.q);
        } else {
            self.head.q_values(&next_outputs, &mut scratch.q);
        }
        scratch.next_actions.clear();
        scratch.next_actions.extend(scratch.q.chunks_exact(a).map(best_action));
        scratch.targets.resize(rows * self.head.width(), 0.0);
        let (returns, discounts) = (&batch.returns, &batch.discounts);
        self.head.targets(&next_outputs, &scratch.next_actions, returns, discounts, &mut scratch.targets);
        scratch.errors.resize(rows, 0.0);
    }

    /// One gradient step on rows of the batch.
    fn update(&mut self, rows: Range<usize>, noise: Option<&QNoise>, learning_rate: f64, stats: &mut Statistics) {
        let Self { batch, scratch, head, .. } = self;
        let (d, a, m, b) = (self.encoder.outputs(), self.num_actions, head.width(), rows.len());
        let outputs = self.net.forward(upload(&scratch.inputs[rows.start * d..rows.end * d], d, &self.device), noise);
        let values = read(outputs.clone().inner());
        let td = TdBatch {
            actions: &scratch.actions[rows.clone()],
            targets: &scratch.targets[rows.start * m..rows.end * m],
            weights: &batch.weights[rows.clone()],
        };
        let mut gradient = vec![0.0; values.len()];
        let loss = head.loss(&values, td, &mut gradient, &mut scratch.errors[rows.clone()]);
        // The derivative of this sum by the outputs is the loss's, so it carries the loss into the network.
        let gradient = Tensor::from_data(TensorData::new(gradient, [b, a * m]), &self.device);
        let gradients = (outputs * gradient).sum().backward();
        let (net, gradient_norm) = self.optimizer.step(self.net.clone(), gradients, learning_rate);
        self.net = net;
        self.updates += 1;

        let q = &mut scratch.q[..b * a];
        head.q_values(&values, q);
        let chosen = scratch.actions[rows].iter().zip(q.chunks_exact(a)).map(|(action, q)| q[*action]);
        stats.q += f64::from(chosen.sum::<f32>()) / b as f64;
        stats.loss += loss;
        stats.gradient_norm += gradient_norm;
        stats.updates += 1.0;
    }

    /// As many gradient steps as the batch holds.
    fn learn(&mut self, learning_rate: f64, importance_exponent: f64, stats: &mut Statistics) {
        let mut rng = stream(self.seed, "learning noise", self.updates);
        let noise = self.config.noisy.then(|| self.net.draw_noise(&mut rng, &self.device));
        self.draw(importance_exponent, noise.as_ref());
        let b = self.config.batch_size;
        for first in (0..self.batch.indices.len()).step_by(b) {
            self.update(first..first + b, noise.as_ref(), learning_rate, stats);
        }
        self.replay.update_priorities(&self.batch.indices, &self.scratch.errors);
    }

    fn greedy(&self) -> GreedyQ {
        GreedyQ { net: self.net.compile(&self.head, None), encoder: self.encoder.clone(), start: self.start }
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
            self.target = match self.config.tau {
                1.0 => self.net.valid(),
                tau => ema(self.target.clone(), &self.net, 1.0 - tau),
            };
        }
        if !self.can_learn() {
            return Ok(metrics);
        }
        let progress = self.step as f64 / self.total_steps as f64;
        let learning_rate = self.config.learning_rate.value(progress);
        let importance_exponent = self.config.importance_exponent.value(progress);
        let mut stats = Statistics::default();
        for _ in 0..self.config.gradient_steps / (self.batch.indices.len() / self.config.batch_size) {
            self.learn(learning_rate, importance_exponent, &mut stats);
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
        Box::new(self.greedy())
    }

    fn state_values(&self, observations: &Buffer) -> Option<Vec<f32>> {
        Some(self.greedy().state_values(observations))
    }

    fn save(&self, to: &mut CheckpointWriter) -> Result<(), CoreError> {
        to.module("network.safetensors", &self.net)?;
        to.module("target.safetensors", &self.target)?;
        let optimizer_steps = save_optimizer(to, "optimizer.safetensors", &self.optimizer, &self.net)?;
        save_envs(to, &self.envs)?;
        if self.config.checkpoint_replay {
            self.replay.save(to)?;
        }
        to.json("agent.json", &State { step: self.step, updates: self.updates, optimizer_steps })
    }

    fn load(&mut self, from: &CheckpointReader) -> Result<(), CoreError> {
        let state: State = from.json("agent.json")?;
        let net = from.module("network.safetensors", self.net.clone())?;
        let target = from.module("target.safetensors", self.target.clone())?;
        load_optimizer(from, "optimizer.safetensors", &mut self.optimizer, &net, state.optimizer_steps)?;
        load_envs(from, &mut self.envs)?;
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

fn upload(rows: &[f32], width: usize, device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(rows.to_vec(), [rows.len() / width, width]), device)
}

fn read(outputs: Tensor<2>) -> Vec<f32> {
    outputs.into_data().try_into_vec().expect("network outputs are 32-bit floats")
}
