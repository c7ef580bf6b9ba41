//! A Slurm cluster: a job array over the open trials. Its tasks need nothing but the shared folder, and are safe to be
//! requeued; the jobs outlive the sweep command, and a second one picks them up.
//!
//! An array's name is unique, and is written down as the worker of its trials before `sbatch` is called: wherever the
//! sweep is killed, the next one finds by the name whether the array came to be. How a trial ended is told by the exit
//! code that its task leaves in the run directory, and by the queue where there is none.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hotfire_core::CoreError;
use sha2::{Digest, Sha256};

use super::file::SweepFile;
use super::launch::{Assign, Ended, Launcher, clear_last_try, describe};
use super::store::Trial;

/// Time between two looks at the queue: every look is a request to the cluster's controller.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long a network file system may take to show the exit code of a job that has left the queue.
const GRACE: Duration = Duration::from_secs(30);
/// How long the controller may not answer.
const SILENCE: Duration = Duration::from_secs(600);
/// Tasks of one array: Slurm's own limit without further settings is 1001.
const LARGEST_ARRAY: usize = 1000;
/// Where a task leaves its exit code.
const EXIT_CODE: &str = "exit_code";
/// The code, that of `timeout`, of one that took too long.
const TIMEOUT: i32 = 124;

/// The cluster that `sbatch` talks to.
pub struct Cluster {
    program: PathBuf,
    /// Scripts and logs of arrays.
    dir: PathBuf,
    slots: usize,
    file: SweepFile,
    /// By trial id.
    running: HashMap<String, Task>,
    last_look: Option<Instant>,
    last_answer: Instant,
}

/// A task of a job array.
struct Task {
    array: String,
    index: usize,
    run_dir: PathBuf,
    /// Where in the trial's log this try begins.
    log_start: u64,
    queue: Queue,
    gone_since: Option<Instant>,
}

/// Where the queue has a task.
enum Queue {
    Waits(String),
    Runs,
    /// The state it left the queue with, where that is known.
    Left(Option<String>),
}

impl Cluster {
    /// At most `slots` trials in the queue at once; scripts and logs are kept below `dir`.
    pub fn new(program: PathBuf, dir: &Path, slots: usize, file: SweepFile) -> anyhow::Result<Self> {
        if Command::new("sbatch").arg("--version").output().is_err() {
            bail!("sbatch is not installed here: run this on a machine of the cluster, or use --launcher local");
        }
        let (dir, running) = (dir.join("slurm"), HashMap::new());
        Ok(Self { program, dir, slots, file, running, last_look: None, last_answer: Instant::now() })
    }

    /// A name that no other array of this user has, its list of run directories written.
    fn new_array(&self, trials: &[Trial]) -> anyhow::Result<String> {
        fs::create_dir_all(&self.dir).with_context(|| format!("{}: cannot make", self.dir.display()))?;
        let place = Sha256::digest(self.dir.as_os_str().as_encoded_bytes());
        let place: String = place.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        for number in 0.. {
            let array = format!("hotfire-{place}-{number:04}");
            let list = self.dir.join(format!("{array}.txt"));
            match OpenOptions::new().write(true).create_new(true).open(&list) {
                Ok(mut file) => {
                    for trial in trials {
                        writeln!(file, "{}", trial.run_dir.display())
                            .with_context(|| format!("{}: cannot write", list.display()))?;
                    }
                    return Ok(array);
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).with_context(|| format!("{}: cannot write", list.display())),
            }
        }
        bail!("{}: no name is left for a job array", self.dir.display())
    }

    /// The script of a job array; task `i` runs the `i`th line of its list.
    fn script(&self, array: &str, tasks: usize) -> String {
        let words = &self.file.slurm;
        let mut script = "#!/bin/bash\n".to_owned();
        let mut word = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                let _ = writeln!(script, "#SBATCH --{key}={value}");
            }
        };
        // Slurm replaces %a by the task's number, and takes %% for a percent sign.
        let output = self.dir.display().to_string().replace('%', "%%");
        word("job-name", Some(array.to_owned()));
        word("array", Some(format!("0-{}", tasks - 1)));
        word("output", Some(format!("\"{output}/{array}-%a.log\"")));
        word("open-mode", Some("append".into()));
        word("partition", words.partition.clone());
        word("cpus-per-task", words.cpus_per_task.map(|n| n.to_string()));
        word("gres", words.gpus_per_task.map(|n| format!("gpu:{n}")));
        word("mem", words.mem.clone());
        word("time", words.time.clone());
        script.push_str("#SBATCH --requeue\n");
        for option in &words.options {
            let _ = writeln!(script, "#SBATCH {option}");
        }
        let _ = write!(
            script,
            "set -u\n\
             run=$(sed -n \"$((SLURM_ARRAY_TASK_ID + 1))p\" {list})\n\
             exec >> \"$run/log.txt\" 2>&1\n\
             # A node that only seemed dead may still run the trial that was requeued here.\n\
             exec 9> \"$run/.job\" && flock --timeout 3600 9 || exit 1\n\
             code_file=\"$run/{EXIT_CODE}\"\n\
             rm -f \"$code_file\"\n\
             trap 'code=$?; echo \"$code\" > \"$code_file.tmp\" && mv \"$code_file.tmp\" \"$code_file\"' EXIT\n\
             # At the end of its time the trial saves itself, and this script waits for it.\n\
             trap : TERM\n",
            list = quoted(&self.dir.join(format!("{array}.txt"))),
        );
        for line in &words.setup {
            let _ = writeln!(script, "{line}");
        }
        let limit = self.file.search.timeout_seconds;
        let timeout = limit.map_or(String::new(), |seconds| format!("timeout --signal=KILL {seconds} "));
        let _ = write!(
            script,
            "started=$SECONDS\n\
             {timeout}{program} train --quiet --resume \"$run\" run.threads=\"${{SLURM_CPUS_PER_TASK:-1}}\"\n\
             code=$?\n",
            program = quoted(&self.program),
        );
        if let Some(seconds) = limit {
            // 137 is any SIGKILL, such as that of a node out of memory.
            let _ = writeln!(
                script,
                "[ \"$code\" = 137 ] && [ $((SECONDS - started)) -ge {} ] && code={TIMEOUT}",
                seconds.floor()
            );
        }
        script.push_str("exit \"$code\"\n");
        script
    }

    /// The array's job id, once it was submitted.
    fn job_id(&self, array: &str) -> Option<String> {
        fs::read_to_string(self.dir.join(format!("{array}.job"))).ok()
    }

    /// Brings what is known of the queue up to date; false if the controller does not answer, which the jobs outlive.
    fn look(&mut self) -> anyhow::Result<bool> {
        let output = Command::new("squeue")
            .args(["--me", "--array", "--states=all", "--noheader", "--format=%j|%K|%F|%T|%r"])
            .output()
            .context("cannot start squeue")?;
        if !output.status.success() {
            if self.last_answer.elapsed() > SILENCE {
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                bail!(
                    "squeue has had no answer for {} s: {said}; the same command picks the jobs up",
                    SILENCE.as_secs()
                );
            }
            return Ok(false);
        }
        self.last_answer = Instant::now();
        let text = String::from_utf8_lossy(&output.stdout);
        let mut states: HashMap<(&str, usize), Queue> = HashMap::new();
        for line in text.lines() {
            let fields: Vec<&str> = line.trim().split('|').collect();
            let [array, index, job, state, reason] = fields[..] else { continue };
            let Ok(index) = index.parse() else { continue };
            let record = self.dir.join(format!("{array}.job"));
            if self.running.values().any(|task| task.array == array) && !record.exists() {
                // The sweep that submitted it was killed before it could write this down.
                fs::write(&record, job).with_context(|| format!("{}: cannot write", record.display()))?;
            }
            states.insert((array, index), Queue::read(state, reason));
        }
        for task in self.running.values_mut() {
            task.queue = states.remove(&(task.array.as_str(), task.index)).unwrap_or(Queue::Left(None));
        }
        Ok(true)
    }

    /// How a task ended that has left the queue; `None` if that can't be told yet.
    fn ended(&self, task: &Task) -> Option<Ended> {
        let Queue::Left(state) = &task.queue else { return None };
        let log = task.run_dir.join("log.txt");
        if let Ok(code) = fs::read_to_string(task.run_dir.join(EXIT_CODE)) {
            return Some(match code.trim().parse() {
                Ok(0 | CoreError::INTERRUPTED) => Ended::Success,
                Ok(TIMEOUT) => Ended::Failure(self.too_long()),
                _ => Ended::Failure(describe(&format!("exit status: {}", code.trim()), &log, task.log_start)),
            });
        }
        let Some(job) = self.job_id(&task.array) else { return Some(Ended::Unseen) };
        let job = format!("job {job}_{}", task.index);
        match state.as_deref() {
            Some(state) if !["COMPLETED", "FAILED"].contains(&state) => {
                Some(Ended::Failure(describe(&format!("{job}: {state}"), &log, task.log_start)))
            }
            _ if task.gone_since.is_some_and(|since| since.elapsed() > GRACE) => {
                let slurm = self.dir.join(format!("{}-{}.log", task.array, task.index));
                Some(Ended::Failure(describe(&format!("{job} left no exit code"), &slurm, 0)))
            }
            _ => None,
        }
    }

    fn too_long(&self) -> String {
        format!("took longer than {} s", self.file.search.timeout_seconds.unwrap_or_default())
    }
}

impl Queue {
    fn read(state: &str, reason: &str) -> Self {
        const WAITING: [&str; 6] =
            ["PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD"];
        const OVER: [&str; 10] = [
            "COMPLETED",
            "FAILED",
            "CANCELLED",
            "TIMEOUT",
            "OUT_OF_MEMORY",
            "NODE_FAIL",
            "BOOT_FAIL",
            "DEADLINE",
            "PREEMPTED",
            "REVOKED",
        ];
        match state {
            _ if WAITING.contains(&state) => Self::Waits(reason.to_owned()),
            _ if OVER.contains(&state) => Self::Left(Some(state.to_owned())),
            _ => Self::Runs,
        }
    }
}

impl Launcher for Cluster {
    fn slots(&self) -> usize {
        self.slots
    }

    fn start(&mut self, trials: &[Trial], assign: &mut Assign<'_>) -> anyhow::Result<()> {
        for trials in trials.chunks(LARGEST_ARRAY) {
            let array = self.new_array(trials)?;
            let script = self.dir.join(format!("{array}.sh"));
            fs::write(&script, self.script(&array, trials.len()))
                .with_context(|| format!("{}: cannot write", script.display()))?;
            let mut log_starts = Vec::new();
            for (index, trial) in trials.iter().enumerate() {
                // The code of an earlier try.
                let _ = fs::remove_file(trial.run_dir.join(EXIT_CODE));
                log_starts.push(clear_last_try(&trial.run_dir).1);
                assign(trial, &format!("slurm:{array}:{index}"))?;
            }
            let output =
                Command::new("sbatch").arg("--parsable").arg(&script).output().context("cannot start sbatch")?;
            if !output.status.success() {
                bail!("sbatch {}: {}", script.display(), String::from_utf8_lossy(&output.stderr).trim());
            }
            let answer = String::from_utf8_lossy(&output.stdout);
            let job = answer.trim().split(';').next().unwrap_or_default();
            let record = self.dir.join(format!("{array}.job"));
            fs::write(&record, job).with_context(|| format!("{}: cannot write", record.display()))?;
            for (index, (trial, log_start)) in trials.iter().zip(log_starts).enumerate() {
                self.running.insert(trial.id.clone(), Task::new(&array, index, &trial.run_dir, log_start));
            }
        }
        self.last_look = Some(Instant::now());
        Ok(())
    }

    fn adopt(&mut self, trial: &Trial) -> bool {
        let worker = trial.worker.as_deref().and_then(|worker| worker.strip_prefix("slurm:"));
        let Some((array, index)) = worker.and_then(|worker| worker.rsplit_once(':')) else { return false };
        let Ok(index) = index.parse() else { return false };
        // Nobody knows any more what was in the log when it was submitted.
        self.running.insert(trial.id.clone(), Task::new(array, index, &trial.run_dir, 0));
        true
    }

    fn poll(&mut self) -> anyhow::Result<Vec<(String, Ended)>> {
        if self.running.is_empty() || self.last_look.is_some_and(|last| last.elapsed() < LOOK_EVERY) {
            return Ok(Vec::new());
        }
        self.last_look = Some(Instant::now());
        if !self.look()? {
            return Ok(Vec::new());
        }
        for task in self.running.values_mut() {
            task.gone_since = match task.queue {
                Queue::Left(_) => task.gone_since.or(Some(Instant::now())),
                _ => None,
            };
        }
        let ended: Vec<(String, Ended)> =
            self.running.iter().filter_map(|(id, task)| Some((id.clone(), self.ended(task)?))).collect();
        for (id, _) in &ended {
            if let Some(task) = self.running.remove(id) {
                let log = self.dir.join(format!("{}-{}.log", task.array, task.index));
                if fs::metadata(&log).is_ok_and(|file| file.len() == 0) {
                    let _ = fs::remove_file(&log);
                }
            }
        }
        Ok(ended)
    }

    fn waits(&self, id: &str) -> Option<&str> {
        match &self.running.get(id)?.queue {
            Queue::Waits(reason) => Some(reason),
            _ => None,
        }
    }

    fn kill(&mut self, id: &str) {
        let Some(task) = self.running.remove(id) else { return };
        if let Some(job) = self.job_id(&task.array) {
            // A job that is gone already needs no cancelling.
            let _ = Command::new("scancel").arg(format!("{job}_{}", task.index)).output();
        }
    }

    fn leave(&mut self) -> bool {
        true
    }
}

impl Task {
    fn new(array: &str, index: usize, run_dir: &Path, log_start: u64) -> Self {
        let queue = Queue::Waits(String::new());
        Self { array: array.to_owned(), index, run_dir: run_dir.to_owned(), log_start, queue, gone_since: None }
    }
}

/// For a shell, in single quotes.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}
