//! Where trials run. A trial is always the same command, `hotfire train --resume RUN`, which starts a run that has no
//! checkpoint yet and goes on with one that has: whoever starts it again loses nothing.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::Context;
use hotfire_core::CoreError;
use hotfire_core::run_dir::RunDir;
use hotfire_core::summary::{Status, Summary};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::SIGINT;

use super::store::Trial;

/// How a trial's process ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ended {
    /// Its exit code was 0, or that of a run which was stopped and saved itself.
    Success,
    /// It failed; with what is known of why.
    Failure(String),
    /// Nobody saw how.
    Unseen,
}

/// Writes down who works on a trial.
pub type Assign<'a> = dyn FnMut(&Trial, &str) -> anyhow::Result<()> + 'a;

/// A place to run trials.
pub trait Launcher {
    /// How many trials it takes at once.
    fn slots(&self) -> usize;

    /// Starts trials whose run directories are ready. Where they outlive this process, `assign` writes down a name with
    /// a colon by which [`Self::adopt`] knows each, before it can have started.
    fn start(&mut self, trials: &[Trial], assign: &mut Assign<'_>) -> anyhow::Result<()>;

    /// Takes over a trial that an earlier process started; false if it is not of this place.
    fn adopt(&mut self, trial: &Trial) -> bool;

    /// The trials, by id, that have ended since the last call.
    fn poll(&mut self) -> anyhow::Result<Vec<(String, Ended)>>;

    /// Why a trial has not begun yet; `None` once it runs.
    fn waits(&self, id: &str) -> Option<&str>;

    /// Ends a trial at once.
    fn kill(&mut self, id: &str);

    /// The sweep is being stopped: asks trials to save themselves. True if they run on without it.
    fn leave(&mut self) -> bool;
}

/// Child processes of this one.
pub struct Local {
    program: PathBuf,
    jobs: usize,
    threads: usize,
    running: Vec<(String, Process)>,
}

enum Process {
    /// With its log, and where in the log this try begins.
    Child(Child, PathBuf, u64),
    /// The child of a sweep that was killed: it still holds its run's lock.
    Orphan(RunDir),
}

impl Local {
    /// `jobs` trials at once, the machine's threads split between them. `program` is the `hotfire` binary.
    pub fn new(program: PathBuf, jobs: usize) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { program, jobs, threads: (cores / jobs).max(1), running: Vec::new() }
    }
}

impl Launcher for Local {
    fn slots(&self) -> usize {
        self.jobs
    }

    fn start(&mut self, trials: &[Trial], _: &mut Assign<'_>) -> anyhow::Result<()> {
        for trial in trials {
            let run_dir = RunDir::open(&trial.run_dir)?;
            let process = if let Some(lock) = run_dir.try_lock()? {
                let (log, log_start) = clear_last_try(&trial.run_dir);
                let file = append(&log).with_context(|| format!("{}: cannot write", log.display()))?;
                // The trial takes it for itself.
                drop(lock);
                let child = Command::new(&self.program)
                    .args(["train", "--quiet", "--resume"])
                    .arg(&trial.run_dir)
                    .arg(format!("run.threads={}", self.threads))
                    .stdin(Stdio::null())
                    .stdout(file.try_clone()?)
                    .stderr(file)
                    // Ctrl-C in the terminal is for the sweep, which tells its children itself.
                    .process_group(0)
                    .spawn()
                    .with_context(|| format!("{}: cannot start", self.program.display()))?;
                Process::Child(child, log, log_start)
            } else {
                Process::Orphan(run_dir)
            };
            self.running.push((trial.id.clone(), process));
        }
        Ok(())
    }

    fn adopt(&mut self, _: &Trial) -> bool {
        false
    }

    fn poll(&mut self) -> anyhow::Result<Vec<(String, Ended)>> {
        let mut ended = Vec::new();
        for (id, process) in &mut self.running {
            let end = match process {
                Process::Child(child, log, log_start) => {
                    child.try_wait()?.map(|status| match (status.code(), status.signal()) {
                        (Some(0 | CoreError::INTERRUPTED), _) | (_, Some(SIGINT)) => Ended::Success,
                        _ => Ended::Failure(describe(&status.to_string(), log, *log_start)),
                    })
                }
                Process::Orphan(run_dir) => run_dir.try_lock()?.map(|_| Ended::Unseen),
            };
            ended.extend(end.map(|end| (id.clone(), end)));
        }
        self.running.retain(|(id, _)| !ended.iter().any(|(gone, _)| gone == id));
        Ok(ended)
    }

    fn waits(&self, _: &str) -> Option<&str> {
        None
    }

    fn kill(&mut self, id: &str) {
        for (_, process) in self.running.iter_mut().filter(|(running, _)| running == id) {
            process.signal(Signal::KILL);
            if let Process::Child(child, ..) = process {
                let _ = child.wait();
            }
        }
        self.running.retain(|(running, _)| running != id);
    }

    fn leave(&mut self) -> bool {
        for (_, process) in &self.running {
            process.signal(Signal::INT);
        }
        false
    }
}

impl Process {
    /// One that is gone already needs no signal.
    fn signal(&self, signal: Signal) {
        let pid = match self {
            Self::Child(child, ..) => i32::try_from(child.id()).ok(),
            Self::Orphan(run_dir) => trainer_of(run_dir.path()),
        };
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }
}

/// The process of this machine that trains a run, by its command line; `None` where there is no `/proc`.
fn trainer_of(run_dir: &Path) -> Option<i32> {
    let command = |pid: i32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let trains = |pid: &i32| {
        let command = command(*pid);
        let mut words = command.split(|byte| *byte == 0);
        words.any(|word| word == b"--resume") && words.next() == Some(run_dir.as_os_str().as_encoded_bytes())
    };
    let entries = fs::read_dir("/proc").ok()?;
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(trains)
}

fn append(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Makes way for a try of a trial: the outcome of one that failed must not pass for this one's. Returns the log and its
/// length so far.
pub fn clear_last_try(run_dir: &Path) -> (PathBuf, u64) {
    let summary = run_dir.join("summary.json");
    let last = fs::read(&summary).ok().and_then(|text| serde_json::from_slice::<Summary>(&text).ok());
    if last.is_some_and(|last| last.status == Status::Failed) {
        let _ = fs::remove_file(&summary);
    }
    let log = run_dir.join("log.txt");
    let length = fs::metadata(&log).map_or(0, |file| file.len());
    (log, length)
}

/// An exit status with the last line that the process wrote after `start`, or why it could not write any.
pub fn describe(status: &str, log: &Path, start: u64) -> String {
    if let Err(error) = append(log).and_then(|mut file| file.write_all(b"\n").and_then(|()| file.sync_all())) {
        return format!("{status}: {}: {error}", log.display());
    }
    let bytes = fs::read(log).unwrap_or_default();
    let start = usize::try_from(start).unwrap_or(usize::MAX).min(bytes.len());
    let text = String::from_utf8_lossy(&bytes[start..]);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let told = lines.iter().rposition(|line| line.contains("error:") || line.contains("panicked at"));
    match told.or(lines.len().checked_sub(1)) {
        // The message of a panic is on the line after its place.
        Some(i) if lines[i].contains("panicked at") => {
            format!("{status}: {}", lines[i..lines.len().min(i + 2)].join(" "))
        }
        Some(i) => format!("{status}: {}", lines[i]),
        None => status.to_owned(),
    }
}
