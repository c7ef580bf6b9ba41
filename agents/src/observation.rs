//! How observations of any space become a network's input.
//!
//! Experience is stored as the environment wrote it (pixels as bytes) and encoded when a network looks at it:
//!
//! | space | input |
//! | --- | --- |
//! | `Box` of floats or integers | the elements |
//! | `Box` of bytes | the elements divided by the upper bound: pixels by 255, flags as they are |
//! | `Box` with three axes, or two of bytes | an image `[C, H, W]`, whichever of `[H, W]`, `[H, W, C]` and `[C, H, W]` it was |
//! | `Box` with four axes | a stack of images `[K, H, W, C]` as one image `[K C, H, W]` |
//! | `Discrete`, `MultiDiscrete` | one-hot |
//! | `MultiBinary` | zeros and ones |
//! | `Tuple`, `Dict` | the parts one after another |

use std::ops::Range;

use hotfire_envs::{Buffer, Dtype, Space, VecEnv};
use hotfire_nn::InputShape;

/// What a policy sees of `N` environments at one time.
#[derive(Clone, Copy, Debug)]
pub struct EnvView<'a> {
    /// Current observations `[N, D]`, as the environments wrote them.
    pub observations: &'a Buffer,
    /// Which actions count, where the environment says so; see [`VecEnv::action_masks`].
    pub action_masks: Option<&'a [bool]>,
    /// Where the last step ended an episode, so that the observation is the first of the next: `[N]` both.
    pub terminated: &'a [bool],
    /// See `terminated`.
    pub truncated: &'a [bool],
}

impl<'a> EnvView<'a> {
    /// The environments as they are now.
    pub fn of(envs: &'a VecEnv) -> Self {
        Self {
            observations: envs.observations(),
            action_masks: envs.action_masks(),
            terminated: envs.terminated(),
            truncated: envs.truncated(),
        }
    }
}

/// Turns rows of an observation buffer into rows of numbers for a network.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservationEncoder {
    parts: Vec<Part>,
    row_len: usize,
    shape: InputShape,
    identity: bool,
}

/// A run of neighbouring elements of a row.
#[derive(Clone, Debug, PartialEq)]
enum Part {
    Scaled { len: usize, scale: f32 },
    OneHot { start: i32, n: usize },
    ChannelsLast { pixels: usize, channels: usize, scale: f32 },
}

impl ObservationEncoder {
    /// The encoder of a space; every space has one.
    pub fn new(space: &Space) -> Self {
        let mut parts = Vec::new();
        push_parts(space, &mut parts);
        let flat = || InputShape::Flat(parts.iter().map(Part::outputs).sum());
        let unscaled = matches!(parts[..], [Part::Scaled { scale: 1.0, .. }]);
        Self {
            row_len: space.len(),
            shape: image_shape(space).map_or_else(flat, InputShape::Image),
            identity: unscaled && space.dtype() == Dtype::F32,
            parts,
        }
    }

    /// Elements of an observation in a buffer.
    pub fn row_len(&self) -> usize {
        self.row_len
    }

    /// Shape of an encoded observation.
    pub fn shape(&self) -> InputShape {
        self.shape
    }

    /// Elements of an encoded observation.
    pub fn outputs(&self) -> usize {
        self.shape.len()
    }

    /// Whether encoding changes nothing: floats without axes to move.
    pub fn is_identity(&self) -> bool {
        self.identity
    }

    /// Neighbouring rows, encoded: borrowed where that changes nothing, else written to `scratch`.
    pub fn input<'a>(&self, observations: &'a Buffer, rows: Range<usize>, scratch: &'a mut Vec<f32>) -> &'a [f32] {
        match observations {
            Buffer::F32(all) if self.identity => &all[rows.start * self.row_len..rows.end * self.row_len],
            _ => {
                scratch.resize(rows.len() * self.outputs(), 0.0);
                self.encode_rows(observations, rows, scratch);
                scratch
            }
        }
    }

    /// Encodes all rows `[N, D]` into `out: [N, outputs]`.
    ///
    /// # Panics
    /// If a length does not fit.
    pub fn encode(&self, observations: &Buffer, out: &mut [f32]) {
        self.encode_rows(observations, 0..out.len() / self.outputs(), out);
    }

    /// Encodes chosen rows of `[N, D]` into `out: [rows, outputs]`, in their order.
    ///
    /// # Panics
    /// If a row is not there, or `out` has another length.
    pub fn encode_rows(&self, observations: &Buffer, rows: impl ExactSizeIterator<Item = usize>, out: &mut [f32]) {
        match observations {
            Buffer::F32(all) if self.identity => {
                assert_eq!(out.len(), rows.len() * self.row_len, "encoding {} rows", rows.len());
                for (row, out) in rows.zip(out.chunks_exact_mut(self.row_len)) {
                    out.copy_from_slice(&all[row * self.row_len..][..self.row_len]);
                }
            }
            Buffer::F32(all) => self.encode_slice(all, rows, out),
            Buffer::U8(all) => self.encode_slice(all, rows, out),
            Buffer::I32(all) => self.encode_slice(all, rows, out),
        }
    }

    fn encode_slice<T: Copy + Into<f64>>(
        &self,
        all: &[T],
        rows: impl ExactSizeIterator<Item = usize>,
        out: &mut [f32],
    ) {
        assert_eq!(out.len(), rows.len() * self.outputs(), "encoding {} rows", rows.len());
        for (row, mut out) in rows.zip(out.chunks_exact_mut(self.outputs())) {
            let mut row = &all[row * self.row_len..(row + 1) * self.row_len];
            for part in &self.parts {
                let (input, output);
                (input, row) = row.split_at(part.inputs());
                (output, out) = out.split_at_mut(part.outputs());
                part.encode(input, output);
            }
        }
    }
}

impl Part {
    fn inputs(&self) -> usize {
        match self {
            Self::Scaled { len, .. } => *len,
            Self::OneHot { .. } => 1,
            Self::ChannelsLast { pixels, channels, .. } => pixels * channels,
        }
    }

    fn outputs(&self) -> usize {
        match self {
            Self::OneHot { n, .. } => *n,
            _ => self.inputs(),
        }
    }

    fn encode<T: Copy + Into<f64>>(&self, input: &[T], out: &mut [f32]) {
        let number = |x: T| -> f32 { Into::<f64>::into(x) as f32 };
        match *self {
            Self::Scaled { scale, .. } => out.iter_mut().zip(input).for_each(|(out, x)| *out = number(*x) * scale),
            Self::OneHot { start, .. } => {
                out.fill(0.0);
                out[(number(input[0]) as i32 - start) as usize] = 1.0;
            }
            Self::ChannelsLast { pixels, channels, scale } => {
                for (c, plane) in out.chunks_exact_mut(pixels).enumerate() {
                    let channel = input[c..].iter().step_by(channels);
                    plane.iter_mut().zip(channel).for_each(|(out, x)| *out = number(*x) * scale);
                }
            }
        }
    }
}

fn push_parts(space: &Space, parts: &mut Vec<Part>) {
    match space {
        Space::Box { high, shape, dtype, .. } => {
            let highest = high.iter().copied().fold(1.0, f32::max);
            let scale = if *dtype == Dtype::U8 { 1.0 / highest } else { 1.0 };
            match shape[..] {
                [height, width, channels] if !channels_first(shape) => {
                    parts.push(Part::ChannelsLast { pixels: height * width, channels, scale });
                }
                [frames, height, width, channels] => {
                    let frame = || Part::ChannelsLast { pixels: height * width, channels, scale };
                    parts.extend((0..frames).map(|_| frame()));
                }
                _ => parts.push(Part::Scaled { len: space.len(), scale }),
            }
        }
        Space::MultiBinary { .. } => parts.push(Part::Scaled { len: space.len(), scale: 1.0 }),
        Space::Discrete { n, start } => parts.push(Part::OneHot { start: *start, n: *n as usize }),
        Space::MultiDiscrete { nvec } => {
            parts.extend(nvec.iter().map(|n| Part::OneHot { start: 0, n: *n as usize }));
        }
        Space::Tuple(spaces) => spaces.iter().for_each(|space| push_parts(space, parts)),
        Space::Dict(spaces) => spaces.iter().for_each(|(_, space)| push_parts(space, parts)),
    }
}

/// `[C, H, W]` of a space of images.
fn image_shape(space: &Space) -> Option<[usize; 3]> {
    match space {
        Space::Box { shape, dtype, .. } => match shape[..] {
            // A stack of vectors is no picture.
            [height, width] if *dtype == Dtype::U8 => Some([1, height, width]),
            [a, b, c] if channels_first(shape) => Some([a, b, c]),
            [a, b, c] => Some([c, a, b]),
            [frames, height, width, channels] => Some([frames * channels, height, width]),
            _ => None,
        },
        _ => None,
    }
}

/// Whether the first of three axes holds the channels: it does if it is the shortest, as in a stack of grey frames.
fn channels_first(shape: &[usize]) -> bool {
    matches!(shape, [a, b, c] if a < b && a < c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(space: &Space, buffer: &Buffer, rows: usize) -> Vec<f32> {
        let encoder = ObservationEncoder::new(space);
        let mut out = vec![f32::NAN; rows * encoder.outputs()];
        encoder.encode(buffer, &mut out);
        out
    }

    #[test]
    fn floats_and_flags_pass_as_they_are() {
        let space = Space::unbounded_box([2]);
        assert!(ObservationEncoder::new(&space).is_identity());
        assert_eq!(encoded(&space, &Buffer::F32(vec![1.0, -2.0, 3.0, 0.5]), 2), [1.0, -2.0, 3.0, 0.5]);
        let flags = Space::boxed(vec![0.0; 3], vec![1.0; 3], vec![3], Dtype::U8);
        assert!(!ObservationEncoder::new(&flags).is_identity());
        assert_eq!(encoded(&flags, &Buffer::U8(vec![0, 1, 1]), 1), [0.0, 1.0, 1.0]);
        assert_eq!(encoded(&Space::multi_binary([2]), &Buffer::U8(vec![1, 0]), 1), [1.0, 0.0]);
    }

    #[test]
    fn integers_become_one_hot() {
        let space = Space::Discrete { n: 3, start: -1 };
        assert_eq!(encoded(&space, &Buffer::I32(vec![-1, 1]), 2), [1.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
        let space = Space::multi_discrete([2, 3]);
        assert_eq!(encoded(&space, &Buffer::I32(vec![1, 0]), 1), [0.0, 1.0, 1.0, 0.0, 0.0]);
        // A mixed tuple lies in a buffer of floats.
        let space = Space::Tuple(vec![Space::discrete(2), Space::unbounded_box([1])]);
        assert_eq!(encoded(&space, &Buffer::F32(vec![1.0, 7.5]), 1), [0.0, 1.0, 7.5]);
    }

    #[test]
    fn images_are_scaled_with_the_channels_first() {
        let space = Space::image([2, 2, 3]);
        assert_eq!(ObservationEncoder::new(&Space::unbounded_box([4, 4])).shape(), InputShape::Flat(16));
        // Deliberately not square enough to tell channels from rows by luck.
        assert_eq!(ObservationEncoder::new(&Space::image([5, 4, 2])).shape(), InputShape::Image([2, 5, 4]));
        assert_eq!(ObservationEncoder::new(&Space::image([4, 84, 84])).shape(), InputShape::Image([4, 84, 84]));
        assert_eq!(ObservationEncoder::new(&Space::image([10, 9])).shape(), InputShape::Image([1, 10, 9]));
        let out = encoded(&space, &Buffer::U8((0..12).map(|i| i * 20).collect()), 1);
        let want = [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11].map(|i| i as f32 * 20.0 / 255.0);
        assert!(out.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-6), "{out:?}");
        // Two frames of two pixels with three channels.
        let stack = Space::image([2, 1, 2, 3]);
        assert_eq!(ObservationEncoder::new(&stack).shape(), InputShape::Image([6, 1, 2]));
        let out = encoded(&stack, &Buffer::U8((0..12).map(|i| i * 20).collect()), 1);
        let want = [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11].map(|i| i as f32 * 20.0 / 255.0);
        assert!(out.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-6), "{out:?}");
    }

    #[test]
    fn rows_are_gathered_in_the_order_asked_for() {
        let encoder = ObservationEncoder::new(&Space::discrete(2));
        let mut out = vec![0.0; 4];
        encoder.encode_rows(&Buffer::I32(vec![0, 1, 0]), [2, 1].into_iter(), &mut out);
        assert_eq!(out, [1.0, 0.0, 0.0, 1.0]);
    }
}
