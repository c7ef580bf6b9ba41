//! What the wrappers that change actions share.

use super::forward;
use crate::{ActionRef, Buffer, Env, EnvError, NpRng, ObsMut, Space, StateReader, StateWriter, StepOutcome};

/// A change of actions, with what it remembers of an episode.
pub(super) trait Act: Send {
    /// Whether actions keep their meaning one by one, so that the environment's action mask holds for them.
    const KEEPS_MASK: bool;

    /// An episode starts.
    fn start(&mut self) {}

    /// Writes what the environment is given for the agent's action `from`.
    fn act(&mut self, from: ActionRef<'_>, rng: &mut NpRng, to: ObsMut<'_>);

    /// Writes what [`Act::load`] needs.
    fn save(&self, _to: &mut StateWriter) {}

    /// Restores what [`Act::save`] wrote.
    fn load(&mut self, _from: &mut StateReader<'_>) -> Result<(), EnvError> {
        Ok(())
    }
}

/// An environment whose actions are changed.
pub(super) struct Action<T> {
    env: Box<dyn Env>,
    space: Space,
    row: Buffer,
    change: T,
}

impl<T: Act + 'static> Action<T> {
    /// `env` with actions in `space`.
    pub(super) fn boxed(env: Box<dyn Env>, space: Space, change: T) -> Box<dyn Env> {
        let row = Buffer::new(env.action_space(), 1);
        Box::new(Self { env, space, row, change })
    }
}

impl<T: Act> Env for Action<T> {
    forward!(observation_space render episode_statistics foreign);

    fn action_space(&self) -> &Space {
        &self.space
    }

    fn action_mask(&self, mask: &mut [bool]) -> bool {
        T::KEEPS_MASK && self.env.action_mask(mask)
    }

    fn reset(&mut self, rng: &mut NpRng, obs: ObsMut<'_>) {
        self.change.start();
        self.env.reset(rng, obs);
    }

    fn step(&mut self, action: ActionRef<'_>, rng: &mut NpRng, obs: ObsMut<'_>) -> StepOutcome {
        self.change.act(action, rng, self.row.as_mut());
        self.env.step(self.row.as_row(), rng, obs)
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
