//! REINFORCE with a learned baseline.
//!
//! Williams 1992, <https://doi.org/10.1007/BF00992696>: whole episodes, returns without bootstrapping, one gradient
//! step on all their steps. Every environment plays one episode from its start, so that short episodes don't crowd out
//! long ones; steps past its end are not learned from. An episode that was cut off counts the value of its final
//! observation, as its return goes on beyond the limit.

use hotfire_core::CoreError;
use hotfire_core::config::ConfigError;
use hotfire_core::metrics::Metrics;
use hotfire_core::schedule::Schedule;
use hotfire_nn::ops::policy_loss::PolicyLossConfig;
use hotfire_nn::{Activation, Network};
use serde::{Deserialize, Serialize};

use crate::on_policy::{Check, Learner, LearnerConfig, Updates};
use crate::policy_gradient::{PolicyGradient, make};
use crate::registry::AlgorithmSpec;
use crate::rollout::Until;

/// The registry's entry.
pub const SPEC: AlgorithmSpec = AlgorithmSpec {
    name: "reinforce",
    summary: "Monte Carlo policy gradient with a value baseline, for discrete and continuous actions",
    source: "Williams 1992, doi:10.1007/BF00992696",
    make: make::<ReinforceConfig>,
};

/// The `[agent]` section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReinforceConfig {
    /// Adam's step size.
    pub learning_rate: Schedule,
    /// Discount.
    pub gamma: f64,
    /// Weight of the entropy bonus.
    pub entropy_coef: Schedule,
    /// Weight of the baseline's loss.
    pub value_coef: f64,
    /// Largest global gradient norm.
    pub max_grad_norm: f64,
    /// Whether the episodes' advantages are brought to mean 0 and standard deviation 1.
    pub normalize_advantage: bool,
    /// Adam's epsilon.
    pub adam_epsilon: f64,
    /// What looks at the observations: `mlp`, `nature_cnn`, `minatar_cnn`, or `auto` by their shape.
    pub network: Network,
    /// Widths of the hidden layers of an `mlp`, of the policy and the baseline alike.
    pub hidden: Vec<usize>,
    /// Activation of the hidden layers: `tanh`, `relu` or `silu`.
    pub activation: Activation,
    /// Logarithm of a Gaussian policy's standard deviation at the start.
    pub initial_log_std: f64,
    /// Whether observations are normalised by running statistics.
    pub normalize_observations: bool,
}

impl Default for ReinforceConfig {
    fn default() -> Self {
        Self {
            learning_rate: Schedule::Constant(1e-3),
            gamma: 0.99,
            entropy_coef: Schedule::Constant(0.0),
            value_coef: 0.5,
            max_grad_norm: 0.5,
            normalize_advantage: true,
            adam_epsilon: 1e-8,
            network: Network::Auto,
            hidden: vec![64, 64],
            activation: Activation::Tanh,
            initial_log_std: 0.0,
            normalize_observations: false,
        }
    }
}

impl PolicyGradient for ReinforceConfig {
    const NAME: &str = SPEC.name;

    fn check(&self, check: &Check<'_>, _: usize) -> Result<(), ConfigError> {
        check.schedule("learning_rate", self.learning_rate)?;
        check.schedule("entropy_coef", self.entropy_coef)?;
        check.range("value_coef", self.value_coef, 0.0, f64::MAX)?;
        Ok(())
    }

    fn learner(&self) -> LearnerConfig {
        LearnerConfig {
            gamma: self.gamma,
            // Without decay the advantages are the returns, less the baseline.
            gae_lambda: 1.0,
            network: self.network,
            hidden: self.hidden.clone(),
            activation: self.activation,
            initial_log_std: self.initial_log_std,
            recurrent: None,
            recurrent_units: 1,
            normalize_observations: self.normalize_observations,
            normalize_rewards: false,
            max_grad_norm: self.max_grad_norm,
            adam_epsilon: self.adam_epsilon,
            rnd: None,
        }
    }

    fn iterate(&self, learner: &mut Learner) -> Result<Metrics, CoreError> {
        let progress = learner.progress();
        learner.collect(Until::EpisodesEnd)?;
        let rows = learner.rollout.first_episodes();
        let loss = PolicyLossConfig {
            clip: None,
            value_clip: None,
            entropy_coef: self.entropy_coef.value(progress),
            value_coef: self.value_coef,
        };
        let learning_rate = self.learning_rate.value(progress);
        let mut updates = Updates::default();
        // One row has no spread to divide by.
        let normalize = self.normalize_advantage && rows.len() > 1;
        updates.add(&learner.learn(&rows, normalize, loss, learning_rate));
        let mut metrics = learner.finish(&updates, Some(&rows));
        metrics.push("learning_rate", learning_rate);
        Ok(metrics)
    }
}
