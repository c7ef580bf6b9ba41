//! Autoencoders: dense or convolutional, denoising, and as detectors of anomalies.
//!
//! Rumelhart, Hinton and Williams 1986; Hinton and Salakhutdinov 2006; denoising as in Vincent et al. 2008 (ICML). An
//! anomaly is scored by its reconstruction error and by a latent-space score, because simple pictures reconstruct well
//! whether they were trained on or not. New pictures are drawn from a Gaussian fitted to the training codes (Ghosh et
//! al. 2020, arXiv:1903.12436).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::prelude::*;
use burn::tensor::TensorData;
use hotfire_core::CoreError;
use hotfire_core::checkpoint::{CheckpointReader, CheckpointWriter};
use hotfire_core::config::{ConfigDocument, ConfigError};
use hotfire_core::metrics::Metrics;
use hotfire_core::plot::{CurvePlot, Series, curve_png};
use hotfire_core::schedule::Schedule;
use hotfire_core::seed::{StreamRng, stream};
use hotfire_core::task::{Evaluation, Headline, Task};
use hotfire_nn::ops::squared_error;
use hotfire_nn::{Activation, AdamConfig};
use serde::{Deserialize, Serialize};

use crate::codec::{CodecShape, Decoder, Encoder, in_passes, numbers};
use crate::data::{self, Batch, Batches, ImageSets, Images};
use crate::latent::{CodeGaussian, latent_map};
use crate::learner::Learner;
use crate::metrics::{auroc, nearest_distances, roc_curve};
use crate::pictures::{RECONSTRUCTED, Sheet, columns, line};
use crate::registry::ModelSpec;
use crate::sampling::{Options, sample_seeds};
use crate::{Model, ModelSetting, SampleReport, SampleRequest};

/// The registry's entry.
pub const SPEC: ModelSpec = ModelSpec {
    name: "autoencoder",
    summary: "dense or convolutional autoencoder, denoising, anomaly detection",
    source: "Hinton and Salakhutdinov 2006; Vincent et al. 2008",
    make: |document, setting| Ok(Box::new(Autoencoder::from_config(document, setting)?)),
};

/// The `[model]` section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AutoencoderConfig {
    /// Channels of the encoder's stride-2 convolutions; empty for a dense network.
    pub channels: Vec<usize>,
    /// Widths of the encoder's hidden dense layers; the decoder mirrors them.
    pub hidden: Vec<usize>,
    /// Numbers of a code.
    pub latent: usize,
    /// Adam's step size.
    pub learning_rate: Schedule,
    /// Standard deviation of the noise that is added to what the encoder sees (pixels go from 0 to 1).
    pub noise: f32,
    /// A class that is kept out of training, to be detected as anomalous.
    pub held_out: Option<u32>,
    /// A folder with a test set in MNIST's format, to be detected as anomalous.
    pub outliers: Option<PathBuf>,
}

impl Default for AutoencoderConfig {
    fn default() -> Self {
        Self {
            channels: Vec::new(),
            hidden: vec![512, 256],
            latent: 32,
            learning_rate: Schedule::Constant(1e-3),
            noise: 0.0,
            held_out: None,
            outliers: None,
        }
    }
}

/// Pictures of a batch, without another choice in `[train]`.
const BATCH: usize = 128;
/// Pictures of a forward pass without gradients.
const PASS: usize = 250;
/// Neighbours whose mean distance is the latent score: that of the directions of the codes, because the length of a code
/// says little more than how much ink there is.
const NEIGHBOURS: usize = 5;
/// Training codes that the latent score and the samples rest on.
const CODES: usize = 10_000;

/// Encoder and decoder.
#[derive(Module, Debug)]
struct Net {
    encoder: Encoder,
    decoder: Decoder,
}

/// The model and its data.
pub struct Autoencoder {
    config: AutoencoderConfig,
    seed: u64,
    total_steps: u64,
    device: Device,
    learner: Learner<Net>,
    batches: Batches,
    train: Arc<Images>,
    test: Arc<Images>,
    /// Pictures of other kinds than those that are trained on.
    anomalies: Option<Images>,
}

impl Autoencoder {
    /// Reads and checks the rest of `[model]` and `[data]`.
    ///
    /// # Errors
    /// [`ConfigError`] for values out of range or data that can't be used.
    pub fn from_config(document: &mut ConfigDocument, setting: &ModelSetting<'_>) -> Result<Self, ConfigError> {
        let config: AutoencoderConfig = document.section("model")?;
        let sets = data::load_images(document, setting.seed)?;
        let shape = CodecShape {
            image: sets.train.shape(),
            channels: config.channels.clone(),
            hidden: config.hidden.clone(),
            condition: 0,
        };
        shape.check(document)?;
        config.check(document, &sets)?;
        let anomalies = config.anomalies(document, &sets)?;
        let device = setting.device.clone().autodiff();
        let mut rng = stream(setting.seed, "network", 0);
        let net = Net {
            encoder: Encoder::new(&shape, config.latent, &mut rng, &device),
            decoder: Decoder::new(&shape, config.latent, Activation::Sigmoid, &mut rng, &device),
        };
        let normal = |images: &Arc<Images>| match config.held_out {
            Some(class) => Arc::new(images.filtered(|label| label != class)),
            None => Arc::clone(images),
        };
        let (train, test) = (normal(&sets.train), normal(&sets.test));
        let noise = config.noise;
        let prepare: data::Prepare = Arc::new(move |batch: &mut Batch, rng: &mut StreamRng| {
            batch.corrupted = batch.pixels.iter().map(|pixel| pixel + noise * rng.normal()).collect();
        });
        let batches = Batches::new(
            Arc::clone(&train),
            setting.batch_size_or(BATCH),
            sets.augment,
            setting.seed,
            (noise > 0.0).then_some(prepare),
        );
        Ok(Self {
            seed: setting.seed,
            total_steps: setting.steps(batches.per_epoch()),
            learner: Learner::new("network", net, AdamConfig::default()),
            device,
            batches,
            train,
            test,
            anomalies,
            config,
        })
    }

    /// Codes of pictures `[N, C, H, W]`: `[N, latent]`.
    fn encode(&self, pixels: &[f32]) -> Vec<f32> {
        let [c, h, w] = self.train.shape();
        let net = self.learner.net().valid();
        let device = self.device.clone().inner();
        in_passes(pixels, c * h * w, |rows, n| {
            numbers(net.encoder.forward(Tensor::from_data(TensorData::new(rows, [n, c, h, w]), &device), None))
        })
    }

    /// Pictures of codes `[N, latent]`: `[N, C, H, W]`.
    fn decode(&self, codes: &[f32]) -> Vec<f32> {
        let net = self.learner.net().valid();
        let device = self.device.clone().inner();
        in_passes(codes, self.config.latent, |rows, n| {
            let z = Tensor::from_data(TensorData::new(rows, [n, self.config.latent]), &device);
            numbers(net.decoder.forward(z, None))
        })
    }

    /// The pictures as the encoder sees them in an evaluation: with noise that is always the same, if it is to remove it.
    fn seen(&self, pixels: &[f32]) -> Vec<f32> {
        if self.config.noise == 0.0 {
            return pixels.to_vec();
        }
        let mut rng = stream(self.seed, "evaluation noise", 0);
        pixels.iter().map(|pixel| pixel + self.config.noise * rng.normal()).collect()
    }

    /// The mean squared error of each picture's reconstruction.
    fn reconstruction_errors(&self, images: &Images) -> (Vec<f32>, Vec<f32>) {
        let (mut errors, mut codes) = (Vec::new(), Vec::new());
        for start in (0..images.len()).step_by(PASS) {
            let pixels = images.floats(start..images.len().min(start + PASS));
            let z = self.encode(&self.seen(&pixels));
            let reconstructed = self.decode(&z);
            let rows = pixels.chunks_exact(images.image_len()).zip(reconstructed.chunks_exact(images.image_len()));
            errors.extend(rows.map(|(x, y)| mean(x.iter().zip(y).map(|(a, b)| (a - b).powi(2)))));
            codes.extend(z);
        }
        (errors, codes)
    }

    /// Codes of the first training pictures, and the Gaussian they fill.
    fn training_codes(&self) -> (Vec<f32>, CodeGaussian) {
        let codes = self.encode(&self.train.floats(0..self.train.len().min(CODES)));
        let gaussian = CodeGaussian::fit(&codes, self.config.latent);
        (codes, gaussian)
    }

    /// Reconstruction error and latent score of test pictures and of anomalies.
    fn anomaly_scores(&self, anomalies: &Images) -> AnomalyScores {
        let d = self.config.latent;
        let known = directions(&self.training_codes().0, d);
        let k = NEIGHBOURS.min(known.len() / d);
        let score = |images: &Images| {
            let (errors, codes) = self.reconstruction_errors(images);
            let near = nearest_distances(&directions(&codes, d), &known, d, k);
            [errors, near.chunks_exact(k).map(|near| mean(near.iter().copied())).collect()]
        };
        AnomalyScores { normal: score(&self.test), anomalous: score(anomalies) }
    }

    fn reconstructions(&self, path: &Path) -> Result<PathBuf, CoreError> {
        let pixels = self.test.floats(0..RECONSTRUCTED.min(self.test.len()));
        let seen = self.seen(&pixels);
        let reconstructed = self.decode(&self.encode(&seen));
        let kinds: &[&[f32]] =
            if self.config.noise > 0.0 { &[&pixels, &seen, &reconstructed] } else { &[&pixels, &reconstructed] };
        Sheet::side_by_side(self.test.shape(), kinds).save(path)
    }

    /// Ways from one test picture to another, through their codes.
    fn interpolations(&self, path: &Path, rows: usize, seed: u64) -> Result<PathBuf, CoreError> {
        const STEPS: usize = 10;
        let d = self.config.latent;
        let mut order: Vec<usize> = (0..self.test.len()).collect();
        stream(seed, "interpolations", 0).shuffle(&mut order);
        let ends = self.test.picked(&order[..(2 * rows).min(order.len() / 2 * 2)]);
        let codes = self.encode(&ends.floats(0..ends.len()));
        let strips = codes.chunks_exact(2 * d).map(|pair| self.decode(&line(&pair[..d], &pair[d..], STEPS)));
        Sheet::new(self.test.shape()).band(strips.collect()).save(path)
    }

    fn samples(&self, path: &Path, count: usize, seed: u64) -> Result<PathBuf, CoreError> {
        let (_, gaussian) = self.training_codes();
        let codes: Vec<f32> = sample_seeds(seed, count).flat_map(|mut rng| gaussian.draw(&mut rng)).collect();
        Sheet::grid(self.test.shape(), &self.decode(&codes), columns(count)).save(path)
    }
}

/// Scores of both kinds, `[reconstruction, latent]`.
struct AnomalyScores {
    normal: [Vec<f32>; 2],
    anomalous: [Vec<f32>; 2],
}

impl AnomalyScores {
    const NAMES: [&str; 2] = ["reconstruction", "latent"];

    /// The area under the curve of each score.
    fn areas(&self) -> [f64; 2] {
        [0, 1].map(|i| auroc(&self.normal[i], &self.anomalous[i]).unwrap_or(0.5))
    }

    fn draw(&self, path: &Path, title: String) -> Result<PathBuf, CoreError> {
        let areas = self.areas();
        let mut series: Vec<Series> = (0..2)
            .map(|i| Series {
                label: format!("{} score, area {:.3}", Self::NAMES[i], areas[i]),
                points: roc_curve(&self.normal[i], &self.anomalous[i]),
                band: Vec::new(),
            })
            .collect();
        series.push(Series { label: "chance".into(), points: vec![(0.0, 0.0), (1.0, 1.0)], band: Vec::new() });
        let plot = CurvePlot {
            title,
            x_label: "false positive rate".into(),
            y_label: "true positive rate".into(),
            series,
            threshold: None,
        };
        curve_png(path, &plot).map_err(CoreError::io(path, "draw"))?;
        Ok(path.to_path_buf())
    }
}

/// Codes `[N, d]` at length 1.
fn directions(codes: &[f32], d: usize) -> Vec<f32> {
    let unit = |code: &[f32]| {
        let norm = code.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-12);
        code.iter().map(|x| x / norm).collect::<Vec<f32>>()
    };
    codes.chunks_exact(d).flat_map(unit).collect()
}

fn mean(values: impl ExactSizeIterator<Item = f32>) -> f32 {
    let n = values.len() as f64;
    (values.map(f64::from).sum::<f64>() / n) as f32
}

impl AutoencoderConfig {
    fn check(&self, document: &ConfigDocument, sets: &ImageSets) -> Result<(), ConfigError> {
        if self.latent == 0 {
            return Err(document.out_of_range("model.latent", "at least 1", self.latent));
        }
        let (low, high) = self.learning_rate.bounds();
        if !(low >= 0.0 && high.is_finite()) {
            return Err(document.out_of_range("model.learning_rate", "a finite number not below 0", low));
        }
        if !(self.noise >= 0.0 && self.noise.is_finite()) {
            return Err(document.out_of_range("model.noise", "a finite number not below 0", self.noise));
        }
        if let Some(class) = self.held_out {
            let there = |images: &Images| !images.filtered(|label| label == class).is_empty();
            if !there(&sets.test) || sets.train.filtered(|label| label != class).is_empty() {
                let expected = format!("a class of the data, below {}", sets.test.classes);
                return Err(document.out_of_range("model.held_out", expected, class));
            }
            if self.outliers.is_some() {
                return Err(document.invalid("model.outliers", "stands beside model.held_out: expected one of them"));
            }
        }
        Ok(())
    }

    fn anomalies(&self, document: &ConfigDocument, sets: &ImageSets) -> Result<Option<Images>, ConfigError> {
        if let Some(class) = self.held_out {
            return Ok(Some(sets.test.filtered(|label| label == class)));
        }
        let Some(dir) = &self.outliers else { return Ok(None) };
        let images = data::idx_test_set(dir).map_err(|error| document.invalid("model.outliers", error))?;
        if images.shape() != sets.test.shape() {
            let shapes = format!("{:?} beside data of {:?}", images.shape(), sets.test.shape());
            return Err(document.invalid("model.outliers", format!("pictures of {shapes}")));
        }
        // As many of them as normal ones at most.
        Ok(Some(images.truncated(sets.test.len())))
    }
}

impl Task for Autoencoder {
    fn step(&self) -> u64 {
        self.learner.step
    }

    fn iterate(&mut self) -> Result<Metrics, CoreError> {
        let learning_rate = self.config.learning_rate.value(self.learner.step as f64 / self.total_steps as f64);
        let mut batch = self.batches.next_batch();
        let x = batch.take_images(&self.device);
        let seen = if batch.corrupted.is_empty() { x.clone() } else { batch.take_corrupted(&self.device) };
        let net = self.learner.net();
        let reconstructed = net.decoder.forward(net.encoder.forward(seen, None), None);
        let pixels = self.train.image_len() as f32;
        let loss = squared_error(reconstructed.flatten(1, 3), x.flatten(1, 3)).mean().div_scalar(pixels);
        let (mse, grad_norm) = self.learner.descend(loss, learning_rate);
        let mut metrics = Metrics::new();
        metrics.push("mse", mse);
        metrics.push("grad_norm", grad_norm);
        metrics.push("learning_rate", learning_rate);
        Ok(metrics)
    }

    fn evaluate(&mut self, _episodes: u32) -> Result<Evaluation, CoreError> {
        let mut metrics = Metrics::new();
        match &self.anomalies {
            None => metrics.push("mse", mean(self.reconstruction_errors(&self.test).0.into_iter())),
            Some(anomalies) => {
                let scores = self.anomaly_scores(anomalies);
                let [reconstruction, latent] = scores.areas();
                metrics.push("mse", mean(scores.normal[0].iter().copied()));
                metrics.push("auroc_latent", latent);
                metrics.push("auroc_reconstruction", reconstruction);
            }
        }
        Ok(Evaluation { eval: None, metrics })
    }

    fn snapshot(&mut self, dir: &Path) -> Result<Vec<PathBuf>, CoreError> {
        Ok(vec![self.reconstructions(&dir.join("reconstructions.png"))?])
    }

    fn media(&mut self, dir: &Path) -> Result<Vec<PathBuf>, CoreError> {
        let mut pictures = vec![
            self.reconstructions(&dir.join("reconstructions.png"))?,
            self.interpolations(&dir.join("interpolations.png"), 8, self.seed)?,
            self.samples(&dir.join("samples.png"), 64, self.seed)?,
        ];
        let (_, codes) = self.reconstruction_errors(&self.test);
        let labels = self.test.labels.as_deref();
        let title = "Codes of the test pictures";
        pictures.push(latent_map(&dir.join("latent-map.png"), title, &codes, self.config.latent, labels)?);
        if let Some(anomalies) = &self.anomalies {
            let what = match self.config.held_out {
                Some(class) => format!("Class {class}, held out, against the rest"),
                None => "Pictures of another set against those trained on".into(),
            };
            pictures.push(self.anomaly_scores(anomalies).draw(&dir.join("roc.png"), what)?);
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
        Headline { metric: "mse", label: "mean squared error".into(), threshold: None }
    }
}

impl Model for Autoencoder {
    fn steps_per_epoch(&self) -> Option<u64> {
        Some(self.batches.per_epoch())
    }

    /// Options: `picture=samples|reconstructions|interpolations`.
    fn sample(&mut self, request: &mut SampleRequest<'_>) -> Result<SampleReport, CoreError> {
        let mut options = Options::of(request);
        let picture = options.name("picture", &["samples", "reconstructions", "interpolations"])?;
        options.finish()?;
        let path = request.picture(format!("{picture}.png"), &["png"])?;
        let file = match picture {
            "samples" => self.samples(&path, request.count.unwrap_or(64), request.seed)?,
            "reconstructions" => self.reconstructions(&path)?,
            _ => self.interpolations(&path, request.count.unwrap_or(8), request.seed)?,
        };
        Ok(SampleReport { files: vec![file], metrics: Metrics::new() })
    }
}
