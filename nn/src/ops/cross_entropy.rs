//! Cross entropy of a categorical distribution, from its logits.

use std::sync::Arc;

use burn::prelude::*;
use burn::tensor::activation::log_softmax;
use burn_flex::FlexTensor;
use multiversion::multiversion;
use multiversion::target::target_cfg_f;
use rayon::prelude::*;

use super::host_op::{self, HostOp, Parent, on_host};
use super::kernel::{row_block, softmax_row};

/// The target of a position that takes no part in [`cross_entropy`].
pub const IGNORE: i64 = -100;

/// Mean of `-log softmax(logits)[target]` in nats over the rows of `logits: [N, V]`, as a tensor of one element. Rows
/// whose target is [`IGNORE`] don't count; without any other row the loss is zero.
///
/// # Panics
/// If there are not `N` targets, or one is neither below `V` nor [`IGNORE`].
pub fn cross_entropy(logits: Tensor<2>, targets: &[i64]) -> Tensor<1> {
    let [n, v] = logits.dims();
    assert_eq!(targets.len(), n, "cross_entropy: one target a row");
    let bad = targets.iter().find(|t| **t != IGNORE && !(0..v as i64).contains(*t));
    assert!(bad.is_none(), "cross_entropy: target {bad:?} of {v} classes");
    let counted = targets.iter().filter(|t| **t != IGNORE).count();
    let scale = 1.0 / counted.max(1) as f32;
    if !on_host(&logits) {
        return stock(logits, targets, scale);
    }
    let targets: Arc<Vec<i64>> = Arc::new(targets.to_vec());
    host_op::apply([Parent::new(logits)], |[logits]| {
        let mut probabilities = logits.storage::<f32>().to_vec();
        let block = row_block(n);
        let losses: Vec<f64> = probabilities
            .par_chunks_mut(block * v)
            .zip(targets.par_chunks(block))
            .map(|(rows, targets)| loss_rows(rows, targets, v))
            .collect();
        let loss = (losses.iter().sum::<f64>() * f64::from(scale)) as f32;
        (host_op::tensor(vec![loss], [1]), CrossEntropy { probabilities, targets: Arc::clone(&targets), scale })
    })
}

fn stock(logits: Tensor<2>, targets: &[i64], scale: f32) -> Tensor<1> {
    let device = logits.device();
    let n = targets.len();
    let column = Tensor::<2, Int>::from_data(
        TensorData::new(targets.iter().map(|t| (*t).max(0)).collect::<Vec<i64>>(), [n, 1]),
        &device,
    );
    let weights: Vec<f32> = targets.iter().map(|t| if *t == IGNORE { 0.0 } else { scale }).collect();
    let weights = Tensor::<2>::from_data(TensorData::new(weights, [n, 1]), &device);
    (log_softmax(logits, 1).gather(1, column) * weights).sum().neg()
}

#[derive(Clone, Debug)]
struct CrossEntropy {
    probabilities: Vec<f32>,
    targets: Arc<Vec<i64>>,
    scale: f32,
}

impl HostOp for CrossEntropy {
    fn backward(self, gradient: FlexTensor, _wanted: &[bool]) -> Vec<Option<FlexTensor>> {
        let scale = host_op::contiguous(&gradient).storage::<f32>()[0] * self.scale;
        let mut g = self.probabilities;
        let n = self.targets.len();
        let v = g.len() / n.max(1);
        let block = row_block(n);
        g.par_chunks_mut(block * v).zip(self.targets.par_chunks(block)).for_each(|(rows, targets)| {
            for (row, target) in rows.chunks_exact_mut(v).zip(targets) {
                if *target == IGNORE {
                    row.fill(0.0);
                } else {
                    row[*target as usize] -= 1.0;
                    row.iter_mut().for_each(|g| *g *= scale);
                }
            }
        });
        vec![Some(host_op::tensor(g, [n, v]))]
    }
}

/// Replaces the rows of logits by probabilities; returns the sum of the losses of those that count.
#[multiversion(targets = "simd")]
fn loss_rows(rows: &mut [f32], targets: &[i64], v: usize) -> f64 {
    const FMA: bool = target_cfg_f!(target_feature = "fma");
    let mut sum = 0.0;
    for (row, target) in rows.chunks_exact_mut(v).zip(targets) {
        let logit = if *target == IGNORE { None } else { Some(row[*target as usize]) };
        let log_sum = softmax_row::<FMA>(row);
        if let Some(logit) = logit {
            sum += f64::from(log_sum - logit);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::super::testing::agree;
    use super::*;

    #[test]
    fn agrees_with_the_stock_ops() {
        for (n, v, ignored) in [(5, 3, vec![]), (300, 65, vec![0, 17, 299]), (2, 4, vec![0, 1])] {
            let targets: Vec<i64> =
                (0..n).map(|i| if ignored.contains(&i) { IGNORE } else { (i * 7 % v) as i64 }).collect();
            let counted = n - ignored.len();
            agree(&format!("{n} rows of {v}"), [&[n, v]], |[x], fused| {
                let x = x.mul_scalar(2.0).reshape([n, v]);
                if fused { cross_entropy(x, &targets) } else { stock(x, &targets, 1.0 / counted.max(1) as f32) }
            });
        }
    }

    #[test]
    fn two_even_logits_cost_ln_2() {
        let logits = Tensor::<2>::from_floats([[7.0, 7.0], [100.0, 0.0]], &Device::flex());
        let loss = cross_entropy(logits.clone(), &[0, IGNORE]).into_scalar::<f32>();
        assert!((loss - std::f32::consts::LN_2).abs() < 1e-6);
        assert_eq!(cross_entropy(logits, &[IGNORE, 0]).into_scalar::<f32>(), 0.0);
    }
}
