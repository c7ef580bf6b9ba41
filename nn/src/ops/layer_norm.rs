//! Layer normalisation (Ba et al. 2016, <https://arxiv.org/abs/1607.06450>) over the last dimension.

use std::sync::Arc;

use burn::prelude::*;
use burn_flex::FlexTensor;
use multiversion::multiversion;
use rayon::prelude::*;

use super::host_op::{self, HostOp, Parent, on_host};
use super::kernel::{lane_sum, row_block};

/// `(x - mean) / sqrt(variance + epsilon) * weight + bias` over the last dimension of `x: [..., C]`, with `weight: [C]`
/// and `bias: [C]`.
pub fn layer_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>, bias: Option<Tensor<1>>, epsilon: f64) -> Tensor<D> {
    if !on_host(&x) {
        return stock(x, weight, bias, epsilon);
    }
    let shape = x.dims();
    let columns = shape[D - 1];
    assert_eq!(weight.dims(), [columns], "layer_norm: the weight is as long as the last dimension");
    let forward = |x: &FlexTensor, weight: &FlexTensor, bias: Option<&FlexTensor>| {
        let input: &[f32] = x.storage();
        let mut y = vec![0.0; input.len()];
        let mut stats = vec![[0.0f32; 2]; input.len() / columns];
        let block = row_block(stats.len());
        y.par_chunks_mut(block * columns)
            .zip(input.par_chunks(block * columns))
            .zip(stats.par_chunks_mut(block))
            .for_each(|((y, x), stats)| {
                let bias = bias.map_or(&[][..], |bias| bias.storage());
                forward_rows(x, weight.storage(), bias, epsilon as f32, y, stats);
            });
        let op = LayerNorm { x: x.clone(), weight: weight.clone(), stats: Arc::new(stats), has_bias: bias.is_some() };
        (host_op::tensor(y, shape), op)
    };
    match bias {
        Some(bias) => host_op::apply([Parent::new(x), Parent::new(weight), Parent::new(bias)], |[x, weight, bias]| {
            forward(x, weight, Some(bias))
        }),
        None => host_op::apply([Parent::new(x), Parent::new(weight)], |[x, weight]| forward(x, weight, None)),
    }
}

fn stock<const D: usize>(x: Tensor<D>, weight: Tensor<1>, bias: Option<Tensor<1>>, epsilon: f64) -> Tensor<D> {
    let (variance, mean) = x.clone().var_mean_bias(D - 1);
    let y = (x - mean) / variance.add_scalar(epsilon).sqrt() * weight.unsqueeze();
    match bias {
        Some(bias) => y + bias.unsqueeze(),
        None => y,
    }
}

#[derive(Clone, Debug)]
struct LayerNorm {
    x: FlexTensor,
    weight: FlexTensor,
    /// Mean and inverse standard deviation of each row.
    stats: Arc<Vec<[f32; 2]>>,
    has_bias: bool,
}

impl HostOp for LayerNorm {
    fn backward(self, gradient: FlexTensor, _wanted: &[bool]) -> Vec<Option<FlexTensor>> {
        let shape = gradient.layout().shape().clone();
        let mut gradient = host_op::contiguous(&gradient);
        let weight: &[f32] = self.weight.storage();
        let columns = weight.len();
        let block = row_block(self.stats.len());
        let g: &mut [f32] = gradient.storage_mut();
        let partial: Vec<(Vec<f32>, Vec<f32>)> = g
            .par_chunks_mut(block * columns)
            .zip(self.x.storage::<f32>().par_chunks(block * columns))
            .zip(self.stats.par_chunks(block))
            .map(|((g, x), stats)| {
                let (mut dw, mut db) = (vec![0.0; columns], vec![0.0; columns]);
                backward_rows(g, x, weight, stats, &mut dw, &mut db);
                (dw, db)
            })
            .collect();
        let (mut dw, mut db) = (vec![0.0f32; columns], vec![0.0f32; columns]);
        for (dw_part, db_part) in &partial {
            dw.iter_mut().zip(dw_part).for_each(|(a, b)| *a += b);
            db.iter_mut().zip(db_part).for_each(|(a, b)| *a += b);
        }
        debug_assert_eq!(&shape, gradient.layout().shape());
        let mut gradients = vec![Some(gradient), Some(host_op::tensor(dw, [columns]))];
        if self.has_bias {
            gradients.push(Some(host_op::tensor(db, [columns])));
        }
        gradients
    }
}

/// Normalises the rows of `x`, with `weight` and `bias`, in place.
pub(crate) fn layer_norm_rows(x: &mut [f32], weight: &[f32], bias: &[f32], epsilon: f32) {
    let (input, mut stats) = (x.to_vec(), vec![[0.0; 2]; x.len() / weight.len()]);
    forward_rows(&input, weight, bias, epsilon, x, &mut stats);
}

/// `bias` may be empty. `stats` receives each row's mean and inverse standard deviation.
#[multiversion(targets = "simd")]
fn forward_rows(x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32, y: &mut [f32], stats: &mut [[f32; 2]]) {
    let n = weight.len();
    let scale = 1.0 / n as f32;
    for ((x, y), stats) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)).zip(stats) {
        let mean = lane_sum(x.iter().copied()) * scale;
        let variance = lane_sum(x.iter().map(|x| (x - mean) * (x - mean))) * scale;
        let inverse = 1.0 / (variance + epsilon).sqrt();
        *stats = [mean, inverse];
        if bias.is_empty() {
            y.iter_mut().zip(x).zip(weight).for_each(|((y, x), w)| *y = (x - mean) * inverse * w);
        } else {
            y.iter_mut()
                .zip(x)
                .zip(weight.iter().zip(bias))
                .for_each(|((y, x), (w, b))| *y = (x - mean) * inverse * w + b);
        }
    }
}

/// Turns the rows' gradient into that of the input, and adds to the gradients of weight and bias.
#[multiversion(targets = "simd")]
fn backward_rows(g: &mut [f32], x: &[f32], weight: &[f32], stats: &[[f32; 2]], dw: &mut [f32], db: &mut [f32]) {
    let n = weight.len();
    let scale = 1.0 / n as f32;
    for ((g, x), [mean, inverse]) in g.chunks_exact_mut(n).zip(x.chunks_exact(n)).zip(stats) {
        dw.iter_mut().zip(&*g).zip(x).for_each(|((dw, g), x)| *dw += g * (x - mean) * inverse);
        db.iter_mut().zip(&*g).for_each(|(db, g)| *db += g);
        g.iter_mut().zip(weight).for_each(|(g, w)| *g *= w);
        let mean_g = lane_sum(g.iter().copied()) * scale;
        let mean_gx = lane_sum(g.iter().zip(x).map(|(g, x)| g * (x - mean))) * scale * inverse;
        g.iter_mut().zip(x).for_each(|(g, x)| *g = inverse * (*g - mean_g - (x - mean) * inverse * mean_gx));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::agree;
    use super::*;

    #[test]
    fn agrees_with_the_stock_ops() {
        for shape in [[1, 2, 5], [3, 70, 128]] {
            let row: &[usize] = &[shape[2]];
            let op = |fused: bool| if fused { layer_norm } else { stock };
            agree("with a bias", [&shape, row, row], |[x, w, b], fused| op(fused)(x.reshape(shape), w, Some(b), 1e-5));
            agree("without", [&shape, row], |[x, w], fused| op(fused)(x.reshape(shape), w, None, 1e-5));
        }
    }
}
