//! Scaled dot-product attention (Vaswani et al. 2017, <https://arxiv.org/abs/1706.03762>, equation 1) over heads that
//! lie side by side in the last dimension.
//!
//! On the CPU one op reads the heads where they lie, without transposing copies, keeps the weights for the backward
//! pass, and runs a sequence of the batch per unit of parallel work.

use std::sync::Arc;

use burn::prelude::*;
use burn_flex::FlexTensor;
use multiversion::multiversion;
use multiversion::target::target_cfg_f;
use rayon::prelude::*;

use super::host_op::{self, HostOp, Parent, on_host};
use super::kernel::{View, lane_sum, matmul_strided, softmax_row};
use super::softmax::softmax;

/// Which keys a query may attend to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttentionMask<'a> {
    /// Whether the queries are the last `Tq` of the `Tk` positions, and see none after their own.
    pub causal: bool,
    /// The number of keys of each sequence that are no padding; all without it. Padding stands at the end.
    pub lengths: Option<&'a [usize]>,
}

impl AttentionMask<'_> {
    /// Each position sees itself and those before it.
    pub const CAUSAL: Self = Self { causal: true, lengths: None };

    /// The number of keys, counted from the first, that query `i` of sequence `b` may see.
    fn visible(&self, b: usize, i: usize, queries: usize, keys: usize) -> usize {
        let causal = if self.causal { i + 1 + keys - queries } else { keys };
        self.lengths.map_or(causal, |lengths| causal.min(lengths[b]))
    }

    fn check(&self, batch: usize, queries: usize, keys: usize) {
        assert!(!self.causal || keys >= queries, "attention: {queries} causal queries see {keys} keys");
        if let Some(lengths) = self.lengths {
            assert_eq!(lengths.len(), batch, "attention: one length a sequence");
            let long = lengths.iter().find(|length| **length > keys);
            assert!(long.is_none(), "attention: length {long:?} of {keys} keys");
        }
    }
}

/// `softmax(Q K^T / sqrt(D)) V` in each head: `q: [B, Tq, H * D]`, `k` and `v: [B, Tk, H * D]`, to `[B, Tq, H * D]`.
/// A query that sees no key gives zeros.
///
/// # Panics
/// If shapes or mask don't fit each other.
pub fn attention(q: Tensor<3>, k: Tensor<3>, v: Tensor<3>, heads: usize, mask: AttentionMask<'_>) -> Tensor<3> {
    let ([batch, queries, width], [_, keys, _]) = (q.dims(), k.dims());
    assert_eq!(k.dims(), v.dims(), "attention: keys and values are alike");
    assert_eq!(k.dims(), [batch, keys, width], "attention: queries and keys have one batch and width");
    assert!(heads > 0 && width % heads == 0, "attention: {heads} heads divide a width of {width}");
    mask.check(batch, queries, keys);
    if !on_host(&q) {
        return stock(q, k, v, heads, mask);
    }
    let shape = Shape { batch, queries, keys, heads, size: width / heads };
    host_op::apply([Parent::new(q), Parent::new(k), Parent::new(v)], |[q, k, v]| {
        let visible: Vec<u32> =
            (0..batch).flat_map(|b| (0..queries).map(move |i| mask.visible(b, i, queries, keys) as u32)).collect();
        let mut weights = vec![0.0; batch * heads * queries * keys];
        let mut y = vec![0.0; batch * queries * width];
        if !y.is_empty() && keys > 0 {
            y.par_chunks_mut(queries * width).zip(weights.par_chunks_mut(heads * queries * keys)).enumerate().for_each(
                |(b, (y, weights))| {
                    let rows = |t: &FlexTensor, n: usize| -> std::ops::Range<usize> {
                        debug_assert_eq!(t.layout().shape()[1], n);
                        b * n * width..(b + 1) * n * width
                    };
                    shape.forward(
                        &q.storage::<f32>()[rows(q, queries)],
                        &k.storage::<f32>()[rows(k, keys)],
                        &v.storage::<f32>()[rows(v, keys)],
                        &visible[b * queries..(b + 1) * queries],
                        weights,
                        y,
                    );
                },
            );
        }
        let op = Attention { shape, q: q.clone(), k: k.clone(), v: v.clone(), weights: Arc::new(weights) };
        (host_op::tensor(y, [batch, queries, width]), op)
    })
}

/// `softmax(Q K^T / sqrt(D))` of each head, `[B, H, Tq, Tk]`: what [`attention`] weighs the values with.
///
/// # Panics
/// As [`attention`].
pub fn attention_weights(q: Tensor<3>, k: Tensor<3>, heads: usize, mask: AttentionMask<'_>) -> Tensor<4> {
    let ([batch, queries, width], [_, keys, _]) = (q.dims(), k.dims());
    mask.check(batch, queries, keys);
    let device = q.device();
    let split = |t: Tensor<3>| {
        let [batch, length, width] = t.dims();
        t.reshape([batch, length, heads, width / heads]).swap_dims(1, 2)
    };
    let scale = 1.0 / ((width / heads) as f64).sqrt();
    let scores = split(q).matmul(split(k).swap_dims(2, 3)).mul_scalar(scale);
    let visible = |b: usize, i: usize| mask.visible(b, i, queries, keys);
    let hidden: Vec<bool> = (0..batch * queries)
        .flat_map(|row| (0..keys).map(move |j| j >= visible(row / queries, row % queries)))
        .collect();
    if !hidden.contains(&true) {
        return softmax(scores);
    }
    let hidden = Tensor::<4, Bool>::from_data(TensorData::new(hidden, [batch, 1, queries, keys]), &device)
        .expand([batch, heads, queries, keys]);
    // A row without any visible key is even after the softmax; the second mask makes it zero.
    softmax(scores.mask_fill(hidden.clone(), -1e30)).mask_fill(hidden, 0.0)
}

fn stock(q: Tensor<3>, k: Tensor<3>, v: Tensor<3>, heads: usize, mask: AttentionMask<'_>) -> Tensor<3> {
    let [batch, queries, width] = q.dims();
    let keys = k.dims()[1];
    let weights = attention_weights(q, k, heads, mask);
    let v = v.reshape([batch, keys, heads, width / heads]).swap_dims(1, 2);
    weights.matmul(v).swap_dims(1, 2).reshape([batch, queries, width])
}

#[derive(Clone, Copy, Debug)]
struct Shape {
    batch: usize,
    queries: usize,
    keys: usize,
    heads: usize,
    size: usize,
}

impl Shape {
    fn scale(&self) -> f32 {
        1.0 / (self.size as f32).sqrt()
    }

    /// Head `h` of `[T, H * D]` as `[T, D]`.
    fn head<'a>(&self, rows: &'a [f32], h: usize) -> View<'a> {
        View { data: &rows[h * self.size..], row_stride: self.heads * self.size, column_stride: 1 }
    }

    fn weights<'a>(&self, weights: &'a [f32]) -> View<'a> {
        View { data: weights, row_stride: self.keys, column_stride: 1 }
    }

    /// One sequence: `q: [Tq, H * D]`, `k` and `v: [Tk, H * D]`, `weights: [H, Tq, Tk]`, `y: [Tq, H * D]`.
    fn forward(&self, q: &[f32], k: &[f32], v: &[f32], visible: &[u32], weights: &mut [f32], y: &mut [f32]) {
        let Self { queries, keys, heads, size, .. } = *self;
        for (h, weights) in weights.chunks_exact_mut(queries * keys).enumerate() {
            let (q, k) = (self.head(q, h), self.head(k, h).transposed());
            matmul_strided([queries, keys, size], weights, keys, q, k, self.scale(), false);
            masked_softmax(weights, visible, keys);
            let y = &mut y[h * size..];
            matmul_strided([queries, size, keys], y, heads * size, self.weights(weights), self.head(v, h), 1.0, false);
        }
    }

    /// Gradients of one sequence from `g: [Tq, H * D]`.
    fn backward(&self, parents: [&[f32]; 3], weights: &[f32], g: &[f32], gradients: [&mut [f32]; 3]) {
        let Self { queries, keys, heads, size, .. } = *self;
        let ([q, k, v], [dq, dk, dv]) = (parents, gradients);
        let width = heads * size;
        let mut ds = vec![0.0; queries * keys];
        for (h, weights) in weights.chunks_exact(queries * keys).enumerate() {
            let at = h * size;
            let (g, weights_view) = (self.head(g, h), self.weights(weights));
            matmul_strided([keys, size, queries], &mut dv[at..], width, weights_view.transposed(), g, 1.0, false);
            matmul_strided([queries, keys, size], &mut ds, keys, g, self.head(v, h).transposed(), 1.0, false);
            score_gradient(&mut ds, weights, keys, self.scale());
            let ds = self.weights(&ds);
            matmul_strided([queries, size, keys], &mut dq[at..], width, ds, self.head(k, h), 1.0, false);
            matmul_strided([keys, size, queries], &mut dk[at..], width, ds.transposed(), self.head(q, h), 1.0, false);
        }
    }
}

#[derive(Clone, Debug)]
struct Attention {
    shape: Shape,
    q: FlexTensor,
    k: FlexTensor,
    v: FlexTensor,
    weights: Arc<Vec<f32>>,
}

impl HostOp for Attention {
    fn backward(self, gradient: FlexTensor, _wanted: &[bool]) -> Vec<Option<FlexTensor>> {
        let s = self.shape;
        let width = s.heads * s.size;
        let gradient = host_op::contiguous(&gradient);
        let (of_queries, of_keys) = (s.queries * width, s.keys * width);
        let [mut dq, mut dk, mut dv] = [of_queries, of_keys, of_keys].map(|n| vec![0.0f32; s.batch * n]);
        if of_queries > 0 && of_keys > 0 {
            let (q, k, v, g): (&[f32], &[f32], &[f32], &[f32]) =
                (self.q.storage(), self.k.storage(), self.v.storage(), gradient.storage());
            dq.par_chunks_mut(of_queries)
                .zip(dk.par_chunks_mut(of_keys))
                .zip(dv.par_chunks_mut(of_keys))
                .enumerate()
                .for_each(|(b, ((dq, dk), dv))| {
                    let queries = b * of_queries..(b + 1) * of_queries;
                    let keys = b * of_keys..(b + 1) * of_keys;
                    let weights = s.heads * s.queries * s.keys;
                    s.backward(
                        [&q[queries.clone()], &k[keys.clone()], &v[keys]],
                        &self.weights[b * weights..(b + 1) * weights],
                        &g[queries],
                        [dq, dk, dv],
                    );
                });
        }
        vec![
            Some(host_op::tensor(dq, [s.batch, s.queries, width])),
            Some(host_op::tensor(dk, [s.batch, s.keys, width])),
            Some(host_op::tensor(dv, [s.batch, s.keys, width])),
        ]
    }
}

/// Softmax over the visible part of each row; zeros behind it.
#[multiversion(targets = "simd")]
fn masked_softmax(rows: &mut [f32], visible: &[u32], keys: usize) {
    const FMA: bool = target_cfg_f!(target_feature = "fma");
    for (row, visible) in rows.chunks_exact_mut(keys).zip(visible) {
        let (seen, hidden) = row.split_at_mut(*visible as usize);
        if !seen.is_empty() {
            softmax_row::<FMA>(seen);
        }
        hidden.fill(0.0);
    }
}

/// Turns the gradient of the weights into that of the unscaled scores: `scale w (g - sum(g w))`.
#[multiversion(targets = "simd")]
fn score_gradient(g: &mut [f32], weights: &[f32], keys: usize, scale: f32) {
    for (g, w) in g.chunks_exact_mut(keys).zip(weights.chunks_exact(keys)) {
        let dot = lane_sum(g.iter().zip(w).map(|(g, w)| g * w));
        g.iter_mut().zip(w).for_each(|(g, w)| *g = scale * w * (*g - dot));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::agree;
    use super::*;

    /// Two queries, two keys, two dimensions: the scores are 1/sqrt(2) on the diagonal and 0 beside it, so a query
    /// gives its own key e^0.7071 / (e^0.7071 + 1) = 0.66976.
    #[test]
    fn equals_the_numbers_computed_by_hand() {
        let device = Device::flex();
        let eye = Tensor::<3>::from_floats([[[1.0, 0.0], [0.0, 1.0]]], &device);
        let v = Tensor::<3>::from_floats([[[1.0, 2.0], [3.0, 4.0]]], &device);
        let close = |got: Vec<f32>, want: &[f32]| {
            assert!(got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-5), "{got:?} against {want:?}");
        };
        let values = |t: Tensor<3>| t.into_data().try_into_vec::<f32>().unwrap();
        let weights = attention_weights(eye.clone(), eye.clone(), 1, AttentionMask::default());
        close(weights.into_data().try_into_vec().unwrap(), &[0.669_76, 0.330_24, 0.330_24, 0.669_76]);
        let z = attention(eye.clone(), eye.clone(), v.clone(), 1, AttentionMask::default());
        close(values(z), &[1.660_48, 2.660_48, 2.339_52, 3.339_52]);
        let z = attention(eye.clone(), eye.clone(), v.clone(), 1, AttentionMask::CAUSAL);
        close(values(z), &[1.0, 2.0, 2.339_52, 3.339_52]);
        let padded = AttentionMask { causal: false, lengths: Some(&[1]) };
        close(values(attention(eye.clone(), eye, v, 1, padded)), &[1.0, 2.0, 1.0, 2.0]);
    }

    #[test]
    fn agrees_with_the_stock_ops() {
        let lengths = [5, 70, 0];
        let masks = [
            AttentionMask::default(),
            AttentionMask::CAUSAL,
            AttentionMask { causal: false, lengths: Some(&lengths) },
            AttentionMask { causal: true, lengths: Some(&lengths) },
        ];
        for mask in masks {
            for (queries, keys) in [(70, 70), (3, 70)] {
                let (of_queries, of_keys) = ([3, queries, 24], [3, keys, 24]);
                let shapes: [&[usize]; 3] = [&of_queries, &of_keys, &of_keys];
                agree(&format!("{mask:?}, {queries} queries"), shapes, |[q, k, v], fused| {
                    let op = if fused { attention } else { stock };
                    let [q, k, v] = [q, k, v].map(|x| x.mul_scalar(2.0));
                    op(q.reshape(of_queries), k.reshape(of_keys), v.reshape(of_keys), 3, mask)
                });
            }
        }
    }
}
