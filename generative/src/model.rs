//! What a model is to the command line besides a task of the run shell.

use std::path::PathBuf;

use burn::prelude::Device;
use hotfire_core::CoreError;
use hotfire_core::config::{ConfigDocument, ConfigError};
use hotfire_core::media::expect_ending;
use hotfire_core::metrics::Metrics;
use hotfire_core::task::Task;

use crate::embedder::Embedder;
use crate::registry::model;
use crate::text::AttentionMaps;

/// A generative or sequence model that trains as a [`Task`] and can be sampled from.
pub trait Model: Task + Send {
    /// Steps of a pass over the training data, for models that count epochs.
    fn steps_per_epoch(&self) -> Option<u64> {
        None
    }

    /// Draws samples from the model as it is now. Equal seeds give equal samples, whatever was drawn before.
    ///
    /// # Errors
    /// For an option that the model does not know, or a file that can't be written.
    fn sample(&mut self, request: &mut SampleRequest<'_>) -> Result<SampleReport, CoreError>;

    /// The encoder of sentences that the model has learned.
    ///
    /// # Errors
    /// For a model that doesn't learn one.
    fn embedder(&self) -> Result<Embedder, CoreError> {
        Err(CoreError::Usage("this model has no sentence embeddings; bert has".into()))
    }

    /// What each attention head looks at in a text.
    ///
    /// # Errors
    /// For a model without attention over text, or a text that it can't read.
    fn attention(&self, _text: &str) -> Result<AttentionMaps, CoreError> {
        Err(CoreError::Usage("this model has no attention over text; gpt and bert have".into()))
    }
}

/// What to sample.
pub struct SampleRequest<'a> {
    /// Number of samples; the model's own default without it.
    pub count: Option<usize>,
    /// The picture to write, for models that make pictures.
    pub out: Option<PathBuf>,
    /// Seed of the samples.
    pub seed: u64,
    /// The text to go on from, for models of text.
    pub prompt: Option<String>,
    /// The model's own options, `key=value` on the command line. A model takes out those it knows
    /// and refuses the rest.
    pub options: Vec<(String, String)>,
    /// Receives text while it is generated.
    pub text: &'a mut dyn FnMut(&str),
}

impl SampleRequest<'_> {
    /// Where a model that makes pictures writes one: `name` in the working directory if nothing else is asked for. The
    /// file's ending is that of its format, one of `endings`.
    ///
    /// # Errors
    /// For another ending, and for a prompt.
    pub fn picture(&self, name: impl Into<PathBuf>, endings: &[&str]) -> Result<PathBuf, CoreError> {
        if self.prompt.is_some() {
            return Err(CoreError::Usage("--prompt is for models of text; this one makes pictures".into()));
        }
        let path = self.out.clone().unwrap_or_else(|| name.into());
        expect_ending("--out", &path, endings)?;
        Ok(path)
    }
}

/// What came of a [`SampleRequest`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SampleReport {
    /// The files that were written.
    pub files: Vec<PathBuf>,
    /// What was measured of the samples.
    pub metrics: Metrics,
}

/// What a model is made from, besides its own `[model]` and `[data]` sections.
#[derive(Debug)]
pub struct ModelSetting<'a> {
    /// The run's seed.
    pub seed: u64,
    /// The device that learns, without autodiff.
    pub device: &'a Device,
    /// Training steps of the whole run, for schedules; 0 where the length is given in epochs.
    pub total_steps: u64,
    /// Passes over the data of the whole run; 0 where the length is given in steps.
    pub epochs: u64,
    /// Examples of a batch; 0 for the model's own choice.
    pub batch_size: u64,
}

impl ModelSetting<'_> {
    /// Training steps of the whole run for a model whose epochs have `steps_per_epoch` steps.
    pub fn steps(&self, steps_per_epoch: u64) -> u64 {
        if self.epochs > 0 { self.epochs * steps_per_epoch } else { self.total_steps }
    }

    /// Examples of a batch.
    pub fn batch_size_or(&self, usual: usize) -> usize {
        if self.batch_size > 0 { self.batch_size as usize } else { usual }
    }
}

/// A named model.
pub struct ModelTask {
    /// Model and data, for people.
    pub name: String,
    /// The model.
    pub model: Box<dyn Model>,
}

impl ModelTask {
    /// Reads `[model]` and `[data]` and makes the model.
    ///
    /// # Errors
    /// [`ConfigError`] for a mistake in either section, or data that can't be read.
    pub fn from_config(document: &mut ConfigDocument, setting: &ModelSetting<'_>) -> Result<Self, ConfigError> {
        let spec = model(document)?;
        Ok(Self { name: spec.name.to_owned(), model: (spec.make)(document, setting)? })
    }
}
