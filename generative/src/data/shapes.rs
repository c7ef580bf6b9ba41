//! White shapes on black whose factors of variation are known: to see what a latent code has disentangled.
//!
//! The factors are those of dSprites (Matthey et al. 2017, <https://github.com/google-deepmind/dsprites-dataset>):
//! shape, scale, orientation and the two coordinates of the centre. They are drawn by chance instead of from a grid,
//! each independent of the others.

use std::f32::consts::TAU;
use std::sync::Arc;

use hotfire_core::config::{ConfigDocument, ConfigError};
use hotfire_core::seed::{StreamRng, stream};
use serde::{Deserialize, Serialize};

use super::{Augment, DataSpec, ImageSets, Images, Load};

/// The registry's entry.
pub(super) const SPEC: DataSpec = DataSpec {
    name: "shapes",
    summary: "squares, ellipses and hearts of any size, angle and place: known factors, for disentanglement",
    source: "after dSprites, Matthey et al. 2017",
    load: Load::Images(load),
};

/// Points a pixel's side at which a shape is sampled; their mean is the pixel's brightness.
const SAMPLES: usize = 3;

/// The kinds of shape.
pub const KINDS: [&str; 3] = ["square", "ellipse", "heart"];

/// What a picture was made from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Factors {
    /// Index into [`KINDS`].
    pub kind: u32,
    /// Size, from 0.5 to 1.
    pub scale: f32,
    /// Angle in radians, from 0 to 2 pi.
    pub angle: f32,
    /// Horizontal place of the centre, from 0 (left) to 1.
    pub x: f32,
    /// Vertical place of the centre, from 0 (top) to 1.
    pub y: f32,
}

impl Factors {
    /// Factors drawn independently and uniformly.
    pub fn draw(rng: &mut StreamRng) -> Self {
        Self {
            kind: rng.below(KINDS.len() as u32),
            scale: 0.5 + 0.5 * rng.uniform(),
            angle: TAU * rng.uniform(),
            x: rng.uniform(),
            y: rng.uniform(),
        }
    }

    /// The picture, `[side, side]` bytes.
    pub fn render(&self, side: usize) -> Vec<u8> {
        // The largest shape stays whole wherever its centre is.
        let (radius, margin) = (0.2 * self.scale, 0.26);
        let place = |t: f32| margin + (1.0 - 2.0 * margin) * t;
        let (centre_x, centre_y) = (place(self.x), place(self.y));
        let (sin, cos) = self.angle.sin_cos();
        let inside = |x: f32, y: f32| {
            let (dx, dy) = ((x - centre_x) / radius, (y - centre_y) / radius);
            let (u, v) = (cos * dx + sin * dy, cos * dy - sin * dx);
            match self.kind {
                0 => u.abs().max(v.abs()) < 0.7,
                1 => u * u + (v / 0.5).powi(2) < 1.0,
                _ => {
                    // The curve (u^2 + v^2 - 1)^3 = u^2 v^3, made to fit the circle of radius 1.
                    let (u, v) = (1.2 * u, -1.2 * v + 0.1);
                    (u * u + v * v - 1.0).powi(3) < u * u * v.powi(3)
                }
            }
        };
        let step = 1.0 / (side * SAMPLES) as f32;
        let pixel = |i: usize| {
            let (px, py) = (i % side * SAMPLES, i / side * SAMPLES);
            let at = |i: usize| (i as f32 + 0.5) * step;
            let hits = (0..SAMPLES * SAMPLES).filter(|s| inside(at(px + s % SAMPLES), at(py + s / SAMPLES))).count();
            (255 * hits / (SAMPLES * SAMPLES)) as u8
        };
        (0..side * side).map(pixel).collect()
    }
}

/// Pictures with their factors; the label is the kind.
pub fn draw(count: usize, side: usize, rng: &mut StreamRng) -> (Images, Vec<Factors>) {
    let factors: Vec<Factors> = (0..count).map(|_| Factors::draw(rng)).collect();
    let images = Images {
        channels: 1,
        height: side,
        width: side,
        pixels: factors.iter().flat_map(|factors| factors.render(side)).collect(),
        labels: Some(factors.iter().map(|factors| factors.kind).collect()),
        classes: KINDS.len(),
    };
    (images, factors)
}

/// The rest of `[data]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Section {
    /// Pixels along each side.
    size: usize,
    /// Number of training pictures.
    train_count: usize,
    /// Number of test pictures.
    test_count: usize,
}

impl Default for Section {
    fn default() -> Self {
        Self { size: 32, train_count: 20_000, test_count: 2_000 }
    }
}

fn load(document: &mut ConfigDocument, seed: u64) -> Result<ImageSets, ConfigError> {
    let section: Section = document.section("data")?;
    for (key, value, range) in [
        ("size", section.size, 8..=256),
        ("train_count", section.train_count, 1..=1_000_000),
        ("test_count", section.test_count, 1..=1_000_000),
    ] {
        if !range.contains(&value) {
            let expected = format!("a number from {} to {}", range.start(), range.end());
            return Err(document.out_of_range(&format!("data.{key}"), expected, value));
        }
    }
    let part = |name: &str, count| Arc::new(draw(count, section.size, &mut stream(seed, name, 0)).0);
    let (train, test) = (part("shapes train", section.train_count), part("shapes test", section.test_count));
    Ok(ImageSets { name: "shapes".into(), train, test, augment: Augment::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Centre of brightness in shares of the side, and total brightness.
    fn moments(factors: Factors, side: usize) -> (f32, f32, f32) {
        let picture = factors.render(side);
        let total: f32 = picture.iter().map(|p| f32::from(*p)).sum();
        let mean = |axis: &dyn Fn(usize) -> usize| {
            let sum: f32 = picture.iter().enumerate().map(|(i, p)| f32::from(*p) * (axis(i) as f32 + 0.5)).sum();
            sum / total / side as f32
        };
        (mean(&|i| i % side), mean(&|i| i / side), total / 255.0)
    }

    #[test]
    fn factors_move_what_they_name() {
        let base = Factors { kind: 1, scale: 1.0, angle: 0.0, x: 0.5, y: 0.5 };
        let (x, y, area) = moments(base, 48);
        assert!((x - 0.5).abs() < 0.01 && (y - 0.5).abs() < 0.01);
        // An ellipse with semi-axes of 0.2 and 0.1 of the side.
        let expected = std::f32::consts::PI * 0.2 * 0.1 * 48.0 * 48.0;
        assert!((area / expected - 1.0).abs() < 0.03, "{area} against {expected}");
        let (left, top, _) = moments(Factors { x: 0.0, y: 0.25, ..base }, 48);
        assert!((left - 0.26).abs() < 0.01 && (top - 0.38).abs() < 0.01, "{left} {top}");
        let (_, _, small) = moments(Factors { scale: 0.5, ..base }, 48);
        assert!((area / small - 4.0).abs() < 0.2);
        assert_ne!(base.render(32), Factors { angle: 1.0, ..base }.render(32));
    }

    #[test]
    fn shapes_stay_whole_and_sets_repeat() {
        let (images, factors) = draw(300, 32, &mut stream(3, "test", 0));
        for i in 0..images.len() {
            let picture = images.image(i);
            let edge = (0..32).flat_map(|k| [k, 31 * 32 + k, 32 * k, 32 * k + 31]);
            assert!(edge.into_iter().all(|at| picture[at] == 0), "{:?} is cut", factors[i]);
            assert!(picture.contains(&255), "{:?} is empty", factors[i]);
        }
        assert_eq!(images, draw(300, 32, &mut stream(3, "test", 0)).0);
    }
}
