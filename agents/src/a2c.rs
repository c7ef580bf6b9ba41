//! Advantage actor-critic, synchronous.
//!
//! Mnih et al. 2016, <https://arxiv.org/abs/1602.01783>, with one learner that waits for all environments: a short
//! rollout, one gradient step on all of it, and the next. Adam takes the place of RMSProp.

use hotfire_core::CoreError;
use hotfire_core::config::ConfigError;
use hotfire_core::metrics::Metrics;
use hotfire_core::schedule::Schedule;
use hotfire_nn::ops::policy_loss::PolicyLossConfig;
use hotfire_nn::{Activation, Network};
use serde::{Deserialize, Serialize};

use crate::on_policy::{Check, Learner, LearnerConfig, Recurrent, Updates};
use crate::policy_gradient::{PolicyGradient, make};
use crate::registry::AlgorithmSpec;
use crate::rollout::Until;

/// The registry's entry.
pub const SPEC: AlgorithmSpec = AlgorithmSpec {
    name: "a2c",
    summary: "advantage actor-critic, for discrete and continuous actions",
    source: "Mnih et al. 2016, arXiv:1602.01783",
    make: make::<A2cConfig>,
};

/// The `[agent]` section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct A2cConfig {
    /// Adam's step size.
    pub learning_rate: Schedule,
    /// Steps `T` that each environment takes before an update.
    pub rollout_steps: usize,
    /// Discount.
    pub gamma: f64,
    /// GAE's trade of bias against variance; 1 gives the `n`-step returns of the paper.
    pub gae_lambda: f64,
    /// Weight of the entropy bonus.
    pub entropy_coef: Schedule,
    /// Weight of the value loss.
    pub value_coef: f64,
    /// Largest global gradient norm.
    pub max_grad_norm: f64,
    /// Whether a rollout's advantages are brought to mean 0 and standard deviation 1.
    pub normalize_advantage: bool,
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
}

impl Default for A2cConfig {
    fn default() -> Self {
        Self {
            learning_rate: Schedule::Constant(7e-4),
            rollout_steps: 5,
            gamma: 0.99,
            gae_lambda: 1.0,
            entropy_coef: Schedule::Constant(0.0),
            value_coef: 0.5,
            max_grad_norm: 0.5,
            normalize_advantage: false,
            adam_epsilon: 1e-5,
            network: Network::Auto,
            hidden: vec![64, 64],
            activation: Activation::Tanh,
            recurrent: None,
            recurrent_units: 64,
            initial_log_std: 0.0,
            normalize_observations: false,
            normalize_rewards: false,
        }
    }
}

impl PolicyGradient for A2cConfig {
    const NAME: &str = SPEC.name;

    fn check(&self, check: &Check<'_>, num_envs: usize) -> Result<(), ConfigError> {
        check.schedule("learning_rate", self.learning_rate)?;
        check.schedule("entropy_coef", self.entropy_coef)?;
        check.range("value_coef", self.value_coef, 0.0, f64::MAX)?;
        check.rollout_steps(self.rollout_steps, num_envs)?;
        if self.rollout_steps * num_envs < 2 {
            return check.refuse("rollout_steps", "at least 2 steps of all environments", self.rollout_steps);
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
            rnd: None,
        }
    }

    fn iterate(&self, learner: &mut Learner) -> Result<Metrics, CoreError> {
        let progress = learner.progress();
        learner.collect(Until::Steps(self.rollout_steps))?;
        let rows: Vec<u32> = (0..learner.rollout.len() as u32).collect();
        let loss = PolicyLossConfig {
            clip: None,
            value_clip: None,
            entropy_coef: self.entropy_coef.value(progress),
            value_coef: self.value_coef,
        };
        let learning_rate = self.learning_rate.value(progress);
        let mut updates = Updates::default();
        updates.add(&learner.learn(&rows, self.normalize_advantage, loss, learning_rate));
        let mut metrics = learner.finish(&updates, None);
        metrics.push("learning_rate", learning_rate);
        Ok(metrics)
    }
}
