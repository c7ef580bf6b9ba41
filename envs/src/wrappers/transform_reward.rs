//! Gymnasium's `TransformReward` and `ClipReward`. A config can't hold a function, so the transform is an affine map
//! and a choice of the usual ones.

use super::WrapperSpec;
use super::reward::{Reward, Rewarded};
use crate::StepOutcome;

struct ClipReward {
    min: f64,
    max: f64,
}

impl Reward for ClipReward {
    fn reward(&mut self, outcome: &StepOutcome) -> f64 {
        // Unlike `max` and `min`, this passes NaN on.
        outcome.reward.clamp(self.min, self.max)
    }
}

type Function = fn(f64) -> f64;

struct TransformReward {
    function: Function,
    scale: f64,
    shift: f64,
}

impl Reward for TransformReward {
    fn reward(&mut self, outcome: &StepOutcome) -> f64 {
        self.scale * (self.function)(outcome.reward) + self.shift
    }
}

/// The sign, with zero for zero.
fn sign(x: f64) -> f64 {
    if x == 0.0 { 0.0 } else { x.signum() }
}

const FUNCTIONS: [(&str, Function); 5] = [
    ("identity", |x| x),
    ("sign", sign),
    ("tanh", f64::tanh),
    ("symlog", |x| sign(x) * x.abs().ln_1p()),
    ("abs", f64::abs),
];

pub(super) const CLIP_SPEC: WrapperSpec = WrapperSpec {
    name: "clip_reward",
    gymnasium: "ClipReward",
    summary: "clips rewards; returns are reported unclipped",
    options: &[
        ("min_reward", "lower bound; default -1 if neither is given"),
        ("max_reward", "upper bound; default 1 if neither is given"),
    ],
    wrap: |env, options, _| {
        let finite = f64::MIN..=f64::MAX;
        let (min, max) = match (options.f64_in("min_reward", finite.clone())?, options.f64_in("max_reward", finite)?) {
            (None, None) => (-1.0, 1.0),
            (min, max) => (min.unwrap_or(f64::NEG_INFINITY), max.unwrap_or(f64::INFINITY)),
        };
        if min > max {
            return Err(options.bad("max_reward", &format!("at least {min} (`min_reward`)"), max));
        }
        Ok(Rewarded::boxed(env, ClipReward { min, max }))
    },
};

pub(super) const SPEC: WrapperSpec = WrapperSpec {
    name: "transform_reward",
    gymnasium: "TransformReward",
    summary: "changes rewards to `scale * function(reward) + shift`; returns are reported unchanged",
    options: &[
        ("function", "identity (default), sign, tanh, symlog or abs"),
        ("scale", "default 1"),
        ("shift", "default 0"),
    ],
    wrap: |env, options, _| {
        let name = options.text("function")?.unwrap_or_else(|| FUNCTIONS[0].0.to_owned());
        let Some((_, function)) = FUNCTIONS.iter().find(|(known, _)| *known == name) else {
            return Err(options.bad("function", &FUNCTIONS.map(|(known, _)| known).join(", "), name));
        };
        let (scale, shift) = (options.f64("scale", 1.0)?, options.f64("shift", 0.0)?);
        Ok(Rewarded::boxed(env, TransformReward { function: *function, scale, shift }))
    },
};
