//! Gymnasium's `FilterObservation`.

use std::ops::Range;

use super::observation::{Observation, Observe};
use super::{WrapSite, WrapperSpec, required};
use crate::{ActionRef, Env, EnvError, ObsMut, Options, Space};

/// Keeps some parts of a `Dict` or `Tuple`.
struct FilterObservation {
    kept: Vec<Range<usize>>,
}

impl Observe for FilterObservation {
    fn observe(&mut self, _: &dyn Env, from: ActionRef<'_>, mut to: ObsMut<'_>) {
        self.kept.iter().fold(0, |at, range| {
            to.copy_from(at, from.slice(range.clone()));
            at + range.len()
        });
    }
}

/// The parts that the option names: of a `Dict` in its own order, of a `Tuple` in that of the option.
fn kept(space: &Space, options: &mut Options, site: &WrapSite) -> Result<Vec<usize>, EnvError> {
    match space {
        Space::Dict(parts) => {
            let keys = required(options.lines("filter_keys")?, options, "filter_keys")?;
            let known = || parts.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
            if let Some(key) = keys.iter().find(|key| parts.iter().all(|(name, _)| name != *key)) {
                return Err(options.bad("filter_keys", &format!("a list of some of {}", known()), key));
            }
            Ok((0..parts.len()).filter(|i| keys.contains(&parts[*i].0)).collect())
        }
        Space::Tuple(parts) => {
            let last = parts.len().saturating_sub(1) as u32;
            let keys = required(options.one_or_more_u32("filter_keys", 0..=last)?, options, "filter_keys")?;
            if let Some(i) = (0..keys.len()).find(|i| keys[..*i].contains(&keys[*i])) {
                return Err(options.bad("filter_keys", "a list of different numbers", format!("{} twice", keys[i])));
            }
            Ok(keys.into_iter().map(|i| i as usize).collect())
        }
        other => Err(site.needs("a `Dict` or `Tuple` as observation space", other)),
    }
}

pub(super) const SPEC: WrapperSpec = WrapperSpec {
    name: "filter_observation",
    gymnasium: "FilterObservation",
    summary: "keeps some parts of a `Dict` or `Tuple`",
    options: &[("filter_keys", "names of the parts of a `Dict`, numbers of those of a `Tuple`; must be given")],
    wrap: |env, options, site| {
        let space = env.observation_space();
        let kept = kept(space, options, site)?;
        if kept.is_empty() {
            return Err(options.bad("filter_keys", "at least one part", "none"));
        }
        let ends: Vec<usize> = space
            .parts()
            .scan(0, |at, part| {
                Some({
                    *at += part.len();
                    *at
                })
            })
            .collect();
        let ranges = kept.iter().map(|i| if *i == 0 { 0..ends[0] } else { ends[*i - 1]..ends[*i] }).collect();
        let filtered = match space {
            Space::Dict(parts) => Space::Dict(kept.iter().map(|i| parts[*i].clone()).collect()),
            _ => Space::Tuple(kept.iter().filter_map(|i| space.parts().nth(*i)).cloned().collect()),
        };
        Ok(Observation::boxed(env, filtered, FilterObservation { kept: ranges }))
    },
};
