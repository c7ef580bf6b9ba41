//! The replay memory and its sum tree, at DQN's usual sizes: transitions stored and drawn a second.

use std::hint::black_box;

use hotfire_agents::replay::{Batch, Replay, ReplayConfig, SumTree};
use hotfire_core::seed::stream;
use hotfire_envs::{AutoresetMode, Buffer, NpRng, VecEnv};

use crate::env_step::RandomActions;
use crate::workload::Problem;
use crate::{Prepared, Workload};

const CAPACITY: usize = 100_000;
const LANES: usize = 8;
const BATCH: usize = 64;

/// A full memory of CartPole-v1, with the environments it was filled from and a batch of their actions.
fn filled(n_step: usize, priority_exponent: Option<f64>) -> Result<(Replay, VecEnv, Buffer), Problem> {
    let mut envs = VecEnv::make("CartPole-v1", LANES, AutoresetMode::SameStep)?;
    let config = ReplayConfig {
        capacity: CAPACITY,
        n_step,
        gamma: 0.99,
        frames: 1,
        mask_len: 0,
        priority_exponent,
        directory: None,
    };
    let mut replay = Replay::new(envs.observation_space(), envs.action_space(), LANES, config)?;
    let mut random = RandomActions::new(envs.action_space(), LANES);
    let actions = Buffer::I32(vec![0; LANES]);
    envs.reset(0);
    replay.begin(envs.observations(), envs.action_masks());
    for _ in 0..CAPACITY / LANES + 1 {
        envs.step(random.next_batch())?;
        replay.push(&actions, (&envs).into());
    }
    Ok((replay, envs, actions))
}

fn sampling(n_step: usize, priority_exponent: Option<f64>) -> Result<Prepared, Problem> {
    let (replay, envs, _) = filled(n_step, priority_exponent)?;
    let mut batch = Batch::new(envs.observation_space(), envs.action_space(), BATCH);
    let mut rng = stream(0, "bench", 0);
    Ok(Prepared::new(BATCH, move || {
        replay.sample(&mut rng, 0.4, &mut batch);
        black_box(&batch);
    }))
}

/// Storing, drawing, changing priorities; the tree alone.
pub fn workloads() -> Vec<Workload> {
    let push = || {
        let (mut replay, envs, actions) = filled(1, None)?;
        Ok(Prepared::new(LANES, move || replay.push(&actions, (&envs).into())))
    };
    let update = || {
        let (mut replay, _, _) = filled(1, Some(0.6))?;
        let mut rng = stream(0, "bench", 0);
        let indices: Vec<u32> = (0..BATCH).map(|_| rng.below((CAPACITY - LANES) as u32)).collect();
        let errors: Vec<f32> = (0..BATCH).map(|_| rng.uniform()).collect();
        Ok(Prepared::new(BATCH, move || replay.update_priorities(&indices, &errors)))
    };
    [
        Workload::new("replay", "push", "transitions", push),
        Workload::new("replay", "sample uniform", "transitions", || sampling(1, None)),
        Workload::new("replay", "sample uniform, 3 steps", "transitions", || sampling(3, None)),
        Workload::new("replay", "sample by priority", "transitions", || sampling(1, Some(0.6))),
        Workload::new("replay", "update priorities", "transitions", update),
        Workload::new("sum_tree", "set", "weights", || Ok(sum_tree_set())),
        Workload::new("sum_tree", "find", "weights", || Ok(sum_tree_find())),
    ]
    .map(Workload::serial)
    .into()
}

/// A full tree, and as many places in it as a batch has.
fn tree() -> (SumTree, Vec<f64>) {
    let mut rng = NpRng::seed(0);
    let mut tree = SumTree::new(CAPACITY);
    tree.set_all(&(0..CAPACITY).map(|_| rng.random()).collect::<Vec<_>>());
    let places = (0..BATCH).map(|_| rng.random()).collect();
    (tree, places)
}

/// Changes weights at random places.
pub fn sum_tree_set() -> Prepared {
    let (mut tree, places) = tree();
    Prepared::new(BATCH, move || {
        places.iter().for_each(|place| tree.set((place * CAPACITY as f64) as usize, *place));
        black_box(&tree);
    })
}

/// Draws in proportion to the weights.
pub fn sum_tree_find() -> Prepared {
    let (tree, places) = tree();
    let total = tree.total();
    Prepared::new(BATCH, move || places.iter().for_each(|place| _ = black_box(tree.find(place * total))))
}
