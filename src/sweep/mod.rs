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
use store::{NewTrial, Store, trial_id};
pub use store::{State, Trial, read_trials};
use table::Table;

use crate::cli::{LauncherKind, SweepArgs};
use crate::train::{prepare, stop_on_interrupt};

/// Time between two looks at the running trials.
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub fn sweep(args: &SweepArgs) -> anyhow::Result<()> {
    let file = SweepFile::load(&args.file)?;
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
            Box::new(slurm::Cluster::new(program, &dir, jobs, file.slurm.clone())?)
        }
    };
    keep_definition(&args.file, &file, &dir)?;
    let mut table = Table::new(&file, &dir, args.quiet);
    let mut sweep = Sweep::open(file, dir)?;
    let complete = sweep.run(launcher.as_mut(), &mut table, &stop)?;
    table.finish(&sweep.store.trials()?, complete, launcher.leave());
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
    /// The objective at each evaluation so far, signed so that more is better.
    evaluations: Vec<f64>,
}

impl Sweep {
    fn open(file: SweepFile, dir: PathBuf) -> anyhow::Result<Self> {
        let base = prepare(&file.base, &file.trial_overrides(&Assignment::new(), 0), None)?.resolved;
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

    /// Runs trials until there are no more, or `stop` is set; whether all are done.
    fn run(&mut self, launcher: &mut dyn Launcher, table: &mut Table, stop: &AtomicBool) -> anyhow::Result<bool> {
        self.store.recover()?;
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
                    self.end(&running.trial, ended, table)?;
                }
            }
            self.watch(launcher, table)?;
            let waiting = self.fill(launcher, table)?;
            table.show(&self.store.trials()?, &self.progress());
            if self.running.is_empty() && !waiting {
                return Ok(self.store.trials()?.iter().all(|trial| trial.state != State::Open));
            }
            sleep(LOOK_EVERY);
        }
    }

    /// Starts as many trials as there is room for; whether another process still works on some.
    fn fill(&mut self, launcher: &mut dyn Launcher, table: &mut Table) -> anyhow::Result<bool> {
        let over = self.file.search.max_seconds.is_some_and(|most| self.started.elapsed().as_secs_f64() > most);
        let mut batch = Vec::new();
        while !over && self.running.len() + batch.len() < launcher.slots() {
            let file = &self.file;
            let Some(trial) = self.store.claim(|trials| next_trials(file, trials))? else { break };
            batch.push(trial);
        }
        if !batch.is_empty() {
            let mut ready = Vec::new();
            for trial in batch {
                match self.write_config(&trial) {
                    Ok(()) => ready.push(trial),
                    Err(error) => {
                        self.store.end(&trial.id, State::Failed, None, Some(&format!("{error:#}")))?;
                        table.note(&trial, State::Failed, None, Some(&format!("{error:#}")));
                    }
                }
            }
            let workers = launcher.start(&ready)?;
            for (trial, worker) in ready.into_iter().zip(workers) {
                if let Some(worker) = worker {
                    self.store.assign(&trial.id, &worker)?;
                }
                self.note_running(trial)?;
            }
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

    fn note_running(&mut self, trial: Trial) -> anyhow::Result<()> {
        let metric = evaluation_metric(&self.file.objective);
        let tail = MetricTail::new(RunDir::open(&trial.run_dir)?.metrics(), metric);
        self.running.insert(trial.id.clone(), Running { trial, since: Instant::now(), tail, evaluations: Vec::new() });
        Ok(())
    }

    /// The run directory of a trial that was never started: its config, complete.
    fn write_config(&self, trial: &Trial) -> anyhow::Result<()> {
        if RunDir::open(&trial.run_dir).is_ok() {
            return Ok(());
        }
        let mut overrides = self.file.trial_overrides(&trial.assignment, trial.seed);
        overrides.push(format!("run.dir={}", self.dir.join("trials").display()));
        overrides.push(format!("run.name={}", trial.run_dir.file_name().unwrap_or_default().to_string_lossy()));
        let prepared = prepare(&self.file.base, &overrides, None)?;
        fs::create_dir_all(&trial.run_dir).map_err(CoreError::io(&trial.run_dir, "make"))?;
        write_atomic(&trial.run_dir.join("config.toml"), prepared.resolved.as_bytes())?;
        Ok(())
    }

    /// Reads what running trials have logged; ends those that take too long or are hopeless.
    fn watch(&mut self, launcher: &mut dyn Launcher, table: &mut Table) -> anyhow::Result<()> {
        let direction = self.file.direction;
        let mut over = Vec::new();
        for (id, running) in &mut self.running {
            if let Some(limit) = self.file.search.timeout_seconds
                && running.since.elapsed().as_secs_f64() > limit
            {
                over.push((id.clone(), State::Failed, None, Some(format!("took longer than {limit} s"))));
                continue;
            }
            let values = running.tail.read()?;
            if values.is_empty() {
                continue;
            }
            running.evaluations = values.iter().map(|value| direction.signed(*value)).collect();
            if self.file.search.pruner != file::Pruner::None {
                self.store.note_evaluations(id, &running.evaluations)?;
                let others = self.store.other_evaluations(id)?;
                if prune::should_prune(&self.file.search, &running.evaluations, &others) {
                    over.push((id.clone(), State::Pruned, values.last().copied(), None));
                }
            }
        }
        for (id, state, objective, error) in over {
            launcher.kill(&id);
            let Some(running) = self.running.remove(&id) else { continue };
            match (state, error) {
                (State::Failed, Some(error)) => self.fail(&running.trial, &error, table)?,
                _ => {
                    self.store.end(&id, state, objective, None)?;
                    table.note(&running.trial, state, objective, None);
                }
            }
        }
        Ok(())
    }

    /// Notes the outcome of a trial whose process has ended.
    fn end(&mut self, trial: &Trial, ended: Ended, table: &mut Table) -> anyhow::Result<()> {
        let summary = fs::read(trial.run_dir.join("summary.json")).ok();
        let summary = summary.and_then(|text| serde_json::from_slice::<Value>(&text).ok());
        let status = summary.as_ref().and_then(|value| serde_json::from_value::<Summary>(value.clone()).ok());
        match (status.map(|summary| (summary.status, summary.error)), ended) {
            (Some((Status::Finished, _)), Ended::Success | Ended::Unseen) => {
                let summary = summary.unwrap_or_default();
                match objective(&summary, &self.file.objective) {
                    Ok(value) => {
                        self.store.end(&trial.id, State::Finished, Some(value), None)?;
                        table.note(trial, State::Finished, Some(value), None);
                        Ok(())
                    }
                    Err(problem) => self.fail(trial, &problem, table),
                }
            }
            (Some((Status::Failed, error)), ended) => {
                let why = match ended {
                    Ended::Failure(why) => why,
                    _ => "failed".to_owned(),
                };
                self.fail(trial, &error.unwrap_or(why), table)
            }
            (_, Ended::Failure(why)) => self.fail(trial, &why, table),
            (_, Ended::Success | Ended::Unseen) => self.store.release(&trial.id),
        }
    }

    fn fail(&mut self, trial: &Trial, error: &str, table: &mut Table) -> anyhow::Result<()> {
        let failures = self.store.count_failure(&trial.id)?;
        if failures <= self.file.search.retries {
            table.note(trial, State::Open, None, Some(error));
            return self.store.release(&trial.id);
        }
        self.store.end(&trial.id, State::Failed, None, Some(error))?;
        table.note(trial, State::Failed, None, Some(error));
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
                    self.end(&running.trial, ended, quiet)?;
                }
            }
            sleep(LOOK_EVERY);
        }
        for id in self.running.keys() {
            launcher.kill(id);
            self.store.release(id)?;
        }
        Ok(false)
    }

    /// Of each running trial: its id, and its last evaluation.
    fn progress(&self) -> Vec<(String, Option<f64>, Duration)> {
        let last = |running: &Running| running.evaluations.last().map(|value| self.file.direction.signed(*value));
        self.running.iter().map(|(id, running)| (id.clone(), last(running), running.since.elapsed())).collect()
    }
}

/// The next configuration's trials, one a seed; none when the search is over.
fn next_trials(file: &SweepFile, trials: &[Trial]) -> anyhow::Result<Vec<NewTrial>> {
    for configuration in 0..file.configurations() {
        let known: Vec<&Trial> = trials.iter().filter(|trial| trial.configuration == configuration).collect();
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
            let prepared = prepare(&file.base, &file.trial_overrides(&assignment, seed), None)?;
            let run_dir = format!("trials/{configuration:04}-s{seed}");
            Ok(NewTrial {
                id: trial_id(&prepared.resolved)?,
                configuration,
                seed,
                assignment: assignment.clone(),
                run_dir,
            })
        };
        return missing.into_iter().map(trial).collect();
    }
    Ok(Vec::new())
}

/// A point of the space that was not tried yet; `None` if none turns up, as in a small space that is used up.
fn new_assignment(file: &SweepFile, configuration: usize, trials: &[Trial]) -> Option<Assignment> {
    const TRIES: usize = 1000;
    let history = history(file.direction, trials);
    let used: HashSet<String> = trials.iter().map(|trial| format!("{:?}", trial.assignment)).collect();
    (0..TRIES)
        .map(|again| search::propose(file, configuration + again * 1_000_003, &history))
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
