//! The loss of an actor-critic as one op: policy, value and entropy terms in one pass over the minibatch.
//!
//! As separate tensor ops these terms are two dozen graph nodes on a few hundred numbers, more work in bookkeeping than
//! the networks behind them. The loss is a scalar, so its gradients are computed along with it and only scaled later.

use burn::prelude::*;
use burn::tensor::TensorData;
use burn_flex::FlexTensor;

use super::host_op::{self, HostOp, Parent, on_host};
use crate::distributions::{categorical, gaussian};

/// What was done in `M` states.
#[derive(Clone, Copy, Debug)]
pub enum ActionBatch<'a> {
    /// `K` choices a state, of `sizes[k]` each: the policy's output holds the logits of one choice after the other.
    Categorical {
        /// Number of alternatives of each choice; they sum to `A`.
        sizes: &'a [usize],
        /// What was chosen, counted from 0: `[M, K]`.
        chosen: &'a [i32],
        /// Which alternatives there were, if not all: `[M, A]`.
        mask: Option<&'a [bool]>,
    },
    /// A real vector: the policy's output holds the means.
    Gaussian {
        /// The vectors as they were drawn: `[M, A]`.
        actions: &'a [f32],
    },
}

/// A minibatch of `M` transitions, all in host memory.
#[derive(Clone, Copy, Debug)]
pub struct PolicyBatch<'a> {
    /// What was done.
    pub actions: ActionBatch<'a>,
    /// Log-probability of that, under the policy that acted: `[M]`.
    pub log_probs: &'a [f32],
    /// How much better it was than expected: `[M]`.
    pub advantages: &'a [f32],
    /// Value estimates of the time, one column a value head: `[V, M]`.
    pub values: &'a [f32],
    /// What the values should have been: `[V, M]`.
    pub returns: &'a [f32],
}

/// How the terms are weighed and clipped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PolicyLossConfig {
    /// Bound of the probability ratio in PPO's objective (Schulman et al. 2017, <https://arxiv.org/abs/1707.06347>,
    /// equation 7); without it, the plain policy gradient `-A ln pi`.
    pub clip: Option<f64>,
    /// Bound on the movement of the value that the value loss rewards.
    pub value_clip: Option<f64>,
    /// Weight of the entropy, which is subtracted.
    pub entropy_coef: f64,
    /// Weight of the value loss, half the squared error.
    pub value_coef: f64,
}

/// Means over a minibatch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PolicyLossParts {
    /// The policy's term.
    pub policy: f64,
    /// Half the squared error of the values, summed over the heads.
    pub value: f64,
    /// Entropy of the policy.
    pub entropy: f64,
    /// KL divergence from the policy that acted, estimated as `(r - 1) - ln r`
    /// (<http://joschu.net/blog/kl-approx.html>).
    pub approx_kl: f64,
    /// Share of the ratios outside the clip range.
    pub clip_fraction: f64,
}

/// The loss `[1]` of a policy with `output: [M, A]` (and `log_std: [A]` for Gaussian actions) and `values: [M, V]`.
///
/// # Panics
/// If lengths don't fit.
pub fn policy_loss(
    output: Tensor<2>,
    log_std: Option<Tensor<1>>,
    values: Tensor<2>,
    batch: PolicyBatch<'_>,
    config: PolicyLossConfig,
) -> (Tensor<1>, PolicyLossParts) {
    if !on_host(&output) {
        return stock(output, log_std, values, batch, config);
    }
    let [rows, width] = output.dims();
    let [_, heads] = values.dims();
    assert_eq!((batch.advantages.len(), batch.returns.len()), (rows, rows * heads), "a minibatch of {rows} rows");
    let mut parts = PolicyLossParts::default();
    let mut run = |output: &FlexTensor, values: &FlexTensor, log_std: Option<&FlexTensor>| {
        let mut terms = Terms::new(rows, width, heads, log_std.map_or(0, |_| width));
        let total = terms.add(output.storage(), log_std.map_or(&[], |t| t.storage()), values.storage(), batch, config);
        parts = terms.parts;
        let op = PolicyLoss {
            output: host_op::tensor(terms.d_output, [rows, width]),
            values: host_op::tensor(terms.d_values, [rows, heads]),
            log_std: log_std.map(|_| host_op::tensor(terms.d_log_std, [width])),
        };
        (host_op::tensor(vec![total as f32], [1]), op)
    };
    let (output, values) = (Parent::new(output), Parent::new(values));
    let total = match log_std {
        Some(log_std) => host_op::apply([output, values, Parent::new(log_std)], |[o, v, s]| run(o, v, Some(s))),
        None => host_op::apply([output, values], |[o, v]| run(o, v, None)),
    };
    (total, parts)
}

/// Gradients of the loss with respect to its parents.
#[derive(Clone, Debug)]
struct PolicyLoss {
    output: FlexTensor,
    values: FlexTensor,
    log_std: Option<FlexTensor>,
}

impl HostOp for PolicyLoss {
    fn backward(self, gradient: FlexTensor, _: &[bool]) -> Vec<Option<FlexTensor>> {
        let scale = host_op::contiguous(&gradient).storage::<f32>()[0];
        let scaled = |mut tensor: FlexTensor| {
            if scale != 1.0 {
                tensor.storage_mut::<f32>().iter_mut().for_each(|g| *g *= scale);
            }
            Some(tensor)
        };
        let mut gradients = vec![scaled(self.output), scaled(self.values)];
        gradients.extend(self.log_std.map(scaled));
        gradients
    }
}

/// Sums and gradients of a minibatch in the making.
struct Terms {
    d_output: Vec<f32>,
    d_values: Vec<f32>,
    d_log_std: Vec<f32>,
    parts: PolicyLossParts,
}

impl Terms {
    fn new(rows: usize, width: usize, heads: usize, log_std: usize) -> Self {
        Self {
            d_output: vec![0.0; rows * width],
            d_values: vec![0.0; rows * heads],
            d_log_std: vec![0.0; log_std],
            parts: PolicyLossParts::default(),
        }
    }

    /// Runs over all rows; returns the total.
    fn add(
        &mut self,
        output: &[f32],
        log_std: &[f32],
        values: &[f32],
        batch: PolicyBatch<'_>,
        config: PolicyLossConfig,
    ) -> f64 {
        let rows = batch.advantages.len();
        let share = 1.0 / rows as f32;
        let entropy_weight = -(config.entropy_coef as f32) * share;
        let width = output.len() / rows;
        for row in 0..rows {
            let output = &output[row * width..][..width];
            let d_output = &mut self.d_output[row * width..][..width];
            let (advantage, old) = (batch.advantages[row], batch.log_probs[row]);
            let parts = &mut self.parts;
            // Gradient of the row's policy term with respect to its log-probability.
            let mut policy_term = |log_prob: f32| -> f32 {
                let log_ratio = log_prob - old;
                let excess = f64::from(log_ratio).exp_m1();
                parts.approx_kl += excess - f64::from(log_ratio);
                let Some(clip) = config.clip else {
                    parts.policy -= f64::from(advantage * log_prob);
                    return -advantage * share;
                };
                parts.clip_fraction += f64::from(u8::from(excess.abs() > clip));
                let ratio = (1.0 + excess) as f32;
                let clipped = ratio.clamp((1.0 - clip) as f32, (1.0 + clip) as f32);
                let (plain, bounded) = (advantage * ratio, advantage * clipped);
                parts.policy -= f64::from(plain.min(bounded));
                if plain <= bounded { -plain * share } else { 0.0 }
            };
            match batch.actions {
                ActionBatch::Categorical { sizes, chosen, mask } => {
                    let mask = mask.map(|mask| &mask[row * width..][..width]);
                    let chosen = &chosen[row * sizes.len()..][..sizes.len()];
                    // First the probabilities and the sum of the log-probabilities, then the gradients.
                    let (mut log_prob, mut at) = (0.0, 0);
                    for (size, chosen) in sizes.iter().zip(chosen) {
                        let part = at..at + size;
                        let mask = mask.map(|mask| &mask[part.clone()]);
                        log_prob += log_softmax(&output[part.clone()], mask, &mut d_output[part])[*chosen as usize];
                        at += size;
                    }
                    let weight = policy_term(log_prob);
                    at = 0;
                    for (size, chosen) in sizes.iter().zip(chosen) {
                        let d = &mut d_output[at..at + size];
                        let entropy = -d.iter().filter(|l| l.is_finite()).map(|l| l.exp() * l).sum::<f32>();
                        parts.entropy += f64::from(entropy);
                        for (a, d) in d.iter_mut().enumerate() {
                            let (log_p, p) = (*d, d.exp());
                            if p == 0.0 {
                                *d = 0.0;
                                continue;
                            }
                            let hit = if a == *chosen as usize { 1.0 } else { 0.0 };
                            *d = weight * (hit - p) - entropy_weight * p * (log_p + entropy);
                        }
                        at += size;
                    }
                }
                ActionBatch::Gaussian { actions } => {
                    let action = &actions[row * width..][..width];
                    let mut log_prob = 0.0;
                    for a in 0..width {
                        let z = (action[a] - output[a]) * (-log_std[a]).exp();
                        log_prob -= 0.5 * z * z + log_std[a] + gaussian::HALF_LN_TAU;
                        parts.entropy += f64::from(log_std[a] + 0.5 + gaussian::HALF_LN_TAU);
                        d_output[a] = z;
                    }
                    let weight = policy_term(log_prob);
                    for a in 0..width {
                        let z = d_output[a];
                        self.d_log_std[a] += weight * (z * z - 1.0) + entropy_weight;
                        d_output[a] = weight * z * (-log_std[a]).exp();
                    }
                }
            }
        }
        self.add_values(values, batch, config);
        let parts = &mut self.parts;
        for sum in
            [&mut parts.policy, &mut parts.value, &mut parts.entropy, &mut parts.approx_kl, &mut parts.clip_fraction]
        {
            *sum /= rows as f64;
        }
        parts.policy - config.entropy_coef * parts.entropy + config.value_coef * parts.value
    }

    fn add_values(&mut self, values: &[f32], batch: PolicyBatch<'_>, config: PolicyLossConfig) {
        let rows = batch.advantages.len();
        let heads = values.len() / rows;
        let weight = config.value_coef as f32 / rows as f32;
        for (i, (value, d)) in values.iter().zip(&mut self.d_values).enumerate() {
            let at = i % heads * rows + i / heads;
            let target = batch.returns[at];
            let mut error = value - target;
            *d = weight * error;
            if let Some(clip) = config.value_clip {
                let (old, clip) = (batch.values[at], clip as f32);
                let moved = value - old;
                let near = old + moved.clamp(-clip, clip) - target;
                if near * near > error * error {
                    error = near;
                    *d = if moved.abs() <= clip { weight * near } else { 0.0 };
                }
            }
            self.parts.value += 0.5 * f64::from(error) * f64::from(error);
        }
    }
}

/// Writes the log-probabilities of the logits, minus infinity where masked out.
fn log_softmax<'a>(logits: &[f32], mask: Option<&[bool]>, out: &'a mut [f32]) -> &'a [f32] {
    match mask {
        Some(mask) => categorical::mask_logits(logits, mask, out),
        None => out.copy_from_slice(logits),
    }
    let highest = out.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let log_sum = out.iter().map(|l| (l - highest).exp()).sum::<f32>().ln();
    out.iter_mut().for_each(|l| *l -= highest + log_sum);
    out
}

/// The same loss of stock Burn ops.
fn stock(
    output: Tensor<2>,
    log_std: Option<Tensor<1>>,
    values: Tensor<2>,
    batch: PolicyBatch<'_>,
    config: PolicyLossConfig,
) -> (Tensor<1>, PolicyLossParts) {
    let device = output.device();
    let [rows, width] = output.dims();
    let [_, heads] = values.dims();
    let column = |x: &[f32]| Tensor::<1>::from_data(TensorData::new(x.to_vec(), [x.len()]), &device);
    let (log_prob, entropy) = match (batch.actions, log_std) {
        (ActionBatch::Categorical { sizes, chosen, mask }, _) => {
            let logits = match mask {
                Some(mask) => {
                    let shut: Vec<f32> = mask.iter().map(|m| if *m { 0.0 } else { -1e9 }).collect();
                    output + Tensor::from_data(TensorData::new(shut, [rows, width]), &device)
                }
                None => output,
            };
            let (mut log_prob, mut entropy) = (Tensor::zeros([rows], &device), Tensor::zeros([rows], &device));
            let mut at = 0;
            for (k, size) in sizes.iter().enumerate() {
                let chosen: Vec<i32> = chosen.iter().skip(k).step_by(sizes.len()).copied().collect();
                let chosen = Tensor::from_data(TensorData::new(chosen, [rows]), &device);
                let part = categorical::log_prob_and_entropy(logits.clone().narrow(1, at, *size), chosen);
                (log_prob, entropy) = (log_prob + part.0, entropy + part.1);
                at += size;
            }
            (log_prob, entropy)
        }
        (ActionBatch::Gaussian { actions }, Some(log_std)) => {
            let actions = Tensor::from_data(TensorData::new(actions.to_vec(), [rows, width]), &device);
            gaussian::log_prob_and_entropy(output, log_std, actions)
        }
        (ActionBatch::Gaussian { .. }, None) => panic!("a Gaussian policy has a standard deviation"),
    };
    let log_ratio = log_prob.clone() - column(batch.log_probs);
    let advantages = column(batch.advantages);
    let policy = match config.clip {
        Some(clip) => {
            let ratio = log_ratio.clone().exp();
            let clipped = advantages.clone() * ratio.clone().clamp(1.0 - clip, 1.0 + clip);
            (advantages * ratio).min_pair(clipped).mean().neg()
        }
        None => (advantages * log_prob).mean().neg(),
    };
    let matrix = |x: &[f32]| Tensor::<2>::from_data(TensorData::new(x.to_vec(), [heads, rows]), &device).transpose();
    let returns = matrix(batch.returns);
    let error = (values.clone() - returns.clone()).square();
    let error = match config.value_clip {
        Some(clip) => {
            let old = matrix(batch.values);
            error.max_pair((old.clone() + (values - old).clamp(-clip, clip) - returns).square())
        }
        None => error,
    };
    let value = error.sum().mul_scalar(0.5 / rows as f64);
    let entropy = entropy.mean();
    let total =
        policy.clone() - entropy.clone().mul_scalar(config.entropy_coef) + value.clone().mul_scalar(config.value_coef);
    let scalar = |tensor: Tensor<1>| f64::from(tensor.into_scalar::<f32>());
    let log_ratios: Vec<f32> = log_ratio.into_data().try_into_vec().expect("log-ratios are 32-bit floats");
    let mean = |f: &dyn Fn(f64) -> f64| log_ratios.iter().map(|r| f(f64::from(*r))).sum::<f64>() / rows as f64;
    let parts = PolicyLossParts {
        policy: scalar(policy),
        value: scalar(value),
        entropy: scalar(entropy),
        approx_kl: mean(&|r| r.exp_m1() - r),
        clip_fraction: config.clip.map_or(0.0, |clip| mean(&|r| f64::from(u8::from(r.exp_m1().abs() > clip)))),
    };
    (total, parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, salt: usize, scale: f32) -> Vec<f32> {
        (0..count).map(|i| (((i + salt * 31) * 7919 % 1009) as f32 / 504.0 - 1.0) * scale).collect()
    }

    /// Value, parts and all gradients agree with the stock ops, for every kind of action and clipping.
    #[test]
    fn agrees_with_the_stock_ops() {
        let device = Device::flex().autodiff();
        let (rows, width) = (37, 6);
        let tensor = |values: Vec<f32>, columns: usize| {
            Tensor::<2>::from_data(TensorData::new(values, [rows, columns]), &device).require_grad()
        };
        let mut mask: Vec<bool> = (0..rows * width).map(|i| i * 7 % 5 != 0).collect();
        let chosen = |sizes: &[usize], mask: &mut [bool]| -> Vec<i32> {
            let mut chosen = Vec::new();
            for row in 0..rows {
                let mut at = row * width;
                for (k, size) in sizes.iter().enumerate() {
                    let action = (row * 13 + k * 5) % size;
                    mask[at + action] = true;
                    chosen.push(action as i32);
                    at += size;
                }
            }
            chosen
        };
        let one = chosen(&[6], &mut mask);
        let two = chosen(&[2, 4], &mut mask);
        // Close to the means below, so that the ratios are close to 1.
        let real: Vec<f32> =
            numbers(rows * width, 1, 1.5).iter().zip(numbers(rows * width, 9, 0.3)).map(|(a, b)| a + b).collect();
        let cases: [(&str, ActionBatch<'_>); 4] = [
            ("categorical", ActionBatch::Categorical { sizes: &[6], chosen: &one, mask: None }),
            ("masked", ActionBatch::Categorical { sizes: &[6], chosen: &one, mask: Some(&mask) }),
            ("two masked choices", ActionBatch::Categorical { sizes: &[2, 4], chosen: &two, mask: Some(&mask) }),
            ("Gaussian", ActionBatch::Gaussian { actions: &real }),
        ];
        for (name, actions) in cases {
            let gaussian = matches!(actions, ActionBatch::Gaussian { .. });
            for (clip, value_clip, heads) in [(Some(0.2), Some(0.1), 1), (Some(0.3), None, 2), (None, None, 1)] {
                let output = tensor(numbers(rows * width, 1, 1.5), width);
                let values = tensor(numbers(rows * heads, 2, 1.0), heads);
                let log_std = gaussian.then(|| {
                    Tensor::<1>::from_data(TensorData::new(numbers(width, 3, 0.3), [width]), &device).require_grad()
                });
                let centre = if gaussian { -5.6 } else { -1.9 };
                let log_probs: Vec<f32> = numbers(rows, 4, 0.4).iter().map(|x| x + centre).collect();
                let (advantages, old) = (numbers(rows, 5, 2.0), numbers(rows * heads, 6, 1.0));
                let returns = numbers(rows * heads, 7, 1.0);
                let batch = PolicyBatch {
                    actions,
                    log_probs: &log_probs,
                    advantages: &advantages,
                    values: &old,
                    returns: &returns,
                };
                let config = PolicyLossConfig { clip, value_clip, entropy_coef: 0.05, value_coef: 0.7 };
                let context = format!("{name}, clip {clip:?}, {heads} heads");
                let close = |a: f64, b: f64, what: &str| {
                    assert!((a - b).abs() < 1e-5 * b.abs().max(1.0), "{context}: {what}: {a} against {b}");
                };
                let results = [policy_loss, stock].map(|loss| {
                    let (total, parts) = loss(output.clone(), log_std.clone(), values.clone(), batch, config);
                    let number = f64::from(total.clone().into_scalar::<f32>());
                    // A factor, as where the loss is one term of a larger one.
                    let gradients = total.mul_scalar(3.0).backward();
                    let mut all: Vec<f32> = output.grad(&gradients).unwrap().into_data().try_into_vec().unwrap();
                    all.extend(values.grad(&gradients).unwrap().into_data().try_into_vec::<f32>().unwrap());
                    if let Some(log_std) = &log_std {
                        all.extend(log_std.grad(&gradients).unwrap().into_data().try_into_vec::<f32>().unwrap());
                    }
                    (number, parts, all)
                });
                let [(a, fused, fused_gradients), (b, stock, stock_gradients)] = results;
                close(a, b, "total");
                close(fused.policy, stock.policy, "policy");
                close(fused.value, stock.value, "value");
                close(fused.entropy, stock.entropy, "entropy");
                close(fused.approx_kl, stock.approx_kl, "KL");
                close(fused.clip_fraction, stock.clip_fraction, "clip fraction");
                for (i, (a, b)) in fused_gradients.iter().zip(&stock_gradients).enumerate() {
                    close((*a).into(), (*b).into(), &format!("gradient {i}"));
                }
                assert!(clip.is_none() || (0.02..0.98).contains(&fused.clip_fraction), "{context}: both sides occur");
            }
        }
    }
}
