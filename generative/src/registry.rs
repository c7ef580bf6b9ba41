//! The list of models. A new one is a file with a `SPEC` and one line in [`MODELS`].

use hotfire_core::config::{ConfigDocument, ConfigError};

use crate::model::{Model, ModelSetting};
use crate::{autoencoder, bert, bert_classifier, diffusion, gpt, rnn, vae, vqvae};

/// Every model of this crate.
#[rustfmt::skip]
pub const MODELS: &[ModelSpec] = &[
    autoencoder::SPEC,
    vae::SPEC,
    vqvae::SPEC,
    diffusion::SPEC,
    rnn::SPEC,
    gpt::SPEC,
    bert::SPEC,
    bert_classifier::SPEC,
];

/// What is registered of a model.
#[derive(Clone, Copy, Debug)]
pub struct ModelSpec {
    /// The name in `model.name`.
    pub name: &'static str,
    /// One line for listings.
    pub summary: &'static str,
    /// The paper.
    pub source: &'static str,
    /// Reads the rest of `[model]` and `[data]`, checks them, and makes the model.
    pub make: MakeModel,
}

/// Makes a model from a document whose `[model]` section is next to be read.
pub type MakeModel = fn(&mut ConfigDocument, &ModelSetting<'_>) -> Result<Box<dyn Model>, ConfigError>;

/// Takes `model.name` out of the document and finds it.
///
/// # Errors
/// [`ConfigError`] with the nearest name.
pub fn model(document: &mut ConfigDocument) -> Result<&'static ModelSpec, ConfigError> {
    let name = document.take_tag("model", "name")?;
    MODELS.iter().find(|spec| spec.name == name).ok_or_else(|| {
        let known: Vec<&str> = MODELS.iter().map(|spec| spec.name).collect();
        document.unknown_value("model.name", &name, &known)
    })
}
