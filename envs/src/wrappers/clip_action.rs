//! Gymnasium's `ClipAction`.

use super::WrapperSpec;
use super::action::{Act, Action};
use crate::{ActionRef, Dtype, NpRng, ObsMut, Space};

/// Clips each element of an action to the bounds of the environment's action space.
struct ClipAction {
    low: Vec<f32>,
    high: Vec<f32>,
}

impl Act for ClipAction {
    const KEEPS_MASK: bool = true;

    fn act(&mut self, from: ActionRef<'_>, _: &mut NpRng, to: ObsMut<'_>) {
        if let (ActionRef::F32(from), ObsMut::F32(to)) = (from, to) {
            for (i, (from, to)) in from.iter().zip(to).enumerate() {
                *to = from.max(self.low[i]).min(self.high[i]);
            }
        }
    }
}

pub(super) const SPEC: WrapperSpec = WrapperSpec {
    name: "clip_action",
    gymnasium: "ClipAction",
    summary: "clips actions to the bounds of a `Box`; the agent's action space becomes unbounded",
    options: &[],
    wrap: |env, _, site| match env.action_space() {
        Space::Box { low, high, shape, dtype: Dtype::F32 } => {
            let (space, change) =
                (Space::unbounded_box(shape.clone()), ClipAction { low: low.clone(), high: high.clone() });
            Ok(Action::boxed(env, space, change))
        }
        other => Err(site.needs("a `Box` of floats as action space", other)),
    },
};
