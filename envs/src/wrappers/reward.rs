//! What the wrappers that change rewards share.

use super::forward;
use crate::{ActionRef, Env, EnvError, NpRng, ObsMut, StateReader, StateWriter, StepOutcome};

/// A change of rewards, with what it remembers.
pub(super) trait Reward: Send {
    /// The reward that the agent gets for a step.
    fn reward(&mut self, outcome: &StepOutcome) -> f64;

    /// Writes what [`Reward::load`] needs.
    fn save(&self, _to: &mut StateWriter) {}

    /// Restores what [`Reward::save`] wrote.
    fn load(&mut self, _from: &mut StateReader<'_>) -> Result<(), EnvError> {
        Ok(())
    }
}

/// An environment whose rewards are changed. It counts the episode's return below the change, unless the environment
/// counts for itself.
pub(super) struct Rewarded<T> {
    env: Box<dyn Env>,
    episode_return: f64,
    length: u32,
    change: T,
}

impl<T: Reward + 'static> Rewarded<T> {
    /// `env` with other rewards.
    pub(super) fn boxed(env: Box<dyn Env>, change: T) -> Box<dyn Env> {
        Box::new(Self { env, episode_return: 0.0, length: 0, change })
    }
}

impl<T: Reward> Env for Rewarded<T> {
    forward!(observation_space action_space action_mask render foreign);

    fn episode_statistics(&self) -> Option<(f64, u32)> {
        self.env.episode_statistics().or(Some((self.episode_return, self.length)))
    }

    fn reset(&mut self, rng: &mut NpRng, obs: ObsMut<'_>) {
        (self.episode_return, self.length) = (0.0, 0);
        self.env.reset(rng, obs);
    }

    fn step(&mut self, action: ActionRef<'_>, rng: &mut NpRng, obs: ObsMut<'_>) -> StepOutcome {
        let outcome = self.env.step(action, rng, obs);
        self.episode_return += outcome.reward;
        self.length = self.length.saturating_add(1);
        StepOutcome { reward: self.change.reward(&outcome), ..outcome }
    }

    fn save_state(&self, to: &mut StateWriter) {
        self.env.save_state(to);
        to.f64(self.episode_return);
        to.u32(self.length);
        self.change.save(to);
    }

    fn load_state(&mut self, from: &mut StateReader<'_>) -> Result<(), EnvError> {
        self.env.load_state(from)?;
        self.episode_return = from.f64()?;
        self.length = from.u32()?;
        self.change.load(from)
    }
}
