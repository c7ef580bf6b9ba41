//! Cart-pole: balance a pole that is hinged to a cart by pushing the cart left or right.
//!
//! # Description
//! A pole is attached by an unactuated joint to a cart on a frictionless track. It starts upright and must be kept
//! from falling by forces of constant size on the cart.
//!
//! # Observation space
//! `Box([4], f32)`:
//!
//! | index | quantity | bound |
//! | --- | --- | --- |
//! | 0 | cart position (m) | ±4.8 |
//! | 1 | cart velocity (m/s) | none |
//! | 2 | pole angle from upright (rad) | ±0.418 (24°) |
//! | 3 | pole angular velocity (rad/s) | none |
//!
//! # Action space
//! `Discrete(2)`: 0 pushes the cart to the left, 1 to the right, with 10 N.
//!
//! # Rewards
//! 1 a step, the last one included. With `sutton_barto_reward`: 0 a step and -1 on failure.
//!
//! # Start state
//! All four quantities uniform in `[-0.05, 0.05)`.
//!
//! # End of episode
//! Terminated when the cart leaves ±2.4 m or the pole ±12°; truncated after 500 steps.
//!
//! # Options
//! `sutton_barto_reward` (bool, default false).
//!
//! # Source
//! A. G. Barto, R. S. Sutton and C. W. Anderson, "Neuronlike adaptive elements that can solve difficult learning
//! control problems", 1983. Equations of motion: R. V. Florian, "Correct equations for the dynamics of the cart-pole
//! system", 2007 (eq. 23 and 24 without friction), integrated with explicit Euler steps of 0.02 s.

use std::f64::consts::PI;

use crate::batch::real::Real;
use crate::batch::{BatchStepper, Dynamics};
use crate::render::{
    BLUE, BLUE_LIGHT, Canvas, Fill, GROUND_BOTTOM, GROUND_TOP, INK, INK_LIGHT, LIGHT, MUTED, ORANGE, ORANGE_LIGHT,
};
use crate::{
    ActionRef, Controls, Env, EnvError, EnvSpec, Frame, Key, NpRng, ObsMut, Options, Space, StateReader, StateWriter,
    StepOutcome,
};

/// Registry entry.
pub const SPEC: EnvSpec = EnvSpec {
    id: "CartPole-v1",
    summary: "balance a pole on a cart",
    max_episode_steps: Some(500),
    reward_threshold: Some(475.0),
    render_fps: 50,
    controls: &[Controls {
        idle: None,
        keys: &[(Key::Left, &[(0, 0.0)], "push left"), (Key::Right, &[(0, 1.0)], "push right")],
    }],
    make: |options| Ok(Box::new(CartPole::new(options)?)),
    make_batch: Some(|_, n, limit, simd| Ok(Box::new(BatchStepper::<CartPole, 4, 4>::new((), n, limit, simd)))),
};

const GRAVITY: f64 = 9.8;
const CART_MASS: f64 = 1.0;
const POLE_MASS: f64 = 0.1;
const TOTAL_MASS: f64 = POLE_MASS + CART_MASS;
/// Half of the pole's length.
const LENGTH: f64 = 0.5;
const POLE_MASS_LENGTH: f64 = POLE_MASS * LENGTH;
const FORCE: f64 = 10.0;
/// Seconds a step.
const TAU: f64 = 0.02;
const POSITION_LIMIT: f64 = 2.4;
const ANGLE_LIMIT: f64 = 12.0 * 2.0 * PI / 360.0;
const START: f64 = 0.05;

/// The cart-pole system in double precision.
#[derive(Clone, Debug)]
pub struct CartPole {
    state: [f64; 4],
    /// A step has ended the episode; Gymnasium rewards further steps differently.
    fell: bool,
    sutton_barto_reward: bool,
    observation_space: Space,
    action_space: Space,
}

impl CartPole {
    /// Makes the environment, not started yet.
    ///
    /// # Errors
    /// [`EnvError::BadOption`] if an option has the wrong type.
    pub fn new(options: &mut Options) -> Result<Self, EnvError> {
        let high = [2.0 * POSITION_LIMIT, f64::INFINITY, 2.0 * ANGLE_LIMIT, f64::INFINITY].map(|x| x as f32);
        Ok(Self {
            state: [0.0; 4],
            fell: false,
            sutton_barto_reward: options.bool("sutton_barto_reward", false)?,
            observation_space: Space::bounded(high.map(|x| -x), high, [high.len()]),
            action_space: <Self as Dynamics<4, 4>>::actions(),
        })
    }

    /// Cart position (m) and velocity (m/s), pole angle (rad) and angular velocity (rad/s).
    pub fn state(&self) -> [f64; 4] {
        self.state
    }

    /// Replaces the state; the episode counts as running.
    pub fn set_state(&mut self, state: [f64; 4]) {
        self.state = state;
        self.fell = false;
    }
}

/// One Euler step of the equations of motion.
#[inline(always)]
fn advance<R: Real>([x, x_dot, theta, theta_dot]: [R; 4], force: R) -> [R; 4] {
    let (sin, cos) = theta.sin_cos();
    let push = (force + R::of(POLE_MASS_LENGTH) * (theta_dot * theta_dot) * sin).over_const(TOTAL_MASS);
    let theta_acc = (R::of(GRAVITY) * sin - cos * push)
        .over(R::of(LENGTH) * (R::of(4.0 / 3.0) - (R::of(POLE_MASS) * (cos * cos)).over_const(TOTAL_MASS)));
    let x_acc = push - (R::of(POLE_MASS_LENGTH) * theta_acc * cos).over_const(TOTAL_MASS);
    let tau = R::of(TAU);
    [x + tau * x_dot, x_dot + tau * x_acc, theta + tau * theta_dot, theta_dot + tau * theta_acc]
}

/// Whether the cart or the pole has left its bounds.
#[inline(always)]
fn failed<R: Real>([x, _, theta, _]: [R; 4]) -> bool {
    let (x_limit, theta_limit) = (R::of(POSITION_LIMIT), R::of(ANGLE_LIMIT));
    (x < -x_limit) | (x > x_limit) | (theta < -theta_limit) | (theta > theta_limit)
}

impl Env for CartPole {
    fn observation_space(&self) -> &Space {
        &self.observation_space
    }

    fn action_space(&self) -> &Space {
        &self.action_space
    }

    fn reset(&mut self, rng: &mut NpRng, obs: ObsMut<'_>) {
        self.set_state(std::array::from_fn(|_| rng.uniform(-START, START)));
        super::write(self.state, obs);
    }

    fn step(&mut self, action: ActionRef<'_>, _rng: &mut NpRng, obs: ObsMut<'_>) -> StepOutcome {
        let force = if super::discrete(action) == 1 { FORCE } else { -FORCE };
        self.state = advance(self.state, force);
        let terminated = failed(self.state);
        let reward = match (self.sutton_barto_reward, terminated) {
            (false, false) => 1.0,
            (false, true) => f64::from(u8::from(!self.fell)),
            (true, false) => 0.0,
            (true, true) => -1.0,
        };
        self.fell |= terminated;
        super::write(self.state, obs);
        StepOutcome { reward, terminated, truncated: false }
    }

    fn save_state(&self, to: &mut StateWriter) {
        self.state.iter().for_each(|&x| to.f64(x));
        to.bool(self.fell);
    }

    fn load_state(&mut self, from: &mut StateReader<'_>) -> Result<(), EnvError> {
        let state = [from.f64()?, from.f64()?, from.f64()?, from.f64()?];
        self.fell = from.bool()?;
        self.state = state;
        Ok(())
    }

    fn render(&self) -> Option<Frame> {
        Some(draw(self.state))
    }
}

impl Dynamics<4, 4> for CartPole {
    type Action = i32;
    type Setting = ();
    const ID: &'static str = SPEC.id;
    const OBSERVES_STATE: bool = true;
    const DRAWS: bool = false;

    fn actions() -> Space {
        Space::discrete(2)
    }

    #[inline(always)]
    fn start((): (), mut uniform: impl FnMut() -> f32) -> [f32; 4] {
        let (low, range) = (-START as f32, (2.0 * START) as f32);
        [low + range * uniform(), low + range * uniform(), low + range * uniform(), low + range * uniform()]
    }

    #[inline(always)]
    fn step((): (), state: [f32; 4], action: i32, _: impl FnMut() -> f32) -> ([f32; 4], f32, bool) {
        let force = if action >= 1 { FORCE } else { -FORCE };
        let state = advance(state, f32::of(force));
        (state, 1.0, failed(state))
    }

    #[inline(always)]
    fn observe(state: [f32; 4]) -> [f32; 4] {
        state
    }
}

/// The rail with a mark every metre, the cart and the pole; the picture is as wide as the track.
fn draw([x, _, theta, _]: [f64; 4]) -> Frame {
    let (x, theta) = (x as f32, theta as f32);
    let (half, pole) = (POSITION_LIMIT as f32, 2.0 * LENGTH as f32);
    let mut canvas = Canvas::new(600, 400, (0.0, 0.9), 300.0 / half);
    canvas.rect((-half, -1.0), (half, 0.0), 0.0, Fill::vertical(0.0, GROUND_TOP, -0.7, GROUND_BOTTOM));
    canvas.line(&[(-half, 0.0), (half, 0.0)], 0.028, INK_LIGHT);
    for mark in -2..=2 {
        canvas.line(&[(mark as f32, -0.08), (mark as f32, -0.12)], 0.016, MUTED);
    }
    canvas.at((x, 0.0), 0.0, |c| {
        c.shadow((0.0, -0.03), 0.4, 0.045);
        c.rect((-0.27, 0.07), (0.27, 0.29), 0.06, Fill::vertical(0.29, BLUE_LIGHT, 0.07, BLUE));
        for wheel in [-0.155, 0.155] {
            c.circle((wheel, 0.085), 0.075, INK);
            c.circle((wheel, 0.085), 0.03, LIGHT);
        }
    });
    canvas.at((x, 0.22), -theta, |c| {
        c.rect((-0.045, -0.045), (0.045, pole), 0.045, Fill::horizontal(-0.045, ORANGE_LIGHT, 0.045, ORANGE));
        c.joint((0.0, 0.0), 0.036);
    });
    canvas.into_frame()
}
