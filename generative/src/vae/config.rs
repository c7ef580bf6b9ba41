//! The `[model]` section of VAEs.

use hotfire_core::config::{ConfigDocument, ConfigError};
use hotfire_core::schedule::Schedule;
use serde::{Deserialize, Serialize};

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

impl VaeConfig {
    /// Refuses values out of range.
    pub(super) fn check(&self, document: &ConfigDocument) -> Result<(), ConfigError> {
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
