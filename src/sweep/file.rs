//! The sweep file: what is searched, for what, and how. Every mistake in it is found before the first trial starts.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use hotfire_core::CoreError;
use hotfire_core::error::nearest;
use serde::Deserialize;
use toml::{Table, Value};

use crate::train::prepare;

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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    base: PathBuf,
    #[serde(default = "first_seed")]
    seeds: Vec<u64>,
    objective: String,
    direction: Direction,
    #[serde(default)]
    overrides: Table,
    #[serde(default)]
    search: Search,
    space: Table,
    #[serde(default)]
    slurm: Slurm,
}

fn first_seed() -> Vec<u64> {
    vec![1]
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
}

impl SweepFile {
    /// Reads and checks a sweep file; `base` is relative to it.
    pub fn load(path: &Path) -> Result<Self, CoreError> {
        Self::read(path, true)
    }

    /// Reads a sweep file that was checked before; its base config may have gone since.
    pub fn reload(path: &Path) -> Result<Self, CoreError> {
        Self::read(path, false)
    }

    fn read(path: &Path, check: bool) -> Result<Self, CoreError> {
        let text = std::fs::read_to_string(path).map_err(CoreError::io(path, "read"))?;
        let raw: Raw = toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(0, |span| text[..span.start].lines().count().max(1));
            CoreError::Usage(format!("{}:{line}: {}", path.display(), error.message().replace('\n', " ")))
        })?;
        let mut mistakes = Mistakes { file: path.display().to_string(), found: Vec::new() };
        let mut overrides = Assignment::new();
        flatten("", &raw.overrides, &mut |key, value| {
            if let Value::Table(_) = value {
                return false;
            }
            overrides.insert(key.to_owned(), value.clone());
            true
        });
        let mut space = BTreeMap::new();
        flatten("", &raw.space, &mut |key, value| read_dimension(key, value, &mut space, &mut mistakes));
        let file = Self {
            base: path.parent().unwrap_or(Path::new("")).join(raw.base),
            seeds: raw.seeds,
            objective: raw.objective,
            direction: raw.direction,
            overrides,
            search: raw.search,
            space,
            slurm: raw.slurm,
        };
        if check {
            file.check(&mut mistakes);
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

    fn check(&self, mistakes: &mut Mistakes) {
        if self.seeds.is_empty() {
            mistakes.add("seeds", "expected at least one seed, found none");
        }
        if let Some(seed) = self.seeds.iter().enumerate().find(|(i, seed)| self.seeds[..*i].contains(seed)) {
            mistakes.add("seeds", format!("expected different seeds, found {} twice", seed.1));
        }
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
        let missing = mistakes.found.len();
        self.check_config(&Assignment::new(), "base", mistakes);
        if mistakes.found.len() == missing {
            for (key, distribution) in &self.space {
                for value in distribution.extremes() {
                    self.check_config(&Assignment::from([(key.clone(), value)]), key, mistakes);
                }
            }
        }
    }

    fn check_search(&self, mistakes: &mut Mistakes) {
        let search = &self.search;
        match search.method {
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
                if search.trials.is_none_or(|trials| trials == 0) {
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

    /// Makes a trial's task to see that its config holds.
    fn check_config(&self, assignment: &Assignment, key: &str, mistakes: &mut Mistakes) {
        let seed = self.seeds.first().copied().unwrap_or(1);
        match prepare(&self.base, &self.trial_overrides(assignment, seed), None) {
            Err(error) => mistakes.add(format!("space.{key}").replace("space.base", "base"), error),
            Ok(prepared) if self.search.pruner != Pruner::None && prepared.train.eval_interval == 0 => {
                mistakes
                    .add("search.pruner", "needs evaluations during training; set train.eval_interval in [overrides]");
            }
            Ok(_) => {}
        }
    }
}

/// The dotted key by which evaluations during training log this objective.
pub fn evaluation_metric(objective: &str) -> String {
    match objective.split_once('.') {
        Some(("eval", statistic)) => format!("eval/return_{statistic}"),
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

/// Calls `leaf` with each dotted key; it says whether the value was one, or a table to look into.
fn flatten(parent: &str, table: &Table, leaf: &mut impl FnMut(&str, &Value) -> bool) {
    for (key, value) in table {
        let dotted = if parent.is_empty() { key.clone() } else { format!("{parent}.{key}") };
        if !leaf(&dotted, value)
            && let Value::Table(inner) = value
        {
            flatten(&dotted, inner, leaf);
        }
    }
}

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
        ("values", Some(values)) => match values.iter().enumerate().find(|(i, value)| values[..*i].contains(value)) {
            Some((_, twice)) => Err(format!("values: {twice} is listed twice")),
            None => Ok(Distribution::Values(values.to_vec())),
        },
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
