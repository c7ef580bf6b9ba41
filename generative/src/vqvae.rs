//! Vector-quantised autoencoders: pictures as grids of codes from a learned codebook, and a prior to draw new grids from.
//!
//! Van den Oord et al. 2017, arXiv:1711.00937: the encoder's vectors are replaced by the nearest code, gradients pass
//! straight through, and codes follow exponential moving averages of the vectors that chose them (its appendix A). A
//! code that hardly any vector chooses is restarted at a vector of the batch (Dhariwal et al. 2020, arXiv:2005.00341).
//! The last part of the run freezes the autoencoder and trains the prior: masked convolutions over the grid of codes, a
//! PixelCNN (van den Oord et al. 2016, arXiv:1601.06759).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::module::Param;
use burn::prelude::*;
use burn::tensor::TensorData;
use hotfire_core::CoreError;
use hotfire_core::checkpoint::{CheckpointReader, CheckpointWriter};
use hotfire_core::config::{ConfigDocument, ConfigError};
use hotfire_core::metrics::Metrics;
use hotfire_core::schedule::Schedule;
use hotfire_core::seed::{StreamRng, stream};
use hotfire_core::task::{Evaluation, Headline, Task};
use hotfire_nn::ops::{conv2d, squared_error};
use hotfire_nn::{Activation, AdamConfig, Conv2d, ConvTranspose2d};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::codec::{in_passes, numbers};
use crate::data::{self, Batches, Images};
use crate::learner::Learner;
use crate::metrics::SampleScores;
use crate::pictures::{Sheet, columns};
use crate::registry::ModelSpec;
use crate::sampling::{Options, sample_seeds};
use crate::{Model, ModelSetting, SampleReport, SampleRequest};

/// The registry's entry.
pub const SPEC: ModelSpec = ModelSpec {
    name: "vqvae",
    summary: "vector-quantised autoencoder with a convolutional prior over its codes",
    source: "van den Oord et al. 2017, arXiv:1711.00937",
    make: |document, setting| Ok(Box::new(VqVae::from_config(document, setting)?)),
};

/// The `[model]` section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VqVaeConfig {
    /// Channels of the encoder's stride-2 convolutions; the decoder mirrors them.
    pub channels: Vec<usize>,
    /// Number of codes.
    pub codes: usize,
    /// Numbers of a code.
    pub width: usize,
    /// Adam's step size, of the autoencoder and of the prior.
    pub learning_rate: Schedule,
    /// Weight of the term that holds the encoder to its codes.
    pub commitment: f64,
    /// Decay of the averages that codes follow.
    pub decay: f32,
    /// Average choices a batch below which a code is restarted.
    pub restart_below: f32,
    /// Share of the run, at its end, that trains the prior.
    pub prior_share: f64,
    /// Channels of the prior's layers.
    pub prior_channels: usize,
    /// Number of the prior's residual layers.
    pub prior_layers: usize,
}

impl Default for VqVaeConfig {
    fn default() -> Self {
        Self {
            channels: vec![32, 64],
            codes: 128,
            width: 16,
            learning_rate: Schedule::Constant(1e-3),
            commitment: 0.25,
            decay: 0.99,
            restart_below: 0.5,
            prior_share: 0.5,
            prior_channels: 64,
            prior_layers: 4,
        }
    }
}

/// Pictures of a batch, without another choice in `[train]`.
const BATCH: usize = 128;
/// Pictures of a forward pass without gradients.
const PASS: usize = 250;

/// Pictures to a grid of vectors and back.
#[derive(Module, Debug)]
struct Net {
    down: Vec<Conv2d>,
    to_code: Conv2d,
    from_code: Conv2d,
    up: Vec<ConvTranspose2d>,
}

impl Net {
    fn new(config: &VqVaeConfig, colors: usize, rng: &mut StreamRng, device: &Device) -> Self {
        let widths: Vec<usize> = [&[colors][..], &config.channels].concat();
        let last = widths[widths.len() - 1];
        let down = widths.windows(2).map(|c| Conv2d::new([c[0], c[1]], 3, 2, 1, Activation::Relu, rng, device));
        let down = down.collect();
        let to_code = Conv2d::new([last, config.width], 1, 1, 0, Activation::Identity, rng, device);
        let from_code = Conv2d::new([config.width, last], 3, 1, 1, Activation::Relu, rng, device);
        let up = (1..widths.len()).rev().map(|i| {
            let activation = if i == 1 { Activation::Sigmoid } else { Activation::Relu };
            ConvTranspose2d::new([widths[i], widths[i - 1]], 4, 2, 1, activation, rng, device)
        });
        Self { down, to_code, from_code, up: up.collect() }
    }

    /// `[N, C, H, W]` to `[N, width, h, w]`.
    fn encode(&self, x: Tensor<4>) -> Tensor<4> {
        self.to_code.forward(self.down.iter().fold(x, |x, layer| layer.forward(x)))
    }

    /// `[N, width, h, w]` to `[N, C, H, W]`.
    fn decode(&self, z: Tensor<4>) -> Tensor<4> {
        self.up.iter().fold(self.from_code.forward(z), |x, layer| layer.forward(x))
    }
}

/// The codes and the averages that they follow, on the host.
#[derive(Clone, Debug, PartialEq)]
struct Codebook {
    width: usize,
    /// `[codes, width]`
    codes: Vec<f32>,
    /// Averages of how often each code is chosen in a batch: `[codes]`.
    counts: Vec<f32>,
    /// Averages of the sums of the vectors that choose each code: `[codes, width]`.
    sums: Vec<f32>,
}

impl Codebook {
    fn new(codes: usize, width: usize, rng: &mut StreamRng) -> Self {
        let mut values = vec![0.0; codes * width];
        rng.fill_normal(&mut values);
        values.iter_mut().for_each(|value| *value *= 0.1);
        Self { width, counts: vec![1.0; codes], sums: values.clone(), codes: values }
    }

    fn len(&self) -> usize {
        self.counts.len()
    }

    /// The nearest code of each vector of `[M, width]`.
    fn nearest(&self, vectors: &[f32]) -> Vec<u32> {
        let half_norms: Vec<f32> =
            self.codes.chunks_exact(self.width).map(|code| 0.5 * code.iter().map(|x| x * x).sum::<f32>()).collect();
        let nearest = |vector: &[f32]| {
            let mut best = (f32::INFINITY, 0);
            for (i, (code, half_norm)) in self.codes.chunks_exact(self.width).zip(&half_norms).enumerate() {
                let distance = half_norm - vector.iter().zip(code).map(|(a, b)| a * b).sum::<f32>();
                if distance < best.0 {
                    best = (distance, i as u32);
                }
            }
            best.1
        };
        vectors.par_chunks_exact(self.width).map(nearest).collect()
    }

    /// The codes `indices` as vectors: `[M, width]`.
    fn look_up(&self, indices: &[u32]) -> Vec<f32> {
        indices.iter().flat_map(|i| self.codes[*i as usize * self.width..][..self.width].iter().copied()).collect()
    }

    /// Moves the codes towards the vectors that chose them, and restarts those that hardly any vector chooses at vectors
    /// of the batch. Returns how many were restarted.
    fn follow(&mut self, vectors: &[f32], chosen: &[u32], decay: f32, restart_below: f32, rng: &mut StreamRng) -> u32 {
        let d = self.width;
        let (mut counts, mut sums) = (vec![0.0f32; self.len()], vec![0.0f32; self.len() * d]);
        for (vector, code) in vectors.chunks_exact(d).zip(chosen) {
            counts[*code as usize] += 1.0;
            sums[*code as usize * d..][..d].iter_mut().zip(vector).for_each(|(s, v)| *s += v);
        }
        let towards = |average: &mut f32, now: f32| *average = decay * *average + (1.0 - decay) * now;
        self.counts.iter_mut().zip(counts).for_each(|(average, now)| towards(average, now));
        self.sums.iter_mut().zip(sums).for_each(|(average, now)| towards(average, now));
        let mut restarted = 0;
        for code in 0..self.len() {
            let own = code * d..(code + 1) * d;
            if self.counts[code] < restart_below {
                let at = rng.below(chosen.len() as u32) as usize;
                self.codes[own.clone()].copy_from_slice(&vectors[at * d..][..d]);
                // As if it had been chosen as often as an average code.
                let usual = (chosen.len() as f32 / self.len() as f32).max(restart_below);
                self.counts[code] = usual;
                for (sum, value) in self.sums[own.clone()].iter_mut().zip(&self.codes[own]) {
                    *sum = usual * value;
                }
                restarted += 1;
            } else {
                for (value, sum) in self.codes[own.clone()].iter_mut().zip(&self.sums[own]) {
                    *value = sum / self.counts[code];
                }
            }
        }
        restarted
    }
}

/// A PixelCNN over grids of codes: one-hot codes in, logits of each position's code out; a position sees only those
/// above it and to its left.
#[derive(Module, Debug)]
struct Prior {
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
    fn new(config: &VqVaeConfig, rng: &mut StreamRng, device: &Device) -> Self {
        let width = config.prior_channels;
        Self {
            first: Masked::new([config.codes, width], 5, false, rng, device),
            layers: (0..config.prior_layers).map(|_| Masked::new([width, width], 3, true, rng, device)).collect(),
            out: Conv2d::new([width, config.codes], 1, 1, 0, Activation::Identity, rng, device),
        }
    }

    /// One-hot codes `[N, codes, h, w]` to logits of the same shape.
    fn forward(&self, codes: Tensor<4>) -> Tensor<4> {
        let x = self.first.forward(codes, Activation::Relu);
        let x = self.layers.iter().fold(x, |x, layer| x.clone() + layer.forward(x, Activation::Relu));
        self.out.forward(x)
    }
}

/// Where in the run the model is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Autoencoder,
    Prior,
}

/// The model and its data.
pub struct VqVae {
    config: VqVaeConfig,
    seed: u64,
    total_steps: u64,
    device: Device,
    learner: Learner<Net>,
    prior: Learner<Prior>,
    codebook: Codebook,
    batches: Batches,
    test: Arc<Images>,
    /// Height and width of a grid of codes.
    grid: [usize; 2],
    scores: Option<SampleScores>,
    digits: bool,
}

impl VqVae {
    /// Reads and checks the rest of `[model]` and `[data]`.
    ///
    /// # Errors
    /// [`ConfigError`] for values out of range or data that can't be used.
    pub fn from_config(document: &mut ConfigDocument, setting: &ModelSetting<'_>) -> Result<Self, ConfigError> {
        let config: VqVaeConfig = document.section("model")?;
        let sets = data::load_images(document, setting.seed)?;
        let [colors, height, width] = sets.train.shape();
        config.check(document, [height, width])?;
        let fold = 1 << config.channels.len();
        let device = setting.device.clone().autodiff();
        let mut rng = stream(setting.seed, "network", 0);
        let net = Net::new(&config, colors, &mut rng, &device);
        let prior = Prior::new(&config, &mut stream(setting.seed, "prior", 0), &device);
        let codebook = Codebook::new(config.codes, config.width, &mut stream(setting.seed, "codebook", 0));
        let batches = Batches::new(sets.train, setting.batch_size_or(BATCH), sets.augment, setting.seed, None);
        Ok(Self {
            seed: setting.seed,
            total_steps: setting.steps(batches.per_epoch()),
            learner: Learner::new("network", net, AdamConfig::default()),
            prior: Learner::new("prior", prior, AdamConfig::default()),
            codebook,
            device,
            batches,
            digits: sets.name == "mnist" && [colors, height, width] == [1, 28, 28],
            scores: None,
            test: sets.test,
            grid: [height / fold, width / fold],
            config,
        })
    }

    fn phase(&self) -> Phase {
        let for_prior = (self.total_steps as f64 * self.config.prior_share).round() as u64;
        if self.step() + for_prior < self.total_steps { Phase::Autoencoder } else { Phase::Prior }
    }

    fn positions(&self) -> usize {
        self.grid[0] * self.grid[1]
    }

    /// `[N, width, h, w]` as vectors `[N h w, width]` on the host.
    fn vectors(&self, z: Tensor<4>) -> Vec<f32> {
        channels_last(&numbers(z), self.config.width, self.positions())
    }

    /// The codes `indices: [N h w]` as a tensor `[N, width, h, w]`.
    fn quantised(&self, indices: &[u32], device: &Device) -> Tensor<4> {
        let [h, w] = self.grid;
        let values = channels_first(&self.codebook.look_up(indices), self.config.width, h * w);
        Tensor::from_data(TensorData::new(values, [indices.len() / (h * w), self.config.width, h, w]), device)
    }

    /// Codes as zeros and ones: `[N, codes, h, w]`.
    fn one_hot(&self, indices: &[u32], device: &Device) -> Tensor<4> {
        let ([h, w], k) = (self.grid, self.config.codes);
        let mut values = vec![0.0f32; indices.len() * k];
        for (i, code) in indices.iter().enumerate() {
            let (picture, position) = (i / (h * w), i % (h * w));
            values[(picture * k + *code as usize) * h * w + position] = 1.0;
        }
        Tensor::from_data(TensorData::new(values, [indices.len() / (h * w), k, h, w]), device)
    }

    /// One update of the autoencoder and its codebook.
    fn train_autoencoder(&mut self, x: Tensor<4>, learning_rate: f64) -> Metrics {
        let net = self.learner.net();
        let z = net.encode(x.clone());
        let vectors = self.vectors(z.clone());
        let chosen = self.codebook.nearest(&vectors);
        let quantised = self.quantised(&chosen, &self.device);
        // The decoder sees the codes; their gradient goes to the encoder as if they were its output.
        let through = z.clone() + (quantised.clone() - z.clone()).detach();
        let pixels = self.test.image_len() as f64;
        let reconstruction =
            squared_error(net.decode(through).flatten(1, 3), x.flatten(1, 3)).mean().div_scalar(pixels);
        let commitment = squared_error(z.flatten(1, 3), quantised.flatten(1, 3)).mean();
        let commitment = commitment.div_scalar((self.positions() * self.config.width) as f64);
        let parts = [reconstruction.clone(), commitment.clone()].map(|part| f64::from(part.into_scalar::<f32>()));
        let loss = reconstruction + commitment.mul_scalar(self.config.commitment);
        let mut rng = stream(self.seed, "restarts", self.learner.step);
        let (decay, below) = (self.config.decay, self.config.restart_below);
        let restarted = self.codebook.follow(&vectors, &chosen, decay, below, &mut rng);
        let (_, grad_norm) = self.learner.descend(loss, learning_rate);
        let (perplexity, used) = usage(&chosen, self.config.codes);
        let mut metrics = Metrics::new();
        metrics.push("mse", parts[0]);
        metrics.push("commitment", parts[1]);
        metrics.push("code_perplexity", perplexity);
        metrics.push("codes_used", used as f64 / self.config.codes as f64);
        metrics.push("codes_restarted", restarted);
        metrics.push("grad_norm", grad_norm);
        metrics
    }

    /// One update of the prior on the codes of a batch.
    fn train_prior(&mut self, x: Tensor<4>, learning_rate: f64) -> Metrics {
        let chosen = self.codebook.nearest(&self.vectors(self.learner.net().valid().encode(x.inner())));
        let loss = self.code_nll(self.prior.net(), &chosen, &self.device).mean();
        let (nll, grad_norm) = self.prior.descend(loss, learning_rate);
        let mut metrics = Metrics::new();
        metrics.push("prior_bits_per_code", nll / std::f64::consts::LN_2);
        metrics.push("grad_norm", grad_norm);
        metrics
    }

    /// Minus the prior's log-likelihood of each code in nats: `[N, h w]`.
    fn code_nll(&self, prior: &Prior, chosen: &[u32], device: &Device) -> Tensor<2> {
        let [h, w] = self.grid;
        let n = chosen.len() / (h * w);
        let logits: Tensor<3> = prior.forward(self.one_hot(chosen, device)).flatten(2, 3);
        let log_probs = burn::tensor::activation::log_softmax(logits, 1);
        let indices: Vec<i32> = chosen.iter().map(|code| *code as i32).collect();
        let indices = Tensor::<3, Int>::from_data(TensorData::new(indices, [n, 1, h * w]), device);
        log_probs.gather(1, indices).neg().squeeze_dim(1)
    }

    /// The codes of pictures `[N, C, H, W]`: `[N h w]`.
    fn codes_of(&self, pixels: &[f32]) -> Vec<u32> {
        let net = self.learner.net().valid();
        let device = self.device.clone().inner();
        let [c, h, w] = self.test.shape();
        let z = in_passes(pixels, c * h * w, |rows, n| {
            numbers(net.encode(Tensor::from_data(TensorData::new(rows, [n, c, h, w]), &device)))
        });
        self.codebook.nearest(&channels_last(&z, self.config.width, self.positions()))
    }

    /// Pictures of codes `[N h w]`: `[N, C, H, W]`.
    fn decode(&self, codes: &[u32]) -> Vec<f32> {
        let net = self.learner.net().valid();
        let device = self.device.clone().inner();
        let ([h, w], d) = (self.grid, self.config.width);
        let z = channels_first(&self.codebook.look_up(codes), d, h * w);
        in_passes(&z, d * h * w, |rows, n| {
            numbers(net.decode(Tensor::from_data(TensorData::new(rows, [n, d, h, w]), &device)))
        })
    }

    /// Grids of codes drawn from the prior, position by position: `[count h w]`.
    fn draw(&self, count: usize, seed: u64, temperature: f32) -> Vec<u32> {
        let prior = self.prior.net().valid();
        let device = self.device.clone().inner();
        let (positions, k) = (self.positions(), self.config.codes);
        let mut streams: Vec<StreamRng> = sample_seeds(seed, count).collect();
        let mut codes = vec![0u32; count * positions];
        for position in 0..positions {
            // What stands at positions that are not drawn yet is not seen.
            let rows: Vec<f32> = codes.iter().map(|code| *code as f32).collect();
            let logits = in_passes(&rows, positions, |rows, _| {
                let codes: Vec<u32> = rows.iter().map(|code| *code as u32).collect();
                let logits = numbers(prior.forward(self.one_hot(&codes, &device)));
                logits.chunks_exact(positions).map(|plane| plane[position]).collect()
            });
            for (sample, (logits, rng)) in logits.chunks_exact(k).zip(&mut streams).enumerate() {
                codes[sample * positions + position] = draw_category(logits, temperature, rng);
            }
        }
        codes
    }

    fn reconstructions(&self, path: &Path) -> Result<PathBuf, CoreError> {
        const COLUMNS: usize = 10;
        let count = (3 * COLUMNS).min(self.test.len());
        let pixels = self.test.floats(0..count);
        let decoded = self.decode(&self.codes_of(&pixels));
        let len = COLUMNS * self.test.image_len();
        let mut sheet = Sheet::new(self.test.shape());
        for (x, y) in pixels.chunks(len).zip(decoded.chunks(len)) {
            sheet.band(vec![x.to_vec(), y.to_vec()]);
        }
        sheet.save(path)
    }

    fn samples(&self, path: &Path, count: usize, seed: u64, temperature: f32) -> Result<PathBuf, CoreError> {
        let pictures = self.decode(&self.draw(count, seed, temperature));
        Sheet::grid(self.test.shape(), &pictures, columns(count)).save(path)
    }
}

/// `[N, channels, positions]` to `[N positions, channels]`.
fn channels_last(values: &[f32], channels: usize, positions: usize) -> Vec<f32> {
    let picture = |z: &[f32]| {
        (0..positions).flat_map(|p| (0..channels).map(move |c| c * positions + p)).map(|i| z[i]).collect::<Vec<f32>>()
    };
    values.chunks_exact(channels * positions).flat_map(picture).collect()
}

/// `[N positions, channels]` to `[N, channels, positions]`.
fn channels_first(values: &[f32], channels: usize, positions: usize) -> Vec<f32> {
    let picture = |z: &[f32]| {
        (0..channels).flat_map(|c| (0..positions).map(move |p| p * channels + c)).map(|i| z[i]).collect::<Vec<f32>>()
    };
    values.chunks_exact(channels * positions).flat_map(picture).collect()
}

/// Perplexity of the distribution of choices, and the number of codes that were chosen.
fn usage(chosen: &[u32], codes: usize) -> (f64, usize) {
    let mut counts = vec![0u32; codes];
    chosen.iter().for_each(|code| counts[*code as usize] += 1);
    let shares = counts.iter().filter(|count| **count > 0).map(|count| f64::from(*count) / chosen.len() as f64);
    let entropy: f64 = shares.map(|share| -share * share.ln()).sum();
    (entropy.exp(), counts.iter().filter(|count| **count > 0).count())
}

/// A draw from `softmax(logits / temperature)`.
fn draw_category(logits: &[f32], temperature: f32, rng: &mut StreamRng) -> u32 {
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

impl VqVaeConfig {
    fn check(&self, document: &ConfigDocument, [height, width]: [usize; 2]) -> Result<(), ConfigError> {
        for (key, value) in [
            ("codes", self.codes),
            ("width", self.width),
            ("prior_channels", self.prior_channels),
            ("channels", self.channels.len()),
        ] {
            if value == 0 {
                return Err(document.out_of_range(&format!("model.{key}"), "at least one", value));
            }
        }
        let fold = 1usize << self.channels.len().min(16);
        if self.channels.contains(&0) || height % fold != 0 || width % fold != 0 {
            let expected = format!("positive widths, as many as {width}x{height} can be halved");
            return Err(document.out_of_range("model.channels", expected, format!("{:?}", self.channels)));
        }
        let (low, high) = self.learning_rate.bounds();
        if !(low >= 0.0 && high.is_finite()) {
            return Err(document.out_of_range("model.learning_rate", "a finite number not below 0", low));
        }
        for (key, value, ok, expected) in [
            ("commitment", self.commitment, self.commitment >= 0.0, "a number not below 0"),
            ("decay", self.decay.into(), (0.0..1.0).contains(&self.decay), "a number from 0 to below 1"),
            ("restart_below", self.restart_below.into(), self.restart_below >= 0.0, "a number not below 0"),
            ("prior_share", self.prior_share, (0.0..=1.0).contains(&self.prior_share), "a number from 0 to 1"),
        ] {
            if !(ok && value.is_finite()) {
                return Err(document.out_of_range(&format!("model.{key}"), expected, value));
            }
        }
        Ok(())
    }
}

impl Task for VqVae {
    fn step(&self) -> u64 {
        self.learner.step + self.prior.step
    }

    fn iterate(&mut self) -> Result<Metrics, CoreError> {
        let learning_rate = self.config.learning_rate.value(self.step() as f64 / self.total_steps as f64);
        let x = self.batches.next_batch().take_images(&self.device);
        let mut metrics = match self.phase() {
            Phase::Autoencoder => self.train_autoencoder(x, learning_rate),
            Phase::Prior => self.train_prior(x, learning_rate),
        };
        metrics.push("learning_rate", learning_rate);
        Ok(metrics)
    }

    fn evaluate(&mut self, _episodes: u32) -> Result<Evaluation, CoreError> {
        let pixels = self.test.floats(0..self.test.len());
        let codes = self.codes_of(&pixels);
        let decoded = self.decode(&codes);
        let error: f64 = pixels.iter().zip(&decoded).map(|(a, b)| f64::from(a - b).powi(2)).sum();
        let (perplexity, used) = usage(&codes, self.config.codes);
        let mut metrics = Metrics::new();
        metrics.push("mse", error / pixels.len() as f64);
        metrics.push("code_perplexity", perplexity);
        metrics.push("codes_used", used as f64 / self.config.codes as f64);
        if self.prior.step > 0 {
            let (prior, device) = (self.prior.net().valid(), self.device.clone().inner());
            let chunks = codes.chunks(PASS * self.positions());
            let nats: f64 =
                chunks.flat_map(|codes| numbers(self.code_nll(&prior, codes, &device))).map(f64::from).sum();
            metrics.push("prior_bits_per_code", nats / std::f64::consts::LN_2 / codes.len() as f64);
            if self.digits {
                let samples = self.decode(&self.draw(self.test.len(), self.seed, 1.0));
                let scores = self.scores.get_or_insert_with(|| SampleScores::new(&pixels));
                metrics.extend(&scores.score(&samples).0);
            }
        }
        Ok(Evaluation { eval: None, metrics })
    }

    fn snapshot(&mut self, dir: &Path) -> Result<Vec<PathBuf>, CoreError> {
        let mut pictures = vec![self.reconstructions(&dir.join("reconstructions.png"))?];
        if self.prior.step > 0 {
            pictures.push(self.samples(&dir.join("samples.png"), 64, self.seed, 1.0)?);
        }
        Ok(pictures)
    }

    fn media(&mut self, dir: &Path) -> Result<Vec<PathBuf>, CoreError> {
        self.snapshot(dir)
    }

    fn save(&self, to: &mut CheckpointWriter) -> Result<(), CoreError> {
        self.learner.save(to)?;
        self.prior.save(to)?;
        let Codebook { codes, counts, sums, .. } = &self.codebook;
        to.arrays("codebook.safetensors", &[("codes", codes), ("counts", counts), ("sums", sums)])
    }

    fn load(&mut self, from: &CheckpointReader) -> Result<(), CoreError> {
        let mut arrays = from.arrays("codebook.safetensors")?;
        let mut codebook = self.codebook.clone();
        for (name, values) in
            [("codes", &mut codebook.codes), ("counts", &mut codebook.counts), ("sums", &mut codebook.sums)]
        {
            let found = arrays.remove(name).unwrap_or_default();
            if found.len() != values.len() {
                let problem = format!("{name}: expected {} numbers, found {}", values.len(), found.len());
                return Err(CoreError::Checkpoint { path: from.path().join("codebook.safetensors"), problem });
            }
            *values = found;
        }
        self.learner.load(from)?;
        self.prior.load(from)?;
        self.codebook = codebook;
        self.batches.seek(self.step());
        Ok(())
    }

    fn headline(&self) -> Headline {
        Headline { metric: "mse", label: "mean squared error".into(), threshold: None }
    }
}

impl Model for VqVae {
    fn steps_per_epoch(&self) -> Option<u64> {
        Some(self.batches.per_epoch())
    }

    /// Options: `picture=samples|reconstructions`, `temperature=` (of the prior).
    fn sample(&mut self, request: &mut SampleRequest<'_>) -> Result<SampleReport, CoreError> {
        let mut options = Options::of(request);
        let picture = options.name("picture", &["samples", "reconstructions"])?;
        let temperature: f32 = options.value("temperature", "a number above 0")?.unwrap_or(1.0);
        options.finish()?;
        if !(temperature > 0.0 && temperature.is_finite()) {
            return Err(CoreError::Usage(format!("temperature={temperature}: expected a number above 0")));
        }
        let path = request.out.clone().unwrap_or_else(|| format!("{picture}.png").into());
        let file = match picture {
            "samples" => self.samples(&path, request.count.unwrap_or(64), request.seed, temperature)?,
            _ => self.reconstructions(&path)?,
        };
        Ok(SampleReport { files: vec![file], metrics: Metrics::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_follow_their_vectors_and_unused_ones_restart() {
        let mut rng = stream(1, "test", 0);
        let mut codebook = Codebook::new(4, 2, &mut rng);
        // Two clusters: two codes are enough, the others have to come to where vectors are.
        let vectors: Vec<f32> = (0..200)
            .flat_map(|i| {
                let centre = if i % 2 == 0 { 3.0 } else { -3.0 };
                [centre + 0.1 * rng.normal(), centre + 0.1 * rng.normal()]
            })
            .collect();
        let mut restarted = 0;
        for _ in 0..300 {
            let chosen = codebook.nearest(&vectors);
            restarted += codebook.follow(&vectors, &chosen, 0.9, 0.5, &mut rng);
        }
        assert!(restarted > 0);
        for code in codebook.codes.chunks(2) {
            assert!((code[0].abs() - 3.0).abs() < 0.4 && (code[0] - code[1]).abs() < 0.5, "{:?}", codebook.codes);
        }
        let (perplexity, used) = usage(&codebook.nearest(&vectors), 4);
        assert!(used == 4 && perplexity > 2.0);
        assert_eq!(usage(&[0, 1, 1, 0], 3), (2.0f64.ln().exp(), 2));
        assert_eq!(channels_last(&channels_first(&vectors, 2, 10), 2, 10), vectors);
    }

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
