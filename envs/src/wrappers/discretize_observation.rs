//! Gymnasium's `DiscretizeObservation`: the bin of each element of a `Box`, of equal bins between its bounds.

use super::WrapperSpec;
use super::observation::{Observation, Observe};
use crate::{ActionRef, Dtype, Env, EnvError, ObsMut, Options, Space};

struct DiscretizeObservation {
    /// Of each element, the edges between its bins.
    edges: Vec<Vec<f32>>,
    /// One number for the bins of all elements, the last element's fastest.
    flat: bool,
}

impl Observe for DiscretizeObservation {
    fn observe(&mut self, _: &dyn Env, from: ActionRef<'_>, mut to: ObsMut<'_>) {
        let mut number = 0;
        for (i, edges) in self.edges.iter().enumerate() {
            let x = from.get(i) as f32;
            let bin = edges.partition_point(|edge| *edge <= x);
            number = number * (edges.len() + 1) + bin;
            to.put(if self.flat { 0 } else { i }, if self.flat { number as f64 } else { bin as f64 });
        }
    }
}

/// `bins` equal steps from `low` to `high`, the ends included, in single precision as `numpy.linspace`.
pub(super) fn linspace(low: f32, high: f32, bins: u32) -> Vec<f32> {
    let step = (high - low) / bins as f32;
    let edge = |i| if i == bins { high } else { i as f32 * step + low };
    (0..=bins).map(edge).collect()
}

/// The options of both wrappers: bins of each of `len` elements, whether they are numbered together, and the space.
pub(super) fn bins(options: &mut Options, len: usize) -> Result<(Vec<u32>, bool, Space), EnvError> {
    let given = super::required(options.one_or_more_u32("bins", 1..=1 << 20)?, options, "bins")?;
    let bins = match given.len() {
        1 => vec![given[0]; len],
        n if n == len => given,
        n => return Err(options.bad("bins", &format!("one number or {len}"), format!("{n} numbers"))),
    };
    if options.bool("multidiscrete", false)? {
        let nvec: Vec<_> = bins.iter().map(|n| *n as i32).collect();
        return Ok((bins, false, Space::multi_discrete(nvec)));
    }
    let product = bins.iter().try_fold(1_i32, |product, n| product.checked_mul(*n as i32));
    match product {
        Some(n) => Ok((bins, true, Space::discrete(n))),
        None => {
            Err(options.bad("bins", "fewer (or `multidiscrete = true`): 2147483647 bins in all", format!("{bins:?}")))
        }
    }
}

pub(super) const SPEC: WrapperSpec = WrapperSpec {
    name: "discretize_observation",
    gymnasium: "DiscretizeObservation",
    summary: "gives the numbers of equal bins of a bounded `Box` of observations",
    options: &[
        ("bins", "bins, or those of each element; must be given"),
        ("multidiscrete", "whether each element keeps a number of its own; default false"),
    ],
    wrap: |env, options, site| {
        let Space::Box { low, high, dtype: Dtype::F32, .. } = env.observation_space() else {
            return Err(site.needs("a `Box` of floats as observation space", env.observation_space()));
        };
        if !low.iter().chain(high).all(|x| x.is_finite()) {
            return Err(site.needs("finite bounds of the observation space", env.observation_space()));
        }
        let (bins, flat, space) = bins(options, low.len())?;
        let inner = |i: usize| linspace(low[i], high[i], bins[i])[1..bins[i] as usize].to_vec();
        let edges = (0..low.len()).map(inner).collect();
        Ok(Observation::boxed(env, space, DiscretizeObservation { edges, flat }))
    },
};
