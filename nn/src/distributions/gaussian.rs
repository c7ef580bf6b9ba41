//! The diagonal Gaussian over actions of length `A`, with a mean per state and a standard deviation of its own.

use burn::prelude::*;
use hotfire_core::seed::StreamRng;

/// `ln(2 pi) / 2`.
pub(crate) const HALF_LN_TAU: f32 = 0.918_938_5;

/// Log-probability of `actions: [N, A]` and entropy, both `[N]`, of the Gaussians with `mean: [N, A]` and
/// `log_std: [A]`, summed over the dimensions of an action.
pub fn log_prob_and_entropy(mean: Tensor<2>, log_std: Tensor<1>, actions: Tensor<2>) -> (Tensor<1>, Tensor<1>) {
    let rows = mean.dims()[0];
    let log_std: Tensor<2> = log_std.unsqueeze();
    let z = (actions - mean) * log_std.clone().neg().exp();
    let log_prob = z.square().mul_scalar(-0.5) - log_std.clone().add_scalar(HALF_LN_TAU);
    let entropy = log_std.add_scalar(0.5 + HALF_LN_TAU).sum().expand([rows]);
    (log_prob.sum_dim(1).squeeze_dim(1), entropy)
}

/// Draws an action around one row of means into `action` and returns its log-probability.
pub fn sample(mean: &[f32], log_std: &[f32], rng: &mut StreamRng, action: &mut [f32]) -> f32 {
    let mut log_prob = 0.0;
    for ((mean, log_std), action) in mean.iter().zip(log_std).zip(action) {
        let z: f32 = rng.normal();
        *action = mean + log_std.exp() * z;
        log_prob -= 0.5 * z * z + log_std + HALF_LN_TAU;
    }
    log_prob
}

#[cfg(test)]
mod tests {
    use hotfire_core::seed::stream;

    use super::*;

    #[test]
    fn log_prob_and_entropy_match_hand_computed_values() {
        let device = Device::flex();
        let mean = Tensor::from_floats([[0.5, -1.0]], &device);
        let log_std = Tensor::from_floats([0.0, 2.0f32.ln()], &device);
        let (log_prob, entropy) = log_prob_and_entropy(mean, log_std, Tensor::from_floats([[1.5, 1.0]], &device));
        // z = 1 and 1; log density -z^2/2 - ln sigma - ln(2 pi)/2 each.
        let half_ln_tau = 0.5 * std::f64::consts::TAU.ln();
        let want = -0.5 - 0.5 - 2.0f64.ln() - 2.0 * half_ln_tau;
        assert!((log_prob.into_scalar::<f32>() as f64 - want).abs() < 1e-6);
        let want = 2.0 * (0.5 + half_ln_tau) + 2.0f64.ln();
        assert!((entropy.into_scalar::<f32>() as f64 - want).abs() < 1e-6);
    }

    #[test]
    fn a_sample_carries_the_log_prob_that_learning_computes() {
        let device = Device::flex();
        let (mean, log_std) = ([0.3f32, -2.0], [-0.5f32, 0.7]);
        let mut rng = stream(2, "test", 0);
        let mut sums = [0.0f64; 4];
        for i in 0..40_000 {
            let mut action = [0.0f32; 2];
            let log_prob = sample(&mean, &log_std, &mut rng, &mut action);
            for d in 0..2 {
                sums[d] += f64::from(action[d]);
                sums[2 + d] += f64::from(action[d] - mean[d]).powi(2);
            }
            if i % 4000 == 0 {
                let (want, _) = log_prob_and_entropy(
                    Tensor::from_floats([mean], &device),
                    Tensor::from_floats(log_std, &device),
                    Tensor::from_floats([action], &device),
                );
                assert!((want.into_scalar::<f32>() - log_prob).abs() < 1e-5);
            }
        }
        for d in 0..2 {
            assert!((sums[d] / 40_000.0 - f64::from(mean[d])).abs() < 0.04);
            let std = (sums[2 + d] / 40_000.0).sqrt();
            assert!((std / f64::from(log_std[d]).exp() - 1.0).abs() < 0.02);
        }
    }
}
