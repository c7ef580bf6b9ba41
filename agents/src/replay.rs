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
//! Where environments say which actions count, each row keeps the mask of its observation, as zeros and ones. What
//! counts in the final observation of a truncated episode is not known, so that there all actions do.
//!
//! Draws are uniform, or in proportion to priorities: Schaul et al. 2016, <https://arxiv.org/abs/1511.05952>, with
//! importance weights divided by the batch's largest.

mod checkpoint;
mod rows;
mod sum_tree;

use std::collections::BTreeMap;
use std::path::PathBuf;

use hotfire_core::CoreError;
use hotfire_core::seed::StreamRng;
use hotfire_envs::{Buffer, Space, VecEnv};
use rows::Rows;
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
    /// Elements `A` of an action mask; 0 keeps no masks.
    pub mask_len: usize,
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
    /// Which actions count in `observations`: `[N, A]`; all of them without.
    pub action_masks: Option<&'a [bool]>,
}

impl<'a> From<&'a VecEnv> for StepResult<'a> {
    fn from(envs: &'a VecEnv) -> Self {
        Self {
            rewards: envs.rewards(),
            terminated: envs.terminated(),
            truncated: envs.truncated(),
            observations: envs.observations(),
            final_observations: envs.final_observations(),
            action_masks: envs.action_masks(),
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
    /// Which actions count in the next observations: `[B, A]`; empty without masks.
    pub next_masks: Vec<bool>,
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
            next_masks: Vec::new(),
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
    /// The masks of the rows' observations.
    masks: Rows,
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

impl Replay {
    /// An empty memory for `lanes` environments with these spaces.
    ///
    /// # Errors
    /// If the memory-mapped file can't be made, or so much memory is not free.
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
            Rows::new(slots * lanes, len, directory).map_err(|error| match &config.directory {
                Some(place) => CoreError::io(place, "make a replay file there")(error),
                None => CoreError::Failed(format!("a replay memory of {} transitions: {error}", config.capacity)),
            })
        };
        Ok(Self {
            lanes,
            slots,
            head: 0,
            steps: 0,
            observations: rows(row_bytes(observations) / config.frames, config.directory.as_deref())?,
            actions: rows(row_bytes(actions), None)?,
            masks: rows(config.mask_len, None)?,
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

    /// Empties the memory and starts every lane with an observation `[N, D]` to act on, and its mask `[N, A]`. The lanes
    /// may be in the middle of an episode: the rows before the first one get the older frames of the stack.
    pub fn begin(&mut self, observations: &Buffer, action_masks: Option<&[bool]>) {
        self.finals.clear();
        if let Some(priorities) = &mut self.priorities {
            priorities.tree = SumTree::new(self.slots * self.lanes);
            priorities.largest = 1.0;
        }
        (self.head, self.steps) = (0, 0);
        let frames = self.config.frames;
        for lane in 0..self.lanes {
            for age in (1..frames).rev() {
                let index = self.slot_before_head(age) * self.lanes + lane;
                self.flags[index] = if age + 1 == frames { START } else { 0 };
                let row = self.observations.row_mut(index);
                row.copy_from_slice(frame(observations, lane, self.lanes, row.len(), age));
            }
            self.store_head(lane, observations, action_masks);
            self.flags[lane] = if frames == 1 { START } else { 0 };
        }
    }

    /// Stores the newest frame of the lane's observation and its mask in the row to act on next.
    fn store_head(&mut self, lane: usize, observations: &Buffer, action_masks: Option<&[bool]>) {
        let index = self.head * self.lanes + lane;
        let row = self.observations.row_mut(index);
        row.copy_from_slice(frame(observations, lane, self.lanes, row.len(), 0));
        let mask = self.masks.row_mut(index);
        match action_masks {
            Some(masks) => {
                let masks = masks[lane * mask.len()..].iter();
                mask.iter_mut().zip(masks).for_each(|(byte, counts)| *byte = u8::from(*counts));
            }
            None => mask.fill(1),
        }
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
                let newest = frame(result.final_observations, lane, self.lanes, self.observations.row(0).len(), 0);
                self.finals.insert(index as u32, newest.into());
            }
            self.store_head(lane, result.observations, result.action_masks);
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
        batch.next_masks.clear();
        for (i, index) in batch.indices.iter().enumerate() {
            let index = *index as usize;
            actions[i * action..][..action].copy_from_slice(self.actions.row(index));
            self.copy_stack(index, &mut observations[i * row..][..row]);
            let next = &mut next_observations[i * row..][..row];
            let next_index;
            (batch.returns[i], batch.discounts[i], next_index) = self.follow(index, next);
            let all = || std::iter::repeat_n(true, self.config.mask_len);
            match next_index {
                Some(index) => batch.next_masks.extend(self.masks.row(index).iter().map(|byte| *byte != 0)),
                None => batch.next_masks.extend(all()),
            }
        }
    }

    /// The return of up to `n_step` steps from a row, the factor of the value of the observation written to `next`, and
    /// that observation's row; `None` where it has none of its own.
    fn follow(&self, mut index: usize, next: &mut [u8]) -> (f32, f32, Option<usize>) {
        let (mut sum, mut discount) = (0.0, 1.0);
        for _ in 0..self.config.n_step {
            sum += discount * f64::from(self.rewards[index]);
            discount *= self.config.gamma;
            if self.flags[index] & TERMINATED != 0 {
                self.copy_stack(index, next);
                return (sum as f32, 0.0, None);
            }
            if self.flags[index] & TRUNCATED != 0 {
                let frame = &self.finals[&(index as u32)];
                let (older, newest) = next.split_at_mut(next.len() - frame.len());
                newest.copy_from_slice(frame);
                self.copy_stack(index, older);
                return (sum as f32, discount as f32, None);
            }
            index = (index + self.lanes) % (self.slots * self.lanes);
            if index / self.lanes == self.head {
                break;
            }
        }
        self.copy_stack(index, next);
        (sum as f32, discount as f32, Some(index))
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
}

/// The frame of `len` bytes of a lane's stack that has `newer` ones after it.
fn frame(observations: &Buffer, lane: usize, lanes: usize, len: usize, newer: usize) -> &[u8] {
    let all = bytes(observations);
    let end = (lane + 1) * (all.len() / lanes) - newer * len;
    &all[end - len..end]
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
mod tests;
