//! Dense layers whose weights are disturbed by noise of learned size, as a way to explore.
//!
//! Fortunato et al. 2018, "Noisy networks for exploration", <https://arxiv.org/abs/1706.10295>, with factorised Gaussian
//! noise (equations 10 and 11): a layer draws one number for each input and each output, not one for each weight.

use burn::module::Param;
use burn::prelude::*;
use burn::tensor::TensorData;
use hotfire_core::seed::StreamRng;

use crate::export::ExportLayer;
use crate::ops::{Activation, Layer, mlp};
use crate::{CompiledMlp, Mlp};

/// An [`Mlp`] with a scale of noise for each weight and bias, or with none: then it is the [`Mlp`].
#[derive(Module, Debug)]
pub struct NoisyMlp {
    /// The means of the parameters.
    mean: Mlp,
    /// The scales of the noise; no layers if there is none.
    scale: Mlp,
}

/// One draw of noise: for each layer `f(x)` of standard normal `x`, with `f(x) = sign(x) sqrt(|x|)`.
#[derive(Clone, Debug)]
pub struct Noise {
    /// `[inputs]` and `[outputs]` of each layer.
    layers: Vec<(Tensor<1>, Tensor<1>)>,
}

impl NoisyMlp {
    /// Layers without noise, as [`Mlp::uniform`].
    pub fn plain(sizes: &[usize], activation: Activation, rng: &mut StreamRng, device: &Device) -> Self {
        let mean = Mlp::uniform(sizes, activation, rng, device);
        Self { mean, scale: Mlp::uniform(&sizes[..1], activation, rng, device) }
    }

    /// Layers with noise: means uniform in `[-1, 1] / sqrt(inputs)`, all scales `std / sqrt(inputs)`.
    pub fn noisy(sizes: &[usize], activation: Activation, std: f64, rng: &mut StreamRng, device: &Device) -> Self {
        let scale = |inputs: usize| std / (inputs as f64).sqrt();
        Self {
            mean: Mlp::uniform(sizes, activation, rng, device),
            scale: Mlp::from_parameters(
                sizes.windows(2).map(|s| {
                    let (weight, bias) =
                        (Tensor::full([s[0], s[1]], scale(s[0]), device), Tensor::full([s[1]], scale(s[0]), device));
                    (Param::from_tensor(weight), Param::from_tensor(bias))
                }),
                activation,
            ),
        }
    }

    /// Draws noise for all layers; nothing for layers without noise.
    pub fn draw(&self, rng: &mut StreamRng, device: &Device) -> Noise {
        let mut draw = |len: usize| {
            let values: Vec<f32> = (0..len)
                .map(|_| {
                    let x = rng.normal();
                    x.abs().sqrt().copysign(x)
                })
                .collect();
            Tensor::from_data(TensorData::new(values, [len]), device)
        };
        let layers = self.scale.layers(Activation::Identity);
        Noise { layers: layers.iter().map(|(w, b, _)| (draw(w.dims()[0]), draw(b.dims()[0]))).collect() }
    }

    /// `[N, inputs]` to `[N, outputs]` with this noise; the means alone without.
    pub fn forward(&self, x: Tensor<2>, noise: Option<&Noise>) -> Tensor<2> {
        match noise {
            Some(noise) if !noise.layers.is_empty() => mlp(x, self.layers(Some(noise))),
            _ => self.mean.forward(x),
        }
    }

    /// The network with layer normalisation, as [`Mlp::with_layer_norm`]; it must be without noise.
    pub fn with_layer_norm(mut self) -> Self {
        assert!(self.mean_scale().is_none(), "noisy layers are not normalised");
        self.mean = self.mean.with_layer_norm();
        self
    }

    /// Whether hidden layers are normalised, so that [`NoisyMlp::layers`] is not the whole network.
    pub fn is_normalized(&self) -> bool {
        self.mean.is_normalized()
    }

    /// The layers without noise, for use outside, the last one with the activation `output`.
    pub fn export(&self, output: Activation) -> Vec<ExportLayer> {
        self.mean.export(output)
    }

    /// A snapshot for acting, with this noise; the means alone without.
    pub fn compile(&self, noise: Option<&Noise>) -> CompiledMlp {
        match noise {
            Some(noise) if !noise.layers.is_empty() => CompiledMlp::new(self.layers(Some(noise))),
            _ => self.mean.compile(),
        }
    }

    /// The layers as [`mlp`] takes them, with this noise; the means alone without.
    pub fn layers(&self, noise: Option<&Noise>) -> Vec<Layer> {
        let mut layers = self.mean.layers(Activation::Identity);
        let Some(noise) = noise else { return layers };
        let scales = self.scale.layers(Activation::Identity);
        for ((layer, scale), (input, output)) in layers.iter_mut().zip(scales).zip(&noise.layers) {
            let outer = input.clone().unsqueeze_dim::<2>(1) * output.clone().unsqueeze_dim::<2>(0);
            layer.0 = layer.0.clone() + scale.0 * outer;
            layer.1 = layer.1.clone() + scale.1 * output.clone();
        }
        layers
    }

    /// Mean size of the noise scales of the weights; `None` without noise. Reading it waits for the device.
    pub fn mean_scale(&self) -> Option<f64> {
        let layers = self.scale.layers(Activation::Identity);
        let weights: usize = layers.iter().map(|layer| layer.0.shape().num_elements()).sum();
        let sum: f64 = layers.into_iter().map(|layer| f64::from(layer.0.abs().sum().into_scalar::<f32>())).sum();
        (weights > 0).then(|| sum / weights as f64)
    }
}

#[cfg(test)]
mod tests {
    use hotfire_core::seed::stream;

    use super::*;

    fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().try_to_vec().unwrap()
    }

    /// Outputs have the mean of the noiseless network and the spread that the scales give: for one linear layer with
    /// inputs of one, the variance is `s^2 (K E[f^2]^2 + E[f^2])` with `E[f(x)^2] = E|x| = sqrt(2 / pi)`.
    #[test]
    fn noise_has_the_stated_spread() {
        let device = Device::flex();
        let mut rng = stream(3, "test", 0);
        let layer = NoisyMlp::noisy(&[4, 1], Activation::Relu, 0.5, &mut rng, &device);
        let x = Tensor::ones([1, 4], &device);
        let mean = f64::from(values(layer.forward(x.clone(), None))[0]);
        let (mut sum, mut squares) = (0.0, 0.0);
        for _ in 0..20_000 {
            let noise = layer.draw(&mut rng, &device);
            let y = f64::from(values(layer.forward(x.clone(), Some(&noise)))[0]) - mean;
            sum += y;
            squares += y * y;
        }
        let e = (2.0 / std::f64::consts::PI).sqrt();
        let want = 0.25f64.powi(2) * (4.0 * e * e + e);
        assert!((sum / 20_000.0).abs() < 0.01, "{}", sum / 20_000.0);
        assert!((squares / 20_000.0 / want - 1.0).abs() < 0.06, "{} against {want}", squares / 20_000.0);
        assert!((layer.mean_scale().unwrap() - 0.25).abs() < 1e-6);
    }

    /// `dL/d mean` is the gradient of the weight, `dL/d scale` that times the noise.
    #[test]
    fn both_means_and_scales_get_their_gradients() {
        let device = Device::flex().autodiff();
        let mut rng = stream(4, "test", 0);
        let layer = NoisyMlp::noisy(&[3, 2], Activation::Relu, 0.5, &mut rng, &device);
        let noise = layer.draw(&mut rng, &device);
        let x = Tensor::<2>::from_floats([[1.0, -2.0, 0.5]], &device);
        let gradients = layer.forward(x, Some(&noise)).sum().backward();
        let of = |mlp: &Mlp| {
            let (w, b, _) = mlp.layers(Activation::Identity).remove(0);
            (values(w.grad(&gradients).unwrap()), values(b.grad(&gradients).unwrap()))
        };
        let (input, output) = (values(noise.layers[0].0.clone()), values(noise.layers[0].1.clone()));
        let (mean, scale) = (of(&layer.mean), of(&layer.scale));
        assert_eq!(mean, (vec![1.0, 1.0, -2.0, -2.0, 0.5, 0.5], vec![1.0, 1.0]));
        assert_eq!(scale.1, output);
        for i in 0..3 {
            for o in 0..2 {
                assert!((scale.0[i * 2 + o] - mean.0[i * 2 + o] * input[i] * output[o]).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn without_noise_it_is_a_plain_network() {
        let device = Device::flex();
        let mut rng = stream(5, "test", 0);
        let layer = NoisyMlp::plain(&[3, 8, 2], Activation::Tanh, &mut rng, &device);
        let noise = layer.draw(&mut rng, &device);
        let x = Tensor::<2>::from_floats([[1.0, -2.0, 0.5]], &device);
        assert_eq!(values(layer.forward(x.clone(), Some(&noise))), values(layer.forward(x.clone(), None)));
        assert_eq!(values(layer.forward(x.clone(), None)), values(layer.mean.forward(x)));
        assert_eq!(layer.mean_scale(), None);
    }
}
