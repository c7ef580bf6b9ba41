//! Vector-quantised autoencoders: pictures as grids of codes from a learned codebook, and a prior to draw new grids from.
//!
//! Van den Oord et al. 2017, arXiv:1711.00937: the encoder's vectors are replaced by the nearest code, gradients pass
//! straight through, and codes follow exponential moving averages of the vectors that chose them (its appendix A). A
//! code that hardly any vector chooses is restarted at a vector of the batch (Dhariwal et al. 2020, arXiv:2005.00341).
//! The last part of the run freezes the autoencoder and trains the prior: masked convolutions over the grid of codes, a
//! PixelCNN (van den Oord et al. 2016, arXiv:1601.06759).

mod codebook;
mod config;
mod prior;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::prelude::*;
use burn::tensor::TensorData;
use hotfire_core::CoreError;
use hotfire_core::checkpoint::{CheckpointReader, CheckpointWriter};
use hotfire_core::config::{ConfigDocument, ConfigError};
use hotfire_core::metrics::Metrics;
use hotfire_core::seed::{StreamRng, stream};
use hotfire_core::task::{Evaluation, Headline, Task};
use hotfire_nn::ops::squared_error;
use hotfire_nn::{Activation, AdamConfig, Conv2d, ConvTranspose2d};

use self::codebook::{Codebook, channels_first, channels_last, usage};
pub use self::config::VqVaeConfig;
use self::prior::{Prior, draw_category};
use crate::codec::{in_passes, numbers};
use crate::data::{self, Batches, Images};
use crate::learner::Learner;
use crate::metrics::SampleScores;
use crate::pictures::{RECONSTRUCTED, Sheet, columns};
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
    scored: bool,
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
            scored: SampleScores::serves(&sets.name, &sets.test, sets.test.len()),
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
        let pixels = self.test.floats(0..RECONSTRUCTED.min(self.test.len()));
        let decoded = self.decode(&self.codes_of(&pixels));
        Sheet::side_by_side(self.test.shape(), &[&pixels, &decoded]).save(path)
    }

    fn samples(&self, path: &Path, count: usize, seed: u64, temperature: f32) -> Result<PathBuf, CoreError> {
        let pictures = self.decode(&self.draw(count, seed, temperature));
        Sheet::grid(self.test.shape(), &pictures, columns(count)).save(path)
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
            if self.scored {
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
        let above_zero = |t: &f32| *t > 0.0 && t.is_finite();
        let temperature = options.value("temperature", "a number above 0", above_zero)?.unwrap_or(1.0);
        options.finish()?;
        let path = request.picture(format!("{picture}.png"), &["png"])?;
        let file = match picture {
            "samples" => self.samples(&path, request.count.unwrap_or(64), request.seed, temperature)?,
            _ => self.reconstructions(&path)?,
        };
        Ok(SampleReport { files: vec![file], metrics: Metrics::new() })
    }
}
