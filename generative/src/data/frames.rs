//! Pictures of a simulator: frames that any registered environment renders under a random policy.
//!
//! Frames of a trained agent come from `hotfire data frames RUN`, which writes a folder for the set `folder`.

use std::sync::Arc;

use hotfire_core::config::{ConfigDocument, ConfigError};
use hotfire_core::seed::stream;
use hotfire_envs::{Actions, AutoresetMode, Buffer, Frame, NpRng, VecEnv};
use image::imageops::{FilterType, resize};
use image::{ImageBuffer, Rgb};
use serde::{Deserialize, Serialize};

use super::folder::planes;
use super::{Augment, DataSpec, ImageSets, Images, Load, unusable};
use crate::GenerativeError;

/// The registry's entry.
pub(super) const SPEC: DataSpec = DataSpec {
    name: "frames",
    summary: "pictures of any environment with a renderer, under a random policy",
    source: "the simulators of this suite",
    load: Load::Images(load),
};

/// The rest of `[data]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Section {
    /// The environment's id.
    env: String,
    /// Height and width to which frames are scaled.
    size: [usize; 2],
    /// Whether frames are turned to grey.
    grey: bool,
    /// Environment steps between two frames.
    every: usize,
    /// Number of training pictures.
    train_count: usize,
    /// Number of test pictures, of other episodes.
    test_count: usize,
}

impl Default for Section {
    fn default() -> Self {
        Self { env: String::new(), size: [32, 32], grey: false, every: 4, train_count: 5_000, test_count: 500 }
    }
}

fn load(document: &mut ConfigDocument, seed: u64) -> Result<ImageSets, ConfigError> {
    let section: Section = document.section("data")?;
    for (key, ok) in [
        ("size", section.size.iter().all(|side| (1..=1024).contains(side))),
        ("every", section.every > 0),
        ("train_count", section.train_count > 0),
        ("test_count", section.test_count > 0),
    ] {
        if !ok {
            return Err(document.invalid(&format!("data.{key}"), "expected a number above 0 (and a size up to 1024)"));
        }
    }
    let part = |name: &str, count: usize| {
        let Section { env, size, grey, every, .. } = &section;
        random_frames(env, count, *every, stream(seed, name, 0).next_u64() >> 1)
            .and_then(|frames| frame_images(&frames, *size, *grey))
            .map_err(|error| unusable(document, "data.env", error))
    };
    Ok(ImageSets {
        name: format!("{} frames", section.env),
        train: Arc::new(part("frames train", section.train_count)?),
        test: Arc::new(part("frames test", section.test_count)?),
        augment: Augment::default(),
    })
}

/// `count` frames of one environment, every `every` steps of a uniformly random policy.
fn random_frames(id: &str, count: usize, every: usize, seed: u64) -> Result<Vec<Frame>, GenerativeError> {
    let failed = |error: hotfire_envs::EnvError| GenerativeError::Unavailable(error.to_string());
    let mut envs = VecEnv::make(id, 1, AutoresetMode::SameStep).map_err(failed)?;
    let space = envs.action_space().clone();
    let mut rng = NpRng::seed(seed);
    let mut action = Buffer::new(&space, 1);
    envs.reset(seed);
    let mut frames = Vec::with_capacity(count);
    loop {
        let Some(frame) = envs.env(0).render() else {
            return Err(GenerativeError::Unavailable(format!("{id} has no pictures")));
        };
        frames.push(frame);
        if frames.len() == count {
            return Ok(frames);
        }
        for _ in 0..every {
            space.sample_into(&mut rng, action.as_mut()).map_err(failed)?;
            let actions = match &action {
                Buffer::F32(values) => Actions::F32(values),
                Buffer::I32(values) => Actions::I32(values),
                Buffer::U8(_) => return Err(GenerativeError::Unavailable(format!("{id} takes bytes as actions"))),
            };
            envs.step(actions).map_err(failed)?;
        }
    }
}

/// Frames scaled to `[height, width]`.
///
/// # Errors
/// If a frame's bytes don't fit its size.
pub fn frame_images(frames: &[Frame], [height, width]: [usize; 2], grey: bool) -> Result<Images, GenerativeError> {
    let channels = if grey { 1 } else { 3 };
    let mut pixels = Vec::with_capacity(frames.len() * channels * height * width);
    for frame in frames {
        let picture = ImageBuffer::<Rgb<u8>, _>::from_raw(frame.width, frame.height, frame.rgb.clone());
        let picture = picture.ok_or_else(|| GenerativeError::Unavailable("a frame has the wrong size".into()))?;
        let scaled = resize(&picture, width as u32, height as u32, FilterType::Triangle);
        if grey {
            pixels.extend(image::DynamicImage::ImageRgb8(scaled).to_luma8().into_raw());
        } else {
            pixels.extend(planes(scaled.as_raw()));
        }
    }
    Ok(Images { channels, height, width, pixels, labels: None, classes: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data;

    #[test]
    fn frames_of_an_environment_become_pictures() {
        let text =
            "[data]\nname = \"frames\"\nenv = \"CartPole-v1\"\nsize = [24, 36]\ntrain_count = 20\ntest_count = 5";
        let load = |text: &str| {
            let mut document = ConfigDocument::parse("a.toml", text, &[]).unwrap();
            data::load_images(&mut document, 1).map_err(|error| error.to_string())
        };
        let sets = load(text).unwrap();
        assert_eq!((sets.train.len(), sets.train.shape(), sets.test.len()), (20, [3, 24, 36], 5));
        assert_ne!(sets.train.image(0), sets.train.image(10), "the scene moves");
        assert_eq!(sets.train, load(text).unwrap().train);
        let message = load(&text.replace("CartPole", "CartPol")).unwrap_err();
        assert!(message.contains("data.env") && message.contains("CartPole-v1"), "{message}");
    }
}
