//! Mountain car with a continuous force: as little effort as possible.
//!
//! # Description
//! The valley of [`mountain_car`](super::mountain_car) with an engine whose force is chosen freely in `[-1, 1]`.
//!
//! # Observation space
//! `Box([2], f32)`: position in `[-1.2, 0.6]` and velocity in `[-0.07, 0.07]`.
//!
//! # Action space
//! `Box([1], f32)` in `[-1, 1]`: the force; values outside are clipped, but paid for in full.
//!
//! # Rewards
//! `-0.1 * action^2` a step, and 100 for reaching the goal.
//!
//! # Start state
//! Position uniform in `[-0.6, -0.4)`, velocity 0.
//!
//! # End of episode
//! Terminated at a position of 0.45 or more with a velocity of at least `goal_velocity`; truncated after 999 steps.
//!
//! # Options
//! `goal_velocity` (number, default 0).
//!
//! # Source
//! A. W. Moore, "Efficient memory-based learning for robot control", 1990; continuous version by O. Sigaud and
//! A. de Broissia.
//!
//! # Precision
//! Gymnasium keeps this state in single precision from the first step on, while the start is in double. This file
//! does the same: the first step after a reset runs in `f64`, all others in `f32` but for the cosine.

use crate::batch::real::Real;
use crate::batch::{BatchStepper, Dynamics};
use crate::{
    ActionRef, Controls, Env, EnvError, EnvSpec, Frame, Key, NpRng, ObsMut, Options, Space, StateReader, StateWriter,
    StepOutcome,
};

/// Registry entry.
pub const SPEC: EnvSpec = EnvSpec {
    id: "MountainCarContinuous-v0",
    summary: "drive a car out of a valley with little effort",
    max_episode_steps: Some(999),
    reward_threshold: Some(90.0),
    render_fps: 30,
    controls: &[Controls {
        idle: Some(&[0.0]),
        keys: &[(Key::Left, &[(0, -1.0)], "push left"), (Key::Right, &[(0, 1.0)], "push right")],
    }],
    make: |options| Ok(Box::new(MountainCarContinuous::new(options)?)),
    make_batch: Some(|_, n, limit, simd| {
        Ok(Box::new(BatchStepper::<MountainCarContinuous, 2, 2>::new((), n, limit, simd)))
    }),
};

const MIN_POSITION: f64 = -1.2;
const MAX_POSITION: f64 = 0.6;
const MAX_SPEED: f64 = 0.07;
const GOAL_POSITION: f64 = 0.45;
const POWER: f64 = 0.0015;
const GRAVITY: f64 = 0.0025;
const GOAL_REWARD: f64 = 100.0;
const EFFORT: f64 = 0.1;
const START_LOW: f64 = -0.6;
const START_HIGH: f64 = -0.4;

/// The continuous mountain car with Gymnasium's mixture of precisions.
#[derive(Clone, Debug)]
pub struct MountainCarContinuous {
    state: [f64; 2],
    /// The state was rounded to single precision by a step.
    single: bool,
    goal_velocity: f64,
    observation_space: Space,
    action_space: Space,
}

impl MountainCarContinuous {
    /// Makes the environment, not started yet.
    ///
    /// # Errors
    /// [`EnvError::BadOption`] if an option has the wrong type.
    pub fn new(options: &mut Options) -> Result<Self, EnvError> {
        let low = [MIN_POSITION, -MAX_SPEED].map(|x| x as f32);
        let high = [MAX_POSITION, MAX_SPEED].map(|x| x as f32);
        Ok(Self {
            state: [START_LOW, 0.0],
            single: false,
            goal_velocity: options.f64("goal_velocity", 0.0)?,
            observation_space: Space::bounded(low, high, [2]),
            action_space: <Self as Dynamics<2, 2>>::actions(),
        })
    }

    /// Position and velocity.
    pub fn state(&self) -> [f64; 2] {
        self.state
    }

    /// Replaces position and velocity; as after a reset, the next step runs in double precision.
    pub fn set_state(&mut self, state: [f64; 2]) {
        self.state = state;
        self.single = false;
    }
}

/// One step with the change of velocity that engine and slope cause; true if it arrives at the goal.
#[inline(always)]
fn advance<R: Real>([position, velocity]: [R; 2], change: R, goal_velocity: f64) -> ([R; 2], bool) {
    let velocity = (velocity + change).clip(-MAX_SPEED, MAX_SPEED);
    let position = (position + velocity).clip(MIN_POSITION, MAX_POSITION);
    let hit_wall = (position == R::of(MIN_POSITION)) & (velocity < R::of(0.0));
    let velocity = if hit_wall { R::of(0.0) } else { velocity };
    let arrived = (position >= R::of(GOAL_POSITION)) & (velocity >= R::of(goal_velocity));
    ([position, velocity], arrived)
}

/// Reward of a step.
#[inline(always)]
fn reward<R: Real>(action: R, arrived: bool) -> R {
    let goal = if arrived { R::of(GOAL_REWARD) } else { R::of(0.0) };
    goal - action * action * R::of(EFFORT)
}

impl Env for MountainCarContinuous {
    fn observation_space(&self) -> &Space {
        &self.observation_space
    }

    fn action_space(&self) -> &Space {
        &self.action_space
    }

    fn reset(&mut self, rng: &mut NpRng, obs: ObsMut<'_>) {
        self.set_state([rng.uniform(START_LOW, START_HIGH), 0.0]);
        super::write(self.state, obs);
    }

    fn step(&mut self, action: ActionRef<'_>, _rng: &mut NpRng, obs: ObsMut<'_>) -> StepOutcome {
        let force = super::continuous(action);
        let [position, velocity] = self.state.map(|x| x as f32);
        let angle = if self.single { f64::from(3.0 * position) } else { 3.0 * self.state[0] };
        let pull = GRAVITY * angle.cos();
        // A force in range is a numpy float32, which makes the difference single; a clipped one is a Python float.
        let change = if force.abs() <= 1.0 {
            f64::from(force * POWER as f32 - pull as f32)
        } else {
            f64::from(force).clip(-1.0, 1.0) * POWER - pull
        };
        let arrived;
        if self.single {
            let (state, goal) = advance([position, velocity], change as f32, self.goal_velocity);
            (self.state, arrived) = (state.map(f64::from), goal);
        } else {
            let (state, goal) = advance(self.state, change, self.goal_velocity);
            (self.state, arrived) = (state.map(|x| f64::from(x as f32)), goal);
            self.single = true;
        }
        super::write(self.state, obs);
        StepOutcome { reward: reward(f64::from(force), arrived), terminated: arrived, truncated: false }
    }

    fn save_state(&self, to: &mut StateWriter) {
        self.state.iter().for_each(|&x| to.f64(x));
        to.bool(self.single);
    }

    fn load_state(&mut self, from: &mut StateReader<'_>) -> Result<(), EnvError> {
        let state = [from.f64()?, from.f64()?];
        self.single = from.bool()?;
        self.state = state;
        Ok(())
    }

    fn render(&self) -> Option<Frame> {
        Some(super::mountain_car::draw(self.state[0], GOAL_POSITION))
    }
}

impl Dynamics<2, 2> for MountainCarContinuous {
    type Action = f32;
    type Setting = ();
    const ID: &'static str = SPEC.id;
    const OBSERVES_STATE: bool = true;
    const DRAWS: bool = false;

    fn actions() -> Space {
        Space::bounded([-1.0], [1.0], [1])
    }

    #[inline(always)]
    fn start((): (), mut uniform: impl FnMut() -> f32) -> [f32; 2] {
        [START_LOW as f32 + (START_HIGH - START_LOW) as f32 * uniform(), 0.0]
    }

    #[inline(always)]
    fn step((): (), state: [f32; 2], action: f32, _: impl FnMut() -> f32) -> ([f32; 2], f32, bool) {
        let force = action.clip(-1.0, 1.0);
        let change = force * f32::of(POWER) - f32::of(GRAVITY) * Real::cos(3.0 * state[0]);
        let (state, arrived) = advance(state, change, 0.0);
        (state, reward(force, arrived), arrived)
    }

    #[inline(always)]
    fn observe(state: [f32; 2]) -> [f32; 2] {
        state
    }
}
