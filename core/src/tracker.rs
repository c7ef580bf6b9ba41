//! Where metrics go: `metrics.jsonl` and a TensorBoard event file in the run directory.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::CoreError;
use crate::metrics::Metrics;
use crate::run_dir::{RunDir, write_atomic};
use crate::tensorboard::EventWriter;

/// Writes a run's metrics as they come.
#[derive(Debug)]
pub struct Tracker {
    lines: File,
    path: PathBuf,
    events: EventWriter,
    line: Vec<u8>,
}

impl Tracker {
    /// Starts the records of a new run.
    pub fn create(run_dir: &RunDir) -> Result<Self, CoreError> {
        Self::open(run_dir, None)
    }

    /// Goes on with the records of a run from the checkpoint at `step`: what was recorded after it is dropped, and
    /// unless the run has `finished` there, its last evaluation at that step too.
    ///
    /// Also returns the wall time in seconds that the run had taken by then.
    pub fn resume(run_dir: &RunDir, step: u64, finished: bool) -> Result<(Self, f64), CoreError> {
        let path = run_dir.metrics();
        let seconds = truncate_after(&path, step, finished)?;
        Ok((Self::open(run_dir, Some(step))?, seconds))
    }

    fn open(run_dir: &RunDir, resumed_at: Option<u64>) -> Result<Self, CoreError> {
        let path = run_dir.metrics();
        let lines = OpenOptions::new().create(true).append(true).open(&path).map_err(CoreError::io(&path, "open"))?;
        let events = EventWriter::create(run_dir.path(), resumed_at)?;
        Ok(Self { lines, path, events, line: Vec::new() })
    }

    /// Records metrics at a step; `seconds` is the wall time of the run so far.
    pub fn log(&mut self, step: u64, seconds: f64, metrics: &Metrics) -> Result<(), CoreError> {
        self.line.clear();
        // Milliseconds are enough and keep the lines short.
        let seconds = (seconds * 1e3).round() / 1e3;
        write!(self.line, "{{\"step\":{step},\"time\":{seconds}").expect("writing to memory cannot fail");
        for (key, value) in metrics.iter() {
            self.line.push(b',');
            serde_json::to_writer(&mut self.line, key).expect("writing to memory cannot fail");
            self.line.push(b':');
            serde_json::to_writer(&mut self.line, &value).expect("writing to memory cannot fail");
        }
        self.line.extend(b"}\n");
        self.lines.write_all(&self.line).map_err(CoreError::io(&self.path, "write"))?;
        self.events.scalars(step, metrics)
    }

    /// Records a picture from a PNG file.
    pub fn image(&mut self, step: u64, tag: &str, png: &Path) -> Result<(), CoreError> {
        let bytes = fs::read(png).map_err(CoreError::io(png, "read"))?;
        self.events.image(step, tag, &bytes)
    }
}

/// One line of `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Record {
    /// The training step.
    pub step: u64,
    /// Wall time of the run so far, in seconds.
    pub time: f64,
    /// Everything else.
    #[serde(flatten)]
    pub values: Map<String, Value>,
}

impl Record {
    /// The value of a metric.
    pub fn get(&self, key: &str) -> Option<f64> {
        self.values.get(key).and_then(Value::as_f64)
    }
}

/// Reads a `metrics.jsonl`. A last line that a crash cut short is left out.
pub fn read_records(path: &Path) -> Result<Vec<Record>, CoreError> {
    let text = read_text(path)?;
    Ok(complete_lines(&text).filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// Reads one metric of a `metrics.jsonl` that another process writes, without reading anything twice.
#[derive(Debug)]
pub struct MetricTail {
    path: PathBuf,
    metric: String,
    read: u64,
    values: Vec<(u64, f64)>,
}

impl MetricTail {
    /// Follows `metric` in the file at `path`, which may not be there yet.
    pub fn new(path: impl Into<PathBuf>, metric: impl Into<String>) -> Self {
        Self { path: path.into(), metric: metric.into(), read: 0, values: Vec::new() }
    }

    /// Step and value of each record that has it, so far.
    pub fn read(&mut self) -> Result<&[(u64, f64)], CoreError> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(&self.values),
            Err(error) => return Err(CoreError::io(&self.path, "read")(error)),
        };
        let failed = |error| CoreError::io(&self.path, "read")(error);
        // A resumed run drops the lines after its checkpoint.
        if file.metadata().map_err(failed)?.len() < self.read {
            self.read = 0;
            self.values.clear();
        }
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(self.read)).and_then(|_| file.read_to_end(&mut bytes)).map_err(failed)?;
        let text = String::from_utf8_lossy(&bytes);
        for line in complete_lines(&text) {
            self.read += line.len() as u64;
            if line.contains(&self.metric)
                && let Ok(record) = serde_json::from_str::<Record>(line)
            {
                self.values.extend(record.get(&self.metric).map(|value| (record.step, value)));
            }
        }
        Ok(&self.values)
    }
}

fn read_text(path: &Path) -> Result<String, CoreError> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(CoreError::io(path, "read")(error)),
    }
}

fn complete_lines(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive('\n').filter(|line| line.ends_with('\n'))
}

/// Drops the lines of later steps and returns the time of the last that stays. A second line of `step` is that of the
/// evaluation after the run's end: it stays only if the run `finished`, and else comes again.
fn truncate_after(path: &Path, step: u64, finished: bool) -> Result<f64, CoreError> {
    let text = read_text(path)?;
    let mut kept = String::with_capacity(text.len());
    let mut seconds = 0.0;
    let mut last = None;
    for line in complete_lines(&text) {
        match serde_json::from_str::<Record>(line) {
            Ok(record) if record.step < step || (record.step == step && (finished || last != Some(step))) => {
                last = Some(record.step);
                kept.push_str(line);
                seconds = record.time;
            }
            _ => {}
        }
    }
    if kept != text {
        write_atomic(path, kept.as_bytes())?;
    }
    Ok(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(loss: f64) -> Metrics {
        let mut metrics = Metrics::new();
        metrics.push("train/loss", loss);
        metrics
    }

    #[test]
    fn one_object_a_line_with_exact_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = RunDir::create(dir.path().join("run")).unwrap();
        let mut tracker = Tracker::create(&run_dir).unwrap();
        tracker.log(128, 0.123456, &metrics(0.1)).unwrap();
        tracker.log(256, 2.0, &metrics(1e-300)).unwrap();
        assert_eq!(
            fs::read_to_string(run_dir.metrics()).unwrap(),
            "{\"step\":128,\"time\":0.123,\"train/loss\":0.1}\n{\"step\":256,\"time\":2,\"train/loss\":1e-300}\n"
        );
        let records = read_records(&run_dir.metrics()).unwrap();
        assert_eq!((records[1].step, records[1].get("train/loss")), (256, Some(1e-300)));
    }

    #[test]
    fn a_metric_is_followed_while_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = RunDir::create(dir.path().join("run")).unwrap();
        let mut tail = MetricTail::new(run_dir.metrics(), "train/loss");
        assert!(tail.read().unwrap().is_empty(), "not there yet");
        let mut tracker = Tracker::create(&run_dir).unwrap();
        tracker.log(1, 0.0, &metrics(1.0)).unwrap();
        assert_eq!(tail.read().unwrap(), [(1, 1.0)]);
        tracker.log(2, 0.0, &metrics(2.0)).unwrap();
        tracker.log(3, 0.0, &metrics(3.0)).unwrap();
        assert_eq!(tail.read().unwrap(), [(1, 1.0), (2, 2.0), (3, 3.0)]);
        drop(tracker);
        Tracker::resume(&run_dir, 1, false).unwrap();
        assert_eq!(tail.read().unwrap(), [(1, 1.0)], "the run went back to its checkpoint");
    }

    #[test]
    fn resuming_drops_later_lines_and_a_line_cut_short() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = RunDir::create(dir.path().join("run")).unwrap();
        let mut tracker = Tracker::create(&run_dir).unwrap();
        for step in 1..=4 {
            tracker.log(step, step as f64, &metrics(step as f64)).unwrap();
        }
        drop(tracker);
        let mut text = fs::read_to_string(run_dir.metrics()).unwrap();
        text.push_str("{\"step\":2,\"ti");
        fs::write(run_dir.metrics(), text).unwrap();

        let (mut tracker, seconds) = Tracker::resume(&run_dir, 2, false).unwrap();
        assert_eq!(seconds, 2.0);
        tracker.log(3, 2.5, &metrics(30.0)).unwrap();
        let records = read_records(&run_dir.metrics()).unwrap();
        let rows: Vec<_> = records.iter().map(|record| (record.step, record.get("train/loss").unwrap())).collect();
        assert_eq!(rows, [(1, 1.0), (2, 2.0), (3, 30.0)]);
    }
}
