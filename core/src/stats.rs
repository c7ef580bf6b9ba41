//! Statistics of a handful of runs: point estimates that a few lucky seeds do not move, with intervals.
//!
//! Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice"
//! (<https://arxiv.org/abs/2108.13264>), whose definitions these are. Scores are grouped by task, `[task][run]`; the
//! bootstrap is stratified: it draws runs within each task.

use serde::{Deserialize, Serialize};

use crate::seed::stream;

/// An estimate with the ends of its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The estimate from the runs as they are.
    pub estimate: f64,
    /// The 2.5th percentile of the estimates from resampled runs.
    pub low: f64,
    /// The 97.5th percentile.
    pub high: f64,
}

/// The arithmetic mean; NaN without scores.
pub fn mean(scores: &[f64]) -> f64 {
    scores.iter().sum::<f64>() / scores.len() as f64
}

/// The value at `fraction` of the sorted scores, interpolated linearly; NaN without scores.
pub fn quantile(scores: &[f64], fraction: f64) -> f64 {
    quantile_of_sorted(&sorted(scores), fraction)
}

/// The mean of the middle half: of `n` scores, the lowest and the highest `n / 4` (rounded down) are left out.
pub fn interquartile_mean(scores: &[f64]) -> f64 {
    let sorted = sorted(scores);
    let cut = sorted.len() / 4;
    mean(&sorted[cut..sorted.len() - cut])
}

/// By how much the scores miss `target` on average, where scores above it count as `target`.
pub fn optimality_gap(scores: &[f64], target: f64) -> f64 {
    target - mean(&scores.iter().map(|score| score.min(target)).collect::<Vec<_>>())
}

/// The share of runs that score above each threshold.
pub fn performance_profile(scores: &[f64], thresholds: &[f64]) -> Vec<f64> {
    let above = |threshold: &f64| scores.iter().filter(|score| *score > threshold).count();
    thresholds.iter().map(|threshold| above(threshold) as f64 / scores.len() as f64).collect()
}

/// The probability that a run of `x` scores higher than a run of `y`, ties counted half (Mann and Whitney's U).
pub fn probability_of_improvement(x: &[f64], y: &[f64]) -> f64 {
    let wins = |a: &f64| y.iter().map(|b| if a > b { 1.0 } else { f64::from(u8::from(a == b)) * 0.5 }).sum::<f64>();
    x.iter().map(wins).sum::<f64>() / (x.len() * y.len()) as f64
}

/// The 95 % percentile interval of a statistic over `resamples` stratified bootstrap samples of `[task][run]`.
///
/// Equal seeds give equal intervals.
pub fn bootstrap(scores: &[Vec<f64>], resamples: usize, seed: u64, statistic: impl Fn(&[Vec<f64>]) -> f64) -> Interval {
    let mut sample = scores.to_vec();
    let mut rng = stream(seed, "bootstrap", 0);
    let mut estimates: Vec<f64> = (0..resamples)
        .map(|_| {
            for (drawn, task) in sample.iter_mut().zip(scores) {
                drawn.iter_mut().for_each(|run| *run = task[rng.below(task.len() as u32) as usize]);
            }
            statistic(&sample)
        })
        .collect();
    estimates.sort_by(f64::total_cmp);
    Interval {
        estimate: statistic(scores),
        low: quantile_of_sorted(&estimates, 0.025),
        high: quantile_of_sorted(&estimates, 0.975),
    }
}

/// The interval of the interquartile mean over all tasks and runs.
pub fn interquartile_mean_interval(scores: &[Vec<f64>], seed: u64) -> Interval {
    bootstrap(scores, 5_000, seed, |sample| interquartile_mean(&sample.concat()))
}

fn sorted(scores: &[f64]) -> Vec<f64> {
    let mut sorted = scores.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

fn quantile_of_sorted(sorted: &[f64], fraction: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = fraction * last as f64;
    let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    below + (above - below) * at.fract()
}
