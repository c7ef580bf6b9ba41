//! Structure-of-arrays stepping: one simulator kind, `N` copies, vectorised over the copies.

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
    fn write_observations(&self, rows: &mut [f32]);

    /// Rewards of the last step: `[N]`.
    fn rewards(&self) -> &[f32];

    /// 1 where the last step reached a terminal state, else 0: `[N]`.
    fn terminated(&self) -> &[u8];

    /// 1 where the last step hit the time limit without terminating, else 0: `[N]`.
    fn truncated(&self) -> &[u8];
}
