//! Samplers: free functions from noise to samples over `(denoiser, x, steps, rng)`.
//!
//! `x: [N, D]` is in the process's own scale (`x_t = scale x_0 + noise eps`) and starts as [`prior`] draws it. A denoiser
//! estimates `x_0`; all samplers are written with that estimate, so that they serve every target and every process.
//! Random draws come from one generator a sample: what a sample becomes does not depend on the others of its batch.

use hotfire_core::seed::{StreamRng, stream};

use super::schedule::{Level, Step};

/// Estimates the clean data `x_0: [N, D]` from noisy data `x: [N, D]`.
pub trait Denoiser {
    /// The estimate for data at `level`.
    fn denoise(&mut self, x: &[f32], level: &Level) -> Vec<f32>;
}

impl<F: FnMut(&[f32], &Level) -> Vec<f32>> Denoiser for F {
    fn denoise(&mut self, x: &[f32], level: &Level) -> Vec<f32> {
        self(x, level)
    }
}

/// One generator a sample.
#[derive(Clone, Debug)]
pub struct SampleRngs(Vec<StreamRng>);

impl SampleRngs {
    /// The generators of samples `first..first + count` of a seed.
    pub fn new(seed: u64, first: usize, count: usize) -> Self {
        Self((first..first + count).map(|i| stream(seed, "sample", i as u64)).collect())
    }

    /// Standard normal draws `[N, D]`.
    pub fn normal(&mut self, dim: usize) -> Vec<f32> {
        let mut noise = vec![0.0; self.0.len() * dim];
        for (row, rng) in noise.chunks_exact_mut(dim).zip(&mut self.0) {
            rng.fill_normal(row);
        }
        noise
    }
}

/// Samples of pure noise `[N, dim]` for the first step.
pub fn prior(dim: usize, steps: &[Step], rng: &mut SampleRngs) -> Vec<f32> {
    let Some(first) = steps.first() else { return rng.normal(dim) };
    // The chain's end still has a trace of data of variance about 1; the total is the prior's.
    let deviation =
        if first.from.scale < 1.0 { 1.0f64.min(first.from.noise.hypot(first.from.scale)) } else { first.from.noise };
    let mut x = rng.normal(dim);
    x.iter_mut().for_each(|x| *x *= deviation as f32);
    x
}

/// DDIM (Song et al. 2021, arXiv:2010.02502, equation 12). `eta` 0 is deterministic and, for the straight line, Euler's
/// method; `eta` 1 is [`ddpm`].
pub fn ddim(denoiser: &mut dyn Denoiser, mut x: Vec<f32>, steps: &[Step], eta: f64, rng: &mut SampleRngs) -> Vec<f32> {
    for Step { from, to } in steps {
        let x0 = denoiser.denoise(&x, from);
        // In units of the data the fresh noise is eta sigma' sqrt(1 - (sigma' / sigma)^2) for any process.
        let ratio = to.noise * from.scale / (to.scale * from.noise);
        let fresh = eta * to.noise * (1.0 - ratio * ratio).max(0.0).sqrt();
        let kept = (to.noise * to.noise - fresh * fresh).max(0.0).sqrt() / from.noise;
        let of_x0 = (to.scale - from.scale * kept) as f32;
        let kept = kept as f32;
        x.iter_mut().zip(&x0).for_each(|(x, x0)| *x = kept * *x + of_x0 * x0);
        if fresh > 0.0 {
            add_noise(&mut x, fresh, rng);
        }
    }
    x
}

/// DDPM's ancestral sampling (Ho et al. 2020, arXiv:2006.11239, algorithm 2) with the posterior's variance, over any
/// subsequence of steps.
pub fn ddpm(denoiser: &mut dyn Denoiser, x: Vec<f32>, steps: &[Step], rng: &mut SampleRngs) -> Vec<f32> {
    ddim(denoiser, x, steps, 1.0, rng)
}

/// In which coordinates [`heun`] solves the probability flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coordinates {
    /// `x / scale` over `sigma`, EDM's choice; not for a start without any data.
    Sigma,
    /// `x / (scale + noise)` over `noise / (scale + noise)`: the straight line of rectified flow.
    Line,
}

impl Coordinates {
    fn unit(self, level: &Level) -> f64 {
        match self {
            Self::Sigma => level.scale,
            Self::Line => level.scale + level.noise,
        }
    }
}

/// EDM's churn: noise that is added before each step, to forget errors of earlier ones.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Churn {
    /// Amount over all steps; 0 for none.
    pub amount: f64,
    /// Least sigma at which noise is added.
    pub min: f64,
    /// Largest sigma at which noise is added.
    pub max: f64,
    /// Factor of the noise's deviation.
    pub noise: f64,
}

/// Heun's second-order method on the probability flow (Karras et al. 2022, arXiv:2206.00364, algorithms 1 and 2); the last
/// step, to clean data, is Euler's. Each other step takes two estimates.
///
/// # Panics
/// If `churn` is used with other levels than EDM's, whose scale is 1.
pub fn heun(
    denoiser: &mut dyn Denoiser,
    mut x: Vec<f32>,
    steps: &[Step],
    coordinates: Coordinates,
    churn: Churn,
    rng: &mut SampleRngs,
) -> Vec<f32> {
    let gamma = (churn.amount / steps.len() as f64).min(2.0f64.sqrt() - 1.0);
    for Step { from, to } in steps {
        let mut from = *from;
        if gamma > 0.0 && (churn.min..=churn.max).contains(&from.sigma()) {
            assert_eq!(from.scale, 1.0, "churn adds noise to data of scale 1");
            let churned = Level::of_sigma(from.noise * (1.0 + gamma));
            let fresh = churn.noise * (churned.noise.powi(2) - from.noise.powi(2)).sqrt();
            add_noise(&mut x, fresh, rng);
            from = churned;
        }
        let (unit, next_unit) = (coordinates.unit(&from), coordinates.unit(to));
        let (u, next_u) = (from.noise / unit, to.noise / next_unit);
        // Along the flow x / unit = scale / unit x0 + u eps: its slope in u is eps - x0 (line) or eps (sigma).
        let slope = |x: &[f32], x0: &[f32], level: &Level| -> Vec<f32> {
            let (scale, noise) = (level.scale as f32, level.noise as f32);
            let minus = if coordinates == Coordinates::Line { 1.0 } else { 0.0 };
            x.iter().zip(x0).map(|(x, x0)| (x - scale * x0) / noise - minus * x0).collect()
        };
        let first = slope(&x, &denoiser.denoise(&x, &from), &from);
        let (grow, step) = ((next_unit / unit) as f32, (next_unit * (next_u - u)) as f32);
        let euler: Vec<f32> = x.iter().zip(&first).map(|(x, d)| grow * x + step * d).collect();
        if to.noise == 0.0 {
            x = euler;
            continue;
        }
        let second = slope(&euler, &denoiser.denoise(&euler, to), to);
        for (x, (a, b)) in x.iter_mut().zip(first.iter().zip(&second)) {
            *x = grow * *x + step * 0.5 * (a + b);
        }
    }
    x
}

/// DPM-Solver++(2M) (Lu et al. 2022, arXiv:2211.01095, algorithm 2): second order with one estimate a step. The first and
/// the last step are of first order.
pub fn dpm_solver_pp_2m(denoiser: &mut dyn Denoiser, mut x: Vec<f32>, steps: &[Step]) -> Vec<f32> {
    let lambda = |level: &Level| (level.scale / level.noise).ln();
    let mut last: Option<(Vec<f32>, f64)> = None;
    for Step { from, to } in steps {
        let x0 = denoiser.denoise(&x, from);
        let h = lambda(to) - lambda(from);
        let kept = (to.noise / from.noise) as f32;
        let of_x0 = (to.scale - from.scale * to.noise / from.noise) as f32;
        let weight = match &last {
            Some((_, last_h)) if h.is_finite() && last_h.is_finite() && *last_h > 0.0 => (0.5 * h / last_h) as f32,
            _ => 0.0,
        };
        let before = last.as_ref().map_or(&x0, |(x0, _)| x0);
        for ((x, x0), before) in x.iter_mut().zip(&x0).zip(before) {
            *x = kept * *x + of_x0 * ((1.0 + weight) * x0 - weight * before);
        }
        last = Some((x0, h));
    }
    x
}

fn add_noise(x: &mut [f32], deviation: f64, rng: &mut SampleRngs) {
    let noise = rng.normal(x.len() / rng.0.len());
    x.iter_mut().zip(noise).for_each(|(x, z)| *x += deviation as f32 * z);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::schedule::{Process, Schedule, Spacing, alpha_bar, steps};

    const MEAN: f64 = 0.3;
    const DEVIATION: f64 = 0.5;

    /// The posterior mean of normally distributed data.
    fn gaussian(x: &[f32], level: &Level) -> Vec<f32> {
        let (a, s, c) = (level.scale, level.noise, DEVIATION);
        let denoise = |x: &f32| (s * s * MEAN + a * c * c * f64::from(*x)) / (a * a * c * c + s * s);
        x.iter().map(|x| denoise(x) as f32).collect()
    }

    /// Where the probability flow takes a point.
    fn flow(x: f32, level: &Level) -> f64 {
        let spread = (level.scale * DEVIATION).hypot(level.noise);
        MEAN + DEVIATION * (f64::from(x) - level.scale * MEAN) / spread
    }

    fn processes() -> [(Process, Coordinates); 3] {
        [
            (Process::VariancePreserving { alpha_bar: alpha_bar(Schedule::Linear, 1000) }, Coordinates::Sigma),
            (Process::VarianceExploding { sigma_min: 0.002, sigma_max: 80.0 }, Coordinates::Sigma),
            (Process::Line, Coordinates::Line),
        ]
    }

    type Sampler = fn(&mut dyn Denoiser, Vec<f32>, &[Step], Coordinates, &mut SampleRngs) -> Vec<f32>;

    const SAMPLERS: [(&str, Sampler); 5] = [
        ("ddpm", |d, x, steps, _, rng| ddpm(d, x, steps, rng)),
        ("ddim", |d, x, steps, _, rng| ddim(d, x, steps, 0.0, rng)),
        ("ddim 0.5", |d, x, steps, _, rng| ddim(d, x, steps, 0.5, rng)),
        ("heun", |d, x, steps, coordinates, rng| heun(d, x, steps, coordinates, Churn::default(), rng)),
        ("dpm++", |d, x, steps, _, _| dpm_solver_pp_2m(d, x, steps)),
    ];

    #[test]
    fn each_sampler_recovers_a_gaussian() {
        const N: usize = 20_000;
        let moments = |samples: &[f32]| {
            let mean = samples.iter().map(|x| f64::from(*x)).sum::<f64>() / N as f64;
            let variance = samples.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / N as f64;
            (mean, variance.sqrt())
        };
        // Three standard errors of 20,000 samples, and a little for the steps.
        let fits =
            |(mean, deviation): (f64, f64)| (mean - MEAN).abs() < 0.012 && (deviation / DEVIATION - 1.0).abs() < 0.025;
        for (at, (process, coordinates)) in processes().into_iter().enumerate() {
            for (name, sampler) in SAMPLERS {
                // Ancestral sampling is of first order: with the posterior's variance too narrow by about 1 / steps.
                let count = if name.starts_with("dd") { 1000 } else { 50 };
                let steps = steps(&process.levels(count, Spacing::Karras));
                let mut rng = SampleRngs::new(3, 0, N);
                let x = prior(1, &steps, &mut rng);
                let found = moments(&sampler(&mut gaussian, x, &steps, coordinates, &mut rng));
                assert!(fits(found), "{name} on process {at}: mean and deviation {found:?}");
            }
        }
        let (process, coordinates) = &processes()[1];
        let steps = steps(&process.levels(80, Spacing::Karras));
        let mut rng = SampleRngs::new(3, 0, N);
        let x = prior(1, &steps, &mut rng);
        let churn = Churn { amount: 10.0, min: 0.05, max: 50.0, noise: 1.0 };
        let found = moments(&heun(&mut gaussian, x, &steps, *coordinates, churn, &mut rng));
        assert!(fits(found), "churned: mean and deviation {found:?}");
    }

    /// The error against the exact flow falls with the method's order when steps are halved.
    #[test]
    fn orders_of_convergence() {
        for (process, coordinates) in processes() {
            for (name, sampler) in [SAMPLERS[1], SAMPLERS[3], SAMPLERS[4]] {
                let error = |count: usize| {
                    let steps = steps(&process.levels(count, Spacing::Karras));
                    let mut rng = SampleRngs::new(5, 0, 64);
                    let x = prior(1, &steps, &mut rng);
                    let want: Vec<f64> = x.iter().map(|x| flow(*x, &steps[0].from)).collect();
                    let got = sampler(&mut gaussian, x, &steps, coordinates, &mut rng);
                    let square = got.iter().zip(want).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum::<f64>();
                    (square / 64.0).sqrt()
                };
                let order = (error(16) / error(64)).log2() / 2.0;
                let least = if name == "ddim" { 0.8 } else { 1.6 };
                assert!(order > least, "{name}: order {order}, errors {} and {}", error(16), error(64));
                if name == "ddim" {
                    assert!(order < 1.4, "Euler's method is of first order, found {order}");
                }
            }
        }
    }

    #[test]
    fn a_step_that_leads_nowhere_changes_nothing() {
        let levels = processes()[0].0.levels(10, Spacing::Uniform);
        let sample = |levels: &[Level]| {
            let steps = steps(levels);
            let mut rng = SampleRngs::new(2, 0, 4);
            dpm_solver_pp_2m(&mut gaussian, prior(1, &steps, &mut rng), &steps)
        };
        let repeated = [&levels[..1], &levels].concat();
        assert_eq!(sample(&repeated), sample(&levels));
    }

    #[test]
    fn ddim_on_the_line_is_eulers_method() {
        let steps = steps(&Process::Line.levels(10, Spacing::Uniform));
        let mut rng = SampleRngs::new(1, 0, 4);
        let mut x = prior(2, &steps, &mut rng);
        let sampled = ddim(&mut gaussian, x.clone(), &steps, 0.0, &mut rng);
        for Step { from, to } in &steps {
            let x0 = gaussian(&x, from);
            let velocity = |x: f32, x0: f32| (x - from.scale as f32 * x0) / from.noise as f32 - x0;
            x = x.iter().zip(x0).map(|(x, x0)| x + (to.noise - from.noise) as f32 * velocity(*x, x0)).collect();
        }
        assert!(x.iter().zip(&sampled).all(|(a, b)| (a - b).abs() < 1e-5), "{x:?} {sampled:?}");
    }

    #[test]
    fn a_sample_does_not_depend_on_its_batch() {
        let steps = steps(&processes()[0].0.levels(10, Spacing::Uniform));
        let sample = |first, count| {
            let mut rng = SampleRngs::new(9, first, count);
            let x = prior(3, &steps, &mut rng);
            ddpm(&mut gaussian, x, &steps, &mut rng)
        };
        let all = sample(0, 5);
        assert_eq!(all[..6], sample(0, 2));
        assert_eq!(all[9..12], sample(3, 1));
    }
}
