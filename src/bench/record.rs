//! Measurements on disk, with the program that made them where it was kept.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use hotfire_bench::BenchError;
use hotfire_bench::measure::{Clock, Plan, Rates};
use hotfire_core::CoreError;
use hotfire_core::error::nearest;
use hotfire_core::run_dir::write_atomic;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Compared;
use crate::environment;

const VERSION: u32 = 1;

/// The content of `NAME.json`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    /// What it was measured with and on.
    pub environment: BTreeMap<String, String>,
    /// The program's file.
    pub program: PathBuf,
    /// Environments of a batch.
    pub num_envs: usize,
    /// The length of a sample.
    pub sample_ms: u64,
    /// What is counted as time.
    pub clock: Clock,
    pub results: Vec<Rates>,
}

impl Record {
    pub fn new(num_envs: usize, plan: Plan, results: Vec<Rates>) -> Self {
        let environment = environment::describe().into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let program = std::env::current_exe().unwrap_or_default();
        let sample_ms = plan.sample.as_millis() as u64;
        Self { version: VERSION, environment, program, num_envs, sample_ms, clock: plan.clock, results }
    }

    /// The record, what was left out, and what was compared, for programs.
    pub fn to_json(&self, skipped: &[BenchError], compared: &[Compared]) -> serde_json::Value {
        let mut value = json!(self);
        value["skipped"] = skipped.iter().map(ToString::to_string).collect();
        value["comparisons"] = json!(compared);
        value
    }

    /// Refuses to be compared with measurements of another kind.
    pub fn check_settings(&self, num_envs: usize, clock: Clock) -> Result<(), CoreError> {
        let problem = if self.num_envs != num_envs {
            format!("--num-envs: expected {} as in the record, found {num_envs}", self.num_envs)
        } else if self.clock != clock {
            let [expected, found] = [self.clock, clock].map(|clock| if clock == Clock::Cpu { "given" } else { "not" });
            format!("--cpu-time: expected {expected} as in the record, found {found}")
        } else {
            return Ok(());
        };
        Err(CoreError::Usage(problem))
    }

    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let record: Self = serde_json::from_slice(text).map_err(|error| format!("no record of `bench`: {error}"))?;
        if record.version != VERSION {
            return Err(format!("expected a record of version {VERSION}, found {}", record.version));
        }
        if let Some(empty) = record.results.iter().find(|result| result.rates.is_empty()) {
            return Err(format!("{}: expected at least one sample, found none", empty.id));
        }
        Ok(record)
    }

    /// Writes `DIR/NAME.json` and returns its path.
    pub fn save(&self, dir: &Path, name: &str) -> Result<PathBuf, CoreError> {
        fs::create_dir_all(dir).map_err(CoreError::io(dir, "make"))?;
        let path = file(dir, name);
        let text = serde_json::to_string_pretty(self).expect("numbers and texts always serialize") + "\n";
        write_atomic(&path, text.as_bytes())?;
        Ok(path)
    }

    /// Reads `DIR/NAME.json`.
    pub fn load(dir: &Path, name: &str) -> Result<Self, CoreError> {
        check_name(name)?;
        let path = file(dir, name);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(missing(dir, name)),
            Err(error) => return Err(CoreError::io(&path, "read")(error)),
        };
        Self::parse(&text).map_err(|problem| CoreError::Usage(BenchError::Record { path, problem }.to_string()))
    }
}

fn file(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.json"))
}

fn program_file(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}{}", if cfg!(windows) { ".exe" } else { ".bin" }))
}

/// Refuses what can't be a file's name.
pub fn check_name(name: &str) -> Result<(), CoreError> {
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\']) {
        let problem = format!("expected a name without slashes or a leading dot, found {name:?}; --dir says where");
        return Err(CoreError::Usage(problem));
    }
    Ok(())
}

fn missing(dir: &Path, name: &str) -> CoreError {
    let names: Vec<String> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.strip_suffix(".json")?.to_owned()))
        .collect();
    let hint = match nearest(name, names.iter().map(String::as_str)) {
        Some(name) => format!("did you mean {name}?"),
        None if names.is_empty() => format!("make one with hotfire bench --save {name}"),
        None => format!("there are {}", names.join(", ")),
    };
    CoreError::Usage(format!("{}: there is no such record; {hint}", file(dir, name).display()))
}

/// Copies this program beside the record, in place of an older one; without `keep`, there is none afterwards.
pub fn keep_program(dir: &Path, name: &str, keep: bool) -> Result<(), CoreError> {
    let path = program_file(dir, name);
    if !keep {
        return match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(CoreError::io(&path, "remove")(error)),
            _ => Ok(()),
        };
    }
    let this = std::env::current_exe().map_err(CoreError::io(&path, "find the program for"))?;
    fs::copy(&this, &path).map_err(CoreError::io(&path, "write"))?;
    Ok(())
}

/// The program that was kept beside the record.
pub fn kept_program(dir: &Path, name: &str) -> Option<PathBuf> {
    Some(program_file(dir, name)).filter(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_record_comes_back_and_mistakes_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let results = vec![Rates { id: "gae/gae/4".into(), unit: "steps".into(), threads: 1, rates: vec![1.5e9, 2.0] }];
        let plan = Plan { rounds: 2, sample: Duration::from_millis(10), clock: Clock::Wall };
        let record = Record::new(64, plan, results);
        record.save(dir.path(), "before").unwrap();
        assert_eq!(Record::load(dir.path(), "before").unwrap(), record);
        let message = |name: &str| Record::load(dir.path(), name).unwrap_err().to_string();
        assert!(message("befor").ends_with("befor.json: there is no such record; did you mean before?"));
        assert!(message("other").ends_with("there are before"), "{}", message("other"));
        assert!(message("../before").contains("without slashes"));
        for (content, expected) in [
            ("{", "broken.json: no record of `bench`: EOF"),
            ("{\"version\": 1}", "broken.json: no record of `bench`: missing field"),
            (&serde_json::to_string(&record).unwrap().replace("\"version\":1", "\"version\":9"), "found 9"),
            (
                &serde_json::to_string(&record).unwrap().replace("1500000000.0,2.0", ""),
                "at least one sample, found none",
            ),
        ] {
            fs::write(dir.path().join("broken.json"), content).unwrap();
            assert!(message("broken").contains(expected), "{}", message("broken"));
        }
        let empty = tempfile::tempdir().unwrap();
        let message = Record::load(empty.path(), "x").unwrap_err().to_string();
        assert!(message.ends_with("make one with hotfire bench --save x"), "{message}");
    }
}
