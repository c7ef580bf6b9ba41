//! Deep Q-learning and its extensions, each a switch of one algorithm; the presets differ in their defaults alone.
//!
//! - `dqn`: Mnih et al. 2015, "Human-level control through deep reinforcement learning", Nature 518.
//! - `ddqn`: van Hasselt et al. 2016, "Deep reinforcement learning with double Q-learning",
//!   <https://arxiv.org/abs/1509.06461>.
//! - `c51` and `qrdqn`: returns as distributions, see [`crate::q_head`].
//! - `rainbow`: Hessel et al. 2018, <https://arxiv.org/abs/1710.02298>: double, dueling, prioritised, multi-step, C51 and
//!   noisy networks together.
//!
//! Departures: Adam in place of DQN's RMSProp; priorities of C51 are made of the cross-entropy with the target, where
//! Rainbow has the Kullback-Leibler divergence; truncated episodes are bootstrapped from their final observation; the
//! importance weights' exponent is annealed over the whole run; schedules count environment steps, whatever the number of
//! environments; on images the heads alone are noisy, and not the dense layer before them, which belongs to the
//! convolutional network. Where the environment says which actions count, the others are neither taken nor counted in a
//! target; what counts in the final observation of a truncated episode is not known, so that there all do.

use std::ops::Range;

use burn::prelude::*;
use hotfire_core::CoreError;
use hotfire_core::checkpoint::{CheckpointReader, CheckpointWriter};
use hotfire_core::config::{ConfigDocument, ConfigError};
use hotfire_core::metrics::{Means, Metrics};
use hotfire_core::schedule::Schedule;
use hotfire_core::seed::stream;
use hotfire_envs::Buffer;
use hotfire_nn::{Activation, Adam, AdamConfig, Network, ema};
use serde::{Deserialize, Serialize};

use crate::experience::{Experience, ExperienceConfig, Noise, OffPolicy, Serves, iterate};
use crate::host_loss::{carry, to_tensor, to_vec};
use crate::on_policy::Check;
use crate::q_head::{ErrorLoss, QHead, TdBatch, best_actions};
use crate::q_network::{CompiledQNetwork, GreedyQ, QNetwork, QNetworkConfig, QNoise, export};
use crate::registry::{AlgorithmSpec, Setting};
use crate::{Agent, Policy, PolicyExport};

/// Deep Q-learning.
pub const DQN: AlgorithmSpec = AlgorithmSpec {
    name: "dqn",
    summary: "deep Q-learning, for Discrete actions",
    source: "Mnih et al. 2015, Nature 518",
    make: |document, setting| Ok(Box::new(Dqn::from_config(document, setting, "dqn", DqnConfig::default())?)),
};

/// Double Q-learning.
pub const DDQN: AlgorithmSpec = AlgorithmSpec {
    name: "ddqn",
    summary: "double deep Q-learning, for Discrete actions",
    source: "van Hasselt et al. 2016, arXiv:1509.06461",
    make: |document, setting| Ok(Box::new(Dqn::from_config(document, setting, "ddqn", DqnConfig::double())?)),
};

/// Categorical distributional Q-learning.
pub const C51: AlgorithmSpec = AlgorithmSpec {
    name: "c51",
    summary: "distributional Q-learning with fixed atoms, for Discrete actions",
    source: "Bellemare et al. 2017, arXiv:1707.06887",
    make: |document, setting| Ok(Box::new(Dqn::from_config(document, setting, "c51", DqnConfig::c51())?)),
};

/// Quantile-regression Q-learning.
pub const QRDQN: AlgorithmSpec = AlgorithmSpec {
    name: "qrdqn",
    summary: "distributional Q-learning with quantiles, for Discrete actions",
    source: "Dabney et al. 2018, arXiv:1710.10044",
    make: |document, setting| Ok(Box::new(Dqn::from_config(document, setting, "qrdqn", DqnConfig::qrdqn())?)),
};

/// All extensions at once.
pub const RAINBOW: AlgorithmSpec = AlgorithmSpec {
    name: "rainbow",
    summary: "DQN with all its extensions, for Discrete actions",
    source: "Hessel et al. 2018, arXiv:1710.02298",
    make: |document, setting| Ok(Box::new(Dqn::from_config(document, setting, "rainbow", DqnConfig::rainbow())?)),
};

const SERVES: Serves = Serves { boxes: false, discrete: true, images: true };

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
    /// Environment steps under random actions. Learning starts after them, as soon as there are enough for a batch.
    pub learning_starts: u64,
    /// Environment steps between rounds of learning, rounded up to whole steps of all environments.
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
    /// Whether the last two layers are noisy, on images the last one, which explores without random actions.
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
        let (low, high) = self.importance_exponent.bounds();
        check.range("importance_exponent", low, 0.0, 1.0)?;
        check.range("importance_exponent", high, 0.0, 1.0)?;
        check.range("priority_exponent", self.priority_exponent, 0.0, 1.0)?;
        check.positive_share("tau", self.tau)?;
        check.positive("max_grad_norm", self.max_grad_norm)?;
        check.positive("adam_epsilon", self.adam_epsilon)?;
        check.positive("noise_std", self.noise_std)?;
        check.at_least_one("target_interval", self.target_interval as usize)?;
        check.at_least_one("quantiles", self.quantiles)?;
        if self.atoms < 2 {
            return check.refuse("atoms", "at least 2", self.atoms);
        }
        if self.v_min >= self.v_max {
            return check.refuse("v_max", &format!("more than agent.v_min = {}", self.v_min), self.v_max);
        }
        check.widths("hidden", &self.hidden)?;
        self.experience().check(&check, setting)
    }

    fn experience(&self) -> ExperienceConfig {
        ExperienceConfig {
            gamma: self.gamma,
            batch_size: self.batch_size,
            replay_capacity: self.replay_capacity,
            learning_starts: self.learning_starts,
            train_freq: self.train_freq,
            gradient_steps: self.gradient_steps,
            n_step: self.n_step,
            epsilon: self.epsilon,
            exploration_fraction: self.exploration_fraction,
            noise: Noise::None,
            noise_std: 0.0,
            uses_masks: true,
            priority_exponent: self.prioritized.then_some(self.priority_exponent),
            checkpoint_replay: self.checkpoint_replay,
            replay_directory: self.replay_directory.clone(),
        }
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
    /// With and without autodiff.
    device: Device,
    plain_device: Device,
    experience: Experience,
    head: QHead,
    net: QNetwork,
    target: QNetwork,
    optimizer: Adam,
    drawn: Drawn,
    /// The network as it acts; `None` after it has learned.
    acting: Option<CompiledQNetwork>,
}

/// What the gradient steps whose targets are computed at once learn from; `B` rows in all.
#[derive(Default)]
struct Drawn {
    /// Encoded observations: `[B, D]`.
    inputs: Vec<f32>,
    /// Actions taken, counted from 0: `[B]`.
    actions: Vec<usize>,
    /// `[B, M]`
    targets: Vec<f32>,
    /// Importance weights: `[B]`.
    weights: Vec<f32>,
    /// `[B]`, written by the gradient steps.
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
        name: &str,
        preset: DqnConfig,
    ) -> Result<Self, ConfigError> {
        let config: DqnConfig = document.section_over("agent", &preset)?;
        config.check(document, setting)?;
        let mut experience = Experience::new(config.experience(), name, SERVES, document, setting)?;
        let input = experience.encoder.shape();
        let head = config.head();
        let device = setting.device.clone().autodiff();
        let network = config.network.resolve(input).map_err(|problem| document.invalid("agent.network", problem))?;
        let shape = QNetworkConfig {
            input,
            network,
            num_actions: experience.actions.width(),
            width: head.width(),
            hidden: if network == Network::Mlp { &config.hidden } else { &[] },
            activation: config.activation,
            dueling: config.dueling,
            noise: config.noisy.then_some(config.noise_std),
            layer_norm: false,
        };
        let net = QNetwork::new(&shape, &mut stream(setting.seed, "network", 0), &device)
            .map_err(|problem| document.invalid("agent.network", problem))?;
        experience.draw_at_once(config.steps_at_once(input.len()));
        Ok(Self {
            target: net.valid(),
            net,
            optimizer: Adam::new(AdamConfig {
                epsilon: config.adam_epsilon,
                max_grad_norm: Some(config.max_grad_norm),
                ..AdamConfig::default()
            }),
            experience,
            drawn: Drawn::default(),
            acting: None,
            head,
            plain_device: setting.device.clone(),
            device,
            config,
        })
    }

    /// Draws the batches of as many gradient steps as a draw has, and computes their targets.
    fn draw(&mut self, importance_exponent: f64, noise: Option<&QNoise>) {
        let (seed, updates) = (self.experience.seed, self.experience.updates);
        let num_actions = self.experience.actions.width();
        let map = self.experience.actions.clone();
        let batch = self.experience.sample(importance_exponent);
        let rows = batch.returns.len();

        let target_noise =
            noise.map(|_| self.target.draw_noise(&mut stream(seed, "target noise", updates), &self.plain_device));
        let mut q = vec![0.0; rows * num_actions];
        let online = self.config.double.then(|| {
            let next = to_tensor(batch.next_observations.clone(), rows, &self.device);
            to_vec(self.net.forward(next, noise).inner())
        });
        let next = to_tensor(batch.next_observations, rows, &self.plain_device);
        let next_outputs = to_vec(self.target.forward(next, target_noise.as_ref()));
        self.head.q_values(online.as_ref().unwrap_or(&next_outputs), &mut q);
        let next_actions: Vec<usize> = best_actions(&q, num_actions, batch.next_masks).collect();

        let drawn = &mut self.drawn;
        drawn.targets.resize(rows * self.head.width(), 0.0);
        self.head.targets(&next_outputs, &next_actions, batch.returns, batch.discounts, &mut drawn.targets);
        drawn.inputs = batch.observations;
        drawn.actions = map.columns(batch.actions);
        drawn.weights.clear();
        drawn.weights.extend_from_slice(batch.weights);
        drawn.errors.resize(rows, 0.0);
    }

    /// One gradient step on rows of what was drawn.
    fn update(&mut self, rows: Range<usize>, noise: Option<&QNoise>, learning_rate: f64, means: &mut Means) {
        let (drawn, head) = (&mut self.drawn, &self.head);
        let (m, b) = (head.width(), rows.len());
        let d = drawn.inputs.len() / drawn.actions.len();
        let inputs = drawn.inputs[rows.start * d..rows.end * d].to_vec();
        let outputs = self.net.forward(to_tensor(inputs, b, &self.device), noise);
        let values = to_vec(outputs.clone().inner());
        let td = TdBatch {
            actions: &drawn.actions[rows.clone()],
            targets: &drawn.targets[rows.start * m..rows.end * m],
            weights: &drawn.weights[rows.clone()],
        };
        let mut gradient = vec![0.0; values.len()];
        let loss = head.loss(&values, td, &mut gradient, &mut drawn.errors[rows.clone()]);
        let gradients = carry(outputs, gradient, &self.device).backward();
        let (net, gradient_norm) = self.optimizer.step(self.net.clone(), gradients, learning_rate);
        self.net = net;
        self.experience.updates += 1;

        let mut q = vec![0.0; values.len() / m];
        head.q_values(&values, &mut q);
        let chosen = drawn.actions[rows].iter().zip(q.chunks_exact(q.len() / b)).map(|(action, q)| q[*action]);
        means.add("loss", loss);
        means.add("q_value", f64::from(chosen.sum::<f32>()) / b as f64);
        means.add("grad_norm", gradient_norm);
    }

    fn greedy(&self) -> GreedyQ {
        GreedyQ {
            net: self.net.compile(&self.head, None),
            encoder: self.experience.encoder.clone(),
            start: self.experience.actions.start(),
        }
    }
}

impl OffPolicy for Dqn {
    fn experience(&self) -> &Experience {
        &self.experience
    }

    fn collect(&mut self, means: &mut Means) -> Result<(), CoreError> {
        let before = self.experience.step;
        if self.config.noisy {
            // Each round draws its noise, also while there is too little to learn from: a resumed run would not know it.
            self.acting = None;
        }
        let mut rng = stream(self.experience.seed, "acting noise", before);
        let (net, acting, map) = (&self.net, &mut self.acting, self.experience.actions.clone());
        self.experience.collect(means, |seen, actions, _| {
            let acting = acting.get_or_insert_with(|| {
                let noise = self.config.noisy.then(|| net.draw_noise(&mut rng, &self.device));
                net.compile(&self.head, noise.as_ref())
            });
            let Buffer::I32(actions) = actions else { unreachable!("the buffer is made for a Discrete space") };
            let best = best_actions(acting.q_values(seen.inputs), map.width(), seen.masks);
            actions.iter_mut().zip(best).for_each(|(action, best)| *action = map.start() + best as i32);
        })?;
        if before / self.config.target_interval != self.experience.step / self.config.target_interval {
            self.target = match self.config.tau {
                1.0 => self.net.valid(),
                tau => ema(self.target.clone(), &self.net, 1.0 - tau),
            };
        }
        Ok(())
    }

    fn learn(&mut self, means: &mut Means) {
        let progress = self.experience.progress();
        let learning_rate = self.config.learning_rate.value(progress);
        let importance_exponent = self.config.importance_exponent.value(progress);
        for _ in 0..self.config.gradient_steps / self.experience.batches() {
            let mut rng = stream(self.experience.seed, "learning noise", self.experience.updates);
            let noise = self.config.noisy.then(|| self.net.draw_noise(&mut rng, &self.device));
            self.draw(importance_exponent, noise.as_ref());
            let b = self.config.batch_size;
            for first in (0..self.drawn.actions.len()).step_by(b) {
                self.update(first..first + b, noise.as_ref(), learning_rate, means);
            }
            self.experience.update_priorities(&self.drawn.errors);
        }
        means.add("learning_rate", learning_rate);
        self.acting = None;
    }
}

impl Agent for Dqn {
    fn step(&self) -> u64 {
        self.experience.step
    }

    fn iterate(&mut self) -> Result<Metrics, CoreError> {
        let mut metrics = iterate(self)?;
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

    fn export(&self) -> PolicyExport {
        let experience = &self.experience;
        let (shape, start) = (experience.encoder.shape(), experience.actions.start());
        export(&self.net, &self.head, shape, experience.example(), start)
    }

    fn save(&self, to: &mut CheckpointWriter) -> Result<(), CoreError> {
        to.module("network.safetensors", &self.net)?;
        to.module("target.safetensors", &self.target)?;
        let optimizer_steps = self.optimizer.save(to, "optimizer.safetensors", &self.net)?;
        self.experience.save(to)?;
        let Experience { step, updates, .. } = self.experience;
        to.json("agent.json", &State { step, updates, optimizer_steps })
    }

    fn load(&mut self, from: &CheckpointReader) -> Result<(), CoreError> {
        let state: State = from.json("agent.json")?;
        let net = from.module("network.safetensors", self.net.clone())?;
        let target = from.module("target.safetensors", self.target.clone())?;
        self.optimizer.restore(from, "optimizer.safetensors", &net, state.optimizer_steps)?;
        self.experience.load(from)?;
        (self.net, self.target) = (net, target);
        (self.experience.step, self.experience.updates) = (state.step, state.updates);
        self.acting = None;
        Ok(())
    }
}
