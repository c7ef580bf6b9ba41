//! `hotfire sweep`: many runs of one config over a search space, kept in a database, resumable at any moment.

mod file;
mod launch;
mod prune;
mod search;
mod slurm;
mod store;
mod table;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Context;
use hotfire_core::CoreError;
use hotfire_core::run_dir::{RunDir, write_atomic};
use hotfire_core::summary::{Status, Summary};
use hotfire_core::tracker::MetricTail;
use serde_json::Value;

pub use file::{Assignment, Direction, SweepFile, evaluation_metric};
use launch::{Ended, Launcher, Local};
use search::History;
use store::{NewTrial, Outcome, Store, hash, trial_id};
pub use store::{State, Trial, read_trials};
pub use table::describe;
use table::{Progress, Table};

use crate::cli::{LauncherKind, SweepArgs};
use crate::interrupt::stop_on_interrupt;
use crate::train::prepare;

/// Configs are looked at, not run: that needs no other device.
const CHECK_DEVICE: &str = "cpu";
/// Time between two looks at the running trials.
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub fn sweep(args: &SweepArgs) -> anyhow::Result<()> {
    // A cluster's front end lacks the devices of its nodes.
    let device = (args.launcher == LauncherKind::Slurm).then_some(CHECK_DEVICE);
    let file = SweepFile::load(&args.file, device)?;
    let stem = args.file.file_stem().unwrap_or_default();
    let dir = args.out.clone().unwrap_or_else(|| Path::new("runs").join("sweeps").join(stem));
    fs::create_dir_all(&dir).map_err(CoreError::io(&dir, "make the sweep's directory"))?;
    let dir = dir.canonicalize().map_err(CoreError::io(&dir, "find"))?;
    let program = std::env::current_exe().context("cannot find the hotfire program")?;
    let stop = stop_on_interrupt()?;
    let mut launcher: Box<dyn Launcher> = match args.launcher {
        LauncherKind::Local => Box::new(Local::new(program, args.jobs.unwrap_or(1).into())),
        LauncherKind::Slurm => {
            let jobs = args.jobs.map_or(64, usize::from);
            Box::new(slurm::Cluster::new(program, &dir, jobs, file.clone())?)
        }
    };
    let mut table = Table::new(&file, &dir, args.quiet);
    let mut sweep = Sweep::open(file, dir)?;
    keep_definition(&args.file, &sweep.file, &sweep.dir)?;
    let complete = sweep.run(launcher.as_mut(), &mut table, &stop)?;
    let trials = sweep.store.trials()?;
    table.finish(&trials, complete, launcher.leave());
    if stop.load(Ordering::Relaxed) && !complete {
        return Err(CoreError::Interrupted.into());
    }
    let failed = trials.iter().filter(|trial| trial.state == State::Failed).count();
    if complete && failed > 0 {
        let (all, dir) = (trials.len(), sweep.dir.display());
        let told = format!("hotfire report {dir} tells why, {dir}/trials/*/log.txt what they wrote");
        return Err(CoreError::Failed(format!("{failed} of {all} trials failed; {told}")).into());
    }
    Ok(())
}

/// Copies the sweep file to the sweep's directory, where its base config has another relative path.
fn keep_definition(path: &Path, file: &SweepFile, dir: &Path) -> anyhow::Result<()> {
    let text = fs::read_to_string(path).map_err(CoreError::io(path, "read"))?;
    let mut table: toml::Table = text.parse()?;
    let base = file.base.canonicalize().map_err(CoreError::io(&file.base, "find"))?;
    table.insert("base".into(), base.to_string_lossy().into_owned().into());
    write_atomic(&dir.join("sweep.toml"), toml::to_string(&table)?.as_bytes())?;
    Ok(())
}

/// A sweep with its database.
struct Sweep {
    file: SweepFile,
    dir: PathBuf,
    store: Store,
    running: HashMap<String, Running>,
    started: Instant,
}

/// A trial in progress.
struct Running {
    trial: Trial,
    since: Instant,
    tail: MetricTail,
    /// The number of its steps.
    steps: u64,
    /// The objective at each evaluation so far, signed so that more is better.
    evaluations: Vec<f64>,
}

impl Running {
    /// Reads what the trial has logged since; whether it was evaluated again. The evaluation after its last step, which
    /// may be one that ended it early, does not count: there is nothing left to spare.
    fn evaluated(&mut self, direction: Direction) -> Result<bool, CoreError> {
        let mut last = None;
        let logged = self.tail.read()?.iter();
        let during = logged.filter(|(step, _)| *step < self.steps && last.replace(*step) != Some(*step));
        let evaluations: Vec<f64> = during.map(|(_, value)| direction.signed(*value)).collect();
        let again = evaluations.len() > self.evaluations.len();
        if again {
            self.evaluations = evaluations;
        }
        Ok(again)
    }
}

impl Sweep {
    fn open(file: SweepFile, dir: PathBuf) -> anyhow::Result<Self> {
        let base = prepare(&file.base, &file.trial_overrides(&Assignment::new(), 0), Some(CHECK_DEVICE))?.resolved;
        let definition = serde_json::json!({
            "base": trial_id(&base)?,
            "space": file.space.iter().map(|(key, values)| (key.clone(), values.to_string())).collect::<BTreeMap<_, _>>(),
            "method": format!("{:?}", file.search.method),
            "pruner": format!("{:?}", file.search.pruner),
            "objective": file.objective,
            "direction": format!("{:?}", file.direction),
            "seed": file.search.seed,
        });
        let definition = serde_json::to_string_pretty(&definition)?;
        let store = Store::open(&dir, &definition)?;
        Ok(Self { file, dir, store, running: HashMap::new(), started: Instant::now() })
    }

    /// Runs trials until there are no more, or `stop` is set; whether all are done. An error stops the trials too.
    fn run(&mut self, launcher: &mut dyn Launcher, table: &mut Table, stop: &AtomicBool) -> anyhow::Result<bool> {
        let result = self.work(launcher, table, stop);
        if result.is_err() {
            // The first error is the one to report.
            let _ = self.leave(launcher);
        }
        result
    }

    fn work(&mut self, launcher: &mut dyn Launcher, table: &mut Table, stop: &AtomicBool) -> anyhow::Result<bool> {
        self.store.recover()?;
        self.store.retry(self.file.search.retries)?;
        for trial in self.store.trials()? {
            if trial.state == State::Running && launcher.adopt(&trial) {
                self.note_running(trial)?;
            }
        }
        loop {
            if stop.load(Ordering::Relaxed) {
                return self.leave(launcher);
            }
            for (id, ended) in launcher.poll()? {
                if let Some(running) = self.running.remove(&id) {
                    self.conclude(&running.trial, ended, table)?;
                }
            }
            self.watch(launcher, table)?;
            let waiting = self.fill(launcher, table)?;
            if table.due() {
                table.show(&self.store.trials()?, &self.progress(launcher));
            }
            if self.running.is_empty() && !waiting {
                let ended = |trial: &Trial| !matches!(trial.state, State::Open | State::Running);
                return Ok(self.store.trials()?.iter().all(ended));
            }
            sleep(LOOK_EVERY);
        }
    }

    /// Starts as many trials as there is room for; whether there may be more to do when none of ours runs.
    fn fill(&mut self, launcher: &mut dyn Launcher, table: &mut Table) -> anyhow::Result<bool> {
        let over = self.file.search.max_seconds.is_some_and(|most| self.started.elapsed().as_secs_f64() > most);
        let mut batch = Vec::new();
        while !over && self.running.len() + batch.len() < launcher.slots() {
            let file = &self.file;
            let Some(trial) = self.store.claim(|trials| next_trials(file, trials))? else { break };
            match self.write_config(&trial) {
                Ok(()) => batch.push(trial),
                // Another try would find the same.
                Err(error) => self.fail(&trial, &format!("{error:#}"), 0, table)?,
            }
        }
        if !batch.is_empty() {
            self.start(batch, launcher)?;
            return Ok(true);
        }
        if over || !self.running.is_empty() {
            return Ok(false);
        }
        self.store.recover()?;
        let others = self.store.trials()?.iter().any(|trial| match trial.state {
            State::Running => trial.worker.as_deref().is_some_and(|worker| !worker.contains(':')),
            State::Open => true,
            _ => false,
        });
        Ok(others)
    }

    fn start(&mut self, mut batch: Vec<Trial>, launcher: &mut dyn Launcher) -> anyhow::Result<()> {
        let mut workers = HashMap::new();
        let store = &mut self.store;
        let started = launcher.start(&batch, &mut |trial, worker| {
            store.assign(&trial.id, worker)?;
            workers.insert(trial.id.clone(), worker.to_owned());
            Ok(())
        });
        for trial in &mut batch {
            if let Some(worker) = workers.remove(&trial.id) {
                trial.worker = Some(worker);
            }
        }
        match started {
            Ok(()) => batch.into_iter().try_for_each(|trial| self.note_running(trial)),
            Err(error) => {
                for trial in &batch {
                    self.store.release(trial)?;
                }
                Err(error)
            }
        }
    }

    fn note_running(&mut self, trial: Trial) -> anyhow::Result<()> {
        let metric = evaluation_metric(&self.file.objective);
        let run_dir = RunDir::open(&trial.run_dir)?;
        let steps = match self.file.search.pruner {
            file::Pruner::None => u64::MAX,
            _ => prepare(&run_dir.config(), &[], Some(CHECK_DEVICE))?.train.steps,
        };
        let tail = MetricTail::new(run_dir.metrics(), metric);
        let running = Running { tail, steps, since: Instant::now(), evaluations: Vec::new(), trial };
        self.running.insert(running.trial.id.clone(), running);
        Ok(())
    }

    /// The run directory of a trial that was never started: its config, complete.
    fn write_config(&self, trial: &Trial) -> anyhow::Result<()> {
        if RunDir::open(&trial.run_dir).is_ok() {
            return Ok(());
        }
        let mut overrides = self.file.trial_overrides(&trial.assignment, trial.seed);
        overrides.push(format!("run.dir={}", self.dir.join("trials").display()));
        overrides.push(format!("run.name={}", trial.name()));
        let prepared = prepare(&self.file.base, &overrides, Some(CHECK_DEVICE))?;
        fs::create_dir_all(&trial.run_dir).map_err(CoreError::io(&trial.run_dir, "make"))?;
        write_atomic(&trial.run_dir.join("config.toml"), prepared.resolved.as_bytes())?;
        Ok(())
    }

    /// Reads what running trials have logged; ends those that take too long or are hopeless.
    fn watch(&mut self, launcher: &mut dyn Launcher, table: &mut Table) -> anyhow::Result<()> {
        let direction = self.file.direction;
        let mut over = Vec::new();
        for (id, running) in &mut self.running {
            if launcher.waits(id).is_some() {
                running.since = Instant::now();
            }
            if let Some(limit) = self.file.search.timeout_seconds
                && running.since.elapsed().as_secs_f64() > limit
            {
                over.push((id.clone(), State::Failed, None, Some(format!("took longer than {limit} s"))));
                continue;
            }
            if running.evaluated(direction)? && self.file.search.pruner != file::Pruner::None {
                let judged = self.store.note_evaluations(id, &running.evaluations)?;
                let others = self.store.other_evaluations(id)?;
                if prune::should_prune(&self.file.search, &running.evaluations, judged, &others) {
                    let last = running.evaluations.last().map(|value| direction.signed(*value));
                    over.push((id.clone(), State::Pruned, last, None));
                }
            }
        }
        for (id, state, objective, error) in over {
            launcher.kill(&id);
            let Some(Running { trial, .. }) = self.running.remove(&id) else { continue };
            match error {
                Some(error) => self.fail(&trial, &error, self.file.search.retries, table)?,
                None => self.end(&trial, &Outcome { state, objective, error: None }, table)?,
            }
        }
        Ok(())
    }

    /// Notes the outcome of a trial whose process has ended.
    fn conclude(&mut self, trial: &Trial, ended: Ended, table: &mut Table) -> anyhow::Result<()> {
        let summary = fs::read(trial.run_dir.join("summary.json")).ok();
        let summary = summary.and_then(|text| serde_json::from_slice::<Value>(&text).ok());
        let retries = self.file.search.retries;
        let status = summary.as_ref().and_then(|value| serde_json::from_value::<Summary>(value.clone()).ok());
        match (status.map(|summary| (summary.status, summary.error)), ended) {
            (Some((Status::Finished, _)), Ended::Success | Ended::Unseen) => {
                match objective(&summary.unwrap_or_default(), &self.file.objective) {
                    Ok(value) => {
                        let outcome = Outcome { state: State::Finished, objective: Some(value), error: None };
                        self.end(trial, &outcome, table)
                    }
                    // No trial can have it, and none needs to be trained again once the file is right.
                    Err(problem) => {
                        self.fail(trial, &problem, 0, table)?;
                        let how = "correct the sweep file, and the same command goes on";
                        Err(CoreError::Usage(format!("objective: {problem}; {how}")).into())
                    }
                }
            }
            (Some((Status::Failed, Some(error))), _) => self.fail(trial, &error, retries, table),
            (_, Ended::Failure(why)) => self.fail(trial, &why, retries, table),
            (Some((Status::Failed, None)), _) => self.fail(trial, "failed", retries, table),
            (Some((Status::Interrupted, _)), _) | (_, Ended::Unseen) => self.store.release(trial),
            (None, Ended::Success) => self.fail(trial, "ended well but left no summary.json", retries, table),
        }
    }

    fn end(&mut self, trial: &Trial, outcome: &Outcome<'_>, table: &mut Table) -> anyhow::Result<()> {
        if self.store.end(trial, outcome)? {
            table.note(trial, outcome.state, outcome.objective, outcome.error);
        }
        Ok(())
    }

    fn fail(&mut self, trial: &Trial, error: &str, retries: u32, table: &mut Table) -> anyhow::Result<()> {
        if let Some(state) = self.store.fail(trial, error, retries)? {
            table.note(trial, state, None, Some(error));
        }
        Ok(())
    }

    /// Stops the trials, unless they go on by themselves, and gives them back.
    fn leave(&mut self, launcher: &mut dyn Launcher) -> anyhow::Result<bool> {
        if launcher.leave() {
            return Ok(false);
        }
        let patience = Instant::now();
        while !self.running.is_empty() && patience.elapsed() < Duration::from_secs(60) {
            for (id, ended) in launcher.poll()? {
                if let Some(running) = self.running.remove(&id) {
                    let quiet = &mut Table::new(&self.file, &self.dir, true);
                    self.conclude(&running.trial, ended, quiet)?;
                }
            }
            sleep(LOOK_EVERY);
        }
        for (id, running) in &self.running {
            launcher.kill(id);
            self.store.release(&running.trial)?;
        }
        Ok(false)
    }

    /// How far each running trial is.
    fn progress(&self, launcher: &dyn Launcher) -> Vec<Progress> {
        let progress = |(id, running): (&String, &Running)| Progress {
            id: id.clone(),
            waits: launcher.waits(id).map(str::to_owned),
            time: running.since.elapsed(),
            last: running.evaluations.last().map(|value| self.file.direction.signed(*value)),
        };
        let mut all: Vec<Progress> = self.running.iter().map(progress).collect();
        all.sort_by_key(|Progress { id, .. }| (self.running[id].trial.configuration, self.running[id].trial.seed));
        all
    }
}

/// The next configuration's trials, one a seed; none when the search is over.
fn next_trials(file: &SweepFile, trials: &[Trial]) -> anyhow::Result<Vec<NewTrial>> {
    let mut by_configuration: HashMap<usize, Vec<&Trial>> = HashMap::new();
    for trial in trials {
        by_configuration.entry(trial.configuration).or_default().push(trial);
    }
    for configuration in 0..file.configurations() {
        let known = by_configuration.get(&configuration).map_or(&[][..], Vec::as_slice);
        let missing: Vec<u64> =
            file.seeds.iter().copied().filter(|seed| !known.iter().any(|trial| trial.seed == *seed)).collect();
        if missing.is_empty() {
            continue;
        }
        let assignment = match known.first() {
            Some(trial) => trial.assignment.clone(),
            None => match new_assignment(file, configuration, trials) {
                Some(assignment) => assignment,
                None => return Ok(Vec::new()),
            },
        };
        let trial = |seed: u64| -> anyhow::Result<NewTrial> {
            let overrides = file.trial_overrides(&assignment, seed);
            let run_dir = format!("trials/{configuration:04}-s{seed}");
            let id = match prepare(&file.base, &overrides, Some(CHECK_DEVICE)) {
                Ok(prepared) => trial_id(&prepared.resolved)?,
                // Values that can't stand together: the trial fails alone, when its config is to be written.
                Err(_) => hash(&overrides.join("\n")),
            };
            Ok(NewTrial { id, configuration, seed, assignment: assignment.clone(), run_dir })
        };
        let mut new = missing.into_iter().map(trial).collect::<anyhow::Result<Vec<_>>>()?;
        // Another configuration may come out as the same config.
        new.retain(|new| !trials.iter().any(|trial| trial.id == new.id));
        if !new.is_empty() {
            return Ok(new);
        }
    }
    Ok(Vec::new())
}

/// A point of the space that was not tried yet; `None` if none turns up, as in a small space that is used up.
fn new_assignment(file: &SweepFile, configuration: usize, trials: &[Trial]) -> Option<Assignment> {
    const TRIES: usize = 1000;
    let in_progress = |trial: &&Trial| matches!(trial.state, State::Open | State::Running);
    let mut running: Vec<Assignment> =
        trials.iter().filter(in_progress).map(|trial| trial.assignment.clone()).collect();
    running.dedup();
    let known = History { measured: history(file.direction, trials), running };
    let used: HashSet<String> = trials.iter().map(|trial| format!("{:?}", trial.assignment)).collect();
    (0..TRIES)
        .map(|again| search::propose(&file.search, &file.space, configuration + again * 1_000_003, &known))
        .find(|assignment| !used.contains(&format!("{assignment:?}")))
}

/// The mean objective of each configuration whose seeds were all measured, such that more is better.
pub fn history(direction: Direction, trials: &[Trial]) -> Vec<(Assignment, f64)> {
    let mut found: Vec<(usize, Assignment, Vec<Option<f64>>)> = Vec::new();
    for trial in trials {
        match found.last_mut().filter(|(configuration, ..)| *configuration == trial.configuration) {
            Some((_, _, objectives)) => objectives.push(trial.objective),
            None => found.push((trial.configuration, trial.assignment.clone(), vec![trial.objective])),
        }
    }
    let measured = |objectives: Vec<Option<f64>>| -> Option<f64> {
        let values = objectives.into_iter().collect::<Option<Vec<f64>>>()?;
        Some(direction.signed(values.iter().sum::<f64>() / values.len() as f64))
    };
    found.into_iter().filter_map(|(_, assignment, objectives)| Some((assignment, measured(objectives)?))).collect()
}

/// The number at a dotted key of `summary.json`.
pub fn objective(summary: &Value, key: &str) -> Result<f64, String> {
    let (section, name) = key.split_once('.').map_or((None, key), |(section, name)| (Some(section), name));
    let table = match section {
        Some(section) => summary.get(section).unwrap_or(&Value::Null),
        None => summary,
    };
    table.get(name).and_then(Value::as_f64).ok_or_else(|| {
        let known = table.as_object().map(|table| table.keys().cloned().collect::<Vec<_>>().join(", "));
        format!("summary.json has no number at {key}; there is {}", known.unwrap_or_else(|| "nothing".into()))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Runs a sweep of one configuration with a shell script in the place of the program that trains.
    fn sweep_with(script: &str, head: &str, dir: &Path) -> Vec<Trial> {
        let base = fs::canonicalize("configs/ppo-cartpole-cleanrl.toml").unwrap();
        let path = dir.join("sweep.toml");
        let text = format!(
            "base = {base:?}\nobjective = \"eval.mean\"\ndirection = \"maximize\"\n{head}\n\
             {}",
            if head.contains("space.") { "" } else { "[space]\nagent.gamma = { values = [0.9] }\n" }
        );
        fs::write(&path, text).unwrap();
        let program = dir.join("program");
        fs::write(&program, format!("#!/bin/sh\nrun=$4\n{script}")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let file = SweepFile::load(&path, Some(CHECK_DEVICE)).unwrap();
        let mut table = Table::new(&file, dir, true);
        let mut sweep = Sweep::open(file, dir.to_owned()).unwrap();
        assert!(sweep.run(&mut Local::new(program, 2), &mut table, &AtomicBool::new(false)).unwrap());
        sweep.store.trials().unwrap()
    }

    fn errors(trials: &[Trial]) -> Vec<&str> {
        trials.iter().map(|trial| trial.error.as_deref().unwrap_or("none")).collect()
    }

    #[test]
    fn a_trial_that_panics_or_ends_without_a_result_has_failed_with_what_it_said() {
        let dir = tempfile::tempdir().unwrap();
        let script = "case $run in\n\
            *-s1) printf \"thread 'main' panicked at a.rs:1:2:\\nindex out of bounds\\nnote: a backtrace\\n\" >&2; exit 101;;\n\
            *-s2) echo working; kill -SEGV $$;;\n\
            *-s3) exit 0;;\nesac\n";
        let trials = sweep_with(script, "seeds = [1, 2, 3]", dir.path());
        assert!(trials.iter().all(|trial| trial.state == State::Failed));
        let errors = errors(&trials);
        assert_eq!(errors[0], "exit status: 101: thread 'main' panicked at a.rs:1:2: index out of bounds");
        assert!(errors[1].starts_with("signal: 11 (SIGSEGV)") && errors[1].ends_with(": working"), "{}", errors[1]);
        assert_eq!(errors[2], "ended well but left no summary.json");
    }

    #[test]
    fn failed_trials_are_tried_again_when_more_tries_are_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let script = "echo tried >> $run/tries\nexit 1\n";
        let tries = || fs::read_to_string(dir.path().join("trials/0000-s1/tries")).unwrap().lines().count();
        sweep_with(script, "", dir.path());
        assert_eq!(tries(), 1);
        sweep_with(script, "", dir.path());
        assert_eq!(tries(), 1, "it had its one try");
        let trials = sweep_with(script, "search.retries = 2", dir.path());
        assert_eq!((trials[0].state, tries()), (State::Failed, 3));
    }

    /// Shell words that leave the summary of a run that finished.
    const FINISH: &str = "echo '{\"status\":\"finished\",\"task\":\"t\",\"seed\":1,\"device\":\"cpu\",\"steps\":1,\
        \"wall_seconds\":1,\"steps_per_second\":1,\"metrics\":{},\
        \"eval\":{\"mean\":1,\"std\":0,\"min\":1,\"max\":1,\"episodes\":1}}' > $run/summary.json\n";

    #[test]
    fn a_trial_that_takes_too_long_has_failed_and_is_tried_again_as_often_as_asked() {
        let dir = tempfile::tempdir().unwrap();
        // The first is never done, the second stops for ever in its first try, the third is done at once.
        let script = format!(
            "echo tried >> $run/tries\ncase $run in\n*-s1) exec sleep 600;;\n\
             *-s2) [ -e $run/stopped ] || {{ touch $run/stopped; kill -STOP $$; }};;\nesac\n{FINISH}"
        );
        let head = "seeds = [1, 2, 3]\nsearch.retries = 1\nsearch.timeout_seconds = 5.0";
        let trials = sweep_with(&script, head, dir.path());
        let states: Vec<State> = trials.iter().map(|trial| trial.state).collect();
        assert_eq!(states, [State::Failed, State::Finished, State::Finished]);
        assert_eq!(errors(&trials), ["took longer than 5 s", "none", "none"]);
        let tries = |trial: &Trial| fs::read_to_string(trial.run_dir.join("tries")).unwrap().lines().count();
        assert_eq!(trials.iter().map(tries).collect::<Vec<_>>(), [2, 2, 1]);
    }

    #[test]
    fn a_second_try_does_not_fail_with_the_error_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let script = "[ -e $run/tried ] && exit 3\ntouch $run/tried\necho 'error: out of memory'\n\
            case $run in *-s2) echo '{\"status\":\"failed\",\"task\":\"t\",\"seed\":1,\"device\":\"cpu\",\"steps\":1,\
            \"wall_seconds\":1,\"steps_per_second\":1,\"metrics\":{},\"error\":\"no device\"}' > $run/summary.json;; esac\nexit 1\n";
        let trials = sweep_with(script, "seeds = [1, 2]\nsearch.retries = 1", dir.path());
        assert_eq!(errors(&trials), ["exit status: 3", "exit status: 3"]);
    }

    #[test]
    fn values_that_cannot_stand_together_fail_alone() {
        let dir = tempfile::tempdir().unwrap();
        let head = "search.method = \"random\"\nsearch.trials = 8\nspace.agent.minibatches.int = [1, 8]";
        let trials = sweep_with(FINISH, head, dir.path());
        assert_eq!(trials.len(), 8);
        for trial in &trials {
            let minibatches = trial.assignment["agent.minibatches"].as_integer().unwrap();
            let error = trial.error.as_deref().unwrap_or_default();
            match 512 % minibatches {
                0 => assert_eq!(trial.state, State::Finished, "{error}"),
                _ => assert!(trial.state == State::Failed && error.contains("agent.minibatches"), "{error}"),
            }
        }
        let failed = |trials: &[Trial]| trials.iter().filter(|trial| trial.state == State::Failed).count();
        assert_eq!(failed(&trials), 4, "3, 5, 6 and 7");
        assert_eq!(failed(&sweep_with(FINISH, head, dir.path())), 4, "the same after a restart");
    }

    #[test]
    fn a_trial_that_has_done_all_its_steps_is_not_ended() {
        let dir = tempfile::tempdir().unwrap();
        let evaluate = |step: u32, value: u32| {
            format!("echo '{{\"step\":{step},\"time\":1,\"eval/return_mean\":{value}}}' >> $run/metrics.jsonl\n")
        };
        // The third is hopeless half way, the second only at its end.
        let script = format!(
            "case $run in\n*-s1) {}{};;\n*-s2) {}{};;\n*-s3) {}exec sleep 600;;\nesac\nsleep 1\n{FINISH}",
            evaluate(2048, 5),
            evaluate(4096, 9),
            evaluate(2048, 5),
            evaluate(4096, 1),
            evaluate(2048, 1)
        );
        let head = "seeds = [1, 2, 3]\nsearch.pruner = \"median\"\noverrides.train.steps = 4096\n\
                    overrides.train.eval_interval = 2048";
        let trials = sweep_with(&script, head, dir.path());
        let states: Vec<State> = trials.iter().map(|trial| trial.state).collect();
        assert_eq!(states, [State::Finished, State::Finished, State::Pruned]);
    }

    #[test]
    fn configurations_that_come_out_the_same_are_run_once() {
        let dir = tempfile::tempdir().unwrap();
        let base = fs::canonicalize("configs/ppo-cartpole-cleanrl.toml").unwrap();
        let path = dir.path().join("sweep.toml");
        // The name of a run is no part of what it computes.
        let text = format!(
            "base = {base:?}\nobjective = \"eval.mean\"\ndirection = \"maximize\"\n[space]\n\
             run.threads = {{ values = [1, 2] }}\nagent.gamma = {{ values = [0.9, 0.98] }}\n"
        );
        fs::write(&path, text).unwrap();
        let file = SweepFile::load(&path, Some(CHECK_DEVICE)).unwrap();
        let mut store = Store::open(dir.path(), "").unwrap();
        let mut count = 0;
        while let Some(trial) = store.claim(|trials| next_trials(&file, trials)).unwrap() {
            store.end(&trial, &Outcome { state: State::Finished, objective: Some(1.0), error: None }).unwrap();
            count += 1;
        }
        assert_eq!(count, 2);
    }
}
