//! The step of neighbouring environments, on one thread or split over rayon's pool.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::{AutoresetMode, Lane};
use crate::{Actions, ObsMut};

/// A part of a split batch costs at least this many nanoseconds, so that splitting stays a small share of it.
const PART_NS: u64 = 15_000;

/// How many environments one thread steps at a time.
pub(super) fn part_len(num_envs: usize, cost_ns: u64) -> usize {
    let threads = rayon::current_num_threads();
    let parts = if threads == 1 { 1 } else { (cost_ns / PART_NS).clamp(1, 4 * threads as u64) as usize };
    num_envs.div_ceil(parts)
}

/// Neighbouring environments of a batch with their rows of every buffer.
pub(super) struct Part<'a> {
    pub(super) mode: AutoresetMode,
    pub(super) obs_len: usize,
    pub(super) action_len: usize,
    pub(super) lanes: &'a mut [Lane],
    pub(super) actions: Actions<'a>,
    pub(super) observations: ObsMut<'a>,
    pub(super) final_observations: ObsMut<'a>,
    pub(super) rewards: &'a mut [f32],
    pub(super) terminated: &'a mut [bool],
    pub(super) truncated: &'a mut [bool],
}

impl Part<'_> {
    /// Steps at most `part_len` environments at a time on one thread, and adds the time that took to `busy_ns`.
    pub(super) fn run(mut self, part_len: usize, busy_ns: &AtomicU64) {
        if self.lanes.len() > part_len {
            let middle = self.lanes.len() / 2;
            let (a, b) = self.split_at(middle);
            rayon::join(|| a.run(part_len, busy_ns), || b.run(part_len, busy_ns));
        } else {
            let start = Instant::now();
            self.step();
            busy_ns.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        }
    }

    fn split_at(self, at: usize) -> (Self, Self) {
        let lanes = self.lanes.split_at_mut(at);
        let actions = self.actions.split_rows(at, self.action_len);
        let observations = self.observations.split_at(at * self.obs_len);
        let final_observations = self.final_observations.split_at(at * self.obs_len);
        let rewards = self.rewards.split_at_mut(at);
        let terminated = self.terminated.split_at_mut(at);
        let truncated = self.truncated.split_at_mut(at);
        macro_rules! half {
            ($i:tt) => {
                Self {
                    mode: self.mode,
                    obs_len: self.obs_len,
                    action_len: self.action_len,
                    lanes: lanes.$i,
                    actions: actions.$i,
                    observations: observations.$i,
                    final_observations: final_observations.$i,
                    rewards: rewards.$i,
                    terminated: terminated.$i,
                    truncated: truncated.$i,
                }
            };
        }
        (half!(0), half!(1))
    }

    #[inline(always)] // A call with a dozen arguments in memory would cost as much as a cheap environment.
    pub(super) fn step(&mut self) {
        // Types are told apart once for a part, not once for an environment.
        match (&mut self.observations, &mut self.final_observations) {
            (ObsMut::F32(rows), ObsMut::F32(finals)) => {
                let (rows, finals) = (std::mem::take(rows), std::mem::take(finals));
                self.step_rows(rows, finals, |row| ObsMut::F32(row));
            }
            (ObsMut::U8(rows), ObsMut::U8(finals)) => {
                let (rows, finals) = (std::mem::take(rows), std::mem::take(finals));
                self.step_rows(rows, finals, |row| ObsMut::U8(row));
            }
            (ObsMut::I32(rows), ObsMut::I32(finals)) => {
                let (rows, finals) = (std::mem::take(rows), std::mem::take(finals));
                self.step_rows(rows, finals, |row| ObsMut::I32(row));
            }
            _ => unreachable!("both buffers are of the same type"),
        }
    }

    #[inline(always)]
    fn step_rows<T: Copy>(&mut self, mut rows: &mut [T], mut finals: &mut [T], wrap: impl Fn(&mut [T]) -> ObsMut<'_>) {
        let mut actions = self.actions;
        let flags = self.terminated.iter_mut().zip(self.truncated.iter_mut());
        for ((lane, reward), (terminated, truncated)) in self.lanes.iter_mut().zip(self.rewards.iter_mut()).zip(flags) {
            let (row, final_row, action);
            (row, rows) = rows.split_at_mut(self.obs_len);
            (final_row, finals) = finals.split_at_mut(self.obs_len);
            (action, actions) = actions.split_first(self.action_len);
            if self.mode == AutoresetMode::NextStep && (*terminated || *truncated) {
                lane.reset(wrap(row));
                *reward = 0.0;
                *terminated = false;
                *truncated = false;
                continue;
            }
            let outcome = lane.env.step(action, &mut lane.rng, wrap(row));
            lane.episode_return += outcome.reward;
            lane.length += 1;
            *reward = outcome.reward as f32;
            *terminated = outcome.terminated;
            *truncated = outcome.truncated;
            if outcome.terminated || outcome.truncated {
                (lane.ended_return, lane.ended_length) =
                    lane.env.episode_statistics().unwrap_or((lane.episode_return, lane.length));
                final_row.copy_from_slice(row);
                if self.mode == AutoresetMode::SameStep {
                    lane.reset(wrap(row));
                }
            }
        }
    }
}
