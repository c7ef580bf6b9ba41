//! Transformer blocks (Vaswani et al. 2017, <https://arxiv.org/abs/1706.03762>), normalised before each sublayer as in
//! GPT-2 or after it as in BERT, and the layers they are made of.

use burn::module::Param;
use burn::prelude::*;
use burn::tensor::TensorData;
use hotfire_core::seed::StreamRng;

use crate::attention::{KeyValueCache, MultiHeadAttention};
use crate::init::normal;
use crate::ops::{self, Activation, AttentionMask};

/// A linear map of the last dimension.
#[derive(Module, Debug)]
pub struct Projection {
    /// `[inputs, outputs]`
    pub weight: Param<Tensor<2>>,
    /// `[outputs]`
    pub bias: Option<Param<Tensor<1>>>,
}

impl Projection {
    /// Normal weights with the given standard deviation; the bias, if any, is zero.
    pub fn new([inputs, outputs]: [usize; 2], bias: bool, std: f64, rng: &mut StreamRng, device: &Device) -> Self {
        Self {
            weight: Param::from_tensor(normal([inputs, outputs], std, rng, device)),
            bias: bias.then(|| Param::from_tensor(Tensor::zeros([outputs], device))),
        }
    }

    /// `[..., inputs]` to `[..., outputs]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        ops::linear(x, self.weight.val(), self.bias.as_ref().map(Param::val))
    }

    fn layer(&self, activation: Activation) -> (Tensor<2>, Tensor<1>, Activation) {
        let weight = self.weight.val();
        let bias = match &self.bias {
            Some(bias) => bias.val(),
            None => Tensor::zeros([weight.dims()[1]], &weight.device()),
        };
        (weight, bias, activation)
    }
}

/// Layer normalisation of the last dimension.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// Gain `[C]`.
    pub weight: Param<Tensor<1>>,
    /// Offset `[C]`.
    pub bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    epsilon: f64,
}

impl LayerNorm {
    /// Gain one and offset zero, where there is one.
    pub fn new(width: usize, bias: bool, epsilon: f64, device: &Device) -> Self {
        Self {
            weight: Param::from_tensor(Tensor::ones([width], device)),
            bias: bias.then(|| Param::from_tensor(Tensor::zeros([width], device))),
            epsilon,
        }
    }

    /// `[..., C]` to `[..., C]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        ops::layer_norm(x, self.weight.val(), self.bias.as_ref().map(Param::val), self.epsilon)
    }
}

/// Sets elements to zero at random while training (Srivastava et al. 2014), from a stream of the caller's.
#[derive(Clone, Debug, Default)]
pub struct Dropout {
    active: Option<(f32, StreamRng)>,
}

impl Dropout {
    /// No dropout, as when evaluating.
    pub fn off() -> Self {
        Self::default()
    }

    /// Drops elements with probability `rate`, below 1, and scales the others by `1 / (1 - rate)`.
    pub fn new(rate: f64, rng: StreamRng) -> Self {
        Self { active: (rate > 0.0).then_some((rate as f32, rng)) }
    }

    /// A thinned tensor; the same one where dropout is off.
    pub fn apply<const D: usize>(&mut self, x: Tensor<D>) -> Tensor<D> {
        let Some((rate, rng)) = &mut self.active else { return x };
        let scale = 1.0 / (1.0 - *rate);
        let mask: Vec<f32> =
            (0..x.shape().num_elements()).map(|_| if rng.uniform() < *rate { 0.0 } else { scale }).collect();
        let mask = Tensor::from_data(TensorData::new(mask, x.shape()), &x.device());
        x * mask
    }
}

/// Where the layer normalisations of a block stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormPlace {
    /// Before attention and network, inside the residual branch (GPT-2).
    Before,
    /// After the residual sum (the original, BERT).
    After,
}

/// What distinguishes one Transformer's blocks from another's.
#[derive(Clone, Copy, Debug)]
pub struct BlockConfig {
    /// Channels `C`.
    pub width: usize,
    /// Heads, which divide the width.
    pub heads: usize,
    /// Units of the network between the two linear maps.
    pub hidden: usize,
    /// Whether linear maps and normalisations have biases.
    pub bias: bool,
    /// Whether queries and keys are turned by their positions.
    pub rotary: bool,
    /// Where the normalisations stand.
    pub norm: NormPlace,
    /// Epsilon of the normalisations.
    pub epsilon: f64,
    /// Standard deviation of the weights.
    pub std: f64,
    /// Standard deviation of the weights at the end of each residual branch.
    pub residual_std: f64,
}

/// Attention and a network of two layers with GELU, each with a residual connection.
#[derive(Module, Debug)]
pub struct TransformerBlock {
    /// Attention among the positions.
    pub attention: MultiHeadAttention,
    /// Normalisation of the attention's input or output.
    pub attention_norm: LayerNorm,
    /// `[C, hidden]`
    pub expand: Projection,
    /// `[hidden, C]`
    pub contract: Projection,
    /// Normalisation of the network's input or output.
    pub network_norm: LayerNorm,
    #[module(skip)]
    norm: NormPlace,
}

impl TransformerBlock {
    /// A block with random weights.
    pub fn new(config: &BlockConfig, rng: &mut StreamRng, device: &Device) -> Self {
        let BlockConfig { width, heads, hidden, bias, rotary, norm, epsilon, std, residual_std } = *config;
        Self {
            attention: MultiHeadAttention::new([width, heads], bias, rotary, [std, residual_std], rng, device),
            attention_norm: LayerNorm::new(width, bias, epsilon, device),
            expand: Projection::new([width, hidden], bias, std, rng, device),
            contract: Projection::new([hidden, width], bias, residual_std, rng, device),
            network_norm: LayerNorm::new(width, bias, epsilon, device),
            norm,
        }
    }

    /// `x: [B, T, C]` to `[B, T, C]`; with a cache, `x` are the positions after those that it has seen.
    pub fn forward(
        &self,
        x: Tensor<3>,
        mask: AttentionMask<'_>,
        dropout: &mut Dropout,
        cache: Option<&mut KeyValueCache>,
    ) -> Tensor<3> {
        match self.norm {
            NormPlace::Before => {
                let found = self.attention.forward(self.attention_norm.forward(x.clone()), mask, cache);
                let x = x + dropout.apply(found);
                let found = self.network(self.network_norm.forward(x.clone()));
                x + dropout.apply(found)
            }
            NormPlace::After => {
                let found = self.attention.forward(x.clone(), mask, cache);
                let x = self.attention_norm.forward(x + dropout.apply(found));
                let found = self.network(x.clone());
                self.network_norm.forward(x + dropout.apply(found))
            }
        }
    }

    /// The attention weights `[B, H, T, T]` on the block's input.
    pub fn attention_weights(&self, x: &Tensor<3>, mask: AttentionMask<'_>) -> Tensor<4> {
        match self.norm {
            NormPlace::Before => self.attention.weights(&self.attention_norm.forward(x.clone()), mask),
            NormPlace::After => self.attention.weights(x, mask),
        }
    }

    fn network(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, length, width] = x.dims();
        let x: Tensor<2> = x.reshape([batch * length, width]);
        ops::mlp(x, vec![self.expand.layer(Activation::Gelu), self.contract.layer(Activation::Identity)])
            .reshape([batch, length, width])
    }
}

#[cfg(test)]
mod tests {
    use hotfire_core::seed::stream;

    use super::*;

    #[test]
    fn dropout_keeps_the_mean_and_repeats_with_its_stream() {
        let x = Tensor::<1>::ones([20_000], &Device::flex());
        let drop = |x: &Tensor<1>| Dropout::new(0.3, stream(1, "dropout", 5)).apply(x.clone());
        let values: Vec<f32> = drop(&x).into_data().try_into_vec().unwrap();
        let zeros = values.iter().filter(|v| **v == 0.0).count() as f32 / 20_000.0;
        assert!((zeros - 0.3).abs() < 0.015, "{zeros}");
        assert!((values.iter().sum::<f32>() / 20_000.0 - 1.0).abs() < 0.02);
        assert_eq!(values, drop(&x).into_data().try_into_vec::<f32>().unwrap());
        let kept: Vec<f32> = Dropout::off().apply(x).into_data().try_into_vec().unwrap();
        assert!(kept.iter().all(|v| *v == 1.0));
    }
}
