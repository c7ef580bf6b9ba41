//! Structure-of-arrays stepping: one simulator kind, `N` copies, vectorised over the copies.

mod lanes;
pub(crate) mod real;

pub(crate) use lanes::{BatchStepper, Dynamics};

use crate::{Actions, EnvError};

/// `N` copies of one simulator whose state lies in single-precision columns.
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
    fn observation_column(&self, d: usize) -> &[f32];

    /// Column `d` of the observations before the reset; meaningful where the last step ended an episode: `[N]`.
    fn final_observation_column(&self, d: usize) -> &[f32];

    /// Writes the observations as rows: `[N, D]`.
    ///
    /// # Panics
    /// If `rows` has another length.
    fn write_observations(&self, rows: &mut [f32]) {
        let width = self.observation_len();
        assert_eq!(rows.len(), self.num_envs() * width, "the rows to write to are [N, D]");
        for d in 0..width {
            for (row, &value) in rows.chunks_exact_mut(width).zip(self.observation_column(d)) {
                row[d] = value;
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
