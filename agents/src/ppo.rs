//! Proximal policy optimization with a clipped objective.
//!
//! Schulman et al. 2017, <https://arxiv.org/abs/1707.06347>, with the details that Huang et al. 2022 ("The 37
//! implementation details of PPO") found to matter: orthogonal initialisation, minibatches over shuffled epochs,
//! advantages normalised per minibatch, optional value clipping, global-norm clipping, annealing, an optional stop on
//! the KL divergence. Actions that do nothing are masked out where the environment names them (Huang & Ontañón 2022,
//! <https://arxiv.org/abs/2006.14171>); a recurrent policy learns from whole sequences, shuffled by environment. It
//! departs from CleanRL in bootstrapping truncated episodes from their final observation.

use hotfire_core::CoreError;
use hotfire_core::config::ConfigError;
use hotfire_core::metrics::Metrics;
use hotfire_core::schedule::Schedule;
use hotfire_core::seed::stream;
use hotfire_nn::ops::policy_loss::PolicyLossConfig;
use hotfire_nn::{Activation, Network};
use serde::{Deserialize, Serialize};

use crate::on_policy::{Check, Learner, LearnerConfig, Recurrent, Updates};
use crate::policy_gradient::{PolicyGradient, make};
use crate::registry::AlgorithmSpec;
use crate::rnd::RndConfig;
use crate::rollout::Until;

/// The registry's entry.
pub const SPEC: AlgorithmSpec = AlgorithmSpec {
    name: "ppo",
    summary: "proximal policy optimization, for discrete and continuous actions",
    source: "Schulman et al. 2017, arXiv:1707.06347",
    make: make::<PpoConfig>,
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
    /// The memory of a recurrent policy: `gru`; without one it is feed-forward.
    pub recurrent: Option<Recurrent>,
    /// Units of the memory.
    pub recurrent_units: usize,
    /// Logarithm of a Gaussian policy's standard deviation at the start.
    pub initial_log_std: f64,
    /// Whether observations are normalised by running statistics.
    pub normalize_observations: bool,
    /// Whether rewards are divided by the running standard deviation of the discounted return.
    pub normalize_rewards: bool,
    /// A bonus for new observations, by random network distillation.
    pub rnd: Option<RndConfig>,
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
            recurrent: None,
            recurrent_units: 64,
            initial_log_std: 0.0,
            normalize_observations: false,
            normalize_rewards: false,
            rnd: None,
        }
    }
}

impl PolicyGradient for PpoConfig {
    const NAME: &str = SPEC.name;

    fn check(&self, check: &Check<'_>, num_envs: usize) -> Result<(), ConfigError> {
        check.schedule("learning_rate", self.learning_rate)?;
        check.schedule("clip", self.clip)?;
        check.schedule("entropy_coef", self.entropy_coef)?;
        check.range("value_coef", self.value_coef, 0.0, f64::MAX)?;
        if let Some(kl) = self.target_kl {
            check.positive("target_kl", kl)?;
        }
        check.rollout_steps(self.rollout_steps, num_envs)?;
        check.at_least_one("epochs", self.epochs)?;
        if self.recurrent.is_some() {
            if self.minibatches == 0 || !num_envs.is_multiple_of(self.minibatches) {
                let expected =
                    format!("a divisor of num_envs = {num_envs}, since a recurrent policy learns whole sequences");
                return check.refuse("minibatches", &expected, self.minibatches);
            }
            if self.rollout_steps * num_envs / self.minibatches < 2 {
                return check.refuse("rollout_steps", "at least 2", self.rollout_steps);
            }
        }
        let batch = self.rollout_steps * num_envs;
        if self.minibatches == 0 || !batch.is_multiple_of(self.minibatches) || batch / self.minibatches < 2 {
            let expected = format!("a divisor of rollout_steps * num_envs = {batch} that leaves at least 2 steps each");
            return check.refuse("minibatches", &expected, self.minibatches);
        }
        Ok(())
    }

    fn learner(&self) -> LearnerConfig {
        LearnerConfig {
            gamma: self.gamma,
            gae_lambda: self.gae_lambda,
            network: self.network,
            hidden: self.hidden.clone(),
            activation: self.activation,
            initial_log_std: self.initial_log_std,
            recurrent: self.recurrent,
            recurrent_units: self.recurrent_units,
            normalize_observations: self.normalize_observations,
            normalize_rewards: self.normalize_rewards,
            max_grad_norm: self.max_grad_norm,
            adam_epsilon: self.adam_epsilon,
            rnd: self.rnd.clone(),
        }
    }

    fn iterate(&self, learner: &mut Learner) -> Result<Metrics, CoreError> {
        let progress = learner.progress();
        learner.collect(Until::Steps(self.rollout_steps))?;
        let mut updates = Updates::default();
        for epoch in 0..self.epochs {
            if !self.epoch(learner, epoch, progress, &mut updates) {
                break;
            }
        }
        let mut metrics = learner.finish(&updates, None);
        metrics.push("learning_rate", self.learning_rate.value(progress));
        Ok(metrics)
    }
}

impl PpoConfig {
    /// One pass over the rollout; returns whether the KL divergence allows another.
    fn epoch(&self, learner: &mut Learner, epoch: usize, progress: f64, updates: &mut Updates) -> bool {
        let draw = learner.step * self.epochs as u64 + epoch as u64;
        let mut rng = stream(learner.seed, "minibatches", draw);
        let clip = self.clip.value(progress);
        let loss = PolicyLossConfig {
            clip: Some(clip),
            value_clip: self.clip_value.then_some(clip),
            entropy_coef: self.entropy_coef.value(progress),
            value_coef: self.value_coef,
        };
        let learning_rate = self.learning_rate.value(progress);
        for rows in learner.minibatches(self.minibatches, &mut rng) {
            let update = learner.learn(&rows, self.normalize_advantage, loss, learning_rate);
            updates.add(&update);
            if self.target_kl.is_some_and(|target| update.parts.approx_kl > target) {
                return false;
            }
        }
        true
    }
}
