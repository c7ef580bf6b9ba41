//! The networks that diffusion trains: a U-Net for pictures, a residual MLP for points.

use burn::prelude::*;
use burn::tensor::TensorData;
use hotfire_core::seed::StreamRng;
use hotfire_nn::{Activation, Linear};

use super::unet::{Embedding, UNet};

/// A denoiser of pictures or of points.
// A run has one of them, so its size on the stack is no cost.
#[allow(clippy::large_enum_variant)]
#[derive(Module, Debug)]
pub enum Network {
    /// For pictures.
    UNet(UNet),
    /// For points.
    Mlp(MlpDenoiser),
}

impl Network {
    /// `x: [N, D]` with shape `[C, H, W]` (points: `[D, 1, 1]`), times `[N]` and classes `[N]` to `[N, D]`.
    pub fn forward(
        &self,
        x: Vec<f32>,
        shape: [usize; 3],
        times: &[f32],
        classes: &[Option<u32>],
        device: &Device,
    ) -> Tensor<2> {
        let n = times.len();
        let dim = shape.iter().product();
        match self {
            Self::UNet(net) => {
                let [c, h, w] = shape;
                let x = Tensor::from_data(TensorData::new(x, [n, c, h, w]), device);
                net.forward(x, times, classes).reshape([n, dim])
            }
            Self::Mlp(net) => net.forward(&x, times, classes, device),
        }
    }
}

/// Dense residual blocks with a bias from the time: trains in seconds on points of the plane.
#[derive(Module, Debug)]
pub struct MlpDenoiser {
    embedding: Embedding,
    input: Linear,
    times: Vec<Linear>,
    hidden: Vec<Linear>,
    output: Linear,
}

/// Frequencies of the time's embedding.
const FREQUENCIES: usize = 32;

/// Octaves of waves of each coordinate: without them a small MLP draws everything too smooth (Tancik et al. 2020,
/// arXiv:2006.10739).
const OCTAVES: usize = 4;

impl MlpDenoiser {
    /// A network of `blocks` blocks of `width` units for points of `dim` numbers.
    pub fn new(dim: usize, width: usize, blocks: usize, classes: usize, rng: &mut StreamRng, device: &Device) -> Self {
        Self {
            embedding: Embedding::new(FREQUENCIES, width, classes, rng, device),
            input: Linear::new([dim * (1 + 2 * OCTAVES), width], Activation::Identity, rng, device),
            times: (0..blocks).map(|_| Linear::new([width; 2], Activation::Identity, rng, device)).collect(),
            hidden: (0..blocks).map(|_| Linear::new([width; 2], Activation::Silu, rng, device)).collect(),
            output: Linear::new([width, dim], Activation::Identity, rng, device),
        }
    }

    fn forward(&self, x: &[f32], times: &[f32], classes: &[Option<u32>], device: &Device) -> Tensor<2> {
        let time = self.embedding.forward(times, classes, device);
        let features = waves(x);
        let shape = [times.len(), features.len() / times.len()];
        let mut h = self.input.forward(Tensor::from_data(TensorData::new(features, shape), device));
        for (bias, hidden) in self.times.iter().zip(&self.hidden) {
            h = h.clone() + hidden.forward(h + bias.forward(time.clone()));
        }
        self.output.forward(h)
    }
}

/// Each number with the sines and cosines of its multiples by 1, 2, 4, ...
fn waves(x: &[f32]) -> Vec<f32> {
    let mut features = Vec::with_capacity(x.len() * (1 + 2 * OCTAVES));
    for x in x {
        features.push(*x);
        for octave in 0..OCTAVES {
            let (sin, cos) = (x * (1 << octave) as f32).sin_cos();
            features.extend([sin, cos]);
        }
    }
    features
}
