//! The runs of a report: found, read, and grouped by what they have in common.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use hotfire_core::CoreError;
use hotfire_core::config::leaves;
use hotfire_core::run_config::RunConfig;
use hotfire_core::run_dir::RunDir;
use hotfire_core::tracker::{Record, read_records};
use serde_json::Value as Json;
use toml::{Table, Value};

use crate::sweep::{Assignment, Direction, describe, objective};

/// What models are judged by: the first of these losses that a run has. The last two are of its training, for want of
/// a better.
const MODEL_METRICS: [&str; 10] = [
    "neg_elbo",
    "mse",
    "fid",
    "sliced_wasserstein",
    "val_bits_per_char",
    "val_mlm_loss",
    "val_loss",
    "train_bits_per_char",
    "train_loss",
    "loss",
];
/// Parts of the names of metrics of which more is better.
const MORE_IS_BETTER: [&str; 8] =
    ["accuracy", "auroc", "precision", "recall", "return", "codes_used", "code_perplexity", "active_units"];
/// Keys that name the algorithm or the model.
pub const NAME_KEYS: [&str; 2] = ["agent.algorithm", "model.name"];
/// How deep run directories are looked for below a given folder.
const DEPTH: usize = 3;

/// One run, read.
pub struct Run {
    pub path: PathBuf,
    pub config: Assignment,
    pub summary: Json,
    /// What it was made with.
    pub environment: BTreeMap<String, String>,
    pub records: Vec<Record>,
    /// Whether its sweep ended it early.
    pub pruned: bool,
}

impl Run {
    fn load(path: &Path) -> anyhow::Result<Self> {
        let run_dir = RunDir::open(path)?;
        let text = fs::read_to_string(run_dir.config()).map_err(CoreError::io(run_dir.config(), "read"))?;
        let table: Table = text.parse().with_context(|| run_dir.config().display().to_string())?;
        let summary = match fs::read(run_dir.summary()) {
            Ok(text) => serde_json::from_slice(&text).with_context(|| run_dir.summary().display().to_string())?,
            Err(_) => Json::Null,
        };
        // Runs of before this file have none.
        let environment = fs::read(path.join(crate::environment::FILE)).ok();
        let environment = environment.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        let records = read_records(&run_dir.metrics())?;
        Ok(Self { path: path.to_owned(), config: leaves(&table), summary, environment, records, pruned: false })
    }

    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    pub fn seed(&self) -> i64 {
        self.config.get("run.seed").and_then(Value::as_integer).unwrap_or(0)
    }

    /// Its name without the seed.
    fn stem(&self) -> String {
        let name = self.name();
        match name.rsplit_once("-s") {
            Some((stem, seed)) if !seed.is_empty() && seed.bytes().all(|byte| byte.is_ascii_digit()) => stem.to_owned(),
            _ => name,
        }
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.config.get(key).and_then(Value::as_str)
    }

    /// The environment, or the model's data: runs of different tasks are not compared.
    pub fn task(&self) -> String {
        let file = |path: &str| Path::new(path).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let files = self.config.get("data.files").and_then(Value::as_array);
        match (self.text("env.id").or(self.text("data.name")), files) {
            (Some("frames"), _) => format!("{} frames", self.text("data.env").unwrap_or("unknown")),
            (Some("folder"), _) => file(self.text("data.dir").unwrap_or("folder")),
            (Some(name), _) => name.to_owned(),
            (None, Some(files)) => files.iter().filter_map(Value::as_str).map(file).collect::<Vec<_>>().join(", "),
            (None, None) => "model".into(),
        }
    }

    /// The config without what differs between runs that only repeat each other.
    pub fn configuration(&self) -> BTreeMap<String, String> {
        let own = |key: &str| {
            key.strip_prefix("run.").is_some_and(|key| key == "seed" || RunConfig::KEYS_WITHOUT_EFFECT.contains(&key))
        };
        self.config.iter().filter(|(key, _)| !own(key)).map(|(key, value)| (key.clone(), value.to_string())).collect()
    }

    /// A number of the summary of a run that has finished: those of others are of wherever they were.
    pub fn number(&self, key: &str) -> Option<f64> {
        objective(&self.summary, key).ok().filter(|_| self.status() == "finished")
    }

    pub fn status(&self) -> &str {
        if self.pruned {
            return "pruned";
        }
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
    /// Further runs with the seed of one of `runs`: they say nothing new.
    pub copies: Vec<String>,
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
        let mut here = BTreeSet::new();
        find(path, DEPTH, &mut here)?;
        if here.is_empty() {
            let problem = "no run here: expected a run directory (with config.toml), a sweep or a folder of runs";
            return Err(CoreError::Usage(format!("{}: {problem}", path.display())).into());
        }
        found.extend(here);
    }
    found.iter().map(|path| Run::load(path)).collect()
}

fn find(path: &Path, depth: usize, found: &mut BTreeSet<PathBuf>) -> anyhow::Result<()> {
    if RunDir::open(path).is_ok() {
        // The same run may be given twice, by different paths.
        found.insert(path.canonicalize().map_err(CoreError::io(path, "find"))?);
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

/// Groups runs by task, objective and configuration. Without an asked objective, an agent's is its mean return, a
/// model's that of [`MODEL_METRICS`].
pub fn group(runs: Vec<Run>, asked: Option<&str>, direction: Option<Direction>) -> Vec<Task> {
    let mut kinds: BTreeMap<(String, Option<String>), Vec<Run>> = BTreeMap::new();
    for run in runs {
        let model = run.text("model.name").map(str::to_owned);
        kinds.entry((run.task(), model)).or_default().push(run);
    }
    let mut tasks: BTreeMap<(String, String), Vec<Run>> = BTreeMap::new();
    for ((name, model), runs) in kinds {
        let objective = match (asked, model) {
            (Some(asked), _) => asked.to_owned(),
            (None, None) => "eval.mean".into(),
            (None, Some(_)) => {
                let measured =
                    |metric: &&str| runs.iter().any(|run| run.number(&format!("metrics.{metric}")).is_some());
                format!("metrics.{}", MODEL_METRICS.into_iter().find(measured).unwrap_or("loss"))
            }
        };
        tasks.entry((name, objective)).or_default().extend(runs);
    }
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for (name, _) in tasks.keys() {
        *times.entry(name.clone()).or_default() += 1;
    }
    let task = |((name, objective), runs): ((String, String), Vec<Run>)| {
        let direction = direction.unwrap_or_else(|| usual_direction(&objective));
        let name = if times[&name] > 1 { format!("{name}, {objective}") } else { name };
        let groups = groups(runs, &objective, direction);
        Task { name, objective, direction, groups }
    };
    tasks.into_iter().map(task).collect()
}

fn usual_direction(objective: &str) -> Direction {
    match objective.strip_prefix("metrics.") {
        Some(metric) if !MORE_IS_BETTER.iter().any(|part| metric.contains(part)) => Direction::Minimize,
        None if objective == "wall_seconds" => Direction::Minimize,
        _ => Direction::Maximize,
    }
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
            // Of the runs with one seed, one that has finished counts.
            runs.sort_by_key(|run| (run.seed(), run.status() != "finished"));
            let mut copies = Vec::new();
            let mut counted: BTreeMap<i64, String> = BTreeMap::new();
            runs.retain(|run| match counted.get(&run.seed()) {
                Some(first) => {
                    copies.push(format!("{} has the seed of {first} and does not count", run.name()));
                    false
                }
                None => counted.insert(run.seed(), run.name()).is_none(),
            });
            let configuration: BTreeMap<String, String> = configuration.into_iter().collect();
            let scores = runs.iter().filter_map(|run| run.number(objective)).collect();
            let label = label(&configuration, &varying, names_tell, &runs);
            Group { label, configuration, runs, scores, copies }
        })
        .collect();
    // Names first; the paths of runs are never the same.
    let stem = |run: &Run| run.stem();
    let path = |run: &Run| run.path.display().to_string();
    tell_apart(&mut groups, &stem);
    tell_apart(&mut groups, &path);
    let mean = |group: &Group| match group.scores.len() {
        0 => f64::NEG_INFINITY,
        n => direction.signed(group.scores.iter().sum::<f64>() / n as f64),
    };
    groups.sort_by(|a, b| mean(b).total_cmp(&mean(a)));
    groups
}

/// Adds what `of` says of its first run to every label that several groups have.
fn tell_apart(groups: &mut [Group], of: &dyn Fn(&Run) -> String) {
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for group in groups.iter() {
        *times.entry(group.label.clone()).or_default() += 1;
    }
    for group in groups.iter_mut().filter(|group| times[&group.label] > 1) {
        if let Some(run) = group.runs.first() {
            group.label = format!("{} ({})", group.label, of(run));
        }
    }
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
    let own = |key: &&String| varying.contains(*key) && !NAME_KEYS.contains(&key.as_str());
    let config = runs.first().into_iter().flat_map(|run| &run.config);
    let pairs: Assignment =
        config.filter(|(key, _)| own(key)).map(|(key, value)| (key.clone(), value.clone())).collect();
    match (algorithm, pairs.len()) {
        (Some(name), 0) => name,
        (Some(name), n) if n <= MOST && differs => format!("{name} {}", describe(&pairs)),
        (_, n) if n <= MOST && n > 0 => describe(&pairs),
        (name, _) => {
            let stem = runs.first().map(Run::stem).unwrap_or_default();
            if differs { name.unwrap_or(stem) } else { stem }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run directory with a config and a summary.
    fn write(dir: &Path, name: &str, config: &str, summary: &str) {
        let path = dir.join(name);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("config.toml"), config).unwrap();
        fs::write(path.join("summary.json"), summary).unwrap();
    }

    fn loaded(dir: &Path) -> Vec<Run> {
        load(&[dir.to_owned()]).unwrap()
    }

    fn labels(task: &Task) -> Vec<&str> {
        task.groups.iter().map(|group| group.label.as_str()).collect()
    }

    #[test]
    fn a_seed_counts_once() {
        let dir = tempfile::tempdir().unwrap();
        let summary = |score: f64| format!("{{\"status\": \"finished\", \"eval\": {{\"mean\": {score}}}}}");
        for (name, seed, text) in
            [("a", 1, "{}".into()), ("b", 1, summary(3.0)), ("c", 2, summary(4.0)), ("d", 2, summary(4.0))]
        {
            write(dir.path(), name, &format!("[run]\nseed = {seed}\n[env]\nid = \"x\"\n"), &text);
        }
        let tasks = group(loaded(dir.path()), None, None);
        let [found] = &tasks[0].groups[..] else { panic!("one configuration") };
        assert_eq!(found.scores, [3.0, 4.0]);
        assert_eq!(found.copies, ["a has the seed of b and does not count", "d has the seed of c and does not count"]);
    }

    #[test]
    fn a_run_given_twice_is_read_once() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "runs/a", "", "{}");
        write(dir.path(), "runs/b", "", "{}");
        let runs = dir.path().join("runs");
        let detour = dir.path().join("runs/../runs/a");
        assert_eq!(load(&[runs.clone(), runs.join("a"), detour]).unwrap().len(), 2);
        fs::create_dir(dir.path().join("empty")).unwrap();
        let error = load(&[runs, dir.path().join("empty")]).err().unwrap().to_string();
        assert!(error.contains("empty: no run here"), "{error}");
    }

    #[test]
    fn only_runs_that_finished_have_scores() {
        let dir = tempfile::tempdir().unwrap();
        let config = |seed: u64| format!("[run]\nseed = {seed}\n[model]\nname = \"vae\"\n[data]\nname = \"mnist\"\n");
        let summary = |status: &str, seconds: f64, elbo: f64| {
            format!("{{\"status\":\"{status}\",\"wall_seconds\":{seconds},\"metrics\":{{\"neg_elbo\":{elbo}}}}}")
        };
        write(dir.path(), "a-s1", &config(1), &summary("finished", 60.0, 100.0));
        write(dir.path(), "a-s2", &config(2), &summary("failed", 1.0, 50.0));
        write(dir.path(), "a-s3", &config(3), &summary("interrupted", 2.0, 60.0));
        for (asked, scores) in [(None, [100.0]), (Some("wall_seconds"), [60.0])] {
            let tasks = group(loaded(dir.path()), asked, None);
            assert_eq!((tasks.len(), tasks[0].name.as_str()), (1, "mnist"));
            assert_eq!((tasks[0].groups[0].runs.len(), tasks[0].groups[0].scores.as_slice()), (3, &scores[..]));
        }
    }

    #[test]
    fn runs_are_compared_on_the_same_data_by_what_their_models_are_about() {
        let dir = tempfile::tempdir().unwrap();
        let gpt = |file: &str| format!("[model]\nname = \"gpt\"\n[data]\nfiles = [\"data/text/{file}\"]\n");
        let model = |name: &str, data: &str| format!("[model]\nname = \"{name}\"\n[data]\nname = \"{data}\"\n");
        let summary = |metrics: &str| format!("{{\"status\":\"finished\",\"metrics\":{{{metrics}}}}}");
        let text = summary("\"val_loss\":1.5,\"val_bits_per_char\":2.0");
        write(dir.path(), "gpt-a", &gpt("a.txt"), &text);
        write(dir.path(), "gpt-b", &gpt("b.txt"), &text);
        write(dir.path(), "shapes", &model("diffusion", "shapes"), &summary("\"loss\":0.1,\"mean_brightness\":0.2"));
        write(dir.path(), "vae", &model("vae", "mnist"), &summary("\"neg_elbo\":100.0,\"loss\":1.0"));
        write(dir.path(), "ae", &model("autoencoder", "mnist"), &summary("\"mse\":0.1,\"auroc\":0.9"));
        write(dir.path(), "agent", "[env]\nid = \"CartPole-v1\"\n[agent]\nalgorithm = \"ppo\"\n", "{}");
        let tasks = group(loaded(dir.path()), None, None);
        let found: Vec<_> =
            tasks.iter().map(|task| (task.name.as_str(), task.objective.as_str(), task.direction)).collect();
        let expected = [
            ("CartPole-v1", "eval.mean", Direction::Maximize),
            ("a.txt", "metrics.val_bits_per_char", Direction::Minimize),
            ("b.txt", "metrics.val_bits_per_char", Direction::Minimize),
            ("mnist, metrics.mse", "metrics.mse", Direction::Minimize),
            ("mnist, metrics.neg_elbo", "metrics.neg_elbo", Direction::Minimize),
            ("shapes", "metrics.loss", Direction::Minimize),
        ];
        assert_eq!(found, expected);
        assert_eq!(usual_direction("metrics.auroc"), Direction::Maximize);
    }

    #[test]
    fn no_two_groups_have_one_label() {
        let dir = tempfile::tempdir().unwrap();
        let agent = |algorithm: &str, rest: &str| format!("[agent]\nalgorithm = \"{algorithm}\"\n{rest}");
        write(dir.path(), "ppo-small", &agent("ppo", "a = 1\nb = 1\nc = 1\nd = 1\ne = 1\nf = 1\n"), "{}");
        write(dir.path(), "ppo-simple", &agent("ppo", "a = 2\nb = 2\nc = 2\nd = 2\ne = 2\nf = 2\n"), "{}");
        let two = group(loaded(dir.path()), None, None);
        assert_eq!(labels(&two[0]), ["ppo-small", "ppo-simple"]);
        write(dir.path(), "a2c-s1", &agent("a2c", ""), "{}");
        let three = group(loaded(dir.path()), None, None);
        assert_eq!(labels(&three[0]), ["ppo (ppo-small)", "ppo (ppo-simple)", "a2c"]);

        let swept = tempfile::tempdir().unwrap();
        write(swept.path(), "0", &agent("ppo", "learning_rate = 0.0001\n"), "{}");
        write(swept.path(), "1", &agent("ppo", "learning_rate = 0.001\n"), "{}");
        let swept = group(loaded(swept.path()), None, None);
        assert_eq!(labels(&swept[0]), ["learning_rate=1e-4", "learning_rate=0.001"], "as the sweep's table has it");
    }
}
