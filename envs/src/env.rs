//! The environment trait and the borrowed views that pass through it.

use std::ops::Range;

use crate::{Dtype, EnvError, Frame, NpRng, Space, StateReader, StateWriter};

/// One simulator, with Gymnasium's semantics.
///
/// `step` and `reset` write the observation into the caller's buffer and allocate nothing. Every random draw comes
/// from the `rng` that is passed in, so a seeded generator reproduces an episode exactly.
pub trait Env: Send {
    /// The space that observations lie in.
    fn observation_space(&self) -> &Space;

    /// The space that actions must lie in.
    fn action_space(&self) -> &Space;

    /// Starts a new episode and writes its first observation.
    fn reset(&mut self, rng: &mut NpRng, obs: ObsMut<'_>);

    /// Advances one step with an action of [`Env::action_space`] and writes the observation that follows.
    ///
    /// Callers with untrusted actions go through [`crate::VecEnv`], which checks them.
    fn step(&mut self, action: ActionRef<'_>, rng: &mut NpRng, obs: ObsMut<'_>) -> StepOutcome;

    /// Writes all that [`Env::load_state`] needs to go on bit for bit from here.
    fn save_state(&self, to: &mut StateWriter);

    /// Restores what [`Env::save_state`] wrote.
    ///
    /// # Errors
    /// [`EnvError::State`] if the bytes are not a state of this environment.
    fn load_state(&mut self, from: &mut StateReader<'_>) -> Result<(), EnvError>;

    /// Writes which actions do something in the current state, and returns true; an environment without masks leaves
    /// `mask` as it is and returns false, in every state.
    ///
    /// `mask` has one element for each element of a flattened action ([`Space::flat_len`]): `n` for a `Discrete(n)`.
    /// Actions that are masked out are allowed all the same.
    fn action_mask(&self, _mask: &mut [bool]) -> bool {
        false
    }

    /// A picture of the current state; `None` where the environment has none.
    fn render(&self) -> Option<Frame> {
        None
    }

    /// Return and number of steps of the episode so far where a wrapper counts them on its own; `None` where they are the
    /// sum and number of what [`Env::step`] returned. Wrappers pass it on.
    fn episode_statistics(&self) -> Option<(f64, u32)> {
        None
    }

    /// The environment as one that runs outside of this program; `None` for simulators in Rust. Wrappers pass it on.
    fn foreign(&mut self) -> Option<&mut dyn Foreign> {
        None
    }
}

/// An environment that runs outside of this program, for example in Python: it keeps its own generator, it can fail, and
/// copies of it gain nothing from several threads.
pub trait Foreign {
    /// Seeds the environment's own generator at the next reset.
    fn seed(&mut self, seed: u128);

    /// What went wrong in the last reset or step, if anything did. The observation is stale then.
    fn take_error(&mut self) -> Option<EnvError>;
}

/// What a step returned besides its observation. The two ends of an episode are never merged: `terminated` is an end
/// of the task itself (no future reward), `truncated` a limit from outside (the value of the last observation counts).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepOutcome {
    /// Reward of this step, as the reference computes it in double precision.
    pub reward: f64,
    /// The state that was reached is terminal.
    pub terminated: bool,
    /// The episode was cut off from outside, for example by a time limit.
    pub truncated: bool,
}

/// A borrowed observation row to write to; the variant is [`Space::dtype`] of the observation space.
#[derive(Debug)]
pub enum ObsMut<'a> {
    /// 32-bit floats: `Box` spaces of real numbers.
    F32(&'a mut [f32]),
    /// Bytes: pixels and `MultiBinary`.
    U8(&'a mut [u8]),
    /// Integers: `Discrete`, `MultiDiscrete`.
    I32(&'a mut [i32]),
}

/// A borrowed action of one environment; the variant is [`Space::dtype`] of the action space.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ActionRef<'a> {
    /// 32-bit floats: `Box` spaces.
    F32(&'a [f32]),
    /// Bytes: `MultiBinary`.
    U8(&'a [u8]),
    /// Integers: `Discrete` (one element), `MultiDiscrete`.
    I32(&'a [i32]),
}

/// Borrowed actions of `N` environments, row after row: `[N, A]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Actions<'a> {
    /// 32-bit floats: `Box` spaces.
    F32(&'a [f32]),
    /// Bytes: `MultiBinary`.
    U8(&'a [u8]),
    /// Integers: `Discrete`, `MultiDiscrete`.
    I32(&'a [i32]),
}

macro_rules! views {
    ($($view:ident),*) => {$(
        impl $view<'_> {
            /// The element type.
            pub fn dtype(&self) -> Dtype {
                match self {
                    Self::F32(_) => Dtype::F32,
                    Self::U8(_) => Dtype::U8,
                    Self::I32(_) => Dtype::I32,
                }
            }

            /// The number of elements.
            pub fn len(&self) -> usize {
                match self {
                    Self::F32(x) => x.len(),
                    Self::U8(x) => x.len(),
                    Self::I32(x) => x.len(),
                }
            }

            /// Whether there are no elements.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }
        }
    )*};
}
views!(ObsMut, ActionRef, Actions);

impl<'a> ObsMut<'a> {
    /// Elements in `range`, borrowed for shorter.
    #[inline]
    pub(crate) fn slice(&mut self, range: Range<usize>) -> ObsMut<'_> {
        match self {
            Self::F32(x) => ObsMut::F32(&mut x[range]),
            Self::U8(x) => ObsMut::U8(&mut x[range]),
            Self::I32(x) => ObsMut::I32(&mut x[range]),
        }
    }

    /// Writes the elements of `from` to the elements from `at` on, converted to this row's element type.
    pub(crate) fn copy_from(&mut self, at: usize, from: ActionRef<'_>) {
        let range = at..at + from.len();
        match (self, from) {
            (Self::F32(to), ActionRef::F32(from)) => to[range].copy_from_slice(from),
            (Self::U8(to), ActionRef::U8(from)) => to[range].copy_from_slice(from),
            (Self::I32(to), ActionRef::I32(from)) => to[range].copy_from_slice(from),
            (to, from) => range.enumerate().for_each(|(i, at)| to.put(at, from.get(i))),
        }
    }

    /// The elements before `at` and the rest.
    pub(crate) fn split_at(self, at: usize) -> (Self, Self) {
        macro_rules! split {
            ($x:ident, $variant:ident) => {{
                let (a, b) = $x.split_at_mut(at);
                (ObsMut::$variant(a), ObsMut::$variant(b))
            }};
        }
        match self {
            Self::F32(x) => split!(x, F32),
            Self::U8(x) => split!(x, U8),
            Self::I32(x) => split!(x, I32),
        }
    }

    /// Sets element `i` to `x`, rounded to the element type.
    pub(crate) fn put(&mut self, i: usize, x: f64) {
        match self {
            Self::F32(row) => row[i] = x as f32,
            Self::U8(row) => row[i] = x as u8,
            Self::I32(row) => row[i] = x as i32,
        }
    }
}

impl<'a> ActionRef<'a> {
    /// Elements in `range`.
    pub(crate) fn slice(&self, range: Range<usize>) -> Self {
        match self {
            Self::F32(x) => Self::F32(&x[range]),
            Self::U8(x) => Self::U8(&x[range]),
            Self::I32(x) => Self::I32(&x[range]),
        }
    }

    /// Element `i`.
    pub(crate) fn get(&self, i: usize) -> f64 {
        match self {
            Self::F32(row) => row[i].into(),
            Self::U8(row) => row[i].into(),
            Self::I32(row) => row[i].into(),
        }
    }
}

impl<'a> Actions<'a> {
    /// Row `i` of rows of `len` elements.
    #[inline]
    pub(crate) fn row(&self, i: usize, len: usize) -> ActionRef<'a> {
        match self {
            Self::F32(x) => ActionRef::F32(&x[i * len..(i + 1) * len]),
            Self::U8(x) => ActionRef::U8(&x[i * len..(i + 1) * len]),
            Self::I32(x) => ActionRef::I32(&x[i * len..(i + 1) * len]),
        }
    }

    /// The first row of `len` elements and the rest.
    #[inline]
    pub(crate) fn split_first(&self, len: usize) -> (ActionRef<'a>, Self) {
        match self {
            Self::F32(x) => (ActionRef::F32(&x[..len]), Self::F32(&x[len..])),
            Self::U8(x) => (ActionRef::U8(&x[..len]), Self::U8(&x[len..])),
            Self::I32(x) => (ActionRef::I32(&x[..len]), Self::I32(&x[len..])),
        }
    }

    /// The rows before row `at` and the rest, of rows of `len` elements.
    pub(crate) fn split_rows(self, at: usize, len: usize) -> (Self, Self) {
        macro_rules! split {
            ($x:ident, $variant:ident) => {{
                let (a, b) = $x.split_at(at * len);
                (Actions::$variant(a), Actions::$variant(b))
            }};
        }
        match self {
            Self::F32(x) => split!(x, F32),
            Self::U8(x) => split!(x, U8),
            Self::I32(x) => split!(x, I32),
        }
    }
}
