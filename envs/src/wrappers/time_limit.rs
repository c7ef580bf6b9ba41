//! Gymnasium's `TimeLimit`.

use super::{WrapperSpec, forward, required};
use crate::{ActionRef, Env, EnvError, NpRng, ObsMut, StateReader, StateWriter, StepOutcome};

/// Truncates episodes after a number of steps.
///
/// The step that reaches the limit is `truncated` even if it also terminated, and so is every later step until the next
/// reset, as in Gymnasium.
pub struct TimeLimit {
    env: Box<dyn Env>,
    max_episode_steps: u32,
    elapsed: u32,
}

impl TimeLimit {
    /// Limits episodes of `env` to `max_episode_steps` steps.
    pub fn new(env: Box<dyn Env>, max_episode_steps: u32) -> Self {
        Self { env, max_episode_steps, elapsed: 0 }
    }
}

impl Env for TimeLimit {
    forward!(observation_space action_space action_mask render episode_statistics foreign);

    fn reset(&mut self, rng: &mut NpRng, obs: ObsMut<'_>) {
        self.elapsed = 0;
        self.env.reset(rng, obs);
    }

    fn step(&mut self, action: ActionRef<'_>, rng: &mut NpRng, obs: ObsMut<'_>) -> StepOutcome {
        let mut outcome = self.env.step(action, rng, obs);
        self.elapsed = self.elapsed.saturating_add(1);
        outcome.truncated |= self.elapsed >= self.max_episode_steps;
        outcome
    }

    fn save_state(&self, to: &mut StateWriter) {
        to.u32(self.elapsed);
        self.env.save_state(to);
    }

    fn load_state(&mut self, from: &mut StateReader<'_>) -> Result<(), EnvError> {
        let elapsed = from.u32()?;
        self.env.load_state(from)?;
        self.elapsed = elapsed;
        Ok(())
    }
}

pub(super) const SPEC: WrapperSpec = WrapperSpec {
    name: "time_limit",
    gymnasium: "TimeLimit",
    summary: "truncates episodes after a number of steps",
    options: &[("max_episode_steps", "steps of an episode")],
    wrap: |env, options, site| {
        let limit = required(options.u32("max_episode_steps", 1..=u32::MAX)?, options, "max_episode_steps")?;
        site.max_episode_steps = Some(site.max_episode_steps.map_or(limit, |outer| outer.min(limit)));
        Ok(Box::new(TimeLimit::new(env, limit)))
    },
};
