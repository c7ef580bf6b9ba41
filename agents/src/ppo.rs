//! Proximal policy optimization with a clipped objective.
//!
//! Schulman et al. 2017, <https://arxiv.org/abs/1707.06347>, with the details that Huang et al. 2022 ("The 37
//! implementation details of PPO") found to matter: orthogonal initialisation, minibatches over shuffled epochs,
//! advantages normalised per minibatch, optional value clipping, global-norm clipping, annealing, an optional stop on
//! the KL divergence. It departs from CleanRL in bootstrapping truncated episodes from their final observation.

use burn::prelude::*;
use burn::tensor::TensorData;
use hotfire_core::CoreError;
use hotfire_core::checkpoint::{CheckpointReader, CheckpointWriter};
use hotfire_core::config::{ConfigDocument, ConfigError};
use hotfire_core::metrics::Metrics;
use hotfire_core::schedule::Schedule;
use hotfire_core::seed::stream;
use hotfire_envs::{Buffer, StateReader, StateWriter, VecEnv};
use hotfire_nn::distributions::{categorical, gaussian};
use hotfire_nn::{Activation, Adam, AdamConfig, AdamRecord, Network, Torso};
use serde::{Deserialize, Serialize};

use crate::actor_critic::{ActorCritic, GreedyActorCritic, Head};
use crate::gae::{Trajectory, gae};
use crate::normalize::{ObservationNormalizer, RewardNormalizer};
use crate::observation::ObservationEncoder;
use crate::registry::{AlgorithmSpec, Setting};
use crate::rollout::Rollout;
use crate::{Agent, Policy};

/// The registry's entry.
pub const SPEC: AlgorithmSpec = AlgorithmSpec {
    name: "ppo",
    summary: "proximal policy optimization, for Discrete and Box actions",
    source: "Schulman et al. 2017, arXiv:1707.06347",
    make: |document, setting| Ok(Box::new(Ppo::from_config(document, setting)?)),
};

/// The `[agent]` section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PpoConfig {
    /// Adam's step size.
    pub learning_rate: Schedule,
    /// Steps `T` that each environment takes before an update.
    pub rollout_steps: usize,
    /// Passes over a rollout.
    pub epochs: usize,
    /// Minibatches of a pass.
    pub minibatches: usize,
    /// Discount.
    pub gamma: f64,
    /// GAE's trade of bias against variance.
    pub gae_lambda: f64,
    /// The probability ratio may leave `[1 - clip, 1 + clip]` without further gain.
    pub clip: Schedule,
    /// Whether the value may move by more than `clip` without further gain.
    pub clip_value: bool,
    /// Weight of the entropy bonus.
    pub entropy_coef: Schedule,
    /// Weight of the value loss.
    pub value_coef: f64,
    /// Largest global gradient norm.
    pub max_grad_norm: f64,
    /// Whether each minibatch's advantages are brought to mean 0 and standard deviation 1.
    pub normalize_advantage: bool,
    /// Stops the passes over a rollout once the policy's KL divergence from the one that acted exceeds it.
    pub target_kl: Option<f64>,
    /// Adam's epsilon.
    pub adam_epsilon: f64,
    /// What looks at the observations: `mlp`, `nature_cnn`, `minatar_cnn`, or `auto` by their shape.
    pub network: Network,
    /// Widths of the hidden layers of an `mlp`, of the policy and the value network alike.
    pub hidden: Vec<usize>,
    /// Activation of the hidden layers: `tanh`, `relu` or `silu`.
    pub activation: Activation,
    /// Logarithm of a Gaussian policy's standard deviation at the start.
    pub initial_log_std: f64,
    /// Whether observations are normalised by running statistics.
    pub normalize_observations: bool,
    /// Whether rewards are divided by the running standard deviation of the discounted return.
    pub normalize_rewards: bool,
}

impl Default for PpoConfig {
    fn default() -> Self {
        Self {
            learning_rate: Schedule::Constant(3e-4),
            rollout_steps: 128,
            epochs: 4,
            minibatches: 4,
            gamma: 0.99,
            gae_lambda: 0.95,
            clip: Schedule::Constant(0.2),
            clip_value: false,
            entropy_coef: Schedule::Constant(0.0),
            value_coef: 0.5,
            max_grad_norm: 0.5,
            normalize_advantage: true,
            target_kl: None,
            adam_epsilon: 1e-5,
            network: Network::Auto,
            hidden: vec![64, 64],
            activation: Activation::Tanh,
            initial_log_std: 0.0,
            normalize_observations: false,
            normalize_rewards: false,
        }
    }
}

impl PpoConfig {
    fn check(&self, document: &ConfigDocument, num_envs: usize) -> Result<(), ConfigError> {
        let refuse = |key: &str, expected: &str, found: String| {
            Err(document.out_of_range(&format!("agent.{key}"), expected, found))
        };
        let range = |key, value: f64, low: f64, high: f64| {
            if (low..=high).contains(&value) {
                Ok(())
            } else if high.is_finite() {
                refuse(key, &format!("a number from {low} to {high}"), value.to_string())
            } else {
                refuse(key, &format!("a finite number not below {low}"), value.to_string())
            }
        };
        for (key, schedule) in
            [("learning_rate", self.learning_rate), ("clip", self.clip), ("entropy_coef", self.entropy_coef)]
        {
            let (low, high) = schedule.bounds();
            range(key, low, 0.0, f64::MAX)?;
            range(key, high, 0.0, f64::MAX)?;
        }
        range("gamma", self.gamma, 0.0, 1.0)?;
        range("gae_lambda", self.gae_lambda, 0.0, 1.0)?;
        range("value_coef", self.value_coef, 0.0, f64::MAX)?;
        range("initial_log_std", self.initial_log_std, -20.0, 2.0)?;
        for (key, value) in [("max_grad_norm", self.max_grad_norm), ("adam_epsilon", self.adam_epsilon)] {
            if !(value > 0.0 && value.is_finite()) {
                return refuse(key, "a positive number", value.to_string());
            }
        }
        if let Some(kl) = self.target_kl
            && !(kl > 0.0 && kl.is_finite())
        {
            return refuse("target_kl", "a positive number", kl.to_string());
        }
        for (key, value) in [("rollout_steps", self.rollout_steps), ("epochs", self.epochs)] {
            if value == 0 {
                return refuse(key, "at least 1", value.to_string());
            }
        }
        let batch = self.rollout_steps * num_envs;
        if self.minibatches == 0 || !batch.is_multiple_of(self.minibatches) || batch / self.minibatches < 2 {
            let expected = format!("a divisor of rollout_steps * num_envs = {batch} that leaves at least 2 steps each");
            return refuse("minibatches", &expected, self.minibatches.to_string());
        }
        if self.hidden.contains(&0) {
            return refuse("hidden", "positive widths", format!("{:?}", self.hidden));
        }
        Ok(())
    }
}

/// The agent.
pub struct Ppo {
    config: PpoConfig,
    seed: u64,
    total_steps: u64,
    step: u64,
    device: Device,
    envs: VecEnv,
    encoder: ObservationEncoder,
    head: Head,
    net: ActorCritic,
    optimizer: Adam,
    rollout: Rollout,
    observation_normalizer: Option<ObservationNormalizer>,
    reward_normalizer: Option<RewardNormalizer>,
    /// Value estimates, advantages and value targets of the rollout: `[T, N]`.
    values: Vec<f32>,
    next_values: Vec<f32>,
    advantages: Vec<f32>,
    returns: Vec<f32>,
}

/// What a checkpoint holds besides the network, the moments and the environments.
#[derive(Serialize, Deserialize)]
struct State {
    step: u64,
    optimizer_steps: u64,
    observation_normalizer: Option<ObservationNormalizer>,
    reward_normalizer: Option<RewardNormalizer>,
}

impl Ppo {
    /// Reads and checks the rest of `[agent]`, and makes the agent.
    ///
    /// # Errors
    /// [`ConfigError`] for values out of range or an environment with spaces that PPO can't serve.
    pub fn from_config(document: &mut ConfigDocument, setting: &Setting<'_>) -> Result<Self, ConfigError> {
        let config: PpoConfig = document.section("agent")?;
        config.check(document, setting.env.num_envs)?;
        let mut envs = setting.env.make(setting.env.num_envs).map_err(|error| document.invalid("env", error))?;
        let encoder = ObservationEncoder::new(envs.observation_space());
        if config.normalize_observations && !encoder.is_identity() {
            let problem = format!("only vectors of floats can be normalised, found {}", envs.observation_space());
            return Err(document.invalid("agent.normalize_observations", problem));
        }
        let Some(head) = Head::of(envs.action_space()) else {
            let problem = format!("ppo needs Discrete or Box actions, found {}", envs.action_space());
            return Err(document.invalid("env.id", problem));
        };
        let device = setting.device.clone().autodiff();
        let mut rng = stream(setting.seed, "network", 0);
        let torso = Torso::new(config.network, encoder.shape(), &mut rng, &device)
            .map_err(|problem| document.invalid("agent.network", problem))?;
        let net = ActorCritic::new(
            torso,
            &head,
            &config.hidden,
            config.activation,
            config.initial_log_std,
            &mut rng,
            &device,
        );
        envs.reset(stream(setting.seed, "environments", 0).next_u64() >> 1);
        let rollout = Rollout::new(&envs, config.rollout_steps);
        let zeros = || vec![0.0; rollout.len()];
        Ok(Self {
            seed: setting.seed,
            total_steps: setting.total_steps,
            step: 0,
            optimizer: Adam::new(AdamConfig {
                epsilon: config.adam_epsilon,
                max_grad_norm: Some(config.max_grad_norm),
                ..AdamConfig::default()
            }),
            observation_normalizer: config
                .normalize_observations
                .then(|| ObservationNormalizer::new(encoder.row_len(), 10.0)),
            reward_normalizer: config
                .normalize_rewards
                .then(|| RewardNormalizer::new(envs.num_envs(), config.gamma, 10.0)),
            values: zeros(),
            next_values: zeros(),
            advantages: zeros(),
            returns: zeros(),
            rollout,
            device,
            envs,
            encoder,
            head,
            net,
            config,
        })
    }

    /// One pass over the rollout; returns whether the KL divergence allows another.
    fn epoch(&mut self, epoch: usize, progress: f64, stats: &mut Statistics) -> bool {
        let mut order: Vec<u32> = (0..self.rollout.len() as u32).collect();
        stream(self.seed, "minibatches", self.step * self.config.epochs as u64 + epoch as u64).shuffle(&mut order);
        let learning_rate = self.config.learning_rate.value(progress);
        for rows in order.chunks_exact(self.rollout.len() / self.config.minibatches) {
            let batch = self.minibatch(rows);
            let loss = self.loss(batch, progress);
            let (net, gradient_norm) = self.optimizer.step(self.net.clone(), loss.total.backward(), learning_rate);
            self.net = net;
            stats.add(&loss, gradient_norm);
            if self.config.target_kl.is_some_and(|target| stats.last_kl > target) {
                return false;
            }
        }
        true
    }

    fn minibatch(&self, rows: &[u32]) -> Minibatch {
        let m = rows.len();
        let upload = |source: &[f32], width: usize| {
            let mut values = Vec::with_capacity(m * width);
            for row in rows {
                values.extend_from_slice(&source[*row as usize * width..][..width]);
            }
            values
        };
        let column = |source: &[f32]| Tensor::from_data(TensorData::new(upload(source, 1), [m]), &self.device);
        let d = self.encoder.outputs();
        let mut observations = vec![0.0; m * d];
        let chosen = rows.iter().map(|row| *row as usize);
        self.encoder.encode_rows(&self.rollout.observations, chosen, &mut observations);
        let matrix = |source: &[f32], width: usize| {
            Tensor::from_data(TensorData::new(upload(source, width), [m, width]), &self.device)
        };
        let mut advantages = upload(&self.advantages, 1);
        if self.config.normalize_advantage {
            normalize(&mut advantages);
        }
        Minibatch {
            observations: Tensor::from_data(TensorData::new(observations, [m, d]), &self.device),
            actions: match &self.rollout.actions {
                Buffer::F32(actions) => ActionTensor::Continuous(matrix(actions, self.head.outputs())),
                Buffer::I32(actions) => {
                    let Head::Categorical { start, .. } = self.head else { unreachable!("integers are categories") };
                    let chosen: Vec<i32> = rows.iter().map(|row| actions[*row as usize] - start).collect();
                    ActionTensor::Discrete(Tensor::from_data(TensorData::new(chosen, [m]), &self.device))
                }
                Buffer::U8(_) => unreachable!("PPO's actions are integers or floats"),
            },
            log_probs: column(&self.rollout.log_probs),
            values: column(&self.values),
            returns: column(&self.returns),
            advantages: Tensor::from_data(TensorData::new(advantages, [m]), &self.device),
        }
    }

    /// Equation 9 of the paper, to be minimised.
    fn loss(&self, batch: Minibatch, progress: f64) -> Loss {
        let clip = self.config.clip.value(progress);
        let features = self.net.torso.forward(batch.observations);
        let output = self.net.actor.forward(features.clone());
        let (log_prob, entropy) = match (batch.actions, &self.net.log_std) {
            (ActionTensor::Discrete(actions), _) => categorical::log_prob_and_entropy(output, actions),
            (ActionTensor::Continuous(actions), Some(log_std)) => {
                gaussian::log_prob_and_entropy(output, log_std.val(), actions)
            }
            (ActionTensor::Continuous(_), None) => unreachable!("a Gaussian policy has a standard deviation"),
        };
        let log_ratio = log_prob - batch.log_probs;
        let ratio = log_ratio.clone().exp();
        let unclipped = batch.advantages.clone() * ratio.clone();
        let clipped = batch.advantages * ratio.clone().clamp(1.0 - clip, 1.0 + clip);
        let policy = unclipped.min_pair(clipped).mean().neg();

        let value: Tensor<1> = self.net.critic.forward(features).squeeze_dim(1);
        let error = (value.clone() - batch.returns.clone()).square();
        let error = if self.config.clip_value {
            let near = batch.values.clone() + (value - batch.values).clamp(-clip, clip);
            error.max_pair((near - batch.returns).square())
        } else {
            error
        };
        let value = error.mean().mul_scalar(0.5);

        let entropy = entropy.mean();
        let total = policy.clone() - entropy.clone().mul_scalar(self.config.entropy_coef.value(progress))
            + value.clone().mul_scalar(self.config.value_coef);
        Loss { total, policy, value, entropy, log_ratio, clip }
    }
}

/// Brings the numbers to mean 0 and standard deviation 1.
fn normalize(values: &mut [f32]) {
    let n = values.len() as f64;
    let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
    let variance = values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let (mean, scale) = (mean as f32, (1.0 / (variance.sqrt() + 1e-8)) as f32);
    values.iter_mut().for_each(|v| *v = (*v - mean) * scale);
}

enum ActionTensor {
    Discrete(Tensor<1, Int>),
    Continuous(Tensor<2>),
}

/// `M` shuffled rows of a rollout: observations `[M, D]`, all else `[M]`.
struct Minibatch {
    observations: Tensor<2>,
    actions: ActionTensor,
    log_probs: Tensor<1>,
    values: Tensor<1>,
    returns: Tensor<1>,
    advantages: Tensor<1>,
}

struct Loss {
    total: Tensor<1>,
    policy: Tensor<1>,
    value: Tensor<1>,
    entropy: Tensor<1>,
    log_ratio: Tensor<1>,
    clip: f64,
}

/// Means over an update's minibatches.
#[derive(Default)]
struct Statistics {
    minibatches: u32,
    policy: f64,
    value: f64,
    entropy: f64,
    kl: f64,
    last_kl: f64,
    clipped: f64,
    gradient_norm: f64,
}

impl Statistics {
    fn add(&mut self, loss: &Loss, gradient_norm: f64) {
        let scalar = |tensor: &Tensor<1>| f64::from(tensor.clone().into_scalar::<f32>());
        let log_ratios: Vec<f32> =
            loss.log_ratio.clone().into_data().try_into_vec().expect("log-ratios are 32-bit floats");
        let count = log_ratios.len() as f64;
        // (r - 1) - ln r: Schulman's estimator of low variance, http://joschu.net/blog/kl-approx.html
        let kl = |r: &f32| f64::from(*r).exp_m1() - f64::from(*r);
        let clipped = |r: &&f32| f64::from(**r).exp_m1().abs() > loss.clip;
        self.last_kl = log_ratios.iter().map(kl).sum::<f64>() / count;
        self.kl += self.last_kl;
        self.clipped += log_ratios.iter().filter(clipped).count() as f64 / count;
        self.policy += scalar(&loss.policy);
        self.value += scalar(&loss.value);
        self.entropy += scalar(&loss.entropy);
        self.gradient_norm += gradient_norm;
        self.minibatches += 1;
    }
}

impl Agent for Ppo {
    fn step(&self) -> u64 {
        self.step
    }

    fn iterate(&mut self) -> Result<Metrics, CoreError> {
        let progress = self.step as f64 / self.total_steps as f64;
        let mut policy = self.net.compile(&self.head);
        self.rollout.collect(
            &mut self.envs,
            &mut policy,
            &mut stream(self.seed, "actions", self.step),
            self.observation_normalizer.as_mut(),
            self.reward_normalizer.as_mut(),
        )?;
        self.rollout.estimate_values(&mut policy, &mut self.values, &mut self.next_values);
        let trajectory = Trajectory {
            rewards: &self.rollout.rewards,
            values: &self.values,
            next_values: &self.next_values,
            terminated: &self.rollout.terminated,
            truncated: &self.rollout.truncated,
        };
        gae(trajectory, self.rollout.num_envs, self.config.gamma, self.config.gae_lambda, &mut self.advantages);
        for (target, (advantage, value)) in self.returns.iter_mut().zip(self.advantages.iter().zip(&self.values)) {
            *target = advantage + value;
        }

        let mut stats = Statistics::default();
        for epoch in 0..self.config.epochs {
            if !self.epoch(epoch, progress, &mut stats) {
                break;
            }
        }
        self.step += self.rollout.len() as u64;

        let mut metrics = Metrics::new();
        let episodes = self.rollout.episode_returns.len() as f64;
        if episodes > 0.0 {
            let lengths = self.rollout.episode_lengths.iter().map(|length| f64::from(*length));
            metrics.push("episode_return", self.rollout.episode_returns.iter().sum::<f64>() / episodes);
            metrics.push("episode_length", lengths.sum::<f64>() / episodes);
        }
        let n = f64::from(stats.minibatches);
        metrics.push("policy_loss", stats.policy / n);
        metrics.push("value_loss", stats.value / n);
        metrics.push("entropy", stats.entropy / n);
        metrics.push("approx_kl", stats.kl / n);
        metrics.push("clip_fraction", stats.clipped / n);
        metrics.push("grad_norm", stats.gradient_norm / n);
        metrics.push("explained_variance", explained_variance(&self.values, &self.returns));
        metrics.push("learning_rate", self.config.learning_rate.value(progress));
        Ok(metrics)
    }

    fn policy(&self) -> Box<dyn Policy> {
        Box::new(GreedyActorCritic {
            net: self.net.compile(&self.head),
            encoder: self.encoder.clone(),
            normalizer: self.observation_normalizer.clone(),
        })
    }

    fn state_values(&self, observations: &[f32]) -> Option<Vec<f32>> {
        let mut rows = observations.to_vec();
        if let Some(normalizer) = &self.observation_normalizer {
            normalizer.normalize(observations, &mut rows);
        }
        Some(self.net.compile(&self.head).values(&rows).to_vec())
    }

    fn save(&self, to: &mut CheckpointWriter) -> Result<(), CoreError> {
        let record = self.optimizer.record(&self.net);
        to.module("network.safetensors", &self.net)?;
        let moments: Vec<(&str, &[f32])> = record.moments.iter().map(|(name, m)| (name.as_str(), &m[..])).collect();
        to.arrays("optimizer.safetensors", &moments)?;
        let mut envs = StateWriter::default();
        self.envs.save_state(&mut envs);
        to.bytes("environments.bin", &envs.into_bytes())?;
        to.json(
            "agent.json",
            &State {
                step: self.step,
                optimizer_steps: record.steps,
                observation_normalizer: self.observation_normalizer.clone(),
                reward_normalizer: self.reward_normalizer.clone(),
            },
        )
    }

    fn load(&mut self, from: &CheckpointReader) -> Result<(), CoreError> {
        let misfit = |name: &str, problem: String| CoreError::Checkpoint { path: from.path().join(name), problem };
        let state: State = from.json("agent.json")?;
        let net = from.module("network.safetensors", self.net.clone())?;
        let moments = from.arrays("optimizer.safetensors")?.into_iter().collect();
        self.optimizer
            .load(&net, AdamRecord { steps: state.optimizer_steps, moments })
            .map_err(|problem| misfit("optimizer.safetensors", problem))?;
        self.envs
            .load_state(&mut StateReader::new(&from.bytes("environments.bin")?))
            .map_err(|error| misfit("environments.bin", error.to_string()))?;
        self.net = net;
        self.step = state.step;
        self.observation_normalizer = state.observation_normalizer;
        self.reward_normalizer = state.reward_normalizer;
        Ok(())
    }
}

/// `1 - Var(returns - values) / Var(returns)`: 1 for a perfect value function, 0 for a constant one.
fn explained_variance(values: &[f32], returns: &[f32]) -> f64 {
    let variance = |numbers: &dyn Fn(usize) -> f64| {
        let n = values.len();
        let mean = (0..n).map(numbers).sum::<f64>() / n as f64;
        (0..n).map(|i| (numbers(i) - mean).powi(2)).sum::<f64>() / n as f64
    };
    let total = variance(&|i| f64::from(returns[i]));
    let left = variance(&|i| f64::from(returns[i] - values[i]));
    if total > 0.0 { 1.0 - left / total } else { 0.0 }
}
