//! Group normalisation with an activation, as one op.
//!
//! Wu & He 2018, <https://arxiv.org/abs/1803.08494>. On the CPU a group of channels, which lies in one piece of memory, is
//! read twice from the nearest cache; its backward pass recomputes the activation's input instead of keeping it.

use burn::prelude::*;
use burn::tensor::TensorData;
use burn_flex::FlexTensor;
use multiversion::multiversion;
use multiversion::target::target_cfg_f;
use rayon::prelude::*;

use super::host_op::{self, HostOp, Parent, on_host};
use super::kernel::{Activation, activate, activation_derivative, sum};
use super::mlp::stock_activation;

/// `activation(gamma (x - mean) / sqrt(var + epsilon) + beta)` for `x: [N, C, H, W]`, `gamma: [C]`, `beta: [C]`, with mean
/// and (biased) variance over each image's groups of `C / groups` channels.
///
/// # Panics
/// If `groups` does not divide the channels, or the shapes don't fit.
pub fn group_norm(
    x: Tensor<4>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    groups: usize,
    epsilon: f64,
    activation: Activation,
) -> Tensor<4> {
    let channels = x.dims()[1];
    assert!(groups > 0 && channels.is_multiple_of(groups), "{channels} channels do not divide into {groups} groups");
    assert_eq!([gamma.dims(), beta.dims()], [[channels]; 2], "one scale and shift for each of {channels} channels");
    if !on_host(&x) {
        return stock(x, gamma, beta, groups, epsilon, activation);
    }
    host_op::apply([Parent::new(x), Parent::new(gamma), Parent::new(beta)], |values| {
        GroupNorm::forward(values.clone(), groups, epsilon as f32, activation)
    })
}

fn stock(
    x: Tensor<4>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    groups: usize,
    epsilon: f64,
    activation: Activation,
) -> Tensor<4> {
    let [n, c, h, w] = x.dims();
    let x = x.reshape([n, groups, c / groups * h * w]);
    let centred = x.clone() - x.mean_dim(2);
    let variance = centred.clone().square().mean_dim(2);
    let normal = (centred / variance.add_scalar(epsilon).sqrt()).reshape([n, c, h, w]);
    stock_activation(normal * gamma.reshape([1, c, 1, 1]) + beta.reshape([1, c, 1, 1]), activation)
}

/// Input, scale and shift; mean and inverse standard deviation of each image's groups.
#[derive(Clone, Debug)]
struct GroupNorm {
    values: [FlexTensor; 3],
    groups: usize,
    activation: Activation,
    moments: Vec<[f32; 2]>,
}

impl GroupNorm {
    fn forward(values: [FlexTensor; 3], groups: usize, epsilon: f32, activation: Activation) -> (FlexTensor, Self) {
        let [x, gamma, beta] = values.each_ref().map(FlexTensor::storage::<f32>);
        let shape = values[0].layout().shape().clone();
        let channels = gamma.len() / groups;
        let len = channels * shape[2] * shape[3];
        let mut y = vec![0.0f32; x.len()];
        let mut moments = vec![[0.0f32; 2]; x.len() / len];
        let images = y.par_chunks_mut(groups * len).zip(x.par_chunks(groups * len)).zip(moments.par_chunks_mut(groups));
        images.for_each(|((y, x), moments)| {
            let groups = y.chunks_exact_mut(len).zip(x.chunks_exact(len)).zip(moments);
            for (i, ((y, x), moments)) in groups.enumerate() {
                let own = i * channels..(i + 1) * channels;
                *moments = normalize(x, y, &gamma[own.clone()], &beta[own], epsilon);
                activate(y, activation);
            }
        });
        let output = FlexTensor::from_data(TensorData::new(y, shape));
        (output, Self { values, groups, activation, moments })
    }
}

/// `y = gamma (x - mean) / sqrt(var + epsilon) + beta` for one group; returns the mean and the inverse deviation.
#[multiversion(targets = "simd")]
fn normalize(x: &[f32], y: &mut [f32], gamma: &[f32], beta: &[f32], epsilon: f32) -> [f32; 2] {
    let mean = sum(x) / x.len() as f32;
    let mut lanes = [0.0f32; 16];
    let mut chunks = x.chunks_exact(16);
    for chunk in &mut chunks {
        for l in 0..16 {
            let d = chunk[l] - mean;
            lanes[l] += d * d;
        }
    }
    let rest: f32 = chunks.remainder().iter().map(|v| (v - mean) * (v - mean)).sum();
    let scale = 1.0 / ((lanes.iter().sum::<f32>() + rest) / x.len() as f32 + epsilon).sqrt();
    let pixels = x.len() / gamma.len();
    let channels = x.chunks_exact(pixels).zip(y.chunks_exact_mut(pixels)).zip(gamma.iter().zip(beta));
    for ((x, y), (gamma, beta)) in channels {
        let slope = gamma * scale;
        let offset = beta - mean * slope;
        y.iter_mut().zip(x).for_each(|(y, x)| *y = x * slope + offset);
    }
    [mean, scale]
}

impl HostOp for GroupNorm {
    fn backward(self, gradient: FlexTensor, wanted: &[bool]) -> Vec<Option<FlexTensor>> {
        let gradient = host_op::contiguous(&gradient);
        let g = gradient.storage::<f32>();
        let [x, gamma, beta] = self.values.each_ref().map(FlexTensor::storage::<f32>);
        let shape = self.values[0].layout().shape().clone();
        let (c, groups) = (gamma.len(), self.groups);
        let channels = c / groups;
        let len = channels * shape[2] * shape[3];
        let mut dx = vec![0.0f32; x.len()];
        // Gradients of scale and shift, image by image: `[N, C]` each, summed in order below.
        let mut sums = vec![[0.0f32; 2]; x.len() / len * channels];
        let images = dx.par_chunks_mut(groups * len).zip(x.par_chunks(groups * len)).zip(g.par_chunks(groups * len));
        let images = images.zip(self.moments.par_chunks(groups)).zip(sums.par_chunks_mut(c));
        images.for_each(|((((dx, x), g), moments), sums)| {
            for i in 0..groups {
                let (own, block) = (i * channels..(i + 1) * channels, i * len..(i + 1) * len);
                group_backward(
                    &x[block.clone()],
                    &g[block.clone()],
                    &mut dx[block],
                    [&gamma[own.clone()], &beta[own.clone()]],
                    moments[i],
                    &mut sums[own],
                    self.activation,
                );
            }
        });
        let (mut dgamma, mut dbeta) = (vec![0.0f32; c], vec![0.0f32; c]);
        for image in sums.chunks_exact(c) {
            for ((dgamma, dbeta), [dg, db]) in dgamma.iter_mut().zip(&mut dbeta).zip(image) {
                *dgamma += dg;
                *dbeta += db;
            }
        }
        vec![
            wanted[0].then(|| FlexTensor::from_data(TensorData::new(dx, shape))),
            wanted[1].then(|| host_op::tensor(dgamma, [c])),
            wanted[2].then(|| host_op::tensor(dbeta, [c])),
        ]
    }
}

/// Gradients of one group: `dx` of the input, `sums` of each channel's scale and shift.
#[multiversion(targets = "simd")]
fn group_backward(
    x: &[f32],
    g: &[f32],
    dx: &mut [f32],
    [gamma, beta]: [&[f32]; 2],
    [mean, scale]: [f32; 2],
    sums: &mut [[f32; 2]],
    activation: Activation,
) {
    const FMA: bool = target_cfg_f!(target_feature = "fma");
    let pixels = x.len() / gamma.len();
    let (mut of_normal, mut of_product) = (0.0f32, 0.0f32);
    for c in 0..gamma.len() {
        let own = c * pixels..(c + 1) * pixels;
        let (x, g, dz) = (&x[own.clone()], &g[own.clone()], &mut dx[own]);
        let slope = gamma[c] * scale;
        let offset = beta[c] - mean * slope;
        // The activation is told apart outside the loop, or the loop is not vectorised.
        macro_rules! through {
            ($($kind:ident)*) => {
                match activation {
                    $(Activation::$kind => for ((dz, x), g) in dz.iter_mut().zip(x).zip(g) {
                        *dz = g * activation_derivative::<FMA>(x * slope + offset, Activation::$kind);
                    })*
                }
            };
        }
        through!(Identity Tanh Relu Silu Gelu Sigmoid);
        let (dgamma, dbeta) = moments_of(dz, x, mean);
        sums[c] = [dgamma * scale, dbeta];
        of_normal += gamma[c] * dbeta;
        of_product += gamma[c] * dgamma * scale;
    }
    // d normal / d x passes on what is left of the gradient without its mean and its part along `normal`.
    let n = x.len() as f32;
    let along = of_product / n * scale;
    let shift = of_normal / n - along * mean;
    for c in 0..gamma.len() {
        let own = c * pixels..(c + 1) * pixels;
        let factor = gamma[c];
        for (dx, x) in dx[own.clone()].iter_mut().zip(&x[own]) {
            *dx = scale * (factor * *dx - shift - along * x);
        }
    }
}

/// `(sum dz (x - mean), sum dz)` in a fixed order of 16 lanes.
#[inline(always)]
fn moments_of(dz: &[f32], x: &[f32], mean: f32) -> (f32, f32) {
    let (mut products, mut plain) = ([0.0f32; 16], [0.0f32; 16]);
    let (mut a, mut b) = (dz.chunks_exact(16), x.chunks_exact(16));
    for (dz, x) in (&mut a).zip(&mut b) {
        for l in 0..16 {
            products[l] += dz[l] * (x[l] - mean);
            plain[l] += dz[l];
        }
    }
    let (mut product, mut total) = (products.iter().sum::<f32>(), plain.iter().sum::<f32>());
    for (dz, x) in a.remainder().iter().zip(b.remainder()) {
        product += dz * (x - mean);
        total += dz;
    }
    (product, total)
}

#[cfg(test)]
mod tests {
    use super::super::testing::agree;
    use super::*;

    #[test]
    fn agrees_with_the_stock_ops() {
        for (shape, groups, activation) in [
            ([3, 32, 14, 14], 8, Activation::Silu),
            ([2, 6, 7, 7], 3, Activation::Identity),
            ([4, 8, 3, 5], 8, Activation::Silu),
            ([2, 8, 4, 4], 1, Activation::Tanh),
            ([1, 16, 28, 28], 4, Activation::Relu),
        ] {
            let per_channel: &[usize] = &[shape[1]];
            let context = format!("{shape:?} {groups} {activation:?}");
            agree(&context, [&shape, per_channel, per_channel], |[x, gamma, beta], fused| {
                let op = if fused { group_norm } else { stock };
                // A scale and a mean away from 1 and 0 make mistakes in either visible.
                let x = x.mul_scalar(3.0).add_scalar(1.5).reshape(shape);
                op(x, gamma.add_scalar(1.0), beta, groups, 1e-5, activation)
            });
        }
    }

    #[test]
    #[should_panic(expected = "6 channels do not divide into 4 groups")]
    fn groups_must_divide_the_channels() {
        let device = Device::flex();
        let ones = || Tensor::<1>::ones([6], &device);
        group_norm(Tensor::ones([1, 6, 2, 2], &device), ones(), ones(), 4, 1e-5, Activation::Identity);
    }
}
