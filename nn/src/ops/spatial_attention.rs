//! Self-attention over the positions of an image, channels first, as one op.
//!
//! Scaled dot-product attention (Vaswani et al. 2017, <https://arxiv.org/abs/1706.03762>) without the transposes that
//! the token-first form would need around convolutions.

use std::sync::Arc;

use burn::prelude::*;
use burn::tensor::activation::softmax;
use burn_flex::FlexTensor;
use multiversion::multiversion;
use multiversion::target::target_cfg_f;
use rayon::prelude::*;

use super::host_op::{self, HostOp, Parent, on_host};
use super::kernel::{Read, exp, matmul, sum};

/// Attention among the `H W` positions of each image. `qkv: [N, 3 C, H, W]` holds queries, keys and values one after
/// another, each of `heads` heads of `C / heads` channels; the result is `[N, C, H, W]`.
///
/// # Panics
/// If the channels do not divide into three times `heads`.
pub fn spatial_attention(qkv: Tensor<4>, heads: usize) -> Tensor<4> {
    let [n, channels, h, w] = qkv.dims();
    assert!(
        heads > 0 && channels.is_multiple_of(3 * heads),
        "{channels} channels do not divide into 3 x {heads} heads"
    );
    let shape = Shape { images: n, heads, depth: channels / 3 / heads, height: h, positions: h * w };
    if !on_host(&qkv) {
        return stock(qkv, shape);
    }
    host_op::apply([Parent::new(qkv)], |[qkv]| SpatialAttention::forward(qkv.clone(), shape))
}

fn stock(qkv: Tensor<4>, shape: Shape) -> Tensor<4> {
    let [n, channels, h, w] = qkv.dims();
    let Shape { heads, depth, positions, .. } = shape;
    let part = |i: usize| {
        let part = qkv.clone().slice([0..n, i * channels / 3..(i + 1) * channels / 3]);
        part.reshape([n, heads, depth, positions])
    };
    let scores = part(0).swap_dims(2, 3).matmul(part(1)).mul_scalar(shape.scale());
    part(2).matmul(softmax(scores, 3).swap_dims(2, 3)).reshape([n, channels / 3, h, w])
}

#[derive(Clone, Copy, Debug)]
struct Shape {
    images: usize,
    heads: usize,
    depth: usize,
    height: usize,
    positions: usize,
}

impl Shape {
    fn of_input(self) -> [usize; 4] {
        [self.images, 3 * self.heads * self.depth, self.height, self.positions / self.height]
    }

    fn scale(self) -> f32 {
        1.0 / (self.depth as f32).sqrt()
    }
}

/// The input, and the attention weights `[N, heads, H W, H W]`.
#[derive(Clone, Debug)]
struct SpatialAttention {
    qkv: FlexTensor,
    weights: Arc<Vec<f32>>,
    shape: Shape,
}

impl SpatialAttention {
    fn forward(qkv: FlexTensor, shape: Shape) -> (FlexTensor, Self) {
        let Shape { images, heads, depth: d, positions: p, .. } = shape;
        let mut y = vec![0.0f32; images * heads * d * p];
        let mut weights = vec![0.0f32; images * heads * p * p];
        let values = qkv.storage::<f32>();
        let per_image = y.par_chunks_mut(heads * d * p).zip(weights.par_chunks_mut(heads * p * p));
        per_image.zip(values.par_chunks(3 * heads * d * p)).for_each(|((y, weights), qkv)| {
            for head in 0..heads {
                let part = |i: usize| &qkv[(i * heads + head) * d * p..][..d * p];
                let weights = &mut weights[head * p * p..][..p * p];
                matmul(p, p, d, weights, (part(0), Read::Transposed), (part(1), Read::Plain), false);
                softmax_rows(weights, p, shape.scale());
                let y = &mut y[head * d * p..][..d * p];
                matmul(d, p, p, y, (part(2), Read::Plain), (weights, Read::Transposed), false);
            }
        });
        let output = host_op::tensor(y, [images, heads * d, shape.height, shape.positions / shape.height]);
        (output, Self { qkv, weights: Arc::new(weights), shape })
    }
}

impl HostOp for SpatialAttention {
    fn backward(self, gradient: FlexTensor, _wanted: &[bool]) -> Vec<Option<FlexTensor>> {
        let gradient = host_op::contiguous(&gradient);
        let Shape { heads, depth: d, positions: p, .. } = self.shape;
        let values = self.qkv.storage::<f32>();
        let mut dqkv = vec![0.0f32; values.len()];
        let per_image = dqkv.par_chunks_mut(3 * heads * d * p).zip(values.par_chunks(3 * heads * d * p));
        let per_image = per_image.zip(self.weights.par_chunks(heads * p * p));
        per_image.zip(gradient.storage::<f32>().par_chunks(heads * d * p)).for_each_init(
            || vec![0.0f32; p * p],
            |scores, (((dqkv, qkv), weights), g)| {
                let (dq, dkv) = dqkv.split_at_mut(heads * d * p);
                let (dk, dv) = dkv.split_at_mut(heads * d * p);
                for head in 0..heads {
                    let part = |i: usize| &qkv[(i * heads + head) * d * p..][..d * p];
                    let own = head * d * p..(head + 1) * d * p;
                    let (g, weights) = (&g[own.clone()], &weights[head * p * p..][..p * p]);
                    matmul(d, p, p, &mut dv[own.clone()], (g, Read::Plain), (weights, Read::Plain), false);
                    matmul(p, p, d, scores, (g, Read::Transposed), (part(2), Read::Plain), false);
                    softmax_rows_backward(scores, weights, p, self.shape.scale());
                    matmul(d, p, p, &mut dq[own.clone()], (part(1), Read::Plain), (scores, Read::Transposed), false);
                    matmul(d, p, p, &mut dk[own], (part(0), Read::Plain), (scores, Read::Plain), false);
                }
            },
        );
        vec![Some(host_op::tensor(dqkv, self.shape.of_input()))]
    }
}

/// `softmax(scale x)` along each row of `columns` numbers, in place.
#[multiversion(targets = "simd")]
fn softmax_rows(x: &mut [f32], columns: usize, scale: f32) {
    const FMA: bool = target_cfg_f!(target_feature = "fma");
    for row in x.chunks_exact_mut(columns) {
        let largest = row.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
        row.iter_mut().for_each(|v| *v = exp::<FMA>((*v - largest) * scale));
        let factor = 1.0 / sum(row);
        row.iter_mut().for_each(|v| *v *= factor);
    }
}

/// Turns the gradient of [`softmax_rows`]'s output `y` into that of its input, in place.
#[multiversion(targets = "simd")]
fn softmax_rows_backward(g: &mut [f32], y: &[f32], columns: usize, scale: f32) {
    for (g, y) in g.chunks_exact_mut(columns).zip(y.chunks_exact(columns)) {
        let mut lanes = [0.0f32; 16];
        for (g, y) in g.chunks(16).zip(y.chunks(16)) {
            for l in 0..g.len() {
                lanes[l] += g[l] * y[l];
            }
        }
        let mean = lanes.iter().sum::<f32>();
        g.iter_mut().zip(y).for_each(|(g, y)| *g = scale * y * (*g - mean));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::agree;
    use super::*;

    #[test]
    fn agrees_with_the_stock_ops() {
        for (shape, heads) in [([5, 3 * 64, 7, 7], 1), ([2, 3 * 8, 3, 5], 2), ([1, 3, 4, 4], 1)] {
            let [n, c, h, w] = shape;
            agree(&format!("{shape:?} {heads}"), [&shape], |[qkv], fused| {
                let qkv = qkv.mul_scalar(2.0).reshape(shape);
                let shape = Shape { images: n, heads, depth: c / 3 / heads, height: h, positions: h * w };
                if fused { spatial_attention(qkv, heads) } else { stock(qkv, shape) }
            });
        }
    }
}
