//! The `[model]` section of vector-quantised autoencoders.

use hotfire_core::config::{ConfigDocument, ConfigError};
use hotfire_core::schedule::Schedule;
use serde::{Deserialize, Serialize};

/// The `[model]` section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VqVaeConfig {
    /// Channels of the encoder's stride-2 convolutions; the decoder mirrors them.
    pub channels: Vec<usize>,
    /// Number of codes.
    pub codes: usize,
    /// Numbers of a code.
    pub width: usize,
    /// Adam's step size, of the autoencoder and of the prior.
    pub learning_rate: Schedule,
    /// Weight of the term that holds the encoder to its codes.
    pub commitment: f64,
    /// Decay of the averages that codes follow.
    pub decay: f32,
    /// Average choices a batch below which a code is restarted.
    pub restart_below: f32,
    /// Share of the run, at its end, that trains the prior.
    pub prior_share: f64,
    /// Channels of the prior's layers.
    pub prior_channels: usize,
    /// Number of the prior's residual layers.
    pub prior_layers: usize,
}

impl Default for VqVaeConfig {
    fn default() -> Self {
        Self {
            channels: vec![32, 64],
            codes: 128,
            width: 16,
            learning_rate: Schedule::Constant(1e-3),
            commitment: 0.25,
            decay: 0.99,
            restart_below: 0.5,
            prior_share: 0.5,
            prior_channels: 64,
            prior_layers: 4,
        }
    }
}

impl VqVaeConfig {
    /// Refuses values out of range; pictures are `[height, width]`.
    pub(super) fn check(&self, document: &ConfigDocument, [height, width]: [usize; 2]) -> Result<(), ConfigError> {
        for (key, value) in [
            ("codes", self.codes),
            ("width", self.width),
            ("prior_channels", self.prior_channels),
            ("channels", self.channels.len()),
        ] {
            if value == 0 {
                return Err(document.out_of_range(&format!("model.{key}"), "at least one", value));
            }
        }
        let fold = 1usize << self.channels.len().min(16);
        if self.channels.contains(&0) || height % fold != 0 || width % fold != 0 {
            let expected = format!("positive widths, as many as {width}x{height} can be halved");
            return Err(document.out_of_range("model.channels", expected, format!("{:?}", self.channels)));
        }
        let (low, high) = self.learning_rate.bounds();
        if !(low >= 0.0 && high.is_finite()) {
            return Err(document.out_of_range("model.learning_rate", "a finite number not below 0", low));
        }
        for (key, value, ok, expected) in [
            ("commitment", self.commitment, self.commitment >= 0.0, "a number not below 0"),
            ("decay", self.decay.into(), (0.0..1.0).contains(&self.decay), "a number from 0 to below 1"),
            ("restart_below", self.restart_below.into(), self.restart_below >= 0.0, "a number not below 0"),
            ("prior_share", self.prior_share, (0.0..=1.0).contains(&self.prior_share), "a number from 0 to 1"),
        ] {
            if !(ok && value.is_finite()) {
                return Err(document.out_of_range(&format!("model.{key}"), expected, value));
            }
        }
        Ok(())
    }
}
