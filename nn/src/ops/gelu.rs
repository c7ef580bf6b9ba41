//! The Gaussian error linear unit (Hendrycks & Gimpel 2016, <https://arxiv.org/abs/1606.08415>), exact to rounding.

use burn::prelude::*;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::host_op::{self, HostOp, Parent, on_host};
use super::kernel::{gelu_backward, gelu_forward};

/// Elements of one unit of parallel work.
const BLOCK: usize = 1 << 14;

/// `x Φ(x)` with the distribution function of the standard normal, elementwise.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if !on_host(&x) {
        return burn::tensor::activation::gelu(x);
    }
    let shape = x.dims();
    host_op::apply([Parent::new(x)], |[x]| {
        let input: &[f32] = x.storage();
        let mut y = vec![0.0; input.len()];
        y.par_chunks_mut(BLOCK).zip(input.par_chunks(BLOCK)).for_each(|(y, x)| gelu_forward(x, y));
        (host_op::tensor(y, shape), Gelu { x: x.clone() })
    })
}

#[derive(Clone, Debug)]
struct Gelu {
    x: FlexTensor,
}

impl HostOp for Gelu {
    fn backward(self, gradient: FlexTensor, _wanted: &[bool]) -> Vec<Option<FlexTensor>> {
        let mut gradient = host_op::contiguous(&gradient);
        let g: &mut [f32] = gradient.storage_mut();
        let x: &[f32] = self.x.storage();
        g.par_chunks_mut(BLOCK).zip(x.par_chunks(BLOCK)).for_each(|(g, x)| gelu_backward(x, g));
        vec![Some(gradient)]
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::agree;
    use super::*;

    #[test]
    fn agrees_with_the_stock_op() {
        agree("gelu", [&[3, 5, 700]], |[x], fused| {
            let x = x.mul_scalar(2.0).reshape([3, 5, 700]);
            if fused { gelu(x) } else { burn::tensor::activation::gelu(x) }
        });
    }
}
