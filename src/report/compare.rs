//! What is better, and whether that is luck: estimates with intervals, profiles, pairs, and the swept keys.

use std::collections::{BTreeMap, BTreeSet};

use hotfire_core::stats::{
    Interval, bootstrap, interquartile_mean, interquartile_mean_interval, mean, optimality_gap, performance_profile,
    probability_of_improvement, quantile,
};
use serde::Serialize;
use toml::Value;

use super::runs::{Group, NAME_KEYS, Task, varying_keys};
use crate::sweep::Direction;

const RESAMPLES: usize = 5_000;
const PROFILE_POINTS: usize = 101;
/// Groups in the pairwise comparison.
const PAIRED: usize = 8;
/// A numeric key with more values is cut into as many parts of equal count.
const BINS: usize = 4;
/// More keys would not be told apart.
const MOST_KEYS: usize = 8;
/// Keys that say what is written and when, and change no result.
const KEYS_OF_RECORDS: [&str; 7] = [
    "train.checkpoint_interval",
    "train.eval_episodes",
    "train.eval_interval",
    "train.final_eval_episodes",
    "train.keep_checkpoints",
    "train.log_interval",
    "train.save_best",
];

/// A row of the table of groups.
#[derive(Serialize)]
pub struct Row {
    pub label: String,
    pub runs: usize,
    pub scores: Vec<f64>,
    pub seeds: Vec<i64>,
    pub mean: Option<f64>,
    pub interquartile_mean: Option<f64>,
    /// That of the interquartile mean, from two runs on: one says nothing of the next.
    pub interval: Option<Interval>,
    pub optimality_gap: Option<f64>,
    pub steps: Option<f64>,
    pub wall_seconds: Option<f64>,
    pub steps_per_second: Option<f64>,
    /// Runs that failed or have not finished.
    pub problems: Vec<String>,
    /// Runs that do not count, for reasons that are none to worry.
    pub notes: Vec<String>,
}

/// The groups in numbers. The optimality gap is measured to `target`.
pub fn rows(task: &Task, target: Option<f64>) -> Vec<Row> {
    task.groups
        .iter()
        .map(|group| {
            let scores = &group.scores;
            let measured = !scores.is_empty();
            let middle = |key: &str| {
                let values: Vec<f64> = group.runs.iter().filter_map(|run| run.number(key)).collect();
                (!values.is_empty()).then(|| quantile(&values, 0.5))
            };
            let gap = |target: f64| match task.direction {
                Direction::Maximize => optimality_gap(scores, target),
                Direction::Minimize => optimality_gap(&scores.iter().map(|score| -score).collect::<Vec<_>>(), -target),
            };
            Row {
                label: group.label.clone(),
                runs: group.runs.len(),
                scores: scores.clone(),
                seeds: group.runs.iter().map(|run| run.seed()).collect(),
                mean: measured.then(|| mean(scores)),
                interquartile_mean: measured.then(|| interquartile_mean(scores)),
                interval: (scores.len() > 1).then(|| interquartile_mean_interval(std::slice::from_ref(scores), 0)),
                optimality_gap: target.filter(|_| measured).map(gap),
                steps: middle("steps"),
                wall_seconds: middle("wall_seconds"),
                steps_per_second: middle("steps_per_second"),
                problems: group.runs.iter().filter_map(problem).collect(),
                notes: pruned(group).chain(group.copies.iter().cloned()).collect(),
            }
        })
        .collect()
}

fn problem(run: &super::runs::Run) -> Option<String> {
    let error = run.summary.get("error").and_then(serde_json::Value::as_str).unwrap_or("");
    (!["finished", "pruned"].contains(&run.status()))
        .then(|| format!("{} {}: {error}", run.name(), run.status()).trim_end_matches(": ").into())
}

fn pruned(group: &Group) -> impl Iterator<Item = String> {
    group.runs.iter().filter(|run| run.pruned).map(|run| format!("{} pruned", run.name()))
}

/// The share of each group's runs beyond a score.
#[derive(Serialize)]
pub struct Profile {
    pub thresholds: Vec<f64>,
    pub groups: Vec<Vec<f64>>,
}

/// The performance profiles of groups that have scores; `None` if all scores are equal.
pub fn profile(task: &Task) -> Option<Profile> {
    let all: Vec<f64> = task.groups.iter().flat_map(|group| group.scores.iter().copied()).collect();
    let (low, high) = all.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), x| (l.min(*x), h.max(*x)));
    if high <= low {
        return None;
    }
    let step = (high - low) / (PROFILE_POINTS - 1) as f64;
    let thresholds: Vec<f64> = (0..PROFILE_POINTS).map(|i| low + step * i as f64).collect();
    let share = |scores: &Vec<f64>| match task.direction {
        _ if scores.is_empty() => Vec::new(),
        Direction::Maximize => performance_profile(scores, &thresholds),
        Direction::Minimize => {
            let negative = |values: &[f64]| values.iter().map(|value| -value).collect::<Vec<_>>();
            performance_profile(&negative(scores), &negative(&thresholds))
        }
    };
    let groups = task.groups.iter().map(|group| share(&group.scores)).collect();
    Some(Profile { thresholds, groups })
}

/// How likely a run of one group beats a run of another.
#[derive(Serialize)]
pub struct Pair {
    pub better: String,
    pub worse: String,
    pub probability: Interval,
}

/// Each of the best groups against each that ranks below it.
pub fn pairs(task: &Task) -> Vec<Pair> {
    let best: Vec<_> = task.groups.iter().filter(|group| group.scores.len() > 1).take(PAIRED).collect();
    let mut pairs = Vec::new();
    for (i, better) in best.iter().enumerate() {
        for worse in &best[i + 1..] {
            let beats = |scores: &[Vec<f64>]| {
                let probability = probability_of_improvement(&scores[0], &scores[1]);
                if task.direction == Direction::Maximize { probability } else { 1.0 - probability }
            };
            let probability = bootstrap(&[better.scores.clone(), worse.scores.clone()], RESAMPLES, 0, beats);
            pairs.push(Pair { better: better.label.clone(), worse: worse.label.clone(), probability });
        }
    }
    pairs
}

/// The swept keys: every configuration's values and score, and how much each key matters.
#[derive(Serialize)]
pub struct Keys {
    pub keys: Vec<String>,
    pub rows: Vec<KeyRow>,
    pub importance: Vec<Importance>,
}

/// One configuration.
#[derive(Serialize)]
pub struct KeyRow {
    pub label: String,
    pub values: Vec<serde_json::Value>,
    pub score: f64,
}

/// The share of the scores' variance between configurations that a key's main effect explains.
#[derive(Serialize)]
pub struct Importance {
    pub key: String,
    pub share: f64,
}

/// The keys that all groups have and in which they differ, those that matter most if there are many; `None` where
/// there is nothing to compare.
pub fn keys(task: &Task) -> Option<Keys> {
    let configurations: Vec<Vec<(String, String)>> =
        task.groups.iter().map(|group| group.configuration.clone().into_iter().collect()).collect();
    let scored: Vec<_> = task.groups.iter().filter(|group| !group.scores.is_empty()).collect();
    let common = |key: &String| {
        !KEYS_OF_RECORDS.contains(&key.as_str()) && scored.iter().all(|group| group.configuration.contains_key(key))
    };
    let mut keys: Vec<String> = varying_keys(configurations.iter()).into_iter().filter(common).collect();
    if keys.is_empty() || scored.len() < 2 {
        return None;
    }
    let value = |text: Option<&String>| -> serde_json::Value {
        let parsed = text.and_then(|text| text.parse::<Value>().ok());
        parsed.and_then(|value| serde_json::to_value(value).ok()).unwrap_or_else(|| text.cloned().into())
    };
    let rows = |keys: &[String]| -> Vec<KeyRow> {
        let row = |group: &&Group| KeyRow {
            label: group.label.clone(),
            values: keys.iter().map(|key| value(group.configuration.get(key))).collect(),
            score: mean(&group.scores),
        };
        scored.iter().map(row).collect()
    };
    let all = rows(&keys);
    let mut effects: Vec<_> =
        (0..keys.len()).map(|i| (keys[i].clone(), main_effect(&all, i), repeats(&all, i))).collect();
    effects.sort_by(|a, b| b.1.total_cmp(&a.1));
    let told = effects.iter().filter(|(_, _, repeats)| *repeats).take(MOST_KEYS);
    let importance = told.map(|(key, share, _)| Importance { key: key.clone(), share: *share }).collect();
    // The names first, though they may explain little.
    effects.sort_by_key(|(key, ..)| !NAME_KEYS.contains(&key.as_str()));
    effects.truncate(MOST_KEYS);
    keys.retain(|key| effects.iter().any(|(shown, ..)| shown == key));
    Some(Keys { rows: rows(&keys), keys, importance })
}

/// Whether configurations share values of a key: where each has its own, the key explains all by construction.
fn repeats(rows: &[KeyRow], key: usize) -> bool {
    let cells = cells_of(rows, key);
    cells.iter().collect::<BTreeSet<_>>().len() < cells.len()
}

/// Correlation ratio η² of the scores on one key: between-group variance over total variance.
fn main_effect(rows: &[KeyRow], key: usize) -> f64 {
    let scores: Vec<f64> = rows.iter().map(|row| row.score).collect();
    let total = mean(&scores);
    let spread = scores.iter().map(|score| (score - total).powi(2)).sum::<f64>();
    let mut cells: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (row, cell) in rows.iter().zip(cells_of(rows, key)) {
        cells.entry(cell).or_default().push(row.score);
    }
    let between = cells.values().map(|cell| cell.len() as f64 * (mean(cell) - total).powi(2)).sum::<f64>();
    if spread > 0.0 { between / spread } else { 0.0 }
}

fn cells_of(rows: &[KeyRow], key: usize) -> Vec<String> {
    let numbers: Option<Vec<f64>> = rows.iter().map(|row| row.values[key].as_f64()).collect();
    let distinct = rows.iter().map(|row| row.values[key].to_string()).collect::<BTreeSet<_>>().len();
    match numbers {
        Some(numbers) if distinct > BINS => {
            let mut sorted = numbers.clone();
            sorted.sort_by(f64::total_cmp);
            let bin = |x: &f64| (sorted.partition_point(|y| y < x) * BINS / sorted.len()).to_string();
            numbers.iter().map(bin).collect()
        }
        _ => rows.iter().map(|row| row.values[key].to_string()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(a: f64, b: &str, score: f64) -> KeyRow {
        KeyRow { label: String::new(), values: vec![a.into(), b.into()], score }
    }

    #[test]
    fn a_key_that_decides_the_score_has_all_the_importance() {
        let rows = [row(1.0, "x", 1.0), row(1.0, "y", 1.0), row(2.0, "x", 3.0), row(2.0, "y", 3.0)];
        assert_eq!(main_effect(&rows, 0), 1.0);
        assert_eq!(main_effect(&rows, 1), 0.0);
    }

    #[test]
    fn numbers_of_many_values_are_cut_into_parts() {
        let rows: Vec<KeyRow> = (0..16).map(|i| row(f64::from(i), "x", f64::from(i / 4))).collect();
        assert_eq!(main_effect(&rows, 0), 1.0, "the score is a step function of four parts");
        let noise: Vec<KeyRow> = (0..16).map(|i| row(f64::from(i), "x", f64::from(i % 4))).collect();
        assert!(main_effect(&noise, 0) < 1e-9, "each part holds every score once");
    }

    #[test]
    fn keys_are_those_that_all_have_and_that_change_results() {
        let group = |label: &str, keys: &[(&str, &str)], score: f64| Group {
            label: label.into(),
            configuration: keys.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            runs: Vec::new(),
            scores: vec![score],
            copies: Vec::new(),
        };
        let ppo = |label: &str, clip: &str, gamma: &str, log: &str, score: f64| {
            let name = ("agent.algorithm", "\"ppo\"");
            group(label, &[name, ("agent.clip", clip), ("agent.gamma", gamma), ("train.log_interval", log)], score)
        };
        let task = |groups| Task { name: "x".into(), objective: "y".into(), direction: Direction::Maximize, groups };
        let found = keys(&task(vec![
            ppo("a", "0.1", "0.9", "1", 1.0),
            ppo("b", "0.2", "0.99", "2", 2.0),
            ppo("c", "0.3", "0.99", "3", 3.0),
        ]));
        let found = found.unwrap();
        assert_eq!(found.keys, ["agent.clip", "agent.gamma"]);
        let importance: Vec<&str> = found.importance.iter().map(|item| item.key.as_str()).collect();
        assert_eq!(importance, ["agent.gamma"], "a key with a value of its own for each explains all by construction");

        let dqn = group("d", &[("agent.algorithm", "\"dqn\""), ("agent.gamma", "0.9")], 2.0);
        let found = keys(&task(vec![ppo("a", "0.1", "0.9", "1", 1.0), dqn])).unwrap();
        assert_eq!(found.keys, ["agent.algorithm"], "no clip without PPO");
        assert!(found.importance.is_empty());
    }
}
