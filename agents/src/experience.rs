//! What algorithms share that learn from a replay memory: environments that are stepped with exploration, the memory,
//! the batches drawn from it, and the loop of collecting and learning.
//!
//! Networks and the replay memory see the actions of a `Box` scaled to `[-1, 1]`; the environments get them within their
//! bounds. Returns are bootstrapped from the final observation of a truncated episode, and never after a termination.

use hotfire_core::CoreError;
use hotfire_core::checkpoint::{CheckpointReader, CheckpointWriter};
use hotfire_core::config::{ConfigDocument, ConfigError};
use hotfire_core::metrics::{Means, Metrics};
use hotfire_core::schedule::Schedule;
use hotfire_core::seed::{StreamRng, stream};
use hotfire_envs::{Buffer, Dtype, Space, VecEnv};
use hotfire_nn::InputShape;
use serde::{Deserialize, Serialize};

use crate::agent::env_failed;
use crate::checkpoint::{load_envs, misfit, save_envs};
use crate::observation::ObservationEncoder;
use crate::on_policy::Check;
use crate::registry::Setting;
use crate::replay::{Batch, Replay, ReplayConfig};

/// Environment steps of one iteration, of which the metrics are means.
const ITERATION_STEPS: u64 = 100;

/// Time step and rate of return of the Ornstein-Uhlenbeck process.
const OU_TIME_STEP: f32 = 1e-2;
const OU_RETURN_RATE: f32 = 0.15;

/// What is added to actions while experience is collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Noise {
    /// Nothing.
    None,
    /// Independent draws of a normal distribution.
    Gaussian,
    /// An Ornstein-Uhlenbeck process, whose draws hang together over hundreds of steps: Lillicrap et al. 2016,
    /// <https://arxiv.org/abs/1509.02971>, section 3. It starts from zero with each episode.
    Ou,
}

/// The part of an algorithm's settings that [`Experience`] needs.
#[derive(Clone, Debug)]
pub(crate) struct ExperienceConfig {
    pub gamma: f64,
    pub batch_size: usize,
    pub replay_capacity: usize,
    pub learning_starts: u64,
    pub train_freq: usize,
    pub gradient_steps: usize,
    pub n_step: usize,
    /// Chance of a random Discrete action, and the part of the run over which it runs.
    pub epsilon: Schedule,
    pub exploration_fraction: f64,
    /// What is added to Box actions.
    pub noise: Noise,
    pub noise_std: f64,
    /// Whether the algorithm makes use of the environments' action masks.
    pub uses_masks: bool,
    /// `None` for uniform draws.
    pub priority_exponent: Option<f64>,
    pub checkpoint_replay: bool,
    pub replay_directory: Option<std::path::PathBuf>,
}

impl ExperienceConfig {
    pub fn check(&self, check: &Check<'_>, setting: &Setting<'_>) -> Result<(), ConfigError> {
        check.range("gamma", self.gamma, 0.0, 1.0)?;
        check_exploration(check, self.epsilon, self.exploration_fraction)?;
        check.range("noise_std", self.noise_std, 0.0, f64::MAX)?;
        check.at_least_one("batch_size", self.batch_size)?;
        check.at_least_one("replay_capacity", self.replay_capacity)?;
        check.at_least_one("train_freq", self.train_freq)?;
        if self.train_freq as u64 > setting.total_steps {
            let expected = format!("at most train.steps = {}", setting.total_steps);
            return check.refuse("train_freq", &expected, self.train_freq);
        }
        check.at_least_one("gradient_steps", self.gradient_steps)?;
        check.at_least_one("n_step", self.n_step)?;
        if self.replay_capacity > u32::MAX as usize / 2 {
            return check.refuse("replay_capacity", "at most 2147483647", self.replay_capacity);
        }
        if self.batch_size > self.replay_capacity {
            let expected = format!("at most agent.replay_capacity = {}", self.replay_capacity);
            return check.refuse("batch_size", &expected, self.batch_size);
        }
        if self.learning_starts >= setting.total_steps {
            let expected = format!("less than train.steps = {}, so that something is learned", setting.total_steps);
            return check.refuse("learning_starts", &expected, self.learning_starts);
        }
        Ok(())
    }
}

/// Checks `epsilon` and `exploration_fraction`.
pub(crate) fn check_exploration(check: &Check<'_>, epsilon: Schedule, fraction: f64) -> Result<(), ConfigError> {
    let (low, high) = epsilon.bounds();
    check.range("epsilon", low, 0.0, 1.0)?;
    check.range("epsilon", high, 0.0, 1.0)?;
    check.range("exploration_fraction", fraction, 0.0, 1.0)
}

/// The chance of a random action at a step: `epsilon` runs over the first `fraction` of the run and stays at its end.
pub(crate) fn exploration(epsilon: Schedule, fraction: f64, step: u64, total_steps: u64) -> f64 {
    let span = total_steps as f64 * fraction;
    epsilon.value(if span > 0.0 { step as f64 / span } else { 1.0 })
}

/// A random action, counted from 0, of those that count.
pub(crate) fn random_action(num_actions: usize, mask: Option<&[bool]>, rng: &mut StreamRng) -> usize {
    match mask {
        None => rng.below(num_actions as u32) as usize,
        Some(mask) => {
            let allowed = mask.iter().filter(|counts| **counts).count();
            let draw = rng.below(allowed.max(1) as u32) as usize;
            let mut counting = (0..num_actions).filter(|action| mask[*action]);
            counting.nth(draw).unwrap_or(0)
        }
    }
}

/// The spaces that an algorithm serves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Serves {
    /// Box actions.
    pub boxes: bool,
    /// Discrete actions.
    pub discrete: bool,
    /// Observations that are images.
    pub images: bool,
}

/// How an actor's output becomes an action.
#[derive(Clone, Debug)]
pub(crate) enum ActionMap {
    /// `tanh` of the first `A` outputs, stretched to the bounds.
    Box { low: Vec<f32>, high: Vec<f32> },
    /// The outputs are logits or values.
    Discrete { n: usize, start: i32 },
}

impl ActionMap {
    fn new(space: &Space, serves: Serves, name: &str) -> Result<Self, String> {
        match space {
            Space::Box { .. } if !serves.boxes => {
                Err(format!("{name} needs Discrete actions, found {space}; sac and ppo serve Box actions"))
            }
            Space::Discrete { .. } if !serves.discrete => {
                Err(format!("{name} needs Box actions, found {space}; dqn and sac serve Discrete ones"))
            }
            Space::Box { low, high, dtype: Dtype::F32, .. } => {
                if low.iter().zip(high).all(|(low, high)| (high - low).is_finite() && low < high) {
                    Ok(Self::Box { low: low.clone(), high: high.clone() })
                } else {
                    Err(format!("{name} needs actions within finite bounds, found {space}"))
                }
            }
            Space::Discrete { n, start } => Ok(Self::Discrete { n: *n as usize, start: *start }),
            Space::MultiDiscrete { .. } => Err(format!("{name} can't choose actions from {space}; ppo can")),
            _ => Err(format!("{name} can't choose actions from {space}")),
        }
    }

    /// Elements of a Box action, number of Discrete actions.
    pub fn width(&self) -> usize {
        match self {
            Self::Box { low, .. } => low.len(),
            Self::Discrete { n, .. } => *n,
        }
    }

    /// Elements that a critic's input has for the action.
    pub fn critic_inputs(&self) -> usize {
        if matches!(self, Self::Box { .. }) { self.width() } else { 0 }
    }

    /// Values that a critic gives: of the action that it looks at, or of each action.
    pub fn critic_outputs(&self) -> usize {
        if matches!(self, Self::Box { .. }) { 1 } else { self.width() }
    }

    /// The least Discrete action.
    pub fn start(&self) -> i32 {
        if let Self::Discrete { start, .. } = self { *start } else { 0 }
    }

    /// Which of a critic's values is that of the action taken: `[B]`.
    pub fn columns(&self, actions: &Buffer) -> Vec<usize> {
        match (self, actions) {
            (Self::Discrete { start, .. }, Buffer::I32(actions)) => {
                actions.iter().map(|action| (action - start) as usize).collect()
            }
            (_, actions) => vec![0; actions.len() / self.width()],
        }
    }
}

/// Environments, replay memory, and how far the run is.
pub(crate) struct Experience {
    pub config: ExperienceConfig,
    pub seed: u64,
    total_steps: u64,
    /// Environment steps taken so far.
    pub step: u64,
    /// Gradient steps so far, of the critics.
    pub updates: u64,
    envs: VecEnv,
    pub encoder: ObservationEncoder,
    pub actions: ActionMap,
    replay: Replay,
    batch: Batch,
    /// Actions as they are learned from, `[N, A]`, and as the environments get them.
    chosen: Buffer,
    stretched: Buffer,
    /// Discrete actions that chance chose, where it did: `[N]`.
    random: Vec<Option<i32>>,
    /// State of the Ornstein-Uhlenbeck process `[N, A]`.
    noise: Vec<f32>,
    inputs: Vec<f32>,
}

/// What there is to act on.
#[derive(Clone, Copy)]
pub(crate) struct Seen<'a> {
    /// Encoded observations `[N, D]`.
    pub inputs: &'a [f32],
    /// Which actions count: `[N, A]`.
    pub masks: Option<&'a [bool]>,
}

/// `B` transitions as the networks see them.
pub(crate) struct Transitions<'a> {
    /// Encoded `[B, D]`.
    pub observations: Vec<f32>,
    /// Encoded `[B, D]`.
    pub next_observations: Vec<f32>,
    /// `[B, A]`, scaled; `[B]` for Discrete actions.
    pub actions: &'a Buffer,
    /// `[B]`
    pub returns: &'a [f32],
    /// Factors `[B]` of the next values in the returns.
    pub discounts: &'a [f32],
    /// Which actions count next: `[B, A]`.
    pub next_masks: Option<&'a [bool]>,
    /// Importance weights `[B]`.
    pub weights: &'a [f32],
}

impl Experience {
    /// Makes the environments and an empty replay memory.
    ///
    /// # Errors
    /// [`ConfigError`] for an environment that the algorithm called `name` can't serve.
    pub fn new(
        config: ExperienceConfig,
        name: &str,
        serves: Serves,
        document: &ConfigDocument,
        setting: &Setting<'_>,
    ) -> Result<Self, ConfigError> {
        let mut envs = setting.env.make(setting.env.num_envs).map_err(|error| document.invalid("env", error))?;
        let (observation_space, action_space) = (envs.observation_space().clone(), envs.action_space().clone());
        let encoder = ObservationEncoder::new(&observation_space);
        let actions =
            ActionMap::new(&action_space, serves, name).map_err(|problem| document.invalid("env.id", problem))?;
        if let (InputShape::Image([channels, height, width]), false) = (encoder.shape(), serves.images) {
            let others = if matches!(actions, ActionMap::Box { .. }) { "ppo does" } else { "ppo and dqn do" };
            let problem = format!("{name} serves no pictures, found {channels}x{height}x{width}; {others}");
            return Err(document.invalid("env.id", problem));
        }
        if config.noise != Noise::None && matches!(actions, ActionMap::Discrete { .. }) {
            let problem = format!("there is no noise on Discrete actions, found {action_space}; leave it out");
            return Err(document.invalid("agent.noise", problem));
        }
        envs.reset(stream(setting.seed, "environments", 0).next_u64() >> 1);
        let masks = envs.action_masks().filter(|_| config.uses_masks);
        let layout = ReplayConfig {
            capacity: config.replay_capacity,
            n_step: config.n_step,
            gamma: config.gamma,
            frames: setting.env.stacked_frames(),
            mask_len: masks.map_or(0, |masks| masks.len() / envs.num_envs()),
            priority_exponent: config.priority_exponent,
            directory: config.replay_directory.clone(),
        };
        let key = if layout.directory.is_some() { "agent.replay_directory" } else { "agent.replay_capacity" };
        let mut replay = Replay::new(&observation_space, &action_space, envs.num_envs(), layout)
            .map_err(|error| document.invalid(key, error))?;
        replay.begin(envs.observations(), masks);
        Ok(Self {
            seed: setting.seed,
            total_steps: setting.total_steps,
            step: 0,
            updates: 0,
            batch: Batch::new(&observation_space, &action_space, config.batch_size),
            chosen: Buffer::new(&action_space, envs.num_envs()),
            stretched: Buffer::new(&action_space, envs.num_envs()),
            random: vec![None; envs.num_envs()],
            noise: vec![0.0; envs.num_envs() * actions.critic_inputs()],
            inputs: Vec::new(),
            replay,
            encoder,
            actions,
            envs,
            config,
        })
    }

    /// From now on a draw is as many batches at once.
    pub fn draw_at_once(&mut self, batches: usize) {
        let size = self.config.batch_size * batches;
        self.batch = Batch::new(self.envs.observation_space(), self.envs.action_space(), size);
    }

    /// Batches of a draw.
    pub fn batches(&self) -> usize {
        self.batch.indices.len() / self.config.batch_size
    }

    /// Share of the run that is done.
    pub fn progress(&self) -> f64 {
        self.step as f64 / self.total_steps as f64
    }

    /// The first environment's encoded observation.
    pub fn example(&self) -> Vec<f32> {
        let mut input = vec![0.0; self.encoder.outputs()];
        self.encoder.encode_rows(self.envs.observations(), 0..1, &mut input);
        input
    }

    /// Steps the environments for one round and stores what they give. `act` writes actions for what is seen; chance
    /// chooses instead before `learning_starts`, and then Discrete actions as often as `epsilon` says.
    pub fn collect(
        &mut self,
        means: &mut Means,
        mut act: impl FnMut(Seen<'_>, &mut Buffer, &mut StreamRng),
    ) -> Result<(), CoreError> {
        let lanes = self.envs.num_envs();
        let mut rng = stream(self.seed, "actions", self.step);
        for _ in 0..self.config.train_freq.div_ceil(lanes) {
            if self.draw_random(means, &mut rng) {
                let inputs = self.encoder.input(self.envs.observations(), 0..lanes, &mut self.inputs);
                let masks = self.envs.action_masks().filter(|_| self.config.uses_masks);
                act(Seen { inputs, masks }, &mut self.chosen, &mut rng);
            }
            if let Buffer::I32(actions) = &mut self.chosen {
                let random = actions.iter_mut().zip(&self.random);
                random.for_each(|(action, random)| *action = random.unwrap_or(*action));
            }
            self.add_noise(&mut rng);
            self.stretch();
            self.envs.step(self.stretched.as_actions()).map_err(env_failed)?;
            self.replay.push(&self.chosen, (&self.envs).into());
            self.step += lanes as u64;
            let width = self.noise.len() / lanes;
            for episode in self.envs.ended_episodes() {
                means.add("episode_return", episode.episode_return);
                means.add("episode_length", f64::from(episode.length));
                self.noise[episode.env * width..][..width].fill(0.0);
            }
        }
        Ok(())
    }

    /// Lets chance choose the actions that are its; returns whether any are left to the policy.
    fn draw_random(&mut self, means: &mut Means, rng: &mut StreamRng) -> bool {
        let warming_up = self.step < self.config.learning_starts;
        let (n, start) = match (&mut self.chosen, &self.actions) {
            (Buffer::I32(_), ActionMap::Discrete { n, start }) => (*n, *start),
            (Buffer::F32(actions), _) => {
                if warming_up {
                    actions.iter_mut().for_each(|action| *action = 2.0 * rng.uniform() - 1.0);
                }
                return !warming_up;
            }
            _ => unreachable!("the buffer is made for the action space"),
        };
        let (schedule, fraction) = (self.config.epsilon, self.config.exploration_fraction);
        let epsilon = if warming_up { 1.0 } else { exploration(schedule, fraction, self.step, self.total_steps) };
        if schedule.bounds().1 > 0.0 {
            means.add("epsilon", epsilon);
        }
        let masks = self.envs.action_masks().filter(|_| self.config.uses_masks);
        for (lane, random) in self.random.iter_mut().enumerate() {
            *random = (epsilon > 0.0 && rng.uniform_f64() < epsilon).then(|| {
                let mask = masks.map(|masks| &masks[lane * n..][..n]);
                start + random_action(n, mask, rng) as i32
            });
        }
        self.random.iter().any(Option::is_none)
    }

    fn add_noise(&mut self, rng: &mut StreamRng) {
        let Buffer::F32(actions) = &mut self.chosen else { return };
        let std = self.config.noise_std as f32;
        match self.config.noise {
            Noise::None => {}
            Noise::Gaussian => actions.iter_mut().for_each(|action| *action += std * rng.normal()),
            Noise::Ou => {
                for (action, noise) in actions.iter_mut().zip(&mut self.noise) {
                    *noise += OU_TIME_STEP.sqrt() * std * rng.normal() - OU_RETURN_RATE * OU_TIME_STEP * *noise;
                    *action += *noise;
                }
            }
        }
        actions.iter_mut().for_each(|action| *action = action.clamp(-1.0, 1.0));
    }

    fn stretch(&mut self) {
        match (&self.chosen, &mut self.stretched, &self.actions) {
            (Buffer::F32(chosen), Buffer::F32(stretched), ActionMap::Box { low, high }) => {
                stretch(chosen, low, high, stretched);
            }
            (Buffer::I32(chosen), Buffer::I32(stretched), _) => stretched.copy_from_slice(chosen),
            _ => unreachable!("the buffers are made for the action space"),
        }
    }

    /// Whether enough was collected, also by a run that was resumed without its replay memory.
    fn can_learn(&self) -> bool {
        let needed = (self.config.learning_starts as usize).max(self.config.batch_size);
        self.step >= self.config.learning_starts && self.replay.len() >= needed.min(self.replay.capacity())
    }

    /// Draws the next batches; `importance_exponent` is the power of their weights.
    pub fn sample(&mut self, importance_exponent: f64) -> Transitions<'_> {
        self.replay.sample(&mut stream(self.seed, "replay", self.updates), importance_exponent, &mut self.batch);
        let encode = |buffer: &Buffer| {
            let mut out = vec![0.0; self.batch.indices.len() * self.encoder.outputs()];
            self.encoder.encode(buffer, &mut out);
            out
        };
        Transitions {
            observations: encode(&self.batch.observations),
            next_observations: encode(&self.batch.next_observations),
            actions: &self.batch.actions,
            returns: &self.batch.returns,
            discounts: &self.batch.discounts,
            next_masks: Some(&self.batch.next_masks[..]).filter(|masks| !masks.is_empty()),
            weights: &self.batch.weights,
        }
    }

    /// Sets the priorities of what was drawn by its errors `[B]`.
    pub fn update_priorities(&mut self, errors: &[f32]) {
        self.replay.update_priorities(&self.batch.indices, errors);
    }

    /// Writes the environments, the noise and the replay memory.
    pub fn save(&self, to: &mut CheckpointWriter) -> Result<(), CoreError> {
        save_envs(to, &self.envs)?;
        to.arrays("noise.safetensors", &[("noise", &self.noise)])?;
        if self.config.checkpoint_replay { self.replay.save(to) } else { Ok(()) }
    }

    /// Restores what [`Experience::save`] wrote; without a replay memory the run collects one anew.
    pub fn load(&mut self, from: &CheckpointReader) -> Result<(), CoreError> {
        let name = "noise.safetensors";
        let noise = from.arrays(name)?.remove("noise").unwrap_or_default();
        if noise.len() != self.noise.len() {
            let problem = format!("expected {} numbers, found {}", self.noise.len(), noise.len());
            return Err(misfit(from, name, problem));
        }
        load_envs(from, &mut self.envs)?;
        self.noise = noise;
        if Replay::is_in(from) {
            self.replay.load(from)?;
        } else {
            self.replay.begin(self.envs.observations(), self.envs.action_masks());
        }
        Ok(())
    }
}

/// Actions `[N, A]` from `[-1, 1]` to the bounds `[A]`.
pub(crate) fn stretch(actions: &[f32], low: &[f32], high: &[f32], out: &mut [f32]) {
    for (actions, out) in actions.chunks_exact(low.len()).zip(out.chunks_exact_mut(low.len())) {
        for (((action, low), high), out) in actions.iter().zip(low).zip(high).zip(out) {
            *out = (low + 0.5 * (action + 1.0) * (high - low)).clamp(*low, *high);
        }
    }
}

/// An algorithm that learns from a replay memory.
pub(crate) trait OffPolicy {
    /// Its experience.
    fn experience(&self) -> &Experience;

    /// One round of [`Experience::collect`] with the policy as it is.
    fn collect(&mut self, means: &mut Means) -> Result<(), CoreError>;

    /// As many gradient steps as a round has.
    fn learn(&mut self, means: &mut Means);
}

/// Rounds of collecting and, where there is enough to learn from, of learning; returns the means of what happened.
pub(crate) fn iterate(agent: &mut impl OffPolicy) -> Result<Metrics, CoreError> {
    let mut means = Means::default();
    let Experience { step, total_steps, .. } = *agent.experience();
    let end = (step + ITERATION_STEPS).min(total_steps).max(step + 1);
    while agent.experience().step < end {
        agent.collect(&mut means)?;
        if agent.experience().can_learn() {
            agent.learn(&mut means);
        }
    }
    Ok(means.into_metrics())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exploration_runs_over_its_part_of_the_run() {
        let epsilon = Schedule::Linear { from: 1.0, to: 0.2 };
        let at = |step| exploration(epsilon, 0.1, step, 1000);
        assert_eq!((at(0), at(50), at(100), at(900)), (1.0, 0.6, 0.2, 0.2));
        assert_eq!(exploration(epsilon, 0.0, 0, 1000), 0.2, "no part of the run: the end at once");
    }

    #[test]
    fn chance_keeps_to_the_mask() {
        let mut rng = stream(1, "test", 0);
        let mut counts = [0; 4];
        (0..3000).for_each(|_| counts[random_action(4, Some(&[true, false, false, true]), &mut rng)] += 1);
        assert_eq!((counts[1], counts[2]), (0, 0));
        assert!((counts[0] - 1500i32).abs() < 150, "{counts:?}");
        (0..3000).for_each(|_| counts[random_action(4, None, &mut rng)] += 1);
        assert!(counts[1] > 650 && counts[2] > 650, "{counts:?}");
    }

    #[test]
    fn actions_are_stretched_to_their_bounds() {
        let mut out = [0.0; 4];
        stretch(&[-1.0, 0.0, 1.0, 0.5], &[-2.0, 0.0], &[2.0, 10.0], &mut out);
        assert_eq!(out, [-2.0, 5.0, 2.0, 7.5]);
    }
}
