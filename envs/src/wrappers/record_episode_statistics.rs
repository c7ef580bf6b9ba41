//! Gymnasium's `RecordEpisodeStatistics`. The wall-clock time of an episode is not kept: a state would not repeat.

use super::{WrapperSpec, forward};
use crate::{ActionRef, Env, EnvError, NpRng, ObsMut, StateReader, StateWriter, StepOutcome};

/// Counts return and length of episodes where it is put, whatever counts below it or lies above it. A wrapper that
/// changes rewards above it leaves its count alone.
struct RecordEpisodeStatistics {
    env: Box<dyn Env>,
    episode_return: f64,
    length: u32,
}

impl Env for RecordEpisodeStatistics {
    forward!(observation_space action_space action_mask render foreign);

    fn episode_statistics(&self) -> Option<(f64, u32)> {
        Some((self.episode_return, self.length))
    }

    fn reset(&mut self, rng: &mut NpRng, obs: ObsMut<'_>) {
        (self.episode_return, self.length) = (0.0, 0);
        self.env.reset(rng, obs);
    }

    fn step(&mut self, action: ActionRef<'_>, rng: &mut NpRng, obs: ObsMut<'_>) -> StepOutcome {
        let outcome = self.env.step(action, rng, obs);
        self.episode_return += outcome.reward;
        self.length = self.length.saturating_add(1);
        outcome
    }

    fn save_state(&self, to: &mut StateWriter) {
        self.env.save_state(to);
        to.f64(self.episode_return);
        to.u32(self.length);
    }

    fn load_state(&mut self, from: &mut StateReader<'_>) -> Result<(), EnvError> {
        self.env.load_state(from)?;
        self.episode_return = from.f64()?;
        self.length = from.u32()?;
        Ok(())
    }
}

pub(super) const SPEC: WrapperSpec = WrapperSpec {
    name: "record_episode_statistics",
    gymnasium: "RecordEpisodeStatistics",
    summary: "reports the returns and lengths of episodes as they are where it is put",
    options: &[],
    wrap: |env, _, _| Ok(Box::new(RecordEpisodeStatistics { env, episode_return: 0.0, length: 0 })),
};
