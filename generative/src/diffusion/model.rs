//! The model: training, evaluation, samples.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::prelude::*;
use burn::tensor::TensorData;
use hotfire_core::CoreError;
use hotfire_core::checkpoint::{CheckpointReader, CheckpointWriter};
use hotfire_core::config::{ConfigDocument, ConfigError};
use hotfire_core::metrics::Metrics;
use hotfire_core::seed::stream;
use hotfire_core::task::{Evaluation, Headline, Task};
use hotfire_nn::{AdamConfig, ema, warmed_up};

use super::config::DiffusionConfig;
use super::network::{MlpDenoiser, Network};
use super::pictures;
use super::sampling::{Film, Sampler, Sampling, Wanted};
use super::schedule::{Process, Spacing};
use super::targets::Target;
use super::unet::{UNet, UNetConfig};
use crate::data::{Batches, Data, Images, Points, load};
use crate::learner::Learner;
use crate::metrics::{SampleScores, sliced_wasserstein};
use crate::model::{Model, ModelSetting, SampleReport, SampleRequest};
use crate::registry::ModelSpec;
use crate::sampling::Options;

/// The registry's entry.
pub const SPEC: ModelSpec = ModelSpec {
    name: "diffusion",
    summary: "denoising diffusion, EDM and rectified flow, for pictures and points",
    source: "Ho et al. 2020, arXiv:2006.11239; Karras et al. 2022, arXiv:2206.00364; Liu et al. 2022, arXiv:2209.03003",
    make: |document, setting| Ok(Box::new(Diffusion::from_config(document, setting)?)),
};

/// Points of an evaluation's comparison and of a picture of a density.
const POINTS: usize = 10_000;
/// Examples of a training step without `train.batch_size`: pictures, and points.
const BATCH: [usize; 2] = [64, 512];
/// Directions of the sliced Wasserstein distance.
const DIRECTIONS: usize = 200;

/// The model.
pub struct Diffusion {
    config: DiffusionConfig,
    seed: u64,
    total_steps: u64,
    device: Device,
    process: Process,
    target: Target,
    data: Source,
    learner: Learner<Network>,
    /// The average of the weights, which samples are drawn with.
    average: Network,
}

/// What is learned.
enum Source {
    Pictures { batches: Batches, test: Arc<Images>, classes: usize, scored: bool },
    Points { points: Points, batch_size: usize },
}

impl Diffusion {
    /// Reads and checks the rest of `[model]` and `[data]`, and makes the model.
    ///
    /// # Errors
    /// [`ConfigError`] for values out of range, or data that can't be used.
    pub fn from_config(document: &mut ConfigDocument, setting: &ModelSetting<'_>) -> Result<Self, ConfigError> {
        let config: DiffusionConfig = document.section("model")?;
        let device = setting.device.clone();
        let mut rng = stream(setting.seed, "network", 0);
        let learner = device.clone().autodiff();
        let (data, network) = match load(document, setting.seed)? {
            Data::Images(sets) => {
                config.check(document, Some(sets.train.shape()))?;
                if config.conditional && sets.train.classes == 0 {
                    let problem = format!("the pictures of {} have no classes", sets.name);
                    return Err(document.out_of_range("model.conditional", "false", format!("true, but {problem}")));
                }
                let classes = if config.conditional { sets.train.classes } else { 0 };
                let sizes = UNetConfig {
                    image_channels: sets.train.channels,
                    base: config.base_channels,
                    multipliers: config.channel_multipliers.clone(),
                    blocks: config.blocks,
                    heads: config.heads,
                    classes,
                };
                let batch_size = setting.batch_size_or(BATCH[0]);
                let batches = Batches::new(sets.train, batch_size, sets.augment, setting.seed, None);
                let network = Network::UNet(UNet::new(&sizes, &mut rng, &learner));
                let scored = SampleScores::serves(&sets.name, &sets.test, config.eval_samples);
                (Source::Pictures { batches, test: sets.test, classes, scored }, network)
            }
            Data::Points(points) => {
                config.check(document, None)?;
                if config.conditional {
                    return Err(document.out_of_range("model.conditional", "false for points", "true"));
                }
                let mlp = MlpDenoiser::new(2, config.hidden, config.hidden_blocks, 0, &mut rng, &learner);
                (Source::Points { points, batch_size: setting.batch_size_or(BATCH[1]) }, Network::Mlp(mlp))
            }
        };
        Ok(Self {
            seed: setting.seed,
            total_steps: match &data {
                Source::Pictures { batches, .. } => setting.steps(batches.per_epoch()),
                Source::Points { .. } => setting.total_steps,
            },
            process: config.process(),
            target: config.target(),
            average: network.valid(),
            learner: Learner::new(
                "network",
                network,
                AdamConfig { max_grad_norm: Some(config.max_grad_norm), ..AdamConfig::default() },
            ),
            device,
            data,
            config,
        })
    }

    /// `[C, H, W]` of a picture; `[2, 1, 1]` for points.
    fn shape(&self) -> [usize; 3] {
        match &self.data {
            Source::Pictures { test, .. } => test.shape(),
            Source::Points { .. } => [2, 1, 1],
        }
    }

    fn dim(&self) -> usize {
        self.shape().iter().product()
    }

    fn classes(&self) -> usize {
        match self.data {
            Source::Pictures { classes, .. } => classes,
            Source::Points { .. } => 0,
        }
    }

    /// The next batch: data `[N, D]` (pictures from -1 to 1) and classes, some withheld.
    fn next_batch(&mut self) -> (Vec<f32>, Vec<Option<u32>>) {
        let step = self.learner.step;
        match &mut self.data {
            Source::Pictures { batches, classes, .. } => {
                batches.seek(step);
                let mut batch = batches.next_batch();
                batch.pixels.iter_mut().for_each(|x| *x = 2.0 * *x - 1.0);
                let mut rng = stream(self.seed, "dropped classes", step);
                let dropout = self.config.condition_dropout as f32;
                let shown =
                    |rng: &mut hotfire_core::seed::StreamRng, label: u32| (rng.uniform() >= dropout).then_some(label);
                let labels = match *classes {
                    0 => vec![None; batch.len()],
                    _ => batch.labels.iter().map(|label| shown(&mut rng, *label)).collect(),
                };
                (batch.pixels, labels)
            }
            Source::Points { points, batch_size } => {
                let mut rng = stream(self.seed, "points", step);
                ((0..*batch_size).flat_map(|_| (points.draw)(&mut rng)).collect(), vec![None; *batch_size])
            }
        }
    }

    /// Adds noise to a batch and measures the network's weighted error.
    fn loss(&self, data: &[f32], classes: &[Option<u32>]) -> Tensor<1> {
        let (n, dim) = (classes.len(), self.dim());
        let mut rng = stream(self.seed, "noise", self.learner.step);
        let shift = rng.uniform_f64();
        let (mut input, mut target) = (vec![0.0f32; n * dim], vec![0.0f32; n * dim]);
        let (mut times, mut weights) = (Vec::with_capacity(n), Vec::with_capacity(n));
        let rows = data.chunks_exact(dim).zip(input.chunks_exact_mut(dim)).zip(target.chunks_exact_mut(dim));
        for (i, ((data, input), target)) in rows.enumerate() {
            let uniform = (shift + i as f64 / n as f64).fract();
            let level = self.process.training_level(uniform, rng.normal().into());
            let p = self.target.preconditioning(&level, self.config.sigma_data, self.config.min_snr_gamma);
            let [scale, noise] = [p.c_in * level.scale, p.c_in * level.noise].map(|x| x as f32);
            let [of_data, of_noise] = [p.of_data, p.of_noise].map(|x| x as f32);
            for ((x0, input), target) in data.iter().zip(input).zip(target) {
                let eps = rng.normal();
                *input = scale * x0 + noise * eps;
                *target = of_data * x0 + of_noise * eps;
            }
            times.push(level.time as f32);
            weights.push(p.weight as f32);
        }
        let device = self.device.clone().autodiff();
        let output = self.learner.net().forward(input, self.shape(), &times, classes, &device);
        let target = Tensor::from_data(TensorData::new(target, [n, dim]), &device);
        let errors: Tensor<2> = (output - target).square().mean_dim(1);
        (errors * Tensor::from_data(TensorData::new(weights, [n, 1]), &device)).mean()
    }

    fn sampler(&self) -> Sampler<'_> {
        Sampler {
            network: &self.average,
            device: &self.device,
            process: &self.process,
            target: self.target,
            sigma_data: self.config.sigma_data,
            shape: self.shape(),
            bounded: matches!(self.data, Source::Pictures { .. }),
        }
    }

    /// The classes of `count` samples: one after another, or none for a model without.
    fn classes_in_turn(&self, count: usize) -> Wanted {
        let classes = self.classes() as u32;
        let class = |i: usize| (classes > 0).then(|| i as u32 % classes.max(1));
        Wanted { classes: (0..count).map(class).collect(), known: None }
    }

    /// Pictures from -1 to 1 of the test set's first `count`, over again if there are fewer.
    fn test_pictures(&self, count: usize) -> Option<Vec<f32>> {
        let Source::Pictures { test, .. } = &self.data else { return None };
        let picture = |i: usize| test.image(i % test.len()).iter().map(|byte| f32::from(*byte) / 127.5 - 1.0);
        Some((0..count).flat_map(picture).collect())
    }

    /// Draws `count` points of the data.
    fn real_points(&self, points: Points, name: &str, count: usize) -> Vec<f32> {
        let mut rng = stream(self.seed, name, 0);
        (0..count).flat_map(|_| (points.draw)(&mut rng)).collect()
    }
}

impl Task for Diffusion {
    fn step(&self) -> u64 {
        self.learner.step
    }

    fn iterate(&mut self) -> Result<Metrics, CoreError> {
        let (data, classes) = self.next_batch();
        let loss = self.loss(&data, &classes);
        let step = self.learner.step;
        let learning_rate = self.config.learning_rate.value(step as f64 / self.total_steps as f64);
        let (loss, gradient_norm) = self.learner.descend(loss, learning_rate);
        let decay = warmed_up(self.config.ema_decay, step);
        self.average = ema(self.average.clone(), self.learner.net(), decay);
        let mut metrics = Metrics::new();
        metrics.push("loss", loss);
        metrics.push("grad_norm", gradient_norm);
        metrics.push("learning_rate", learning_rate);
        Ok(metrics)
    }

    fn evaluate(&mut self, _episodes: u32) -> Result<Evaluation, CoreError> {
        let seed = stream(self.seed, "evaluation", 0).next_u64();
        let mut metrics = Metrics::new();
        match &self.data {
            Source::Points { points, .. } => {
                let wanted = self.classes_in_turn(POINTS);
                let samples = self.sampler().sample(&wanted, &self.config.sampling(), seed, None)?;
                let real = self.real_points(*points, "evaluation points", POINTS);
                let other = self.real_points(*points, "comparison points", POINTS);
                let distance = |points: &[f32]| sliced_wasserstein(points, &real, 2, DIRECTIONS, self.seed);
                metrics.push("sliced_wasserstein", distance(&samples));
                // What two sets of real points have between them.
                metrics.push("sliced_wasserstein_of_data", distance(&other));
            }
            Source::Pictures { test, scored, .. } => {
                let wanted = self.classes_in_turn(self.config.eval_samples);
                let mut samples = self.sampler().sample(&wanted, &self.config.sampling(), seed, None)?;
                samples.iter_mut().for_each(|x| *x = (0.5 * *x + 0.5).clamp(0.0, 1.0));
                if *scored {
                    let (scores, classified) = SampleScores::new(&test.floats(0..test.len())).score(&samples);
                    metrics.extend(&scores);
                    if self.classes() > 0 {
                        let pairs = classified.digits().into_iter().zip(&wanted.classes);
                        let right = pairs.filter(|(digit, class)| Some(*digit) == **class).count();
                        metrics.push("class_accuracy", right as f64 / wanted.classes.len() as f64);
                    }
                }
                metrics.push("mean_brightness", mean(&samples));
                metrics.push("mean_brightness_of_data", mean(&test.floats(0..test.len())));
            }
        }
        Ok(Evaluation { eval: None, metrics })
    }

    fn media(&mut self, dir: &Path) -> Result<Vec<PathBuf>, CoreError> {
        let seed = stream(self.seed, "media", 0).next_u64();
        let sampling = self.config.sampling();
        let mut film = Film::default();
        match &self.data {
            Source::Points { points, .. } => {
                // The spacing that shows the part of the way on which something is to be seen.
                let spacing = if self.process == Process::Line { Spacing::Uniform } else { Spacing::Karras };
                let sampling = Sampling { steps: sampling.steps.max(40), spacing, ..sampling };
                self.sampler().sample(&self.classes_in_turn(POINTS), &sampling, seed, Some(&mut film))?;
                let real = self.real_points(*points, "comparison points", POINTS);
                pictures::density_film(dir, &film, &real)
            }
            Source::Pictures { .. } => {
                let columns = if self.classes() > 0 { self.classes() } else { 8 };
                let wanted = self.classes_in_turn(8 * columns);
                let samples = self.sampler().sample(&wanted, &sampling, seed, Some(&mut film))?;
                let mut files = vec![dir.join("samples.png")];
                pictures::sample_grid(&files[0], &samples, self.shape(), columns)?;
                files.extend(pictures::denoising_film(dir, &film, self.shape(), columns)?);
                let inpainted = dir.join("inpainting.png");
                self.inpaint(&inpainted, 8, "left", &sampling, seed)?;
                files.push(inpainted);
                Ok(files)
            }
        }
    }

    fn snapshot(&mut self, dir: &Path) -> Result<Vec<PathBuf>, CoreError> {
        let seed = stream(self.seed, "media", 0).next_u64();
        let points = matches!(self.data, Source::Points { .. });
        let columns = if self.classes() > 0 { self.classes() } else { 8 };
        let wanted = self.classes_in_turn(if points { POINTS } else { 2 * columns });
        let samples = self.sampler().sample(&wanted, &self.config.sampling(), seed, None)?;
        let path = dir.join("samples.png");
        if points {
            pictures::density(&path, &samples)?;
        } else {
            pictures::sample_grid(&path, &samples, self.shape(), columns)?;
        }
        Ok(vec![path])
    }

    fn save(&self, to: &mut CheckpointWriter) -> Result<(), CoreError> {
        self.learner.save(to)?;
        to.module("average.safetensors", &self.average)
    }

    fn load(&mut self, from: &CheckpointReader) -> Result<(), CoreError> {
        let average = from.module("average.safetensors", self.average.clone())?;
        self.learner.load(from)?;
        self.average = average;
        Ok(())
    }

    fn headline(&self) -> Headline {
        Headline { metric: "loss", label: "loss".into(), threshold: None }
    }
}

impl Diffusion {
    /// Completes test pictures of which a part is hidden: a row of pictures with the part hidden, below it the completed
    /// ones, below that the true ones.
    fn inpaint(
        &self,
        path: &Path,
        count: usize,
        hidden: &str,
        sampling: &Sampling,
        seed: u64,
    ) -> Result<(), CoreError> {
        let shape @ [channels, height, width] = self.shape();
        let Some(real) = self.test_pictures(count) else {
            return Err(CoreError::Usage("inpaint: expected a model of pictures, found one of points".into()));
        };
        let is_hidden = |y: usize, x: usize| match hidden {
            "left" => Some(x < width / 2),
            "right" => Some(x >= width / 2),
            "top" => Some(y < height / 2),
            "bottom" => Some(y >= height / 2),
            "center" => {
                Some((height / 4..height - height / 4).contains(&y) && (width / 4..width - width / 4).contains(&x))
            }
            _ => None,
        };
        if is_hidden(0, 0).is_none() {
            return Err(CoreError::Usage(format!("inpaint={hidden}: expected left, right, top, bottom or center")));
        }
        let known: Vec<bool> = (0..count * channels * height * width)
            .map(|i| is_hidden(i / width % height, i % width) == Some(false))
            .collect();
        let masked: Vec<f32> = real.iter().zip(&known).map(|(x, known)| if *known { *x } else { 0.0 }).collect();
        // The classes of the true pictures are not looked at.
        let wanted = Wanted { classes: vec![None; count], known: Some((real.clone(), known)) };
        let completed = self.sampler().sample(&wanted, sampling, seed, None)?;
        pictures::sample_grid(path, &[masked, completed, real].concat(), shape, count)
    }
}

impl Model for Diffusion {
    fn steps_per_epoch(&self) -> Option<u64> {
        match &self.data {
            Source::Pictures { batches, .. } => Some(batches.per_epoch()),
            Source::Points { .. } => None,
        }
    }

    fn sample(&mut self, request: &mut SampleRequest<'_>) -> Result<SampleReport, CoreError> {
        let mut sampling = self.config.sampling();
        let mut options = Options::of(request);
        sampling.take_options(&mut options)?;
        let class: Option<String> = options.value("class", "the number of a class, or none", |_| true)?;
        let hidden: Option<String> = options.value("inpaint", "a side", |_| true)?;
        options.finish()?;
        let points = matches!(self.data, Source::Points { .. });
        let columns = if self.classes() > 0 && class.is_none() { self.classes() } else { 8 };
        let count = request.count.unwrap_or(if points { POINTS } else { 8 * columns });
        let endings: &[&str] = if hidden.is_some() { &["png"] } else { &["png", "gif"] };
        let path = request.picture("samples.png", endings)?;
        if let Some(hidden) = hidden {
            self.inpaint(&path, request.count.unwrap_or(8), &hidden, &sampling, request.seed)?;
            return Ok(SampleReport { files: vec![path], metrics: Metrics::new() });
        }
        let mut wanted = self.classes_in_turn(count);
        if let Some(class) = class {
            let classes = self.classes() as u32;
            if classes == 0 {
                return Err(CoreError::Usage(format!("class={class}: this model was trained without classes")));
            }
            let number = class.parse().ok().filter(|class| *class < classes);
            if class != "none" && number.is_none() {
                let expected = format!("a class from 0 to {}, or none", classes - 1);
                return Err(CoreError::Usage(format!("class={class}: expected {expected}")));
            }
            wanted.classes = vec![number; count];
        }
        let is_film = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gif"));
        let mut film = Film::default();
        let samples = self.sampler().sample(&wanted, &sampling, request.seed, is_film.then_some(&mut film))?;
        match (points, is_film) {
            (true, true) => pictures::density_gif(&path, &film)?,
            (true, false) => pictures::density(&path, &samples)?,
            (false, true) => pictures::denoising_gif(&path, &film, self.shape(), columns)?,
            (false, false) => pictures::sample_grid(&path, &samples, self.shape(), columns)?,
        }
        Ok(SampleReport { files: vec![path], metrics: Metrics::new() })
    }
}

fn mean(values: &[f32]) -> f64 {
    values.iter().map(|x| f64::from(*x)).sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(overrides: &[&str]) -> Diffusion {
        let text = "[model]\nbase_channels = 8\nchannel_multipliers = [1, 1]\nblocks = 1\nconditional = true\n\
            [data]\nname = \"shapes\"\ntrain_count = 16\ntest_count = 8\n";
        let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
        let mut document = ConfigDocument::parse("a.toml", text, &overrides).unwrap();
        let device = Device::flex();
        let setting = ModelSetting { seed: 5, device: &device, total_steps: 10, epochs: 0, batch_size: 4 };
        Diffusion::from_config(&mut document, &setting).unwrap()
    }

    /// Classes 0, 1, 2, ... of samples, drawn in four steps.
    fn samples(model: &Diffusion, count: usize, guidance: f64) -> Vec<f32> {
        let sampling = Sampling { steps: 3, guidance, ..model.config.sampling() };
        model.sampler().sample(&model.classes_in_turn(count), &sampling, 1, None).unwrap()
    }

    #[test]
    fn a_sample_does_not_depend_on_how_many_are_drawn() {
        let mut model = model(&[]);
        model.iterate().unwrap();
        let many = samples(&model, 35, 2.0);
        assert_eq!(samples(&model, 3, 2.0), many[..3 * model.dim()]);
    }

    #[test]
    fn guidance_of_one_is_the_conditional_model_and_zero_the_unconditional() {
        let mut model = model(&[]);
        (0..3).for_each(|_| drop(model.iterate().unwrap()));
        model.average = model.learner.net().valid();
        let sampler = model.sampler();
        let draw = |class: Option<u32>, guidance| {
            let sampling = Sampling { steps: 3, guidance, ..model.config.sampling() };
            sampler.sample(&Wanted { classes: vec![class; 2], known: None }, &sampling, 1, None).unwrap()
        };
        let conditional = draw(Some(1), 1.0);
        let unconditional = draw(None, 1.0);
        assert_eq!(unconditional, draw(None, 3.0), "without a class there is nothing to guide by");
        assert_eq!(unconditional, draw(Some(1), 0.0));
        assert_ne!(conditional, unconditional);
        assert_ne!(conditional, draw(Some(1), 3.0));
    }

    #[test]
    fn inpainting_keeps_what_is_known() {
        let model = model(&[]);
        let real = model.test_pictures(2).unwrap();
        let known: Vec<bool> = (0..real.len()).map(|i| i % 3 != 0).collect();
        let wanted = Wanted { classes: vec![None; 2], known: Some((real.clone(), known.clone())) };
        let sampling = Sampling { steps: 4, ..model.config.sampling() };
        let completed = model.sampler().sample(&wanted, &sampling, 1, None).unwrap();
        for ((real, completed), known) in real.iter().zip(&completed).zip(known) {
            assert!(!known || (real - completed).abs() < 1e-6, "{real} became {completed}");
        }
    }

    #[test]
    fn mistakes_in_the_config_are_refused() {
        let refused = |overrides: &[&str]| {
            let text = "[model]\n[data]\nname = \"shapes\"\ntrain_count = 4\ntest_count = 4\n";
            let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
            let mut document = ConfigDocument::parse("a.toml", text, &overrides).unwrap();
            let device = Device::flex();
            let setting = ModelSetting { seed: 5, device: &device, total_steps: 10, epochs: 0, batch_size: 4 };
            Diffusion::from_config(&mut document, &setting).err().map(|error| error.to_string())
        };
        for (key, mistake) in [
            ("model.base_channels", "model.base_channels=12"),
            ("model.channel_multipliers", "model.channel_multipliers=[1, 1, 1, 1, 1, 1, 1]"),
            ("model.target", "model.target=flow"),
            ("model.ema_decay", "model.ema_decay=1.5"),
            ("model.heads", "model.heads=5"),
            ("model.process", "model.process=ddpm"),
            ("model.min_snr_gamma", "model.min_snr_gamma=-1"),
        ] {
            let message = refused(&[mistake]).unwrap_or_else(|| panic!("{mistake} was taken"));
            assert!(message.contains(key), "{message}");
        }
    }
}
