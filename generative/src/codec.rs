//! Encoders from pictures to vectors and decoders back, dense or convolutional: the networks of autoencoders and VAEs.

use burn::prelude::*;
use hotfire_core::config::{ConfigDocument, ConfigError};
use hotfire_core::seed::StreamRng;
use hotfire_nn::{Activation, Conv2d, ConvTranspose2d, Linear};

/// Widths of an encoder and of the decoder that mirrors it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CodecShape {
    /// `[channels, height, width]` of a picture.
    pub image: [usize; 3],
    /// Channels of the stride-2 convolutions; none for a dense network.
    pub channels: Vec<usize>,
    /// Widths of the hidden dense layers, from the picture's side.
    pub hidden: Vec<usize>,
    /// Numbers that are given beside picture and code, such as a class as one of them.
    pub condition: usize,
}

impl CodecShape {
    /// Refuses widths of zero, and pictures that the convolutions can't halve.
    pub fn check(&self, document: &ConfigDocument) -> Result<(), ConfigError> {
        for (key, widths) in [("channels", &self.channels), ("hidden", &self.hidden)] {
            if widths.contains(&0) {
                return Err(document.out_of_range(&format!("model.{key}"), "positive widths", format!("{widths:?}")));
            }
        }
        let [_, height, width] = self.image;
        let fold = 1usize << self.channels.len().min(16);
        if height % fold != 0 || width % fold != 0 {
            let problem = format!(
                "{} stride-2 convolutions need sides that are multiples of {fold}: the pictures are {width}x{height}",
                self.channels.len()
            );
            return Err(document.invalid("model.channels", problem));
        }
        Ok(())
    }

    /// `[channels, height, width]` between the convolutions and the dense layers.
    fn inner(&self) -> [usize; 3] {
        let [channels, height, width] = self.image;
        let fold = 1 << self.channels.len();
        [self.channels.last().copied().unwrap_or(channels), height / fold, width / fold]
    }
}

/// Pictures to vectors: convolutions (3x3, stride 2, ReLU), then dense layers (ReLU), the last one linear.
#[derive(Module, Debug)]
pub(crate) struct Encoder {
    convolutions: Vec<Conv2d>,
    dense: Vec<Linear>,
}

impl Encoder {
    /// An encoder to `outputs` numbers.
    pub fn new(shape: &CodecShape, outputs: usize, rng: &mut StreamRng, device: &Device) -> Self {
        let channels: Vec<usize> = [&shape.image[..1], &shape.channels].concat();
        let pairs = channels.windows(2);
        let convolutions =
            pairs.map(|c| Conv2d::new([c[0], c[1]], 3, 2, 1, Activation::Relu, rng, device).he()).collect();
        let inner = shape.inner().iter().product::<usize>() + shape.condition;
        let widths: Vec<usize> = [&[inner][..], &shape.hidden, &[outputs]].concat();
        Self { convolutions, dense: dense(&widths, Activation::Identity, rng, device) }
    }

    /// `x: [N, C, H, W]` and what is given beside it, `[N, condition]`, to `[N, outputs]`.
    pub fn forward(&self, x: Tensor<4>, condition: Option<Tensor<2>>) -> Tensor<2> {
        let x = self.convolutions.iter().fold(x, |x, layer| layer.forward(x));
        let x = beside(x.flatten(1, 3), condition);
        self.dense.iter().fold(x, |x, layer| layer.forward(x))
    }
}

/// Vectors to pictures, the mirror of an [`Encoder`]: dense layers (ReLU), then transposed convolutions (4x4, stride 2).
#[derive(Module, Debug)]
pub(crate) struct Decoder {
    dense: Vec<Linear>,
    convolutions: Vec<ConvTranspose2d>,
    #[module(skip)]
    inner: [usize; 3],
}

impl Decoder {
    /// A decoder of `inputs` numbers whose last layer ends with `output`.
    pub fn new(shape: &CodecShape, inputs: usize, output: Activation, rng: &mut StreamRng, device: &Device) -> Self {
        let channels: Vec<usize> = [&shape.image[..1], &shape.channels].concat();
        let hidden: Vec<usize> = shape.hidden.iter().rev().copied().collect();
        let inner = shape.inner();
        let widths: Vec<usize> = [&[inputs + shape.condition][..], &hidden, &[inner.iter().product()]].concat();
        let last = if shape.channels.is_empty() { output } else { Activation::Relu };
        let dense = dense(&widths, last, rng, device);
        let count = shape.channels.len();
        let convolutions = (0..count).rev().map(|i| {
            let activation = if i == 0 { output } else { Activation::Relu };
            let layer = ConvTranspose2d::new([channels[i + 1], channels[i]], 4, 2, 1, activation, rng, device);
            if i == 0 { layer } else { layer.he() }
        });
        Self { dense, convolutions: convolutions.collect(), inner }
    }

    /// `z: [N, inputs]` and what is given beside it, `[N, condition]`, to `[N, C, H, W]`.
    pub fn forward(&self, z: Tensor<2>, condition: Option<Tensor<2>>) -> Tensor<4> {
        let x = self.dense.iter().fold(beside(z, condition), |x, layer| layer.forward(x));
        let [c, h, w] = self.inner;
        let n = x.dims()[0];
        self.convolutions.iter().fold(x.reshape([n, c, h, w]), |x, layer| layer.forward(x))
    }
}

fn dense(widths: &[usize], last: Activation, rng: &mut StreamRng, device: &Device) -> Vec<Linear> {
    let count = widths.len() - 1;
    let layer = |l: usize| {
        let activation = if l + 1 == count { last } else { Activation::Relu };
        let layer = Linear::new([widths[l], widths[l + 1]], activation, rng, device);
        if activation == Activation::Relu { layer.he() } else { layer }
    };
    (0..count).map(layer).collect()
}

fn beside(x: Tensor<2>, condition: Option<Tensor<2>>) -> Tensor<2> {
    match condition {
        Some(condition) => Tensor::cat(vec![x, condition], 1),
        None => x,
    }
}

/// Samples that one pass of a network makes; a pass with fewer is filled up.
const CHUNK: usize = 64;

/// `[count, output]` numbers from `[count, width]` numbers, in passes of one fixed size: a row's bits depend on the row
/// and its place in a pass, never on how many rows there are.
pub(crate) fn in_passes(rows: &[f32], width: usize, pass: impl Fn(Vec<f32>, usize) -> Vec<f32>) -> Vec<f32> {
    let mut out = Vec::new();
    for chunk in rows.chunks(CHUNK * width) {
        let mut input = chunk.to_vec();
        input.resize(CHUNK * width, 0.0);
        let output = pass(input, CHUNK);
        let per_row = output.len() / CHUNK;
        out.extend_from_slice(&output[..chunk.len() / width * per_row]);
    }
    out
}

/// A tensor's numbers in host memory.
pub(crate) fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().expect("the tensors of this crate are 32-bit floats")
}
