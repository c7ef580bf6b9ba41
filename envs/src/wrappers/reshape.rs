//! Gymnasium's `ReshapeObservation`.

use super::{WrapperSpec, forward, required};
use crate::{ActionRef, Env, NpRng, ObsMut, Space, StepOutcome};

/// Gives the elements of a `Box` another shape.
struct ReshapeObservation {
    env: Box<dyn Env>,
    space: Space,
}

impl Env for ReshapeObservation {
    forward!(action_space action_mask render episode_statistics foreign reset state);

    fn observation_space(&self) -> &Space {
        &self.space
    }

    fn step(&mut self, action: ActionRef<'_>, rng: &mut NpRng, obs: ObsMut<'_>) -> StepOutcome {
        self.env.step(action, rng, obs)
    }
}

pub(super) const SPEC: WrapperSpec = WrapperSpec {
    name: "reshape_observation",
    gymnasium: "ReshapeObservation",
    summary: "gives the elements of a `Box` another shape",
    options: &[("shape", "the new shape, with as many elements; must be given")],
    wrap: |env, options, site| {
        let Space::Box { low, high, dtype, .. } = env.observation_space() else {
            return Err(site.needs("a `Box` as observation space", env.observation_space()));
        };
        let shape = required(options.one_or_more_u32("shape", 1..=1 << 20)?, options, "shape")?;
        let shape: Vec<_> = shape.into_iter().map(|n| n as usize).collect();
        if shape.iter().try_fold(1_usize, |len, n| len.checked_mul(*n)) != Some(low.len()) {
            return Err(options.bad("shape", &format!("of {} elements", low.len()), format!("{shape:?}")));
        }
        let space = Space::boxed(low.clone(), high.clone(), shape, *dtype);
        Ok(Box::new(ReshapeObservation { env, space }))
    },
};
