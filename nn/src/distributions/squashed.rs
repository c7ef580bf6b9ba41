//! The diagonal Gaussian squashed by `tanh` into `(-1, 1)`, on the host: Haarnoja et al. 2018, "Soft actor-critic
//! algorithms and applications", <https://arxiv.org/abs/1812.05905>, appendix C.
//!
//! A row of a network's output holds the means `[A]` and then the logarithms of the standard deviations `[A]`, which are
//! kept within [`LOG_STD`].

use std::ops::RangeInclusive;

use hotfire_core::seed::StreamRng;

use super::gaussian::HALF_LN_TAU;

/// Bounds of the logarithm of a standard deviation; beyond them it has gradient zero.
pub const LOG_STD: RangeInclusive<f32> = -20.0..=2.0;

/// Actions drawn from squashed Gaussians, and what their gradients need.
#[derive(Clone, Debug, Default)]
pub struct SquashedSample {
    /// `[N, A]`, each element from -1 to 1.
    pub actions: Vec<f32>,
    /// `[N]`
    pub log_probs: Vec<f32>,
    /// What was added to the means, `std * noise`: `[N, A]`.
    deviations: Vec<f32>,
    /// Whether the network's log standard deviations were within bounds: `[N, A]`.
    within: Vec<bool>,
}

impl SquashedSample {
    /// Draws an action of `action_len` elements for each row of `outputs: [N, 2 A]`.
    pub fn draw(outputs: &[f32], action_len: usize, rng: &mut StreamRng) -> Self {
        let rows = outputs.len() / (2 * action_len);
        let mut sample = Self {
            actions: Vec::with_capacity(rows * action_len),
            log_probs: Vec::with_capacity(rows),
            deviations: Vec::with_capacity(rows * action_len),
            within: Vec::with_capacity(rows * action_len),
        };
        for row in outputs.chunks_exact(2 * action_len) {
            let (means, log_stds) = row.split_at(action_len);
            let mut log_prob = 0.0;
            for (mean, raw) in means.iter().zip(log_stds) {
                let log_std = raw.clamp(*LOG_STD.start(), *LOG_STD.end());
                let noise = rng.normal();
                let deviation = log_std.exp() * noise;
                let u = mean + deviation;
                log_prob -= 0.5 * noise * noise + log_std + HALF_LN_TAU + log_slope(u);
                sample.actions.push(u.tanh());
                sample.deviations.push(deviation);
                sample.within.push(LOG_STD.contains(raw));
            }
            sample.log_probs.push(log_prob);
        }
        sample
    }

    /// The gradient `[N, 2 A]`, by the network's outputs, of the sum over all rows of
    /// `log_prob_weight * log_prob + action_gradients . action`, with the noise held fixed.
    pub fn gradient(&self, log_prob_weight: f32, action_gradients: &[f32]) -> Vec<f32> {
        let action_len = self.actions.len() / self.log_probs.len().max(1);
        let mut gradient = vec![0.0; 2 * self.actions.len()];
        for (row, out) in gradient.chunks_exact_mut(2 * action_len).enumerate() {
            let (means, log_stds) = out.split_at_mut(action_len);
            for j in 0..action_len {
                let i = row * action_len + j;
                let action = self.actions[i];
                let by_u = log_prob_weight * 2.0 * action + action_gradients[i] * (1.0 - action * action);
                means[j] = by_u;
                log_stds[j] = if self.within[i] { by_u * self.deviations[i] - log_prob_weight } else { 0.0 };
            }
        }
        gradient
    }
}

/// `ln(1 - tanh(u)^2)`, exact also where `tanh` rounds to 1.
fn log_slope(u: f32) -> f32 {
    let size = u.abs();
    2.0 * (std::f32::consts::LN_2 - size - (-2.0 * size).exp().ln_1p())
}

#[cfg(test)]
mod tests {
    use hotfire_core::seed::stream;

    use super::*;

    #[test]
    fn the_log_slope_equals_the_plain_formula_and_stays_finite() {
        for u in [-3.0f32, -0.5, 0.0, 0.7, 2.5] {
            let want = (1.0 - f64::from(u).tanh().powi(2)).ln();
            assert!((f64::from(log_slope(u)) - want).abs() < 1e-5, "{u}");
        }
        assert!((log_slope(40.0) - (2.0 * std::f32::consts::LN_2 - 80.0)).abs() < 1e-4);
    }

    /// The density of the squashed variable integrates to 1: the mean of `1 / density` over draws is the interval's
    /// length.
    #[test]
    fn log_probs_are_those_of_a_density_on_the_interval() {
        let outputs = [0.2, 0.4].repeat(200_000);
        let sample = SquashedSample::draw(&outputs, 1, &mut stream(3, "test", 0));
        let volume = sample.log_probs.iter().map(|p| f64::from(-p).exp()).sum::<f64>() / 200_000.0;
        assert!((volume - 2.0).abs() < 0.02, "{volume}");
    }

    #[test]
    fn the_gradient_equals_finite_differences() {
        let outputs = [0.3f32, -1.2, -0.4, 0.6, 1.1, 0.1, -2.0, 5.0];
        let slopes = [0.7f32, -0.2, 1.5, 0.4];
        let value = |outputs: &[f32]| -> f64 {
            let sample = SquashedSample::draw(outputs, 2, &mut stream(9, "test", 0));
            let log_probs: f64 = sample.log_probs.iter().map(|p| 0.3 * f64::from(*p)).sum();
            log_probs + sample.actions.iter().zip(slopes).map(|(a, g)| f64::from(a * g)).sum::<f64>()
        };
        let gradient = SquashedSample::draw(&outputs, 2, &mut stream(9, "test", 0)).gradient(0.3, &slopes);
        for i in 0..outputs.len() {
            let moved = |by: f32| {
                let mut outputs = outputs;
                outputs[i] += by;
                value(&outputs)
            };
            let want = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            assert!((f64::from(gradient[i]) - want).abs() < 2e-3, "output {i}: {} against {want}", gradient[i]);
        }
        // A standard deviation beyond the bounds has no gradient.
        assert_eq!(gradient[7], 0.0);
    }
}
