//! The stepper behind [`BatchEnv`]: one loop over lanes for every simulator.
//!
//! Lanes are processed in blocks that fit the first-level cache. A block's columns are copied to the arrays of one
//! [`Block`], advanced there, and copied back: the compiler knows that arrays of one struct do not overlap, which it
//! cannot know of the columns, and the copies cost far less than the overlap checks or the scalar code it would emit
//! without that knowledge. Ended lanes are then visited one by one through a bit mask.

use super::lane_rng::LaneRng;
use super::{ActionGate, BatchEnv, Column, LaneAction, Simd};
use crate::{Actions, EnvError, Space};

/// Lanes a block: as many as a mask has bits. The largest simulator's block takes 7 KiB.
const BLOCK: usize = 64;

/// A simulator with `S` state and `D` observation columns, as a batch stepper sees it. All functions must be free of
/// branches that depend on data, or they are not vectorised.
pub(crate) trait Dynamics<const S: usize, const D: usize>: 'static {
    /// `i32` for a discrete action space, `f32` or `[f32; A]` for a box.
    type Action: LaneAction;

    /// What options may change, the same for all lanes.
    type Setting: Copy + Send + Sync;

    /// The environment's id.
    const ID: &'static str;

    /// The observation is the state: it needs no columns of its own.
    const OBSERVES_STATE: bool;

    /// A step draws numbers.
    const DRAWS: bool;

    /// The space of an action.
    fn actions() -> Space;

    /// A start state from uniform draws in `[0, 1)`.
    fn start(setting: Self::Setting, uniform: impl FnMut() -> f32) -> [f32; S];

    /// Next state, reward, and whether the next state is terminal. Every step takes the same number of draws.
    fn step(
        setting: Self::Setting,
        state: [f32; S],
        action: Self::Action,
        uniform: impl FnMut() -> f32,
    ) -> ([f32; S], f32, bool);

    /// Observation of a state.
    fn observe(state: [f32; S]) -> [f32; D];
}

/// Columns of `N` lanes.
struct Columns<const S: usize, const D: usize> {
    state: [Vec<f32>; S],
    /// Empty if the observation is the state.
    observation: [Vec<f32>; D],
    final_observation: [Vec<f32>; D],
    rewards: Vec<f32>,
    terminated: Vec<u8>,
    truncated: Vec<u8>,
    /// Steps since the last reset.
    elapsed: Vec<u32>,
    rng: [Vec<u32>; 2],
}

/// [`BatchEnv`] of the simulator `E`.
pub(crate) struct BatchStepper<E: Dynamics<S, D>, const S: usize, const D: usize> {
    gate: ActionGate,
    setting: E::Setting,
    columns: Columns<S, D>,
    block: Box<Block<S, D>>,
    max_episode_steps: u32,
    simd: Simd,
}

impl<E: Dynamics<S, D>, const S: usize, const D: usize> BatchStepper<E, S, D> {
    /// `num_envs` copies at their start states for seed 0. A level that the processor lacks is lowered to one it has.
    pub(crate) fn new(setting: E::Setting, num_envs: usize, max_episode_steps: u32, simd: Simd) -> Self {
        let column = |_| vec![0.0; num_envs];
        let columns = Columns {
            state: std::array::from_fn(column),
            observation: std::array::from_fn(|d| if E::OBSERVES_STATE { Vec::new() } else { column(d) }),
            final_observation: std::array::from_fn(column),
            rewards: vec![0.0; num_envs],
            terminated: vec![0; num_envs],
            truncated: vec![0; num_envs],
            elapsed: vec![0; num_envs],
            rng: std::array::from_fn(|_| vec![0; num_envs]),
        };
        let block = Box::new(Block {
            state: [[0.0; BLOCK]; S],
            observation: [[0.0; BLOCK]; D],
            rewards: [0.0; BLOCK],
            terminated: [0; BLOCK],
            truncated: [0; BLOCK],
            elapsed: [0; BLOCK],
            rng: [[0; BLOCK]; 2],
        });
        let simd = simd.min(Simd::detect());
        let gate = ActionGate { env: E::ID, space: E::actions(), num_envs };
        let mut stepper = Self { gate, setting, columns, block, max_episode_steps, simd };
        stepper.reset(0);
        stepper
    }
}

impl<E: Dynamics<S, D>, const S: usize, const D: usize> BatchEnv for BatchStepper<E, S, D> {
    fn num_envs(&self) -> usize {
        self.gate.num_envs
    }

    fn reset(&mut self, seed: u64) {
        let columns = &mut self.columns;
        for i in 0..self.gate.num_envs {
            let mut rng = LaneRng::seed(seed, i as u64);
            let state = E::start(self.setting, || rng.uniform());
            for (column, value) in columns.state.iter_mut().zip(state) {
                column[i] = value;
            }
            if !E::OBSERVES_STATE {
                for (column, value) in columns.observation.iter_mut().zip(E::observe(state)) {
                    column[i] = value;
                }
            }
            columns.rng[0][i] = rng.s0;
            columns.rng[1][i] = rng.s1;
        }
        columns.rewards.fill(0.0);
        columns.terminated.fill(0);
        columns.truncated.fill(0);
        columns.elapsed.fill(0);
    }

    fn step(&mut self, actions: Actions<'_>) -> Result<(), EnvError> {
        let actions = self.gate.pass(actions)?;
        let limit = self.max_episode_steps;
        advance_with::<E, S, D>(self.simd, self.setting, &mut self.columns, &mut self.block, actions, limit);
        Ok(())
    }

    fn observation_len(&self) -> usize {
        D
    }

    fn observation_column(&self, d: usize) -> Column<'_> {
        Column::F32(if E::OBSERVES_STATE { &self.columns.state[d] } else { &self.columns.observation[d] })
    }

    fn final_observation_column(&self, d: usize) -> Column<'_> {
        Column::F32(&self.columns.final_observation[d])
    }

    fn rewards(&self) -> &[f32] {
        &self.columns.rewards
    }

    fn terminated(&self) -> &[u8] {
        &self.columns.terminated
    }

    fn truncated(&self) -> &[u8] {
        &self.columns.truncated
    }
}

/// Local copies of a block's columns.
struct Block<const S: usize, const D: usize> {
    state: [[f32; BLOCK]; S],
    observation: [[f32; BLOCK]; D],
    rewards: [f32; BLOCK],
    terminated: [u8; BLOCK],
    truncated: [u8; BLOCK],
    elapsed: [u32; BLOCK],
    rng: [[u32; BLOCK]; 2],
}

/// Runs [`advance`] compiled for `simd`. None of the three may be inlined: only as a parameter of its own function is
/// `block` known to overlap nothing.
#[allow(unsafe_code)] // Calling a function with target features needs it; `BatchStepper::new` has checked for them.
fn advance_with<E: Dynamics<S, D>, const S: usize, const D: usize>(
    simd: Simd,
    setting: E::Setting,
    columns: &mut Columns<S, D>,
    block: &mut Block<S, D>,
    actions: &[E::Action],
    limit: u32,
) {
    macro_rules! compiled {
        ($name:ident $(, $features:literal)?) => {
            #[inline(never)]
            $(#[target_feature(enable = $features)])?
            fn $name<E: Dynamics<S, D>, const S: usize, const D: usize>(
                setting: E::Setting,
                columns: &mut Columns<S, D>,
                block: &mut Block<S, D>,
                actions: &[E::Action],
                limit: u32,
            ) {
                advance::<E, S, D>(setting, columns, block, actions, limit);
            }
        };
    }
    compiled!(portable);
    #[cfg(target_arch = "x86_64")]
    {
        compiled!(avx2, "avx2");
        compiled!(avx512, "avx512f,avx512bw,avx512dq,avx512vl");
        match simd {
            // SAFETY: the constructor lowers `simd` to what `Simd::detect` found, which tests exactly these features.
            Simd::Avx512 => return unsafe { avx512::<E, S, D>(setting, columns, block, actions, limit) },
            // SAFETY: as above.
            Simd::Avx2 => return unsafe { avx2::<E, S, D>(setting, columns, block, actions, limit) },
            Simd::Portable => {}
        }
    }
    let _ = simd;
    portable::<E, S, D>(setting, columns, block, actions, limit);
}

/// Advances all lanes one step.
#[inline(always)]
fn advance<E: Dynamics<S, D>, const S: usize, const D: usize>(
    setting: E::Setting,
    columns: &mut Columns<S, D>,
    block: &mut Block<S, D>,
    actions: &[E::Action],
    limit: u32,
) {
    let mut chunks = actions.chunks_exact(BLOCK);
    let mut first = 0;
    for chunk in &mut chunks {
        // The constant length lets the compiler drop the loop's remainder.
        advance_block::<E, S, D>(setting, columns, block, &chunk[..BLOCK], first, limit);
        first += BLOCK;
    }
    if !chunks.remainder().is_empty() {
        advance_block::<E, S, D>(setting, columns, block, chunks.remainder(), first, limit);
    }
}

/// Advances the lanes `first..first + actions.len()`.
#[inline(always)]
fn advance_block<E: Dynamics<S, D>, const S: usize, const D: usize>(
    setting: E::Setting,
    columns: &mut Columns<S, D>,
    block: &mut Block<S, D>,
    actions: &[E::Action],
    first: usize,
    limit: u32,
) {
    let len = actions.len();
    assert!(len <= BLOCK);
    let lanes = first..first + len;
    for (to, from) in block.state.iter_mut().zip(&columns.state) {
        to[..len].copy_from_slice(&from[lanes.clone()]);
    }
    block.elapsed[..len].copy_from_slice(&columns.elapsed[lanes.clone()]);
    if E::DRAWS {
        for (to, from) in block.rng.iter_mut().zip(&columns.rng) {
            to[..len].copy_from_slice(&from[lanes.clone()]);
        }
    }

    for i in 0..len {
        let state = std::array::from_fn(|s| block.state[s][i]);
        let mut rng = LaneRng { s0: block.rng[0][i], s1: block.rng[1][i] };
        let (state, reward, terminated) = E::step(setting, state, actions[i], || rng.uniform());
        if E::DRAWS {
            (block.rng[0][i], block.rng[1][i]) = (rng.s0, rng.s1);
        }
        let elapsed = block.elapsed[i] + 1;
        block.rewards[i] = reward;
        block.terminated[i] = u8::from(terminated);
        block.truncated[i] = u8::from(elapsed >= limit);
        block.elapsed[i] = elapsed;
        for s in 0..S {
            block.state[s][i] = state[s];
        }
        if !E::OBSERVES_STATE {
            let observation = E::observe(state);
            for d in 0..D {
                block.observation[d][i] = observation[d];
            }
        }
    }

    if E::DRAWS {
        for (to, from) in columns.rng.iter_mut().zip(&block.rng) {
            to[lanes.clone()].copy_from_slice(&from[..len]);
        }
    }
    block.terminated[len..].fill(0);
    block.truncated[len..].fill(0);
    let mut ended = lane_mask(&block.terminated) | lane_mask(&block.truncated);
    while ended != 0 {
        let i = ended.trailing_zeros() as usize;
        ended &= ended - 1;
        let lane = first + i;
        let mut rng = LaneRng { s0: columns.rng[0][lane], s1: columns.rng[1][lane] };
        let start = E::start(setting, || rng.uniform());
        let fresh = E::observe(start);
        for d in 0..D {
            let seen = if E::OBSERVES_STATE { &mut block.state[d][i] } else { &mut block.observation[d][i] };
            columns.final_observation[d][lane] = std::mem::replace(seen, fresh[d]);
        }
        for s in 0..S {
            block.state[s][i] = start[s];
        }
        block.elapsed[i] = 0;
        (columns.rng[0][lane], columns.rng[1][lane]) = (rng.s0, rng.s1);
    }

    for (to, from) in columns.state.iter_mut().zip(&block.state) {
        to[lanes.clone()].copy_from_slice(&from[..len]);
    }
    if !E::OBSERVES_STATE {
        for (to, from) in columns.observation.iter_mut().zip(&block.observation) {
            to[lanes.clone()].copy_from_slice(&from[..len]);
        }
    }
    columns.rewards[lanes.clone()].copy_from_slice(&block.rewards[..len]);
    columns.terminated[lanes.clone()].copy_from_slice(&block.terminated[..len]);
    columns.truncated[lanes.clone()].copy_from_slice(&block.truncated[..len]);
    columns.elapsed[lanes].copy_from_slice(&block.elapsed[..len]);
}

/// Bit `i` is `flags[i]`, which is 0 or 1.
#[inline(always)]
fn lane_mask(flags: &[u8; BLOCK]) -> u64 {
    let mut mask = 0;
    for (w, &word) in flags.as_chunks::<8>().0.iter().enumerate() {
        // The product moves the lowest bit of byte `k` to bit `56 + k`.
        mask |= (u64::from_le_bytes(word).wrapping_mul(0x0102_0408_1020_4080) >> 56) << (8 * w);
    }
    mask
}
