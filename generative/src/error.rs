//! The crate's one error type.

use std::path::{Path, PathBuf};

use hotfire_core::CoreError;
use thiserror::Error;

/// Data or weights that can't be used. Each message is one line that names the file and the place in it.
#[derive(Debug, Error)]
pub enum GenerativeError {
    /// A file or folder that can't be read or written.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried, as a verb.
        action: &'static str,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// A file whose content is not what its format says.
    #[error("{}: byte {offset}: expected {expected}, found {found}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Offset in bytes from the start of the (decompressed) content.
        offset: usize,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A file or folder that doesn't hold what is needed.
    #[error("{}: {problem}", path.display())]
    Unusable {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Something that can't be had from where it should be.
    #[error("{0}")]
    Unavailable(String),
}

impl GenerativeError {
    /// Makes the mapper for `Result::map_err` that turns an I/O error into [`GenerativeError::Io`].
    pub fn io(path: impl AsRef<Path>, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { path, action, source }
    }

    /// A problem with a file or folder as a whole.
    pub fn unusable(path: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Self::Unusable { path: path.as_ref().to_path_buf(), problem: problem.into() }
    }
}

impl From<GenerativeError> for CoreError {
    fn from(error: GenerativeError) -> Self {
        match error {
            GenerativeError::Io { path, action, source } => Self::Io { path, action, source },
            other => Self::Failed(other.to_string()),
        }
    }
}
