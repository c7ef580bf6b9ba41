//! Losses of pictures, summed over each row in one pass.

use burn::prelude::*;
use burn::tensor::activation::softplus as burn_softplus;
use burn_flex::FlexTensor;
use multiversion::multiversion;
use multiversion::target::target_cfg_f;
use rayon::prelude::*;

use super::host_op::{self, HostOp, Parent, on_host};
use super::kernel::{sigmoid, softplus};

/// Minus the log-likelihood of `target: [N, D]`, numbers from 0 to 1, under independent Bernoulli distributions with
/// `logits: [N, D]`, in nats, summed over each row: `[N]`. Also known as binary cross-entropy with logits.
///
/// The target is a constant: no gradient flows into it.
pub fn bernoulli_nll(logits: Tensor<2>, target: Tensor<2>) -> Tensor<1> {
    if on_host(&logits) {
        return fused(Loss::Bernoulli, logits, target);
    }
    let nll = burn_softplus(logits.clone(), 1.0) - logits * target;
    nll.sum_dim(1).squeeze_dim(1)
}

/// `(prediction - target)^2` for `[N, D]`, summed over each row: `[N]`.
///
/// The target is a constant: no gradient flows into it.
pub fn squared_error(prediction: Tensor<2>, target: Tensor<2>) -> Tensor<1> {
    if on_host(&prediction) {
        return fused(Loss::Squared, prediction, target);
    }
    (prediction - target).square().sum_dim(1).squeeze_dim(1)
}

#[derive(Clone, Copy, Debug)]
enum Loss {
    Bernoulli,
    Squared,
}

fn fused(loss: Loss, x: Tensor<2>, target: Tensor<2>) -> Tensor<1> {
    let [n, d] = x.dims();
    assert_eq!(target.dims(), [n, d], "prediction and target have one shape");
    host_op::apply([Parent::new(x), Parent::new(target)], |[x, target]| {
        let rows =
            x.storage::<f32>().par_chunks_exact(d.max(1)).zip(target.storage::<f32>().par_chunks_exact(d.max(1)));
        let sums: Vec<f32> = rows.map(|(x, t)| row_loss(loss, x, t)).collect();
        (host_op::tensor(sums, [n]), RowLoss { loss, x: x.clone(), target: target.clone(), width: d })
    })
}

/// Prediction and target of a loss.
#[derive(Clone, Debug)]
struct RowLoss {
    loss: Loss,
    x: FlexTensor,
    target: FlexTensor,
    width: usize,
}

impl HostOp for RowLoss {
    fn backward(self, gradient: FlexTensor, wanted: &[bool]) -> Vec<Option<FlexTensor>> {
        if !wanted[0] {
            return vec![None, None];
        }
        let gradient = host_op::contiguous(&gradient);
        let (x, target, d) = (self.x.storage::<f32>(), self.target.storage::<f32>(), self.width);
        let mut dx = vec![0.0f32; x.len()];
        let rows = dx.par_chunks_exact_mut(d.max(1)).zip(x.par_chunks_exact(d.max(1)));
        rows.zip(target.par_chunks_exact(d.max(1)))
            .zip(gradient.storage::<f32>().par_iter())
            .for_each(|(((dx, x), t), g)| row_gradient(self.loss, x, t, *g, dx));
        let shape = [x.len() / d.max(1), d];
        vec![Some(host_op::tensor(dx, shape)), None]
    }
}

/// One row's loss, summed in a fixed order of 16 lanes.
#[multiversion(targets = "simd")]
fn row_loss(loss: Loss, x: &[f32], target: &[f32]) -> f32 {
    const FMA: bool = target_cfg_f!(target_feature = "fma");
    match loss {
        Loss::Bernoulli => lanes(x, target, |x, t| softplus::<FMA>(x) - x * t),
        Loss::Squared => lanes(x, target, |x, t| (x - t) * (x - t)),
    }
}

#[inline(always)]
fn lanes(x: &[f32], target: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let mut sums = [0.0f32; 16];
    let (mut a, mut b) = (x.chunks_exact(16), target.chunks_exact(16));
    for (x, t) in (&mut a).zip(&mut b) {
        for l in 0..16 {
            sums[l] += term(x[l], t[l]);
        }
    }
    sums.iter().sum::<f32>() + a.remainder().iter().zip(b.remainder()).map(|(x, t)| term(*x, *t)).sum::<f32>()
}

#[multiversion(targets = "simd")]
fn row_gradient(loss: Loss, x: &[f32], target: &[f32], g: f32, dx: &mut [f32]) {
    const FMA: bool = target_cfg_f!(target_feature = "fma");
    let terms = dx.iter_mut().zip(x.iter().zip(target));
    match loss {
        Loss::Bernoulli => terms.for_each(|(dx, (x, t))| *dx = g * (sigmoid::<FMA>(*x) - t)),
        Loss::Squared => terms.for_each(|(dx, (x, t))| *dx = 2.0 * g * (x - t)),
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;
    use hotfire_core::seed::stream;

    use super::*;

    fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().try_to_vec().unwrap()
    }

    #[test]
    fn losses_and_gradients_are_those_of_the_formulas() {
        let device = Device::flex().autodiff();
        let mut rng = stream(1, "test", 0);
        for [n, d] in [[1, 1], [3, 16], [5, 37]] {
            let logits: Vec<f32> = (0..n * d).map(|_| 4.0 * rng.normal()).collect();
            let target: Vec<f32> = (0..n * d).map(|_| rng.uniform()).collect();
            let weights: Vec<f32> = (0..n).map(|_| rng.normal()).collect();
            let tensor = |values: &[f32]| Tensor::<2>::from_data(TensorData::new(values.to_vec(), [n, d]), &device);
            let weight = Tensor::<1>::from_data(TensorData::new(weights.clone(), [n]), &device);
            for (op, loss, slope) in [
                (
                    bernoulli_nll as fn(Tensor<2>, Tensor<2>) -> Tensor<1>,
                    (|x, t| x.exp().ln_1p() - x * t) as fn(f64, f64) -> f64,
                    (|x, t| 1.0 / (1.0 + (-x).exp()) - t) as fn(f64, f64) -> f64,
                ),
                (squared_error, |x, t| (x - t) * (x - t), |x, t| 2.0 * (x - t)),
            ] {
                let x = tensor(&logits).require_grad();
                let losses = op(x.clone(), tensor(&target));
                let gradients = (losses.clone() * weight.clone()).sum().backward();
                let pair = |i: usize| (f64::from(logits[i]), f64::from(target[i]));
                for (row, got) in values(losses).iter().enumerate() {
                    let want: f64 = (row * d..(row + 1) * d).map(|i| loss(pair(i).0, pair(i).1)).sum();
                    assert!((f64::from(*got) - want).abs() < 1e-5 * want.abs().max(1.0), "{got} against {want}");
                }
                for (i, got) in values(x.grad(&gradients).unwrap()).iter().enumerate() {
                    let want = f64::from(weights[i / d]) * slope(pair(i).0, pair(i).1);
                    assert!((f64::from(*got) - want).abs() < 2e-6 * want.abs().max(1.0), "{got} against {want}");
                }
            }
        }
    }
}
