//! What a value network's outputs say about returns, and the losses that move them: a plain value, a distribution over
//! fixed atoms (C51), or quantiles (QR-DQN).
//!
//! Everything here works on slices in host memory: targets come from the replay memory, which lies there, and a loss
//! hands back its gradient, so that one tensor operation carries it into the network on any device. For each of `A`
//! actions a network has `M` outputs: 1, the number of atoms, or of quantiles.
//!
//! - C51: Bellemare et al. 2017, "A distributional perspective on reinforcement learning",
//!   <https://arxiv.org/abs/1707.06887>, algorithm 1.
//! - QR-DQN: Dabney et al. 2018, "Distributional reinforcement learning with quantile regression",
//!   <https://arxiv.org/abs/1710.10044>, equations 9 and 10 with `kappa = 1`.

use serde::{Deserialize, Serialize};

/// The loss of a plain value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ErrorLoss {
    /// `error^2 / 2` up to an error of 1, linear beyond.
    Huber,
    /// `error^2`
    Mse,
}

/// The meaning of the `M` outputs that a network has for each action.
#[derive(Clone, Debug, PartialEq)]
pub enum QHead {
    /// The value.
    Value(ErrorLoss),
    /// Logits of the probabilities that the return is each of these evenly spaced atoms.
    Categorical(Vec<f32>),
    /// As many quantiles of the return, at the midpoints of equal shares.
    Quantiles(usize),
}

/// Targets `[B, M]` of a batch and what goes with them.
#[derive(Clone, Copy, Debug)]
pub struct TdBatch<'a> {
    /// Actions taken, counted from 0: `[B]`.
    pub actions: &'a [usize],
    /// What [`QHead::targets`] wrote: `[B, M]`.
    pub targets: &'a [f32],
    /// Importance weights: `[B]`.
    pub weights: &'a [f32],
}

impl QHead {
    /// `count` atoms from `low` to `high`, at least two.
    pub fn categorical(count: usize, low: f64, high: f64) -> Self {
        let step = (high - low) / (count - 1) as f64;
        Self::Categorical((0..count).map(|i| (low + step * i as f64) as f32).collect())
    }

    /// Number of outputs `M` for each action.
    pub fn width(&self) -> usize {
        match self {
            Self::Value(_) => 1,
            Self::Categorical(atoms) => atoms.len(),
            Self::Quantiles(count) => *count,
        }
    }

    /// Expected returns `[N, A]` from outputs `[N, A, M]`.
    pub fn q_values(&self, outputs: &[f32], q: &mut [f32]) {
        match self {
            Self::Value(_) => q.copy_from_slice(outputs),
            Self::Categorical(atoms) => {
                for (q, logits) in q.iter_mut().zip(outputs.chunks_exact(atoms.len())) {
                    let (highest, total) = softmax_parts(logits);
                    *q = logits.iter().zip(atoms).map(|(l, z)| (l - highest).exp() * z).sum::<f32>() / total;
                }
            }
            Self::Quantiles(count) => {
                for (q, quantiles) in q.iter_mut().zip(outputs.chunks_exact(*count)) {
                    *q = quantiles.iter().sum::<f32>() / *count as f32;
                }
            }
        }
    }

    /// Writes the targets `[B, M]`: the law of `return + discount * next`, with `next` the outputs `[B, A, M]` for the
    /// next observations, taken at `next_actions: [B]`. A categorical law is projected onto the atoms.
    pub fn targets(
        &self,
        next: &[f32],
        next_actions: &[usize],
        returns: &[f32],
        discounts: &[f32],
        targets: &mut [f32],
    ) {
        let m = self.width();
        let stride = next.len() / next_actions.len();
        let rows = targets.chunks_exact_mut(m).zip(next.chunks_exact(stride)).zip(next_actions);
        for (i, ((target, next), action)) in rows.enumerate() {
            let next = &next[action * m..][..m];
            match self {
                Self::Categorical(atoms) => project(atoms, next, returns[i], discounts[i], target),
                _ => target.iter_mut().zip(next).for_each(|(t, next)| *t = returns[i] + discounts[i] * next),
            }
        }
    }

    /// The weighted mean loss of the outputs `[B, A, M]`, its gradient into `gradient: [B, A, M]`, and each row's
    /// unweighted error into `errors: [B]`: the temporal difference of a plain value, else the row's loss.
    pub fn loss(&self, outputs: &[f32], batch: TdBatch<'_>, gradient: &mut [f32], errors: &mut [f32]) -> f64 {
        let m = self.width();
        let stride = outputs.len() / batch.actions.len();
        gradient.fill(0.0);
        let mut total = 0.0;
        for (i, action) in batch.actions.iter().enumerate() {
            let at = i * stride + action * m;
            let (out, target, g) = (&outputs[at..][..m], &batch.targets[i * m..][..m], &mut gradient[at..][..m]);
            let (loss, error) = match self {
                Self::Value(kind) => {
                    let error = out[0] - target[0];
                    let (loss, slope) = kind.of(error);
                    g[0] = slope;
                    (loss, error)
                }
                Self::Categorical(_) => {
                    let loss = cross_entropy(out, target, g);
                    (loss, loss)
                }
                Self::Quantiles(_) => {
                    let loss = quantile_huber(out, target, g);
                    (loss, loss)
                }
            };
            errors[i] = error;
            let scale = batch.weights[i] / batch.actions.len() as f32;
            g.iter_mut().for_each(|g| *g *= scale);
            total += f64::from(scale * loss);
        }
        total
    }
}

impl ErrorLoss {
    /// Loss and slope at an error.
    fn of(self, error: f32) -> (f32, f32) {
        match self {
            Self::Huber if error.abs() <= 1.0 => (0.5 * error * error, error),
            Self::Huber => (error.abs() - 0.5, error.signum()),
            Self::Mse => (error * error, 2.0 * error),
        }
    }
}

/// The largest logit, and the sum of the exponentials above it.
fn softmax_parts(logits: &[f32]) -> (f32, f32) {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    (highest, logits.iter().map(|l| (l - highest).exp()).sum())
}

/// The law of `reward + discount * z` for `z` with these logits, its mass moved to the neighbouring atoms.
fn project(atoms: &[f32], logits: &[f32], reward: f32, discount: f32, law: &mut [f32]) {
    let (low, high) = (atoms[0], atoms[atoms.len() - 1]);
    let last = atoms.len() - 1;
    let per_atom = last as f32 / (high - low);
    let (highest, total) = softmax_parts(logits);
    law.fill(0.0);
    for (logit, atom) in logits.iter().zip(atoms) {
        let mass = (logit - highest).exp() / total;
        let place = ((reward + discount * atom).clamp(low, high) - low) * per_atom;
        let below = (place as usize).min(last);
        let share = place - below as f32;
        law[below] += mass * (1.0 - share);
        law[(below + 1).min(last)] += mass * share;
    }
}

/// `-sum target log softmax(logits)` and its gradient.
fn cross_entropy(logits: &[f32], target: &[f32], gradient: &mut [f32]) -> f32 {
    let (highest, total) = softmax_parts(logits);
    let log_total = highest + total.ln();
    let mut loss = 0.0;
    for ((g, logit), target) in gradient.iter_mut().zip(logits).zip(target) {
        *g = (logit - highest).exp() / total - target;
        loss += target * (log_total - logit);
    }
    loss
}

/// The Huber loss of every pair of a quantile and a target, weighted by the quantile's level: summed over quantiles,
/// averaged over targets; and its gradient.
fn quantile_huber(quantiles: &[f32], targets: &[f32], gradient: &mut [f32]) -> f32 {
    let mut loss = 0.0;
    let each = 1.0 / targets.len() as f32;
    for (i, (g, quantile)) in gradient.iter_mut().zip(quantiles).enumerate() {
        let level = (i as f32 + 0.5) / quantiles.len() as f32;
        let (mut sum, mut slope) = (0.0, 0.0);
        for target in targets {
            let error = target - quantile;
            let weight = if error < 0.0 { 1.0 - level } else { level };
            let (huber, d) = ErrorLoss::Huber.of(error);
            sum += weight * huber;
            slope -= weight * d;
        }
        *g = slope * each;
        loss += sum * each;
    }
    loss
}

/// The action with the largest of the values `[A]`; the first of equals.
pub fn best_action(q: &[f32]) -> usize {
    (1..q.len()).fold(0, |best, a| if q[a] > q[best] { a } else { best })
}

/// For each row of `q: [N, A]` the action with the largest value among those that `masks: [N, A]` lets count.
pub fn best_actions<'a>(q: &'a [f32], a: usize, masks: Option<&'a [bool]>) -> impl Iterator<Item = usize> + 'a {
    q.chunks_exact(a).enumerate().map(move |(row, q)| {
        let Some(masks) = masks else { return best_action(q) };
        let mask = &masks[row * a..][..a];
        let first = mask.iter().position(|counts| *counts).unwrap_or(0);
        (first + 1..a).fold(first, |best, action| if mask[action] && q[action] > q[best] { action } else { best })
    })
}

#[cfg(test)]
mod tests {
    use hotfire_core::seed::stream;

    use super::*;

    fn close(found: &[f32], want: &[f32]) {
        assert_eq!(found.len(), want.len());
        assert!(found.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-5), "{found:?} against {want:?}");
    }

    /// Atoms 0, 1, 2, 3 with probabilities 0.1, 0.2, 0.3, 0.4; worked out by hand.
    #[test]
    fn c51_projection_by_hand() {
        let atoms = [0.0, 1.0, 2.0, 3.0];
        let logits: Vec<f32> = [0.1f32, 0.2, 0.3, 0.4].iter().map(|p| p.ln() + 7.0).collect();
        let mut law = [0.0; 4];
        // 0.5 + 0.5 z lies at 0.5, 1, 1.5, 2.
        project(&atoms, &logits, 0.5, 0.5, &mut law);
        close(&law, &[0.05, 0.05 + 0.2 + 0.15, 0.15 + 0.4, 0.0]);
        // A terminal step: all mass at the reward 1.25.
        project(&atoms, &logits, 1.25, 0.0, &mut law);
        close(&law, &[0.0, 0.75, 0.25, 0.0]);
        // Beyond the ends: 10 + z, and -10 + z.
        project(&atoms, &logits, 10.0, 1.0, &mut law);
        close(&law, &[0.0, 0.0, 0.0, 1.0]);
        project(&atoms, &logits, -10.0, 1.0, &mut law);
        close(&law, &[1.0, 0.0, 0.0, 0.0]);
        // The identity.
        project(&atoms, &logits, 0.0, 1.0, &mut law);
        close(&law, &[0.1, 0.2, 0.3, 0.4]);
    }

    /// Two quantiles at levels 0.25 and 0.75, two targets; worked out by hand.
    #[test]
    fn quantile_huber_by_hand() {
        let mut gradient = [0.0; 2];
        let loss = quantile_huber(&[0.0, 1.0], &[0.5, 3.0], &mut gradient);
        // Quantile 0, level 0.25: errors 0.5 and 3: Huber 0.125 and 2.5; 0.25 * (0.125 + 2.5) / 2 = 0.328125.
        // Quantile 1, level 0.75: errors -0.5 and 2: Huber 0.125 and 1.5; (0.25 * 0.125 + 0.75 * 1.5) / 2 = 0.578125.
        assert!((loss - 0.90625).abs() < 1e-6, "{loss}");
        // -(0.25 * 0.5 + 0.25 * 1) / 2 and -(0.25 * -0.5 + 0.75 * 1) / 2.
        close(&gradient, &[-0.1875, -0.3125]);
    }

    #[test]
    fn values_are_expectations() {
        let mut q = [0.0; 2];
        let logits: Vec<f32> = [0.25f32, 0.75, 0.5, 0.5].iter().map(|p| p.ln()).collect();
        QHead::categorical(2, -1.0, 3.0).q_values(&logits, &mut q);
        close(&q, &[2.0, 1.0]);
        QHead::Quantiles(2).q_values(&[1.0, 2.0, -4.0, 0.0], &mut q);
        close(&q, &[1.5, -2.0]);
        assert_eq!((best_action(&[0.0, 2.0, 2.0]), best_action(&[5.0, -1.0, 5.0])), (1, 0));
        let values = [0.0, 2.0, 1.0, 5.0, -1.0, -2.0];
        assert_eq!(best_actions(&values, 3, None).collect::<Vec<_>>(), [1, 0]);
        let masks = [true, false, true, false, true, true];
        assert_eq!(best_actions(&values, 3, Some(&masks)).collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn targets_take_the_next_action_and_drop_what_follows_a_termination() {
        let mut targets = [0.0; 2];
        let next = [1.0, 2.0, 3.0, 4.0];
        QHead::Value(ErrorLoss::Huber).targets(&next, &[1, 0], &[10.0, 20.0], &[0.5, 0.0], &mut targets);
        assert_eq!(targets, [11.0, 20.0]);
        let mut targets = [0.0; 4];
        QHead::Quantiles(2).targets(
            &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0],
            &[1, 0],
            &[10.0, 20.0],
            &[0.5, 0.0],
            &mut targets,
        );
        assert_eq!(targets, [11.5, 12.0, 20.0, 20.0]);
    }

    /// The gradients against differences of the loss, in rows with weights, for actions that were not the first.
    #[test]
    fn gradients_are_the_slopes_of_the_losses() {
        let heads = [
            QHead::Value(ErrorLoss::Huber),
            QHead::Value(ErrorLoss::Mse),
            QHead::categorical(5, -2.0, 2.0),
            QHead::Quantiles(4),
            QHead::Quantiles(1),
        ];
        for head in heads {
            let mut rng = stream(7, "test", head.width() as u64);
            let (b, a, m) = (3, 2, head.width());
            let mut numbers = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.normal() * 1.5).collect() };
            let (mut outputs, next) = (numbers(b * a * m), numbers(b * a * m));
            let mut targets = vec![0.0; b * m];
            head.targets(&next, &[0, 1, 1], &[0.3, -0.7, 0.1], &[0.9, 0.0, 0.81], &mut targets);
            let batch = TdBatch { actions: &[1, 0, 1], targets: &targets, weights: &[1.0, 0.5, 0.25] };
            let (mut gradient, mut errors, mut unused) = (vec![0.0; b * a * m], vec![0.0; b], vec![0.0; b * a * m]);
            let total = head.loss(&outputs, batch, &mut gradient, &mut errors);
            if !matches!(head, QHead::Value(_)) {
                let weighted: f32 = errors.iter().zip(batch.weights).map(|(e, w)| e * w / 3.0).sum();
                assert!((f64::from(weighted) - total).abs() < 1e-5);
            }
            let mut scratch = vec![0.0; b];
            for i in 0..outputs.len() {
                let at = outputs[i];
                let mut loss = |x: f32| {
                    outputs[i] = x;
                    head.loss(&outputs, batch, &mut unused, &mut scratch)
                };
                let slope = (loss(at + 1e-2) - loss(at - 1e-2)) / 2e-2;
                outputs[i] = at;
                assert!((slope - f64::from(gradient[i])).abs() < 4e-3, "{head:?} {i}: {slope} {}", gradient[i]);
            }
        }
    }
}
