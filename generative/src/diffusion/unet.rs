//! The denoising U-Net: residual blocks with a time bias on a few resolutions, and self-attention on the coarsest.
//!
//! Ronneberger et al. 2015 (arXiv:1505.04597) as adapted by Ho et al. 2020 (arXiv:2006.11239) and Nichol & Dhariwal 2021:
//! two blocks a level on the way down, three on the way up that also see what the way down left, convolutions of stride 2
//! down, nearest neighbours and a convolution up.

use burn::module::Param;
use burn::prelude::*;
use burn::tensor::TensorData;
use hotfire_core::seed::StreamRng;
use hotfire_nn::ops::{spatial_attention, upsample_nearest};
use hotfire_nn::{Activation, Conv2d, GroupNorm, Linear};

/// Groups of the normalisations.
pub const GROUPS: usize = 8;

/// Sizes of a [`UNet`].
#[derive(Clone, Debug, PartialEq)]
pub struct UNetConfig {
    /// Channels of the images.
    pub image_channels: usize,
    /// Channels of the first level; a multiple of 8.
    pub base: usize,
    /// Channels of each level as multiples of `base`; each level halves the resolution of the one before.
    pub multipliers: Vec<usize>,
    /// Residual blocks a level on the way down; one more on the way up.
    pub blocks: usize,
    /// Heads of the attention on the coarsest level.
    pub heads: usize,
    /// Number of classes; 0 for a network without.
    pub classes: usize,
}

/// The network.
#[derive(Module, Debug)]
pub struct UNet {
    embedding: Embedding,
    input: Conv2d,
    down: Vec<Level>,
    middle: Middle,
    up: Vec<Level>,
    output_norm: GroupNorm,
    output: Conv2d,
}

/// Blocks of one resolution, and the convolution to the next.
#[derive(Module, Debug)]
struct Level {
    blocks: Vec<ResidualBlock>,
    attentions: Vec<Attention>,
    resample: Option<Conv2d>,
}

#[derive(Module, Debug)]
struct Middle {
    first: ResidualBlock,
    attention: Attention,
    second: ResidualBlock,
}

impl UNet {
    /// A network with PyTorch's initialisation.
    pub fn new(config: &UNetConfig, rng: &mut StreamRng, device: &Device) -> Self {
        let base = config.base;
        let width = 4 * base;
        let embedding = Embedding::new(base, width, config.classes, rng, device);
        let conv = |channels: [usize; 2], stride, rng: &mut StreamRng| {
            Conv2d::new(channels, 3, stride, 1, Activation::Identity, rng, device)
        };
        let input = conv([config.image_channels, base], 1, rng);
        let coarsest = config.multipliers.len() - 1;
        let level = |l: usize, inputs: &[usize], resample: Option<Conv2d>, rng: &mut StreamRng| {
            let outputs = base * config.multipliers[l];
            let attentions = if l == coarsest { inputs.len() } else { 0 };
            Level {
                blocks: inputs.iter().map(|c| ResidualBlock::new([*c, outputs], width, rng, device)).collect(),
                attentions: (0..attentions).map(|_| Attention::new(outputs, config.heads, rng, device)).collect(),
                resample,
            }
        };
        // Channels of the maps that the way down keeps for the way up.
        let mut kept = vec![base];
        let mut channels = base;
        let mut down = Vec::new();
        for l in 0..=coarsest {
            let outputs = base * config.multipliers[l];
            let mut inputs = vec![outputs; config.blocks];
            inputs[0] = channels;
            channels = outputs;
            kept.extend(vec![channels; config.blocks]);
            let resample = (l < coarsest).then(|| conv([channels; 2], 2, rng));
            kept.extend(resample.as_ref().map(|_| channels));
            down.push(level(l, &inputs, resample, rng));
        }
        let middle = Middle {
            first: ResidualBlock::new([channels; 2], width, rng, device),
            attention: Attention::new(channels, config.heads, rng, device),
            second: ResidualBlock::new([channels; 2], width, rng, device),
        };
        let mut up = Vec::new();
        for l in (0..=coarsest).rev() {
            let outputs = base * config.multipliers[l];
            let mut inputs = Vec::new();
            for _ in 0..=config.blocks {
                inputs.push(channels + kept.pop().expect("one kept map a block"));
                channels = outputs;
            }
            let resample = (l > 0).then(|| conv([channels; 2], 1, rng));
            up.push(level(l, &inputs, resample, rng));
        }
        Self {
            embedding,
            input,
            down,
            middle,
            up,
            output_norm: GroupNorm::new(channels, GROUPS, Activation::Silu, device),
            output: conv([channels, config.image_channels], 1, rng),
        }
    }

    /// `x: [N, C, H, W]`, times `[N]` and classes `[N]` (`None`, or any number without classes) to `[N, C, H, W]`.
    pub fn forward(&self, x: Tensor<4>, times: &[f32], classes: &[Option<u32>]) -> Tensor<4> {
        let time = self.embedding.forward(times, classes, &x.device());
        let mut x = self.input.forward(x);
        let mut kept = vec![x.clone()];
        for level in &self.down {
            for (i, block) in level.blocks.iter().enumerate() {
                x = block.forward(x, &time);
                x = level.attend(i, x);
                kept.push(x.clone());
            }
            if let Some(resample) = &level.resample {
                x = resample.forward(x);
                kept.push(x.clone());
            }
        }
        x = self.middle.first.forward(x, &time);
        x = self.middle.attention.forward(x);
        x = self.middle.second.forward(x, &time);
        for level in &self.up {
            for (i, block) in level.blocks.iter().enumerate() {
                let skip = kept.pop().expect("one kept map a block");
                x = block.forward(Tensor::cat(vec![x, skip], 1), &time);
                x = level.attend(i, x);
            }
            if let Some(resample) = &level.resample {
                x = resample.forward(upsample_nearest(x));
            }
        }
        self.output.forward(self.output_norm.forward(x))
    }
}

impl Level {
    fn attend(&self, block: usize, x: Tensor<4>) -> Tensor<4> {
        match self.attentions.get(block) {
            Some(attention) => attention.forward(x),
            None => x,
        }
    }
}

/// Two times normalisation, SiLU and convolution, with a bias from the time between, around a skip connection.
#[derive(Module, Debug)]
struct ResidualBlock {
    norm_1: GroupNorm,
    conv_1: Conv2d,
    time: Linear,
    norm_2: GroupNorm,
    conv_2: Conv2d,
    /// A pointwise convolution where the number of channels changes.
    skip: Option<Conv2d>,
}

impl ResidualBlock {
    fn new([inputs, outputs]: [usize; 2], time: usize, rng: &mut StreamRng, device: &Device) -> Self {
        let norm = |channels| GroupNorm::new(channels, GROUPS, Activation::Silu, device);
        let identity = Activation::Identity;
        Self {
            norm_1: norm(inputs),
            conv_1: Conv2d::new([inputs, outputs], 3, 1, 1, identity, rng, device),
            time: Linear::new([time, outputs], identity, rng, device),
            norm_2: norm(outputs),
            conv_2: Conv2d::new([outputs, outputs], 3, 1, 1, identity, rng, device),
            skip: (inputs != outputs).then(|| Conv2d::new([inputs, outputs], 1, 1, 0, identity, rng, device)),
        }
    }

    /// `x: [N, inputs, H, W]` and the activated time embedding `[N, time]` to `[N, outputs, H, W]`.
    fn forward(&self, x: Tensor<4>, time: &Tensor<2>) -> Tensor<4> {
        let bias: Tensor<4> = self.time.forward(time.clone()).unsqueeze_dims(&[-1, -1]);
        let h = self.conv_1.forward(self.norm_1.forward(x.clone())) + bias;
        let h = self.conv_2.forward(self.norm_2.forward(h));
        match &self.skip {
            Some(skip) => h + skip.forward(x),
            None => h + x,
        }
    }
}

/// Self-attention among positions, around a skip connection.
#[derive(Module, Debug)]
struct Attention {
    norm: GroupNorm,
    /// Queries, keys and values.
    qkv: Conv2d,
    output: Conv2d,
    #[module(skip)]
    heads: usize,
}

impl Attention {
    fn new(channels: usize, heads: usize, rng: &mut StreamRng, device: &Device) -> Self {
        let identity = Activation::Identity;
        Self {
            norm: GroupNorm::new(channels, GROUPS, identity, device),
            qkv: Conv2d::new([channels, 3 * channels], 1, 1, 0, identity, rng, device),
            output: Conv2d::new([channels; 2], 1, 1, 0, identity, rng, device),
            heads,
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let qkv = self.qkv.forward(self.norm.forward(x.clone()));
        x + self.output.forward(spatial_attention(qkv, self.heads))
    }
}

/// Time, and class where there are classes, as the vector that biases the blocks.
#[derive(Module, Debug)]
pub(super) struct Embedding {
    hidden: Linear,
    output: Linear,
    /// `[classes + 1, width]`; the last row stands for "no class". Added to the time's embedding.
    classes: Option<Param<Tensor<2>>>,
    #[module(skip)]
    frequencies: usize,
}

impl Embedding {
    pub fn new(frequencies: usize, width: usize, classes: usize, rng: &mut StreamRng, device: &Device) -> Self {
        Self {
            hidden: Linear::new([frequencies, width], Activation::Silu, rng, device),
            output: Linear::new([width, width], Activation::Identity, rng, device),
            classes: (classes > 0).then(|| {
                let values: Vec<f32> = (0..(classes + 1) * width).map(|_| rng.normal()).collect();
                Param::from_tensor(Tensor::from_data(TensorData::new(values, [classes + 1, width]), device))
            }),
            frequencies,
        }
    }

    /// The activated embedding `[N, width]`.
    pub fn forward(&self, times: &[f32], classes: &[Option<u32>], device: &Device) -> Tensor<2> {
        let n = times.len();
        let waves =
            Tensor::from_data(TensorData::new(sinusoids(times, self.frequencies), [n, self.frequencies]), device);
        let mut embedding = self.output.forward(self.hidden.forward(waves));
        if let Some(table) = &self.classes {
            let rows = table.dims()[0];
            let mut one_hot = vec![0.0f32; n * rows];
            for (row, class) in one_hot.chunks_exact_mut(rows).zip(classes) {
                row[class.map_or(rows - 1, |class| class as usize)] = 1.0;
            }
            embedding = embedding + Tensor::from_data(TensorData::new(one_hot, [n, rows]), device).matmul(table.val());
        }
        burn::tensor::activation::silu(embedding)
    }
}

/// Sines and cosines `[N, count]` of the times, with wavelengths from `2 pi` to `20,000 pi` (Vaswani et al. 2017).
fn sinusoids(times: &[f32], count: usize) -> Vec<f32> {
    let half = count / 2;
    let mut waves = Vec::with_capacity(times.len() * count);
    for time in times {
        let angles: Vec<f64> =
            (0..half).map(|i| f64::from(*time) * (-(1e4f64.ln()) * i as f64 / half as f64).exp()).collect();
        waves.extend(angles.iter().map(|angle| angle.sin() as f32));
        waves.extend(angles.iter().map(|angle| angle.cos() as f32));
    }
    waves
}

#[cfg(test)]
mod tests {
    use hotfire_core::seed::stream;

    use super::*;

    fn config() -> UNetConfig {
        UNetConfig { image_channels: 1, base: 32, multipliers: vec![1, 2, 2], blocks: 2, heads: 1, classes: 0 }
    }

    #[test]
    fn the_reference_layout_has_its_number_of_parameters() {
        let device = Device::flex();
        assert_eq!(UNet::new(&config(), &mut stream(1, "test", 0), &device).num_params(), 1_623_169);
    }

    #[test]
    fn time_and_class_matter_and_no_class_is_one_of_its_own() {
        let device = Device::flex();
        let config = UNetConfig { base: 8, classes: 3, ..config() };
        let net = UNet::new(&config, &mut stream(1, "test", 0), &device);
        let x = Tensor::<4>::ones([2, 1, 8, 8], &device);
        let out = |times: [f32; 2], classes: [Option<u32>; 2]| -> Vec<f32> {
            net.forward(x.clone(), &times, &classes).into_data().try_to_vec().unwrap()
        };
        let base = out([10.0, 500.0], [Some(0), None]);
        assert_eq!(base.len(), 2 * 64);
        assert_ne!(base[..64], out([11.0, 500.0], [Some(0), None])[..64]);
        assert_ne!(base[..64], out([10.0, 500.0], [Some(1), None])[..64]);
        assert_ne!(base[64..], out([10.0, 500.0], [Some(0), Some(0)])[64..]);
        let same = out([10.0, 9.0], [Some(0), Some(2)]);
        assert!(base[..64].iter().zip(&same).all(|(a, b)| (a - b).abs() < 1e-5), "images of a batch are independent");
    }

    #[test]
    fn sinusoids_are_those_of_the_paper() {
        let waves = sinusoids(&[0.0, 3.0], 4);
        assert_eq!(waves[..4], [0.0, 0.0, 1.0, 1.0]);
        assert_eq!(waves[4..], [3.0f32.sin(), 0.03f64.sin() as f32, 3.0f32.cos(), 0.03f64.cos() as f32]);
    }
}
