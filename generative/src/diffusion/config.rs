//! The `[model]` section of diffusion.

use hotfire_core::config::{ConfigDocument, ConfigError};
use hotfire_core::schedule;
use serde::{Deserialize, Serialize};

use super::sampling::{SamplerName, Sampling};
use super::schedule::{Process, Schedule, Spacing, alpha_bar};
use super::targets::Target;
use super::unet::GROUPS;

/// The `[model]` section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiffusionConfig {
    /// How data turns into noise: `vp` (DDPM), `edm` or `flow` (rectified flow).
    pub process: ProcessName,
    /// Noise schedule of the `vp` process: `cosine` or `linear`.
    pub schedule: Schedule,
    /// Steps of the `vp` process.
    pub timesteps: usize,
    /// What the network estimates: `epsilon`, `x0` or `v` of the `vp` process; `edm` and `flow` have one of their own.
    pub target: Option<Target>,
    /// Limits the weight of easy noise levels of the `vp` process (Min-SNR; usually 5).
    pub min_snr_gamma: Option<f64>,
    /// The data's standard deviation, for `edm`.
    pub sigma_data: f64,

    /// Channels of the U-Net's first level; a multiple of 8.
    pub base_channels: usize,
    /// Channels of each level as multiples of `base_channels`; each level halves the resolution.
    pub channel_multipliers: Vec<usize>,
    /// Residual blocks a level.
    pub blocks: usize,
    /// Attention heads on the coarsest level.
    pub heads: usize,
    /// Width of the network for points.
    pub hidden: usize,
    /// Residual blocks of the network for points.
    pub hidden_blocks: usize,

    /// Whether the network is told the class.
    pub conditional: bool,
    /// Share of training pictures whose class is withheld, for classifier-free guidance.
    pub condition_dropout: f64,

    /// Adam's step size.
    pub learning_rate: schedule::Schedule,
    /// Largest global gradient norm.
    pub max_grad_norm: f64,
    /// Decay of the average of the weights that samples are drawn with.
    pub ema_decay: f64,

    /// How samples are drawn: `ddpm`, `ddim`, `heun` or `dpmpp`.
    pub sampler: SamplerName,
    /// Steps of a sampling.
    pub sample_steps: usize,
    /// How these are spread: `uniform` or `karras`.
    pub spacing: Option<Spacing>,
    /// Strength of classifier-free guidance; 1 for none.
    pub guidance: f64,
    /// Samples that an evaluation draws.
    pub eval_samples: usize,
}

/// Names of the processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProcessName {
    /// DDPM's variance-preserving chain.
    Vp,
    /// EDM.
    Edm,
    /// Rectified flow.
    Flow,
}

impl Default for DiffusionConfig {
    fn default() -> Self {
        Self {
            process: ProcessName::Vp,
            schedule: Schedule::Cosine,
            timesteps: 1000,
            target: None,
            min_snr_gamma: None,
            sigma_data: 0.5,
            base_channels: 16,
            channel_multipliers: vec![1, 2, 2],
            blocks: 2,
            heads: 1,
            hidden: 128,
            hidden_blocks: 3,
            conditional: false,
            condition_dropout: 0.1,
            learning_rate: schedule::Schedule::Constant(2e-4),
            max_grad_norm: 1.0,
            ema_decay: 0.999,
            sampler: SamplerName::Dpmpp,
            sample_steps: 20,
            spacing: None,
            guidance: 1.0,
            eval_samples: 2500,
        }
    }
}

impl DiffusionConfig {
    /// Refuses values out of range. `image` is the size of the pictures, `None` for points.
    pub(super) fn check(&self, document: &ConfigDocument, image: Option<[usize; 3]>) -> Result<(), ConfigError> {
        let refuse = |key: &str, expected: &str, found: String| {
            Err(document.out_of_range(&format!("model.{key}"), expected, found))
        };
        for (key, value) in [
            ("blocks", self.blocks),
            ("heads", self.heads),
            ("hidden", self.hidden),
            ("sample_steps", self.sample_steps),
            ("eval_samples", self.eval_samples),
        ] {
            if value == 0 {
                return refuse(key, "at least 1", value.to_string());
            }
        }
        if self.timesteps < 2 {
            return refuse("timesteps", "at least 2", self.timesteps.to_string());
        }
        for (key, value) in [("sigma_data", self.sigma_data), ("max_grad_norm", self.max_grad_norm)] {
            if !(value > 0.0 && value.is_finite()) {
                return refuse(key, "a positive number", value.to_string());
            }
        }
        for (key, value) in [("condition_dropout", self.condition_dropout), ("ema_decay", self.ema_decay)] {
            if !(0.0..=1.0).contains(&value) {
                return refuse(key, "a number from 0 to 1", value.to_string());
            }
        }
        let (low, high) = self.learning_rate.bounds();
        if !(low >= 0.0 && high.is_finite()) {
            return refuse("learning_rate", "a number not below 0", format!("{low} to {high}"));
        }
        if !self.guidance.is_finite() {
            return refuse("guidance", "a finite number", self.guidance.to_string());
        }
        if let Some(gamma) = self.min_snr_gamma {
            if self.process != ProcessName::Vp {
                return refuse(
                    "min_snr_gamma",
                    "none: only process \"vp\" weights its levels by it",
                    gamma.to_string(),
                );
            }
            if !(gamma > 0.0 && gamma.is_finite()) {
                return refuse("min_snr_gamma", "a positive number", gamma.to_string());
            }
        }
        let target_fits = match self.target {
            None => true,
            Some(Target::Edm) => self.process == ProcessName::Edm,
            Some(Target::Flow) => self.process == ProcessName::Flow,
            Some(_) => self.process == ProcessName::Vp,
        };
        if !target_fits {
            let expected = "epsilon, x0 or v for process \"vp\", and no other key for \"edm\" and \"flow\"";
            return refuse("target", expected, format!("{:?}", self.target.unwrap_or(Target::Epsilon)).to_lowercase());
        }
        let Some([_, height, width]) = image else { return Ok(()) };
        if self.base_channels == 0 || !self.base_channels.is_multiple_of(GROUPS) {
            return refuse("base_channels", "a positive multiple of 8", self.base_channels.to_string());
        }
        if self.channel_multipliers.is_empty() || self.channel_multipliers.contains(&0) {
            return refuse("channel_multipliers", "positive numbers", format!("{:?}", self.channel_multipliers));
        }
        let halvings = 1usize << (self.channel_multipliers.len() - 1);
        if !height.is_multiple_of(halvings) || !width.is_multiple_of(halvings) {
            let expected = format!(
                "so many levels that their halvings divide the pictures' {height} x {width} pixels (found {halvings})"
            );
            return refuse("channel_multipliers", &expected, format!("{:?}", self.channel_multipliers));
        }
        let coarsest = self.base_channels * self.channel_multipliers[self.channel_multipliers.len() - 1];
        if !coarsest.is_multiple_of(self.heads) {
            return refuse(
                "heads",
                &format!("a divisor of the coarsest level's {coarsest} channels"),
                self.heads.to_string(),
            );
        }
        Ok(())
    }

    /// The process with its numbers.
    pub(super) fn process(&self) -> Process {
        match self.process {
            ProcessName::Vp => Process::VariancePreserving { alpha_bar: alpha_bar(self.schedule, self.timesteps) },
            ProcessName::Edm => Process::VarianceExploding { sigma_min: 0.002, sigma_max: 80.0 },
            ProcessName::Flow => Process::Line,
        }
    }

    /// What the network estimates.
    pub(super) fn target(&self) -> Target {
        self.target.unwrap_or(match self.process {
            ProcessName::Vp => Target::Epsilon,
            ProcessName::Edm => Target::Edm,
            ProcessName::Flow => Target::Flow,
        })
    }

    /// How samples are drawn unless told otherwise.
    pub(super) fn sampling(&self) -> Sampling {
        let spacing = if self.process == ProcessName::Edm { Spacing::Karras } else { Spacing::Uniform };
        Sampling {
            sampler: self.sampler,
            steps: self.sample_steps,
            spacing: self.spacing.unwrap_or(spacing),
            eta: 0.0,
            churn: 0.0,
            guidance: self.guidance,
        }
    }
}
