//! Running normalisation of observations and rewards.
//!
//! Statistics are frozen while a rollout is collected and take in the rollout when it ends, so the policy that is
//! improved sees the same numbers as the policy that acted. (Gymnasium's wrappers update at every step.)

use hotfire_nn::export::ExportLayer;
use serde::{Deserialize, Serialize};

/// Mean and variance of each element of a stream of rows, by Chan et al.'s parallel update.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Moments {
    count: f64,
    mean: Vec<f64>,
    /// Sum of squared deviations from the mean.
    squares: Vec<f64>,
}

impl Moments {
    fn new(len: usize) -> Self {
        Self { count: 0.0, mean: vec![0.0; len], squares: vec![0.0; len] }
    }

    fn add(&mut self, row: &[f32]) {
        self.count += 1.0;
        for ((mean, squares), x) in self.mean.iter_mut().zip(&mut self.squares).zip(row) {
            let delta = f64::from(*x) - *mean;
            *mean += delta / self.count;
            *squares += delta * (f64::from(*x) - *mean);
        }
    }

    /// The standard deviation, or 1 before anything was seen.
    fn std(&self, element: usize) -> f64 {
        if self.count > 0.0 { (self.squares[element] / self.count).sqrt() } else { 1.0 }
    }
}

/// Normalises observations to mean 0 and variance 1, clipped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObservationNormalizer {
    seen: Moments,
    clip: f32,
    mean: Vec<f32>,
    scale: Vec<f32>,
}

impl ObservationNormalizer {
    /// The identity (but for the clipping at `clip`) for observations of length `len`, until statistics come in.
    pub fn new(len: usize, clip: f32) -> Self {
        Self { seen: Moments::new(len), clip, mean: vec![0.0; len], scale: vec![1.0; len] }
    }

    /// Length of an observation.
    pub fn observation_len(&self) -> usize {
        self.mean.len()
    }

    /// The layer that does the same outside.
    pub fn export(&self) -> ExportLayer {
        ExportLayer::Normalize { mean: self.mean.clone(), scale: self.scale.clone(), clip: self.clip }
    }

    /// Counts the rows `[N, D]` towards the next statistics.
    pub fn observe(&mut self, rows: &[f32]) {
        for row in rows.chunks_exact(self.mean.len()) {
            self.seen.add(row);
        }
    }

    /// Uses from now on the statistics of all that was observed.
    pub fn update(&mut self) {
        for d in 0..self.mean.len() {
            self.mean[d] = self.seen.mean[d] as f32;
            self.scale[d] = (1.0 / (self.seen.std(d) + 1e-8).max(1e-4)) as f32;
        }
    }

    /// Writes the normalised rows `[N, D]`.
    pub fn normalize(&self, rows: &[f32], out: &mut [f32]) {
        let len = self.mean.len();
        for (row, out) in rows.chunks_exact(len).zip(out.chunks_exact_mut(len)) {
            for d in 0..len {
                out[d] = ((row[d] - self.mean[d]) * self.scale[d]).clamp(-self.clip, self.clip);
            }
        }
    }
}

/// Divides rewards by the standard deviation of the discounted return, clipped.
///
/// Engstrom et al. 2020, <https://arxiv.org/abs/2005.12729>, section 3; the mean is kept, since shifting rewards would
/// change the task.
#[derive(Clone, Debug, PartialEq)]
pub struct RewardNormalizer {
    statistics: RewardStatistics,
    gamma: f64,
    clip: f32,
}

/// What a [`RewardNormalizer`] has seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RewardStatistics {
    /// Discounted returns so far of the episodes in hand: `[N]`.
    returns: Vec<f64>,
    seen: Moments,
}

impl RewardNormalizer {
    /// For `num_envs` environments whose returns are discounted by `gamma`.
    pub fn new(num_envs: usize, gamma: f64, clip: f32) -> Self {
        let statistics = RewardStatistics { returns: vec![0.0; num_envs], seen: Moments::new(1) };
        Self { statistics, gamma, clip }
    }

    /// What was seen so far, for a checkpoint.
    pub fn statistics(&self) -> &RewardStatistics {
        &self.statistics
    }

    /// Goes on from what another one had seen, of as many environments.
    pub fn restore(&mut self, statistics: RewardStatistics) {
        self.statistics = statistics;
    }

    /// Takes in one step's rewards and episode ends, all `[N]`.
    pub fn observe(&mut self, rewards: &[f32], terminated: &[bool], truncated: &[bool]) {
        let RewardStatistics { returns, seen } = &mut self.statistics;
        for (n, discounted) in returns.iter_mut().enumerate() {
            *discounted = *discounted * self.gamma + f64::from(rewards[n]);
            seen.add(&[*discounted as f32]);
            if terminated[n] || truncated[n] {
                *discounted = 0.0;
            }
        }
    }

    /// Normalises rewards in place.
    pub fn normalize(&self, rewards: &mut [f32]) {
        let scale = (1.0 / (self.statistics.seen.std(0) + 1e-8).max(1e-4)) as f32;
        rewards.iter_mut().for_each(|r| *r = (*r * scale).clamp(-self.clip, self.clip));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn observations_get_mean_zero_and_variance_one() {
        let mut normalizer = ObservationNormalizer::new(2, 10.0);
        let rows: Vec<f32> = (0..100).flat_map(|i| [i as f32, 5.0 - 0.01 * i as f32]).collect();
        let mut out = vec![0.0; rows.len()];
        normalizer.observe(&rows[..80]);
        normalizer.normalize(&rows, &mut out);
        assert_eq!(out[2..4], [1.0, 4.99], "frozen until the update, but for the clipping");
        normalizer.observe(&rows[80..]);
        normalizer.update();
        normalizer.normalize(&rows, &mut out);
        for d in 0..2 {
            let column: Vec<f64> = out.iter().skip(d).step_by(2).map(|x| f64::from(*x)).collect();
            let mean = column.iter().sum::<f64>() / 100.0;
            let variance = column.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 100.0;
            assert!(mean.abs() < 1e-5 && (variance - 1.0).abs() < 1e-4, "column {d}: {mean} {variance}");
        }
        normalizer.normalize(&[1e9, 0.0], &mut out[..2]);
        assert_eq!(out[0], 10.0);
    }

    #[test]
    fn rewards_are_scaled_by_the_spread_of_discounted_returns() {
        let mut normalizer = RewardNormalizer::new(1, 0.5, 10.0);
        // Discounted returns 2, 3, 3.5; then the episode ends and 4 starts the next.
        for (reward, ended) in [(2.0, false), (2.0, false), (2.0, true), (4.0, false)] {
            normalizer.observe(&[reward], &[ended], &[false]);
        }
        let returns = [2.0f64, 3.0, 3.5, 4.0];
        let mean = returns.iter().sum::<f64>() / 4.0;
        let std = (returns.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 4.0).sqrt();
        let mut rewards = [1.0, -3.0];
        normalizer.normalize(&mut rewards);
        assert!((f64::from(rewards[0]) - 1.0 / std).abs() < 1e-6);
        assert!((f64::from(rewards[1]) + 3.0 / std).abs() < 1e-5);

        let mut other = RewardNormalizer::new(1, 0.9, 10.0);
        other.restore(normalizer.statistics().clone());
        other.observe(&[1.0], &[false], &[false]);
        assert_eq!(other.statistics().returns, [0.9 * 4.0 + 1.0], "with its own discount");
    }
}
