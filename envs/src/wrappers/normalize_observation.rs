//! Gymnasium's `NormalizeObservation`: observations less their running mean, over their running deviation.
//!
//! The statistics belong to one environment and are saved with its state. An evaluation makes environments of its own,
//! whose statistics start anew; the algorithms' setting `normalize_observations` shares them.

use super::WrapperSpec;
use super::observation::{Observation, Observe};
use super::running_moments::{FIRST_COUNT, RunningMoments};
use crate::{ActionRef, Dtype, Env, EnvError, ObsMut, Space, StateReader, StateWriter};

struct NormalizeObservation {
    epsilon: f64,
    moments: Vec<RunningMoments>,
    count: f64,
}

impl Observe for NormalizeObservation {
    fn observe(&mut self, _: &dyn Env, from: ActionRef<'_>, mut to: ObsMut<'_>) {
        // The reference computes in the observations' precision if they are floats, and in double precision otherwise.
        let single = from.dtype() == Dtype::F32;
        let round = |x: f64| if single { f64::from(x as f32) } else { x };
        let epsilon = round(self.epsilon);
        for (i, moments) in self.moments.iter_mut().enumerate() {
            let x = from.get(i);
            moments.add(x, self.count, round);
            to.put(i, round(x - moments.mean) / round(round(moments.var + epsilon).sqrt()));
        }
        self.count += 1.0;
    }

    fn save(&self, to: &mut StateWriter) {
        to.f64(self.count);
        self.moments.iter().for_each(|m| m.save(to));
    }

    fn load(&mut self, from: &mut StateReader<'_>) -> Result<(), EnvError> {
        self.count = from.f64()?;
        self.moments.iter_mut().try_for_each(|m| m.load(from))
    }
}

pub(super) const SPEC: WrapperSpec = WrapperSpec {
    name: "normalize_observation",
    gymnasium: "NormalizeObservation",
    summary: "shifts and scales observations by their mean and deviation so far",
    options: &[("epsilon", "added to the variance; default 1e-8")],
    wrap: |env, options, site| {
        let space = match env.observation_space() {
            other @ (Space::Tuple(_) | Space::Dict(_)) => {
                return Err(site.needs("observations of one array (see flatten_observation)", other));
            }
            space => Space::unbounded_box(space.shape()),
        };
        let epsilon = options.f64_in("epsilon", f64::MIN_POSITIVE..=f64::MAX)?.unwrap_or(1e-8);
        let moments = (0..space.len()).map(|_| RunningMoments::new()).collect();
        Ok(Observation::boxed(env, space, NormalizeObservation { epsilon, moments, count: FIRST_COUNT }))
    },
};
