//! Drawing samples with a trained network: guidance, inpainting, films, and batches of a fixed size.

use burn::prelude::*;
use hotfire_core::CoreError;
use serde::{Deserialize, Serialize};

use super::network::Network;
use super::samplers::{Churn, Coordinates, Denoiser, SampleRngs, ddim, ddpm, dpm_solver_pp_2m, heun, prior};
use super::schedule::{Level, Process, Spacing, Step, steps};
use super::targets::Target;
use crate::sampling::Options;

/// Names of the samplers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SamplerName {
    /// Ancestral sampling.
    Ddpm,
    /// DDIM; for `flow` this is Euler's method.
    Ddim,
    /// Heun's method, EDM's choice.
    Heun,
    /// DPM-Solver++(2M).
    Dpmpp,
}

/// How samples are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// The sampler.
    pub sampler: SamplerName,
    /// Its number of steps.
    pub steps: usize,
    /// How they are spread.
    pub spacing: Spacing,
    /// DDIM's share of fresh noise.
    pub eta: f64,
    /// EDM's churn.
    pub churn: f64,
    /// Strength of classifier-free guidance; 1 for none.
    pub guidance: f64,
}

impl Sampling {
    /// Takes what `options` say.
    ///
    /// # Errors
    /// For a value that can't be.
    pub(super) fn take_options(&mut self, options: &mut Options) -> Result<(), CoreError> {
        use SamplerName::{Ddim, Ddpm, Dpmpp, Heun};
        let samplers = [("ddpm", Ddpm), ("ddim", Ddim), ("heun", Heun), ("dpmpp", Dpmpp)];
        let spacings = [("uniform", Spacing::Uniform), ("karras", Spacing::Karras)];
        self.sampler = options.choice("sampler", &samplers)?.unwrap_or(self.sampler);
        self.spacing = options.choice("spacing", &spacings)?.unwrap_or(self.spacing);
        let steps = options.value("steps", "a number from 1 to 100000", |n| (1..=100_000).contains(n))?;
        self.steps = steps.unwrap_or(self.steps);
        let eta = options.value("eta", "a number from 0 to 1", |x| (0.0..=1.0).contains(x))?;
        self.eta = eta.unwrap_or(self.eta);
        let churn = options.value("churn", "a number not below 0", |x: &f64| *x >= 0.0 && x.is_finite())?;
        self.churn = churn.unwrap_or(self.churn);
        let guidance = options.value("guidance", "a finite number", |x: &f64| x.is_finite())?;
        self.guidance = guidance.unwrap_or(self.guidance);
        Ok(())
    }
}

/// What is sampled from, and for what.
pub(super) struct Sampler<'a> {
    pub network: &'a Network,
    pub device: &'a Device,
    pub process: &'a Process,
    pub target: Target,
    pub sigma_data: f64,
    /// `[C, H, W]`, for points `[D, 1, 1]`.
    pub shape: [usize; 3],
    /// Whether estimates are kept within `[-1, 1]`, the range of pictures.
    pub bounded: bool,
}

/// What a batch is sampled for.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    /// The class of each sample: `[N]`.
    pub classes: Vec<Option<u32>>,
    /// Known data `[N, D]` and which numbers of it are known, for inpainting.
    pub known: Option<(Vec<f32>, Vec<bool>)>,
}

/// The states and estimates of a sampling, step by step.
#[derive(Clone, Debug, Default)]
pub(super) struct Film {
    /// States `[N, D]` before each estimate, divided by `sqrt(scale^2 + noise^2)`, and at last the samples.
    pub states: Vec<Vec<f32>>,
}

impl Sampler<'_> {
    /// Samples of one network evaluation. The network always sees this many, whatever is asked for: matrix products of
    /// other sizes may round differently, and a sample must not depend on how many are drawn with it.
    fn chunk(&self) -> usize {
        if matches!(self.network, Network::UNet(_)) { 32 } else { 1024 }
    }

    /// Draws samples `[N, D]`, one for each class of `wanted`.
    ///
    /// # Errors
    /// If the sampler can't serve the process.
    pub fn sample(
        &self,
        wanted: &Wanted,
        sampling: &Sampling,
        seed: u64,
        mut film: Option<&mut Film>,
    ) -> Result<Vec<f32>, CoreError> {
        if sampling.churn > 0.0 && !matches!(self.process, Process::VarianceExploding { .. }) {
            return Err(CoreError::Usage("churn: expected process \"edm\", found another".into()));
        }
        let steps = steps(&self.process.levels(sampling.steps, sampling.spacing));
        let dim: usize = self.shape.iter().product();
        let mut samples = Vec::with_capacity(wanted.classes.len() * dim);
        for (i, classes) in wanted.classes.chunks(self.chunk()).enumerate() {
            let mut rng = SampleRngs::new(seed, i * self.chunk(), self.chunk());
            let rows = i * self.chunk() * dim..(i * self.chunk() + classes.len()) * dim;
            let mut padded = classes.to_vec();
            padded.resize(self.chunk(), classes[0]);
            let mut guided = Guided { sampler: self, classes: padded, guidance: sampling.guidance };
            let known = wanted.known.as_ref().map(|(data, mask)| {
                let pad = |mut v: Vec<f32>| {
                    v.resize(self.chunk() * dim, 0.0);
                    v
                };
                let mut mask = mask[rows.clone()].to_vec();
                mask.resize(self.chunk() * dim, false);
                (pad(data[rows.clone()].to_vec()), mask)
            });
            let mut seen = Film::default();
            let mut denoiser = |x: &[f32], level: &Level| {
                if film.is_some() {
                    let unit = level.scale.hypot(level.noise) as f32;
                    seen.states.push(x[..classes.len() * dim].iter().map(|x| x / unit).collect());
                }
                let mut x0 = guided.denoise(x, level);
                if let Some((data, mask)) = &known {
                    x0.iter_mut().zip(data.iter().zip(mask)).for_each(|(x0, (d, known))| {
                        if *known {
                            *x0 = *d;
                        }
                    });
                }
                x0
            };
            let x = prior(dim, &steps, &mut rng);
            let mut x = self.run(&mut denoiser, x, &steps, sampling, &mut rng);
            x.truncate(classes.len() * dim);
            samples.extend_from_slice(&x);
            if let Some(film) = film.as_deref_mut() {
                seen.states.push(x);
                film.states.resize(seen.states.len(), Vec::new());
                film.states.iter_mut().zip(seen.states).for_each(|(all, part)| all.extend(part));
            }
        }
        Ok(samples)
    }

    fn run(
        &self,
        denoiser: &mut dyn Denoiser,
        x: Vec<f32>,
        steps: &[Step],
        sampling: &Sampling,
        rng: &mut SampleRngs,
    ) -> Vec<f32> {
        match sampling.sampler {
            SamplerName::Ddpm => ddpm(denoiser, x, steps, rng),
            SamplerName::Ddim => ddim(denoiser, x, steps, sampling.eta, rng),
            SamplerName::Dpmpp => dpm_solver_pp_2m(denoiser, x, steps),
            SamplerName::Heun => {
                // EDM's values for ImageNet at 64 pixels, table 5.
                let churn = Churn { amount: sampling.churn, min: 0.05, max: 50.0, noise: 1.003 };
                let sigma = matches!(self.process, Process::VarianceExploding { .. });
                let coordinates = if sigma { Coordinates::Sigma } else { Coordinates::Line };
                heun(denoiser, x, steps, coordinates, churn, rng)
            }
        }
    }

    /// The network's estimate of the clean data.
    fn estimate(&self, x: &[f32], level: &Level, classes: &[Option<u32>]) -> Vec<f32> {
        let p = self.target.preconditioning(level, self.sigma_data, None);
        let scaled = x.iter().map(|x| p.c_in as f32 * x).collect();
        let times = vec![level.time as f32; classes.len()];
        let output = self.network.forward(scaled, self.shape, &times, classes, self.device);
        let output: Vec<f32> = output.into_data().try_into_vec().expect("networks compute in 32-bit floats");
        x.iter().zip(output).map(|(x, f)| (p.c_skip * f64::from(*x) + p.c_out * f64::from(f)) as f32).collect()
    }
}

/// Classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598): the estimate without a class, and from there towards,
/// or beyond, the one with it. A strength of 1 is the estimate with the class, which takes one evaluation.
struct Guided<'a> {
    sampler: &'a Sampler<'a>,
    classes: Vec<Option<u32>>,
    guidance: f64,
}

impl Denoiser for Guided<'_> {
    fn denoise(&mut self, x: &[f32], level: &Level) -> Vec<f32> {
        let mut x0 = self.sampler.estimate(x, level, &self.classes);
        if self.guidance != 1.0 && self.classes.iter().any(Option::is_some) {
            let without = self.sampler.estimate(x, level, &vec![None; self.classes.len()]);
            let strength = self.guidance as f32;
            x0.iter_mut().zip(without).for_each(|(with, without)| *with = without + strength * (*with - without));
        }
        if self.sampler.bounded {
            x0.iter_mut().for_each(|x| *x = x.clamp(-1.0, 1.0));
        }
        x0
    }
}
