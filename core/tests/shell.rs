//! The run shell around a toy task: clocks, resume, interrupt, and what happens when a metric is not finite.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use hotfire_core::CoreError;
use hotfire_core::checkpoint::{self, CheckpointReader, CheckpointWriter};
use hotfire_core::metrics::Metrics;
use hotfire_core::run_config::{RunConfig, TrainConfig};
use hotfire_core::run_dir::RunDir;
use hotfire_core::seed::{StreamRng, stream};
use hotfire_core::shell::{RunReport, RunSetup, WasFinished, run};
use hotfire_core::summary::{EvalStats, Status};
use hotfire_core::task::{Evaluation, Headline, Task};
use hotfire_core::tracker::read_records;

type After<'a> = Box<dyn FnMut(u64, &mut Metrics) + 'a>;

/// Steps by 10 and mixes its state with draws of two kinds: a stream by step, and a stream that it carries along.
struct Toy<'a> {
    step: u64,
    value: f32,
    carried: StreamRng,
    /// What happens after an iteration.
    after: After<'a>,
    evaluations: Vec<(u64, u32)>,
}

impl<'a> Toy<'a> {
    fn new() -> Self {
        Self::with(|_, _| {})
    }

    fn with(after: impl FnMut(u64, &mut Metrics) + 'a) -> Self {
        Self { step: 0, value: 0.0, carried: stream(1, "carried", 0), after: Box::new(after), evaluations: Vec::new() }
    }
}

impl Task for Toy<'_> {
    fn step(&self) -> u64 {
        self.step
    }

    fn iterate(&mut self) -> Result<Metrics, CoreError> {
        self.value = 0.9 * self.value + self.carried.normal() + stream(1, "by step", self.step).uniform();
        self.step += 10;
        let mut metrics = Metrics::new();
        metrics.push("value", self.value);
        (self.after)(self.step, &mut metrics);
        Ok(metrics)
    }

    fn evaluate(&mut self, episodes: u32) -> Result<Evaluation, CoreError> {
        self.evaluations.push((self.step, episodes));
        Ok(Evaluation { eval: EvalStats::from_returns(&[self.value.into(), 1.0]), metrics: Metrics::new() })
    }

    fn media(&mut self, dir: &Path) -> Result<Vec<PathBuf>, CoreError> {
        let path = dir.join("toy.png");
        hotfire_core::media::save_png(&path, 1, 1, &[0, 0, 0]).map_err(CoreError::io(&path, "write"))?;
        Ok(vec![path])
    }

    fn save(&self, to: &mut CheckpointWriter) -> Result<(), CoreError> {
        to.json("toy.json", &(self.step, self.value, &self.carried))
    }

    fn load(&mut self, from: &CheckpointReader) -> Result<(), CoreError> {
        (self.step, self.value, self.carried) = from.json("toy.json")?;
        Ok(())
    }

    fn headline(&self) -> Headline {
        Headline { metric: "value", label: "value".into(), threshold: Some(1.0) }
    }
}

fn train_config(steps: u64) -> TrainConfig {
    TrainConfig {
        steps,
        epochs: 0,
        batch_size: 0,
        eval_interval: 25,
        eval_episodes: 2,
        final_eval_episodes: 5,
        checkpoint_interval: 30,
        keep_checkpoints: 2,
        log_interval: 20,
        ..TrainConfig::default()
    }
}

fn setup(run_dir: RunDir, steps: u64, resume: bool) -> RunSetup {
    RunSetup {
        run_dir,
        records: Vec::new(),
        run: RunConfig::default(),
        train: train_config(steps),
        task: "toy".into(),
        device: "cpu".into(),
        resume,
        quiet: true,
    }
}

fn start(path: &Path) -> RunDir {
    let run_dir = RunDir::create(path).unwrap();
    fs::write(run_dir.config(), "").unwrap();
    run_dir
}

fn go(task: &mut Toy<'_>, path: &Path, steps: u64, resume: bool) -> Result<RunReport, CoreError> {
    let run_dir = if resume { RunDir::open(path).unwrap() } else { start(path) };
    run(task, setup(run_dir, steps, resume), &AtomicBool::new(false))
}

/// Step and value of the logged iterations.
fn logged(path: &Path) -> Vec<(u64, f64)> {
    let records = read_records(&path.join("metrics.jsonl")).unwrap();
    records.iter().filter_map(|record| Some((record.step, record.get("value")?))).collect()
}

fn summary(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(path.join("summary.json")).unwrap()).unwrap()
}

#[test]
fn a_run_keeps_its_clocks_and_fills_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    let mut toy = Toy::new();
    let report = go(&mut toy, &path, 100, false).unwrap();
    assert_eq!(toy.evaluations, [(30, 2), (50, 2), (80, 2), (100, 5)], "one crossing of 25, 50, 75, 100 each");
    assert_eq!(checkpoint::list(&path.join("checkpoints")).unwrap(), [90, 100], "only the newest two are kept");
    let steps: Vec<u64> = logged(&path).iter().map(|(step, _)| *step).collect();
    assert_eq!(steps, [20, 30, 40, 50, 60, 80, 90, 100], "multiples of 20, evaluations and checkpoints");
    for file in ["config.toml", "curve.png", "media/toy.png", "summary.json", "checkpoints/100/meta.json"] {
        assert!(path.join(file).is_file(), "{file}");
    }
    let summary = summary(&path);
    assert_eq!(summary["status"], "finished");
    assert_eq!(summary["steps"], 100);
    assert_eq!(summary["eval"]["episodes"], 2);
    assert_eq!(summary["metrics"]["value"], f64::from(toy.value));
    assert_eq!(report.checkpoint, Some(path.join("checkpoints/100")));
    assert!(report.to_string().starts_with("toy: return "), "{report}");
    assert!(report.to_string().ends_with(&format!("the run is in {}", path.display())), "{report}");
}

#[test]
fn a_resumed_run_equals_an_uninterrupted_one() {
    let dir = tempfile::tempdir().unwrap();
    let whole_path = dir.path().join("whole");
    let mut whole = Toy::new();
    go(&mut whole, &whole_path, 200, false).unwrap();

    // Trained for the first half, then on.
    let halves_path = dir.path().join("halves");
    go(&mut Toy::new(), &halves_path, 100, false).unwrap();
    let mut resumed = Toy::new();
    go(&mut resumed, &halves_path, 200, true).unwrap();

    // Killed between checkpoints: the iterations after the last one are done again.
    let killed_path = dir.path().join("killed");
    let mut killed = Toy::with(|step, _| assert!(step < 140, "killed"));
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| go(&mut killed, &killed_path, 200, false)));
    assert!(caught.is_err());
    assert_eq!(checkpoint::list(&killed_path.join("checkpoints")).unwrap(), [90, 120]);
    let mut revived = Toy::new();
    go(&mut revived, &killed_path, 200, true).unwrap();

    for (toy, path) in [(&resumed, &halves_path), (&revived, &killed_path)] {
        assert_eq!(toy.value.to_bits(), whole.value.to_bits());
        for file in ["toy.json", "meta.json"] {
            let read = |run: &Path| fs::read(run.join("checkpoints/200").join(file)).unwrap();
            assert_eq!(read(path), read(&whole_path), "{file}");
        }
    }
    assert_eq!(logged(&killed_path), logged(&whole_path), "no line twice, none missing, of the same iterations");
    assert_ne!(whole.value, 0.0);
}

#[test]
fn wall_time_accumulates() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    go(&mut Toy::new(), &path, 100, false).unwrap();
    let records = path.join("metrics.jsonl");
    let text = fs::read_to_string(&records).unwrap();
    let slowed: String = text
        .lines()
        .map(|line| {
            let mut record: serde_json::Value = serde_json::from_str(line).unwrap();
            record["time"] = 1000.0.into();
            format!("{record}\n")
        })
        .collect();
    fs::write(&records, slowed).unwrap();
    let report = go(&mut Toy::new(), &path, 200, true).unwrap();
    assert!((1000.0..1100.0).contains(&report.summary.wall_seconds), "{}", report.summary.wall_seconds);
}

#[test]
fn a_finished_run_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    let first = go(&mut Toy::new(), &path, 100, false).unwrap();
    let lines = fs::read(path.join("metrics.jsonl")).unwrap();
    let mut toy = Toy::new();
    let report = go(&mut toy, &path, 100, true).unwrap();
    assert_eq!(report.was_finished, Some(WasFinished::Steps));
    assert_eq!(report.summary, first.summary);
    assert_eq!(
        report.to_string(),
        format!("{} has done its 100 steps already; raise train.steps to train on", path.display())
    );
    assert_eq!(toy.evaluations, []);
    assert_eq!(fs::read(path.join("metrics.jsonl")).unwrap(), lines);

    // Without a summary, it was killed during the final evaluation, which is done again.
    fs::remove_file(path.join("summary.json")).unwrap();
    let mut toy = Toy::new();
    assert_eq!(go(&mut toy, &path, 100, true).unwrap().was_finished, None);
    assert_eq!(toy.evaluations, [(100, 5)]);
    let count = |text: &[u8]| text.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(count(&fs::read(path.join("metrics.jsonl")).unwrap()), count(&lines), "evaluated once, by the records");
}

#[test]
fn the_stop_flag_saves_and_says_how_to_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    let stop = AtomicBool::new(false);
    let mut toy = Toy::with(|step, _| stop.store(step == 70, Ordering::Relaxed));
    let report = run(&mut toy, setup(start(&path), 200, false), &stop).unwrap();
    assert_eq!(report.summary.status, Status::Interrupted);
    assert_eq!(report.to_string(), format!("stopped at step 70; go on with --resume {}", path.display()));
    assert_eq!(checkpoint::list(&path.join("checkpoints")).unwrap(), [60, 70]);
    assert_eq!(summary(&path)["status"], "interrupted");
    assert_eq!(logged(&path).last().unwrap().0, 70);

    let mut resumed = Toy::new();
    let report = go(&mut resumed, &path, 200, true).unwrap();
    assert_eq!(report.summary.status, Status::Finished);
    let mut whole = Toy::new();
    go(&mut whole, &dir.path().join("whole"), 200, false).unwrap();
    assert_eq!(resumed.value.to_bits(), whole.value.to_bits());
}

#[test]
fn a_metric_that_is_not_finite_stops_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    let mut toy = Toy::with(|step, metrics| {
        metrics.push("loss", if step == 50 { f64::NAN } else { step as f64 });
    });
    let error = go(&mut toy, &path, 100, false).unwrap_err();
    assert_eq!(error.exit_code(), 1);
    let message = error.to_string();
    assert!(message.starts_with("step 50: loss is NaN; last finite metrics (step 40): value="), "{message}");
    assert!(message.contains(" loss=40 "), "{message}");
    let good = path.join("checkpoints/30");
    assert!(message.ends_with(&format!("last good checkpoint: {}", good.display())), "{message}");
    CheckpointReader::open(&good).unwrap();
    let summary = summary(&path);
    assert_eq!((&summary["status"], summary["error"].as_str()), (&"failed".into(), Some(message.as_str())));
    assert_eq!(summary["steps"], 50);
    assert_eq!(logged(&path).last().unwrap().0, 40, "the bad metrics are not logged as good ones");
}

#[test]
fn a_damaged_checkpoint_stops_the_resume_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    go(&mut Toy::new(), &path, 100, false).unwrap();
    let lines = fs::read(path.join("metrics.jsonl")).unwrap();
    let file = path.join("checkpoints/100/toy.json");
    fs::write(&file, "[]").unwrap();
    let error = go(&mut Toy::new(), &path, 200, true).unwrap_err();
    assert_eq!(error.exit_code(), 1);
    let message = error.to_string();
    assert!(message.starts_with(&format!("{}: truncated", file.display())), "{message}");
    assert!(message.contains("checkpoints/90 is sound"), "{message}");
    assert_eq!(fs::read(path.join("metrics.jsonl")).unwrap(), lines);
    assert_eq!(summary(&path)["status"], "finished", "the summary of the sound part stays");
}

#[test]
fn a_run_killed_before_its_first_checkpoint_starts_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    let mut killed = Toy::with(|step, _| assert!(step < 30, "killed"));
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| go(&mut killed, &path, 100, false)));
    assert!(caught.is_err());
    go(&mut Toy::new(), &path, 100, true).unwrap();
    assert_eq!(logged(&path)[0].0, 20);
    assert_eq!(logged(&path).len(), 8);
}

#[test]
fn an_iteration_that_does_not_advance_is_an_error() {
    struct Stuck(Toy<'static>);
    impl Task for Stuck {
        fn step(&self) -> u64 {
            0
        }
        fn iterate(&mut self) -> Result<Metrics, CoreError> {
            Ok(Metrics::new())
        }
        fn evaluate(&mut self, episodes: u32) -> Result<Evaluation, CoreError> {
            self.0.evaluate(episodes)
        }
        fn media(&mut self, dir: &Path) -> Result<Vec<PathBuf>, CoreError> {
            self.0.media(dir)
        }
        fn save(&self, to: &mut CheckpointWriter) -> Result<(), CoreError> {
            self.0.save(to)
        }
        fn load(&mut self, from: &CheckpointReader) -> Result<(), CoreError> {
            self.0.load(from)
        }
        fn headline(&self) -> Headline {
            self.0.headline()
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let setup = setup(start(&dir.path().join("run")), 100, false);
    let error = run(&mut Stuck(Toy::new()), setup, &AtomicBool::new(false)).unwrap_err().to_string();
    assert_eq!(error, "step 0: an iteration did not advance the step count");
}

#[test]
fn the_best_evaluation_is_kept_also_across_a_resume() {
    let dir = tempfile::tempdir().unwrap();
    // Evaluations at 30, 50, 80 and 100 see the values 3, 9, 5 and 4.
    let scores = |step: u64| match step {
        30 => 3.0,
        50 => 9.0,
        80 => 5.0,
        _ => 4.0,
    };
    let part = |steps: u64, resume: bool, scores: &dyn Fn(u64) -> f32| {
        let path = dir.path().join("run");
        let run_dir = if resume { RunDir::open(&path).unwrap() } else { start(&path) };
        let mut setup = setup(run_dir, steps, resume);
        setup.train.save_best = true;
        let mut task = Scored { toy: Toy::new(), scores };
        run(&mut task, setup, &AtomicBool::new(false)).unwrap();
        checkpoint::list(&path.join("best")).unwrap()
    };
    assert_eq!(part(60, false, &scores), [50]);
    assert_eq!(part(100, true, &scores), [50], "an earlier best outlasts a resume");
    assert_eq!(part(160, true, &|_| 10.0), [130], "the first of equals");
}

#[test]
fn a_line_has_the_means_since_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    let mut toy = Toy::with(|step, metrics| {
        metrics.push("value", step as f64);
        if step == 60 {
            metrics.push("episode_return", 7.0);
        }
    });
    let mut setup = setup(start(&path), 100, false);
    (setup.train.eval_interval, setup.train.checkpoint_interval, setup.train.log_interval) = (0, 0, 40);
    run(&mut toy, setup, &AtomicBool::new(false)).unwrap();
    assert_eq!(logged(&path), [(40, 25.0), (80, 65.0), (100, 95.0)]);
    let records = read_records(&path.join("metrics.jsonl")).unwrap();
    let returns: Vec<_> = records.iter().map(|record| record.get("episode_return")).collect();
    assert_eq!(returns, [None, Some(7.0), None, None], "also of an iteration that is not at the clock");
}

#[test]
fn an_interruption_logs_what_is_not_logged_yet() {
    for values in [[Some(1.0), Some(3.0)], [None, None]] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        let stop = AtomicBool::new(false);
        let mut toy = Toy::with(|step, metrics| {
            *metrics = Metrics::new();
            values[step as usize / 10 - 1].into_iter().for_each(|value: f64| metrics.push("value", value));
            stop.store(step == 20, Ordering::Relaxed);
        });
        let mut setup = setup(start(&path), 100, false);
        (setup.train.eval_interval, setup.train.checkpoint_interval, setup.train.log_interval) = (0, 0, 40);
        run(&mut toy, setup, &stop).unwrap();
        let records = read_records(&path.join("metrics.jsonl")).unwrap();
        let lines: Vec<_> = records.iter().map(|record| (record.step, record.get("value"))).collect();
        assert_eq!(lines, [(20, values[0].map(|_| 2.0))], "the time is kept, whether or not there is a metric");
    }
}

#[test]
fn the_best_evaluation_is_the_best_that_is_still_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    let go = |steps: u64, resume: bool, scores: &dyn Fn(u64) -> f32, after: After<'_>| {
        let run_dir = if resume { RunDir::open(&path).unwrap() } else { start(&path) };
        let mut setup = setup(run_dir, steps, resume);
        setup.train.save_best = true;
        let mut task = Scored { toy: Toy::with(after), scores };
        run(&mut task, setup, &AtomicBool::new(false))
    };
    // The evaluation at 30 is beaten by that at 50, and the run fails before the checkpoint at 60.
    let fails = |step: u64, metrics: &mut Metrics| metrics.push("value", if step == 60 { f64::NAN } else { 0.0 });
    go(100, false, &|step| step as f32, Box::new(fails)).unwrap_err();
    assert_eq!(checkpoint::list(&path.join("checkpoints")).unwrap(), [30]);
    assert_eq!(checkpoint::list(&path.join("best")).unwrap(), [50]);
    go(100, true, &|_| 2.0, Box::new(|_, _| {})).unwrap();
    assert_eq!(checkpoint::list(&path.join("best")).unwrap(), [50], "nothing before it is left to beat");
}

#[test]
fn a_run_stops_at_the_threshold_if_asked_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    let go = |resume: bool| {
        let run_dir = if resume { RunDir::open(&path).unwrap() } else { start(&path) };
        let mut setup = setup(run_dir, 1000, resume);
        setup.train.stop_at_threshold = true;
        // The mean with a return of 1 reaches the threshold of 1.
        let mut task = Scored { toy: Toy::new(), scores: &|step| if step >= 200 { 1.0 } else { 0.9 } };
        run(&mut task, setup, &AtomicBool::new(false)).unwrap()
    };
    let report = go(false);
    assert_eq!((report.summary.status, report.summary.steps), (Status::Finished, 200));
    assert!(path.join("checkpoints/200").exists() && path.join("curve.png").exists());
    assert_eq!(go(true).was_finished, Some(WasFinished::Threshold), "nothing is left to do");
}

/// A toy whose evaluations are given.
struct Scored<'a> {
    toy: Toy<'a>,
    scores: &'a dyn Fn(u64) -> f32,
}

impl Task for Scored<'_> {
    fn step(&self) -> u64 {
        self.toy.step()
    }

    fn iterate(&mut self) -> Result<Metrics, CoreError> {
        self.toy.iterate()
    }

    fn evaluate(&mut self, episodes: u32) -> Result<Evaluation, CoreError> {
        self.toy.value = (self.scores)(self.toy.step);
        self.toy.evaluate(episodes)
    }

    fn media(&mut self, dir: &Path) -> Result<Vec<PathBuf>, CoreError> {
        self.toy.media(dir)
    }

    fn save(&self, to: &mut CheckpointWriter) -> Result<(), CoreError> {
        self.toy.save(to)
    }

    fn load(&mut self, from: &CheckpointReader) -> Result<(), CoreError> {
        self.toy.load(from)
    }

    fn headline(&self) -> Headline {
        self.toy.headline()
    }
}
