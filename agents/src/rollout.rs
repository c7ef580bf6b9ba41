//! A rollout of fixed length from parallel environments, `[T, N, ...]` in host memory, allocated once.

use std::ops::Range;

use hotfire_core::CoreError;
use hotfire_core::seed::StreamRng;
use hotfire_envs::{Buffer, VecEnv};

use crate::actor_critic::{CompiledActorCritic, Head, clip_actions};
use crate::agent::{as_actions, env_failed};
use crate::normalize::{ObservationNormalizer, RewardNormalizer};
use crate::observation::ObservationEncoder;

/// `T` steps of `N` environments.
#[derive(Clone, Debug)]
pub struct Rollout {
    /// Number of environments `N`.
    pub num_envs: usize,
    /// Observations that the actions were chosen from, normalised but not encoded: `[T, N, D]`.
    pub observations: Buffer,
    /// Actions as they were drawn, before clipping: `[T, N, A]`.
    pub actions: Buffer,
    /// Log-probabilities of the actions: `[T, N]`.
    pub log_probs: Vec<f32>,
    /// Rewards as the learner sees them: `[T, N]`.
    pub rewards: Vec<f32>,
    /// Where a step reached a terminal state: `[T, N]`.
    pub terminated: Vec<bool>,
    /// Where a step was cut off: `[T, N]`.
    pub truncated: Vec<bool>,
    /// Observations after the last step: `[N, D]`.
    pub next_observations: Buffer,
    /// Which entries of `[T, N]` were truncated without terminating, in order.
    pub truncated_at: Vec<usize>,
    /// The final observations of those entries, before the reset: `[truncated_at.len(), D]`.
    pub final_observations: Buffer,
    /// Returns of the episodes that ended, undiscounted and not normalised.
    pub episode_returns: Vec<f64>,
    /// Lengths of those episodes.
    pub episode_lengths: Vec<u32>,
    encoder: ObservationEncoder,
    /// Encoded rows, where encoding changes them.
    scratch: Vec<f32>,
    step_actions: Buffer,
    clipped_actions: Buffer,
}

impl Rollout {
    /// An empty rollout of `steps` steps of the environments.
    pub fn new(envs: &VecEnv, steps: usize) -> Self {
        let n = envs.num_envs();
        let observations = |rows| Buffer::new(envs.observation_space(), rows);
        Self {
            num_envs: n,
            observations: observations(steps * n),
            actions: Buffer::new(envs.action_space(), steps * n),
            log_probs: vec![0.0; steps * n],
            rewards: vec![0.0; steps * n],
            terminated: vec![false; steps * n],
            truncated: vec![false; steps * n],
            next_observations: observations(n),
            truncated_at: Vec::new(),
            final_observations: observations(0),
            episode_returns: Vec::new(),
            episode_lengths: Vec::new(),
            encoder: ObservationEncoder::new(envs.observation_space()),
            scratch: Vec::new(),
            step_actions: Buffer::new(envs.action_space(), n),
            clipped_actions: Buffer::new(envs.action_space(), n),
        }
    }

    /// Number of transitions `T N`.
    pub fn len(&self) -> usize {
        self.rewards.len()
    }

    /// Whether the rollout has no transitions.
    pub fn is_empty(&self) -> bool {
        self.rewards.is_empty()
    }

    /// Fills the rollout with the policy's own steps. The normalisers' statistics take in the rollout at its end.
    ///
    /// # Errors
    /// If the environments refuse an action, as they do one that is not finite.
    pub fn collect(
        &mut self,
        envs: &mut VecEnv,
        policy: &mut CompiledActorCritic,
        rng: &mut StreamRng,
        mut observations: Option<&mut ObservationNormalizer>,
        mut rewards: Option<&mut RewardNormalizer>,
    ) -> Result<(), CoreError> {
        let n = self.num_envs;
        let width = n * self.encoder.row_len();
        self.truncated_at.clear();
        self.final_observations.resize(0);
        self.episode_returns.clear();
        self.episode_lengths.clear();
        for t in 0..self.len() / n {
            let row = t * n..(t + 1) * n;
            see(envs.observations(), 0..width, observations.as_deref(), &mut self.observations, t * width);
            if let (Some(normalizer), Buffer::F32(rows)) = (observations.as_deref_mut(), envs.observations()) {
                normalizer.observe(rows);
            }
            let input = self.encoder.input(&self.observations, row.clone(), &mut self.scratch);
            policy.sample(input, rng, &mut self.step_actions, &mut self.log_probs[row.clone()]);
            let actions = self.step_actions.len();
            self.actions.copy_from(t * actions, &self.step_actions, 0..actions);
            let actions = match (policy.head(), &self.step_actions, &mut self.clipped_actions) {
                (Head::Gaussian { low, high }, Buffer::F32(drawn), Buffer::F32(clipped)) => {
                    clip_actions(drawn, low, high, clipped);
                    &self.clipped_actions
                }
                _ => &self.step_actions,
            };
            envs.step(as_actions(actions)).map_err(env_failed)?;
            self.rewards[row.clone()].copy_from_slice(envs.rewards());
            self.terminated[row.clone()].copy_from_slice(envs.terminated());
            self.truncated[row].copy_from_slice(envs.truncated());
            if let Some(normalizer) = rewards.as_deref_mut() {
                normalizer.observe(envs.rewards(), envs.terminated(), envs.truncated());
            }
            for i in 0..n {
                if envs.truncated()[i] && !envs.terminated()[i] {
                    self.truncated_at.push(t * n + i);
                    let (at, len) = (self.final_observations.len(), self.encoder.row_len());
                    self.final_observations.resize(at + len);
                    let row = i * len..(i + 1) * len;
                    see(envs.final_observations(), row, observations.as_deref(), &mut self.final_observations, at);
                }
            }
            for episode in envs.ended_episodes() {
                self.episode_returns.push(episode.episode_return);
                self.episode_lengths.push(episode.length);
            }
        }
        see(envs.observations(), 0..width, observations.as_deref(), &mut self.next_observations, 0);
        if let Some(normalizer) = observations {
            normalizer.update();
        }
        if let Some(normalizer) = rewards {
            normalizer.normalize(&mut self.rewards);
        }
        Ok(())
    }

    /// Writes the value estimates of the states before and after each step, both `[T, N]`; see
    /// [`crate::gae::Trajectory`].
    pub fn estimate_values(&mut self, critic: &mut CompiledActorCritic, values: &mut [f32], next_values: &mut [f32]) {
        let n = self.num_envs;
        // Encoded pixels take a multiple of the memory: a time step at once.
        let part = if self.encoder.is_identity() { self.len() } else { n };
        for start in (0..self.len()).step_by(part) {
            let rows = start..start + part;
            let input = self.encoder.input(&self.observations, rows.clone(), &mut self.scratch);
            values[rows].copy_from_slice(critic.values(input));
        }
        let stay = self.len() - n;
        next_values[..stay].copy_from_slice(&values[n..]);
        let input = self.encoder.input(&self.next_observations, 0..n, &mut self.scratch);
        next_values[stay..].copy_from_slice(critic.values(input));
        if !self.truncated_at.is_empty() {
            let rows = 0..self.truncated_at.len();
            let last = critic.values(self.encoder.input(&self.final_observations, rows, &mut self.scratch));
            self.truncated_at.iter().zip(last).for_each(|(at, value)| next_values[*at] = *value);
        }
    }
}

/// Copies the elements `range` of observations to those from `at` on, normalised if they are to be.
fn see(from: &Buffer, range: Range<usize>, normalizer: Option<&ObservationNormalizer>, to: &mut Buffer, at: usize) {
    match (normalizer, from, &mut *to) {
        (Some(normalizer), Buffer::F32(from), Buffer::F32(to)) => {
            let to = &mut to[at..at + range.len()];
            normalizer.normalize(&from[range], to);
        }
        _ => to.copy_from(at, from, range),
    }
}
