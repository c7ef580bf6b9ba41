//! Many environments stepped as one batch, with the semantics of Gymnasium 1.4's `SyncVectorEnv`
//! (the three autoreset modes; environment `i` seeded with `seed + i`, later resets go on with its own generator).
//!
//! Departures: every action is checked before any environment steps; the observation before a reset lies in
//! [`VecEnv::final_observations`] in every mode, not in an info dictionary; rewards are 32-bit, while episode returns
//! are summed in double precision.
//!
//! A step runs on the calling thread. It is split over rayon's pool only while a whole batch costs more than
//! [`SPLIT_ABOVE_NS`], which is measured as it goes: environments share nothing, so results never depend on it.

mod part;

use std::sync::atomic::AtomicU64;

use crate::{
    ActionRef, Actions, Buffer, Dtype, Env, EnvError, NpRng, ObsMut, OptionValue, Space, StateReader, StateWriter, make,
};
use part::{Part, part_len};

/// Cost of one batch, in nanoseconds, above which it is split: handing work to the pool and joining takes about
/// 10 us (median of `rayon::join` from outside the pool, two busy cores).
const SPLIT_ABOVE_NS: u64 = 60_000;
/// Every step is timed up to this one, later only each of as many.
const TIMED_EVERY: u64 = 256;

/// What happens to an environment whose episode has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoresetMode {
    /// The next step resets it, ignores its action, and gives reward 0 and no end.
    NextStep,
    /// The same step resets it: the observation is already the next episode's first.
    SameStep,
    /// Nothing: the caller resets it ([`VecEnv::reset_masked`]) before the next step.
    Disabled,
}

/// An episode that ended in the last step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EndedEpisode {
    /// Which environment of the batch.
    pub env: usize,
    /// Sum of the rewards, undiscounted; below the wrappers that change rewards, see [`crate::make_wrapped`].
    pub episode_return: f64,
    /// Number of steps.
    pub length: u32,
}

/// One environment with what belongs to it alone.
struct Lane {
    env: Box<dyn Env>,
    rng: NpRng,
    episode_return: f64,
    length: u32,
    ended_return: f64,
    ended_length: u32,
}

impl Lane {
    fn reset(&mut self, obs: ObsMut<'_>) {
        self.episode_return = 0.0;
        self.length = 0;
        self.env.reset(&mut self.rng, obs);
    }
}

/// `N` environments of one kind, stepped together into contiguous buffers.
pub struct VecEnv {
    id: String,
    mode: AutoresetMode,
    lanes: Vec<Lane>,
    observation_space: Space,
    action_space: Space,
    obs_len: usize,
    action_len: usize,
    action_dtype: Dtype,
    observations: Buffer,
    final_observations: Buffer,
    rewards: Vec<f32>,
    terminated: Vec<bool>,
    truncated: Vec<bool>,
    action_masks: Option<Vec<bool>>,
    /// Whether an environment runs outside of this program.
    foreign: bool,
    /// Whether [`VecEnv::reset`] or [`VecEnv::load_state`] has run.
    started: bool,
    steps: u64,
    cost_ns: u64,
}

impl VecEnv {
    /// `num_envs` registered environments of this id.
    ///
    /// # Errors
    /// [`EnvError::UnknownEnv`], or [`EnvError::BadBatch`] for no environments.
    pub fn make(id: &str, num_envs: usize, mode: AutoresetMode) -> Result<Self, EnvError> {
        Self::make_with(id, &[], num_envs, mode)
    }

    /// `num_envs` registered environments of this id, with options.
    ///
    /// # Errors
    /// [`EnvError`] for an unknown id or option, a value out of range, or no environments.
    pub fn make_with(
        id: &str,
        options: &[(String, OptionValue)],
        num_envs: usize,
        mode: AutoresetMode,
    ) -> Result<Self, EnvError> {
        let envs = (0..num_envs).map(|_| make(id, options)).collect::<Result<_, _>>()?;
        Self::from_envs(id, envs, mode)
    }

    /// These environments; `id` names them in messages.
    ///
    /// # Errors
    /// [`EnvError::BadBatch`] for no environments, or different spaces.
    pub fn from_envs(id: &str, envs: Vec<Box<dyn Env>>, mode: AutoresetMode) -> Result<Self, EnvError> {
        let bad = |expected: String, found: String| EnvError::BadBatch { env: id.to_owned(), expected, found };
        let Some(first) = envs.first() else {
            return Err(bad("at least one environment".into(), "none".into()));
        };
        let (observation, action) = (first.observation_space(), first.action_space());
        for env in &envs {
            for (expected, found) in [(observation, env.observation_space()), (action, env.action_space())] {
                if expected != found {
                    return Err(bad(format!("environments with the space {expected}"), found.to_string()));
                }
            }
        }
        let num_envs = envs.len();
        let masked = first.action_mask(&mut vec![true; action.flat_len()]);
        let action_masks = masked.then(|| vec![true; num_envs * action.flat_len()]);
        let (observation_space, action_space) = (observation.clone(), action.clone());
        let buffer = Buffer::new(observation, num_envs);
        let lane =
            |env| Lane { env, rng: NpRng::seed(0), episode_return: 0.0, length: 0, ended_return: 0.0, ended_length: 0 };
        let mut lanes: Vec<_> = envs.into_iter().map(lane).collect();
        let foreign = lanes.iter_mut().any(|lane| lane.env.foreign().is_some());
        Ok(Self {
            id: id.to_owned(),
            mode,
            lanes,
            obs_len: observation_space.len(),
            action_len: action_space.len(),
            action_dtype: action_space.dtype(),
            observation_space,
            action_space,
            final_observations: buffer.clone(),
            observations: buffer,
            rewards: vec![0.0; num_envs],
            terminated: vec![false; num_envs],
            truncated: vec![false; num_envs],
            action_masks,
            foreign,
            started: false,
            steps: 0,
            cost_ns: 0,
        })
    }

    /// Seeds environment `i` with `seed + i` and starts all episodes.
    pub fn reset(&mut self, seed: u64) {
        for (i, lane) in self.lanes.iter_mut().enumerate() {
            let seed = u128::from(seed) + i as u128;
            lane.rng = NpRng::seed_u128(seed);
            if let Some(env) = lane.env.foreign() {
                env.seed(seed);
            }
        }
        (0..self.lanes.len()).for_each(|i| self.reset_lane(i));
        self.rewards.fill(0.0);
        self.started = true;
        self.update_action_masks();
    }

    /// Starts new episodes where `mask` is true; each generator goes on from where it is.
    ///
    /// # Errors
    /// [`EnvError::BadBatch`] if the mask does not have `N` elements, [`EnvError::NeedsReset`] before the first
    /// [`VecEnv::reset`].
    pub fn reset_masked(&mut self, mask: &[bool]) -> Result<(), EnvError> {
        if mask.len() != self.lanes.len() {
            return Err(self.bad_batch(format!("a mask of {} elements", self.lanes.len()), mask.len().to_string()));
        }
        if !self.started {
            return Err(EnvError::NeedsReset { env: self.id.clone(), index: 0 });
        }
        (0..mask.len()).filter(|i| mask[*i]).for_each(|i| self.reset_lane(i));
        self.update_action_masks();
        Ok(())
    }

    #[inline]
    fn update_action_masks(&mut self) {
        if let Some(masks) = &mut self.action_masks {
            let width = masks.len() / self.lanes.len();
            for (lane, mask) in self.lanes.iter().zip(masks.chunks_exact_mut(width)) {
                lane.env.action_mask(mask);
            }
        }
    }

    fn reset_lane(&mut self, i: usize) {
        self.terminated[i] = false;
        self.truncated[i] = false;
        self.lanes[i].reset(self.observations.as_mut().slice(i * self.obs_len..(i + 1) * self.obs_len));
    }

    /// Steps every environment with its row of `actions`: `[N, A]`.
    ///
    /// Finite actions outside the bounds of a `Box` are passed on: environments clamp them as Gymnasium's do. In
    /// [`AutoresetMode::NextStep`] the rows of environments that are being reset are checked, then ignored.
    ///
    /// Nothing is allocated unless the batch is split over threads.
    ///
    /// # Errors
    /// [`EnvError::BadBatch`] for the wrong element type or number of actions, [`EnvError::BadAction`] for one outside
    /// the space or not finite, [`EnvError::NeedsReset`] before the first reset or, with autoreset disabled, past an
    /// episode's end; no environment has stepped then. [`EnvError::Foreign`] if an environment outside of this program
    /// has failed, in this step or in the reset before it.
    pub fn step(&mut self, actions: Actions<'_>) -> Result<(), EnvError> {
        self.check(actions)?;
        let timed = self.steps < TIMED_EVERY || self.steps.is_multiple_of(TIMED_EVERY);
        self.steps += 1;
        if self.foreign {
            return self.step_foreign(actions);
        }
        let cost_ns = self.cost_ns;
        let split = cost_ns > SPLIT_ABOVE_NS;
        let mut all = self.part(actions);
        if !timed && !split {
            all.step();
            self.update_action_masks();
            return Ok(());
        }
        let busy_ns = AtomicU64::new(0);
        let part_len = if split { part_len(all.lanes.len(), cost_ns) } else { all.lanes.len() };
        all.run(part_len, &busy_ns);
        self.update_action_masks();
        let busy_ns = busy_ns.into_inner();
        // An interruption only ever adds time, so a lower value is believed at once and a higher one slowly.
        self.cost_ns = if self.steps == 1 { busy_ns } else { busy_ns.min(self.cost_ns + self.cost_ns / 16 + 50) };
        Ok(())
    }

    /// One after the other on this thread; an error may be from the reset before.
    #[cold]
    fn step_foreign(&mut self, actions: Actions<'_>) -> Result<(), EnvError> {
        self.check_foreign()?;
        self.part(actions).step();
        self.update_action_masks();
        self.check_foreign()
    }

    fn check_foreign(&mut self) -> Result<(), EnvError> {
        let error = |lane: &mut Lane| lane.env.foreign().and_then(|env| env.take_error());
        self.lanes.iter_mut().find_map(error).map_or(Ok(()), Err)
    }

    #[inline]
    fn check(&self, actions: Actions<'_>) -> Result<(), EnvError> {
        if !self.started {
            return Err(EnvError::NeedsReset { env: self.id.clone(), index: 0 });
        }
        if (actions.dtype(), actions.len()) != (self.action_dtype, self.lanes.len() * self.action_len) {
            return Err(self.bad_batch(
                format!("{} actions of {} {}", self.lanes.len(), self.action_len, self.action_dtype),
                format!("{} {}", actions.len(), actions.dtype()),
            ));
        }
        let space = &self.action_space;
        let accepted = match (space, actions) {
            (Space::Box { .. }, Actions::F32(all)) => all.iter().all(|x| x.is_finite()),
            (Space::Discrete { n, start: 0 }, Actions::I32(all)) => all.iter().all(|x| (*x as u32) < *n as u32),
            _ => (0..self.lanes.len()).all(|i| space.accepts_action(actions.row(i, self.action_len))),
        };
        if !accepted {
            return Err(self.bad_action(actions));
        }
        if self.mode == AutoresetMode::Disabled
            && let Some(index) = self.terminated.iter().zip(&self.truncated).position(|(a, b)| a | b)
        {
            return Err(EnvError::NeedsReset { env: self.id.clone(), index });
        }
        Ok(())
    }

    /// The whole batch.
    #[inline(always)]
    fn part<'a>(&'a mut self, actions: Actions<'a>) -> Part<'a> {
        Part {
            mode: self.mode,
            obs_len: self.obs_len,
            action_len: self.action_len,
            lanes: &mut self.lanes,
            actions,
            observations: self.observations.as_mut(),
            final_observations: self.final_observations.as_mut(),
            rewards: &mut self.rewards,
            terminated: &mut self.terminated,
            truncated: &mut self.truncated,
        }
    }

    #[cold]
    fn bad_action(&self, actions: Actions<'_>) -> EnvError {
        let row = |i| actions.row(i, self.action_len);
        let index = (0..self.lanes.len()).find(|i| !self.action_space().accepts_action(row(*i))).unwrap_or(0);
        let action = match row(index) {
            ActionRef::F32(x) => format!("{x:?}"),
            ActionRef::U8(x) => format!("{x:?}"),
            ActionRef::I32(x) => format!("{x:?}"),
        };
        EnvError::BadAction { env: self.id.clone(), index, action, space: self.action_space().to_string() }
    }

    #[cold]
    fn bad_batch(&self, expected: String, found: String) -> EnvError {
        EnvError::BadBatch { env: self.id.clone(), expected, found }
    }

    /// The id that the environments were made by.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What happens at an episode's end.
    pub fn autoreset_mode(&self) -> AutoresetMode {
        self.mode
    }

    /// Number of environments `N`.
    pub fn num_envs(&self) -> usize {
        self.lanes.len()
    }

    /// The space of one environment's observations.
    pub fn observation_space(&self) -> &Space {
        &self.observation_space
    }

    /// The space of one environment's actions.
    pub fn action_space(&self) -> &Space {
        &self.action_space
    }

    /// The current observations: `[N, D]`.
    pub fn observations(&self) -> &Buffer {
        &self.observations
    }

    /// The current observations of environments whose observations are floats: `[N, D]`.
    ///
    /// # Panics
    /// If [`Space::dtype`] of the observation space is not [`Dtype::F32`]: look at the space when choosing the network.
    pub fn observations_f32(&self) -> &[f32] {
        self.observations.as_f32().expect("observations of 32-bit floats")
    }

    /// The observations before any reset, meaningful where the last step ended an episode: `[N, D]`.
    pub fn final_observations(&self) -> &Buffer {
        &self.final_observations
    }

    /// Like [`VecEnv::final_observations`], for float observations: `[N, D]`.
    ///
    /// # Panics
    /// As [`VecEnv::observations_f32`].
    pub fn final_observations_f32(&self) -> &[f32] {
        self.final_observations.as_f32().expect("observations of 32-bit floats")
    }

    /// Rewards of the last step: `[N]`.
    pub fn rewards(&self) -> &[f32] {
        &self.rewards
    }

    /// Where the last step reached a terminal state: `[N]`.
    pub fn terminated(&self) -> &[bool] {
        &self.terminated
    }

    /// Where the last step was cut off from outside: `[N]`.
    pub fn truncated(&self) -> &[bool] {
        &self.truncated
    }

    /// Which actions do something in the states of the current observations, for environments that say so
    /// ([`Env::action_mask`]): `[N, A]`, `n` elements for each action of a `Discrete(n)`.
    pub fn action_masks(&self) -> Option<&[bool]> {
        self.action_masks.as_deref()
    }

    /// The episodes that ended in the last step, in the order of their environments, with what
    /// [`Env::episode_statistics`] says of them where it does.
    pub fn ended_episodes(&self) -> impl Iterator<Item = EndedEpisode> + '_ {
        let ended = |i: &usize| self.terminated[*i] || self.truncated[*i];
        (0..self.lanes.len()).filter(ended).map(|env| EndedEpisode {
            env,
            episode_return: self.lanes[env].ended_return,
            length: self.lanes[env].ended_length,
        })
    }

    /// Environment `i`, for example to render it.
    ///
    /// # Panics
    /// If there are not more than `i` environments.
    pub fn env(&self, i: usize) -> &dyn Env {
        self.lanes[i].env.as_ref()
    }

    /// Environment `i`, for example to load a state into it.
    ///
    /// # Panics
    /// If there are not more than `i` environments.
    pub fn env_mut(&mut self, i: usize) -> &mut dyn Env {
        self.lanes[i].env.as_mut()
    }

    /// Writes all that [`VecEnv::load_state`] needs to go on bit for bit: environments, generators, buffers and
    /// statistics.
    pub fn save_state(&self, to: &mut StateWriter) {
        to.u64(self.lanes.len() as u64);
        to.u64(self.obs_len as u64);
        to.u8(self.mode as u8);
        to.bool(self.started);
        for lane in &self.lanes {
            lane.rng.save_state(to);
            lane.env.save_state(to);
            to.f64(lane.episode_return);
            to.u32(lane.length);
            to.f64(lane.ended_return);
            to.u32(lane.ended_length);
        }
        self.observations.save_state(to);
        self.final_observations.save_state(to);
        self.rewards.iter().for_each(|x| to.f32(*x));
        self.terminated.iter().chain(&self.truncated).for_each(|x| to.bool(*x));
    }

    /// Restores what [`VecEnv::save_state`] wrote, into a batch made the same way.
    ///
    /// # Errors
    /// [`EnvError::State`] if the bytes are not a state of such a batch. It must be reset then before it is stepped.
    pub fn load_state(&mut self, from: &mut StateReader<'_>) -> Result<(), EnvError> {
        self.started = false;
        let found = (from.u64()?, from.u64()?, from.u8()?);
        if found != (self.lanes.len() as u64, self.obs_len as u64, self.mode as u8) {
            return Err(EnvError::State {
                expected: format!("{} environments, {} wide, {:?}", self.lanes.len(), self.obs_len, self.mode),
                found: format!("{} environments, {} wide, autoreset mode {}", found.0, found.1, found.2),
            });
        }
        let started = from.bool()?;
        for lane in &mut self.lanes {
            lane.rng.load_state(from)?;
            lane.env.load_state(from)?;
            lane.episode_return = from.f64()?;
            lane.length = from.u32()?;
            lane.ended_return = from.f64()?;
            lane.ended_length = from.u32()?;
        }
        self.observations.load_state(from)?;
        self.final_observations.load_state(from)?;
        for x in &mut self.rewards {
            *x = from.f32()?;
        }
        for x in self.terminated.iter_mut().chain(&mut self.truncated) {
            *x = from.bool()?;
        }
        self.started = started;
        self.update_action_masks();
        Ok(())
    }
}
