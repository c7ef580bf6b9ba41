//! Policy-gradient algorithms as agents: each is its settings and what it does with a rollout.

use hotfire_core::CoreError;
use hotfire_core::checkpoint::{CheckpointReader, CheckpointWriter};
use hotfire_core::config::{ConfigDocument, ConfigError};
use hotfire_core::metrics::Metrics;
use hotfire_envs::Buffer;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::on_policy::{Check, Learner, LearnerConfig};
use crate::registry::Setting;
use crate::{Agent, Policy, PolicyExport};

/// The settings of an algorithm, its `[agent]` section.
pub(crate) trait PolicyGradient: DeserializeOwned + Serialize + Send + 'static {
    /// The name in `agent.algorithm`.
    const NAME: &'static str;

    /// Refuses values that the algorithm can't work with; those of [`LearnerConfig`] are checked already.
    fn check(&self, check: &Check<'_>, num_envs: usize) -> Result<(), ConfigError>;

    /// The part that all share.
    fn learner(&self) -> LearnerConfig;

    /// A rollout and what is learned from it.
    fn iterate(&self, learner: &mut Learner) -> Result<Metrics, CoreError>;
}

struct PolicyGradientAgent<A> {
    algorithm: A,
    learner: Learner,
}

/// Reads and checks the rest of `[agent]`, and makes the agent.
///
/// # Errors
/// [`ConfigError`] for values out of range or an environment with spaces that the agent can't serve.
pub(crate) fn make<A: PolicyGradient>(
    document: &mut ConfigDocument,
    setting: &Setting<'_>,
) -> Result<Box<dyn Agent>, ConfigError> {
    let algorithm: A = document.section("agent")?;
    let config = algorithm.learner();
    let check = Check { document };
    config.check(&check)?;
    algorithm.check(&check, setting.env.num_envs)?;
    let learner = Learner::new(config, A::NAME, document, setting)?;
    Ok(Box::new(PolicyGradientAgent { algorithm, learner }))
}

impl<A: PolicyGradient> Agent for PolicyGradientAgent<A> {
    fn step(&self) -> u64 {
        self.learner.step
    }

    fn iterate(&mut self) -> Result<Metrics, CoreError> {
        self.algorithm.iterate(&mut self.learner)
    }

    fn policy(&self) -> Box<dyn Policy> {
        self.learner.policy()
    }

    fn state_values(&self, observations: &Buffer) -> Option<Vec<f32>> {
        Some(self.learner.state_values(observations))
    }

    fn export(&self) -> PolicyExport {
        self.learner.export()
    }

    fn save(&self, to: &mut CheckpointWriter) -> Result<(), CoreError> {
        self.learner.save(to)
    }

    fn load(&mut self, from: &CheckpointReader) -> Result<(), CoreError> {
        self.learner.load(from)
    }
}
