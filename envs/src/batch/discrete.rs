//! The stepper behind [`BatchEnv`] for simulators with integer observations and a `Discrete` action space, whose step
//! looks up tables or draws cards: there is no arithmetic to vectorise, so one loop goes over the lanes, each of which
//! keeps all that its step needs in one place.

use super::lane_rng::LaneRng;
use super::{ActionGate, BatchEnv, Column};
use crate::{Actions, EnvError, Space};

/// A simulator whose observations are `D` integers, as a batch stepper sees it. One value serves all lanes.
pub(crate) trait DiscreteDynamics<const D: usize>: Send {
    /// State of one lane.
    type State: Copy + Send;

    /// Number of actions.
    fn num_actions(&self) -> i32;

    /// A start state.
    fn start(&self, rng: &mut LaneRng) -> Self::State;

    /// Next state, reward, and whether the next state is terminal; the action is below the number of actions.
    fn step(&self, state: Self::State, action: usize, rng: &mut LaneRng) -> (Self::State, f32, bool);

    /// Observation of a state.
    fn observe(&self, state: Self::State) -> [i32; D];
}

struct Lane<S> {
    state: S,
    /// Steps since the last reset.
    elapsed: u32,
    rng: LaneRng,
}

/// [`BatchEnv`] of the simulator `E`.
pub(crate) struct DiscreteStepper<E: DiscreteDynamics<D>, const D: usize> {
    gate: ActionGate,
    dynamics: E,
    max_episode_steps: u32,
    lanes: Vec<Lane<E::State>>,
    observation: [Vec<i32>; D],
    final_observation: [Vec<i32>; D],
    rewards: Vec<f32>,
    terminated: Vec<u8>,
    truncated: Vec<u8>,
}

impl<E: DiscreteDynamics<D>, const D: usize> DiscreteStepper<E, D> {
    /// `num_envs` copies at their start states for seed 0; `id` names them in messages.
    pub(crate) fn new(id: &'static str, dynamics: E, num_envs: usize, max_episode_steps: u32) -> Self {
        let start = |lane| {
            let mut rng = LaneRng::seed(0, lane);
            Lane { state: dynamics.start(&mut rng), elapsed: 0, rng }
        };
        let lanes = (0..num_envs as u64).map(start).collect();
        let column = |_| vec![0; num_envs];
        let mut stepper = Self {
            gate: ActionGate { env: id, space: Space::discrete(dynamics.num_actions()), num_envs },
            dynamics,
            max_episode_steps,
            lanes,
            observation: std::array::from_fn(column),
            final_observation: std::array::from_fn(column),
            rewards: vec![0.0; num_envs],
            terminated: vec![0; num_envs],
            truncated: vec![0; num_envs],
        };
        stepper.reset(0);
        stepper
    }
}

impl<E: DiscreteDynamics<D>, const D: usize> BatchEnv for DiscreteStepper<E, D> {
    fn num_envs(&self) -> usize {
        self.lanes.len()
    }

    fn reset(&mut self, seed: u64) {
        for (i, lane) in self.lanes.iter_mut().enumerate() {
            let mut rng = LaneRng::seed(seed, i as u64);
            let state = self.dynamics.start(&mut rng);
            *lane = Lane { state, elapsed: 0, rng };
            for (column, value) in self.observation.iter_mut().zip(self.dynamics.observe(state)) {
                column[i] = value;
            }
        }
        self.rewards.fill(0.0);
        self.terminated.fill(0);
        self.truncated.fill(0);
    }

    fn step(&mut self, actions: Actions<'_>) -> Result<(), EnvError> {
        let actions: &[i32] = self.gate.pass(actions)?;
        let n = actions.len();
        // Slices of one length known to the compiler: indexing needs no checks.
        let (lanes, rewards) = (&mut self.lanes[..n], &mut self.rewards[..n]);
        let (terminated, truncated) = (&mut self.terminated[..n], &mut self.truncated[..n]);
        let mut seen = self.observation.each_mut().map(|column| &mut column[..n]);
        let mut finals = self.final_observation.each_mut().map(|column| &mut column[..n]);
        for i in 0..n {
            let Lane { state, elapsed, rng } = &mut lanes[i];
            let (next, reward, is_terminal) = self.dynamics.step(*state, actions[i] as usize, rng);
            *elapsed += 1;
            let is_last = *elapsed >= self.max_episode_steps;
            *state = next;
            rewards[i] = reward;
            terminated[i] = u8::from(is_terminal);
            truncated[i] = u8::from(is_last);
            let mut observation = self.dynamics.observe(next);
            if is_terminal | is_last {
                for (column, value) in finals.iter_mut().zip(observation) {
                    column[i] = value;
                }
                *elapsed = 0;
                *state = self.dynamics.start(rng);
                observation = self.dynamics.observe(*state);
            }
            for (column, value) in seen.iter_mut().zip(observation) {
                column[i] = value;
            }
        }
        Ok(())
    }

    fn observation_len(&self) -> usize {
        D
    }

    fn observation_column(&self, d: usize) -> Column<'_> {
        Column::I32(&self.observation[d])
    }

    fn final_observation_column(&self, d: usize) -> Column<'_> {
        Column::I32(&self.final_observation[d])
    }

    fn rewards(&self) -> &[f32] {
        &self.rewards
    }

    fn terminated(&self) -> &[u8] {
        &self.terminated
    }

    fn truncated(&self) -> &[u8] {
        &self.truncated
    }
}
