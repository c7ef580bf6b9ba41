//! Random network distillation: a bonus for observations that were seldom seen.
//!
//! Burda et al. 2019, <https://arxiv.org/abs/1810.12894>: a network learns to predict the output of a fixed random one;
//! its error is the intrinsic reward, which has a value head and a discount of its own and does not end with the
//! episode. It departs from the paper in taking the first statistics of the observations from the first rollout, not
//! from a random agent's steps, and in what the predictor learns from: every `k`-th row of a minibatch, where the paper
//! takes each row by chance. In the minibatches of a recurrent policy, whose rows are steps of some environments, these
//! can be the same environments at every step.

use burn::prelude::*;
use burn::tensor::TensorData;
use hotfire_core::CoreError;
use hotfire_core::checkpoint::{CheckpointReader, CheckpointWriter};
use hotfire_core::config::{ConfigDocument, ConfigError};
use hotfire_core::seed::stream;
use hotfire_nn::{Activation, Adam, AdamConfig, InputShape, Mlp, Network, Torso};
use serde::{Deserialize, Serialize};

use crate::normalize::{ObservationNormalizer, RewardNormalizer, RewardStatistics};

/// Bound of a normalised observation.
const OBSERVATION_CLIP: f32 = 5.0;

/// The table `agent.rnd`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RndConfig {
    /// Weight of the intrinsic advantage.
    pub intrinsic_coef: f64,
    /// Weight of the environment's advantage.
    pub extrinsic_coef: f64,
    /// Discount of the intrinsic reward.
    pub gamma: f64,
    /// Step size of the predictor.
    pub learning_rate: f64,
    /// Share of a minibatch that the predictor learns from, rounded to one row in a whole number of them.
    pub update_share: f64,
    /// Widths of the hidden layers of the predictor; the target has one layer less.
    pub hidden: Vec<usize>,
    /// Length of the random network's output.
    pub features: usize,
}

impl Default for RndConfig {
    fn default() -> Self {
        Self {
            intrinsic_coef: 1.0,
            extrinsic_coef: 2.0,
            gamma: 0.99,
            learning_rate: 1e-4,
            update_share: 0.25,
            hidden: vec![64, 64],
            features: 32,
        }
    }
}

impl RndConfig {
    pub(crate) fn check(&self, document: &ConfigDocument) -> Result<(), ConfigError> {
        let refuse = |key: &str, expected: &str, found: &dyn std::fmt::Display| {
            Err(document.out_of_range(&format!("agent.rnd.{key}"), expected, found))
        };
        for (key, value) in [("intrinsic_coef", self.intrinsic_coef), ("extrinsic_coef", self.extrinsic_coef)] {
            if !(value >= 0.0 && value.is_finite()) {
                return refuse(key, "a finite number not below 0", &value);
            }
        }
        if !(0.0..1.0).contains(&self.gamma) {
            return refuse("gamma", "a number from 0 to below 1", &self.gamma);
        }
        if !(self.learning_rate > 0.0 && self.learning_rate.is_finite()) {
            return refuse("learning_rate", "a positive number", &self.learning_rate);
        }
        if !(self.update_share > 0.0 && self.update_share <= 1.0) {
            return refuse("update_share", "a number above 0, at most 1", &self.update_share);
        }
        if self.hidden.contains(&0) {
            return refuse("hidden", "positive widths", &format!("{:?}", self.hidden));
        }
        if self.features == 0 {
            return refuse("features", "at least 1", &self.features);
        }
        Ok(())
    }
}

/// A network that embeds an observation.
#[derive(Module, Debug)]
struct Embedding {
    torso: Torso,
    head: Mlp,
}

impl Embedding {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.head.forward(self.torso.forward(x))
    }

    /// Embeddings `[N, F]` of host rows `[N, D]`.
    fn embed(&self, rows: &[f32]) -> Vec<f32> {
        self.head.compile().forward(self.torso.compile().forward(rows)).to_vec()
    }
}

/// Both networks and the running statistics.
pub(crate) struct Rnd {
    pub config: RndConfig,
    device: Device,
    target: Embedding,
    predictor: Embedding,
    optimizer: Adam,
    observations: ObservationNormalizer,
    rewards: RewardNormalizer,
    /// Normalised next observations of the rollout: `[T, N, D]`.
    seen: Vec<f32>,
    /// What the target says of them: `[T, N, F]`.
    embedded: Vec<f32>,
}

#[derive(Serialize, Deserialize)]
struct State {
    optimizer_steps: u64,
    observations: ObservationNormalizer,
    rewards: RewardStatistics,
}

impl Rnd {
    pub fn new(config: RndConfig, shape: InputShape, num_envs: usize, seed: u64, device: &Device) -> Self {
        let mut rng = stream(seed, "random network distillation", 0);
        let mut embedding = |hidden: &[usize], device: &Device| {
            let torso = Torso::new(Network::Auto, shape, &mut rng, device).expect("auto serves every shape");
            let sizes = [&[torso.features()], hidden, &[config.features]].concat();
            Embedding { head: Mlp::orthogonal(&sizes, Activation::Relu, 1.0, &mut rng, device), torso }
        };
        let shorter = &config.hidden[..config.hidden.len().saturating_sub(1)];
        Self {
            target: embedding(shorter, &device.clone().inner()),
            predictor: embedding(&config.hidden, device),
            optimizer: Adam::new(AdamConfig::default()),
            observations: ObservationNormalizer::new(shape.len(), OBSERVATION_CLIP),
            rewards: RewardNormalizer::new(num_envs, config.gamma, f32::MAX),
            device: device.clone(),
            config,
            seen: Vec::new(),
            embedded: Vec::new(),
        }
    }

    /// Intrinsic rewards `[T, N]` of reaching the encoded observations `[T, N, D]`.
    pub fn rewards(&mut self, next_observations: Vec<f32>, num_envs: usize) -> Vec<f32> {
        self.observations.observe(&next_observations);
        self.observations.update();
        self.seen.resize(next_observations.len(), 0.0);
        self.observations.normalize(&next_observations, &mut self.seen);
        self.embedded = self.target.embed(&self.seen);
        let predicted = self.predictor.embed(&self.seen);
        let features = self.config.features;
        let pairs = self.embedded.chunks_exact(features).zip(predicted.chunks_exact(features));
        let error =
            |(a, b): (&[f32], &[f32])| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>() / features as f32;
        let mut rewards: Vec<f32> = pairs.map(error).collect();
        let on = vec![false; num_envs];
        rewards.chunks_exact(num_envs).for_each(|step| self.rewards.observe(step, &on, &on));
        self.rewards.normalize(&mut rewards);
        rewards
    }

    /// Teaches the predictor a share of the rows of the rollout; returns its loss.
    pub fn learn(&mut self, rows: &[u32]) -> f64 {
        let every = (1.0 / self.config.update_share).round().max(1.0) as usize;
        let rows: Vec<usize> = rows.iter().step_by(every).map(|row| *row as usize).collect();
        let tensor = |source: &[f32], width: usize| {
            let values: Vec<f32> = rows.iter().flat_map(|row| &source[row * width..][..width]).copied().collect();
            Tensor::<2>::from_data(TensorData::new(values, [rows.len(), width]), &self.device)
        };
        let seen = tensor(&self.seen, self.observations.observation_len());
        let target = tensor(&self.embedded, self.config.features);
        let loss = (self.predictor.forward(seen) - target).square().mean();
        let value = f64::from(loss.clone().into_scalar::<f32>());
        let predictor = self.predictor.clone();
        self.predictor = self.optimizer.step(predictor, loss.backward(), self.config.learning_rate).0;
        value
    }

    pub fn save(&self, to: &mut CheckpointWriter) -> Result<(), CoreError> {
        to.module("rnd_target.safetensors", &self.target)?;
        to.module("rnd_predictor.safetensors", &self.predictor)?;
        let optimizer_steps = self.optimizer.save(to, "rnd_optimizer.safetensors", &self.predictor)?;
        let (observations, rewards) = (self.observations.clone(), self.rewards.statistics().clone());
        let state = State { optimizer_steps, observations, rewards };
        to.json("rnd.json", &state)
    }

    pub fn load(&mut self, from: &CheckpointReader) -> Result<(), CoreError> {
        let state: State = from.json("rnd.json")?;
        self.target = from.module("rnd_target.safetensors", self.target.clone())?;
        self.predictor = from.module("rnd_predictor.safetensors", self.predictor.clone())?;
        let steps = state.optimizer_steps;
        self.optimizer.restore(from, "rnd_optimizer.safetensors", &self.predictor, steps)?;
        self.observations = state.observations;
        self.rewards.restore(state.rewards);
        Ok(())
    }
}
