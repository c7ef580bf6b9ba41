//! What the trainers of text models share: the network with its optimizer, and how a loss is reported.

use burn::module::Module;
use burn::prelude::*;
use hotfire_core::CoreError;
use hotfire_core::checkpoint::{CheckpointReader, CheckpointWriter};
use hotfire_core::config::{ConfigDocument, ConfigError};
use hotfire_core::metrics::Metrics;
use hotfire_core::schedule::WarmupCosine;
use hotfire_nn::AdamConfig;

use super::tokenizer::Tokenizer;

/// AdamW with warm-up and cosine decay, as a flattened part of `[model]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptimizerSetting {
    /// Largest learning rate.
    pub learning_rate: f64,
    /// Learning rate at the end.
    pub min_learning_rate: f64,
    /// Steps over which the learning rate rises.
    pub warmup: u64,
    /// Decoupled weight decay of matrices; vectors (biases, gains) are not decayed.
    pub weight_decay: f64,
    /// Adam's second decay.
    pub beta_2: f64,
    /// Largest global gradient norm.
    pub max_grad_norm: f64,
}

impl OptimizerSetting {
    /// Refuses values out of range.
    ///
    /// # Errors
    /// With the key of the value.
    pub fn check(&self, document: &ConfigDocument) -> Result<(), ConfigError> {
        let rules: [(&str, f64, bool, &str); 5] = [
            ("learning_rate", self.learning_rate, self.learning_rate > 0.0, "a number above 0"),
            (
                "min_learning_rate",
                self.min_learning_rate,
                (0.0..=self.learning_rate).contains(&self.min_learning_rate),
                "a number from 0 to model.learning_rate",
            ),
            ("weight_decay", self.weight_decay, self.weight_decay >= 0.0, "a number not below 0"),
            ("beta_2", self.beta_2, (0.0..1.0).contains(&self.beta_2), "a number from 0 to below 1"),
            ("max_grad_norm", self.max_grad_norm, self.max_grad_norm > 0.0, "a number above 0"),
        ];
        for (key, value, holds, expected) in rules {
            if !(holds && value.is_finite()) {
                return Err(document.out_of_range(&format!("model.{key}"), expected, value));
            }
        }
        Ok(())
    }
}

/// A network of text in training, with its learning rate's course.
#[derive(Clone, Debug)]
pub struct Learner<M> {
    learner: crate::learner::Learner<M>,
    schedule: WarmupCosine,
}

impl<M: Module> Learner<M> {
    /// A learner that will do `total_steps` updates.
    pub fn new(net: M, setting: &OptimizerSetting, total_steps: u64) -> Self {
        let optimizer = AdamConfig {
            beta_2: setting.beta_2,
            weight_decay: setting.weight_decay,
            decay_matrices_only: true,
            max_grad_norm: Some(setting.max_grad_norm),
            ..AdamConfig::default()
        };
        let schedule = WarmupCosine {
            peak: setting.learning_rate,
            end: setting.min_learning_rate,
            warmup: setting.warmup,
            steps: total_steps,
        };
        Self { learner: crate::learner::Learner::new("network", net, optimizer), schedule }
    }

    /// The network, on an autodiff device.
    pub fn net(&self) -> &M {
        self.learner.net()
    }

    /// Updates done.
    pub fn step(&self) -> u64 {
        self.learner.step
    }

    /// One update; adds the loss in nats, the gradient norm and the learning rate to the metrics.
    pub fn update(&mut self, loss: Tensor<1>, metrics: &mut Metrics) {
        let learning_rate = self.schedule.value(self.learner.step);
        let (loss, norm) = self.learner.descend(loss, learning_rate);
        metrics.push("train_loss", loss);
        metrics.push("grad_norm", norm);
        metrics.push("learning_rate", learning_rate);
    }

    /// Writes network, optimizer, step and tokenizer.
    ///
    /// # Errors
    /// If a file can't be written.
    pub fn save(&self, to: &mut CheckpointWriter, tokenizer: &Tokenizer) -> Result<(), CoreError> {
        self.learner.save(to)?;
        to.bytes("tokenizer.json", tokenizer.to_json().as_bytes())
    }

    /// Restores what [`save`](Self::save) wrote and returns the tokenizer; on an error nothing has changed.
    ///
    /// # Errors
    /// If the checkpoint doesn't fit.
    pub fn load(&mut self, from: &CheckpointReader) -> Result<Tokenizer, CoreError> {
        let tokenizer = Tokenizer::from_json(&from.bytes("tokenizer.json")?)
            .map_err(|problem| CoreError::Checkpoint { path: from.path().join("tokenizer.json"), problem })?;
        self.learner.load(from)?;
        Ok(tokenizer)
    }
}

/// Loss (nats a token), perplexity (of a token) and bits a character, each named with its split.
pub fn describe(split: &str, nats: f64, tokens: usize, characters: usize) -> Metrics {
    let loss = nats / tokens.max(1) as f64;
    let mut metrics = Metrics::new();
    metrics.push(format!("{split}_loss"), loss);
    metrics.push(format!("{split}_perplexity"), loss.exp());
    metrics.push(format!("{split}_bits_per_char"), nats / std::f64::consts::LN_2 / characters.max(1) as f64);
    metrics
}

/// Refuses a network whose file has other tokens than its dictionary.
///
/// # Errors
/// With both numbers.
pub fn check_vocabulary(from: &CheckpointReader, found: usize, expected: usize) -> Result<(), CoreError> {
    if found == expected {
        return Ok(());
    }
    let problem = format!("expected {expected} tokens, as the data has, found {found}");
    Err(CoreError::Checkpoint { path: from.path().join("tokenizer.json"), problem })
}
