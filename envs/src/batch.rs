//! Structure-of-arrays stepping: one simulator kind, `N` copies, vectorised over the copies.

mod discrete;
mod lane_rng;
mod lanes;
pub(crate) mod real;

pub(crate) use discrete::{DiscreteDynamics, DiscreteStepper};
pub(crate) use lane_rng::LaneRng;
pub(crate) use lanes::{BatchStepper, Dynamics};

use crate::{Actions, EnvError, ObsMut};

/// `N` copies of one simulator whose observations lie in columns of single-precision numbers or integers.
///
/// Where [`crate::VecEnv`] matches Gymnasium's numbers and seeds, this matches its dynamics in single precision and
/// its distribution of start states, at the speed of the vector unit. Ended episodes are reset in the same step; the
/// observation before the reset stays in the final-observation columns.
pub trait BatchEnv: Send {
    /// Number of copies `N`.
    fn num_envs(&self) -> usize;

    /// Starts all episodes anew; the same seed gives the same episodes.
    fn reset(&mut self, seed: u64);

    /// Advances all copies one step.
    ///
    /// # Errors
    /// [`EnvError::BadBatch`] if `actions` has the wrong type or length. Values are clamped into the action space:
    /// checking them would cost more than the step.
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

/// The element type of a batch of actions.
pub(crate) trait LaneAction: Copy + 'static {
    /// Name in messages.
    const NAME: &'static str;

    /// The actions, if they have this type.
    fn of(actions: Actions<'_>) -> Option<&[Self]>;
}

impl LaneAction for i32 {
    const NAME: &'static str = "i32";

    fn of(actions: Actions<'_>) -> Option<&[Self]> {
        if let Actions::I32(actions) = actions { Some(actions) } else { None }
    }
}

impl LaneAction for f32 {
    const NAME: &'static str = "f32";

    fn of(actions: Actions<'_>) -> Option<&[Self]> {
        if let Actions::F32(actions) = actions { Some(actions) } else { None }
    }
}

/// The actions of `num_envs` copies of `env`, if they have the right type and number.
fn actions_of<'a, A: LaneAction>(env: &str, actions: Actions<'a>, num_envs: usize) -> Result<&'a [A], EnvError> {
    match A::of(actions) {
        Some(actions) if actions.len() == num_envs => Ok(actions),
        _ => {
            let kind = match actions {
                Actions::F32(_) => f32::NAME,
                Actions::U8(_) => "u8",
                Actions::I32(_) => i32::NAME,
            };
            Err(EnvError::BadBatch {
                env: env.to_owned(),
                expected: format!("{num_envs} {} actions", A::NAME),
                found: format!("{} {kind} actions", actions.len()),
            })
        }
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
