//! Generative and sequence models. [`MODELS`] lists them; a new one is a file with a `SPEC` and one line in the list.

pub mod autoencoder;
pub mod bert;
pub mod bert_classifier;
mod codec;
pub mod data;
pub mod diffusion;
pub mod embedder;
pub mod encoder;
mod error;
pub mod gpt;
pub mod huggingface;
mod latent;
mod learner;
pub mod metrics;
mod model;
mod pictures;
mod registry;
pub mod rnn;
mod sampling;
pub mod text;
pub mod vae;
pub mod vqvae;

pub use error::GenerativeError;
pub use model::{Model, ModelSetting, ModelTask, SampleReport, SampleRequest};
pub use registry::{MODELS, MakeModel, ModelSpec, model};
