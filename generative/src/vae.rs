//! Variational autoencoders: plain, beta, conditional; Bernoulli or Gaussian pixels.
//!
//! Kingma and Welling 2014, arXiv:1312.6114; beta-VAE: Higgins et al. 2017; conditional: Sohn et al. 2015. The ELBO is a
//! bound on a likelihood only if the data fit the decoder's distribution: for Bernoulli pixels pictures are binarised,
//! stochastically (Salakhutdinov and Murray 2008) or by a threshold; for Gaussian pixels bytes are dequantised with
//! uniform noise (Theis et al. 2016, arXiv:1511.01844) and the standard deviation is learned (Rybkin et al. 2021,
//! arXiv:2006.13202). Units are active whose posterior mean varies by more than 0.01 over the data (Burda et al. 2016,
//! arXiv:1509.00519), where the importance-weighted bound comes from, too.

use std::f64::consts::{LN_2, PI};
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
use hotfire_nn::ops::{bernoulli_nll, squared_error};
use hotfire_nn::{Activation, AdamConfig};
use serde::{Deserialize, Serialize};

use crate::codec::{CodecShape, Decoder, Encoder, in_passes, numbers};
use crate::data::{self, Batch, Batches, Images};
use crate::latent::latent_map;
use crate::learner::Learner;
use crate::metrics::SampleScores;
use crate::pictures::{Sheet, arc, columns};
use crate::registry::ModelSpec;
use crate::sampling::{Options, sample_seeds};
use crate::{Model, ModelSetting, SampleReport, SampleRequest};

/// The registry's entry.
pub const SPEC: ModelSpec = ModelSpec {
    name: "vae",
    summary: "variational autoencoder: beta, conditional, Bernoulli or Gaussian pixels",
    source: "Kingma and Welling 2014, arXiv:1312.6114",
    make: |document, setting| Ok(Box::new(Vae::from_config(document, setting)?)),
};

/// The `[model]` section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VaeConfig {
    /// Channels of the encoder's stride-2 convolutions; empty for a dense network.
    pub channels: Vec<usize>,
    /// Widths of the encoder's hidden dense layers; the decoder mirrors them.
    pub hidden: Vec<usize>,
    /// Numbers of a code.
    pub latent: usize,
    /// Adam's step size.
    pub learning_rate: Schedule,
    /// Weight of the divergence from the prior; 1 for the ELBO.
    pub beta: Schedule,
    /// Steps over which that weight rises from zero (Sønderby et al. 2016, arXiv:1602.02282): without them a decoder may
    /// ignore its codes for the first epochs.
    pub warmup: u64,
    /// The decoder's distribution of a pixel.
    pub likelihood: Likelihood,
    /// How pictures are made black and white for Bernoulli pixels.
    pub binarize: Binarize,
    /// The standard deviation of Gaussian pixels; learned without it.
    pub pixel_std: Option<f64>,
    /// Whether encoder and decoder are told the class.
    pub conditional: bool,
    /// Samples a picture for the importance-weighted bound of an evaluation; 0 for none.
    pub iwae_samples: usize,
    /// Test pictures for the importance-weighted bound; 0 for all.
    pub iwae_images: usize,
}

/// The decoder's distribution of a pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Likelihood {
    /// Black or white.
    Bernoulli,
    /// A grey level with normal noise.
    Gaussian,
}

/// How pictures are made black and white.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Binarize {
    /// White with the grey level as probability; drawn anew for each training batch, once for the test pictures.
    Stochastic,
    /// White above a byte of 127.
    Threshold,
    /// Grey levels as they are. With Bernoulli pixels the ELBO is no bound on a likelihood then.
    None,
}

impl Default for VaeConfig {
    fn default() -> Self {
        Self {
            channels: vec![32, 64],
            hidden: vec![256],
            latent: 20,
            learning_rate: Schedule::Constant(1e-3),
            beta: Schedule::Constant(1.0),
            warmup: 0,
            likelihood: Likelihood::Bernoulli,
            binarize: Binarize::Stochastic,
            pixel_std: None,
            conditional: false,
            iwae_samples: 0,
            iwae_images: 0,
        }
    }
}

/// Pictures of a batch, without another choice in `[train]`.
const BATCH: usize = 128;
/// Pictures of a forward pass without gradients.
const PASS: usize = 250;
/// Variance of its mean over the data from which a unit counts as active.
const ACTIVE: f64 = 0.01;

#[derive(Module, Debug)]
struct Net {
    /// To means and log-variances, `[N, 2 latent]`.
    encoder: Encoder,
    /// To logits or means of pixels.
    decoder: Decoder,
    /// Logarithm of the standard deviation of Gaussian pixels.
    log_std: Option<Param<Tensor<1>>>,
}

/// A batch's posterior: means and log-variances, `[N, latent]`.
struct Posterior {
    mean: Tensor<2>,
    log_variance: Tensor<2>,
}

impl Net {
    fn posterior(&self, x: Tensor<4>, condition: Option<Tensor<2>>) -> Posterior {
        let out = self.encoder.forward(x, condition);
        let [n, double] = out.dims();
        let d = double / 2;
        Posterior {
            mean: out.clone().slice([0..n, 0..d]),
            // Bounded, so that a wild start can't overflow the exponential.
            log_variance: out.slice([0..n, d..double]).clamp(-20.0, 10.0),
        }
    }

    /// Minus the log-likelihood of `x: [N, D]` in nats: `[N]`.
    fn nll(&self, output: Tensor<2>, x: Tensor<2>) -> Tensor<1> {
        match &self.log_std {
            None => bernoulli_nll(output, x),
            Some(log_std) => {
                let pixels = x.dims()[1] as f64;
                let log_std = log_std.val();
                let precision = log_std.clone().mul_scalar(-2.0).exp();
                squared_error(output, x) * precision.mul_scalar(0.5)
                    + log_std.add_scalar(0.5 * (2.0 * PI).ln()).mul_scalar(pixels)
            }
        }
    }
}

impl Posterior {
    /// `KL(q || N(0, 1))` of each unit in nats: `[N, latent]`.
    fn divergence(&self) -> Tensor<2> {
        let (mean, log_variance) = (self.mean.clone(), self.log_variance.clone());
        (mean.square() + log_variance.clone().exp() - log_variance).sub_scalar(1.0).mul_scalar(0.5)
    }

    fn sample(&self, rng: &mut StreamRng, device: &Device) -> Tensor<2> {
        let [n, d] = self.mean.dims();
        let mut noise = vec![0.0; n * d];
        rng.fill_normal(&mut noise);
        let noise = Tensor::from_data(TensorData::new(noise, [n, d]), device);
        self.mean.clone() + self.log_variance.clone().mul_scalar(0.5).exp() * noise
    }
}

/// The model and its data.
pub struct Vae {
    config: VaeConfig,
    seed: u64,
    total_steps: u64,
    device: Device,
    learner: Learner<Net>,
    batches: Batches,
    test: Arc<Images>,
    /// The test pictures as the decoder's distribution has them: binarised or dequantised, always the same.
    test_pixels: Vec<f32>,
    /// Number of classes that the networks are told; 0 if none.
    classes: usize,
    /// Scores samples, where the data are digits.
    scores: Option<SampleScores>,
    digits: bool,
}

impl Vae {
    /// Reads and checks the rest of `[model]` and `[data]`.
    ///
    /// # Errors
    /// [`ConfigError`] for values out of range or data that can't be used.
    pub fn from_config(document: &mut ConfigDocument, setting: &ModelSetting<'_>) -> Result<Self, ConfigError> {
        let config: VaeConfig = document.section("model")?;
        config.check(document)?;
        let sets = data::load_images(document, setting.seed)?;
        let classes = match config.conditional {
            true if sets.train.labels.is_none() => {
                let problem = format!("needs classes: the data {} have none", sets.name);
                return Err(document.invalid("model.conditional", problem));
            }
            true => sets.train.classes,
            false => 0,
        };
        let shape = CodecShape {
            image: sets.train.shape(),
            channels: config.channels.clone(),
            hidden: config.hidden.clone(),
            condition: classes,
        };
        shape.check(document)?;
        let device = setting.device.clone().autodiff();
        let mut rng = stream(setting.seed, "network", 0);
        let net = Net {
            encoder: Encoder::new(&shape, 2 * config.latent, &mut rng, &device),
            decoder: Decoder::new(&shape, config.latent, Activation::Identity, &mut rng, &device),
            log_std: (config.likelihood == Likelihood::Gaussian).then(|| {
                let start = Tensor::full([1], config.pixel_std.unwrap_or(0.25).ln(), &device);
                Param::from_tensor(start).set_require_grad(config.pixel_std.is_none())
            }),
        };
        let (likelihood, binarize) = (config.likelihood, config.binarize);
        let prepare: data::Prepare = Arc::new(move |batch: &mut Batch, rng: &mut StreamRng| {
            to_distribution(&mut batch.pixels, likelihood, binarize, rng);
        });
        let batch_size = setting.batch_size_or(BATCH);
        let batches = Batches::new(sets.train, batch_size, sets.augment, setting.seed, Some(prepare));
        let mut test_pixels = sets.test.floats(0..sets.test.len());
        // The test pictures belong to the data, not to the run.
        to_distribution(&mut test_pixels, likelihood, binarize, &mut stream(0, "test pictures", 0));
        Ok(Self {
            seed: setting.seed,
            total_steps: setting.steps(batches.per_epoch()),
            learner: Learner::new("network", net, AdamConfig::default()),
            device,
            batches,
            digits: sets.name == "mnist" && shape.image == [1, 28, 28],
            scores: None,
            test: sets.test,
            test_pixels,
            classes,
            config,
        })
    }

    fn condition(&self, labels: &[u32], device: &Device) -> Option<Tensor<2>> {
        (self.classes > 0).then(|| one_hot(labels, self.classes, device))
    }

    /// The test pictures `rows` as the encoder gets them, and their condition.
    fn test_batch(&self, rows: std::ops::Range<usize>, device: &Device) -> (Tensor<4>, Option<Tensor<2>>) {
        let [c, h, w] = self.test.shape();
        let pixels = self.test_pixels[rows.start * c * h * w..rows.end * c * h * w].to_vec();
        let labels = self.test.labels.as_ref().map(|labels| &labels[rows.clone()]).unwrap_or_default();
        (Tensor::from_data(TensorData::new(pixels, [rows.len(), c, h, w]), device), self.condition(labels, device))
    }

    /// Pictures of codes `[N, latent]` and classes `[N]`: the mean of each pixel, `[N, C, H, W]`.
    fn decode(&self, codes: &[f32], labels: &[u32]) -> Vec<f32> {
        let net = self.learner.net().valid();
        let device = self.device.clone().inner();
        let (d, classes) = (self.config.latent, self.classes);
        // Code and condition travel as one row.
        let rows: Vec<f32> = match classes {
            0 => codes.to_vec(),
            _ => codes
                .chunks_exact(d)
                .zip(labels)
                .flat_map(|(code, label)| code.iter().copied().chain((0..classes).map(|c| hot(c, *label))))
                .collect(),
        };
        let pixels = in_passes(&rows, d + classes, |rows, n| {
            let z = Tensor::<2>::from_data(TensorData::new(rows, [n, d + classes]), &device);
            numbers(net.decoder.forward(z, None))
        });
        match self.config.likelihood {
            Likelihood::Bernoulli => pixels.into_iter().map(|logit| 1.0 / (1.0 + (-logit).exp())).collect(),
            Likelihood::Gaussian => pixels,
        }
    }

    /// The posterior means of the first `count` test pictures: `[count, latent]`.
    fn test_codes(&self, count: usize) -> Vec<f32> {
        let net = self.learner.net().valid();
        let device = self.device.clone().inner();
        let count = count.min(self.test.len());
        let passes = (0..count).step_by(PASS).map(|start| {
            let (x, condition) = self.test_batch(start..(start + PASS).min(count), &device);
            numbers(net.posterior(x, condition).mean)
        });
        passes.collect::<Vec<_>>().concat()
    }

    fn test_label(&self, index: usize) -> u32 {
        self.test.labels.as_ref().map_or(0, |labels| labels[index])
    }

    /// Codes and classes of samples; without a class, classes take turns.
    fn draw(&self, count: usize, seed: u64, class: Option<u32>, temperature: f32) -> (Vec<f32>, Vec<u32>) {
        let codes = sample_seeds(seed, count).flat_map(|mut rng| {
            let mut code = vec![0.0; self.config.latent];
            rng.fill_normal(&mut code);
            code.iter_mut().for_each(|z| *z *= temperature);
            code
        });
        let turn = |i: usize| class.unwrap_or(if self.classes > 0 { (i % self.classes) as u32 } else { 0 });
        (codes.collect(), (0..count).map(turn).collect())
    }

    /// The negative ELBO of the test pictures with its parts, active units, and the importance-weighted bound.
    fn likelihood(&self) -> Metrics {
        let net = self.learner.net().valid();
        let device = self.device.clone().inner();
        let d = self.config.latent;
        let mut rng = stream(self.seed, "evaluation", 0);
        let (mut nll, mut divergences, mut means) = (0.0, vec![0.0f64; d], Vec::new());
        for start in (0..self.test.len()).step_by(PASS) {
            let (x, condition) = self.test_batch(start..(start + PASS).min(self.test.len()), &device);
            let posterior = net.posterior(x.clone(), condition.clone());
            let output = net.decoder.forward(posterior.sample(&mut rng, &device), condition);
            let losses = numbers(net.nll(output.flatten(1, 3), x.flatten(1, 3)));
            nll += losses.iter().map(|loss| f64::from(*loss)).sum::<f64>();
            for row in numbers(posterior.divergence()).chunks_exact(d) {
                divergences.iter_mut().zip(row).for_each(|(sum, kl)| *sum += f64::from(*kl));
            }
            means.extend(numbers(posterior.mean));
        }
        let n = self.test.len() as f64;
        let (nll, kl) = (nll / n, divergences.iter().sum::<f64>() / n);
        let mut metrics = Metrics::new();
        metrics.push("neg_elbo", nll + kl);
        metrics.push("reconstruction", nll);
        metrics.push("kl", kl);
        metrics.push("active_units", unit_variances(&means, d).iter().filter(|v| **v > ACTIVE).count() as f64);
        metrics.push("bits_per_dim", self.bits_per_dim(nll + kl));
        if let Some(log_std) = &net.log_std {
            metrics.push("pixel_std", f64::from(log_std.val().into_scalar::<f32>()).exp());
        }
        if self.config.iwae_samples > 0 {
            metrics.push(format!("neg_iwae_{}", self.config.iwae_samples), self.importance_weighted(&net, &device));
        }
        metrics
    }

    /// Nats a picture as bits a pixel; for Gaussian pixels, of the bytes that were dequantised.
    fn bits_per_dim(&self, nats: f64) -> f64 {
        let per_pixel = nats / LN_2 / self.test.image_len() as f64;
        match self.config.likelihood {
            Likelihood::Bernoulli => per_pixel,
            Likelihood::Gaussian => per_pixel + 8.0,
        }
    }

    /// `-log 1/K sum_k p(x, z_k) / q(z_k | x)` (Burda et al. 2016, equation 8), the mean over test pictures.
    fn importance_weighted(&self, net: &Net, device: &Device) -> f64 {
        let k = self.config.iwae_samples;
        let count = match self.config.iwae_images {
            0 => self.test.len(),
            images => images.min(self.test.len()),
        };
        let d = self.config.latent;
        let mut total = 0.0;
        for start in (0..count).step_by(PASS) {
            let (x, condition) = self.test_batch(start..(start + PASS).min(count), device);
            let n = x.dims()[0];
            let pixels = x.clone().flatten::<2>(1, 3);
            let posterior = net.posterior(x, condition.clone());
            let (mean, log_variance) = (numbers(posterior.mean), numbers(posterior.log_variance));
            let mut log_weights = vec![Vec::with_capacity(k); n];
            for sample in 0..k {
                let mut rng = stream(self.seed, "importance", (start * k + sample) as u64);
                let mut noise = vec![0.0f32; n * d];
                rng.fill_normal(&mut noise);
                let deviation = |i: usize| (0.5 * log_variance[i]).exp();
                let z: Vec<f32> = (0..n * d).map(|i| mean[i] + deviation(i) * noise[i]).collect();
                let codes = Tensor::from_data(TensorData::new(z.clone(), [n, d]), device);
                let output = net.decoder.forward(codes, condition.clone());
                let nll = numbers(net.nll(output.flatten(1, 3), pixels.clone()));
                for (i, weights) in log_weights.iter_mut().enumerate() {
                    // log p(z) - log q(z | x): the constants of both densities cancel.
                    let ratio = |j: usize| 0.5 * (noise[j].powi(2) + log_variance[j] - z[j].powi(2));
                    let prior: f64 = (i * d..(i + 1) * d).map(|j| f64::from(ratio(j))).sum();
                    weights.push(prior - f64::from(nll[i]));
                }
            }
            total -= log_weights.iter().map(|weights| log_mean_exp(weights)).sum::<f64>();
        }
        total / count as f64
    }

    fn reconstructions(&self, path: &Path) -> Result<PathBuf, CoreError> {
        const COLUMNS: usize = 10;
        let count = (3 * COLUMNS).min(self.test.len());
        let labels: Vec<u32> = (0..count).map(|i| self.test_label(i)).collect();
        let decoded = self.decode(&self.test_codes(count), &labels);
        let len = COLUMNS * self.test.image_len();
        let mut sheet = Sheet::new(self.test.shape());
        for (x, y) in self.test_pixels[..count * self.test.image_len()].chunks(len).zip(decoded.chunks(len)) {
            sheet.band(vec![x.to_vec(), y.to_vec()]);
        }
        sheet.save(path)
    }

    fn samples(&self, path: &Path, codes: &[f32], labels: &[u32], columns: usize) -> Result<PathBuf, CoreError> {
        Sheet::grid(self.test.shape(), &self.decode(codes, labels), columns).save(path)
    }

    /// One row a unit, the most used first: the unit goes from -3 to 3, the others stay where a test picture has them.
    fn traversals(&self, path: &Path, picture: usize) -> Result<PathBuf, CoreError> {
        const STEPS: usize = 11;
        const ROWS: usize = 10;
        let d = self.config.latent;
        let codes = self.test_codes(1_000);
        let variances = unit_variances(&codes, d);
        let mut units: Vec<usize> = (0..d).collect();
        units.sort_by(|a, b| variances[*b].total_cmp(&variances[*a]));
        let picture = picture % (codes.len() / d);
        let base = &codes[picture * d..][..d];
        let rows = units.iter().take(ROWS).map(|unit| {
            let row: Vec<f32> = (0..STEPS)
                .flat_map(|i| {
                    let mut code = base.to_vec();
                    code[*unit] = 6.0 * i as f32 / (STEPS - 1) as f32 - 3.0;
                    code
                })
                .collect();
            self.decode(&row, &[self.test_label(picture); STEPS])
        });
        Sheet::new(self.test.shape()).band(rows.collect()).save(path)
    }

    fn interpolations(&self, path: &Path, rows: usize, seed: u64) -> Result<PathBuf, CoreError> {
        const STEPS: usize = 10;
        let d = self.config.latent;
        let (codes, _) = self.draw(2 * rows, seed, None, 1.0);
        let strips = codes.chunks_exact(2 * d).enumerate().map(|(i, pair)| {
            let class = if self.classes > 0 { (i % self.classes) as u32 } else { 0 };
            self.decode(&arc(&pair[..d], &pair[d..], STEPS), &[class; STEPS])
        });
        Sheet::new(self.test.shape()).band(strips.collect()).save(path)
    }

    /// One code a row, one class a column.
    fn styles(&self, path: &Path, rows: usize, seed: u64) -> Result<PathBuf, CoreError> {
        let (codes, _) = self.draw(rows, seed, None, 1.0);
        let classes: Vec<u32> = (0..self.classes as u32).collect();
        let rows = codes.chunks_exact(self.config.latent).map(|z| self.decode(&z.repeat(self.classes), &classes));
        Sheet::new(self.test.shape()).band(rows.collect()).save(path)
    }

    /// The whole plane of codes of two numbers, at the quantiles of the prior.
    fn manifold(&self, path: &Path) -> Result<PathBuf, CoreError> {
        const SIDE: usize = 20;
        let at = |i: usize| normal_quantile((i as f64 + 0.5) / SIDE as f64) as f32;
        let codes: Vec<f32> = (0..SIDE * SIDE).flat_map(|i| [at(i % SIDE), at(SIDE - 1 - i / SIDE)]).collect();
        self.samples(path, &codes, &[0; SIDE * SIDE], SIDE)
    }

    /// Scores as many samples as there are test pictures.
    fn score_samples(&mut self) -> Option<Metrics> {
        if !self.digits {
            return None;
        }
        let (codes, labels) = self.draw(self.test.len(), self.seed, None, 1.0);
        let samples = self.decode(&codes, &labels);
        let test = &self.test;
        let scores = self.scores.get_or_insert_with(|| SampleScores::new(&test.floats(0..test.len())));
        let (mut metrics, classified) = scores.score(&samples);
        if self.classes > 0 {
            let hits = classified.digits().iter().zip(&labels).filter(|(a, b)| a == b).count();
            metrics.push("class_accuracy", hits as f64 / labels.len() as f64);
        }
        Some(metrics)
    }
}

/// Turns grey levels from 0 to 1 into what the decoder's distribution is over.
fn to_distribution(pixels: &mut [f32], likelihood: Likelihood, binarize: Binarize, rng: &mut StreamRng) {
    match (likelihood, binarize) {
        (Likelihood::Gaussian, _) => {
            pixels.iter_mut().for_each(|pixel| *pixel = (255.0 * *pixel + rng.uniform()) / 256.0);
        }
        (Likelihood::Bernoulli, Binarize::Stochastic) => {
            pixels.iter_mut().for_each(|pixel| *pixel = if rng.uniform() < *pixel { 1.0 } else { 0.0 });
        }
        (Likelihood::Bernoulli, Binarize::Threshold) => {
            pixels.iter_mut().for_each(|pixel| *pixel = if *pixel > 0.5 { 1.0 } else { 0.0 });
        }
        (Likelihood::Bernoulli, Binarize::None) => {}
    }
}

fn hot(class: usize, label: u32) -> f32 {
    f32::from(u8::from(class == label as usize))
}

/// `[N]` classes as rows `[N, classes]` of zeros and a one.
fn one_hot(labels: &[u32], classes: usize, device: &Device) -> Tensor<2> {
    let rows: Vec<f32> = labels.iter().flat_map(|label| (0..classes).map(|class| hot(class, *label))).collect();
    Tensor::from_data(TensorData::new(rows, [labels.len(), classes]), device)
}

/// The variance of each column of `[N, d]`.
fn unit_variances(codes: &[f32], d: usize) -> Vec<f64> {
    let n = (codes.len() / d) as f64;
    let column = |unit: usize| codes.iter().skip(unit).step_by(d).map(|z| f64::from(*z));
    (0..d)
        .map(|unit| {
            let mean = column(unit).sum::<f64>() / n;
            column(unit).map(|z| (z - mean).powi(2)).sum::<f64>() / n
        })
        .collect()
}

fn log_mean_exp(values: &[f64]) -> f64 {
    let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    largest + (values.iter().map(|value| (value - largest).exp()).sum::<f64>() / values.len() as f64).ln()
}

/// The standard normal quantile by bisection of its distribution function.
fn normal_quantile(p: f64) -> f64 {
    // Abramowitz and Stegun 1964, 26.2.17; the error is below 1e-7.
    let cdf = |x: f64| {
        let t = 1.0 / (1.0 + 0.231_641_9 * x.abs());
        let c = [1.330_274_429, -1.821_255_978, 1.781_477_937, -0.356_563_782, 0.319_381_530];
        let tail = c.iter().fold(0.0, |sum, c| (sum + c) * t) * (-0.5 * x * x).exp() / (2.0 * PI).sqrt();
        if x >= 0.0 { 1.0 - tail } else { tail }
    };
    let (mut low, mut high) = (-8.0, 8.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if cdf(middle) < p { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

impl VaeConfig {
    fn check(&self, document: &ConfigDocument) -> Result<(), ConfigError> {
        if self.latent == 0 {
            return Err(document.out_of_range("model.latent", "at least 1", self.latent));
        }
        for (key, schedule) in [("learning_rate", self.learning_rate), ("beta", self.beta)] {
            let (low, high) = schedule.bounds();
            if !(low >= 0.0 && high.is_finite()) {
                return Err(document.out_of_range(&format!("model.{key}"), "a finite number not below 0", low));
            }
        }
        if let Some(std) = self.pixel_std {
            if self.likelihood == Likelihood::Bernoulli {
                return Err(document.invalid("model.pixel_std", "is for likelihood = \"gaussian\""));
            }
            if !(std > 0.0 && std.is_finite()) {
                return Err(document.out_of_range("model.pixel_std", "a positive number", std));
            }
        }
        Ok(())
    }
}

impl Task for Vae {
    fn step(&self) -> u64 {
        self.learner.step
    }

    fn iterate(&mut self) -> Result<Metrics, CoreError> {
        let step = self.learner.step;
        let progress = step as f64 / self.total_steps as f64;
        let learning_rate = self.config.learning_rate.value(progress);
        let risen = ((step + 1) as f64 / self.config.warmup.max(1) as f64).min(1.0);
        let beta = self.config.beta.value(progress) * risen;
        let mut batch = self.batches.next_batch();
        let condition = self.condition(&batch.labels, &self.device);
        let x = batch.take_images(&self.device);
        let net = self.learner.net();
        let posterior = net.posterior(x.clone(), condition.clone());
        let z = posterior.sample(&mut stream(self.seed, "posterior", step), &self.device);
        let output = net.decoder.forward(z, condition);
        let nll = net.nll(output.flatten(1, 3), x.flatten(1, 3)).mean();
        let kl: Tensor<1> = posterior.divergence().sum_dim(1).squeeze_dim(1);
        let kl = kl.mean();
        let parts = [nll.clone(), kl.clone()].map(|part| f64::from(part.into_scalar::<f32>()));
        let (loss, grad_norm) = self.learner.descend(nll + kl.mul_scalar(beta), learning_rate);
        let mut metrics = Metrics::new();
        metrics.push("neg_elbo", parts[0] + parts[1]);
        metrics.push("reconstruction", parts[0]);
        metrics.push("kl", parts[1]);
        metrics.push("loss", loss);
        metrics.push("beta", beta);
        metrics.push("grad_norm", grad_norm);
        metrics.push("learning_rate", learning_rate);
        Ok(metrics)
    }

    fn evaluate(&mut self, _episodes: u32) -> Result<Evaluation, CoreError> {
        let mut metrics = self.likelihood();
        if let Some(scores) = self.score_samples() {
            metrics.extend(&scores);
        }
        Ok(Evaluation { eval: None, metrics })
    }

    fn snapshot(&mut self, dir: &Path) -> Result<Vec<PathBuf>, CoreError> {
        let (codes, labels) = self.draw(64, self.seed, None, 1.0);
        let columns = if self.classes > 0 { self.classes } else { 8 };
        Ok(vec![
            self.samples(&dir.join("samples.png"), &codes, &labels, columns)?,
            self.reconstructions(&dir.join("reconstructions.png"))?,
        ])
    }

    fn media(&mut self, dir: &Path) -> Result<Vec<PathBuf>, CoreError> {
        let count = if self.classes > 0 { 8 * self.classes } else { 64 };
        let (codes, labels) = self.draw(count, self.seed, None, 1.0);
        let columns = if self.classes > 0 { self.classes } else { 8 };
        let mut pictures = vec![
            self.samples(&dir.join("samples.png"), &codes, &labels, columns)?,
            self.reconstructions(&dir.join("reconstructions.png"))?,
            self.traversals(&dir.join("traversals.png"), 0)?,
            self.interpolations(&dir.join("interpolations.png"), 8, self.seed)?,
        ];
        let (codes, labels) = (self.test_codes(self.test.len()), self.test.labels.as_deref());
        let title = "Posterior means of the test pictures";
        pictures.push(latent_map(&dir.join("latent-map.png"), title, &codes, self.config.latent, labels)?);
        if self.classes > 0 {
            pictures.push(self.styles(&dir.join("styles.png"), 8, self.seed)?);
        }
        if self.config.latent == 2 && self.classes == 0 {
            pictures.push(self.manifold(&dir.join("manifold.png"))?);
        }
        Ok(pictures)
    }

    fn save(&self, to: &mut CheckpointWriter) -> Result<(), CoreError> {
        self.learner.save(to)
    }

    fn load(&mut self, from: &CheckpointReader) -> Result<(), CoreError> {
        self.learner.load(from)?;
        self.batches.seek(self.learner.step);
        Ok(())
    }

    fn headline(&self) -> Headline {
        Headline { metric: "neg_elbo", label: "negative ELBO, nats a picture".into(), threshold: None }
    }
}

impl Model for Vae {
    fn steps_per_epoch(&self) -> Option<u64> {
        Some(self.batches.per_epoch())
    }

    /// Options: `picture=samples|reconstructions|traversals|interpolations|styles`, `class=`, `temperature=` (standard
    /// deviation of the codes), `index=` (test picture of the traversals).
    fn sample(&mut self, request: &mut SampleRequest<'_>) -> Result<SampleReport, CoreError> {
        let mut options = Options::of(request);
        let pictures = ["samples", "reconstructions", "traversals", "interpolations", "styles"];
        let picture = options.name("picture", &pictures)?;
        let class: Option<u32> = options.value("class", "the number of a class")?;
        let temperature: f32 = options.value("temperature", "a number")?.unwrap_or(1.0);
        let index: usize = options.value("index", "the number of a test picture")?.unwrap_or(0);
        options.finish()?;
        if let Some(class) = class
            && class as usize >= self.classes
        {
            let problem = match self.classes {
                0 => format!("class={class}: this model knows no classes (model.conditional is false)"),
                classes => format!("class={class}: expected a class from 0 to {}", classes - 1),
            };
            return Err(CoreError::Usage(problem));
        }
        let path = request.out.clone().unwrap_or_else(|| format!("{picture}.png").into());
        let count = request.count;
        let file = match picture {
            "reconstructions" => self.reconstructions(&path)?,
            "traversals" => self.traversals(&path, index)?,
            "interpolations" => self.interpolations(&path, count.unwrap_or(8), request.seed)?,
            "styles" if self.classes > 0 => self.styles(&path, count.unwrap_or(8), request.seed)?,
            "styles" => {
                return Err(CoreError::Usage("picture=styles: this model knows no classes".into()));
            }
            _ => {
                let count = count.unwrap_or(64);
                let (codes, labels) = self.draw(count, request.seed, class, temperature);
                self.samples(&path, &codes, &labels, columns(count))?
            }
        };
        Ok(SampleReport { files: vec![file], metrics: Metrics::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_and_means_of_exponentials_are_those_of_the_tables() {
        for (p, x) in [(0.5, 0.0), (0.975, 1.959_964), (0.025, -1.959_964), (0.8413447, 1.0)] {
            assert!((normal_quantile(p) - x).abs() < 1e-5, "{p}");
        }
        assert!((log_mean_exp(&[0.0, 3f64.ln()]) - 2f64.ln()).abs() < 1e-12);
        assert!((log_mean_exp(&[-1e4, -1e4]) + 1e4).abs() < 1e-9);
    }

    /// The divergence and its gradient follow the formula; a sample has the posterior's moments.
    #[test]
    fn the_posterior_is_the_gaussian_it_says() {
        let device = Device::flex();
        let row = |value: f32| Tensor::<2>::full([20_000, 1], value, &device);
        let posterior = Posterior { mean: row(0.5), log_variance: row(-1.0) };
        let kl = numbers(posterior.divergence())[0];
        let want = 0.5 * (0.25 + (-1.0f32).exp() + 1.0 - 1.0);
        assert!((kl - want).abs() < 1e-6, "{kl} against {want}");
        let z = numbers(posterior.sample(&mut stream(1, "test", 0), &device));
        assert!((unit_variances(&z, 1)[0] - (-1.0f64).exp()).abs() < 0.02);
    }

    #[test]
    fn pictures_become_what_the_decoder_describes() {
        let mut rng = stream(1, "test", 0);
        let levels = [0.0f32, 127.0 / 255.0, 128.0 / 255.0, 1.0];
        let mut threshold = levels;
        to_distribution(&mut threshold, Likelihood::Bernoulli, Binarize::Threshold, &mut rng);
        assert_eq!(threshold, [0.0, 0.0, 1.0, 1.0]);
        let mut stochastic = vec![0.25f32; 20_000];
        to_distribution(&mut stochastic, Likelihood::Bernoulli, Binarize::Stochastic, &mut rng);
        let white = stochastic.iter().filter(|pixel| **pixel == 1.0).count();
        assert!(white.abs_diff(5_000) < 250 && stochastic.iter().all(|p| *p == 0.0 || *p == 1.0));
        let mut dequantised = vec![1.0f32; 1000];
        to_distribution(&mut dequantised, Likelihood::Gaussian, Binarize::None, &mut rng);
        assert!(dequantised.iter().all(|p| (255.0 / 256.0..=1.0).contains(p)));
    }
}
