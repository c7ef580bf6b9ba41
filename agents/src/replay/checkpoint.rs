//! Replay memories in checkpoints.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;

use hotfire_core::CoreError;
use hotfire_core::checkpoint::{CheckpointReader, CheckpointWriter};
use serde::{Deserialize, Serialize};

use super::{Replay, TERMINATED, TRUNCATED};

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
    /// Writes all that [`Replay::load`] needs to go on bit for bit.
    ///
    /// # Errors
    /// If the checkpoint can't be written.
    pub fn save(&self, to: &mut CheckpointWriter) -> Result<(), CoreError> {
        to.json("replay.json", &self.state())?;
        to.bytes("replay-observations.bin", self.observations.all())?;
        to.bytes("replay-actions.bin", self.actions.all())?;
        if self.config.mask_len > 0 {
            to.bytes("replay-masks.bin", self.masks.all())?;
        }
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
        if self.config.mask_len > 0 {
            read("replay-masks.bin", self.masks.all_mut())?;
        }
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
