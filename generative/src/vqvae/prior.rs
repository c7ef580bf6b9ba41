//! The prior over grids of codes: a PixelCNN.

use burn::module::Param;
use burn::prelude::*;
use burn::tensor::TensorData;
use hotfire_core::seed::StreamRng;
use hotfire_nn::ops::conv2d;
use hotfire_nn::{Activation, Conv2d};

use super::config::VqVaeConfig;

/// A PixelCNN over grids of codes: one-hot codes in, logits of each position's code out; a position sees only those
/// above it and to its left.
#[derive(Module, Debug)]
pub(super) struct Prior {
    first: Masked,
    layers: Vec<Masked>,
    out: Conv2d,
}

/// A 3x3 (or larger) convolution whose kernel is zero to the right of the centre and below.
#[derive(Module, Debug)]
struct Masked {
    /// `[outputs, inputs, side, side]`
    weight: Param<Tensor<4>>,
    /// `[outputs]`
    bias: Param<Tensor<1>>,
    /// Whether the centre may be seen.
    #[module(skip)]
    sees_centre: bool,
}

impl Masked {
    fn new(
        [inputs, outputs]: [usize; 2],
        side: usize,
        sees_centre: bool,
        rng: &mut StreamRng,
        device: &Device,
    ) -> Self {
        // About half of the taps remain.
        let bound = (2.0 / (inputs * side * side) as f32).sqrt();
        let mut values = |count: usize| (0..count).map(|_| bound * (2.0 * rng.uniform() - 1.0)).collect::<Vec<f32>>();
        let shape = [outputs, inputs, side, side];
        let weight = TensorData::new(values(shape.iter().product()), shape);
        let bias = TensorData::new(values(outputs), [outputs]);
        let param = Param::from_tensor(Tensor::from_data(weight, device));
        Self { weight: param, bias: Param::from_tensor(Tensor::from_data(bias, device)), sees_centre }
    }

    fn forward(&self, x: Tensor<4>, activation: Activation) -> Tensor<4> {
        let weight = self.weight.val();
        let [_, _, side, _] = weight.dims();
        let centre = side * side / 2;
        let mask: Vec<f32> =
            (0..side * side).map(|i| f32::from(u8::from(i < centre || (self.sees_centre && i == centre)))).collect();
        let mask = Tensor::<4>::from_data(TensorData::new(mask, [1, 1, side, side]), &weight.device());
        conv2d(x, weight * mask, self.bias.val(), 1, side / 2, activation)
    }
}

impl Prior {
    pub(super) fn new(config: &VqVaeConfig, rng: &mut StreamRng, device: &Device) -> Self {
        let width = config.prior_channels;
        Self {
            first: Masked::new([config.codes, width], 5, false, rng, device),
            layers: (0..config.prior_layers).map(|_| Masked::new([width, width], 3, true, rng, device)).collect(),
            out: Conv2d::new([width, config.codes], 1, 1, 0, Activation::Identity, rng, device),
        }
    }

    /// One-hot codes `[N, codes, h, w]` to logits of the same shape.
    pub(super) fn forward(&self, codes: Tensor<4>) -> Tensor<4> {
        let x = self.first.forward(codes, Activation::Relu);
        let x = self.layers.iter().fold(x, |x, layer| x.clone() + layer.forward(x, Activation::Relu));
        self.out.forward(x)
    }
}

/// A draw from `softmax(logits / temperature)`.
pub(super) fn draw_category(logits: &[f32], temperature: f32, rng: &mut StreamRng) -> u32 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f64> = logits.iter().map(|l| f64::from((l - largest) / temperature).exp()).collect();
    let mut left = rng.uniform_f64() * weights.iter().sum::<f64>();
    for (i, weight) in weights.iter().enumerate() {
        left -= weight;
        if left < 0.0 {
            return i as u32;
        }
    }
    weights.len() as u32 - 1
}

#[cfg(test)]
mod tests {
    use hotfire_core::seed::stream;

    use super::*;
    use crate::codec::numbers;

    /// A change at one position reaches only logits of later positions.
    #[test]
    fn the_prior_sees_only_what_was_drawn_before() {
        let device = Device::flex();
        let config = VqVaeConfig { codes: 5, prior_channels: 8, prior_layers: 2, ..VqVaeConfig::default() };
        let prior = Prior::new(&config, &mut stream(1, "test", 0), &device);
        let logits = |changed: usize| {
            let mut x = vec![0.0f32; 5 * 16];
            (0..16).for_each(|p| x[p] = 1.0);
            if changed < 16 {
                x[changed] = 0.0;
                x[3 * 16 + changed] = 1.0;
            }
            numbers(prior.forward(Tensor::from_data(TensorData::new(x, [1, 5, 4, 4]), &device)))
        };
        let base = logits(16);
        for changed in 0..16 {
            let other = logits(changed);
            let differs: Vec<usize> =
                (0..16).filter(|p| (0..5).any(|c| base[c * 16 + p] != other[c * 16 + p])).collect();
            assert!(differs.iter().all(|p| *p > changed), "{changed} reaches {differs:?}");
            assert!(changed == 15 || differs.contains(&(changed + 1)) || changed % 4 == 3, "{changed}: {differs:?}");
        }
    }

    #[test]
    fn categories_are_drawn_with_their_probabilities() {
        let mut rng = stream(2, "test", 0);
        let mut counts = [0u32; 3];
        for _ in 0..10_000 {
            counts[draw_category(&[0.0, 2f32.ln(), f32::NEG_INFINITY], 1.0, &mut rng) as usize] += 1;
        }
        assert!(counts[0].abs_diff(3_333) < 200 && counts[2] == 0, "{counts:?}");
    }
}
