//! Gymnasium's `FlattenObservation`.

use super::WrapperSpec;
use super::observation::{Observation, Observe};
use crate::{ActionRef, Env, ObsMut, Space};

/// Gives observations as one vector, integers of a `Discrete` or `MultiDiscrete` as one-hot vectors.
struct FlattenObservation {
    space: Space,
}

impl Observe for FlattenObservation {
    fn observe(&mut self, _: &dyn Env, from: ActionRef<'_>, mut to: ObsMut<'_>) {
        self.space.flatten_row(from, &mut to);
    }
}

pub(super) const SPEC: WrapperSpec = WrapperSpec {
    name: "flatten_observation",
    gymnasium: "FlattenObservation",
    summary: "gives observations as one vector, integers one-hot",
    options: &[],
    wrap: |env, _, _| {
        let space = env.observation_space().clone();
        Ok(Observation::boxed(env, space.flat_space(), FlattenObservation { space }))
    },
};
