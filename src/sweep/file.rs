//! The sweep file: what is searched, for what, and how. Every mistake in it is found before the first trial starts.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use hotfire_core::CoreError;
use hotfire_core::config::{flatten, leaves};
use hotfire_core::error::nearest;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::train::{RunTask, prepare};

/// Values of dotted config keys: one point of the search space.
pub type Assignment = BTreeMap<String, Value>;

/// A sweep file, read and checked.
#[derive(Debug, Clone)]
pub struct SweepFile {
    /// The config that every trial starts from.
    pub base: PathBuf,
    /// Each configuration is run with each of these seeds.
    pub seeds: Vec<u64>,
    /// A dotted key of `summary.json`.
    pub objective: String,
    /// Which way is better.
    pub direction: Direction,
    /// Fixed changes of the base config.
    pub overrides: Assignment,
    /// How configurations are chosen.
    pub search: Search,
    /// What is searched over.
    pub space: BTreeMap<String, Distribution>,
    /// What a cluster is asked for.
    pub slurm: Slurm,
}

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    Maximize,
    Minimize,
}

impl Direction {
    /// `score` such that more is better.
    pub fn signed(self, score: f64) -> f64 {
        match self {
            Self::Maximize => score,
            Self::Minimize => -score,
        }
    }
}

/// The `[search]` section.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Search {
    pub method: Method,
    /// Configurations to try; a grid tries all of its own.
    pub trials: Option<usize>,
    /// No trial is started after so many seconds of one `hotfire sweep`.
    pub max_seconds: Option<f64>,
    /// Seed of the choices.
    pub seed: u64,
    pub pruner: Pruner,
    /// Evaluations that a trial makes before it may be pruned.
    pub warmup_evaluations: usize,
    /// ASHA keeps one in so many at each rung.
    pub reduction: usize,
    /// How often a failed trial is tried again.
    pub retries: u32,
    /// A trial that takes longer has failed.
    pub timeout_seconds: Option<f64>,
}

impl Default for Search {
    fn default() -> Self {
        Self {
            method: Method::Grid,
            trials: None,
            max_seconds: None,
            seed: 0,
            pruner: Pruner::None,
            warmup_evaluations: 1,
            reduction: 3,
            retries: 0,
            timeout_seconds: None,
        }
    }
}

/// How configurations are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Every combination of the listed values.
    Grid,
    /// Independent draws.
    Random,
    /// The tree-structured Parzen estimator.
    Tpe,
}

/// How hopeless trials are ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pruner {
    /// They are not.
    None,
    /// Below the median of what earlier trials had reached at the same evaluation.
    Median,
    /// Asynchronous successive halving.
    Asha,
}

/// The `[slurm]` section: the words of `sbatch`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Slurm {
    pub partition: Option<String>,
    pub cpus_per_task: Option<u32>,
    pub gpus_per_task: Option<u32>,
    /// As in `4G`.
    pub mem: Option<String>,
    /// As in `01:30:00`.
    pub time: Option<String>,
    /// Further `#SBATCH` options, as in `--account=lab`.
    pub options: Vec<String>,
    /// Shell lines before the trial, as in `module load cuda`.
    pub setup: Vec<String>,
}

/// The values that a key can have.
#[derive(Debug, Clone, PartialEq)]
pub enum Distribution {
    Values(Vec<Value>),
    Uniform(f64, f64),
    LogUniform(f64, f64),
    /// Both ends included.
    Int(i64, i64),
}

/// Mistakes, gathered to be told together.
struct Mistakes {
    file: String,
    found: Vec<String>,
}

impl Mistakes {
    fn add(&mut self, key: impl fmt::Display, problem: impl fmt::Display) {
        let line = format!("{}: {key}: {problem}", self.file);
        if !self.found.contains(&line) {
            self.found.push(line);
        }
    }

    /// Takes a key out of the file. One that is missing has its default, or is a mistake if it has none.
    fn take<T: DeserializeOwned>(&mut self, table: &mut Table, key: &str, default: Option<T>) -> Option<T> {
        let Some(value) = table.remove(key) else {
            if default.is_none() {
                self.add(key, "is missing");
            }
            return default;
        };
        match value.try_into() {
            Ok(value) => Some(value),
            Err(error) => {
                self.add(key, error.message());
                None
            }
        }
    }

    /// Takes a section all of whose keys have defaults; a wrong key does not hide the next, nor change what the others
    /// mean.
    fn take_section<T: DeserializeOwned + Default>(&mut self, table: &mut Table, section: &str) -> T {
        let mut keys: Table = self.take(table, section, Some(Table::new())).unwrap_or_default();
        keys.retain(|key, value| {
            let alone = Table::from_iter([(key.to_owned(), value.clone())]);
            let wrong = alone.try_into::<T>().err();
            if let Some(error) = &wrong {
                self.add(format!("{section}.{key}"), error.message().replace('\n', " "));
            }
            wrong.is_none()
        });
        keys.try_into().unwrap_or_default()
    }

    /// Takes the seeds; a wrong one does not hide the next.
    fn take_seeds(&mut self, table: &mut Table) -> Vec<u64> {
        let Some(seeds) = self.take::<Vec<Value>>(table, "seeds", Some(vec![Value::Integer(1)])) else {
            return vec![1];
        };
        if seeds.is_empty() {
            self.add("seeds", "expected at least one seed, found none");
        }
        let mut found = Vec::new();
        for seed in seeds {
            match seed.as_integer().and_then(|seed| u64::try_from(seed).ok()) {
                Some(seed) if found.contains(&seed) => {
                    self.add("seeds", format!("expected different seeds, found {seed} twice"));
                }
                Some(seed) => found.push(seed),
                None => self.add("seeds", format!("expected whole numbers from 0, found {seed}")),
            }
        }
        found
    }

    /// Whether something is wrong with a key.
    fn blame(&self, key: &str) -> bool {
        let start = format!("{}: {key}: ", self.file);
        self.found.iter().any(|line| line.starts_with(&start))
    }
}

impl SweepFile {
    /// Reads and checks a sweep file; `base` is relative to it. With a `device` the configs' own is not looked for on
    /// this machine.
    pub fn load(path: &Path, device: Option<&str>) -> Result<Self, CoreError> {
        Self::read(path, true, device)
    }

    /// Reads a sweep file that was checked before; its base config may have gone since.
    pub fn reload(path: &Path) -> Result<Self, CoreError> {
        Self::read(path, false, None)
    }

    fn read(path: &Path, check: bool, device: Option<&str>) -> Result<Self, CoreError> {
        let text = std::fs::read_to_string(path).map_err(CoreError::io(path, "read"))?;
        let mut raw: Table = text.parse().map_err(|error: toml::de::Error| {
            let line = error.span().map_or(0, |span| text[..span.start].lines().count().max(1));
            CoreError::Usage(format!("{}:{line}: {}", path.display(), error.message().replace('\n', " ")))
        })?;
        let mut mistakes = Mistakes { file: path.display().to_string(), found: Vec::new() };
        let unread = mistakes.take(&mut raw, "overrides", Some(Table::new())).unwrap_or_default();
        let overrides = leaves(&unread);
        let unread: Option<Table> = mistakes.take(&mut raw, "space", None);
        let mut space = BTreeMap::new();
        flatten("", &unread.unwrap_or_default(), &mut |key, value| {
            read_dimension(key, value, &mut space, &mut mistakes)
        });
        let base: Option<PathBuf> = mistakes.take(&mut raw, "base", None);
        let file = Self {
            base: path.parent().unwrap_or(Path::new("")).join(base.clone().unwrap_or_default()),
            seeds: mistakes.take_seeds(&mut raw),
            objective: mistakes.take(&mut raw, "objective", None).unwrap_or_else(|| "eval.mean".into()),
            direction: mistakes.take(&mut raw, "direction", None).unwrap_or(Direction::Maximize),
            overrides,
            search: mistakes.take_section(&mut raw, "search"),
            space,
            slurm: mistakes.take_section(&mut raw, "slurm"),
        };
        for key in raw.keys() {
            match nearest(key, KEYS) {
                Some(near) => mistakes.add(key, format!("unknown key; did you mean {near}?")),
                None => mistakes.add(key, format!("unknown key; expected one of {}", KEYS.join(", "))),
            }
        }
        if check {
            file.check(base.is_some(), device, &mut mistakes);
        }
        if mistakes.found.is_empty() { Ok(file) } else { Err(CoreError::Usage(mistakes.found.join("\n"))) }
    }

    /// The base config's overrides for a configuration and a seed.
    pub fn trial_overrides(&self, assignment: &Assignment, seed: u64) -> Vec<String> {
        let mut overrides: Vec<String> =
            self.overrides.iter().chain(assignment).map(|(key, value)| format!("{key}={value}")).collect();
        overrides.push(format!("run.seed={seed}"));
        overrides
    }

    /// Number of configurations.
    pub fn configurations(&self) -> usize {
        match self.search.method {
            Method::Grid => self.grid_size(),
            Method::Random | Method::Tpe => self.search.trials.unwrap_or(0),
        }
    }

    fn grid_size(&self) -> usize {
        let sizes = self.space.values().map(|distribution| match distribution {
            Distribution::Values(values) => values.len(),
            _ => 0,
        });
        sizes.product()
    }

    fn check(&self, has_base: bool, device: Option<&str>, mistakes: &mut Mistakes) {
        if self.space.is_empty() && mistakes.found.is_empty() {
            mistakes.add("space", "expected at least one key to search over, found none");
        }
        if !is_objective(&self.objective) {
            let expected = "eval.mean, eval.min, eval.max, metrics.NAME, wall_seconds or steps_per_second";
            mistakes.add("objective", format!("expected {expected}, found {:?}", self.objective));
        }
        self.check_search(mistakes);
        for key in self.space.keys().chain(self.overrides.keys()) {
            if key == "run.seed" {
                mistakes.add(key, "the sweep's own seeds set it; list them in seeds = [...]");
            }
        }
        for key in self.space.keys().filter(|key| self.overrides.contains_key(*key)) {
            mistakes.add(format!("space.{key}"), "is fixed in [overrides] too; leave it out of one of them");
        }
        if has_base {
            self.check_configs(device, mistakes);
        }
    }

    /// Makes the tasks of configs at the ends of the space, to see that they hold.
    fn check_configs(&self, device: Option<&str>, mistakes: &mut Mistakes) {
        let seed = self.seeds.first().copied().unwrap_or(1);
        let make = |overrides: &[(&String, &Value)]| {
            let mut words: Vec<String> = overrides.iter().map(|(key, value)| format!("{key}={value}")).collect();
            words.push(format!("run.seed={seed}"));
            prepare(&self.base, &words, device)
        };
        if let Err(error) = make(&[]) {
            return mistakes.add("base", error);
        }
        let mut fixed: Vec<(&String, &Value)> = self.overrides.iter().collect();
        match make(&fixed) {
            Ok(mut prepared) => {
                if matches!(prepared.task, RunTask::Model(_)) && self.objective.starts_with("eval.") {
                    let metric = prepared.task.as_task().headline().metric;
                    let problem = "is a return, which agents have; a model is measured by metrics.NAME";
                    mistakes.add("objective", format!("{} {problem}, as in metrics.{metric}", self.objective));
                }
                if self.search.pruner != Pruner::None && prepared.train.eval_interval == 0 {
                    let problem = "needs evaluations during training; set train.eval_interval in [overrides]";
                    mistakes.add("search.pruner", problem);
                }
            }
            Err(together) => {
                let before = mistakes.found.len();
                for (key, value) in &fixed {
                    if let Err(error) = make(&[(*key, *value)]) {
                        mistakes.add(format!("overrides.{key}"), error);
                    }
                }
                if mistakes.found.len() == before {
                    mistakes.add("overrides", together);
                }
                // The space is looked at without them.
                fixed.clear();
            }
        }
        for (key, distribution) in self.space.iter().filter(|(key, _)| !self.overrides.contains_key(*key)) {
            for value in distribution.extremes() {
                let overrides = [&fixed[..], &[(key, &value)]].concat();
                if let Err(error) = make(&overrides) {
                    mistakes.add(format!("space.{key}"), error);
                }
            }
        }
    }

    fn check_search(&self, mistakes: &mut Mistakes) {
        let search = &self.search;
        match search.method {
            _ if mistakes.blame("search.method") => {}
            Method::Grid => {
                for (key, distribution) in &self.space {
                    if !matches!(distribution, Distribution::Values(_)) {
                        mistakes.add(
                            format!("space.{key}"),
                            format!(
                                "a grid needs {{ values = [...] }}, found {distribution}; or search.method = \"random\""
                            ),
                        );
                    }
                }
                if search.trials.is_some() {
                    mistakes.add("search.trials", "a grid runs all of its combinations; leave it out");
                }
            }
            Method::Random | Method::Tpe => {
                if search.trials.is_none_or(|trials| trials == 0) && !mistakes.blame("search.trials") {
                    mistakes.add("search.trials", "expected the number of configurations to try, at least 1");
                }
            }
        }
        for (key, seconds) in [("max_seconds", search.max_seconds), ("timeout_seconds", search.timeout_seconds)] {
            if seconds.is_some_and(|seconds| !(seconds > 0.0 && seconds.is_finite())) {
                mistakes.add(format!("search.{key}"), "expected a positive number of seconds");
            }
        }
        if search.reduction < 2 {
            mistakes.add("search.reduction", format!("expected at least 2, found {}", search.reduction));
        }
        if search.pruner != Pruner::None
            && !self.objective.starts_with("eval.")
            && !self.objective.starts_with("metrics.")
        {
            mistakes
                .add("search.pruner", format!("needs an objective that evaluations measure, found {}", self.objective));
        }
    }
}

/// The dotted key by which evaluations during training log this objective.
pub fn evaluation_metric(objective: &str) -> String {
    match objective.split_once('.') {
        Some(("eval", statistic)) => format!("eval/return_{statistic}"),
        // So named in the summary already.
        Some((_, metric)) if metric.starts_with("eval/") => metric.to_owned(),
        Some((_, metric)) => format!("eval/{metric}"),
        None => objective.to_owned(),
    }
}

fn is_objective(key: &str) -> bool {
    match key.split_once('.') {
        Some(("eval", statistic)) => ["mean", "min", "max", "std"].contains(&statistic),
        Some(("metrics", metric)) => !metric.is_empty(),
        _ => ["wall_seconds", "steps_per_second"].contains(&key),
    }
}

const KEYS: [&str; 8] = ["base", "seeds", "objective", "direction", "overrides", "search", "space", "slurm"];
const KINDS: [&str; 4] = ["values", "uniform", "log_uniform", "int"];

/// Reads `{ values = [...] }` and its like; false for a table that only holds further keys.
fn read_dimension(
    key: &str,
    value: &Value,
    space: &mut BTreeMap<String, Distribution>,
    mistakes: &mut Mistakes,
) -> bool {
    let place = format!("space.{key}");
    let expected = "{ values = [..] }, { uniform = [a, b] }, { log_uniform = [a, b] } or { int = [a, b] }";
    let table = match value {
        Value::Table(table) if !table.is_empty() && table.values().all(Value::is_table) => return false,
        Value::Table(table) => table,
        other => {
            mistakes.add(place, format!("expected {expected}, found {other}"));
            return true;
        }
    };
    let (Some((kind, argument)), 1) = (table.iter().next(), table.len()) else {
        mistakes.add(place, format!("expected one of {expected}, found {} keys", table.len()));
        return true;
    };
    match distribution(kind, argument) {
        Ok(distribution) => {
            space.insert(key.to_owned(), distribution);
        }
        Err(problem) => mistakes.add(place, problem),
    }
    true
}

fn distribution(kind: &str, argument: &Value) -> Result<Distribution, String> {
    let wrong = |expected: &str| format!("{kind}: expected {expected}, found {argument}");
    let list = argument.as_array().map(Vec::as_slice);
    let number = |value: &Value| value.as_float().or(value.as_integer().map(|x| x as f64));
    match (kind, list) {
        ("values", Some([])) => Err(wrong("at least one value")),
        ("values", Some(values)) => {
            match values.iter().enumerate().find(|(i, value)| values[..*i].iter().any(|other| same(other, value))) {
                Some((_, twice)) => Err(format!("values: {twice} is listed twice")),
                None => Ok(Distribution::Values(values.to_vec())),
            }
        }
        ("uniform" | "log_uniform", Some([low, high])) => {
            let (Some(low), Some(high)) = (number(low), number(high)) else { return Err(wrong("two numbers")) };
            if !(low < high && low.is_finite() && high.is_finite()) {
                return Err(wrong("[low, high] with low < high"));
            }
            match kind {
                "uniform" => Ok(Distribution::Uniform(low, high)),
                _ if low > 0.0 => Ok(Distribution::LogUniform(low, high)),
                _ => Err(wrong("positive ends")),
            }
        }
        ("int", Some([Value::Integer(low), Value::Integer(high)])) if low < high => Ok(Distribution::Int(*low, *high)),
        ("int", _) => Err(wrong("[low, high], integers with low < high")),
        ("values", _) => Err(wrong("a list")),
        ("uniform" | "log_uniform", _) => Err(wrong("[low, high]")),
        _ => Err(match nearest(kind, KINDS) {
            Some(near) => format!("unknown distribution {kind:?}; did you mean {near:?}?"),
            None => format!("unknown distribution {kind:?}; expected one of {}", KINDS.join(", ")),
        }),
    }
}

/// Whether two values mean the same in a config, where 1 stands for 1.0 too.
fn same(a: &Value, b: &Value) -> bool {
    let number = |value: &Value| value.as_float().or(value.as_integer().map(|x| x as f64));
    a == b || number(a).is_some_and(|a| number(b) == Some(a))
}

impl Distribution {
    /// The values at which a config is checked: all that are listed, or both ends.
    fn extremes(&self) -> Vec<Value> {
        match self {
            Self::Values(values) => values.clone(),
            Self::Uniform(low, high) | Self::LogUniform(low, high) => vec![Value::Float(*low), Value::Float(*high)],
            Self::Int(low, high) => vec![Value::Integer(*low), Value::Integer(*high)],
        }
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Values(values) => write!(f, "{{ values = {} }}", Value::Array(values.clone())),
            Self::Uniform(low, high) => write!(f, "{{ uniform = [{low}, {high}] }}"),
            Self::LogUniform(low, high) => write!(f, "{{ log_uniform = [{low}, {high}] }}"),
            Self::Int(low, high) => write!(f, "{{ int = [{low}, {high}] }}"),
        }
    }
}
