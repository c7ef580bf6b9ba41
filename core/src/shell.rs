//! The run shell: drives a [`Task`] to its last step and keeps the run directory.
//!
//! The clocks are functions of the step count alone, so a resumed run evaluates, logs and saves at the same steps as an
//! uninterrupted one.

use std::fmt;
use std::fs;
use std::mem;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressState, ProgressStyle};

use crate::checkpoint::{self, CheckpointWriter};
use crate::error::CoreError;
use crate::metrics::{Means, Metrics, short};
use crate::plot::{CurvePlot, Series, curve_png};
use crate::run_config::{RunConfig, TrainConfig};
use crate::run_dir::{RunDir, write_atomic};
use crate::summary::{Status, Summary};
use crate::task::{Evaluation, Headline, Task};
use crate::tracker::{Tracker, read_records};

/// The metric of an evaluation's mean return.
const EVAL_MEAN: &str = "eval/return_mean";

/// What the shell needs to know besides the task.
#[derive(Debug, Clone)]
pub struct RunSetup {
    /// Where the run is kept.
    pub run_dir: RunDir,
    /// Texts about the run, such as `config.toml`, by their names in its directory. They are written once the run is
    /// known to start: settings that do not fit its checkpoint must not replace those that do.
    pub records: Vec<(&'static str, String)>,
    /// The `[run]` section.
    pub run: RunConfig,
    /// The `[train]` section.
    pub train: TrainConfig,
    /// The task's name for the summary, such as `ppo CartPole-v1`.
    pub task: String,
    /// The device's name for the summary.
    pub device: String,
    /// Whether to go on from the newest checkpoint of the run directory.
    pub resume: bool,
    /// Whether nothing is written to stderr.
    pub quiet: bool,
}

/// How [`run`] ended, if not with an error.
#[derive(Debug, Clone, PartialEq)]
pub struct RunReport {
    /// The content of `summary.json`.
    pub summary: Summary,
    /// The run directory.
    pub run_dir: PathBuf,
    /// The newest checkpoint.
    pub checkpoint: Option<PathBuf>,
    /// Why a resumed run had nothing left to do.
    pub was_finished: Option<WasFinished>,
}

/// Why a resumed run has nothing left to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WasFinished {
    /// It has done `train.steps` steps.
    Steps,
    /// It has reached the threshold that `train.stop_at_threshold` waits for.
    Threshold,
}

/// What to tell the user: the outcome, and where the run lies or how to go on.
impl fmt::Display for RunReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { status, task, steps, wall_seconds, eval, metrics, .. } = &self.summary;
        let dir = self.run_dir.display();
        match self.was_finished {
            Some(WasFinished::Steps) => {
                return write!(f, "{dir} has done its {steps} steps already; raise train.steps to train on");
            }
            Some(WasFinished::Threshold) => {
                let how = "give train.stop_at_threshold=false to train on";
                return write!(f, "{dir} has reached its threshold at step {steps} already; {how}");
            }
            None => {}
        }
        match (status, &self.checkpoint) {
            (Status::Interrupted, Some(_)) => {
                return write!(f, "stopped at step {steps}; go on with --resume {dir}");
            }
            (Status::Interrupted, None) => return write!(f, "stopped before the first step"),
            _ => {}
        }
        write!(f, "{task}: ")?;
        match eval {
            Some(eval) => write!(f, "return {:.1} ± {:.1} over {} episodes", eval.mean, eval.std, eval.episodes)?,
            None => write!(f, "{metrics}")?,
        }
        write!(f, " after {steps} steps in {wall_seconds:.1} s; the run is in {dir}")
    }
}

/// Trains `task` up to `setup.train.steps`, or until `stop` is set.
///
/// An error is written to `summary.json` too, unless the run could not even start.
pub fn run(task: &mut dyn Task, setup: RunSetup, stop: &AtomicBool) -> Result<RunReport, CoreError> {
    let mut run = Run::start(task, setup)?;
    let result = run.train(task, stop);
    run.progress.finish_and_clear();
    match result {
        Ok(report) => Ok(report),
        Err(error) => {
            // The first error is the one to report, whether or not it can be written down.
            let _ = run.write_summary(task.step(), Status::Failed, Evaluation::default(), Some(error.to_string()));
            Err(error)
        }
    }
}

/// A run in progress.
struct Run {
    setup: RunSetup,
    headline: Headline,
    tracker: Tracker,
    progress: ProgressBar,
    started: Instant,
    /// Wall time of the parts of the run before this one.
    earlier_seconds: f64,
    /// Step and time of the last log, for the rate.
    last_log: (u64, f64),
    /// Means of the iterations since then.
    unlogged: Means,
    checkpoint: Option<(u64, PathBuf)>,
    /// Mean return of the best evaluation so far.
    best: Option<f64>,
    last_finite: Option<(u64, Metrics)>,
    /// The outcome of a resumed run with nothing left to do.
    done: Option<(WasFinished, Summary)>,
}

impl Run {
    fn start(task: &mut dyn Task, setup: RunSetup) -> Result<Self, CoreError> {
        let checkpoints = setup.run_dir.checkpoints();
        checkpoint::clean(&checkpoints)?;
        let reader = if setup.resume { checkpoint::open_latest(&checkpoints)? } else { None };
        if let Some(reader) = &reader {
            task.load(reader)?;
            if task.step() != reader.step() {
                let problem = format!("the task is at step {} after loading", task.step());
                return Err(CoreError::Checkpoint { path: reader.path().to_path_buf(), problem });
            }
        }
        let headline = task.headline();
        if setup.train.stop_at_threshold && headline.threshold.is_none() {
            let problem = format!("train.stop_at_threshold: {} has no registered threshold; leave it out", setup.task);
            return Err(CoreError::Usage(problem));
        }
        let outcome = outcome(&setup, task.step());
        let finished = outcome.is_some();
        let done = outcome.and_then(|outcome| Some((nothing_left(&setup.train, task.step())?, outcome)));
        // What was done was done with the records that are there.
        for (name, text) in setup.records.iter().filter(|_| done.is_none()) {
            write_atomic(&setup.run_dir.path().join(name), text.as_bytes())?;
        }
        // A run that was killed before its first checkpoint starts anew.
        let (tracker, earlier_seconds) = match setup.resume {
            true => Tracker::resume(&setup.run_dir, task.step(), finished)?,
            false => (Tracker::create(&setup.run_dir)?, 0.0),
        };
        let mut best = None;
        if setup.train.save_best {
            checkpoint::clean(&setup.run_dir.best())?;
            checkpoint::remove_after(&setup.run_dir.best(), task.step())?;
            // The best of all may be gone, if it came after the checkpoint that the run goes on from.
            let kept = checkpoint::list(&setup.run_dir.best())?.last().copied();
            for record in read_records(&setup.run_dir.metrics())? {
                best = better(best, record.get(EVAL_MEAN).filter(|_| Some(record.step) == kept));
            }
        }
        Ok(Self {
            headline,
            best,
            tracker,
            progress: progress_bar(&setup, task.step()),
            started: Instant::now(),
            earlier_seconds,
            last_log: (task.step(), earlier_seconds),
            unlogged: Means::default(),
            checkpoint: reader.map(|reader| (reader.step(), reader.path().to_path_buf())),
            last_finite: None,
            done,
            setup,
        })
    }

    fn train(&mut self, task: &mut dyn Task, stop: &AtomicBool) -> Result<RunReport, CoreError> {
        let TrainConfig { steps, eval_interval, eval_episodes, checkpoint_interval, log_interval, .. } =
            self.setup.train.clone();
        if let Some((why, summary)) = self.done.take() {
            return Ok(RunReport { was_finished: Some(why), ..self.report(summary) });
        }
        self.remove_old_summary()?;
        while task.step() < steps {
            if stop.load(Ordering::Relaxed) {
                return self.interrupt(task);
            }
            let before = task.step();
            let mut metrics = task.iterate()?;
            let step = task.step();
            if step <= before {
                return Err(CoreError::Failed(format!("step {before}: an iteration did not advance the step count")));
            }
            self.refuse_non_finite(step, &metrics)?;
            self.unlogged.add_all(&metrics);
            let eval_due = crossed(eval_interval, before, step) && step < steps;
            let checkpoint_due = crossed(checkpoint_interval, before, step) || step >= steps;
            let mut solved = false;
            // Nothing is left unlogged where there is a checkpoint, so that a resumed run logs the same means.
            let log_due = eval_due || checkpoint_due || log_interval == 0 || crossed(log_interval, before, step);
            if log_due {
                metrics = mem::take(&mut self.unlogged).into_metrics();
            }
            if eval_due {
                let evaluation = task.evaluate(eval_episodes)?;
                self.note_evaluation(step, &evaluation, &mut metrics)?;
                self.snapshot(step, task)?;
                self.keep_best(task, &evaluation)?;
                solved = self.setup.train.stop_at_threshold && self.reaches_threshold(&evaluation);
            }
            if log_due {
                self.log(step, &mut metrics)?;
            }
            self.last_finite = Some((step, metrics));
            if checkpoint_due {
                self.save(task)?;
            }
            self.progress.set_position(step);
            if solved {
                break;
            }
        }
        self.finish(task)
    }

    fn seconds(&self) -> f64 {
        self.earlier_seconds + self.started.elapsed().as_secs_f64()
    }

    fn refuse_non_finite(&self, step: u64, metrics: &Metrics) -> Result<(), CoreError> {
        let Some((metric, value)) = metrics.first_non_finite() else { return Ok(()) };
        let (last_step, last_metrics) = match &self.last_finite {
            Some((step, metrics)) => (Some(*step), metrics.to_string()),
            None => (None, "none".into()),
        };
        Err(CoreError::NonFinite {
            step,
            metric: metric.to_string(),
            value,
            last_step,
            last_metrics,
            last_checkpoint: self.checkpoint.as_ref().map(|(_, path)| path.clone()),
        })
    }

    fn log(&mut self, step: u64, metrics: &mut Metrics) -> Result<(), CoreError> {
        let seconds = self.seconds();
        let (last_step, last_seconds) = self.last_log;
        metrics.push("steps_per_second", (step - last_step) as f64 / (seconds - last_seconds).max(1e-9));
        self.last_log = (step, seconds);
        self.tracker.log(step, seconds, metrics)?;
        if !self.progress.is_hidden()
            && let Some(value) = metrics.get(self.headline.metric)
        {
            self.progress.set_message(format!("{} {}", self.headline.label, short(value)));
        }
        Ok(())
    }

    fn note_evaluation(&mut self, step: u64, evaluation: &Evaluation, metrics: &mut Metrics) -> Result<(), CoreError> {
        let mut measured = Metrics::new();
        if let Some(eval) = &evaluation.eval {
            measured.push(EVAL_MEAN, eval.mean);
            measured.push("eval/return_std", eval.std);
            measured.push("eval/return_min", eval.min);
            measured.push("eval/return_max", eval.max);
        }
        for (key, value) in evaluation.metrics.iter() {
            measured.push(format!("eval/{key}"), value);
        }
        self.refuse_non_finite(step, &measured)?;
        if !self.setup.quiet {
            let line = match &evaluation.eval {
                Some(eval) => format!(
                    "step {step}: return {:.1} ± {:.1} over {} episodes ({:.1} s)",
                    eval.mean,
                    eval.std,
                    eval.episodes,
                    self.seconds()
                ),
                None => format!("step {step}: {} ({:.1} s)", evaluation.metrics, self.seconds()),
            };
            self.progress.suspend(|| eprintln!("{line}"));
        }
        metrics.extend(&measured);
        Ok(())
    }

    /// Keeps pictures of the learner at this step in `media/step-STEP/`.
    fn snapshot(&mut self, step: u64, task: &mut dyn Task) -> Result<(), CoreError> {
        let dir = self.setup.run_dir.media().join(format!("step-{step:08}"));
        fs::create_dir_all(&dir).map_err(CoreError::io(&dir, "make"))?;
        let pictures = task.snapshot(&dir)?;
        if pictures.is_empty() {
            // Neither folder holds anything, unless it did before.
            let _ = fs::remove_dir(&dir);
            let _ = fs::remove_dir(self.setup.run_dir.media());
        }
        self.show(step, &pictures)
    }

    /// Logs pictures under their file names.
    fn show(&mut self, step: u64, pictures: &[PathBuf]) -> Result<(), CoreError> {
        for path in pictures {
            if path.extension().is_some_and(|extension| extension == "png") {
                let tag = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                self.tracker.image(step, &tag, path)?;
            }
        }
        Ok(())
    }

    fn save(&mut self, task: &dyn Task) -> Result<(), CoreError> {
        let step = task.step();
        if self.checkpoint.as_ref().is_some_and(|(saved, _)| *saved == step) {
            return Ok(());
        }
        let checkpoints = self.setup.run_dir.checkpoints();
        let mut writer = CheckpointWriter::create(&checkpoints, step)?;
        task.save(&mut writer)?;
        self.checkpoint = Some((step, writer.commit()?));
        checkpoint::prune(&checkpoints, self.setup.train.keep_checkpoints)
    }

    /// Keeps the checkpoint of an evaluation that beats all before it.
    fn keep_best(&mut self, task: &dyn Task, evaluation: &Evaluation) -> Result<(), CoreError> {
        let mean = evaluation.eval.as_ref().map(|eval| eval.mean);
        if !self.setup.train.save_best || better(self.best, mean) == self.best {
            return Ok(());
        }
        self.best = mean;
        let best = self.setup.run_dir.best();
        if checkpoint::list(&best)?.last() == Some(&task.step()) {
            return Ok(());
        }
        let mut writer = CheckpointWriter::create(&best, task.step())?;
        task.save(&mut writer)?;
        writer.commit()?;
        checkpoint::prune(&best, 1)
    }

    fn reaches_threshold(&self, evaluation: &Evaluation) -> bool {
        matches!((&evaluation.eval, self.headline.threshold), (Some(eval), Some(threshold)) if eval.mean >= threshold)
    }

    fn interrupt(&mut self, task: &dyn Task) -> Result<RunReport, CoreError> {
        if task.step() > 0 {
            // The time so far is kept with the last logged step.
            if task.step() > self.last_log.0 {
                let mut metrics = mem::take(&mut self.unlogged).into_metrics();
                self.log(task.step(), &mut metrics)?;
                self.last_finite = Some((task.step(), metrics));
            }
            self.save(task)?;
        }
        let summary = self.write_summary(task.step(), Status::Interrupted, Evaluation::default(), None)?;
        Ok(self.report(summary))
    }

    fn finish(&mut self, task: &mut dyn Task) -> Result<RunReport, CoreError> {
        self.save(task)?;
        let step = task.step();
        let evaluation = task.evaluate(self.setup.train.final_eval_episodes)?;
        let mut measured = Metrics::new();
        self.note_evaluation(step, &evaluation, &mut measured)?;
        self.keep_best(task, &evaluation)?;
        let seconds = self.seconds();
        self.tracker.log(step, seconds, &measured)?;
        self.progress.finish_and_clear();
        let media = self.setup.run_dir.media();
        fs::create_dir_all(&media).map_err(CoreError::io(&media, "make"))?;
        let pictures = task.media(&media)?;
        self.show(step, &pictures)?;
        self.draw_curve()?;
        self.tracker.image(step, "curve", &self.setup.run_dir.curve())?;
        let summary = self.write_summary(step, Status::Finished, evaluation, None)?;
        Ok(self.report(summary))
    }

    fn draw_curve(&self) -> Result<(), CoreError> {
        let records = read_records(&self.setup.run_dir.metrics())?;
        let points = |key: &str| -> Vec<(f64, f64)> {
            records.iter().filter_map(|record| Some((record.step as f64, record.get(key)?))).collect()
        };
        let Headline { metric, label, threshold } = &self.headline;
        let mut evaluation = points(EVAL_MEAN);
        if evaluation.is_empty() {
            evaluation = points(&format!("eval/{metric}"));
        }
        let series = |label: &str, points| Series { label: label.into(), points, band: Vec::new() };
        let plot = CurvePlot {
            title: self.setup.task.clone(),
            x_label: "steps".into(),
            y_label: label.clone(),
            series: vec![series("training", points(metric)), series("evaluation", evaluation)]
                .into_iter()
                .filter(|series| !series.points.is_empty())
                .collect(),
            threshold: threshold.map(|value| (value, "solved".into())),
        };
        let path = self.setup.run_dir.curve();
        curve_png(&path, &plot).map_err(CoreError::io(&path, "draw"))
    }

    fn report(&self, summary: Summary) -> RunReport {
        RunReport {
            summary,
            run_dir: self.setup.run_dir.path().to_path_buf(),
            checkpoint: self.checkpoint.as_ref().map(|(_, path)| path.clone()),
            was_finished: None,
        }
    }

    /// A summary of an earlier part of the run must not stand beside later steps.
    fn remove_old_summary(&self) -> Result<(), CoreError> {
        let path = self.setup.run_dir.summary();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(CoreError::io(&path, "remove")(error)),
            _ => Ok(()),
        }
    }

    fn write_summary(
        &self,
        step: u64,
        status: Status,
        evaluation: Evaluation,
        error: Option<String>,
    ) -> Result<Summary, CoreError> {
        let wall_seconds = self.seconds();
        let mut metrics = self.last_finite.as_ref().map(|(_, metrics)| metrics.clone()).unwrap_or_default();
        for (key, value) in evaluation.metrics.iter() {
            // An agent's training has metrics of the same names.
            let prefix = if evaluation.eval.is_some() { "eval/" } else { "" };
            metrics.push(format!("{prefix}{key}"), value);
        }
        let summary = Summary {
            status,
            task: self.setup.task.clone(),
            seed: self.setup.run.seed,
            device: self.setup.device.clone(),
            steps: step,
            wall_seconds,
            steps_per_second: step as f64 / wall_seconds.max(1e-9),
            eval: evaluation.eval,
            metrics,
            error,
        };
        let path = self.setup.run_dir.summary();
        let mut text = serde_json::to_string_pretty(&summary).expect("a summary always serializes");
        text.push('\n');
        write_atomic(&path, text.as_bytes())?;
        Ok(summary)
    }
}

/// The outcome of a resumed run that has finished at `step`.
fn outcome(setup: &RunSetup, step: u64) -> Option<Summary> {
    let text = setup.resume.then(|| fs::read(setup.run_dir.summary()).ok()).flatten()?;
    let summary: Summary = serde_json::from_slice(&text).ok()?;
    (summary.status == Status::Finished && summary.steps == step).then_some(summary)
}

/// Why a run that has finished at `step` has nothing left to do; `None` if it has.
fn nothing_left(train: &TrainConfig, step: u64) -> Option<WasFinished> {
    match train {
        _ if step >= train.steps => Some(WasFinished::Steps),
        TrainConfig { stop_at_threshold: true, .. } => Some(WasFinished::Threshold),
        _ => None,
    }
}

/// The better of two mean returns; the first of equals.
fn better(best: Option<f64>, mean: Option<f64>) -> Option<f64> {
    match (best, mean) {
        (Some(best), Some(mean)) if mean <= best => Some(best),
        (best, mean) => mean.or(best),
    }
}

/// Whether a multiple of `interval` lies in `(before, after]`. An interval of 0 never has one.
fn crossed(interval: u64, before: u64, after: u64) -> bool {
    interval != 0 && before / interval != after / interval
}

fn progress_bar(setup: &RunSetup, step: u64) -> ProgressBar {
    if setup.quiet {
        return ProgressBar::hidden();
    }
    // indicatif's own rate counts the steps before a resume as done at once.
    let rate =
        move |state: &ProgressState| state.pos().saturating_sub(step) as f64 / state.elapsed().as_secs_f64().max(1e-9);
    let style =
        ProgressStyle::with_template("{prefix} {bar:30} {percent:>3}% {human_pos} steps, {rate}, {left} left, {msg}")
            .expect("the template is well-formed")
            .with_key("rate", move |state: &ProgressState, out: &mut dyn fmt::Write| {
                let rate = rate(state);
                let _ = write!(out, "{rate:.*} steps/s", if rate < 10.0 { 2 } else { 0 });
            })
            .with_key("left", move |state: &ProgressState, out: &mut dyn fmt::Write| {
                let steps = state.len().unwrap_or(0).saturating_sub(state.pos());
                let _ = match Duration::try_from_secs_f64(steps as f64 / rate(state)) {
                    Ok(left) => write!(out, "{:#}", HumanDuration(left)),
                    Err(_) => out.write_str("–"),
                };
            });
    ProgressBar::new(setup.train.steps).with_style(style).with_prefix(setup.task.clone()).with_position(step)
}
