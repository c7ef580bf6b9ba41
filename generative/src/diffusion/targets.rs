//! What the network estimates, how its input and output are scaled, and how errors are weighted.

use serde::{Deserialize, Serialize};

use super::schedule::Level;

/// What the network's output stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// The noise (Ho et al. 2020).
    Epsilon,
    /// The clean data.
    X0,
    /// `scale eps - noise x_0` (Salimans & Ho 2022, arXiv:2202.00512).
    V,
    /// The velocity `eps - x_0` of rectified flow (Liu et al. 2022, arXiv:2209.03003).
    Flow,
    /// EDM's mix of data and noise, of unit variance at every level (Karras et al. 2022, table 1).
    Edm,
}

/// A level's factors around the network `F`, for `x_t = scale x_0 + noise eps`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preconditioning {
    /// The network sees `c_in x_t`.
    pub c_in: f64,
    /// The estimate of `x_0` is `c_skip x_t + c_out F`.
    pub c_skip: f64,
    /// See `c_skip`.
    pub c_out: f64,
    /// The network learns `of_data x_0 + of_noise eps`.
    pub of_data: f64,
    /// See `of_data`.
    pub of_noise: f64,
    /// Weight of the squared error of `F`.
    pub weight: f64,
}

impl Target {
    /// The factors at `level`; `sigma_data` is the data's standard deviation, which only EDM uses. `min_snr` limits the
    /// weight of easy levels (Hang et al. 2023, arXiv:2303.09556; its `gamma`, usually 5).
    pub fn preconditioning(self, level: &Level, sigma_data: f64, min_snr: Option<f64>) -> Preconditioning {
        let (a, s) = (level.scale, level.noise);
        let snr = level.snr();
        let clipped = min_snr.map(|gamma| snr.min(gamma));
        let plain = |c_skip, c_out, of_data, of_noise, weight| Preconditioning {
            c_in: 1.0,
            c_skip,
            c_out,
            of_data,
            of_noise,
            weight,
        };
        match self {
            Self::Epsilon => plain(1.0 / a, -s / a, 0.0, 1.0, clipped.map_or(1.0, |snr_clipped| snr_clipped / snr)),
            Self::X0 => plain(0.0, 1.0, 1.0, 0.0, clipped.unwrap_or(1.0)),
            Self::V => plain(a, -s, -s, a, clipped.map_or(1.0, |clipped| clipped / (snr + 1.0))),
            Self::Flow => plain(1.0, -s, -1.0, 1.0, 1.0),
            Self::Edm => {
                let total = s.hypot(sigma_data);
                Preconditioning {
                    c_in: 1.0 / total,
                    c_skip: sigma_data.powi(2) / total.powi(2),
                    c_out: s * sigma_data / total,
                    of_data: s / (sigma_data * total),
                    of_noise: -sigma_data / total,
                    weight: 1.0,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::schedule::{Process, Schedule, alpha_bar};

    /// A network that learned its target gives back the data, and EDM's scales are of unit variance.
    #[test]
    fn the_exact_target_gives_the_exact_data() {
        let chain = Process::VariancePreserving { alpha_bar: alpha_bar(Schedule::Cosine, 1000) };
        let exploding = Process::VarianceExploding { sigma_min: 0.002, sigma_max: 80.0 };
        for (process, targets) in [
            (&chain, &[Target::Epsilon, Target::X0, Target::V][..]),
            (&exploding, &[Target::Edm]),
            (&Process::Line, &[Target::Flow]),
        ] {
            for target in targets {
                for draw in [0.01, 0.3, 0.7, 0.95] {
                    let level = process.training_level(draw, 4.0 * draw - 2.0);
                    let p = target.preconditioning(&level, 0.5, None);
                    let (x0, eps) = (0.7, -1.3);
                    let xt = level.scale * x0 + level.noise * eps;
                    let estimate = p.c_skip * xt + p.c_out * (p.of_data * x0 + p.of_noise * eps);
                    assert!((estimate - x0).abs() < 1e-9, "{target:?} at {level:?}: {estimate}");
                }
            }
        }
        let level = Level::of_sigma(1.7);
        let p = Target::Edm.preconditioning(&level, 0.5, None);
        let variance = |of_data: f64, of_noise: f64| (of_data * 0.5).powi(2) + of_noise.powi(2);
        assert!((variance(p.c_in, p.c_in * 1.7) - 1.0).abs() < 1e-12, "input");
        assert!((variance(p.of_data, p.of_noise) - 1.0).abs() < 1e-12, "target");
    }

    /// Min-SNR weighting is one weighting of the data's error, whatever the network estimates.
    #[test]
    fn min_snr_weights_agree_between_targets() {
        let chain = Process::VariancePreserving { alpha_bar: alpha_bar(Schedule::Linear, 1000) };
        for draw in [0.0, 0.2, 0.5, 0.9] {
            let level = chain.training_level(draw, 0.0);
            let of_x0 = |target: Target| {
                let p = target.preconditioning(&level, 0.5, Some(5.0));
                p.weight / p.c_out.powi(2)
            };
            let want = level.snr().min(5.0);
            for target in [Target::Epsilon, Target::X0, Target::V] {
                assert!((of_x0(target) / want - 1.0).abs() < 1e-9, "{target:?}: {} against {want}", of_x0(target));
            }
        }
    }
}
