//! Gymnasium's `ResizeObservation`: OpenCV's `INTER_AREA`.
//!
//! A picture that shrinks on both axes gets the means of the areas that its pixels cover, in single precision; one that
//! grows on an axis is interpolated between two pixels, with OpenCV's offsets for this mode. OpenCV interpolates in
//! fixed point, so that a grown picture may differ from it by 1.

use super::grayscale::picture;
use super::observation::{Observation, Observe};
use super::{WrapperSpec, required};
use crate::{ActionRef, Env, ObsMut, Space};

/// Shares of the pixels of a line that make up one new pixel.
type Weights = Vec<(usize, f32)>;

struct ResizeObservation {
    rows: Vec<Weights>,
    columns: Vec<Weights>,
    width: usize,
    channels: usize,
    /// Share of each pixel where all have the same, and the weights are ones: their sum is exact then.
    share: f32,
    /// Means of 2 x 2 pixels are rounded half up, everything else half to even.
    halved: bool,
    /// One new line, of one old line and of all.
    line: Vec<f32>,
    sum: Vec<f32>,
}

impl Observe for ResizeObservation {
    fn observe(&mut self, _: &dyn Env, from: ActionRef<'_>, to: ObsMut<'_>) {
        let (ActionRef::U8(from), ObsMut::U8(to)) = (from, to) else { return };
        let (channels, old_stride) = (self.channels, self.width * self.channels);
        for (weights, to) in self.rows.iter().zip(to.chunks_exact_mut(self.columns.len() * channels)) {
            self.sum.fill(0.0);
            for (y, share) in weights {
                let old = &from[y * old_stride..(y + 1) * old_stride];
                self.line.fill(0.0);
                for (weights, new) in self.columns.iter().zip(self.line.chunks_exact_mut(channels)) {
                    for (x, share) in weights {
                        let pixel = &old[x * channels..(x + 1) * channels];
                        new.iter_mut().zip(pixel).for_each(|(new, old)| *new += f32::from(*old) * share);
                    }
                }
                self.sum.iter_mut().zip(&self.line).for_each(|(sum, x)| *sum += x * share);
            }
            for (to, sum) in to.iter_mut().zip(&self.sum) {
                let mean = sum * self.share;
                *to = if self.halved { (mean + 0.5) as u8 } else { mean.round_ties_even() as u8 };
            }
        }
    }
}

/// Of each of `new` pixels, the `old` ones of its block.
fn blocks(old: usize, new: usize) -> Vec<Weights> {
    (0..new).map(|i| (i * old / new..(i + 1) * old / new).map(|x| (x, 1.0)).collect()).collect()
}

/// Of each of `new` pixels, the shares of `old` ones in the stretch that it covers.
fn area(old: usize, new: usize) -> Vec<Weights> {
    const SLIVER: f64 = 1e-3;
    let scale = old as f64 / new as f64;
    let cover = |i: usize| {
        let (start, end) = (i as f64 * scale, i as f64 * scale + scale);
        let width = scale.min(old as f64 - start);
        let last = (end.floor() as usize).min(old - 1);
        let first = (start.ceil() as usize).min(last);
        let mut weights = Weights::new();
        if first as f64 - start > SLIVER {
            weights.push((first - 1, ((first as f64 - start) / width) as f32));
        }
        weights.extend((first..last).map(|x| (x, (1.0 / width) as f32)));
        if end - last as f64 > SLIVER {
            weights.push((last, ((end - last as f64).min(1.0).min(width) / width) as f32));
        }
        weights
    };
    (0..new).map(cover).collect()
}

/// Of each of `new` pixels, the shares of the two `old` ones that it lies between.
fn between(old: usize, new: usize) -> Vec<Weights> {
    let (scale, inverse) = (old as f64 / new as f64, new as f64 / old as f64);
    let share = |i: usize| {
        let x = (i as f64 * scale).floor() as usize;
        let offset = (i + 1) as f64 - (x + 1) as f64 * inverse;
        let offset = if offset <= 0.0 { 0.0 } else { (offset - offset.floor()) as f32 };
        if x + 1 >= old { vec![(old - 1, 1.0)] } else { vec![(x, 1.0 - offset), (x + 1, offset)] }
    };
    (0..new).map(share).collect()
}

pub(super) const SPEC: WrapperSpec = WrapperSpec {
    name: "resize_observation",
    gymnasium: "ResizeObservation",
    summary: "shrinks or enlarges pictures",
    options: &[("shape", "new height and width; must be given")],
    wrap: |env, options, site| {
        let Some(([old_height, old_width], channels)) = picture(env.observation_space()) else {
            let expected = "pictures `[H, W]` or `[H, W, C]` of bytes from 0 to 255";
            return Err(site.needs(expected, env.observation_space()));
        };
        let shape = required(options.one_or_more_u32("shape", 1..=1 << 14)?, options, "shape")?;
        let [height, width] = shape[..] else {
            return Err(options.bad("shape", "a height and a width", format!("{shape:?}")));
        };
        let (height, width) = (height as usize, width as usize);
        let shrinks = height <= old_height && width <= old_width;
        let whole = old_height.is_multiple_of(height) && old_width.is_multiple_of(width);
        let weights = match (shrinks, whole) {
            (true, true) => blocks,
            (true, false) => area,
            (false, _) => between,
        };
        let share = if whole { 1.0 / ((old_height / height) * (old_width / width)) as f32 } else { 1.0 };
        let len = width * channels.unwrap_or(1);
        let change = ResizeObservation {
            rows: weights(old_height, height),
            columns: weights(old_width, width),
            width: old_width,
            channels: channels.unwrap_or(1),
            share,
            halved: (old_height, old_width) == (2 * height, 2 * width),
            line: vec![0.0; len],
            sum: vec![0.0; len],
        };
        let space = Space::image([height, width].into_iter().chain(channels).collect::<Vec<_>>());
        Ok(Observation::boxed(env, space, change))
    },
};
