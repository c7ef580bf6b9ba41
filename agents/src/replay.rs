//! Replay memory: a ring of transitions in host memory, for any number of environments in step.
//!
//! Each environment is a lane of the ring. An observation is stored once: the next observation of a transition is the
//! lane's next row, and of a stack of frames only the newest is stored, the others are looked up in earlier rows of the
//! episode. Elements keep their type (pixels stay bytes). A step that was truncated keeps its final observation aside,
//! since the lane's next row belongs to the next episode.
//!
//! Returns of `n` steps are summed when a batch is drawn. They end early at a termination (nothing follows), at a
//! truncation (the final observation's value follows) and at the newest transition (its next observation's value
//! follows).
//!
//! Draws are uniform, or in proportion to priorities: Schaul et al. 2016, <https://arxiv.org/abs/1511.05952>, with
//! importance weights divided by the batch's largest.

mod rows;
mod sum_tree;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use hotfire_core::CoreError;
use hotfire_core::checkpoint::{CheckpointReader, CheckpointWriter};
use hotfire_core::seed::StreamRng;
use hotfire_envs::{Buffer, Space, VecEnv};
use rows::Rows;
use serde::{Deserialize, Serialize};
pub use sum_tree::SumTree;

/// Added to the size of an error, so that no transition is never drawn.
const PRIORITY_FLOOR: f64 = 1e-6;

const TERMINATED: u8 = 1;
const TRUNCATED: u8 = 2;
/// The row's observation is the first of an episode.
const START: u8 = 4;

/// Size and behaviour of a [`Replay`].
#[derive(Clone, Debug, PartialEq)]
pub struct ReplayConfig {
    /// Transitions to keep, over all lanes; rounded up to a multiple of the lanes.
    pub capacity: usize,
    /// Steps summed into a return.
    pub n_step: usize,
    /// Discount.
    pub gamma: f64,
    /// How many frames the first axis of an observation stacks, oldest first; 1 for none. At an episode's start the
    /// first frame stands for those before it.
    pub frames: usize,
    /// The exponent of priorities; `None` for uniform draws.
    pub priority_exponent: Option<f64>,
    /// A directory for a memory-mapped file with the observations; `None` keeps them in memory.
    pub directory: Option<PathBuf>,
}

/// What one step of all lanes brought about.
#[derive(Clone, Copy, Debug)]
pub struct StepResult<'a> {
    /// Rewards `[N]`.
    pub rewards: &'a [f32],
    /// Where the step reached a terminal state: `[N]`.
    pub terminated: &'a [bool],
    /// Where the step was cut off: `[N]`.
    pub truncated: &'a [bool],
    /// Observations `[N, D]` to act on next: of the next episode where one ended.
    pub observations: &'a Buffer,
    /// Observations `[N, D]` before the reset, where an episode ended.
    pub final_observations: &'a Buffer,
}

impl<'a> From<&'a VecEnv> for StepResult<'a> {
    fn from(envs: &'a VecEnv) -> Self {
        Self {
            rewards: envs.rewards(),
            terminated: envs.terminated(),
            truncated: envs.truncated(),
            observations: envs.observations(),
            final_observations: envs.final_observations(),
        }
    }
}

/// `B` transitions, with `n`-step returns.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Where the transitions lie, for [`Replay::update_priorities`]: `[B]`.
    pub indices: Vec<u32>,
    /// Observations `[B, D]` that were acted on.
    pub observations: Buffer,
    /// Actions `[B, A]`.
    pub actions: Buffer,
    /// Discounted sums `[B]` of the rewards up to the next observation.
    pub returns: Vec<f32>,
    /// The next observations `[B, D]`; where `discounts` is 0, any finite ones.
    pub next_observations: Buffer,
    /// The factor `[B]` of the next observation's value in the return: `gamma^n`, 0 after a termination.
    pub discounts: Vec<f32>,
    /// Importance weights `[B]`; 1 for uniform draws.
    pub weights: Vec<f32>,
}

impl Batch {
    /// Zeros for `size` transitions.
    pub fn new(observations: &Space, actions: &Space, size: usize) -> Self {
        Self {
            indices: vec![0; size],
            observations: Buffer::new(observations, size),
            actions: Buffer::new(actions, size),
            returns: vec![0.0; size],
            next_observations: Buffer::new(observations, size),
            discounts: vec![0.0; size],
            weights: vec![1.0; size],
        }
    }
}

/// The memory.
#[derive(Debug)]
pub struct Replay {
    config: ReplayConfig,
    lanes: usize,
    /// Slots of a lane: the rows that can be drawn, one for the observation to act on next, and `frames - 1` older ones.
    slots: usize,
    /// The slot of the observation to act on next.
    head: usize,
    /// Steps that can be drawn.
    steps: usize,
    /// Newest frames, `[slots, lanes]` rows of bytes.
    observations: Rows,
    actions: Rows,
    rewards: Vec<f32>,
    flags: Vec<u8>,
    /// The newest frame of the final observation of truncated rows.
    finals: BTreeMap<u32, Box<[u8]>>,
    priorities: Option<Priorities>,
}

#[derive(Clone, Debug)]
struct Priorities {
    exponent: f64,
    /// The largest priority so far, which a new transition gets.
    largest: f64,
    tree: SumTree,
}

/// What a checkpoint holds besides the arrays.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    slots: usize,
    lanes: usize,
    head: usize,
    steps: usize,
    frame_bytes: usize,
    action_bytes: usize,
    largest_priority: Option<f64>,
    finals: usize,
}

impl Replay {
    /// An empty memory for `lanes` environments with these spaces.
    ///
    /// # Errors
    /// If the memory-mapped file can't be made.
    ///
    /// # Panics
    /// If the capacity, `lanes`, `n_step` or `frames` is 0, or `frames` does not divide the observation.
    pub fn new(observations: &Space, actions: &Space, lanes: usize, config: ReplayConfig) -> Result<Self, CoreError> {
        assert!(config.capacity > 0 && lanes > 0 && config.n_step > 0, "an empty replay memory");
        assert!(
            config.frames > 0 && observations.len().is_multiple_of(config.frames),
            "{} elements are no stack of {} frames",
            observations.len(),
            config.frames
        );
        let slots = config.capacity.div_ceil(lanes) + config.frames;
        let row_bytes = |space: &Space| bytes(&Buffer::new(space, 1)).len();
        let rows = |len, directory| {
            let place = config.directory.clone().unwrap_or_default();
            Rows::new(slots * lanes, len, directory).map_err(CoreError::io(place, "make a replay file in"))
        };
        Ok(Self {
            lanes,
            slots,
            head: 0,
            steps: 0,
            observations: rows(row_bytes(observations) / config.frames, config.directory.as_deref())?,
            actions: rows(row_bytes(actions), None)?,
            rewards: vec![0.0; slots * lanes],
            flags: vec![0; slots * lanes],
            finals: BTreeMap::new(),
            priorities: config.priority_exponent.map(|exponent| Priorities {
                exponent,
                largest: 1.0,
                tree: SumTree::new(slots * lanes),
            }),
            config,
        })
    }

    /// Transitions that can be drawn.
    pub fn len(&self) -> usize {
        self.steps * self.lanes
    }

    /// Whether nothing can be drawn.
    pub fn is_empty(&self) -> bool {
        self.steps == 0
    }

    /// Transitions that are kept at most.
    pub fn capacity(&self) -> usize {
        self.drawable() * self.lanes
    }

    /// Slots of a lane that can be drawn.
    fn drawable(&self) -> usize {
        self.slots - self.config.frames
    }

    /// Empties the memory and starts every lane with an observation `[N, D]` to act on.
    pub fn begin(&mut self, observations: &Buffer) {
        self.finals.clear();
        if let Some(priorities) = &mut self.priorities {
            priorities.tree = SumTree::new(self.slots * self.lanes);
            priorities.largest = 1.0;
        }
        (self.head, self.steps) = (0, 0);
        for lane in 0..self.lanes {
            self.store_frame(lane, observations);
            self.flags[lane] = START;
        }
    }

    /// Stores the newest frame of the lane's observation in the row to act on next.
    fn store_frame(&mut self, lane: usize, observations: &Buffer) {
        let row = self.observations.row_mut(self.head * self.lanes + lane);
        row.copy_from_slice(newest_frame(observations, lane, self.lanes, row.len()));
    }

    /// Adds a step of all lanes: the actions `[N, A]` that were chosen on the last observations, and what came of them.
    pub fn push(&mut self, actions: &Buffer, result: StepResult<'_>) {
        if self.steps == self.drawable() {
            self.retire_oldest();
        } else {
            self.steps += 1;
        }
        let first = self.head * self.lanes;
        let action_bytes = bytes(actions);
        self.actions.all_mut()[first * (action_bytes.len() / self.lanes)..][..action_bytes.len()]
            .copy_from_slice(action_bytes);
        self.rewards[first..][..self.lanes].copy_from_slice(result.rewards);
        self.head = (self.head + 1) % self.slots;
        for lane in 0..self.lanes {
            let (terminated, truncated) = (result.terminated[lane], result.truncated[lane]);
            let index = first + lane;
            self.flags[index] |= u8::from(terminated) * TERMINATED + u8::from(truncated) * TRUNCATED;
            if truncated && !terminated {
                let frame = newest_frame(result.final_observations, lane, self.lanes, self.observations.row(0).len());
                self.finals.insert(index as u32, frame.into());
            }
            self.store_frame(lane, result.observations);
            self.flags[self.head * self.lanes + lane] = if terminated || truncated { START } else { 0 };
            if let Some(priorities) = &mut self.priorities {
                priorities.tree.set(index, priorities.largest.powf(priorities.exponent));
            }
        }
    }

    fn retire_oldest(&mut self) {
        let first = self.slot_before_head(self.steps) * self.lanes;
        for index in first..first + self.lanes {
            if self.flags[index] & TRUNCATED != 0 {
                self.finals.remove(&(index as u32));
            }
            if let Some(priorities) = &mut self.priorities {
                priorities.tree.set(index, 0.0);
            }
        }
    }

    fn slot_before_head(&self, steps: usize) -> usize {
        (self.head + self.slots - steps) % self.slots
    }

    /// Fills the batch with independent draws (one from each of as many equal shares of the priorities). `beta` is the
    /// exponent of the importance weights: 0 for none, 1 to undo the priorities in full.
    ///
    /// # Panics
    /// If the memory is empty.
    pub fn sample(&self, rng: &mut StreamRng, beta: f64, batch: &mut Batch) {
        assert!(!self.is_empty(), "a draw from an empty replay memory");
        match &self.priorities {
            None => {
                for index in &mut batch.indices {
                    let draw = rng.below(self.len() as u32) as usize;
                    *index = (self.slot_before_head(1 + draw / self.lanes) * self.lanes + draw % self.lanes) as u32;
                }
                batch.weights.fill(1.0);
            }
            Some(priorities) => {
                let share = priorities.tree.total() / batch.indices.len() as f64;
                let mut largest = 0.0f64;
                for (i, (index, weight)) in batch.indices.iter_mut().zip(&mut batch.weights).enumerate() {
                    *index = priorities.tree.find((i as f64 + rng.uniform_f64()) * share) as u32;
                    let chance = priorities.tree.get(*index as usize) / priorities.tree.total();
                    let exact = (chance * self.len() as f64).powf(-beta);
                    largest = largest.max(exact);
                    *weight = exact as f32;
                }
                batch.weights.iter_mut().for_each(|weight| *weight = (f64::from(*weight) / largest) as f32);
            }
        }
        self.gather(batch);
    }

    /// Fills all but the indices and weights of the batch.
    fn gather(&self, batch: &mut Batch) {
        let size = batch.indices.len();
        let observations = bytes_mut(&mut batch.observations);
        let next_observations = bytes_mut(&mut batch.next_observations);
        let actions = bytes_mut(&mut batch.actions);
        let (row, action) = (observations.len() / size, actions.len() / size);
        for (i, index) in batch.indices.iter().enumerate() {
            let index = *index as usize;
            actions[i * action..][..action].copy_from_slice(self.actions.row(index));
            self.copy_stack(index, &mut observations[i * row..][..row]);
            let next = &mut next_observations[i * row..][..row];
            (batch.returns[i], batch.discounts[i]) = self.follow(index, next);
        }
    }

    /// The return of up to `n_step` steps from a row, and the factor of the value of the observation written to `next`.
    fn follow(&self, mut index: usize, next: &mut [u8]) -> (f32, f32) {
        let (mut sum, mut discount) = (0.0, 1.0);
        for _ in 0..self.config.n_step {
            sum += discount * f64::from(self.rewards[index]);
            discount *= self.config.gamma;
            if self.flags[index] & TERMINATED != 0 {
                self.copy_stack(index, next);
                return (sum as f32, 0.0);
            }
            if self.flags[index] & TRUNCATED != 0 {
                let frame = &self.finals[&(index as u32)];
                let (older, newest) = next.split_at_mut(next.len() - frame.len());
                newest.copy_from_slice(frame);
                self.copy_stack(index, older);
                return (sum as f32, discount as f32);
            }
            index = (index + self.lanes) % (self.slots * self.lanes);
            if index / self.lanes == self.head {
                break;
            }
        }
        self.copy_stack(index, next);
        (sum as f32, discount as f32)
    }

    /// Writes as many frames as `stack` holds, up to the one in the row.
    fn copy_stack(&self, mut index: usize, stack: &mut [u8]) {
        let frame = self.observations.row(0).len();
        for place in stack.chunks_exact_mut(frame).rev() {
            place.copy_from_slice(self.observations.row(index));
            if self.flags[index] & START == 0 {
                index = (index + (self.slots - 1) * self.lanes) % (self.slots * self.lanes);
            }
        }
    }

    /// Sets the priorities of drawn transitions by their errors `[B]`. Does nothing for uniform draws.
    pub fn update_priorities(&mut self, indices: &[u32], errors: &[f32]) {
        let Some(priorities) = &mut self.priorities else { return };
        for (index, error) in indices.iter().zip(errors) {
            let priority = f64::from(error.abs()) + PRIORITY_FLOOR;
            priorities.largest = priorities.largest.max(priority);
            priorities.tree.set(*index as usize, priority.powf(priorities.exponent));
        }
    }

    /// Writes all that [`Replay::load`] needs to go on bit for bit.
    ///
    /// # Errors
    /// If the checkpoint can't be written.
    pub fn save(&self, to: &mut CheckpointWriter) -> Result<(), CoreError> {
        to.json("replay.json", &self.state())?;
        to.bytes("replay-observations.bin", self.observations.all())?;
        to.bytes("replay-actions.bin", self.actions.all())?;
        to.bytes("replay-rewards.bin", bytemuck::cast_slice(&self.rewards))?;
        to.bytes("replay-flags.bin", &self.flags)?;
        let finals =
            self.finals.iter().flat_map(|(index, frame)| index.to_le_bytes().into_iter().chain(frame.to_vec()));
        to.bytes("replay-finals.bin", &finals.collect::<Vec<u8>>())?;
        match &self.priorities {
            Some(priorities) => to.bytes("replay-priorities.bin", bytemuck::cast_slice(priorities.tree.leaves())),
            None => Ok(()),
        }
    }

    fn state(&self) -> State {
        State {
            slots: self.slots,
            lanes: self.lanes,
            head: self.head,
            steps: self.steps,
            frame_bytes: self.observations.row(0).len(),
            action_bytes: self.actions.row(0).len(),
            largest_priority: self.priorities.as_ref().map(|priorities| priorities.largest),
            finals: self.finals.len(),
        }
    }

    /// Whether the checkpoint holds a replay memory.
    pub fn is_in(from: &CheckpointReader) -> bool {
        from.contains("replay.json")
    }

    /// Restores what [`Replay::save`] wrote.
    ///
    /// # Errors
    /// If the checkpoint does not fit this memory.
    pub fn load(&mut self, from: &CheckpointReader) -> Result<(), CoreError> {
        let misfit = |name: &str, problem: String| CoreError::Checkpoint { path: from.path().join(name), problem };
        let state: State = from.json("replay.json")?;
        let ours = self.state();
        let layout = |s: &State| (s.slots, s.lanes, s.frame_bytes, s.action_bytes, s.largest_priority.is_some());
        if layout(&state) != layout(&ours) || state.head >= self.slots || state.steps > self.drawable() {
            let problem = format!("expected a replay memory like {ours:?}, found {state:?}");
            return Err(misfit("replay.json", problem));
        }
        let read = |name: &str, into: &mut [u8]| {
            let path = from.path().join(name);
            let mut file = File::open(&path).map_err(CoreError::io(&path, "read"))?;
            let found = file.metadata().map_err(CoreError::io(&path, "read"))?.len();
            if found != into.len() as u64 {
                return Err(misfit(name, format!("expected {} bytes, found {found}", into.len())));
            }
            file.read_exact(into).map_err(CoreError::io(&path, "read"))
        };
        let rows = self.slots * self.lanes;
        let frame = state.frame_bytes;
        let mut flags = vec![0; rows];
        let mut finals = vec![0; state.finals * (size_of::<u32>() + frame)];
        read("replay-flags.bin", &mut flags)?;
        read("replay-finals.bin", &mut finals)?;
        let finals: BTreeMap<u32, Box<[u8]>> = finals
            .chunks_exact(size_of::<u32>() + frame)
            .map(|entry| (u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]), entry[4..].into()))
            .collect();
        let oldest = (state.head + self.slots - state.steps) % self.slots * self.lanes;
        let mut drawable = (0..state.steps * self.lanes).map(|i| (oldest + i) % rows);
        let lacks_final = |index: usize| {
            flags[index] & (TERMINATED | TRUNCATED) == TRUNCATED && !finals.contains_key(&(index as u32))
        };
        if drawable.any(lacks_final) {
            return Err(misfit("replay-finals.bin", "a truncated step has no final observation".into()));
        }
        // Straight into place: a mapped memory may be larger than what is free.
        read("replay-observations.bin", self.observations.all_mut())?;
        read("replay-actions.bin", self.actions.all_mut())?;
        read("replay-rewards.bin", bytemuck::cast_slice_mut(&mut self.rewards))?;
        if let (Some(priorities), Some(largest)) = (&mut self.priorities, state.largest_priority) {
            let mut weights = vec![0.0f64; rows];
            read("replay-priorities.bin", bytemuck::cast_slice_mut(&mut weights))?;
            priorities.tree.set_all(&weights);
            priorities.largest = largest;
        }
        self.flags = flags;
        self.finals = finals;
        (self.head, self.steps) = (state.head, state.steps);
        Ok(())
    }
}

fn newest_frame(observations: &Buffer, lane: usize, lanes: usize, frame: usize) -> &[u8] {
    let all = bytes(observations);
    let end = (lane + 1) * (all.len() / lanes);
    &all[end - frame..end]
}

fn bytes(buffer: &Buffer) -> &[u8] {
    match buffer {
        Buffer::F32(x) => bytemuck::cast_slice(x),
        Buffer::U8(x) => x,
        Buffer::I32(x) => bytemuck::cast_slice(x),
    }
}

fn bytes_mut(buffer: &mut Buffer) -> &mut [u8] {
    match buffer {
        Buffer::F32(x) => bytemuck::cast_slice_mut(x),
        Buffer::U8(x) => x,
        Buffer::I32(x) => bytemuck::cast_slice_mut(x),
    }
}

#[cfg(test)]
mod tests {
    use hotfire_core::seed::stream;
    use proptest::prelude::*;

    use super::*;

    /// Lanes whose observations count frames, so that every element tells where it comes from.
    struct Source {
        lanes: usize,
        frames: usize,
        width: usize,
        count: u8,
        stacks: Vec<Vec<u8>>,
        /// Each lane's transitions, oldest first.
        log: Vec<Vec<Logged>>,
    }

    #[derive(Clone)]
    struct Logged {
        observation: Vec<u8>,
        action: i32,
        reward: f32,
        terminated: bool,
        truncated: bool,
        next: Vec<u8>,
    }

    impl Source {
        fn new(lanes: usize, frames: usize, width: usize) -> Self {
            let mut source = Self { lanes, frames, width, count: 0, stacks: Vec::new(), log: vec![Vec::new(); lanes] };
            source.stacks = (0..lanes).map(|_| source.frame().repeat(frames)).collect();
            source
        }

        fn frame(&mut self) -> Vec<u8> {
            self.count = self.count.wrapping_add(1);
            (0..self.width).map(|i| self.count.wrapping_mul(31).wrapping_add(i as u8)).collect()
        }

        fn observations(&self) -> Buffer {
            Buffer::U8(self.stacks.concat())
        }

        /// Steps all lanes; `ends` says how for each.
        fn step(&mut self, replay: &mut Replay, ends: &[(bool, bool)]) {
            let mut finals = Vec::new();
            let (mut actions, mut rewards) = (Vec::new(), Vec::new());
            for lane in 0..self.lanes {
                let observation = self.stacks[lane].clone();
                let mut next = observation[self.width..].to_vec();
                next.extend(self.frame());
                let (terminated, truncated) = ends[lane];
                self.stacks[lane] =
                    if terminated || truncated { self.frame().repeat(self.frames) } else { next.clone() };
                finals.extend(&next);
                actions.push(i32::from(self.count));
                rewards.push(f32::from(self.count) / 8.0);
                let (action, reward) = (actions[lane], rewards[lane]);
                self.log[lane].push(Logged { observation, action, reward, terminated, truncated, next });
            }
            let (terminated, truncated): (Vec<bool>, Vec<bool>) = ends.iter().copied().unzip();
            let result = StepResult {
                rewards: &rewards,
                terminated: &terminated,
                truncated: &truncated,
                observations: &self.observations(),
                final_observations: &Buffer::U8(finals),
            };
            replay.push(&Buffer::I32(actions), result);
        }

        /// The `n`-step transition from step `t` of a lane: return, discount and next observation.
        fn follow(&self, lane: usize, t: usize, n: usize, gamma: f64) -> (f32, f32, Option<&[u8]>) {
            let (mut sum, mut discount) = (0.0, 1.0);
            let mut next = None;
            for step in self.log[lane][t..].iter().take(n) {
                sum += discount * f64::from(step.reward);
                discount *= gamma;
                next = Some(&step.next[..]);
                if step.terminated {
                    return (sum as f32, 0.0, None);
                }
                if step.truncated {
                    break;
                }
            }
            (sum as f32, discount as f32, next)
        }
    }

    fn config(capacity: usize, n_step: usize, frames: usize) -> ReplayConfig {
        ReplayConfig { capacity, n_step, gamma: 0.9, frames, priority_exponent: None, directory: None }
    }

    fn spaces(frames: usize, width: usize) -> (Space, Space) {
        (Space::image([frames, width]), Space::discrete(256))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Every transition that can be drawn equals the one of a plain log of full stacks.
        #[test]
        fn equals_a_plain_log(
            lanes in 1usize..4,
            frames in 1usize..5,
            n_step in 1usize..5,
            capacity in 1usize..40,
            prioritized in any::<bool>(),
            ends in prop::collection::vec((0u8..8, 0u8..8), 3..180),
        ) {
            let (observations, actions) = spaces(frames, 2);
            let config = ReplayConfig {
                priority_exponent: prioritized.then_some(0.5), ..config(capacity, n_step, frames)
            };
            let mut replay = Replay::new(&observations, &actions, lanes, config).unwrap();
            let mut source = Source::new(lanes, frames, 2);
            replay.begin(&source.observations());
            for ends in ends.chunks_exact(lanes) {
                let ends: Vec<_> = ends.iter().map(|(a, b)| (*a == 0, *b == 0)).collect();
                source.step(&mut replay, &ends);
                let steps = source.log[0].len();
                let kept = steps.min(capacity.div_ceil(lanes));
                prop_assert_eq!(replay.len(), kept * lanes);
                for (age, lane) in (1..=kept).flat_map(|age| (0..lanes).map(move |lane| (age, lane))) {
                    let index = replay.slot_before_head(age) * lanes + lane;
                    let mut batch = Batch::new(&observations, &actions, 1);
                    batch.indices[0] = index as u32;
                    replay.gather(&mut batch);
                    let logged = &source.log[lane][steps - age];
                    prop_assert_eq!(batch.observations.as_u8().unwrap(), &logged.observation);
                    prop_assert_eq!(batch.actions.as_i32().unwrap(), &[logged.action]);
                    let (sum, discount, next) = source.follow(lane, steps - age, n_step, 0.9);
                    prop_assert_eq!((batch.returns[0], batch.discounts[0]), (sum, discount));
                    if let Some(next) = next {
                        prop_assert_eq!(batch.next_observations.as_u8().unwrap(), next);
                    }
                    if let Some(priorities) = &replay.priorities {
                        prop_assert_eq!(priorities.tree.get(index), 1.0);
                    }
                }
                if let Some(priorities) = &replay.priorities {
                    prop_assert_eq!(priorities.tree.total(), replay.len() as f64, "nothing else can be drawn");
                }
                let cut = |step: &&Logged| step.truncated && !step.terminated;
                let finals: usize = source.log.iter().map(|log| log[steps - kept..].iter().filter(cut).count()).sum();
                prop_assert_eq!(replay.finals.len(), finals, "final observations go with their transitions");
            }
        }
    }

    /// Rewards 1, 2, 3, ... in one lane, discount 0.5, 3-step returns; worked out by hand.
    #[test]
    fn three_step_returns_by_hand() {
        let (observations, actions) = (Space::unbounded_box([1]), Space::discrete(2));
        let mut replay =
            Replay::new(&observations, &actions, 1, ReplayConfig { gamma: 0.5, ..config(9, 3, 1) }).unwrap();
        replay.begin(&Buffer::F32(vec![0.0]));
        // Steps 0 to 5 lead to observations 1 to 6. Step 2 is truncated in 30, step 4 terminates.
        for t in 0..6 {
            let (terminated, truncated) = (t == 4, t == 2);
            replay.push(
                &Buffer::I32(vec![t % 2]),
                StepResult {
                    rewards: &[(t + 1) as f32],
                    terminated: &[terminated],
                    truncated: &[truncated],
                    observations: &Buffer::F32(vec![(t + 1) as f32]),
                    final_observations: &Buffer::F32(vec![(t + 1) as f32 * 10.0]),
                },
            );
        }
        let mut batch = Batch::new(&observations, &actions, 6);
        batch.indices = (0..6).collect();
        replay.gather(&mut batch);
        assert_eq!(batch.returns, [1.0 + 1.0 + 0.75, 2.0 + 1.5, 3.0, 4.0 + 2.5, 5.0, 6.0]);
        assert_eq!(batch.discounts, [0.125, 0.25, 0.5, 0.0, 0.0, 0.5]);
        assert_eq!(batch.next_observations.as_f32().unwrap()[..3], [30.0, 30.0, 30.0]);
        assert_eq!(batch.next_observations.as_f32().unwrap()[5], 6.0);
        assert_eq!(batch.actions.as_i32().unwrap(), [0, 1, 0, 1, 0, 1]);
    }

    #[test]
    fn draws_follow_the_priorities_and_weights_undo_them() {
        let (observations, actions) = spaces(1, 1);
        let config = ReplayConfig { priority_exponent: Some(0.5), ..config(4, 1, 1) };
        let mut replay = Replay::new(&observations, &actions, 1, config).unwrap();
        let mut source = Source::new(1, 1, 1);
        replay.begin(&source.observations());
        (0..4).for_each(|_| source.step(&mut replay, &[(false, false)]));
        replay.update_priorities(&[0, 1, 2, 3], &[1.0, -4.0, 9.0, 16.0]);
        // Priorities to the power of one half: 1, 2, 3, 4 of 10.
        let mut batch = Batch::new(&observations, &actions, 10);
        let mut rng = stream(1, "test", 0);
        let mut counts = [0; 4];
        for _ in 0..1000 {
            replay.sample(&mut rng, 1.0, &mut batch);
            batch.indices.iter().for_each(|index| counts[*index as usize] += 1);
            for (index, weight) in batch.indices.iter().zip(&batch.weights) {
                let want = 1.0 / (*index as f32 + 1.0);
                assert!((weight - want).abs() < 1e-4, "weights over the largest, that of index 0");
            }
        }
        // Ten equal shares fit these priorities exactly, up to the floor.
        for (count, want) in counts.iter().zip([1000i32, 2000, 3000, 4000]) {
            assert!((count - want).abs() < 5, "{counts:?}");
        }
        replay.sample(&mut rng, 0.0, &mut batch);
        assert_eq!(batch.weights, [1.0; 10]);
        source.step(&mut replay, &[(false, false)]);
        let tree = &replay.priorities.as_ref().unwrap().tree;
        assert!((tree.get(4) - 4.0).abs() < 1e-6, "a new transition gets the largest priority");
        assert_eq!(tree.get(0), 0.0, "the oldest is gone");
    }

    #[test]
    fn a_loaded_memory_goes_on_like_the_saved_one() {
        let dir = tempfile::tempdir().unwrap();
        let (observations, actions) = spaces(3, 2);
        for (step, mapped) in [(1, false), (2, true)] {
            let crowded = config(22, 2, 3);
            let config = ReplayConfig {
                priority_exponent: Some(0.6),
                directory: mapped.then(|| dir.path().to_path_buf()),
                ..config(20, 2, 3)
            };
            let make = || Replay::new(&observations, &actions, 2, config.clone()).unwrap();
            let (mut replay, mut source) = (make(), Source::new(2, 3, 2));
            replay.begin(&source.observations());
            let ends = |t: usize| [(t % 7 == 6, false), (false, t % 5 == 4)];
            (0..17).for_each(|t| source.step(&mut replay, &ends(t)));
            replay.update_priorities(&[5, 9], &[0.5, 3.0]);
            let mut writer = CheckpointWriter::create(dir.path(), step).unwrap();
            replay.save(&mut writer).unwrap();
            let path = writer.commit().unwrap();
            let reader = CheckpointReader::open(&path).unwrap();
            let mut loaded = make();
            loaded.load(&reader).unwrap();
            let (mut rng, mut same_rng) = (stream(2, "test", 0), stream(2, "test", 0));
            for t in 17..40 {
                let mut other = Source { log: source.log.clone(), stacks: source.stacks.clone(), ..source };
                source.step(&mut replay, &ends(t));
                other.step(&mut loaded, &ends(t));
                let (mut a, mut b) = (Batch::new(&observations, &actions, 8), Batch::new(&observations, &actions, 8));
                replay.sample(&mut rng, 0.5, &mut a);
                loaded.sample(&mut same_rng, 0.5, &mut b);
                assert_eq!(format!("{a:?}"), format!("{b:?}"));
            }
            let mut other = Replay::new(&observations, &actions, 2, crowded).unwrap();
            assert!(other.load(&reader).unwrap_err().to_string().contains("expected a replay memory like"));
        }
    }
}
