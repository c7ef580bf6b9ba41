//! Gymnasium's `DelayObservation`.

use super::frame_stack::zeros;
use super::observation::{Observation, Observe};
use super::{WrapperSpec, required};
use crate::{ActionRef, Buffer, Env, EnvError, ObsMut, StateReader, StateWriter};

/// Gives the observation from `delay` steps before, zeros until there is one.
struct DelayObservation {
    delay: usize,
    /// Ring of `delay` rows, in which observation `t` lies at `t % delay`.
    ring: Buffer,
    zeros: Buffer,
    seen: u64,
}

impl Observe for DelayObservation {
    fn start(&mut self) {
        self.seen = 0;
    }

    fn observe(&mut self, _: &dyn Env, from: ActionRef<'_>, mut to: ObsMut<'_>) {
        let (delay, len) = (self.delay as u64, from.len());
        if delay == 0 {
            return to.copy_from(0, from);
        }
        let at = (self.seen % delay) as usize * len;
        let late = if self.seen < delay { self.zeros.as_row() } else { self.ring.as_row().slice(at..at + len) };
        to.copy_from(0, late);
        self.ring.as_mut().copy_from(at, from);
        self.seen += 1;
    }

    fn save(&self, to: &mut StateWriter) {
        to.u64(self.seen);
        self.ring.save_state(to);
    }

    fn load(&mut self, from: &mut StateReader<'_>) -> Result<(), EnvError> {
        self.seen = from.u64()?;
        self.ring.load_state(from)
    }
}

pub(super) const SPEC: WrapperSpec = WrapperSpec {
    name: "delay_observation",
    gymnasium: "DelayObservation",
    summary: "gives each observation some steps late",
    options: &[("delay", "steps; must be given")],
    wrap: |env, options, _| {
        let delay = required(options.u32("delay", 0..=1 << 16)?, options, "delay")? as usize;
        let space = env.observation_space().clone();
        let change = DelayObservation { delay, ring: Buffer::new(&space, delay), zeros: zeros(&space), seen: 0 };
        Ok(Observation::boxed(env, space, change))
    },
};
