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

/// The start of He et al. 2015, <https://arxiv.org/abs/1502.01852>, for layers before a ReLU, from that of
/// [`fan_in_uniform`]: weights within `sqrt(6 / fan_in)`, so that numbers keep their size from layer to layer, and
/// biases zero.
fn he<const D: usize>(weight: Param<Tensor<D>>, bias: Param<Tensor<1>>) -> (Param<Tensor<D>>, Param<Tensor<1>>) {
    // By way of the host: a product of parameters would be a node of the graph, not a parameter.
    fn scaled<const D: usize>(param: &Param<Tensor<D>>, factor: f32) -> Param<Tensor<D>> {
        let (device, shape) = (param.val().device(), param.val().dims());
        let values = param.val().into_data().try_into_vec::<f32>().expect("parameters are 32-bit floats");
        let values: Vec<f32> = values.into_iter().map(|value| factor * value).collect();
        Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), &device))
    }
    (scaled(&weight, 6.0f32.sqrt()), scaled(&bias, 0.0))
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

    /// With He's start, for layers before a ReLU: weights uniform within `sqrt(6 / (inputs kernel^2))`, biases zero.
    pub fn he(self) -> Self {
        let (weight, bias) = he(self.weight, self.bias);
        Self { weight, bias, ..self }
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
    /// A layer of `outputs` channels. Weights and biases are uniform within `1 / sqrt(fan_in)`, where a number of the output
    /// comes from `fan_in = inputs (kernel / stride)^2` numbers (PyTorch counts `outputs kernel^2` instead).
    pub fn new(
        [inputs, outputs]: [usize; 2],
        kernel: usize,
        stride: usize,
        padding: usize,
        activation: Activation,
        rng: &mut StreamRng,
        device: &Device,
    ) -> Self {
        let fan_in = (inputs * kernel * kernel / (stride * stride)).max(1);
        Self {
            weight: fan_in_uniform([inputs, outputs, kernel, kernel], fan_in, rng, device),
            bias: fan_in_uniform([outputs], fan_in, rng, device),
            stride,
            padding,
            activation,
        }
    }

    /// With He's start, for layers before a ReLU: weights uniform within `sqrt(6 / fan_in)`, biases zero.
    pub fn he(self) -> Self {
        let (weight, bias) = he(self.weight, self.bias);
        Self { weight, bias, ..self }
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

    /// With He's start, for layers before a ReLU: weights uniform within `sqrt(6 / inputs)`, biases zero.
    pub fn he(self) -> Self {
        let (weight, bias) = he(self.weight, self.bias);
        Self { weight, bias, ..self }
    }

    /// `[N, inputs]` to `[N, outputs]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        ops::linear_act(x, self.weight.val(), self.bias.val(), self.activation)
    }
}

#[cfg(test)]
mod tests {
    use hotfire_core::seed::stream;

    use super::*;
    use crate::{Adam, AdamConfig};

    fn largest(tensor: Tensor<1>) -> f32 {
        tensor.abs().max().into_scalar::<f32>()
    }

    /// Weights have the bound of the formula, and both they and the biases learn.
    #[test]
    fn hes_start_keeps_its_bound_and_learns() {
        let device = Device::flex().autodiff();
        let mut rng = stream(1, "test", 0);
        let conv = Conv2d::new([4, 16], 3, 1, 1, Activation::Relu, &mut rng, &device).he();
        let transposed = ConvTranspose2d::new([16, 4], 4, 2, 1, Activation::Relu, &mut rng, &device).he();
        let dense = Linear::new([4 * 12 * 12, 8], Activation::Identity, &mut rng, &device).he();
        for (weights, fan_in) in [
            (conv.weight.val().flatten::<1>(0, 3), 36.0f32),
            (transposed.weight.val().flatten(0, 3), 64.0),
            (dense.weight.val().flatten(0, 1), 576.0),
        ] {
            let bound = (6.0 / fan_in).sqrt();
            let found = largest(weights);
            assert!(found <= bound && found > 0.95 * bound, "{found} against {bound}");
        }
        let x = Tensor::<4>::ones([2, 4, 6, 6], &device);
        let y: Tensor<2> = transposed.forward(conv.forward(x)).flatten(1, 3);
        let gradients = dense.forward(y).square().mean().backward();
        let adam = || Adam::new(AdamConfig::default());
        let before = [conv.weight.val().flatten::<1>(0, 3), conv.bias.val()];
        let (conv, _) = adam().step(conv, gradients, 1e-2);
        let after = [conv.weight.val().flatten::<1>(0, 3), conv.bias.val()];
        for (before, after) in before.into_iter().zip(after) {
            assert!(largest(after - before) > 5e-3, "a layer that does not learn");
        }
    }
}
