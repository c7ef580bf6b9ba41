//! What an algorithm is to the rest of the crate.

use hotfire_core::CoreError;
use hotfire_core::checkpoint::{CheckpointReader, CheckpointWriter};
use hotfire_core::metrics::Metrics;
use hotfire_envs::{Buffer, EnvError};

use crate::PolicyExport;
use crate::observation::EnvView;

/// A learner: collects experience and improves its policy.
pub trait Agent: Send {
    /// Environment steps taken so far.
    fn step(&self) -> u64;

    /// One round of experience and learning.
    ///
    /// # Errors
    /// If the environments refuse an action.
    fn iterate(&mut self) -> Result<Metrics, CoreError>;

    /// A snapshot of the policy that acts greedily (without exploration).
    fn policy(&self) -> Box<dyn Policy>;

    /// The learner's estimates of the values of states, from observations `[N, D]` as the environments give them;
    /// `None` if it has none.
    fn state_values(&self, _observations: &Buffer) -> Option<Vec<f32>> {
        None
    }

    /// The policy for use outside.
    fn export(&self) -> PolicyExport;

    /// Writes all that [`Agent::load`] needs to go on bit for bit.
    ///
    /// # Errors
    /// If the checkpoint can't be written.
    fn save(&self, to: &mut CheckpointWriter) -> Result<(), CoreError>;

    /// Restores what [`Agent::save`] wrote.
    ///
    /// # Errors
    /// If the checkpoint does not fit this agent.
    fn load(&mut self, from: &CheckpointReader) -> Result<(), CoreError>;
}

/// A mapping from observations to actions.
pub trait Policy: Send {
    /// Writes the actions for what is seen of `N` environments into `actions: [N, A]`.
    fn act(&mut self, view: EnvView<'_>, actions: &mut Buffer);
}

/// An environment's refusal in the middle of a run.
pub(crate) fn env_failed(error: EnvError) -> CoreError {
    CoreError::Failed(error.to_string())
}
