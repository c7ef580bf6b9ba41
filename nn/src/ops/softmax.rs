//! Softmax over the last dimension.

use burn::prelude::*;
use burn_flex::FlexTensor;
use multiversion::multiversion;
use multiversion::target::target_cfg_f;
use rayon::prelude::*;

use super::host_op::{self, HostOp, Parent, on_host};
use super::kernel::{lane_sum, row_block, softmax_row};

/// `exp(x) / sum(exp(x))` over the last dimension.
pub fn softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if !on_host(&x) {
        return burn::tensor::activation::softmax(x, D - 1);
    }
    let shape = x.dims();
    let columns = shape[D - 1];
    host_op::apply([Parent::new(x)], |[x]| {
        let mut y = x.storage::<f32>().to_vec();
        if !y.is_empty() {
            let block = row_block(y.len() / columns) * columns;
            y.par_chunks_mut(block).for_each(|rows| softmax_rows(rows, columns));
        }
        let y = host_op::tensor(y, shape);
        (y.clone(), Softmax { y, columns })
    })
}

#[derive(Clone, Debug)]
struct Softmax {
    y: FlexTensor,
    columns: usize,
}

impl HostOp for Softmax {
    fn backward(self, gradient: FlexTensor, _wanted: &[bool]) -> Vec<Option<FlexTensor>> {
        let mut gradient = host_op::contiguous(&gradient);
        let (y, columns) = (self.y.storage::<f32>(), self.columns);
        if !y.is_empty() {
            let block = row_block(y.len() / columns) * columns;
            let g: &mut [f32] = gradient.storage_mut();
            g.par_chunks_mut(block).zip(y.par_chunks(block)).for_each(|(g, y)| softmax_backward_rows(g, y, columns));
        }
        vec![Some(gradient)]
    }
}

#[multiversion(targets = "simd")]
fn softmax_rows(rows: &mut [f32], columns: usize) {
    const FMA: bool = target_cfg_f!(target_feature = "fma");
    for row in rows.chunks_exact_mut(columns) {
        softmax_row::<FMA>(row);
    }
}

/// Turns the gradient of a softmax's rows into that of its inputs: `y (g - sum(g y))`.
#[multiversion(targets = "simd")]
fn softmax_backward_rows(g: &mut [f32], y: &[f32], columns: usize) {
    for (g, y) in g.chunks_exact_mut(columns).zip(y.chunks_exact(columns)) {
        let dot = lane_sum(g.iter().zip(y).map(|(g, y)| g * y));
        g.iter_mut().zip(y).for_each(|(g, y)| *g = y * (*g - dot));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::agree;
    use super::*;

    #[test]
    fn agrees_with_the_stock_op() {
        for shape in [[2, 3, 65], [1, 200, 7]] {
            agree("softmax", [&shape], |[x], fused| {
                let x = x.mul_scalar(2.0).reshape(shape);
                if fused { softmax(x) } else { burn::tensor::activation::softmax(x, 2) }
            });
        }
    }

    #[test]
    fn nan_is_not_hidden() {
        let x = Tensor::<1>::from_floats([0.0, f32::NAN, 1.0], &Device::flex());
        let y: Vec<f32> = softmax(x).into_data().try_to_vec().unwrap();
        assert!(y.iter().all(|y| y.is_nan()), "{y:?}");
    }
}
