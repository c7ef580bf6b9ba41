//! Variational autoencoders: plain, beta, conditional; Bernoulli or Gaussian pixels.
//!
//! Kingma and Welling 2014, arXiv:1312.6114; beta-VAE: Higgins et al. 2017; conditional: Sohn et al. 2015. The ELBO is a
//! bound on a likelihood only if the data fit the decoder's distribution: for Bernoulli pixels pictures are binarised,
//! stochastically (Salakhutdinov and Murray 2008) or by a threshold; for Gaussian pixels bytes are dequantised with
//! uniform noise (Theis et al. 2016, arXiv:1511.01844) and the standard deviation is learned (Rybkin et al. 2021,
//! arXiv:2006.13202). Units are active whose posterior mean varies by more than 0.01 over the data (Burda et al. 2016,
//! arXiv:1509.00519), where the importance-weighted bound comes from, too.

mod config;
mod measures;
mod network;
mod pictures;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::module::Param;
use burn::prelude::*;
use burn::tensor::TensorData;
use hotfire_core::CoreError;
use hotfire_core::checkpoint::{CheckpointReader, CheckpointWriter};
use hotfire_core::config::{ConfigDocument, ConfigError};
use hotfire_core::metrics::Metrics;
use hotfire_core::seed::{StreamRng, stream};
use hotfire_core::task::{Evaluation, Headline, Task};
use hotfire_nn::{Activation, AdamConfig};

pub use self::config::{Binarize, Likelihood, VaeConfig};
use self::network::{Net, to_distribution};
use crate::codec::{CodecShape, Decoder, Encoder, in_passes, numbers};
use crate::data::{self, Batch, Batches, Images};
use crate::latent::latent_map;
use crate::learner::Learner;
use crate::metrics::SampleScores;
use crate::pictures::columns;
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

/// Pictures of a batch, without another choice in `[train]`.
const BATCH: usize = 128;
/// Pictures of a forward pass without gradients.
const PASS: usize = 250;

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
    /// Scores samples, once they were scored.
    scores: Option<SampleScores>,
    scored: bool,
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
            scored: SampleScores::serves(&sets.name, &sets.test, sets.test.len()),
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
}

/// The one of a class's row. With 1.0 it is lost beside twenty numbers of a code, and the decoder takes the class from the
/// code alone: a third of `cvae-mnist`'s samples are then of the class asked for, with 10.0 nine in ten.
const CLASS_WEIGHT: f32 = 10.0;

fn hot(class: usize, label: u32) -> f32 {
    if class == label as usize { CLASS_WEIGHT } else { 0.0 }
}

/// `[N]` classes as rows `[N, classes]`, zero but for the class.
fn one_hot(labels: &[u32], classes: usize, device: &Device) -> Tensor<2> {
    let rows: Vec<f32> = labels.iter().flat_map(|label| (0..classes).map(|class| hot(class, *label))).collect();
    Tensor::from_data(TensorData::new(rows, [labels.len(), classes]), device)
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
        let class: Option<u32> = options.value("class", "the number of a class", |_| true)?;
        let temperature: f32 = options.value("temperature", "a number", |_| true)?.unwrap_or(1.0);
        let index: usize = options.value("index", "the number of a test picture", |_| true)?.unwrap_or(0);
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
        let path = request.picture(format!("{picture}.png"), &["png"])?;
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
