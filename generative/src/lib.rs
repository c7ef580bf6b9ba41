//! Generative and sequence models. [`MODELS`] lists them; a new one is a file with a `SPEC` and one line in the list.

/// Every model of this crate.
pub const MODELS: &[ModelSpec] = &[];

/// What is registered of a model.
#[derive(Clone, Copy, Debug)]
pub struct ModelSpec {
    /// The name in `model.name`.
    pub name: &'static str,
    /// One line for listings.
    pub summary: &'static str,
    /// The paper.
    pub source: &'static str,
}
