//! The crate's one error type and the process exit code that each error stands for.

use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::config::ConfigError;

/// Everything that can go wrong in the run shell and its parts. Each message is one line.
#[derive(Debug, Error)]
pub enum CoreError {
    /// A mistake in the configuration or in an override on the command line.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The asked device is not there.
    #[error("device {asked:?} is not there: found {found}; {how_to_get}")]
    Device {
        /// The device name as asked for.
        asked: String,
        /// The devices that are there.
        found: String,
        /// What would make the asked device available.
        how_to_get: String,
    },
    /// A new run was asked for in a directory that is in use.
    #[error("{}: exists already; choose another name with run.name=..., or continue it with --resume {}", path.display(), path.display())]
    RunDirExists {
        /// The run directory.
        path: PathBuf,
    },
    /// A directory that is not a run directory, or that lacks a part of one.
    #[error("{}: not a run directory: {missing} is missing", path.display())]
    NotARunDir {
        /// The directory that was opened.
        path: PathBuf,
        /// The file or directory that is missing.
        missing: String,
    },
    /// A checkpoint that cannot be trusted.
    #[error("{}: {problem}", path.display())]
    Checkpoint {
        /// The damaged file or directory.
        path: PathBuf,
        /// What is wrong with it, where, and what to do.
        problem: String,
    },
    /// A metric became NaN or infinite, so training stopped.
    #[error(
        "step {step}: {metric} is {value}; last finite metrics{}: {last_metrics}; last good checkpoint: {}",
        last_step.map(|step| format!(" (step {step})")).unwrap_or_default(),
        last_checkpoint.as_ref().map_or("none".to_string(), |path| path.display().to_string())
    )]
    NonFinite {
        /// The step at which it happened.
        step: u64,
        /// The key of the metric.
        metric: String,
        /// Its value: NaN or an infinity.
        value: f64,
        /// The step of the last metrics that were all finite.
        last_step: Option<u64>,
        /// Those metrics as `key=value` pairs.
        last_metrics: String,
        /// The newest checkpoint, saved while all metrics were finite.
        last_checkpoint: Option<PathBuf>,
    },
    /// A file operation failed.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried, as a verb ("read", "write", ...).
        action: &'static str,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// The user asked for something that cannot be (exit code 2); the message says what.
    #[error("{0}")]
    Usage(String),
    /// The run failed (exit code 1); the message says why.
    #[error("{0}")]
    Failed(String),
    /// The user stopped the run, which has saved itself and said so (exit code 130).
    #[error("stopped")]
    Interrupted,
}

impl CoreError {
    /// The exit code of [`CoreError::Interrupted`]: that of a command that Ctrl-C ended, to a shell.
    pub const INTERRUPTED: i32 = 130;

    /// The exit code of a process that ends with this error: 2 for wrong use, 1 for a run that failed.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Config(_)
            | Self::Device { .. }
            | Self::RunDirExists { .. }
            | Self::NotARunDir { .. }
            | Self::Usage(_) => 2,
            Self::Io { source, action: "read", .. } if source.kind() == std::io::ErrorKind::NotFound => 2,
            Self::Interrupted => Self::INTERRUPTED,
            Self::Checkpoint { .. } | Self::NonFinite { .. } | Self::Io { .. } | Self::Failed(_) => 1,
        }
    }

    /// Makes the mapper for `Result::map_err` that turns an I/O error into [`CoreError::Io`].
    pub fn io(path: impl AsRef<Path>, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { path, action, source }
    }
}

/// The candidate nearest to `name`, if one is near enough to be a likely slip of the fingers.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lowered = name.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (similarity(&lowered, &candidate.to_lowercase()), candidate))
        .filter(|(similarity, _)| *similarity >= 0.8)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, candidate)| candidate)
}

fn similarity(left: &str, right: &str) -> f64 {
    let similarity = strsim::jaro_winkler(left, right);
    // Jaro-Winkler says little of short words, where one edit is most of the word.
    let single_edit = left.len().min(right.len()) >= 2 && strsim::damerau_levenshtein(left, right) <= 1;
    if single_edit { similarity.max(0.9) } else { similarity }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_offers_only_likely_slips() {
        let valid = ["learning_rate", "gamma", "gae_lambda"];
        assert_eq!(nearest("learning_rat", valid), Some("learning_rate"));
        assert_eq!(nearest("Gama", valid), Some("gamma"));
        assert_eq!(nearest("batch", valid), None);
        assert_eq!(nearest("pop", ["dqn", "ppo"]), Some("ppo"));
        assert_eq!(nearest("x", ["y"]), None);
    }

    #[test]
    fn exit_codes_separate_wrong_use_from_failure() {
        let missing = CoreError::io("x", "read")(std::io::ErrorKind::NotFound.into());
        let full = CoreError::io("x", "write")(std::io::ErrorKind::StorageFull.into());
        assert_eq!(missing.exit_code(), 2);
        assert_eq!(full.exit_code(), 1);
        assert_eq!(CoreError::RunDirExists { path: "runs/a".into() }.exit_code(), 2);
        assert_eq!(CoreError::Failed("x".into()).exit_code(), 1);
    }
}
