//! What the wrappers that change observations share.

use super::forward;
use crate::{ActionRef, Buffer, Env, EnvError, NpRng, ObsMut, Space, StateReader, StateWriter, StepOutcome};

/// A change of observations, with what it remembers of an episode.
pub(super) trait Observe: Send {
    /// An episode starts: the next observation is its first.
    fn start(&mut self) {}

    /// Writes what the agent sees of the observation `from`, which `env` has just given.
    fn observe(&mut self, env: &dyn Env, from: ActionRef<'_>, to: ObsMut<'_>);

    /// Writes what [`Observe::load`] needs.
    fn save(&self, _to: &mut StateWriter) {}

    /// Restores what [`Observe::save`] wrote.
    fn load(&mut self, _from: &mut StateReader<'_>) -> Result<(), EnvError> {
        Ok(())
    }
}

/// An environment whose observations are changed.
pub(super) struct Observation<T> {
    env: Box<dyn Env>,
    space: Space,
    row: Buffer,
    change: T,
}

impl<T: Observe + 'static> Observation<T> {
    /// `env` with observations in `space`.
    pub(super) fn boxed(env: Box<dyn Env>, space: Space, change: T) -> Box<dyn Env> {
        let row = Buffer::new(env.observation_space(), 1);
        Box::new(Self { env, space, row, change })
    }
}

impl<T: Observe> Env for Observation<T> {
    forward!(action_space action_mask render episode_statistics foreign);

    fn observation_space(&self) -> &Space {
        &self.space
    }

    fn reset(&mut self, rng: &mut NpRng, obs: ObsMut<'_>) {
        self.env.reset(rng, self.row.as_mut());
        self.change.start();
        self.change.observe(self.env.as_ref(), self.row.as_row(), obs);
    }

    fn step(&mut self, action: ActionRef<'_>, rng: &mut NpRng, obs: ObsMut<'_>) -> StepOutcome {
        let outcome = self.env.step(action, rng, self.row.as_mut());
        self.change.observe(self.env.as_ref(), self.row.as_row(), obs);
        outcome
    }

    fn save_state(&self, to: &mut StateWriter) {
        self.env.save_state(to);
        self.change.save(to);
    }

    fn load_state(&mut self, from: &mut StateReader<'_>) -> Result<(), EnvError> {
        self.env.load_state(from)?;
        self.change.load(from)
    }
}
