//! How data turns into noise, `x_t = scale x_0 + noise eps`, and the steps in which sampling goes back.
//!
//! Three processes share the form: the variance-preserving chain of DDPM (Ho et al. 2020, arXiv:2006.11239) with linear or
//! cosine (Nichol & Dhariwal 2021, arXiv:2102.09672) schedule, the variance-exploding one of EDM (Karras et al. 2022,
//! arXiv:2206.00364), and the straight line of rectified flow (Liu et al. 2022, arXiv:2209.03003).

use serde::{Deserialize, Serialize};

/// A point of the way from data to noise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// The time that the network is told, about 0 to 1000 for every process.
    pub time: f64,
    /// Factor of the data.
    pub scale: f64,
    /// Factor of the noise.
    pub noise: f64,
}

impl Level {
    /// Pure data.
    pub const CLEAN: Self = Self { time: 0.0, scale: 1.0, noise: 0.0 };

    /// EDM's level of standard deviation `sigma`; the network is told `1000 ln(sigma) / 4`.
    pub fn of_sigma(sigma: f64) -> Self {
        Self { time: 250.0 * sigma.ln(), scale: 1.0, noise: sigma }
    }

    /// The level at time `t` from 0 (data) to 1 (noise) of the straight line.
    pub fn of_line(t: f64) -> Self {
        Self { time: 1000.0 * t, scale: 1.0 - t, noise: t }
    }

    /// `noise / scale`: the noise level in units of the data.
    pub fn sigma(&self) -> f64 {
        self.noise / self.scale
    }

    /// Signal-to-noise ratio `(scale / noise)^2`.
    pub fn snr(&self) -> f64 {
        (self.scale / self.noise).powi(2)
    }
}

/// One step of sampling, from more noise to less.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Where the step starts.
    pub from: Level,
    /// Where it ends; the last step of a sampling ends at [`Level::CLEAN`].
    pub to: Level,
}

/// Pairs neighbouring levels, and the last with [`Level::CLEAN`].
pub fn steps(levels: &[Level]) -> Vec<Step> {
    let ends = levels.iter().skip(1).chain([&Level::CLEAN]);
    levels.iter().zip(ends).map(|(from, to)| Step { from: *from, to: *to }).collect()
}

/// How the noise of the variance-preserving chain grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// `beta` on a straight line, from `1e-4` to `0.02` for 1,000 steps.
    Linear,
    /// `alpha_bar = cos^2` of a quarter turn, `beta` at most 0.999.
    Cosine,
}

/// `alpha_bar_t`, the squared scale of the data, for `t = 0..timesteps`.
pub fn alpha_bar(schedule: Schedule, timesteps: usize) -> Vec<f64> {
    let count = timesteps as f64;
    let beta = |t: usize| match schedule {
        Schedule::Linear => {
            let (first, last) = (1e-4 * 1000.0 / count, 0.02 * 1000.0 / count);
            (first + (last - first) * t as f64 / (count - 1.0).max(1.0)).min(0.999)
        }
        Schedule::Cosine => {
            const S: f64 = 0.008;
            let f = |t: f64| ((t / count + S) / (1.0 + S) * std::f64::consts::FRAC_PI_2).cos().powi(2);
            (1.0 - f(t as f64 + 1.0) / f(t as f64)).clamp(0.0, 0.999)
        }
    };
    let products = (0..timesteps).scan(1.0, |product, t| {
        *product *= 1.0 - beta(t);
        Some(*product)
    });
    products.collect()
}

/// Standard deviations from `max` down to `min` that are dense where detail forms (Karras et al. 2022, equation 5).
pub fn karras(count: usize, min: f64, max: f64, rho: f64) -> Vec<f64> {
    let (low, high) = (min.powf(1.0 / rho), max.powf(1.0 / rho));
    (0..count).map(|i| (high + i as f64 / (count - 1).max(1) as f64 * (low - high)).powf(rho)).collect()
}

/// How sampling steps are spread over the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Spacing {
    /// Evenly in time, from the very end (Lin et al. 2023, arXiv:2305.08891, "trailing").
    Uniform,
    /// By [`karras`] with `rho = 7`.
    Karras,
}

/// The way from data to noise.
#[derive(Clone, Debug, PartialEq)]
pub enum Process {
    /// DDPM's chain.
    VariancePreserving {
        /// See [`alpha_bar`].
        alpha_bar: Vec<f64>,
    },
    /// EDM's addition of noise.
    VarianceExploding {
        /// Least standard deviation of a sampling.
        sigma_min: f64,
        /// Largest standard deviation of a sampling.
        sigma_max: f64,
    },
    /// The straight line between data and noise.
    Line,
}

impl Process {
    /// The levels of `count` sampling steps, from noise to data, without the clean end; fewer where a chain has fewer steps.
    pub fn levels(&self, count: usize, spacing: Spacing) -> Vec<Level> {
        let mut levels: Vec<Level> = match self {
            Self::VariancePreserving { alpha_bar } => {
                let last = alpha_bar.len() - 1;
                match spacing {
                    Spacing::Uniform => (0..count)
                        .map(|i| {
                            let left = (count - i) as f64 / count as f64;
                            let t = (alpha_bar.len() as f64 * left).round() as usize;
                            self.chain_level(t.saturating_sub(1).min(last) as f64)
                        })
                        .collect(),
                    Spacing::Karras => {
                        // The cosine schedule ends in almost no data at all: more than 80 is noise in any case.
                        let (min, max) = (self.chain_level(0.0).sigma(), self.chain_level(last as f64).sigma());
                        let sigmas = karras(count, min, max.min(80.0), 7.0);
                        sigmas.into_iter().map(|sigma| self.chain_level_of_sigma(sigma)).collect()
                    }
                }
            }
            Self::VarianceExploding { sigma_min, sigma_max } => {
                let sigmas = match spacing {
                    Spacing::Karras => karras(count, *sigma_min, *sigma_max, 7.0),
                    Spacing::Uniform => (0..count).map(|i| sigma_max * (count - i) as f64 / count as f64).collect(),
                };
                sigmas.into_iter().map(Level::of_sigma).collect()
            }
            Self::Line => match spacing {
                Spacing::Uniform => (0..count).map(|i| Level::of_line((count - i) as f64 / count as f64)).collect(),
                Spacing::Karras => {
                    let sigmas = karras(count, 0.002, 80.0, 7.0);
                    sigmas.into_iter().map(|sigma| Level::of_line(sigma / (1.0 + sigma))).collect()
                }
            },
        };
        // A step from a level to itself leads nowhere, and its length of zero stands below a fraction in DPM-Solver++.
        levels.dedup();
        levels
    }

    /// The chain's level at a time between its steps, by interpolating `ln alpha_bar`.
    fn chain_level(&self, time: f64) -> Level {
        let Self::VariancePreserving { alpha_bar } = self else { unreachable!("only the chain has steps") };
        let (below, above) = (time.floor() as usize, time.ceil() as usize);
        let log = |t: usize| alpha_bar[t].ln();
        let alpha_bar = (log(below) + (log(above) - log(below)) * (time - below as f64)).exp();
        let time = 1000.0 * (time + 1.0) / self.timesteps() as f64;
        Level { time, scale: alpha_bar.sqrt(), noise: (1.0 - alpha_bar).sqrt() }
    }

    fn chain_level_of_sigma(&self, sigma: f64) -> Level {
        let (mut low, mut high) = (0.0, (self.timesteps() - 1) as f64);
        // 50 halvings: sigma grows with time.
        for _ in 0..50 {
            let middle = (low + high) / 2.0;
            if self.chain_level(middle).sigma() < sigma { low = middle } else { high = middle }
        }
        self.chain_level((low + high) / 2.0)
    }

    fn timesteps(&self) -> usize {
        match self {
            Self::VariancePreserving { alpha_bar } => alpha_bar.len(),
            _ => 0,
        }
    }

    /// The level to train at for a uniform draw in `[0, 1)` and a standard normal one.
    ///
    /// EDM draws `ln sigma` from a normal distribution of mean -1.2 and deviation 1.2; the chain its step and the line its
    /// time uniformly.
    pub fn training_level(&self, uniform: f64, normal: f64) -> Level {
        match self {
            Self::VariancePreserving { alpha_bar } => {
                self.chain_level(((alpha_bar.len() as f64 * uniform) as usize).min(alpha_bar.len() - 1) as f64)
            }
            Self::VarianceExploding { .. } => Level::of_sigma((-1.2 + 1.2 * normal).exp()),
            // Never quite data, where the target of the network would say nothing about its input.
            Self::Line => Level::of_line(1.0 - uniform),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9 * b.abs().max(1e-9)
    }

    /// Computed with Python from the papers' formulas.
    #[test]
    fn golden_values() {
        let linear = alpha_bar(Schedule::Linear, 1000);
        assert!(close(linear[0], 0.9999) && close(linear[999], 4.035_829_765_375_675e-5), "{}", linear[999]);
        let cosine = alpha_bar(Schedule::Cosine, 1000);
        assert!(close(cosine[0], 0.999_958_715_775_178), "{}", cosine[0]);
        assert!(close(cosine[499], 0.493_843_590_440_638), "{}", cosine[499]);
        assert!(close(cosine[999], 2.428_766_907_034_857e-9), "{}", cosine[999]);
        let sigmas = karras(5, 0.002, 80.0, 7.0);
        assert!(close(sigmas[0], 80.0) && close(sigmas[4], 0.002), "{sigmas:?}");
        assert!(close(sigmas[2], 2.515_218_976_147_159), "{}", sigmas[2]);
    }

    #[test]
    fn steps_are_pairs_from_noise_to_data() {
        let chain = Process::VariancePreserving { alpha_bar: alpha_bar(Schedule::Cosine, 1000) };
        let exploding = Process::VarianceExploding { sigma_min: 0.002, sigma_max: 80.0 };
        for process in [chain, exploding, Process::Line] {
            for spacing in [Spacing::Uniform, Spacing::Karras] {
                for count in [1, 7, 50] {
                    let steps = steps(&process.levels(count, spacing));
                    assert_eq!(steps.len(), count);
                    assert_eq!(steps[count - 1].to, Level::CLEAN);
                    assert!(steps.windows(2).all(|pair| pair[0].to == pair[1].from));
                    assert!(steps.iter().all(|step| step.from.sigma() > step.to.sigma()), "{process:?} {spacing:?}");
                }
            }
        }
    }

    #[test]
    fn a_chain_sampled_at_every_step_is_the_chain() {
        let alpha_bar = alpha_bar(Schedule::Linear, 20);
        let levels = Process::VariancePreserving { alpha_bar: alpha_bar.clone() }.levels(20, Spacing::Uniform);
        for (level, alpha_bar) in levels.iter().zip(alpha_bar.iter().rev()) {
            assert!(close(level.scale.powi(2), *alpha_bar));
            assert!(close(level.scale.powi(2) + level.noise.powi(2), 1.0));
        }
        assert_eq!((levels[0].time, levels[19].time), (1000.0, 50.0));
    }

    #[test]
    fn a_chain_has_no_more_levels_than_steps() {
        let chain = Process::VariancePreserving { alpha_bar: alpha_bar(Schedule::Linear, 16) };
        for count in [17, 20, 40, 2000] {
            assert_eq!(chain.levels(count, Spacing::Uniform), chain.levels(16, Spacing::Uniform), "{count}");
        }
    }

    #[test]
    fn karras_spacing_of_a_chain_hits_its_sigmas() {
        let chain = Process::VariancePreserving { alpha_bar: alpha_bar(Schedule::Linear, 1000) };
        let levels = chain.levels(9, Spacing::Karras);
        let ends = [chain.chain_level(999.0).sigma(), chain.chain_level(0.0).sigma()];
        for (level, sigma) in levels.iter().zip(karras(9, ends[1], ends[0].min(80.0), 7.0)) {
            assert!((level.sigma() / sigma - 1.0).abs() < 1e-6, "{} against {sigma}", level.sigma());
        }
    }
}
