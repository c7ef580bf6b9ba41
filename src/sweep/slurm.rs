//! A Slurm cluster: a job array over the open trials. Its tasks need nothing but the shared folder, and are safe to be
//! requeued; the jobs outlive the sweep command, and a second one picks them up.

use std::collections::HashMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::file::Slurm;
use super::launch::{Ended, Launcher, describe};
use super::store::Trial;

/// Time between two looks at the queue: every look is a request to the cluster's controller.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The cluster that `sbatch` talks to.
pub struct Cluster {
    program: PathBuf,
    dir: PathBuf,
    jobs: usize,
    words: Slurm,
    /// Trial id to job and run directory.
    running: HashMap<String, (String, PathBuf)>,
    last_look: Option<Instant>,
}

impl Cluster {
    /// At most `jobs` trials in the queue at once; scripts and logs are kept below `dir`.
    pub fn new(program: PathBuf, dir: &Path, jobs: usize, words: Slurm) -> anyhow::Result<Self> {
        if Command::new("sbatch").arg("--version").output().is_err() {
            bail!("sbatch is not installed here: run this on a machine of the cluster, or use --launcher local");
        }
        Ok(Self { program, dir: dir.join("slurm"), jobs, words, running: HashMap::new(), last_look: None })
    }

    /// The script of a job array; task `i` runs the `i`th line of `list`.
    fn script(&self, list: &Path, tasks: usize) -> String {
        let mut script = format!("#!/bin/bash\n#SBATCH --job-name=hotfire\n#SBATCH --array=0-{}\n", tasks - 1);
        let mut word = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                let _ = writeln!(script, "#SBATCH --{key}={value}");
            }
        };
        word("output", Some("/dev/null".into()));
        word("partition", self.words.partition.clone());
        word("cpus-per-task", self.words.cpus_per_task.map(|n| n.to_string()));
        word("gres", self.words.gpus_per_task.map(|n| format!("gpu:{n}")));
        word("mem", self.words.mem.clone());
        word("time", self.words.time.clone());
        script.push_str("#SBATCH --requeue\n#SBATCH --open-mode=append\n");
        for option in &self.words.options {
            let _ = writeln!(script, "#SBATCH {option}");
        }
        script.push_str("set -u\n");
        for line in &self.words.setup {
            let _ = writeln!(script, "{line}");
        }
        let _ = write!(
            script,
            "run=$(sed -n \"$((SLURM_ARRAY_TASK_ID + 1))p\" {list})\n\
             rm -f \"$run/exit\"\n\
             {program} train --quiet --resume \"$run\" run.threads=\"${{SLURM_CPUS_PER_TASK:-1}}\" \\\n    \
             >> \"$run/log.txt\" 2>&1\n\
             code=$?\n\
             echo \"$code\" > \"$run/exit.tmp\" && mv \"$run/exit.tmp\" \"$run/exit\"\n\
             exit \"$code\"\n",
            list = quoted(list),
            program = quoted(&self.program),
        );
        script
    }
}

impl Launcher for Cluster {
    fn slots(&self) -> usize {
        self.jobs
    }

    fn start(&mut self, trials: &[Trial]) -> anyhow::Result<Vec<Option<String>>> {
        fs::create_dir_all(&self.dir).with_context(|| format!("{}: cannot make", self.dir.display()))?;
        let name = (0..).map(|n| format!("array-{n:04}")).find(|name| !self.dir.join(format!("{name}.sh")).exists());
        let name = name.unwrap_or_default();
        let list = self.dir.join(format!("{name}.txt"));
        let script = self.dir.join(format!("{name}.sh"));
        let mut lines = String::new();
        for trial in trials {
            let _ = fs::remove_file(trial.run_dir.join("exit"));
            let _ = writeln!(lines, "{}", trial.run_dir.display());
        }
        fs::write(&list, lines).with_context(|| format!("{}: cannot write", list.display()))?;
        fs::write(&script, self.script(&list, trials.len()))
            .with_context(|| format!("{}: cannot write", script.display()))?;
        let output = Command::new("sbatch").arg("--parsable").arg(&script).output().context("cannot start sbatch")?;
        if !output.status.success() {
            bail!("sbatch {}: {}", script.display(), String::from_utf8_lossy(&output.stderr).trim());
        }
        let answer = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let job = answer.split(';').next().unwrap_or(&answer);
        let mut workers = Vec::new();
        for (task, trial) in trials.iter().enumerate() {
            let job = format!("{job}_{task}");
            workers.push(Some(format!("slurm:{job}")));
            self.running.insert(trial.id.clone(), (job, trial.run_dir.clone()));
        }
        self.last_look = Some(Instant::now());
        Ok(workers)
    }

    fn adopt(&mut self, trial: &Trial) -> bool {
        let Some(job) = trial.worker.as_deref().and_then(|worker| worker.strip_prefix("slurm:")) else { return false };
        self.running.insert(trial.id.clone(), (job.to_owned(), trial.run_dir.clone()));
        true
    }

    fn poll(&mut self) -> anyhow::Result<Vec<(String, Ended)>> {
        if self.running.is_empty() || self.last_look.is_some_and(|last| last.elapsed() < LOOK_EVERY) {
            return Ok(Vec::new());
        }
        self.last_look = Some(Instant::now());
        let output = Command::new("squeue").args(["--noheader", "--array", "--format=%i", "--me"]).output()?;
        if !output.status.success() {
            // The controller may be away for a moment; the jobs are not.
            return Ok(Vec::new());
        }
        let queue = String::from_utf8_lossy(&output.stdout);
        let queued: Vec<&str> = queue.lines().map(str::trim).collect();
        let gone: Vec<String> = self
            .running
            .iter()
            .filter(|(_, (job, _))| !queued.contains(&job.as_str()))
            .map(|(id, _)| id.clone())
            .collect();
        let mut ended = Vec::new();
        for id in gone {
            let Some((job, run_dir)) = self.running.remove(&id) else { continue };
            let end = match fs::read_to_string(run_dir.join("exit")).ok().as_deref().map(str::trim) {
                Some("0") => Ended::Success,
                Some(code) => Ended::Failure(describe(&format!("exit status {code}"), &run_dir.join("log.txt"))),
                None => Ended::Failure(describe(&format!("job {job} left the queue"), &run_dir.join("log.txt"))),
            };
            ended.push((id, end));
        }
        Ok(ended)
    }

    fn kill(&mut self, id: &str) {
        if let Some((job, _)) = self.running.remove(id) {
            // A job that is gone already needs no cancelling.
            let _ = Command::new("scancel").arg(job).status();
        }
    }

    fn leave(&mut self) -> bool {
        true
    }
}

/// For a shell, in single quotes.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}
