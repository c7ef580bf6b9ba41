//! Enlarging images by repeating pixels, as one op.

use burn::prelude::*;
use burn::tensor::module::interpolate;
use burn::tensor::ops::{InterpolateMode, InterpolateOptions};
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::host_op::{self, HostOp, Parent, on_host};

/// `x: [N, C, H, W]` to `[N, C, 2 H, 2 W]`: each pixel four times.
pub fn upsample_nearest(x: Tensor<4>) -> Tensor<4> {
    if !on_host(&x) {
        return stock(x);
    }
    let [n, c, h, w] = x.dims();
    host_op::apply([Parent::new(x)], |[x]| {
        let mut y = vec![0.0f32; 4 * n * c * h * w];
        y.par_chunks_mut(4 * h * w).zip(x.storage::<f32>().par_chunks(h * w)).with_min_len(8).for_each(|(y, x)| {
            for (rows, x) in y.chunks_exact_mut(4 * w).zip(x.chunks_exact(w)) {
                let (upper, lower) = rows.split_at_mut(2 * w);
                upper.as_chunks_mut().0.iter_mut().zip(x).for_each(|(pair, x)| *pair = [*x; 2]);
                lower.copy_from_slice(upper);
            }
        });
        (host_op::tensor(y, [n, c, 2 * h, 2 * w]), Upsample { shape: [n, c, h, w] })
    })
}

fn stock(x: Tensor<4>) -> Tensor<4> {
    interpolate(x, InterpolateOptions::new(InterpolateMode::Nearest).with_scale_factor([2.0, 2.0]))
}

#[derive(Clone, Debug)]
struct Upsample {
    shape: [usize; 4],
}

impl HostOp for Upsample {
    fn backward(self, gradient: FlexTensor, _wanted: &[bool]) -> Vec<Option<FlexTensor>> {
        let gradient = host_op::contiguous(&gradient);
        let [n, c, h, w] = self.shape;
        let mut dx = vec![0.0f32; n * c * h * w];
        let planes = dx.par_chunks_mut(h * w).zip(gradient.storage::<f32>().par_chunks(4 * h * w)).with_min_len(8);
        planes.for_each(|(dx, g)| {
            for (dx, rows) in dx.chunks_exact_mut(w).zip(g.chunks_exact(4 * w)) {
                let (upper, lower) = rows.split_at(2 * w);
                let pairs = upper.as_chunks::<2>().0.iter().zip(lower.as_chunks::<2>().0);
                dx.iter_mut().zip(pairs).for_each(|(dx, (a, b))| *dx = (a[0] + a[1]) + (b[0] + b[1]));
            }
        });
        vec![Some(host_op::tensor(dx, self.shape))]
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::agree;
    use super::*;

    #[test]
    fn agrees_with_the_stock_op() {
        agree("nearest", [&[2, 3, 5, 4]], |[x], fused| {
            let op = if fused { upsample_nearest } else { stock };
            op(x.reshape([2, 3, 5, 4]))
        });
    }
}
