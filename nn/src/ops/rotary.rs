//! Rotary position embedding (Su et al. 2021, <https://arxiv.org/abs/2104.09864>), in the form that pairs the first half
//! of a head with the second.

use burn::prelude::*;
use burn::tensor::TensorData;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::host_op::{self, HostOp, Parent, on_host};

/// Turns the pairs `(i, i + D/2)` of each head of `x: [B, T, H * D]` by `position * 10000^(-2i/D)`, where the first of
/// the `T` positions is `start`: the dot product of two turned vectors depends on their distance alone.
///
/// # Panics
/// If the heads don't divide the width into even parts.
pub fn rotary(x: Tensor<3>, heads: usize, start: usize) -> Tensor<3> {
    let [batch, length, width] = x.dims();
    let half = width / heads / 2;
    assert_eq!(width, heads * half * 2, "rotary: {heads} heads divide a width of {width} into even parts");
    let (cos, sin): (Vec<f32>, Vec<f32>) = (start..start + length)
        .flat_map(|position| {
            (0..half).map(move |i| {
                let angle = position as f64 * 10_000f64.powf(-(i as f64) / half as f64);
                (angle.cos() as f32, angle.sin() as f32)
            })
        })
        .unzip();
    if !on_host(&x) {
        let device = x.device();
        let table = |values| Tensor::<4>::from_data(TensorData::new(values, [1, length, 1, half]), &device);
        return stock(x, heads, table(cos), table(sin));
    }
    host_op::apply([Parent::new(x)], |[x]| {
        let mut y = x.storage::<f32>().to_vec();
        let op = Rotary { cos, sin, half };
        op.turn(&mut y, 1.0, length * width);
        (host_op::tensor(y, [batch, length, width]), op)
    })
}

fn stock(x: Tensor<3>, heads: usize, cos: Tensor<4>, sin: Tensor<4>) -> Tensor<3> {
    let [batch, length, width] = x.dims();
    let half = width / heads / 2;
    let x: Tensor<4> = x.reshape([batch, length, heads, 2 * half]);
    let (a, b) = (x.clone().narrow(3, 0, half), x.narrow(3, half, half));
    let first = a.clone() * cos.clone() - b.clone() * sin.clone();
    let second = b * cos + a * sin;
    Tensor::cat(vec![first, second], 3).reshape([batch, length, width])
}

/// `[T, D/2]` tables.
#[derive(Clone, Debug)]
struct Rotary {
    cos: Vec<f32>,
    sin: Vec<f32>,
    half: usize,
}

impl Rotary {
    fn turn(&self, x: &mut [f32], direction: f32, sequence: usize) {
        let half = self.half;
        if x.is_empty() {
            return;
        }
        x.par_chunks_mut(sequence).for_each(|x| {
            let positions = self.cos.len() / half;
            for (t, row) in x.chunks_exact_mut(sequence / positions).enumerate() {
                let (cos, sin) = (&self.cos[t * half..][..half], &self.sin[t * half..][..half]);
                for head in row.chunks_exact_mut(2 * half) {
                    let (a, b) = head.split_at_mut(half);
                    for i in 0..half {
                        let (first, second, sin) = (a[i], b[i], direction * sin[i]);
                        a[i] = first * cos[i] - second * sin;
                        b[i] = second * cos[i] + first * sin;
                    }
                }
            }
        });
    }
}

impl HostOp for Rotary {
    /// The transpose of a rotation is the rotation back.
    fn backward(self, gradient: FlexTensor, _wanted: &[bool]) -> Vec<Option<FlexTensor>> {
        let mut gradient = host_op::contiguous(&gradient);
        let shape = gradient.layout().shape();
        let sequence = shape[1] * shape[2];
        self.turn(gradient.storage_mut(), -1.0, sequence);
        vec![Some(gradient)]
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::agree;
    use super::*;

    #[test]
    fn agrees_with_the_stock_ops() {
        let (length, half, start) = (9, 4, 3);
        let table = |f: fn(f64) -> f64| {
            let values: Vec<f32> = (0..length * half)
                .map(|i| f((start + i / half) as f64 * 10_000f64.powf(-((i % half) as f64) / half as f64)) as f32)
                .collect();
            Tensor::<4>::from_data(TensorData::new(values, [1, length, 1, half]), &Device::flex().autodiff())
        };
        agree("rotary", [&[2, length, 24]], |[x], fused| {
            let x = x.reshape([2, length, 24]);
            if fused { rotary(x, 3, start) } else { stock(x, 3, table(f64::cos), table(f64::sin)) }
        });
    }

    #[test]
    fn dot_products_depend_on_the_distance_alone() {
        let vector = |step: usize| {
            let values: Vec<f32> = (0..16).map(|i| ((i * step) % 13) as f32 / 6.0 - 1.0).collect();
            Tensor::<3>::from_data(TensorData::new(values, [1, 1, 16]), &Device::flex())
        };
        let (q, k) = (vector(5), vector(7));
        let dot = |i: usize, j: usize| (rotary(q.clone(), 2, i) * rotary(k.clone(), 2, j)).sum().into_scalar::<f32>();
        assert!((dot(7, 3) - dot(104, 100)).abs() < 1e-4);
        assert!((dot(7, 3) - dot(7, 5)).abs() > 1e-3);
    }
}
