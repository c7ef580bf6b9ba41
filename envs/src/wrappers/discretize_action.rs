//! Gymnasium's `DiscretizeAction`: the centres of equal bins of each element of a `Box`.

use super::WrapperSpec;
use super::action::{Act, Action};
use super::discretize_observation::{bins, linspace};
use crate::{ActionRef, Dtype, NpRng, ObsMut, Space};

struct DiscretizeAction {
    /// Of each element, the centres of its bins.
    centers: Vec<Vec<f32>>,
    /// Actions number bins of every element at once, the last element's fastest.
    flat: bool,
}

impl Act for DiscretizeAction {
    const KEEPS_MASK: bool = false;

    fn act(&mut self, from: ActionRef<'_>, _: &mut NpRng, mut to: ObsMut<'_>) {
        let mut number = from.get(0) as usize;
        for (i, centers) in self.centers.iter().enumerate().rev() {
            let bin = if self.flat { number % centers.len() } else { from.get(i) as usize };
            number /= centers.len();
            to.put(i, centers[bin].into());
        }
    }
}

pub(super) const SPEC: WrapperSpec = WrapperSpec {
    name: "discretize_action",
    gymnasium: "DiscretizeAction",
    summary: "offers the centres of equal bins of a bounded `Box` of actions",
    options: &[
        ("bins", "bins, or those of each element; must be given"),
        ("multidiscrete", "whether each element is chosen by itself; default false"),
    ],
    wrap: |env, options, site| {
        let Space::Box { low, high, dtype: Dtype::F32, .. } = env.action_space() else {
            return Err(site.needs("a `Box` of floats as action space", env.action_space()));
        };
        if !low.iter().chain(high).all(|x| x.is_finite()) {
            return Err(site.needs("finite bounds of the action space", env.action_space()));
        }
        let (bins, flat, space) = bins(options, low.len())?;
        let center = |edges: &[f32]| 0.5 * (edges[0] + edges[1]);
        let centers = |i: usize| linspace(low[i], high[i], bins[i]).windows(2).map(center).collect();
        let centers = (0..low.len()).map(centers).collect();
        Ok(Action::boxed(env, space, DiscretizeAction { centers, flat }))
    },
};
