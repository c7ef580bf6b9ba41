//! Multi-layer perceptrons, as a Burn module and as a snapshot of plain matrices for acting.

use burn::module::Param;
use burn::prelude::*;
use hotfire_core::seed::StreamRng;

use crate::export::ExportLayer;
use crate::init::{orthogonal, uniform};
use crate::ops::kernel::{Dense, activate};
use crate::ops::{Activation, Layer, layer_norm, layer_norm_rows, linear_act, mlp, stock_activation};

/// Dense layers with one hidden activation and a linear output.
#[derive(Module, Debug)]
pub struct Mlp {
    /// Weights `[inputs, outputs]` of each layer.
    weights: Vec<Param<Tensor<2>>>,
    /// Biases `[outputs]` of each layer.
    biases: Vec<Param<Tensor<1>>>,
    /// Scales and offsets `[outputs]` of the hidden layers' normalisation; none without.
    norms: Vec<(Param<Tensor<1>>, Param<Tensor<1>>)>,
    #[module(skip)]
    activation: Activation,
}

/// Added to the variance that a normalised layer divides by.
const NORM_EPSILON: f64 = 1e-6;

impl Mlp {
    /// Orthogonal weights, gain `sqrt(2)` in the hidden layers and `output_gain` in the last, zero biases: the usual
    /// choice for policy gradients (Andrychowicz et al. 2021, <https://arxiv.org/abs/2006.05990>).
    ///
    /// `sizes` are the widths from input to output, at least two of them.
    pub fn orthogonal(
        sizes: &[usize],
        activation: Activation,
        output_gain: f64,
        rng: &mut StreamRng,
        device: &Device,
    ) -> Self {
        let last = sizes.len() - 2;
        let gain = |layer| if layer == last { output_gain } else { std::f64::consts::SQRT_2 };
        Self {
            weights: (0..=last)
                .map(|l| Param::from_tensor(orthogonal(sizes[l], sizes[l + 1], gain(l), rng, device)))
                .collect(),
            biases: (0..=last).map(|l| Param::from_tensor(Tensor::zeros([sizes[l + 1]], device))).collect(),
            norms: Vec::new(),
            activation,
        }
    }

    /// Weights and biases uniform in `[-1, 1] / sqrt(inputs)`, layer by layer: PyTorch's default, and so what published
    /// value-based agents start from.
    ///
    /// `sizes` are the widths from input to output; with one width there is no layer.
    pub fn uniform(sizes: &[usize], activation: Activation, rng: &mut StreamRng, device: &Device) -> Self {
        let bound = |s: &[usize]| 1.0 / (s[0] as f64).sqrt();
        let draws = sizes.windows(2).map(|s| {
            let weight = uniform(s[0], s[1], bound(s), rng, device);
            let bias = uniform(1, s[1], bound(s), rng, device).squeeze_dim(0);
            (Param::from_tensor(weight), Param::from_tensor(bias))
        });
        Self::from_parameters(draws, activation)
    }

    /// Layers of these weights `[inputs, outputs]` and biases `[outputs]`.
    pub(crate) fn from_parameters(
        layers: impl Iterator<Item = (Param<Tensor<2>>, Param<Tensor<1>>)>,
        activation: Activation,
    ) -> Self {
        let (weights, biases) = layers.unzip();
        Self { weights, biases, norms: Vec::new(), activation }
    }

    /// The network with layer normalisation (Ba et al. 2016, <https://arxiv.org/abs/1607.06450>) before the activation
    /// of each hidden layer.
    pub fn with_layer_norm(mut self) -> Self {
        let hidden = &self.biases[..self.biases.len() - 1];
        let param = |value: f64, bias: &Param<Tensor<1>>| {
            let bias = bias.val();
            Param::from_tensor(Tensor::full(bias.shape(), value, &bias.device()))
        };
        self.norms = hidden.iter().map(|bias| (param(1.0, bias), param(0.0, bias))).collect();
        self
    }

    /// Whether hidden layers are normalised.
    pub fn is_normalized(&self) -> bool {
        !self.norms.is_empty()
    }

    /// `[N, inputs]` to `[N, outputs]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let mut layers = self.layers(Activation::Identity);
        if self.norms.is_empty() {
            return mlp(x, layers);
        }
        let output = layers.split_off(self.norms.len());
        let hidden = layers.into_iter().zip(&self.norms).fold(x, |x, ((weight, bias, activation), (scale, offset))| {
            let z = linear_act(x, weight, bias, Activation::Identity);
            stock_activation(layer_norm(z, scale.val(), Some(offset.val()), NORM_EPSILON), activation)
        });
        mlp(hidden, output)
    }

    /// The layers as [`mlp`] takes them, the last one with the activation `output`; normalisation is left out.
    pub fn layers(&self, output: Activation) -> Vec<Layer> {
        let last = self.weights.len().saturating_sub(1);
        let activation = |l| if l == last { output } else { self.activation };
        let layers = self.weights.iter().zip(&self.biases).enumerate();
        layers.map(|(l, (w, b))| (w.val(), b.val(), activation(l))).collect()
    }

    /// The layers for use outside, the last one with the activation `output`.
    pub fn export(&self, output: Activation) -> Vec<ExportLayer> {
        let mut exported = Vec::new();
        for (l, (weight, bias, activation)) in self.layers(output).into_iter().enumerate() {
            let (weight, bias) = (read(weight.into_data()), read(bias.into_data()));
            let Some((scale, offset)) = self.norms.get(l) else {
                exported.push(ExportLayer::Dense { weight, bias, activation });
                continue;
            };
            exported.push(ExportLayer::Dense { weight, bias, activation: Activation::Identity });
            exported.push(ExportLayer::LayerNorm {
                scale: read(scale.val().into_data()),
                offset: read(offset.val().into_data()),
                epsilon: NORM_EPSILON as f32,
                activation,
            });
        }
        exported
    }

    /// A snapshot of the weights for acting on the host. Reading it back waits for the device.
    pub fn compile(&self) -> CompiledMlp {
        let mut compiled = CompiledMlp::new(self.layers(Activation::Identity));
        for (layer, (scale, offset)) in compiled.layers.iter_mut().zip(&self.norms) {
            layer.norm = Some((read(scale.val().into_data()), read(offset.val().into_data())));
        }
        compiled
    }
}

fn read(data: TensorData) -> Vec<f32> {
    data.try_into_vec::<f32>().expect("parameters are 32-bit floats")
}

/// An [`Mlp`] as plain matrices: the same kernels without tensors, graph or allocation, for small batches.
#[derive(Clone, Debug)]
pub struct CompiledMlp {
    layers: Vec<CompiledLayer>,
    scratch: [Vec<f32>; 2],
}

#[derive(Clone, Debug)]
struct CompiledLayer {
    weight: Vec<f32>,
    bias: Vec<f32>,
    norm: Option<(Vec<f32>, Vec<f32>)>,
    activation: Activation,
}

impl CompiledMlp {
    /// A snapshot of layers, at least one of them. Reading it back waits for the device.
    pub fn new(layers: Vec<Layer>) -> Self {
        let compiled = layers.into_iter().map(|(weight, bias, activation)| CompiledLayer {
            weight: read(weight.into_data()),
            bias: read(bias.into_data()),
            norm: None,
            activation,
        });
        Self { layers: compiled.collect(), scratch: [Vec::new(), Vec::new()] }
    }

    /// Width of the output.
    pub fn outputs(&self) -> usize {
        self.layers.last().map_or(0, |layer| layer.bias.len())
    }

    /// `x: [N, inputs]` to `[N, outputs]`, both row-major; the result is valid until the next call.
    pub fn forward(&mut self, x: &[f32]) -> &[f32] {
        let rows = x.len() * self.layers[0].bias.len() / self.layers[0].weight.len();
        let [a, b] = &mut self.scratch;
        for (l, layer) in self.layers.iter().enumerate() {
            b.resize(rows * layer.bias.len(), 0.0);
            let activation = if layer.norm.is_some() { Activation::Identity } else { layer.activation };
            let dense = Dense { weight: &layer.weight, bias: &layer.bias, activation };
            dense.forward(if l == 0 { x } else { a }, b, None);
            if let Some((scale, offset)) = &layer.norm {
                layer_norm_rows(b, scale, offset, NORM_EPSILON as f32);
                activate(b, layer.activation);
            }
            std::mem::swap(a, b);
        }
        a
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;
    use hotfire_core::seed::stream;

    use super::*;

    #[test]
    fn the_compiled_network_equals_the_module() {
        let device = Device::flex();
        let mut rng = stream(1, "test", 0);
        for activation in [Activation::Tanh, Activation::Relu, Activation::Silu] {
            let plain = Mlp::orthogonal(&[6, 64, 48, 3], activation, 1.0, &mut rng, &device);
            for (net, rows) in
                [plain.clone(), plain.with_layer_norm()].iter().flat_map(|net| [1, 4, 100].map(|n| (net, n)))
            {
                let mut compiled = net.compile();
                let x = Tensor::<2>::random([rows, 6], Distribution::Normal(0.0, 1.0), &device);
                let want: Vec<f32> = net.forward(x.clone()).into_data().try_to_vec().unwrap();
                let x: Vec<f32> = x.into_data().try_to_vec().unwrap();
                let got = compiled.forward(&x);
                assert_eq!(got.len(), rows * 3);
                assert!(want.iter().zip(got).all(|(a, b)| (a - b).abs() < 2e-6), "{activation:?}, {rows} rows");
            }
        }
    }
}
