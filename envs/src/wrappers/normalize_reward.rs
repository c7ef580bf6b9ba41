//! Gymnasium's `NormalizeReward`: rewards divided by the standard deviation of the discounted return. As there, the
//! return starts anew when an episode terminates, not when it is truncated.

use super::WrapperSpec;
use super::reward::{Reward, Rewarded};
use super::running_moments::{FIRST_COUNT, RunningMoments};
use crate::{EnvError, StateReader, StateWriter, StepOutcome};

struct NormalizeReward {
    gamma: f64,
    epsilon: f64,
    discounted: f64,
    moments: RunningMoments,
    count: f64,
}

impl Reward for NormalizeReward {
    fn reward(&mut self, outcome: &StepOutcome) -> f64 {
        let goes_on = if outcome.terminated { 0.0 } else { 1.0 };
        self.discounted = self.discounted * self.gamma * goes_on + outcome.reward;
        self.moments.add(self.discounted, self.count, |x| x);
        self.count += 1.0;
        outcome.reward / (self.moments.var + self.epsilon).sqrt()
    }

    fn save(&self, to: &mut StateWriter) {
        to.f64(self.discounted);
        to.f64(self.count);
        self.moments.save(to);
    }

    fn load(&mut self, from: &mut StateReader<'_>) -> Result<(), EnvError> {
        (self.discounted, self.count) = (from.f64()?, from.f64()?);
        self.moments.load(from)
    }
}

pub(super) const SPEC: WrapperSpec = WrapperSpec {
    name: "normalize_reward",
    gymnasium: "NormalizeReward",
    summary: "divides rewards by the deviation of the discounted return so far; returns are reported unchanged",
    options: &[("gamma", "discount, 0 to 1; default 0.99"), ("epsilon", "added to the variance; default 1e-8")],
    wrap: |env, options, _| {
        let gamma = options.f64_in("gamma", 0.0..=1.0)?.unwrap_or(0.99);
        let epsilon = options.f64_in("epsilon", f64::MIN_POSITIVE..=f64::MAX)?.unwrap_or(1e-8);
        let change =
            NormalizeReward { gamma, epsilon, discounted: 0.0, moments: RunningMoments::new(), count: FIRST_COUNT };
        Ok(Rewarded::boxed(env, change))
    },
};
