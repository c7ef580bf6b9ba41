//! Mountain car: drive an underpowered car out of a valley by swinging up.
//!
//! # Description
//! A car stands in a sinusoidal valley. Its engine cannot climb the right-hand hill from rest: it must first gain
//! speed on the left-hand one.
//!
//! # Observation space
//! `Box([2], f32)`: position in `[-1.2, 0.6]` and velocity in `[-0.07, 0.07]`.
//!
//! # Action space
//! `Discrete(3)`: 0 accelerates to the left, 1 not at all, 2 to the right.
//!
//! # Rewards
//! -1 a step.
//!
//! # Start state
//! Position uniform in `[-0.6, -0.4)`, velocity 0.
//!
//! # End of episode
//! Terminated at a position of 0.5 or more with a velocity of at least `goal_velocity`; truncated after 200 steps.
//!
//! # Options
//! `goal_velocity` (number, default 0).
//!
//! # Source
//! A. W. Moore, "Efficient memory-based learning for robot control", 1990; with the constants of R. S. Sutton and
//! A. G. Barto, "Reinforcement Learning: An Introduction", 2nd ed., example 10.1.

use crate::batch::real::Real;
use crate::batch::{BatchStepper, Dynamics};
use crate::render::{BLUE, BLUE_LIGHT, Canvas, Fill, GREEN, GROUND_BOTTOM, GROUND_TOP, INK, INK_LIGHT, LIGHT};
use crate::{
    ActionRef, Controls, Env, EnvError, EnvSpec, Frame, Key, NpRng, ObsMut, Options, Space, StateReader, StateWriter,
    StepOutcome,
};

/// Registry entry.
pub const SPEC: EnvSpec = EnvSpec {
    id: "MountainCar-v0",
    summary: "drive an underpowered car out of a valley",
    max_episode_steps: Some(200),
    reward_threshold: Some(-110.0),
    render_fps: 30,
    controls: &[Controls {
        idle: Some(&[1.0]),
        keys: &[(Key::Left, &[(0, 0.0)], "push left"), (Key::Right, &[(0, 2.0)], "push right")],
    }],
    make: |options| Ok(Box::new(MountainCar::new(options)?)),
    make_batch: Some(|_, n, limit, simd| Ok(Box::new(BatchStepper::<MountainCar, 2, 2>::new((), n, limit, simd)))),
};

const MIN_POSITION: f64 = -1.2;
const MAX_POSITION: f64 = 0.6;
const MAX_SPEED: f64 = 0.07;
const GOAL_POSITION: f64 = 0.5;
const FORCE: f64 = 0.001;
const GRAVITY: f64 = 0.0025;
const START_LOW: f64 = -0.6;
const START_HIGH: f64 = -0.4;

/// The mountain car in double precision.
#[derive(Clone, Debug)]
pub struct MountainCar {
    state: [f64; 2],
    goal_velocity: f64,
    observation_space: Space,
    action_space: Space,
}

impl MountainCar {
    /// Makes the environment, not started yet.
    ///
    /// # Errors
    /// [`EnvError::BadOption`] if an option has the wrong type.
    pub fn new(options: &mut Options) -> Result<Self, EnvError> {
        let low = [MIN_POSITION, -MAX_SPEED].map(|x| x as f32);
        let high = [MAX_POSITION, MAX_SPEED].map(|x| x as f32);
        Ok(Self {
            state: [START_LOW, 0.0],
            goal_velocity: options.f64("goal_velocity", 0.0)?,
            observation_space: Space::bounded(low, high, [2]),
            action_space: <Self as Dynamics<2, 2>>::actions(),
        })
    }

    /// Position and velocity.
    pub fn state(&self) -> [f64; 2] {
        self.state
    }

    /// Replaces position and velocity.
    pub fn set_state(&mut self, state: [f64; 2]) {
        self.state = state;
    }
}

/// One step; `direction` is -1, 0 or 1.
#[inline(always)]
fn advance<R: Real>([position, velocity]: [R; 2], direction: R) -> [R; 2] {
    let pull = (R::of(3.0) * position).cos() * R::of(-GRAVITY);
    let velocity = (velocity + (direction * R::of(FORCE) + pull)).clip(-MAX_SPEED, MAX_SPEED);
    let position = (position + velocity).clip(MIN_POSITION, MAX_POSITION);
    let hit_wall = (position == R::of(MIN_POSITION)) & (velocity < R::of(0.0));
    [position, if hit_wall { R::of(0.0) } else { velocity }]
}

/// Whether the car is at the goal, fast enough.
#[inline(always)]
fn arrived<R: Real>([position, velocity]: [R; 2], goal_velocity: f64) -> bool {
    (position >= R::of(GOAL_POSITION)) & (velocity >= R::of(goal_velocity))
}

impl Env for MountainCar {
    fn observation_space(&self) -> &Space {
        &self.observation_space
    }

    fn action_space(&self) -> &Space {
        &self.action_space
    }

    fn reset(&mut self, rng: &mut NpRng, obs: ObsMut<'_>) {
        self.state = [rng.uniform(START_LOW, START_HIGH), 0.0];
        super::write(self.state, obs);
    }

    fn step(&mut self, action: ActionRef<'_>, _rng: &mut NpRng, obs: ObsMut<'_>) -> StepOutcome {
        self.state = advance(self.state, f64::from(super::discrete(action) - 1));
        super::write(self.state, obs);
        StepOutcome { reward: -1.0, terminated: arrived(self.state, self.goal_velocity), truncated: false }
    }

    fn save_state(&self, to: &mut StateWriter) {
        self.state.iter().for_each(|&x| to.f64(x));
    }

    fn load_state(&mut self, from: &mut StateReader<'_>) -> Result<(), EnvError> {
        self.state = [from.f64()?, from.f64()?];
        Ok(())
    }

    fn render(&self) -> Option<Frame> {
        Some(draw(self.state[0], GOAL_POSITION))
    }
}

impl Dynamics<2, 2> for MountainCar {
    type Action = i32;
    type Setting = ();
    const ID: &'static str = SPEC.id;
    const OBSERVES_STATE: bool = true;
    const DRAWS: bool = false;

    fn actions() -> Space {
        Space::discrete(3)
    }

    #[inline(always)]
    fn start((): (), mut uniform: impl FnMut() -> f32) -> [f32; 2] {
        [START_LOW as f32 + (START_HIGH - START_LOW) as f32 * uniform(), 0.0]
    }

    #[inline(always)]
    fn step((): (), state: [f32; 2], action: i32, _: impl FnMut() -> f32) -> ([f32; 2], f32, bool) {
        let state = advance(state, (action - 1) as f32);
        (state, -1.0, arrived(state, 0.0))
    }

    #[inline(always)]
    fn observe(state: [f32; 2]) -> [f32; 2] {
        state
    }
}

/// The valley, the car and the flag at `goal`.
pub(super) fn draw(position: f64, goal: f64) -> Frame {
    let (position, goal) = (position as f32, goal as f32);
    let height = |x: f32| 0.45 * (3.0 * x).sin() + 0.55;
    // A little more than the track, so that all of the car is in the picture at both of its ends.
    let (left, right) = (MIN_POSITION as f32 - 0.1, MAX_POSITION as f32 + 0.06);
    let mut canvas = Canvas::new(600, 400, ((left + right) / 2.0, 0.61), 600.0 / (right - left));
    let curve = |height: &dyn Fn(f32) -> f32| -> Vec<(f32, f32)> {
        (0..=120).map(|i| left + i as f32 / 120.0 * (right - left)).map(|x| (x, height(x))).collect()
    };
    let corners = [(right, -0.1), (left, -0.1)];
    let mist = Fill::vertical(0.8, GROUND_TOP.alpha(120), 0.1, GROUND_BOTTOM.alpha(0));
    let ridge = curve(&|x| 0.6 + 0.1 * (5.0 * x).sin() + 0.05 * (11.0 * x + 2.0).sin());
    canvas.polygon(&[ridge, corners.to_vec()].concat(), mist);
    let track = curve(&height);
    let ground = Fill::vertical(1.0, GROUND_TOP, 0.0, GROUND_BOTTOM);
    canvas.polygon(&[&track[..], &corners].concat(), ground);
    canvas.line(&track, 0.013, INK_LIGHT);

    canvas.at((goal, height(goal)), 0.0, |c| {
        c.line(&[(0.0, 0.0), (0.0, 0.17)], 0.011, INK);
        c.polygon(&[(0.0, 0.175), (0.085, 0.145), (0.0, 0.115)], GREEN);
    });
    let slope = (1.35 * (3.0 * position).cos()).atan();
    canvas.at((position, height(position)), slope, |c| {
        c.polygon(&[(-0.042, 0.07), (-0.026, 0.112), (0.02, 0.112), (0.042, 0.07)], BLUE);
        c.polygon(&[(-0.029, 0.078), (-0.02, 0.105), (-0.005, 0.105), (-0.005, 0.078)], LIGHT);
        c.polygon(&[(0.002, 0.078), (0.002, 0.105), (0.016, 0.105), (0.03, 0.078)], LIGHT);
        c.rect((-0.075, 0.03), (0.075, 0.078), 0.02, Fill::vertical(0.078, BLUE_LIGHT, 0.03, BLUE));
        for wheel in [-0.043, 0.043] {
            c.circle((wheel, 0.031), 0.026, INK);
            c.circle((wheel, 0.031), 0.011, LIGHT);
        }
    });
    canvas.into_frame()
}
