//! Multi-head self-attention (Vaswani et al. 2017, <https://arxiv.org/abs/1706.03762>, section 3.2.2), with a cache of
//! keys and values for generation.

use burn::prelude::*;
use hotfire_core::seed::StreamRng;

use crate::ops::{self, AttentionMask};
use crate::transformer::Projection;

/// Self-attention in several heads.
#[derive(Module, Debug)]
pub struct MultiHeadAttention {
    /// Queries, `[C, C]`.
    pub query: Projection,
    /// Keys, `[C, C]`.
    pub key: Projection,
    /// Values, `[C, C]`.
    pub value: Projection,
    /// What the heads found, brought together: `[C, C]`.
    pub output: Projection,
    #[module(skip)]
    heads: usize,
    #[module(skip)]
    rotary: bool,
}

/// Keys and values `[B, T, C]` of the positions that an attention layer has seen.
#[derive(Clone, Debug, Default)]
pub struct KeyValueCache {
    seen: Option<(Tensor<3>, Tensor<3>)>,
}

impl KeyValueCache {
    /// Number of positions.
    pub fn len(&self) -> usize {
        self.seen.as_ref().map_or(0, |(keys, _)| keys.dims()[1])
    }

    /// Whether no position was seen.
    pub fn is_empty(&self) -> bool {
        self.seen.is_none()
    }

    /// Adds positions and returns all.
    fn extend(&mut self, k: Tensor<3>, v: Tensor<3>) -> (Tensor<3>, Tensor<3>) {
        let all = match self.seen.take() {
            Some((keys, values)) => (Tensor::cat(vec![keys, k], 1), Tensor::cat(vec![values, v], 1)),
            None => (k, v),
        };
        self.seen.insert(all).clone()
    }
}

impl MultiHeadAttention {
    /// `width` channels in `heads` heads; `stds` are the standard deviations of the weights of queries, keys and
    /// values, and of the output. `rotary` turns queries and keys by their positions.
    ///
    /// # Panics
    /// If the heads don't divide the width.
    pub fn new(
        [width, heads]: [usize; 2],
        bias: bool,
        rotary: bool,
        stds: [f64; 2],
        rng: &mut StreamRng,
        device: &Device,
    ) -> Self {
        assert!(heads > 0 && width.is_multiple_of(heads), "{heads} heads divide a width of {width}");
        let mut projection = |std| Projection::new([width, width], bias, std, rng, device);
        Self {
            query: projection(stds[0]),
            key: projection(stds[0]),
            value: projection(stds[0]),
            output: projection(stds[1]),
            heads,
            rotary,
        }
    }

    /// `x: [B, T, C]` to `[B, T, C]`. With a cache, `x` are the positions after those that the cache has seen.
    pub fn forward(&self, x: Tensor<3>, mask: AttentionMask<'_>, cache: Option<&mut KeyValueCache>) -> Tensor<3> {
        let start = cache.as_ref().map_or(0, |cache| cache.len());
        let (q, k) = self.queries_and_keys(&x, start);
        let v = self.value.forward(x);
        let (k, v) = match cache {
            Some(cache) => cache.extend(k, v),
            None => (k, v),
        };
        self.output.forward(ops::attention(q, k, v, self.heads, mask))
    }

    /// The weights with which each position (row) attends to each (column), of each head: `[B, H, T, T]`.
    pub fn weights(&self, x: &Tensor<3>, mask: AttentionMask<'_>) -> Tensor<4> {
        let (q, k) = self.queries_and_keys(x, 0);
        ops::attention_weights(q, k, self.heads, mask)
    }

    fn queries_and_keys(&self, x: &Tensor<3>, start: usize) -> (Tensor<3>, Tensor<3>) {
        let (q, k) = (self.query.forward(x.clone()), self.key.forward(x.clone()));
        if self.rotary { (ops::rotary(q, self.heads, start), ops::rotary(k, self.heads, start)) } else { (q, k) }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;
    use hotfire_core::seed::stream;

    use super::*;

    fn input(device: &Device) -> Tensor<3> {
        let mut values = vec![0.0; 2 * 6 * 16];
        stream(1, "input", 0).fill_normal(&mut values);
        Tensor::from_data(TensorData::new(values, [2, 6, 16]), device)
    }

    #[test]
    fn a_cache_gives_what_the_whole_sequence_gives() {
        let device = Device::flex();
        for rotary in [false, true] {
            let layer = MultiHeadAttention::new([16, 4], true, rotary, [0.5; 2], &mut stream(2, "weights", 0), &device);
            let x = input(&device);
            let whole = layer.forward(x.clone(), AttentionMask::CAUSAL, None);
            let mut cache = KeyValueCache::default();
            let mut parts = Vec::new();
            for range in [0..3, 3..4, 4..6] {
                let part = x.clone().narrow(1, range.start, range.len());
                parts.push(layer.forward(part, AttentionMask::CAUSAL, Some(&mut cache)));
            }
            assert_eq!(cache.len(), 6);
            let difference = (whole - Tensor::cat(parts, 1)).abs().max().into_scalar::<f32>();
            assert!(difference < 1e-5, "rotary {rotary}: {difference}");
        }
    }

    #[test]
    fn weights_are_distributions_over_what_may_be_seen() {
        let device = Device::flex();
        let layer = MultiHeadAttention::new([16, 4], false, false, [0.5; 2], &mut stream(2, "weights", 0), &device);
        let weights: Vec<f32> =
            layer.weights(&input(&device), AttentionMask::CAUSAL).into_data().try_into_vec().unwrap();
        assert_eq!(weights.len(), 2 * 4 * 6 * 6);
        for (i, row) in weights.chunks_exact(6).enumerate() {
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            assert!(row[i % 6 + 1..].iter().all(|w| *w == 0.0));
        }
    }
}
