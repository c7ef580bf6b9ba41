//! Batches of observations or actions of any element type.

use std::ops::Range;

use crate::{ActionRef, Actions, Dtype, EnvError, ObsMut, Space, StateReader, StateWriter};

/// A contiguous batch `[N, D]` of observations.
#[derive(Clone, Debug, PartialEq)]
pub enum Buffer {
    /// 32-bit floats.
    F32(Vec<f32>),
    /// Bytes.
    U8(Vec<u8>),
    /// 32-bit integers.
    I32(Vec<i32>),
}

impl Buffer {
    /// Zeros for `rows` values of a space.
    pub fn new(space: &Space, rows: usize) -> Self {
        match space.dtype() {
            Dtype::F32 => Self::F32(vec![0.0; rows * space.len()]),
            Dtype::U8 => Self::U8(vec![0; rows * space.len()]),
            Dtype::I32 => Self::I32(vec![0; rows * space.len()]),
        }
    }

    /// The elements, if they are 32-bit floats.
    pub fn as_f32(&self) -> Option<&[f32]> {
        if let Self::F32(x) = self { Some(x) } else { None }
    }

    /// The elements, if they are bytes.
    pub fn as_u8(&self) -> Option<&[u8]> {
        if let Self::U8(x) = self { Some(x) } else { None }
    }

    /// The elements, if they are 32-bit integers.
    pub fn as_i32(&self) -> Option<&[i32]> {
        if let Self::I32(x) = self { Some(x) } else { None }
    }

    /// All elements, to read.
    pub fn as_row(&self) -> ActionRef<'_> {
        match self {
            Self::F32(x) => ActionRef::F32(x),
            Self::U8(x) => ActionRef::U8(x),
            Self::I32(x) => ActionRef::I32(x),
        }
    }

    /// All elements, as the actions of a batch.
    pub fn as_actions(&self) -> Actions<'_> {
        match self {
            Self::F32(x) => Actions::F32(x),
            Self::U8(x) => Actions::U8(x),
            Self::I32(x) => Actions::I32(x),
        }
    }

    /// All elements, to write.
    #[inline]
    pub fn as_mut(&mut self) -> ObsMut<'_> {
        match self {
            Self::F32(x) => ObsMut::F32(x),
            Self::U8(x) => ObsMut::U8(x),
            Self::I32(x) => ObsMut::I32(x),
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.as_row().len()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Cuts the buffer to `len` elements, or fills it up with zeros.
    pub fn resize(&mut self, len: usize) {
        match self {
            Self::F32(x) => x.resize(len, 0.0),
            Self::U8(x) => x.resize(len, 0),
            Self::I32(x) => x.resize(len, 0),
        }
    }

    /// Copies the elements `from[range]` to the elements from `at` on.
    ///
    /// # Panics
    /// If the buffers hold different types, or elements outside them are asked for.
    pub fn copy_from(&mut self, at: usize, from: &Self, range: Range<usize>) {
        match (self, from) {
            (Self::F32(to), Self::F32(from)) => to[at..at + range.len()].copy_from_slice(&from[range]),
            (Self::U8(to), Self::U8(from)) => to[at..at + range.len()].copy_from_slice(&from[range]),
            (Self::I32(to), Self::I32(from)) => to[at..at + range.len()].copy_from_slice(&from[range]),
            (to, from) => panic!("copying {} to {}", from.as_row().dtype(), to.as_row().dtype()),
        }
    }

    pub(crate) fn save_state(&self, to: &mut StateWriter) {
        match self {
            Self::F32(x) => x.iter().for_each(|x| to.f32(*x)),
            Self::U8(x) => x.iter().for_each(|x| to.u8(*x)),
            Self::I32(x) => x.iter().for_each(|x| to.i32(*x)),
        }
    }

    pub(crate) fn load_state(&mut self, from: &mut StateReader<'_>) -> Result<(), EnvError> {
        match self {
            Self::F32(x) => x.iter_mut().try_for_each(|x| from.f32().map(|y| *x = y)),
            Self::U8(x) => x.iter_mut().try_for_each(|x| from.u8().map(|y| *x = y)),
            Self::I32(x) => x.iter_mut().try_for_each(|x| from.i32().map(|y| *x = y)),
        }
    }
}
