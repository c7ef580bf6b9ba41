//! `hotfire train`.

use std::error::Error;
use std::fs;
use std::path::Path;

use hotfire_agents::AgentTask;
use hotfire_core::CoreError;
use hotfire_core::checkpoint::{self, open_latest};
use hotfire_core::config::{ConfigDocument, leaves};
use hotfire_core::device::{SelectedDevice, select_device};
use hotfire_core::run_config::{RunConfig, TrainConfig};
use hotfire_core::run_dir::RunDir;
use hotfire_core::shell::{self, RunSetup};
use hotfire_core::summary::Status;
use hotfire_core::task::Task;
use hotfire_generative::{ModelSetting, ModelTask};

use crate::cli::TrainArgs;
use crate::environment;
use crate::interrupt::stop_on_interrupt;

/// A config, read and checked, with the task it describes.
pub struct Prepared {
    pub run: RunConfig,
    pub train: TrainConfig,
    pub task: RunTask,
    pub device: SelectedDevice,
    pub resolved: String,
}

/// What a config trains: an agent where it has an `[agent]` section, a model where it has a `[model]` section.
pub enum RunTask {
    Agent(AgentTask),
    Model(ModelTask),
}

impl RunTask {
    pub fn name(&self) -> &str {
        match self {
            Self::Agent(task) => task.name(),
            Self::Model(task) => &task.name,
        }
    }

    pub fn as_task(&mut self) -> &mut dyn Task {
        match self {
            Self::Agent(task) => task,
            Self::Model(task) => task.model.as_mut(),
        }
    }
}

/// Reads a config file, checks it whole and makes its task on the device that it, or `device`, names.
pub fn prepare(config: &Path, overrides: &[String], device: Option<&str>) -> Result<Prepared, CoreError> {
    let mut document = ConfigDocument::load(config, overrides)?;
    let mut run: RunConfig = document.section("run")?;
    run.check(&document)?;
    let mut train = TrainConfig::read(&mut document)?;
    if document.has_section("model") && document.has_section("agent") {
        let problem = "[model] stands beside [agent]: a config trains one of them";
        return Err(document.invalid("model", problem).into());
    }
    if let Some(device) = device {
        run.device = device.to_owned();
    }
    let device = select_device(&run.device)?;
    use_threads(run.threads)?;
    let task = if document.has_section("model") {
        for (key, wanted) in [("save_best", train.save_best), ("stop_at_threshold", train.stop_at_threshold)] {
            if wanted {
                let problem = "is for agents; leave it out";
                return Err(document.invalid(&format!("train.{key}"), problem).into());
            }
        }
        let setting = ModelSetting {
            seed: run.seed,
            device: &device.device,
            total_steps: train.steps,
            epochs: train.epochs,
            batch_size: train.batch_size,
        };
        let task = ModelTask::from_config(&mut document, &setting)?;
        if train.epochs > 0 {
            let steps = task.model.steps_per_epoch().ok_or_else(|| {
                document.invalid("train.epochs", format!("{} counts no epochs: give train.steps", task.name))
            })?;
            train.count_epochs(steps);
        }
        RunTask::Model(task)
    } else {
        for (key, value) in [("train.epochs", train.epochs), ("train.batch_size", train.batch_size)] {
            if value > 0 {
                return Err(document
                    .invalid(key, "is for models: an agent has train.steps and its own batches")
                    .into());
            }
        }
        RunTask::Agent(AgentTask::from_config(&mut document, run.seed, &device.device, train.steps)?)
    };
    document.finish()?;
    Ok(Prepared { resolved: document.resolved(), run, train, task, device })
}

/// Sizes the thread pool; 0 means all cores. Only the first call of a process counts.
///
/// The program's main thread is one of the pool's: from outside, each parallel loop would hand its work over and sleep
/// till it is done. A thread that can end before the process, as a test's does, must stay outside.
fn use_threads(threads: usize) -> Result<(), CoreError> {
    let mut pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
    if std::thread::current().name() == Some("main") {
        pool = pool.use_current_thread();
    }
    match pool.build_global() {
        // What has a cause is a thread that did not start; else the pool was there already.
        Err(error) if error.source().is_some() => {
            Err(CoreError::Failed(format!("run.threads: {threads} threads can't be started: {error}")))
        }
        _ => Ok(()),
    }
}

pub fn train(args: &TrainArgs) -> anyhow::Result<()> {
    let stop = stop_on_interrupt()?;
    let (prepared, run_dir, _lock) = match (&args.resume, &args.config) {
        (Some(path), first) => {
            let run_dir = RunDir::open(path)?;
            let lock = run_dir.lock()?;
            let overrides = resume_overrides(first.as_deref(), &args.overrides)?;
            let mut prepared = prepare(&run_dir.config(), &overrides, args.device.as_deref())?;
            prepared.resolved = continued(&run_dir, prepared.resolved)?;
            (prepared, run_dir, lock)
        }
        (None, Some(config)) => {
            let prepared = prepare(config, &args.overrides, args.device.as_deref())?;
            let run_dir = RunDir::create(prepared.run.run_dir(config))?;
            let lock = run_dir.lock()?;
            (prepared, run_dir, lock)
        }
        (None, None) => unreachable!("the command line asks for a config or a run"),
    };
    let Prepared { run, train, mut task, device, resolved } = prepared;
    if !args.quiet {
        eprintln!("device {}: {}", device.name, device.reason);
    }
    let setup = RunSetup {
        run_dir,
        records: vec![("config.toml", resolved), (environment::FILE, environment::text())],
        run,
        train,
        task: task.name().to_owned(),
        device: device.name,
        resume: args.resume.is_some(),
        quiet: args.quiet,
    };
    let report = shell::run(task.as_task(), setup, &stop)?;
    if !args.quiet {
        println!("{report}");
    }
    if report.summary.status == Status::Interrupted {
        return Err(CoreError::Interrupted.into());
    }
    Ok(())
}

/// The config of a run that goes on with changed settings: it says in its first lines what changed and when, since a run
/// of these settings alone would not repeat it.
fn continued(run_dir: &RunDir, resolved: String) -> Result<String, CoreError> {
    /// What makes a run the one that it is.
    const KEPT: [&str; 6] = ["run.seed", "run.name", "run.dir", "env.id", "agent.algorithm", "model.name"];
    let path = run_dir.config();
    let earlier = fs::read_to_string(&path).map_err(CoreError::io(&path, "read"))?;
    let values = |text: &str| text.parse().map(|table| leaves(&table)).unwrap_or_default();
    let (before, after) = (values(&earlier), values(&resolved));
    let mut changed = Vec::new();
    for (key, value) in after.iter().filter(|(key, value)| before.get(*key) != Some(*value)) {
        if KEPT.contains(&key.as_str()) {
            let own = before.get(key).map_or_else(|| "none".to_owned(), ToString::to_string);
            let problem = format!("expected {own}, which a run keeps, found {value}; leave it out, or train a new run");
            return Err(CoreError::Usage(format!("{}: {key}: {problem}", run_dir.path().display())));
        }
        if !key.strip_prefix("run.").is_some_and(|key| RunConfig::KEYS_WITHOUT_EFFECT.contains(&key)) {
            changed.push(format!("{key} = {value}"));
        }
    }
    let step = checkpoint::list(&run_dir.checkpoints())?.last().copied().unwrap_or(0);
    let mut notes: Vec<String> = earlier.lines().take_while(|line| line.starts_with('#')).map(str::to_owned).collect();
    if step > 0 && !changed.is_empty() {
        notes.push(format!("# Changed at step {step}: {}", changed.join(", ")));
    }
    Ok(notes.into_iter().chain([resolved]).collect::<Vec<_>>().join("\n"))
}

/// With --resume, the place of the config file on the command line holds the first override.
fn resume_overrides(first: Option<&Path>, rest: &[String]) -> Result<Vec<String>, CoreError> {
    let first = first.map(|first| first.to_string_lossy().into_owned());
    match first {
        Some(config) if !config.contains('=') => Err(CoreError::Usage(format!(
            "--resume goes on with the run's own config; leave out {config}, or give overrides as section.key=value"
        ))),
        first => Ok(first.into_iter().chain(rest.iter().cloned()).collect()),
    }
}

/// The agent or model of a run directory's newest checkpoint, or of that of its best evaluation.
pub fn load_run(path: &Path, overrides: &[String], best: bool) -> Result<Prepared, CoreError> {
    let run_dir = RunDir::open(path)?;
    let mut prepared = prepare(&run_dir.config(), overrides, None)?;
    let (checkpoints, missing) = match best {
        true => (run_dir.best(), "has no best checkpoint; train with train.save_best=true"),
        false => (run_dir.checkpoints(), "has no checkpoint yet"),
    };
    let checkpoint =
        open_latest(&checkpoints)?.ok_or_else(|| CoreError::Usage(format!("{}: {missing}", path.display())))?;
    prepared.task.as_task().load(&checkpoint)?;
    Ok(prepared)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fs;

    use hotfire_agents::ALGORITHMS;

    use super::*;

    /// Each config of an agent is one that `hotfire train` takes, and every algorithm has some on two environments.
    #[test]
    fn configs_of_agents_can_be_trained() {
        let mut environments: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for entry in fs::read_dir("configs").unwrap() {
            let path = entry.unwrap().path();
            let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let algorithm = stem.split('-').next().unwrap();
            if ALGORITHMS.iter().any(|spec| spec.name == algorithm) {
                let prepared = prepare(&path, &[], Some("cpu")).unwrap_or_else(|error| panic!("{error}"));
                let (trained, environment) = prepared.task.name().split_once(' ').unwrap();
                assert_eq!(trained, algorithm, "{}", path.display());
                environments.entry(algorithm.to_owned()).or_default().insert(environment.to_owned());
            }
        }
        for spec in ALGORITHMS {
            let found = environments.get(spec.name).map_or(0, BTreeSet::len);
            assert!(found >= 2, "{} has configs on {found} environments", spec.name);
        }
    }
}
