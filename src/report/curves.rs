//! Learning curves of groups of runs: brought to common steps, then the mean and the middle half over the seeds.

use std::collections::BTreeSet;

use hotfire_core::stats::{mean, quantile};
use serde::Serialize;

use super::runs::{Group, Run};

/// Points of a curve: what a screen can show.
const POINTS: usize = 200;

/// One metric of several groups, on common steps.
#[derive(Serialize)]
pub struct Curves {
    pub metric: String,
    pub steps: Vec<f64>,
    pub groups: Vec<Curve>,
}

/// A group's curve; `None` before its first and after its last step.
#[derive(Serialize)]
pub struct Curve {
    pub mean: Vec<Option<f64>>,
    pub low: Vec<Option<f64>>,
    pub high: Vec<Option<f64>>,
}

/// Every metric that some run logged at two steps or more; that of the objective first, then returns and losses.
pub fn all(groups: &[Group], first: &str) -> Vec<Curves> {
    let runs = || groups.iter().flat_map(|group| &group.runs);
    let mut names = BTreeSet::new();
    for run in runs() {
        for record in &run.records {
            names.extend(record.values.keys().filter(|key| record.get(key).is_some()).cloned());
        }
    }
    let mut names: Vec<String> =
        names.into_iter().filter(|name| runs().any(|run| series(run, name).len() > 1)).collect();
    let rank = |name: &String| match name.as_str() {
        name if name == first => 0,
        "episode_return" => 1,
        name if name.starts_with("eval/") => 2,
        _ => 3,
    };
    names.sort_by_key(|name| (rank(name), name.clone()));
    names.into_iter().map(|name| curves(groups, &name)).collect()
}

fn curves(groups: &[Group], metric: &str) -> Curves {
    let all: Vec<Vec<Vec<(f64, f64)>>> =
        groups.iter().map(|group| group.runs.iter().map(|run| series(run, metric)).collect()).collect();
    let steps = grid(all.iter().flatten().flatten().map(|(step, _)| *step));
    let groups = all.iter().map(|runs| curve(runs, &steps)).collect();
    Curves { metric: metric.to_owned(), steps, groups }
}

fn series(run: &Run, metric: &str) -> Vec<(f64, f64)> {
    run.records.iter().filter_map(|record| Some((record.step as f64, record.get(metric)?))).collect()
}

/// The steps themselves where they are few, else evenly spaced ones.
fn grid(steps: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut steps: Vec<f64> = steps.collect();
    steps.sort_by(f64::total_cmp);
    steps.dedup();
    match (steps.first().copied(), steps.last().copied()) {
        (Some(first), Some(last)) if steps.len() > POINTS => {
            (0..POINTS).map(|i| (first + (last - first) * i as f64 / (POINTS - 1) as f64).round()).collect()
        }
        _ => steps,
    }
}

fn curve(runs: &[Vec<(f64, f64)>], steps: &[f64]) -> Curve {
    let mut curve = Curve { mean: Vec::new(), low: Vec::new(), high: Vec::new() };
    for (i, step) in steps.iter().enumerate() {
        let from = if i == 0 { f64::NEG_INFINITY } else { steps[i - 1] };
        let values: Vec<f64> = runs.iter().filter_map(|run| value_at(run, from, *step)).collect();
        let some = |value: f64| (!values.is_empty()).then_some(value);
        curve.mean.push(some(mean(&values)));
        curve.low.push(some(quantile(&values, 0.25)));
        curve.high.push(some(quantile(&values, 0.75)));
    }
    curve
}

/// The mean of a run's values in `(from, to]`, or else the value between its neighbours at `to`.
fn value_at(run: &[(f64, f64)], from: f64, to: f64) -> Option<f64> {
    let start = run.partition_point(|(step, _)| *step <= from);
    let end = run.partition_point(|(step, _)| *step <= to);
    if start < end {
        return Some(mean(&run[start..end].iter().map(|(_, value)| *value).collect::<Vec<_>>()));
    }
    let (before, after) = (run.get(end.checked_sub(1)?)?, run.get(end)?);
    Some(before.1 + (after.1 - before.1) * (to - before.0) / (after.0 - before.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_with_different_steps_meet_on_a_common_grid() {
        let runs = [vec![(10.0, 1.0), (20.0, 3.0)], vec![(15.0, 4.0), (20.0, 5.0)]];
        let steps = grid(runs.iter().flatten().map(|(step, _)| *step));
        assert_eq!(steps, [10.0, 15.0, 20.0]);
        let curve = curve(&runs, &steps);
        assert_eq!(curve.mean, [Some(1.0), Some(3.0), Some(4.0)]);
        assert_eq!((curve.low[1], curve.high[1]), (Some(2.5), Some(3.5)));
    }

    #[test]
    fn long_curves_are_averaged_within_steps() {
        let run: Vec<(f64, f64)> = (0..4000).map(|i| (i as f64, (i % 2) as f64)).collect();
        let steps = grid(run.iter().map(|(step, _)| *step));
        assert_eq!((steps.len(), steps[0], steps[199]), (200, 0.0, 3999.0));
        let curve = curve(&[run], &steps);
        assert!(curve.mean[1..].iter().all(|value| value.is_some_and(|value| (value - 0.5).abs() < 0.05)));
    }
}
