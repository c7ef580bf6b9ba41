//! Gymnasium's `MaxAndSkipObservation`, after OpenAI Baselines' `MaxAndSkipEnv`.
//!
//! As there, the two frames are those of the last two of `skip` steps, and an episode that ends before them leaves the
//! frames of the step before in place.

use super::{WrapperSpec, forward};
use crate::{ActionRef, Buffer, Env, EnvError, NpRng, ObsMut, Space, StateReader, StateWriter, StepOutcome};

/// Takes each action `skip` times, sums the rewards, and gives the greatest elements of the last two observations.
struct MaxAndSkip {
    env: Box<dyn Env>,
    skip: u32,
    row: Buffer,
    frames: [Buffer; 2],
}

impl Env for MaxAndSkip {
    forward!(observation_space action_space action_mask render episode_statistics foreign reset);

    fn step(&mut self, action: ActionRef<'_>, rng: &mut NpRng, obs: ObsMut<'_>) -> StepOutcome {
        let mut total = StepOutcome { reward: 0.0, terminated: false, truncated: false };
        for i in 0..self.skip {
            let row = match (i + 2).checked_sub(self.skip) {
                Some(frame) => &mut self.frames[frame as usize],
                None => &mut self.row,
            };
            let outcome = self.env.step(action, rng, row.as_mut());
            total = StepOutcome { reward: total.reward + outcome.reward, ..outcome };
            if outcome.terminated || outcome.truncated {
                break;
            }
        }
        match (&self.frames, obs) {
            ([Buffer::F32(a), Buffer::F32(b)], ObsMut::F32(obs)) => {
                // NaN is passed on, as by numpy.
                let max = |a: f32, b: f32| if a > b || a.is_nan() { a } else { b };
                obs.iter_mut().zip(a.iter().zip(b)).for_each(|(to, (a, b))| *to = max(*a, *b));
            }
            ([Buffer::U8(a), Buffer::U8(b)], ObsMut::U8(obs)) => {
                obs.iter_mut().zip(a.iter().zip(b)).for_each(|(to, (a, b))| *to = *a.max(b));
            }
            ([Buffer::I32(a), Buffer::I32(b)], ObsMut::I32(obs)) => {
                obs.iter_mut().zip(a.iter().zip(b)).for_each(|(to, (a, b))| *to = *a.max(b));
            }
            (_, obs) => unreachable!("rows of {}", obs.dtype()),
        }
        total
    }

    fn save_state(&self, to: &mut StateWriter) {
        self.env.save_state(to);
        self.frames.iter().for_each(|frame| frame.save_state(to));
    }

    fn load_state(&mut self, from: &mut StateReader<'_>) -> Result<(), EnvError> {
        self.env.load_state(from)?;
        self.frames.iter_mut().try_for_each(|frame| frame.load_state(from))
    }
}

pub(super) const SPEC: WrapperSpec = WrapperSpec {
    name: "max_and_skip",
    gymnasium: "MaxAndSkipObservation",
    summary: "takes each action several times and gives the maximum of the last two observations",
    options: &[("skip", "times, at least 2; default 4")],
    wrap: |env, options, site| {
        if let other @ (Space::Tuple(_) | Space::Dict(_)) = env.observation_space() {
            return Err(site.needs("observations of one array (see flatten_observation)", other));
        }
        let skip = options.u32("skip", 2..=u32::MAX)?.unwrap_or(4);
        let row = Buffer::new(env.observation_space(), 1);
        Ok(Box::new(MaxAndSkip { env, skip, frames: [row.clone(), row.clone()], row }))
    },
};
