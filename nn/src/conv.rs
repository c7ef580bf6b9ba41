//! Convolutional layers as Burn modules.

use burn::module::Param;
use burn::prelude::*;
use burn::tensor::TensorData;
use hotfire_core::seed::StreamRng;

use crate::ops::{self, Activation};

/// Weights and biases uniform within `1 / sqrt(fan_in)`, as PyTorch's convolution and linear layers start.
fn fan_in_uniform<const D: usize>(
    shape: [usize; D],
    fan_in: usize,
    rng: &mut StreamRng,
    device: &Device,
) -> Param<Tensor<D>> {
    let bound = 1.0 / (fan_in as f32).sqrt();
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| bound * (2.0 * rng.uniform() - 1.0)).collect();
    Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), device))
}

/// A convolution with square kernels.
#[derive(Module, Debug)]
pub struct Conv2d {
    /// `[outputs, inputs, kernel, kernel]`
    weight: Param<Tensor<4>>,
    /// `[outputs]`
    bias: Param<Tensor<1>>,
    #[module(skip)]
    stride: usize,
    #[module(skip)]
    padding: usize,
    #[module(skip)]
    activation: Activation,
}

impl Conv2d {
    /// A layer of `outputs` channels; weights and biases are uniform within `1 / sqrt(inputs kernel^2)`.
    pub fn new(
        [inputs, outputs]: [usize; 2],
        kernel: usize,
        stride: usize,
        padding: usize,
        activation: Activation,
        rng: &mut StreamRng,
        device: &Device,
    ) -> Self {
        let fan_in = inputs * kernel * kernel;
        Self {
            weight: fan_in_uniform([outputs, inputs, kernel, kernel], fan_in, rng, device),
            bias: fan_in_uniform([outputs], fan_in, rng, device),
            stride,
            padding,
            activation,
        }
    }

    /// With weights and biases zero, for a layer that is to start as nothing.
    pub fn zeroed(self) -> Self {
        Self { weight: self.weight.map(|w| w.zeros_like()), bias: self.bias.map(|b| b.zeros_like()), ..self }
    }

    /// `[N, inputs, H, W]` to `[N, outputs, H', W']`; see [`ops::conv2d`].
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        ops::conv2d(x, self.weight.val(), self.bias.val(), self.stride, self.padding, self.activation)
    }
}

/// A transposed convolution with square kernels.
#[derive(Module, Debug)]
pub struct ConvTranspose2d {
    /// `[inputs, outputs, kernel, kernel]`
    weight: Param<Tensor<4>>,
    /// `[outputs]`
    bias: Param<Tensor<1>>,
    #[module(skip)]
    stride: usize,
    #[module(skip)]
    padding: usize,
    #[module(skip)]
    activation: Activation,
}

impl ConvTranspose2d {
    /// A layer of `outputs` channels; weights and biases are uniform within `1 / sqrt(outputs kernel^2)`, as PyTorch's.
    pub fn new(
        [inputs, outputs]: [usize; 2],
        kernel: usize,
        stride: usize,
        padding: usize,
        activation: Activation,
        rng: &mut StreamRng,
        device: &Device,
    ) -> Self {
        let fan_in = outputs * kernel * kernel;
        Self {
            weight: fan_in_uniform([inputs, outputs, kernel, kernel], fan_in, rng, device),
            bias: fan_in_uniform([outputs], fan_in, rng, device),
            stride,
            padding,
            activation,
        }
    }

    /// `[N, inputs, H, W]` to `[N, outputs, H', W']`; see [`ops::conv_transpose2d`].
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        ops::conv_transpose2d(x, self.weight.val(), self.bias.val(), self.stride, self.padding, self.activation)
    }
}

/// Group normalisation with a scale and a shift for each channel.
#[derive(Module, Debug)]
pub struct GroupNorm {
    /// Scale `[channels]`.
    gamma: Param<Tensor<1>>,
    /// Shift `[channels]`.
    beta: Param<Tensor<1>>,
    #[module(skip)]
    groups: usize,
    #[module(skip)]
    activation: Activation,
}

impl GroupNorm {
    /// A layer over `channels` channels in `groups` groups, followed by `activation`.
    pub fn new(channels: usize, groups: usize, activation: Activation, device: &Device) -> Self {
        Self {
            gamma: Param::from_tensor(Tensor::ones([channels], device)),
            beta: Param::from_tensor(Tensor::zeros([channels], device)),
            groups,
            activation,
        }
    }

    /// `[N, C, H, W]` to the same shape; see [`ops::group_norm`].
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        ops::group_norm(x, self.gamma.val(), self.beta.val(), self.groups, 1e-5, self.activation)
    }
}

/// A dense layer.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[inputs, outputs]`
    weight: Param<Tensor<2>>,
    /// `[outputs]`
    bias: Param<Tensor<1>>,
    #[module(skip)]
    activation: Activation,
}

impl Linear {
    /// A layer of `outputs` units; weights and biases are uniform within `1 / sqrt(inputs)`.
    pub fn new([inputs, outputs]: [usize; 2], activation: Activation, rng: &mut StreamRng, device: &Device) -> Self {
        Self {
            weight: fan_in_uniform([inputs, outputs], inputs, rng, device),
            bias: fan_in_uniform([outputs], inputs, rng, device),
            activation,
        }
    }

    /// `[N, inputs]` to `[N, outputs]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        ops::linear_act(x, self.weight.val(), self.bias.val(), self.activation)
    }
}
