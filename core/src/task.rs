//! The one trait that the run shell knows of a learner.

use std::path::{Path, PathBuf};

use crate::checkpoint::{CheckpointReader, CheckpointWriter};
use crate::error::CoreError;
use crate::metrics::Metrics;
use crate::summary::EvalStats;

/// The outcome of [`Task::evaluate`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evaluation {
    /// Return statistics of an agent; `None` for a model.
    pub eval: Option<EvalStats>,
    /// A model's metrics, or an agent's further ones (episode length, say).
    pub metrics: Metrics,
}

/// The number that a run is about: the y axis of its curve, and what the progress bar shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Headline {
    /// The key among the metrics of [`Task::iterate`], and of [`Task::evaluate`] where that gives no return.
    pub metric: &'static str,
    /// The axis label.
    pub label: String,
    /// The value from which the task counts as solved, drawn as a line.
    pub threshold: Option<f64>,
}

/// A learner as the run shell sees it.
///
/// All state that the next iteration depends on goes through [`save`](Task::save) and [`load`](Task::load), so that a
/// resumed run equals an uninterrupted one bit for bit.
pub trait Task {
    /// Training steps done so far: environment steps for an agent, batches or epochs for a model.
    fn step(&self) -> u64;

    /// One rollout and update, or one batch. Advances [`step`](Task::step); the metrics must be finite.
    fn iterate(&mut self) -> Result<Metrics, CoreError>;

    /// Measures the learner as it is now, over `episodes` episodes (ignored by models).
    ///
    /// It must leave the training state as it was: evaluating or not must not change the run.
    fn evaluate(&mut self, episodes: u32) -> Result<Evaluation, CoreError>;

    /// Writes pictures of the trained learner below `dir` and returns their paths.
    fn media(&mut self, dir: &Path) -> Result<Vec<PathBuf>, CoreError>;

    /// Writes small pictures of the learner as it is now below `dir`, at each evaluation during training, and returns
    /// their paths. Like an evaluation, it must leave the training state as it was.
    fn snapshot(&mut self, _dir: &Path) -> Result<Vec<PathBuf>, CoreError> {
        Ok(Vec::new())
    }

    /// Writes the training state.
    fn save(&self, to: &mut CheckpointWriter) -> Result<(), CoreError>;

    /// Restores the training state that [`save`](Task::save) wrote.
    fn load(&mut self, from: &CheckpointReader) -> Result<(), CoreError>;

    /// The metric that the run is about.
    fn headline(&self) -> Headline;
}
