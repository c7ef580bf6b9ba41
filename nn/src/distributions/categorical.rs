//! The categorical distribution over `A` actions, given by unnormalised log-probabilities (logits).

use burn::prelude::*;
use burn::tensor::activation::log_softmax;
use hotfire_core::seed::StreamRng;

/// Log-probability of `actions: [N]` and entropy, both `[N]`, of the distributions with `logits: [N, A]`.
pub fn log_prob_and_entropy(logits: Tensor<2>, actions: Tensor<1, Int>) -> (Tensor<1>, Tensor<1>) {
    let log_probs = log_softmax(logits, 1);
    let chosen = log_probs.clone().gather(1, actions.unsqueeze_dim(1)).squeeze_dim(1);
    let entropy = (log_probs.clone().exp() * log_probs).sum_dim(1).squeeze_dim(1).neg();
    (chosen, entropy)
}

/// Draws an action from one row of logits; returns it with its log-probability. A logit of minus infinity is never drawn.
pub fn sample(logits: &[f32], rng: &mut StreamRng) -> (i32, f32) {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f32 = logits.iter().map(|l| (l - highest).exp()).sum();
    let mut left = rng.uniform() * total;
    let mut action = 0;
    for (a, logit) in logits.iter().enumerate() {
        let weight = (logit - highest).exp();
        if weight > 0.0 {
            action = a;
            left -= weight;
            if left < 0.0 {
                break;
            }
        }
    }
    (action as i32, logits[action] - highest - total.ln())
}

/// Writes the logits, minus infinity where the mask says that there is no such action.
pub fn mask_logits(logits: &[f32], mask: &[bool], out: &mut [f32]) {
    for ((out, logit), allowed) in out.iter_mut().zip(logits).zip(mask) {
        *out = if *allowed { *logit } else { f32::NEG_INFINITY };
    }
}

/// The most probable action of one row of logits; the first of equals.
pub fn mode(logits: &[f32]) -> i32 {
    let mut best = 0;
    for (a, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = a;
        }
    }
    best as i32
}

#[cfg(test)]
mod tests {
    use hotfire_core::seed::stream;

    use super::*;

    #[test]
    fn log_prob_and_entropy_match_hand_computed_values() {
        let device = Device::flex();
        let logits = Tensor::from_floats([[0.0, 2.0f32.ln(), 5.0f32.ln()], [1.0, 1.0, 1.0]], &device);
        let (log_prob, entropy) = log_prob_and_entropy(logits, Tensor::from_ints([2, 0], &device));
        let log_prob: Vec<f32> = log_prob.into_data().try_to_vec().unwrap();
        let entropy: Vec<f32> = entropy.into_data().try_to_vec().unwrap();
        // Probabilities 1/8, 2/8, 5/8 and a uniform row.
        let want = -(0.125f64 * 0.125f64.ln() + 0.25 * 0.25f64.ln() + 0.625 * 0.625f64.ln());
        assert!((f64::from(log_prob[0]) - 0.625f64.ln()).abs() < 1e-6);
        assert!((f64::from(log_prob[1]) + 3.0f64.ln()).abs() < 1e-6);
        assert!((f64::from(entropy[0]) - want).abs() < 1e-6);
        assert!((f64::from(entropy[1]) - 3.0f64.ln()).abs() < 1e-6);
    }

    #[test]
    fn samples_follow_the_probabilities() {
        let logits = [0.0f32, 2.0f32.ln(), 5.0f32.ln()];
        let mut rng = stream(11, "test", 0);
        let mut counts = [0u32; 3];
        for _ in 0..80_000 {
            let (action, log_prob) = sample(&logits, &mut rng);
            counts[action as usize] += 1;
            let want = [1.0f32, 2.0, 5.0][action as usize] / 8.0;
            assert!((log_prob - want.ln()).abs() < 1e-6);
        }
        for (count, want) in counts.iter().zip([10_000.0, 20_000.0, 50_000.0]) {
            assert!((f64::from(*count) - want).abs() < 600.0, "{counts:?}");
        }
        assert_eq!(mode(&logits), 2);
        let mut masked = [0.0; 3];
        mask_logits(&logits, &[true, false, false], &mut masked);
        assert_eq!((sample(&masked, &mut rng), mode(&masked)), ((0, 0.0), 0));
        mask_logits(&logits, &[false, true, true], &mut masked);
        assert!((0..1000).all(|_| sample(&masked, &mut rng).0 != 0));
        assert_eq!(mode(&[1.0, 1.0]), 0);
    }
}
