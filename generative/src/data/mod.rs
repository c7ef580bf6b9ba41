//! Data sets: pictures with or without labels, and points of the plane.
//!
//! [`DATA`] lists them; `[data] name` picks one and the rest of the section belongs to it. [`Batches`] puts training
//! batches together on a thread of its own.

mod batches;
mod digits;
pub mod fetch;
mod folder;
mod frames;
mod idx;
mod images;
mod mnist;
pub mod shapes;
pub mod toys;

use std::sync::Arc;

use hotfire_core::config::{ConfigDocument, ConfigError};
use hotfire_core::seed::StreamRng;

pub use batches::{Augment, Batch, Batches, Prepare};
pub use frames::frame_images;
pub use images::Images;
pub use mnist::idx_test_set;

use crate::GenerativeError;

/// Every data set of pictures or points.
#[rustfmt::skip]
pub const DATA: &[DataSpec] = &[
    mnist::MNIST,
    mnist::FASHION_MNIST,
    mnist::IDX,
    digits::SPEC,
    folder::SPEC,
    shapes::SPEC,
    frames::SPEC,
    toys::MOONS,
    toys::SWISS_ROLL,
    toys::EIGHT_GAUSSIANS,
];

/// What is registered of a data set.
#[derive(Clone, Copy, Debug)]
pub struct DataSpec {
    /// The name in `data.name`.
    pub name: &'static str,
    /// One line for listings.
    pub summary: &'static str,
    /// Where it comes from.
    pub source: &'static str,
    /// How to get it.
    pub load: Load,
}

/// How to get a data set.
#[derive(Clone, Copy, Debug)]
pub enum Load {
    /// Pictures: reads the rest of `[data]`; procedural sets are drawn from the seed.
    Images(fn(&mut ConfigDocument, u64) -> Result<ImageSets, ConfigError>),
    /// Points of the plane: draws one.
    Points(fn(&mut StreamRng) -> [f32; 2]),
}

/// Pictures to train on and pictures to measure on, of one size.
#[derive(Clone, Debug)]
pub struct ImageSets {
    /// The set's name.
    pub name: String,
    /// Training pictures.
    pub train: Arc<Images>,
    /// Held-out pictures.
    pub test: Arc<Images>,
    /// How training pictures are changed by chance.
    pub augment: Augment,
}

/// A distribution of points of the plane.
#[derive(Clone, Copy, Debug)]
pub struct Points {
    /// The set's name.
    pub name: &'static str,
    /// Draws a point.
    pub draw: fn(&mut StreamRng) -> [f32; 2],
}

/// A data set that was read.
#[derive(Clone, Debug)]
pub enum Data {
    /// Pictures.
    Images(ImageSets),
    /// Points of the plane.
    Points(Points),
}

/// Reads `[data]` and the set that its `name` names.
///
/// # Errors
/// [`ConfigError`] for a name that is not known, or data that can't be used: its message names file and offset.
pub fn load(document: &mut ConfigDocument, seed: u64) -> Result<Data, ConfigError> {
    let name = document.take_tag("data", "name")?;
    let Some(spec) = DATA.iter().find(|spec| spec.name == name) else {
        let known: Vec<&str> = DATA.iter().map(|spec| spec.name).collect();
        return Err(document.unknown_value("data.name", &name, &known));
    };
    match spec.load {
        Load::Images(read) => Ok(Data::Images(read(document, seed)?)),
        Load::Points(draw) => {
            document.section::<NoKeys>("data")?;
            Ok(Data::Points(Points { name: spec.name, draw }))
        }
    }
}

/// Reads `[data]` for a model that needs pictures.
///
/// # Errors
/// As [`load`], and for points.
pub fn load_images(document: &mut ConfigDocument, seed: u64) -> Result<ImageSets, ConfigError> {
    match load(document, seed)? {
        Data::Images(sets) => Ok(sets),
        Data::Points(points) => Err(document.out_of_range(
            "data.name",
            "a set of pictures",
            format!("{}, points of the plane", points.name),
        )),
    }
}

/// A section that has no keys left.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct NoKeys {}

/// The error of `[data]` for data that can't be used.
fn unusable(document: &ConfigDocument, key: &str, error: GenerativeError) -> ConfigError {
    document.invalid(key, error)
}

/// Training and held-out pictures must have one size.
fn same_size(document: &ConfigDocument, train: &Images, test: &Images) -> Result<(), ConfigError> {
    if train.shape() == test.shape() {
        return Ok(());
    }
    let problem = format!(
        "training pictures are {:?} (channels, height, width), test pictures {:?}",
        train.shape(),
        test.shape()
    );
    Err(document.invalid("data", problem))
}
