//! Dense linear algebra in double precision, for matrices of a few hundred rows.

/// Eigenvalues, largest first, and eigenvectors (row `i` belongs to value `i`) of a symmetric `[n, n]` matrix.
///
/// Cyclic Jacobi rotations (Golub and Van Loan, "Matrix Computations", algorithm 8.5.3).
///
/// # Panics
/// If `matrix` is not `n * n` long.
pub fn symmetric_eigen(matrix: &[f64], n: usize) -> (Vec<f64>, Vec<f64>) {
    assert_eq!(matrix.len(), n * n, "a square matrix");
    let mut a = matrix.to_vec();
    let mut v = vec![0.0; n * n];
    (0..n).for_each(|i| v[i * n + i] = 1.0);
    let scale: f64 = a.iter().map(|x| x * x).sum();
    for _ in 0..60 {
        let off: f64 = (0..n).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| a[i * n + j].powi(2)).sum();
        if off <= 1e-26 * scale {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                let apq = a[p * n + q];
                if apq == 0.0 {
                    continue;
                }
                let theta = (a[q * n + q] - a[p * n + p]) / (2.0 * apq);
                let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
                let t = if theta == 0.0 { 1.0 } else { t };
                let c = 1.0 / (t * t + 1.0).sqrt();
                let s = t * c;
                // Rows p and q, then columns p and q; the vectors are kept as rows.
                rotate(&mut a, n, p, q, c, s);
                for k in 0..n {
                    let (x, y) = (a[k * n + p], a[k * n + q]);
                    a[k * n + p] = c * x - s * y;
                    a[k * n + q] = s * x + c * y;
                }
                rotate(&mut v, n, p, q, c, s);
            }
        }
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|i, j| a[j * n + j].total_cmp(&a[i * n + i]));
    let values = order.iter().map(|i| a[i * n + i]).collect();
    let vectors = order.iter().flat_map(|i| v[i * n..(i + 1) * n].to_vec()).collect();
    (values, vectors)
}

fn rotate(m: &mut [f64], n: usize, p: usize, q: usize, c: f64, s: f64) {
    let (head, tail) = m.split_at_mut(q * n);
    for (x, y) in head[p * n..(p + 1) * n].iter_mut().zip(&mut tail[..n]) {
        (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
    }
}

/// The product of two `[n, n]` matrices.
pub(super) fn product(a: &[f64], b: &[f64], n: usize) -> Vec<f64> {
    let mut c = vec![0.0; n * n];
    for i in 0..n {
        for k in 0..n {
            let x = a[i * n + k];
            for j in 0..n {
                c[i * n + j] += x * b[k * n + j];
            }
        }
    }
    c
}

/// The symmetric square root of a positive semidefinite `[n, n]` matrix.
pub(super) fn square_root(matrix: &[f64], n: usize) -> Vec<f64> {
    let (values, vectors) = symmetric_eigen(matrix, n);
    let mut scaled = vectors.clone();
    for (row, value) in scaled.chunks_exact_mut(n).zip(&values) {
        row.iter_mut().for_each(|x| *x *= value.max(0.0).sqrt());
    }
    let mut transposed = vec![0.0; n * n];
    for i in 0..n {
        for j in 0..n {
            transposed[j * n + i] = vectors[i * n + j];
        }
    }
    product(&transposed, &scaled, n)
}

/// Mean `[d]` and covariance `[d, d]` (with `n - 1`) of `[n, d]` numbers.
pub(crate) fn mean_and_covariance(rows: &[f32], d: usize) -> (Vec<f64>, Vec<f64>) {
    let n = (rows.len() / d) as f64;
    let mut mean = vec![0.0f64; d];
    for row in rows.chunks_exact(d) {
        mean.iter_mut().zip(row).for_each(|(m, x)| *m += f64::from(*x) / n);
    }
    let mut covariance = vec![0.0f64; d * d];
    let mut centred = vec![0.0f64; d];
    for row in rows.chunks_exact(d) {
        centred.iter_mut().zip(row.iter().zip(&mean)).for_each(|(c, (x, m))| *c = f64::from(*x) - m);
        for (i, line) in covariance.chunks_exact_mut(d).enumerate() {
            let x = centred[i];
            line.iter_mut().zip(&centred).for_each(|(c, y)| *c += x * y);
        }
    }
    covariance.iter_mut().for_each(|c| *c /= (n - 1.0).max(1.0));
    (mean, covariance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eigenvalues_and_vectors_rebuild_the_matrix() {
        let n = 9;
        let b: Vec<f64> = (0..n * n).map(|i| ((i * 7919 + 13) % 101) as f64 / 50.0 - 1.0).collect();
        let a: Vec<f64> =
            (0..n * n).map(|i| (0..n).map(|k| b[i / n * n + k] * b[i % n * n + k]).sum::<f64>()).collect();
        let (values, vectors) = symmetric_eigen(&a, n);
        assert!(values.windows(2).all(|pair| pair[0] >= pair[1]));
        for i in 0..n {
            for j in 0..n {
                let rebuilt: f64 = (0..n).map(|k| values[k] * vectors[k * n + i] * vectors[k * n + j]).sum();
                assert!((rebuilt - a[i * n + j]).abs() < 1e-10);
            }
        }
        let root = square_root(&a, n);
        let squared = product(&root, &root, n);
        assert!(squared.iter().zip(&a).all(|(x, y)| (x - y).abs() < 1e-9));
    }

    #[test]
    fn a_two_by_two_matrix_has_the_eigenvalues_of_the_formula() {
        let (values, _) = symmetric_eigen(&[2.0, 1.0, 1.0, 2.0], 2);
        assert!((values[0] - 3.0).abs() < 1e-12 && (values[1] - 1.0).abs() < 1e-12);
        let (mean, covariance) = mean_and_covariance(&[1.0, 2.0, 3.0, 6.0], 2);
        assert_eq!((mean, covariance), (vec![2.0, 4.0], vec![2.0, 4.0, 4.0, 8.0]));
    }
}
