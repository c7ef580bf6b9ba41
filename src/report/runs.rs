//! The runs of a report: found, read, and grouped by what they have in common.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use hotfire_core::CoreError;
use hotfire_core::run_dir::RunDir;
use hotfire_core::tracker::{Record, read_records};
use serde_json::Value as Json;
use toml::{Table, Value};

use crate::sweep::{Direction, objective};

/// Keys of `[run]` that tell runs of one configuration apart.
const OWN_KEYS: [&str; 5] = ["seed", "name", "dir", "device", "threads"];
/// Keys that name the algorithm or the model.
const NAME_KEYS: [&str; 2] = ["agent.algorithm", "model.name"];
/// How deep run directories are looked for below a given folder.
const DEPTH: usize = 3;

/// One run, read.
pub struct Run {
    pub path: PathBuf,
    pub config: BTreeMap<String, Value>,
    pub summary: Json,
    /// What it was made with.
    pub environment: BTreeMap<String, String>,
    pub records: Vec<Record>,
}

impl Run {
    fn load(path: &Path) -> anyhow::Result<Self> {
        let run_dir = RunDir::open(path)?;
        let text = fs::read_to_string(run_dir.config()).map_err(CoreError::io(run_dir.config(), "read"))?;
        let table: Table = text.parse().with_context(|| run_dir.config().display().to_string())?;
        let mut config = BTreeMap::new();
        flatten("", &table, &mut config);
        let summary = match fs::read(run_dir.summary()) {
            Ok(text) => serde_json::from_slice(&text).with_context(|| run_dir.summary().display().to_string())?,
            Err(_) => Json::Null,
        };
        // Runs of before this file have none.
        let environment = fs::read(path.join(crate::environment::FILE)).ok();
        let environment = environment.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        Ok(Self { path: path.to_owned(), config, summary, environment, records: read_records(&run_dir.metrics())? })
    }

    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    pub fn seed(&self) -> i64 {
        self.config.get("run.seed").and_then(Value::as_integer).unwrap_or(0)
    }

    /// The environment, or the model's data: runs of different tasks are not compared.
    pub fn task(&self) -> String {
        let text = |key: &str| self.config.get(key).and_then(Value::as_str).map(str::to_owned);
        match text("env.id") {
            Some(id) => id,
            None => text("data.name").or(text("data.dataset")).or(text("data.text")).unwrap_or_else(|| "model".into()),
        }
    }

    /// The config without what differs between runs that only repeat each other.
    pub fn configuration(&self) -> BTreeMap<String, String> {
        let own = |key: &str| key.strip_prefix("run.").is_some_and(|key| OWN_KEYS.contains(&key));
        self.config.iter().filter(|(key, _)| !own(key)).map(|(key, value)| (key.clone(), value.to_string())).collect()
    }

    pub fn number(&self, key: &str) -> Option<f64> {
        objective(&self.summary, key).ok()
    }

    pub fn status(&self) -> &str {
        self.summary.get("status").and_then(Json::as_str).unwrap_or("not finished")
    }

    pub fn media(&self) -> Vec<PathBuf> {
        let dir = self.path.join("media");
        let mut files: Vec<PathBuf> =
            fs::read_dir(dir).map(|entries| entries.flatten().map(|e| e.path()).collect()).unwrap_or_default();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "png" || extension == "gif"));
        files.sort();
        files
    }
}

/// Runs of one configuration that differ in the seed alone.
pub struct Group {
    pub label: String,
    pub configuration: BTreeMap<String, String>,
    pub runs: Vec<Run>,
    /// The objective of each run that has one.
    pub scores: Vec<f64>,
}

/// What is compared with each other: the groups on one environment or data set.
pub struct Task {
    pub name: String,
    pub objective: String,
    pub direction: Direction,
    /// Best first.
    pub groups: Vec<Group>,
}

/// Reads the runs in these folders, which may be runs, sweeps or folders of them.
pub fn load(paths: &[PathBuf]) -> anyhow::Result<Vec<Run>> {
    let mut found = BTreeSet::new();
    for path in paths {
        let before = found.len();
        find(path, DEPTH, &mut found)?;
        if found.len() == before {
            let problem = "no run here: expected a run directory (with config.toml), a sweep or a folder of runs";
            return Err(CoreError::Usage(format!("{}: {problem}", path.display())).into());
        }
    }
    found.iter().map(|path| Run::load(path)).collect()
}

fn find(path: &Path, depth: usize, found: &mut BTreeSet<PathBuf>) -> anyhow::Result<()> {
    if RunDir::open(path).is_ok() {
        found.insert(path.to_owned());
    } else if depth > 0 && path.is_dir() {
        for entry in fs::read_dir(path).map_err(CoreError::io(path, "read"))? {
            let entry = entry.map_err(CoreError::io(path, "read"))?.path();
            if entry.is_dir() {
                find(&entry, depth - 1, found)?;
            }
        }
    }
    Ok(())
}

/// Groups runs by task and configuration. Without an asked objective, an agent's is its mean return, a model's the
/// first metric that it was evaluated by.
pub fn group(runs: Vec<Run>, asked: Option<&str>, direction: Option<Direction>) -> anyhow::Result<Vec<Task>> {
    let mut tasks: BTreeMap<String, Vec<Run>> = BTreeMap::new();
    for run in runs {
        tasks.entry(run.task()).or_default().push(run);
    }
    tasks
        .into_iter()
        .map(|(name, runs)| {
            let objective = match asked {
                Some(asked) => asked.to_owned(),
                None => runs.iter().find_map(default_objective).unwrap_or_else(|| "eval.mean".into()),
            };
            let minimize = objective.starts_with("metrics.") || objective == "wall_seconds";
            let direction = direction.unwrap_or(if minimize { Direction::Minimize } else { Direction::Maximize });
            let groups = groups(runs, &objective, direction);
            Ok(Task { name, objective, direction, groups })
        })
        .collect()
}

fn groups(runs: Vec<Run>, objective: &str, direction: Direction) -> Vec<Group> {
    let mut groups: BTreeMap<Vec<(String, String)>, Vec<Run>> = BTreeMap::new();
    for run in runs {
        groups.entry(run.configuration().into_iter().collect()).or_default().push(run);
    }
    let varying = varying_keys(groups.keys());
    let names: BTreeSet<&String> =
        groups.keys().flatten().filter(|(key, _)| NAME_KEYS.contains(&key.as_str())).map(|(_, name)| name).collect();
    let names_tell = names.len() == groups.len();
    let mut groups: Vec<Group> = groups
        .into_iter()
        .map(|(configuration, mut runs)| {
            runs.sort_by_key(Run::seed);
            let configuration: BTreeMap<String, String> = configuration.into_iter().collect();
            let scores = runs.iter().filter_map(|run| run.number(objective)).collect();
            let label = label(&configuration, &varying, names_tell, &runs);
            Group { label, configuration, runs, scores }
        })
        .collect();
    let mean = |group: &Group| match group.scores.len() {
        0 => f64::NEG_INFINITY,
        n => direction.signed(group.scores.iter().sum::<f64>() / n as f64),
    };
    groups.sort_by(|a, b| mean(b).total_cmp(&mean(a)));
    groups
}

/// The dotted keys that these configurations do not agree on.
pub fn varying_keys<'a>(configurations: impl Iterator<Item = &'a Vec<(String, String)>>) -> BTreeSet<String> {
    let mut values: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut count = 0;
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for configuration in configurations {
        count += 1;
        for (key, value) in configuration {
            values.entry(key).or_default().insert(value);
            *seen.entry(key).or_default() += 1;
        }
    }
    let varies = |key: &&str| values[*key].len() > 1 || seen[*key] < count;
    values.keys().filter(|key| varies(key)).map(|key| (*key).to_owned()).collect()
}

/// What runs of one configuration are called: by the algorithm's or model's name if no other has it, else by the keys
/// that differ.
fn label(
    configuration: &BTreeMap<String, String>,
    varying: &BTreeSet<String>,
    names_tell: bool,
    runs: &[Run],
) -> String {
    const MOST: usize = 5;
    let algorithm = NAME_KEYS.into_iter().find_map(|key| configuration.get(key));
    let algorithm = algorithm.map(|name| name.trim_matches('"').to_owned());
    let differs = NAME_KEYS.iter().any(|key| varying.contains(*key));
    if let (Some(name), true, true) = (&algorithm, differs, names_tell) {
        return name.clone();
    }
    let pairs: Vec<String> = varying
        .iter()
        .filter(|key| !NAME_KEYS.contains(&key.as_str()))
        .filter_map(|key| {
            configuration.get(key).map(|value| format!("{}={value}", key.rsplit('.').next().unwrap_or(key)))
        })
        .collect();
    match (algorithm, pairs.len()) {
        (Some(name), 0) => name,
        (Some(name), n) if n <= MOST && differs => format!("{name} {}", pairs.join(" ")),
        (_, n) if n <= MOST && n > 0 => pairs.join(" "),
        (name, _) => {
            let run = runs.first().map(Run::name).unwrap_or_default();
            let stem = run.rsplit_once("-s").map_or(run.clone(), |(stem, _)| stem.to_owned());
            if differs { name.unwrap_or(stem) } else { stem }
        }
    }
}

fn default_objective(run: &Run) -> Option<String> {
    if run.number("eval.mean").is_some() {
        return Some("eval.mean".into());
    }
    let last = run.records.iter().rev().find(|record| record.values.keys().any(|key| key.starts_with("eval/")))?;
    let key = last.values.keys().find_map(|key| key.strip_prefix("eval/"))?;
    Some(format!("metrics.{key}"))
}

/// Dotted keys and values of a table of tables.
pub fn flatten(parent: &str, table: &Table, into: &mut BTreeMap<String, Value>) {
    for (key, value) in table {
        let dotted = if parent.is_empty() { key.clone() } else { format!("{parent}.{key}") };
        match value {
            Value::Table(inner) => flatten(&dotted, inner, into),
            other => {
                into.insert(dotted, other.clone());
            }
        }
    }
}
