//! What every training run shares: device choice, typed configuration, run directories, checkpoints, metrics and their
//! trackers, random streams, schedules, and the run shell that drives a [`task::Task`].
//!
//! Nothing here knows an environment, an algorithm or a model. A learner implements [`task::Task`]; the clocks for
//! logging, evaluation and checkpoints, the progress bar, the interrupt and the resume belong to [`shell::run`].

pub mod checkpoint;
pub mod config;
pub mod device;
pub mod error;
pub mod heat_map;
pub mod media;
pub mod metrics;
pub mod plot;
pub mod run_config;
pub mod run_dir;
pub mod schedule;
pub mod seed;
pub mod shell;
pub mod stats;
pub mod summary;
pub mod task;
pub mod tensorboard;
pub mod tensors;
pub mod tracker;

mod config_value;
mod page;

pub use error::CoreError;
