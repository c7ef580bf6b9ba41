//! Torsos: the part of a network between an observation and the heads.
//!
//! Vectors need none, the dense heads take them as they are. Images go through a small convolutional network:
//! `nature_cnn` is the network of Mnih et al. 2015 (<https://doi.org/10.1038/nature14236>) for frames of 36 pixels and
//! more, `minatar_cnn` that of Young & Tian 2019 (<https://arxiv.org/abs/1903.03176>) for small grids.

use burn::module::Param;
use burn::prelude::*;
use burn::tensor::TensorData;
use hotfire_core::seed::StreamRng;
use serde::{Deserialize, Serialize};

use crate::export::ExportLayer;
use crate::init::orthogonal;
use crate::ops::{Activation, conv2d, linear_act};

/// Shape of one input of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputShape {
    /// A vector.
    Flat(usize),
    /// An image `[C, H, W]`.
    Image([usize; 3]),
}

impl InputShape {
    /// Number of elements.
    #[allow(clippy::len_without_is_empty)] // A shape is not a collection.
    pub fn len(&self) -> usize {
        match self {
            Self::Flat(len) => *len,
            Self::Image(shape) => shape.iter().product(),
        }
    }
}

/// The choice of a torso, as a config makes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// `mlp` for vectors, `nature_cnn` for images of 36 pixels and more, `minatar_cnn` for smaller ones.
    #[default]
    Auto,
    /// No torso: dense layers on the flattened input.
    Mlp,
    /// Convolutions 32 8x8/4, 64 4x4/2, 64 3x3/1, then 512 dense units.
    NatureCnn,
    /// 16 convolutions 3x3/1, then 128 dense units.
    MinatarCnn,
}

impl Network {
    /// The network for an input of this shape, never [`Network::Auto`].
    ///
    /// # Errors
    /// What is wrong, where the network can't look at such an input.
    pub fn resolve(self, shape: InputShape) -> Result<Self, String> {
        let (least, name) = match self {
            Self::Mlp => return Ok(self),
            Self::Auto => {
                return Ok(match shape {
                    InputShape::Image([_, height, width]) if height.min(width) >= 36 => Self::NatureCnn,
                    InputShape::Image([_, height, width]) if height.min(width) >= 3 => Self::MinatarCnn,
                    _ => Self::Mlp,
                });
            }
            Self::NatureCnn => (36, "nature_cnn"),
            Self::MinatarCnn => (3, "minatar_cnn"),
        };
        match shape {
            InputShape::Image([_, height, width]) if height.min(width) >= least => Ok(self),
            InputShape::Image([_, height, width]) => {
                Err(format!("{name} needs images of at least {least}x{least}, found {height}x{width}"))
            }
            InputShape::Flat(len) => Err(format!("{name} needs images, found vectors of {len} elements; choose mlp")),
        }
    }
}

/// Kernel size, stride and number of outputs of a convolution.
type ConvShape = (usize, usize, usize);

/// From an input row `[N, D]` to features `[N, F]`.
#[derive(Module, Debug)]
pub struct Torso {
    convolutional: Option<ConvNet>,
    #[module(skip)]
    features: usize,
}

/// Convolutions without padding and one dense layer, all with ReLU.
#[derive(Module, Debug)]
struct ConvNet {
    /// Kernels `[outputs, inputs, size, size]`.
    kernels: Vec<Param<Tensor<4>>>,
    /// Biases `[outputs]` of the convolutions.
    biases: Vec<Param<Tensor<1>>>,
    /// `[pixels * channels, features]`.
    dense_weight: Param<Tensor<2>>,
    /// `[features]`.
    dense_bias: Param<Tensor<1>>,
    #[module(skip)]
    strides: Vec<usize>,
    #[module(skip)]
    input: [usize; 3],
}

impl Torso {
    /// A torso with orthogonal weights of gain `sqrt(2)` and zero biases.
    ///
    /// # Errors
    /// As [`Network::resolve`].
    pub fn new(network: Network, shape: InputShape, rng: &mut StreamRng, device: &Device) -> Result<Self, String> {
        let (convolutions, features): (&[ConvShape], usize) = match network.resolve(shape)? {
            Network::NatureCnn => (&[(8, 4, 32), (4, 2, 64), (3, 1, 64)], 512),
            Network::MinatarCnn => (&[(3, 1, 16)], 128),
            _ => return Ok(Self { convolutional: None, features: shape.len() }),
        };
        let InputShape::Image(input) = shape else { unreachable!("convolutional torsos are for images") };
        Ok(Self { convolutional: Some(ConvNet::new(input, convolutions, features, rng, device)), features })
    }

    /// Number of features `F`.
    pub fn features(&self) -> usize {
        self.features
    }

    /// Whether the features are the input itself.
    pub fn is_identity(&self) -> bool {
        self.convolutional.is_none()
    }

    /// `[N, D]` to `[N, F]`; images are flattened `[C, H, W]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        match &self.convolutional {
            Some(net) => net.forward(x),
            None => x,
        }
    }

    /// The layers for use outside; none where the features are the input.
    pub fn export(&self) -> Vec<ExportLayer> {
        self.convolutional.as_ref().map_or_else(Vec::new, ConvNet::export)
    }

    /// A snapshot for acting.
    pub fn compile(&self) -> CompiledTorso {
        CompiledTorso { net: self.convolutional.clone().map(ConvNet::without_gradients), features: Vec::new() }
    }
}

impl ConvNet {
    fn new(
        input: [usize; 3],
        convolutions: &[ConvShape],
        features: usize,
        rng: &mut StreamRng,
        device: &Device,
    ) -> Self {
        let gain = std::f64::consts::SQRT_2;
        let [mut channels, mut height, mut width] = input;
        let (mut kernels, mut biases) = (Vec::new(), Vec::new());
        for &(size, stride, outputs) in convolutions {
            let kernel = orthogonal(outputs, channels * size * size, gain, rng, device);
            kernels.push(Param::from_tensor(kernel.reshape([outputs, channels, size, size])));
            biases.push(Param::from_tensor(Tensor::zeros([outputs], device)));
            (channels, height, width) = (outputs, (height - size) / stride + 1, (width - size) / stride + 1);
        }
        Self {
            kernels,
            biases,
            dense_weight: Param::from_tensor(orthogonal(channels * height * width, features, gain, rng, device)),
            dense_bias: Param::from_tensor(Tensor::zeros([features], device)),
            strides: convolutions.iter().map(|(_, stride, _)| *stride).collect(),
            input,
        }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let [rows, _] = x.dims();
        let [channels, height, width] = self.input;
        let mut x = x.reshape([rows, channels, height, width]);
        for ((kernel, bias), stride) in self.kernels.iter().zip(&self.biases).zip(&self.strides) {
            x = conv2d(x, kernel.val(), bias.val(), *stride, 0, Activation::Relu);
        }
        linear_act(x.flatten(1, 3), self.dense_weight.val(), self.dense_bias.val(), Activation::Relu)
    }

    fn export(&self) -> Vec<ExportLayer> {
        fn read<const D: usize>(param: &Param<Tensor<D>>) -> Vec<f32> {
            param.val().into_data().try_into_vec().expect("parameters are 32-bit floats")
        }
        let convolutions = self.kernels.iter().zip(&self.biases).zip(&self.strides);
        let convolutions = convolutions.map(|((kernel, bias), stride)| ExportLayer::Conv {
            kernel: read(kernel),
            shape: kernel.dims(),
            bias: read(bias),
            stride: *stride,
            activation: Activation::Relu,
        });
        let dense = ExportLayer::Dense {
            weight: read(&self.dense_weight),
            bias: read(&self.dense_bias),
            activation: Activation::Relu,
        };
        [ExportLayer::Image(self.input)].into_iter().chain(convolutions).chain([ExportLayer::Flatten, dense]).collect()
    }

    fn without_gradients(self) -> Self {
        fn plain<const D: usize>(param: &Param<Tensor<D>>) -> Param<Tensor<D>> {
            let tensor = param.val();
            Param::from_tensor(if tensor.is_autodiff() { tensor.inner() } else { tensor })
        }
        Self {
            kernels: self.kernels.iter().map(plain).collect(),
            biases: self.biases.iter().map(plain).collect(),
            dense_weight: plain(&self.dense_weight),
            dense_bias: plain(&self.dense_bias),
            ..self
        }
    }
}

/// A [`Torso`] for acting, without a graph.
#[derive(Clone, Debug)]
pub struct CompiledTorso {
    net: Option<ConvNet>,
    features: Vec<f32>,
}

impl CompiledTorso {
    /// `x: [N, D]` to `[N, F]`, both row-major; the result is valid until the next call.
    pub fn forward<'a>(&'a mut self, x: &'a [f32]) -> &'a [f32] {
        let Some(net) = &self.net else { return x };
        let inputs: usize = net.input.iter().product();
        let rows = TensorData::new(x.to_vec(), [x.len() / inputs, inputs]);
        let output = net.forward(Tensor::from_data(rows, &net.dense_bias.val().device()));
        self.features = output.into_data().try_into_vec().expect("features are 32-bit floats");
        &self.features
    }
}

#[cfg(test)]
mod tests {
    use hotfire_core::seed::stream;

    use super::*;

    #[test]
    fn auto_looks_at_the_shape() {
        let auto = |shape| Network::Auto.resolve(shape).unwrap();
        assert_eq!(auto(InputShape::Flat(8)), Network::Mlp);
        assert_eq!(auto(InputShape::Image([4, 10, 10])), Network::MinatarCnn);
        assert_eq!(auto(InputShape::Image([3, 96, 96])), Network::NatureCnn);
        assert_eq!(auto(InputShape::Image([1, 2, 40])), Network::Mlp);
        let problem = Network::NatureCnn.resolve(InputShape::Image([4, 10, 10])).unwrap_err();
        assert_eq!(problem, "nature_cnn needs images of at least 36x36, found 10x10");
        assert!(Network::MinatarCnn.resolve(InputShape::Flat(8)).unwrap_err().contains("choose mlp"));
    }

    #[test]
    fn torsos_have_the_published_sizes_and_act_as_they_learn() {
        let device = Device::flex().autodiff();
        let minatar = 16 * 6 * 9 + 16 + 1024 * 128 + 128;
        // 36 pixels shrink to 8, 3 and 1.
        let nature = (3 * 64 * 32 + 32) + (32 * 16 * 64 + 64) + (64 * 9 * 64 + 64) + (64 * 512 + 512);
        for (shape, parameters) in [([6, 10, 10], minatar), ([3, 36, 36], nature)] {
            let mut rng = stream(1, "test", 0);
            let torso = Torso::new(Network::Auto, InputShape::Image(shape), &mut rng, &device).unwrap();
            assert_eq!(torso.num_params(), parameters, "{shape:?}");
            let inputs: usize = shape.iter().product();
            let x: Vec<f32> = (0..3 * inputs).map(|i| ((i * 7919) % 101) as f32 / 100.0).collect();
            let rows = Tensor::from_data(TensorData::new(x.clone(), [3, inputs]), &device);
            let want: Vec<f32> = torso.forward(rows).into_data().try_into_vec().unwrap();
            let mut compiled = torso.compile();
            let got = compiled.forward(&x);
            assert_eq!(got.len(), 3 * torso.features());
            assert!(want.iter().zip(got).all(|(a, b)| (a - b).abs() < 2e-6));
        }
    }
}
