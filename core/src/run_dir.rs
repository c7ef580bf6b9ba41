//! A run directory: everything that belongs to one run, readable and self-contained.

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::CoreError;

/// The directory of one run, such as `runs/ppo-cartpole-s1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDir {
    path: PathBuf,
}

impl RunDir {
    /// Makes a new run directory. A directory that exists and is not empty is an error, and stays as it is.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self, CoreError> {
        let path = path.into();
        match fs::read_dir(&path) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Err(CoreError::RunDirExists { path });
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(CoreError::io(&path, "make a run directory here")(error)),
        }
        fs::create_dir_all(&path).map_err(CoreError::io(&path, "make the run directory"))?;
        Ok(Self { path })
    }

    /// Opens the directory of a run that was started before.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, CoreError> {
        let run_dir = Self { path: path.into() };
        let missing = if !run_dir.path.is_dir() {
            "the directory"
        } else if !run_dir.config().is_file() {
            "config.toml"
        } else {
            return Ok(run_dir);
        };
        Err(CoreError::NotARunDir { path: run_dir.path, missing: missing.into() })
    }

    /// Takes the run for this process, until the lock is dropped or the process ends, however it ends.
    ///
    /// # Errors
    /// [`CoreError::Usage`] while another process has it.
    pub fn lock(&self) -> Result<RunLock, CoreError> {
        self.try_lock()?.ok_or_else(|| {
            CoreError::Usage(format!("{}: another process trains this run right now", self.path.display()))
        })
    }

    /// As [`lock`](Self::lock), but `None` while another process has the run.
    pub fn try_lock(&self) -> Result<Option<RunLock>, CoreError> {
        let path = self.path.join(".lock");
        let file = File::create(&path).map_err(CoreError::io(&path, "write"))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(RunLock { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(CoreError::io(&path, "lock")(error)),
        }
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `config.toml`: the resolved configuration.
    pub fn config(&self) -> PathBuf {
        self.path.join("config.toml")
    }

    /// `metrics.jsonl`: one object a logged iteration.
    pub fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// `checkpoints/`: one directory a checkpoint.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// `best/`: the checkpoint of the best evaluation, where it is kept.
    pub fn best(&self) -> PathBuf {
        self.path.join("best")
    }

    /// `media/`: pictures and films of the trained learner.
    pub fn media(&self) -> PathBuf {
        self.path.join("media")
    }

    /// `curve.png`: the learning curve.
    pub fn curve(&self) -> PathBuf {
        self.path.join("curve.png")
    }

    /// `summary.json`: the outcome.
    pub fn summary(&self) -> PathBuf {
        self.path.join("summary.json")
    }
}

/// A run that this process has for itself.
#[derive(Debug)]
pub struct RunLock {
    _file: File,
}

/// Writes a file so that a reader, or a crash, sees the old content or the new, never a part.
pub fn write_atomic(path: &Path, content: &[u8]) -> Result<(), CoreError> {
    let mut temporary = path.as_os_str().to_owned();
    // Two processes may write the same file.
    temporary.push(format!(".tmp{}", std::process::id()));
    let temporary = PathBuf::from(temporary);
    write_synced(&temporary, content)?;
    fs::rename(&temporary, path).map_err(CoreError::io(path, "write"))?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// Writes a file and waits until the disk has it.
pub(crate) fn write_synced(path: &Path, content: &[u8]) -> Result<(), CoreError> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().map_err(CoreError::io(path, "write"))
}

/// Waits until the disk has the directory's entries. Only Unix needs it and can do it.
pub(crate) fn sync_dir(path: &Path) -> Result<(), CoreError> {
    if cfg!(unix) {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        File::open(path).and_then(|dir| dir.sync_all()).map_err(CoreError::io(path, "sync"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_existing_run_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("runs/a");
        RunDir::create(&path).unwrap();
        RunDir::create(&path).expect("an empty directory can be used");
        fs::write(path.join("config.toml"), "kept").unwrap();
        let error = RunDir::create(&path).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "{0}: exists already; choose another name with run.name=..., or continue it with --resume {0}",
                path.display()
            )
        );
        assert_eq!(error.exit_code(), 2);
        assert_eq!(fs::read_to_string(path.join("config.toml")).unwrap(), "kept");
    }

    #[test]
    fn a_file_in_the_place_of_the_run_directory_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, "a file").unwrap();
        assert!(RunDir::create(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "a file");
    }

    #[test]
    fn opening_says_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let absent = dir.path().join("absent");
        let error = RunDir::open(&absent).unwrap_err();
        assert_eq!(error.to_string(), format!("{}: not a run directory: the directory is missing", absent.display()));
        let error = RunDir::open(dir.path()).unwrap_err().to_string();
        assert!(error.ends_with("not a run directory: config.toml is missing"), "{error}");
        fs::write(dir.path().join("config.toml"), "").unwrap();
        assert_eq!(RunDir::open(dir.path()).unwrap().path(), dir.path());
    }

    #[test]
    fn a_run_has_one_owner_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = RunDir::create(dir.path().join("a")).unwrap();
        let lock = run_dir.lock().unwrap();
        let error = run_dir.lock().unwrap_err();
        assert!(error.to_string().ends_with("another process trains this run right now"), "{error}");
        assert!(run_dir.try_lock().unwrap().is_none());
        drop(lock);
        run_dir.lock().expect("the lock is free again");
        fs::remove_dir_all(run_dir.path()).unwrap();
        assert!(run_dir.try_lock().is_err(), "no other process has what can't be locked");
    }

    #[test]
    fn atomic_writes_replace_and_leave_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("summary.json");
        write_atomic(&path, b"old").unwrap();
        write_atomic(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
