//! Gymnasium's `RescaleAction` and `RescaleObservation`: an affine map between the bounds of two `Box`es, element by
//! element, in single precision as there.

use super::action::{Act, Action};
use super::observation::{Observation, Observe};
use super::{WrapSite, WrapperSpec};
use crate::{ActionRef, Dtype, Env, EnvError, NpRng, ObsMut, Options, Space};

/// `to = gradient * from + intercept`; an action goes the other way.
struct Affine {
    gradient: Vec<f32>,
    intercept: Vec<f32>,
}

impl Act for Affine {
    const KEEPS_MASK: bool = true;

    fn act(&mut self, from: ActionRef<'_>, _: &mut NpRng, to: ObsMut<'_>) {
        if let (ActionRef::F32(from), ObsMut::F32(to)) = (from, to) {
            for (i, (from, to)) in from.iter().zip(to).enumerate() {
                // A finite action must not become an infinite one, however narrow the interval is.
                *to = ((from - self.intercept[i]) / self.gradient[i]).clamp(f32::MIN, f32::MAX);
            }
        }
    }
}

impl Observe for Affine {
    fn observe(&mut self, _: &dyn Env, from: ActionRef<'_>, to: ObsMut<'_>) {
        if let (ActionRef::F32(from), ObsMut::F32(to)) = (from, to) {
            for (i, (from, to)) in from.iter().zip(to).enumerate() {
                *to = self.gradient[i] * from + self.intercept[i];
            }
        }
    }
}

/// The map from `space` to the `Box` with the bounds of the two options, and that.
fn affine(
    space: &Space,
    what: &str,
    options: &mut Options,
    [min, max]: [&'static str; 2],
    site: &WrapSite,
) -> Result<(Space, Affine), EnvError> {
    let Space::Box { low, high, shape, dtype: Dtype::F32 } = space else {
        return Err(site.needs(&format!("a `Box` of floats as {what} space"), space));
    };
    if !low.iter().chain(high).all(|x| x.is_finite()) {
        return Err(site.needs(&format!("finite bounds of the {what} space"), space));
    }
    let mut bounds = |option, default: f64| {
        let bounds = options.one_or_more(option, "one for each element")?.unwrap_or_else(|| vec![default]);
        match bounds.len() {
            1 => Ok(vec![bounds[0]; low.len()]),
            n if n == low.len() => Ok(bounds),
            n => Err(options.bad(option, &format!("one number or {}", low.len()), format!("{n} numbers"))),
        }
    };
    let (new_low, new_high) = (bounds(min, -1.0)?, bounds(max, 1.0)?);
    if let Some(i) = (0..low.len()).find(|i| new_low[*i] as f32 >= new_high[*i] as f32) {
        return Err(options.bad(max, &format!("more than {} (`{min}`)", new_low[i]), new_high[i]));
    }
    if let Some(i) = (0..low.len()).find(|i| low[*i] >= high[*i]) {
        return Err(site.needs("bounds with something between them", format!("{} and {}", low[i], high[i])));
    }
    let gradient: Vec<_> = (0..low.len())
        .map(|i| ((new_high[i] - new_low[i]) / (f64::from(high[i]) - f64::from(low[i]))) as f32)
        .collect();
    let intercept = (0..low.len()).map(|i| (f64::from(gradient[i] * -low[i]) + new_low[i]) as f32).collect();
    let narrow = |x: Vec<f64>| x.into_iter().map(|x| x as f32).collect::<Vec<_>>();
    let space = Space::bounded(narrow(new_low), narrow(new_high), shape.clone());
    Ok((space, Affine { gradient, intercept }))
}

pub(super) const ACTION_SPEC: WrapperSpec = WrapperSpec {
    name: "rescale_action",
    gymnasium: "RescaleAction",
    summary: "maps actions of a `Box` from other bounds",
    options: &[
        ("min_action", "lower bound, or one for each element; default -1"),
        ("max_action", "upper bound, or one for each element; default 1"),
    ],
    wrap: |env, options, site| {
        let (space, change) = affine(env.action_space(), "action", options, ["min_action", "max_action"], site)?;
        Ok(Action::boxed(env, space, change))
    },
};

pub(super) const OBSERVATION_SPEC: WrapperSpec = WrapperSpec {
    name: "rescale_observation",
    gymnasium: "RescaleObservation",
    summary: "maps observations of a `Box` to other bounds",
    options: &[
        ("min_obs", "lower bound, or one for each element; default -1"),
        ("max_obs", "upper bound, or one for each element; default 1"),
    ],
    wrap: |env, options, site| {
        let (space, change) = affine(env.observation_space(), "observation", options, ["min_obs", "max_obs"], site)?;
        Ok(Observation::boxed(env, space, change))
    },
};
