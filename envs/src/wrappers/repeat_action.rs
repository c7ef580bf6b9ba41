//! Gymnasium's `RepeatAction`.

use super::{WrapperSpec, forward, required};
use crate::{ActionRef, Env, NpRng, ObsMut, StepOutcome};

/// Takes each action a number of times, or until the episode ends, and sums the rewards.
struct RepeatAction {
    env: Box<dyn Env>,
    num_repeats: u32,
}

impl Env for RepeatAction {
    forward!(observation_space action_space action_mask render episode_statistics foreign reset state);

    fn step(&mut self, action: ActionRef<'_>, rng: &mut NpRng, mut obs: ObsMut<'_>) -> StepOutcome {
        let mut total = 0.0;
        for _ in 1..self.num_repeats {
            let row = 0..obs.len();
            let outcome = self.env.step(action, rng, obs.slice(row));
            total += outcome.reward;
            if outcome.terminated || outcome.truncated {
                return StepOutcome { reward: total, ..outcome };
            }
        }
        let outcome = self.env.step(action, rng, obs);
        StepOutcome { reward: total + outcome.reward, ..outcome }
    }
}

pub(super) const SPEC: WrapperSpec = WrapperSpec {
    name: "repeat_action",
    gymnasium: "RepeatAction",
    summary: "takes each action several times and sums the rewards",
    options: &[("num_repeats", "times; must be given")],
    wrap: |env, options, _| {
        let num_repeats = required(options.u32("num_repeats", 1..=u32::MAX)?, options, "num_repeats")?;
        Ok(Box::new(RepeatAction { env, num_repeats }))
    },
};
