//! A rollout of fixed length from parallel environments, `[T, N, ...]` in host memory, allocated once.

use hotfire_core::CoreError;
use hotfire_core::seed::StreamRng;
use hotfire_envs::{Buffer, VecEnv};

use crate::actor_critic::{CompiledActorCritic, Head, clip_actions};
use crate::agent::{as_actions, env_failed};
use crate::normalize::{ObservationNormalizer, RewardNormalizer};

/// `T` steps of `N` environments.
#[derive(Clone, Debug)]
pub struct Rollout {
    /// Number of environments `N`.
    pub num_envs: usize,
    /// Observations that the actions were chosen from, as the policy saw them: `[T, N, D]`.
    pub observations: Vec<f32>,
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
    pub next_observations: Vec<f32>,
    /// Which entries of `[T, N]` were truncated without terminating, in order.
    pub truncated_at: Vec<usize>,
    /// The final observations of those entries, before the reset: `[truncated_at.len(), D]`.
    pub final_observations: Vec<f32>,
    /// Returns of the episodes that ended, undiscounted and not normalised.
    pub episode_returns: Vec<f64>,
    /// Lengths of those episodes.
    pub episode_lengths: Vec<u32>,
    step_actions: Buffer,
    clipped_actions: Buffer,
}

impl Rollout {
    /// An empty rollout of `steps` steps of the environments.
    pub fn new(envs: &VecEnv, steps: usize) -> Self {
        let (n, d) = (envs.num_envs(), envs.observation_space().len());
        Self {
            num_envs: n,
            observations: vec![0.0; steps * n * d],
            actions: Buffer::new(envs.action_space(), steps * n),
            log_probs: vec![0.0; steps * n],
            rewards: vec![0.0; steps * n],
            terminated: vec![false; steps * n],
            truncated: vec![false; steps * n],
            next_observations: vec![0.0; n * d],
            truncated_at: Vec::new(),
            final_observations: Vec::new(),
            episode_returns: Vec::new(),
            episode_lengths: Vec::new(),
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
        let d = self.next_observations.len() / n;
        self.truncated_at.clear();
        self.final_observations.clear();
        self.episode_returns.clear();
        self.episode_lengths.clear();
        for t in 0..self.len() / n {
            let row = t * n..(t + 1) * n;
            let seen = &mut self.observations[t * n * d..(t + 1) * n * d];
            see(envs.observations_f32(), observations.as_deref(), seen);
            if let Some(normalizer) = observations.as_deref_mut() {
                normalizer.observe(envs.observations_f32());
            }
            policy.sample(seen, rng, &mut self.step_actions, &mut self.log_probs[row.clone()]);
            copy_rows(&self.step_actions, &mut self.actions, t);
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
                    let at = self.final_observations.len();
                    self.final_observations.resize(at + d, 0.0);
                    let last = &envs.final_observations_f32()[i * d..(i + 1) * d];
                    see(last, observations.as_deref(), &mut self.final_observations[at..]);
                }
            }
            for episode in envs.ended_episodes() {
                self.episode_returns.push(episode.episode_return);
                self.episode_lengths.push(episode.length);
            }
        }
        see(envs.observations_f32(), observations.as_deref(), &mut self.next_observations);
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
    pub fn estimate_values(&self, critic: &mut CompiledActorCritic, values: &mut [f32], next_values: &mut [f32]) {
        let n = self.num_envs;
        values.copy_from_slice(critic.values(&self.observations));
        let stay = self.len() - n;
        next_values[..stay].copy_from_slice(&values[n..]);
        next_values[stay..].copy_from_slice(critic.values(&self.next_observations));
        if !self.truncated_at.is_empty() {
            let last = critic.values(&self.final_observations);
            self.truncated_at.iter().zip(last).for_each(|(at, value)| next_values[*at] = *value);
        }
    }
}

/// Writes observations as the policy sees them.
fn see(rows: &[f32], normalizer: Option<&ObservationNormalizer>, out: &mut [f32]) {
    match normalizer {
        Some(normalizer) => normalizer.normalize(rows, out),
        None => out.copy_from_slice(rows),
    }
}

/// Copies one step's actions `[N, A]` to step `t` of `[T, N, A]`.
fn copy_rows(from: &Buffer, to: &mut Buffer, t: usize) {
    match (from, to) {
        (Buffer::F32(from), Buffer::F32(to)) => to[t * from.len()..][..from.len()].copy_from_slice(from),
        (Buffer::U8(from), Buffer::U8(to)) => to[t * from.len()..][..from.len()].copy_from_slice(from),
        (Buffer::I32(from), Buffer::I32(to)) => to[t * from.len()..][..from.len()].copy_from_slice(from),
        _ => unreachable!("both buffers are made for one action space"),
    }
}
