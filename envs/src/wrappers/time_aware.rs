//! Gymnasium's `TimeAwareObservation`. A flat observation is of 32-bit floats here, where Gymnasium's is of 64-bit ones
//! unless `normalize_time` is set.

use super::WrapperSpec;
use super::observation::{Observation, Observe};
use crate::{ActionRef, Buffer, Dtype, Env, EnvError, ObsMut, Space, StateReader, StateWriter};

/// Adds the number of steps so far to observations.
struct TimeAware {
    /// Observation and time together.
    space: Space,
    row: Buffer,
    /// Element of the row that is the time.
    at: usize,
    /// The time limit, where the time is a share of it.
    limit: Option<u32>,
    flatten: bool,
    elapsed: u32,
    first: bool,
}

impl Observe for TimeAware {
    fn start(&mut self) {
        self.first = true;
    }

    fn observe(&mut self, _: &dyn Env, from: ActionRef<'_>, mut to: ObsMut<'_>) {
        self.elapsed = if std::mem::take(&mut self.first) { 0 } else { self.elapsed.saturating_add(1) };
        let time = f64::from(self.elapsed) / self.limit.map_or(1.0, f64::from);
        let mut row = if self.flatten { self.row.as_mut() } else { to.slice(0..from.len() + 1) };
        row.copy_from(0, from.slice(0..self.at));
        row.put(self.at, time);
        row.copy_from(self.at + 1, from.slice(self.at..from.len()));
        if self.flatten {
            self.space.flatten_row(self.row.as_row(), &mut to);
        }
    }

    fn save(&self, to: &mut StateWriter) {
        to.u32(self.elapsed);
    }

    fn load(&mut self, from: &mut StateReader<'_>) -> Result<(), EnvError> {
        (self.elapsed, self.first) = (from.u32()?, false);
        Ok(())
    }
}

pub(super) const SPEC: WrapperSpec = WrapperSpec {
    name: "time_aware_observation",
    gymnasium: "TimeAwareObservation",
    summary: "adds the number of steps so far to observations",
    options: &[
        ("flatten", "whether observation and time become one vector; default true"),
        ("normalize_time", "whether the time is a share of the time limit; default false"),
        ("dict_time_key", "name of the time in a `Dict`; default `time`"),
    ],
    wrap: |env, options, site| {
        let flatten = options.bool("flatten", true)?;
        let normalize = options.bool("normalize_time", false)?;
        let key = options.text("dict_time_key")?.unwrap_or_else(|| "time".to_owned());
        let Some(limit) = site.max_episode_steps else {
            return Err(site.needs("an environment with a time limit", "none (see time_limit)"));
        };
        let time = match normalize {
            true => Space::bounded([0.0], [1.0], [1]),
            false => Space::boxed(vec![0.0], vec![limit as f32], vec![1], Dtype::I32),
        };
        let inner = env.observation_space();
        let (space, at) = match inner {
            Space::Dict(parts) => {
                if parts.iter().any(|(name, _)| *name == key) {
                    return Err(options.bad("dict_time_key", "a name that the `Dict` does not have", key));
                }
                // A `Dict` is sorted by name in Gymnasium.
                let i = parts.iter().position(|(name, _)| *name > key).unwrap_or(parts.len());
                let at = parts[..i].iter().map(|(_, part)| part.len()).sum();
                let mut parts = parts.clone();
                parts.insert(i, (key, time));
                (Space::Dict(parts), at)
            }
            Space::Tuple(parts) => (Space::Tuple(parts.iter().cloned().chain([time]).collect()), inner.len()),
            other => (Space::dict([("obs", other.clone()), ("time", time)]), other.len()),
        };
        let row = Buffer::new(&space, 1);
        let outer = if flatten { space.flat_space() } else { space.clone() };
        let limit = normalize.then_some(limit);
        Ok(Observation::boxed(env, outer, TimeAware { space, row, at, limit, flatten, elapsed: 0, first: true }))
    },
};
