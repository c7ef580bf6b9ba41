//! Structure-of-arrays stepping: one simulator kind, `N` copies, vectorised over the copies.

mod discrete;
mod lane_rng;
mod lanes;
pub(crate) mod real;

pub(crate) use discrete::{DiscreteDynamics, DiscreteStepper};
pub(crate) use lane_rng::LaneRng;
pub(crate) use lanes::{BatchStepper, Dynamics};

use crate::{ActionRef, Actions, Dtype, EnvError, ObsMut, Space};

/// `N` copies of one simulator whose observations lie in columns of single-precision numbers or integers.
///
/// Where [`crate::VecEnv`] matches Gymnasium's numbers and seeds, this matches its dynamics in single precision and
/// its distribution of start states, at the speed of the vector unit. Ended episodes are reset in the same step; the
/// observation before the reset stays in the final-observation columns. A new batch stands at the start states of seed 0.
pub trait BatchEnv: Send {
    /// Number of copies `N`.
    fn num_envs(&self) -> usize;

    /// Starts all episodes anew; the same seed gives the same episodes.
    fn reset(&mut self, seed: u64);

    /// Advances all copies one step.
    ///
    /// # Errors
    /// [`EnvError::BadBatch`] if `actions` has the wrong type or length, [`EnvError::BadAction`] for one outside a
    /// `Discrete` or not finite; nothing has stepped then. Finite actions outside the bounds of a `Box` are clipped.
    fn step(&mut self, actions: Actions<'_>) -> Result<(), EnvError>;

    /// Length `D` of an observation.
    fn observation_len(&self) -> usize;

    /// Observation column `d` of all copies: `[N]`.
    fn observation_column(&self, d: usize) -> Column<'_>;

    /// Column `d` of the observations before the reset; meaningful where the last step ended an episode: `[N]`.
    fn final_observation_column(&self, d: usize) -> Column<'_>;

    /// Writes the observations as rows: `[N, D]`.
    ///
    /// # Panics
    /// If `rows` has another type or length.
    fn write_observations(&self, rows: ObsMut<'_>) {
        fn scatter<T: Copy>(rows: &mut [T], column: &[T], d: usize, width: usize) {
            rows.chunks_exact_mut(width).zip(column).for_each(|(row, value)| row[d] = *value);
        }
        let (width, mut rows) = (self.observation_len(), rows);
        assert_eq!(rows.len(), self.num_envs() * width, "the rows to write to are [N, D]");
        for d in 0..width {
            match (&mut rows, self.observation_column(d)) {
                (ObsMut::F32(rows), Column::F32(column)) => scatter(rows, column, d, width),
                (ObsMut::I32(rows), Column::I32(column)) => scatter(rows, column, d, width),
                (rows, _) => panic!("rows of {} for other observations", rows.dtype()),
            }
        }
    }

    /// Rewards of the last step: `[N]`.
    fn rewards(&self) -> &[f32];

    /// 1 where the last step reached a terminal state, else 0: `[N]`.
    fn terminated(&self) -> &[u8];

    /// 1 where the last step reached the time limit, else 0; as with [`crate::TimeLimit`] it may also have terminated:
    /// `[N]`.
    fn truncated(&self) -> &[u8];
}

/// The action of one copy.
pub(crate) trait LaneAction: Copy + 'static {
    /// The actions, if they have the right type and are whole ones.
    fn of(actions: Actions<'_>) -> Option<&[Self]>;

    /// Whether all are finite, or one of the `n` choices. Without an early exit, so that it is vectorised.
    fn all_accepted(actions: &[Self], n: i32) -> bool;
}

impl LaneAction for i32 {
    fn of(actions: Actions<'_>) -> Option<&[Self]> {
        if let Actions::I32(actions) = actions { Some(actions) } else { None }
    }

    fn all_accepted(actions: &[Self], n: i32) -> bool {
        actions.iter().fold(true, |all, x| all & ((*x as u32) < n as u32))
    }
}

impl LaneAction for f32 {
    fn of(actions: Actions<'_>) -> Option<&[Self]> {
        if let Actions::F32(actions) = actions { Some(actions) } else { None }
    }

    fn all_accepted(actions: &[Self], _: i32) -> bool {
        actions.iter().fold(true, |all, x| all & x.is_finite())
    }
}

impl<const A: usize> LaneAction for [f32; A] {
    fn of(actions: Actions<'_>) -> Option<&[Self]> {
        f32::of(actions).map(<[f32]>::as_chunks).filter(|(_, rest)| rest.is_empty()).map(|(rows, _)| rows)
    }

    fn all_accepted(actions: &[Self], n: i32) -> bool {
        f32::all_accepted(actions.as_flattened(), n)
    }
}

/// Lets the actions of all copies pass if they are such of the action space.
struct ActionGate {
    env: &'static str,
    space: Space,
    num_envs: usize,
}

impl ActionGate {
    fn pass<'a, A: LaneAction>(&self, actions: Actions<'a>) -> Result<&'a [A], EnvError> {
        let n = if let Space::Discrete { n, .. } = self.space { n } else { 0 };
        match A::of(actions).filter(|all| all.len() == self.num_envs) {
            Some(all) if A::all_accepted(all, n) => Ok(all),
            _ => Err(self.refusal(actions)),
        }
    }

    #[cold]
    fn refusal(&self, actions: Actions<'_>) -> EnvError {
        let (env, width) = (self.env.to_owned(), self.space.len());
        let (dtype, n): (Dtype, _) = (self.space.dtype(), self.num_envs);
        if (actions.dtype(), actions.len()) != (dtype, n * width) {
            return EnvError::BadBatch {
                env,
                expected: format!("{n} actions of {width} {dtype}"),
                found: format!("{} {}", actions.len(), actions.dtype()),
            };
        }
        let row = |i| actions.row(i, width);
        let index = (0..n).find(|i| !self.space.accepts_action(row(*i))).unwrap_or(0);
        let action = match row(index) {
            ActionRef::F32(x) => format!("{x:?}"),
            ActionRef::U8(x) => format!("{x:?}"),
            ActionRef::I32(x) => format!("{x:?}"),
        };
        EnvError::BadAction { env, index, action, space: self.space.to_string() }
    }
}

/// One element of the observations of all copies: `[N]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Column<'a> {
    /// Of observations that are real numbers.
    F32(&'a [f32]),
    /// Of observations that are integers.
    I32(&'a [i32]),
}

impl<'a> Column<'a> {
    /// The elements, if they are 32-bit floats.
    pub fn as_f32(self) -> Option<&'a [f32]> {
        if let Self::F32(x) = self { Some(x) } else { None }
    }

    /// The elements, if they are 32-bit integers.
    pub fn as_i32(self) -> Option<&'a [i32]> {
        if let Self::I32(x) = self { Some(x) } else { None }
    }

    /// The element of copy `i`; all are exact in double precision.
    ///
    /// # Panics
    /// If there are not more than `i` copies.
    pub fn get(self, i: usize) -> f64 {
        match self {
            Self::F32(x) => x[i].into(),
            Self::I32(x) => x[i].into(),
        }
    }
}

/// The vector instructions that a batch stepper uses. All levels give the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Simd {
    /// What every processor of the target has: SSE2 on x86-64, NEON on AArch64.
    Portable,
    /// 256-bit vectors on x86-64.
    Avx2,
    /// 512-bit vectors on x86-64.
    Avx512,
}

impl Simd {
    /// The best level that this processor has.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let has_avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            if has_avx512 {
                return Self::Avx512;
            }
            if is_x86_feature_detected!("avx2") {
                return Self::Avx2;
            }
        }
        Self::Portable
    }
}
