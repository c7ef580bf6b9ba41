//! A rollout from parallel environments, `[T, N, ...]` in host memory, allocated once.

use std::ops::Range;

use hotfire_core::CoreError;
use hotfire_core::seed::StreamRng;
use hotfire_envs::{Buffer, VecEnv};

use crate::actor_critic::{CompiledActorCritic, Head, clip_actions, forget_ended};
use crate::agent::env_failed;
use crate::env_config::LONGEST_EPISODE;
use crate::normalize::{ObservationNormalizer, RewardNormalizer};
use crate::observation::ObservationEncoder;

/// How long a rollout goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// For so many steps of every environment; episodes go on in the next rollout.
    Steps(usize),
    /// All environments start anew, and go on until each has ended an episode.
    EpisodesEnd,
}

/// `T` steps of `N` environments.
#[derive(Clone, Debug)]
pub struct Rollout {
    /// Number of environments `N`.
    pub num_envs: usize,
    /// Observations that the actions were chosen from, normalised but not encoded: `[T, N, D]`.
    pub observations: Buffer,
    /// Which actions there were, where the environments say so: `[T, N, A]`.
    pub action_masks: Option<Vec<bool>>,
    /// Actions as they were drawn, before clipping: `[T, N, K]`.
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
    /// What a recurrent policy remembered before the first step, `[N, H]`.
    pub initial_states: Vec<f32>,
    /// What it remembers after the last step, `[N, H]`: where the next rollout starts from.
    pub states: Vec<f32>,
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
    /// An empty rollout of the environments, whose policy has a memory of `units` units (0 without one).
    pub fn new(envs: &VecEnv, units: usize) -> Self {
        let n = envs.num_envs();
        let observations = |rows| Buffer::new(envs.observation_space(), rows);
        Self {
            num_envs: n,
            observations: observations(0),
            action_masks: envs.action_masks().map(|_| Vec::new()),
            actions: Buffer::new(envs.action_space(), 0),
            log_probs: Vec::new(),
            rewards: Vec::new(),
            terminated: Vec::new(),
            truncated: Vec::new(),
            next_observations: observations(n),
            truncated_at: Vec::new(),
            final_observations: observations(0),
            initial_states: vec![0.0; n * units],
            states: vec![0.0; n * units],
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

    /// Makes room for `steps` steps, or cuts to as many.
    fn resize(&mut self, steps: usize) {
        let rows = steps * self.num_envs;
        self.observations.resize(rows * self.encoder.row_len());
        self.actions.resize(steps * self.step_actions.len());
        self.log_probs.resize(rows, 0.0);
        self.rewards.resize(rows, 0.0);
        self.terminated.resize(rows, false);
        self.truncated.resize(rows, false);
    }

    /// Fills the rollout with the policy's own steps. The normalisers' statistics take in the rollout at its end.
    ///
    /// # Errors
    /// If the environments refuse an action, as they do one that is not finite, or an episode that is waited for does
    /// not end.
    pub fn collect(
        &mut self,
        until: Until,
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
        if let Some(masks) = &mut self.action_masks {
            masks.clear();
        }
        match until {
            Until::Steps(steps) => self.resize(steps),
            Until::EpisodesEnd => {
                envs.reset_masked(&vec![true; n]).map_err(env_failed)?;
                self.states.fill(0.0);
            }
        }
        self.initial_states.copy_from_slice(&self.states);
        let mut playing = vec![true; n];
        let mut t = 0;
        while match until {
            Until::Steps(steps) => t < steps,
            Until::EpisodesEnd => playing.contains(&true),
        } {
            if (t + 1) * n > self.len() {
                self.resize((2 * t).max(64));
            }
            let row = t * n..(t + 1) * n;
            see(envs.observations(), 0..width, observations.as_deref(), &mut self.observations, t * width);
            if let (Some(normalizer), Buffer::F32(rows)) = (observations.as_deref_mut(), envs.observations()) {
                normalizer.observe(rows);
            }
            let masks = envs.action_masks();
            if let (Some(kept), Some(masks)) = (&mut self.action_masks, masks) {
                kept.extend_from_slice(masks);
            }
            let input = self.encoder.input(&self.observations, row.clone(), &mut self.scratch);
            let log_probs = &mut self.log_probs[row.clone()];
            policy.sample(input, &mut self.states, masks, rng, &mut self.step_actions, log_probs);
            let actions = self.step_actions.len();
            self.actions.copy_from(t * actions, &self.step_actions, 0..actions);
            let actions = match (policy.head(), &self.step_actions, &mut self.clipped_actions) {
                (Head::Gaussian { low, high }, Buffer::F32(drawn), Buffer::F32(clipped)) => {
                    clip_actions(drawn, low, high, clipped);
                    &self.clipped_actions
                }
                _ => &self.step_actions,
            };
            envs.step(actions.as_actions()).map_err(env_failed)?;
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
                if playing[episode.env] || until != Until::EpisodesEnd {
                    self.episode_returns.push(episode.episode_return);
                    self.episode_lengths.push(episode.length);
                }
                playing[episode.env] = false;
            }
            forget_ended(&mut self.states, envs.terminated(), envs.truncated());
            t += 1;
            if until == Until::EpisodesEnd && t == LONGEST_EPISODE as usize && playing.contains(&true) {
                let problem = format!("an episode goes on after {t} steps; limit it by env.options.max_episode_steps");
                return Err(CoreError::Failed(problem));
            }
        }
        self.resize(t);
        see(envs.observations(), 0..width, observations.as_deref(), &mut self.next_observations, 0);
        if let Some(normalizer) = observations {
            normalizer.update();
        }
        if let Some(normalizer) = rewards {
            normalizer.normalize(&mut self.rewards);
        }
        Ok(())
    }

    /// Writes the value estimates of the states before and after each step, both `[V, T, N]`; see
    /// [`crate::gae::Trajectory`]. After a truncated step the first head looks at the final observation; the others, whose
    /// rewards do not end with the episode, at the first of the next one.
    pub fn estimate_values(&mut self, critic: &mut CompiledActorCritic, values: &mut [f32], next_values: &mut [f32]) {
        let (n, len) = (self.num_envs, self.len());
        let heads = critic.value_heads();
        let put = |values: &mut [f32], at: usize, estimates: &[f32]| {
            for (i, estimate) in estimates.iter().enumerate() {
                values[i % heads * len + at + i / heads] = *estimate;
            }
        };
        let mut states = self.initial_states.clone();
        // A memory goes step by step, and encoded pixels take a multiple of the space.
        let part = if self.encoder.is_identity() && states.is_empty() { len } else { n };
        let mut finals = Vec::new();
        for start in (0..len).step_by(part) {
            let rows = start..start + part;
            let input = self.encoder.input(&self.observations, rows.clone(), &mut self.scratch);
            put(values, start, critic.values(input, &mut states));
            if states.is_empty() {
                continue;
            }
            for (i, at) in self.truncated_at.iter().enumerate().filter(|(_, at)| rows.contains(at)) {
                let units = states.len() / n;
                let mut state = states[at % n * units..][..units].to_vec();
                let input = self.encoder.input(&self.final_observations, i..i + 1, &mut self.scratch);
                finals.extend_from_slice(critic.values(input, &mut state));
            }
            forget_ended(&mut states, &self.terminated[rows.clone()], &self.truncated[rows]);
        }
        let stay = len - n;
        for head in 0..heads {
            next_values[head * len..][..stay].copy_from_slice(&values[head * len + n..][..stay]);
        }
        let input = self.encoder.input(&self.next_observations, 0..n, &mut self.scratch);
        put(next_values, stay, critic.values(input, &mut states));
        let rows = 0..self.truncated_at.len();
        if states.is_empty() && !rows.is_empty() {
            let input = self.encoder.input(&self.final_observations, rows, &mut self.scratch);
            finals.extend_from_slice(critic.values(input, &mut []));
        }
        for (estimates, at) in finals.chunks_exact(heads).zip(&self.truncated_at) {
            next_values[*at] = estimates[0];
        }
    }

    /// Encoded observations that the steps led to, `[T, N, D]`: of the next episode where one ended.
    pub fn next_inputs(&self) -> Vec<f32> {
        let (n, d) = (self.num_envs, self.encoder.outputs());
        let mut inputs = vec![0.0; self.len() * d];
        let (stay, last) = inputs.split_at_mut((self.len() - n) * d);
        self.encoder.encode_rows(&self.observations, n..self.len(), stay);
        self.encoder.encode(&self.next_observations, last);
        inputs
    }

    /// Where a step is the first of an episode as far as the rollout knows, so that nothing is remembered: `[T, N]`.
    pub fn starts(&self) -> Vec<bool> {
        let n = self.num_envs;
        // An episode that starts with the rollout finds its state at zero already.
        (0..self.len()).map(|i| i >= n && (self.terminated[i - n] || self.truncated[i - n])).collect()
    }

    /// The steps of the first episode of each environment, in order.
    pub fn first_episodes(&self) -> Vec<u32> {
        let mut playing = vec![true; self.num_envs];
        let mut rows = Vec::with_capacity(self.len());
        for i in 0..self.len() {
            let env = i % self.num_envs;
            if playing[env] {
                rows.push(i as u32);
            }
            playing[env] &= !(self.terminated[i] || self.truncated[i]);
        }
        rows
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

#[cfg(test)]
mod tests {
    use burn::prelude::Device;
    use hotfire_core::seed::stream;
    use hotfire_envs::{AutoresetMode, OptionValue};
    use hotfire_nn::{Activation, Network, Torso};

    use super::*;
    use crate::actor_critic::{ActorCritic, ActorCriticShape};

    /// The episodes are cut off in the rollout's last step.
    #[test]
    fn only_the_first_head_ends_with_the_episode() {
        let limit = [("max_episode_steps".to_owned(), OptionValue::Int(3))];
        let mut envs = VecEnv::make_with("CartPole-v1", &limit, 2, AutoresetMode::SameStep).unwrap();
        envs.reset(1);
        let head = Head::of(envs.action_space()).unwrap();
        let (device, mut rng) = (Device::flex(), stream(1, "test", 0));
        let inputs = ObservationEncoder::new(envs.observation_space()).shape();
        let torso = Torso::new(Network::Auto, inputs, &mut rng, &device).unwrap();
        let shape = ActorCriticShape {
            recurrent_units: None,
            hidden: &[8],
            activation: Activation::Tanh,
            value_heads: 2,
            initial_log_std: 0.0,
        };
        let mut policy = ActorCritic::new(torso, &head, shape, &mut rng, &device).compile(&head);
        let mut rollout = Rollout::new(&envs, 0);
        rollout.collect(Until::Steps(3), &mut envs, &mut policy, &mut rng, None, None).unwrap();
        assert_eq!(rollout.truncated_at, [4, 5]);
        let (mut values, mut next_values) = ([0.0; 12], [0.0; 12]);
        rollout.estimate_values(&mut policy, &mut values, &mut next_values);
        let mut values_of = |observations: &Buffer| policy.values(observations.as_f32().unwrap(), &mut []).to_vec();
        let (last, next) = (values_of(&rollout.final_observations), values_of(&rollout.next_observations));
        for env in 0..2 {
            assert_ne!(last[2 * env + 1], next[2 * env + 1]);
            assert_eq!((next_values[4 + env], next_values[10 + env]), (last[2 * env], next[2 * env + 1]));
        }
    }
}
