//! Weight initialisation from a generator of the caller's, so that a seed fixes the network on every device.

use burn::prelude::*;
use burn::tensor::TensorData;
use hotfire_core::seed::StreamRng;

/// A `[rows, columns]` matrix with orthonormal rows or columns (whichever are fewer), times `gain`.
///
/// Saxe et al. 2014, <https://arxiv.org/abs/1312.6120>: the orthogonal factor of a Gaussian matrix, here by
/// Gram-Schmidt in double precision, whose positive diagonal makes the distribution uniform over rotations.
pub fn orthogonal(rows: usize, columns: usize, gain: f64, rng: &mut StreamRng, device: &Device) -> Tensor<2> {
    let (count, length) = (rows.min(columns), rows.max(columns));
    let mut basis: Vec<Vec<f64>> = Vec::with_capacity(count);
    while basis.len() < count {
        let mut v: Vec<f64> = (0..length).map(|_| f64::from(rng.normal())).collect();
        // The second pass removes what rounding left of the first.
        for _ in 0..2 {
            for u in &basis {
                let dot: f64 = u.iter().zip(&v).map(|(a, b)| a * b).sum();
                v.iter_mut().zip(u).for_each(|(v, u)| *v -= dot * u);
            }
        }
        let norm = v.iter().map(|x| x * x).sum::<f64>().sqrt();
        if norm > 1e-6 {
            v.iter_mut().for_each(|x| *x /= norm);
            basis.push(v);
        }
    }
    let element = |r: usize, c: usize| if rows <= columns { basis[r][c] } else { basis[c][r] };
    let values: Vec<f32> = (0..rows * columns).map(|i| (gain * element(i / columns, i % columns)) as f32).collect();
    Tensor::from_data(TensorData::new(values, [rows, columns]), device)
}

/// A `[rows, columns]` matrix of uniform draws from `[-bound, bound]`.
pub fn uniform(rows: usize, columns: usize, bound: f64, rng: &mut StreamRng, device: &Device) -> Tensor<2> {
    let values: Vec<f32> = (0..rows * columns).map(|_| (bound * (2.0 * rng.uniform_f64() - 1.0)) as f32).collect();
    Tensor::from_data(TensorData::new(values, [rows, columns]), device)
}

/// Independent normal numbers with mean zero and the given standard deviation.
pub fn normal<const D: usize>(shape: [usize; D], std: f64, rng: &mut StreamRng, device: &Device) -> Tensor<D> {
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| std as f32 * rng.normal()).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

#[cfg(test)]
mod tests {
    use hotfire_core::seed::stream;

    use super::*;

    #[test]
    fn rows_or_columns_are_orthonormal_times_the_gain() {
        for (rows, columns) in [(4, 64), (64, 64), (64, 2)] {
            let mut rng = stream(3, "test", 0);
            let w = orthogonal(rows, columns, 0.5, &mut rng, &Device::flex());
            let gram = if rows <= columns { w.clone().matmul(w.transpose()) } else { w.clone().transpose().matmul(w) };
            let n = rows.min(columns);
            let gram: Vec<f32> = gram.into_data().try_to_vec().unwrap();
            for i in 0..n {
                for j in 0..n {
                    let want = if i == j { 0.25 } else { 0.0 };
                    assert!((gram[i * n + j] - want).abs() < 1e-6, "{rows}x{columns} at [{i}, {j}]");
                }
            }
        }
    }
}
