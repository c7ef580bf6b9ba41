//! Pendulum: swing up and hold upright with a torque too weak to lift it in one go.
//!
//! # Description
//! A rod of 1 m and 1 kg turns about one end. The angle is 0 upright.
//!
//! # Observation space
//! `Box([3], f32)`: cosine and sine of the angle, angular velocity in `[-8, 8]` rad/s.
//!
//! # Action space
//! `Box([1], f32)` in `[-2, 2]`: the torque (N m); values outside are clipped.
//!
//! # Rewards
//! `-(angle^2 + 0.1 * velocity^2 + 0.001 * torque^2)` of the state before the step, the angle in `[-pi, pi)`.
//!
//! # Start state
//! Angle uniform in `[-pi, pi)`, angular velocity uniform in `[-1, 1)`.
//!
//! # End of episode
//! Never terminated; truncated after 200 steps.
//!
//! # Options
//! `g` (number, default 10): acceleration of gravity in m/s^2.
//!
//! # Source
//! The frictionless pendulum of K. Furuta, M. Yamakita and S. Kobayashi (1992) in OpenAI Gym's version.

use std::f32::consts::{FRAC_PI_2, TAU};
use std::f64::consts::PI;

use crate::batch::real::Real;
use crate::batch::{BatchStepper, Dynamics};
use crate::render::{Canvas, GREEN, MUTED, ORANGE, ORANGE_LIGHT, VIOLET, arc};
use crate::{
    ActionRef, Controls, Env, EnvError, EnvSpec, Frame, Key, NpRng, ObsMut, Options, Space, StateReader, StateWriter,
    StepOutcome,
};

/// Registry entry.
pub const SPEC: EnvSpec = EnvSpec {
    id: "Pendulum-v1",
    summary: "swing a pendulum up and hold it upright",
    max_episode_steps: Some(200),
    reward_threshold: None,
    render_fps: 30,
    controls: &[Controls {
        idle: Some(&[0.0]),
        keys: &[(Key::Left, &[(0, 2.0)], "turn left"), (Key::Right, &[(0, -2.0)], "turn right")],
    }],
    make: |options| Ok(Box::new(Pendulum::new(options)?)),
    make_batch: Some(|_, n, limit, simd| Ok(Box::new(BatchStepper::<Pendulum, 2, 3>::new((), n, limit, simd)))),
};

const MAX_SPEED: f64 = 8.0;
const MAX_TORQUE: f32 = 2.0;
/// Seconds a step.
const DT: f64 = 0.05;
const GRAVITY: f64 = 10.0;
const START_ANGLE: f64 = PI;
const START_SPEED: f64 = 1.0;

/// The pendulum in double precision.
#[derive(Clone, Debug)]
pub struct Pendulum {
    state: [f64; 2],
    /// Sine of the angle, known from the observation: computing it again would cost a third of a step.
    sin: f64,
    last_torque: Option<f32>,
    g: f64,
    observation_space: Space,
    action_space: Space,
}

impl Pendulum {
    /// Makes the environment, not started yet.
    ///
    /// # Errors
    /// [`EnvError::BadOption`] if an option has the wrong type.
    pub fn new(options: &mut Options) -> Result<Self, EnvError> {
        let high = [1.0, 1.0, MAX_SPEED as f32];
        Ok(Self {
            state: [PI, 0.0],
            sin: PI.sin(),
            last_torque: None,
            g: options.f64("g", GRAVITY)?,
            observation_space: Space::bounded(high.map(|x| -x), high, [high.len()]),
            action_space: <Self as Dynamics<2, 3>>::actions(),
        })
    }

    /// Angle (rad, 0 upright, not wrapped) and angular velocity (rad/s).
    pub fn state(&self) -> [f64; 2] {
        self.state
    }

    /// Replaces angle and angular velocity.
    pub fn set_state(&mut self, state: [f64; 2]) {
        self.state = state;
        self.sin = state[0].sin();
        self.last_torque = None;
    }

    /// Torque (N m) of the last step, clipped; none right after a reset.
    pub fn last_torque(&self) -> Option<f32> {
        self.last_torque
    }
}

/// One semi-implicit Euler step with a torque in range, given the sine of the angle; returns the new state and the cost
/// of the old one.
///
/// Gymnasium's torque is a float32, and its two terms stay single until they meet the rest.
#[inline(always)]
fn advance<R: Real>([theta, theta_dot]: [R; 2], sin: R, torque: f32, g: f64) -> ([R; 2], R) {
    let angle = theta.normalized_angle();
    let cost = angle * angle + R::of(0.1) * (theta_dot * theta_dot) + R::single(0.001 * (torque * torque));
    let acceleration = R::of(3.0 * g / 2.0) * sin + R::single(3.0 * torque);
    let theta_dot = (theta_dot + acceleration * R::of(DT)).clip(-MAX_SPEED, MAX_SPEED);
    ([theta + theta_dot * R::of(DT), theta_dot], cost)
}

#[inline(always)]
fn observation<R: Real>([theta, theta_dot]: [R; 2]) -> [R; 3] {
    let (sin, cos) = theta.sin_cos();
    [cos, sin, theta_dot]
}

impl Env for Pendulum {
    fn observation_space(&self) -> &Space {
        &self.observation_space
    }

    fn action_space(&self) -> &Space {
        &self.action_space
    }

    fn reset(&mut self, rng: &mut NpRng, obs: ObsMut<'_>) {
        self.set_state([rng.uniform(-START_ANGLE, START_ANGLE), rng.uniform(-START_SPEED, START_SPEED)]);
        super::write(observation(self.state), obs);
    }

    fn step(&mut self, action: ActionRef<'_>, _rng: &mut NpRng, obs: ObsMut<'_>) -> StepOutcome {
        let torque = super::continuous(action).clamp(-MAX_TORQUE, MAX_TORQUE);
        let (state, cost) = advance(self.state, self.sin, torque, self.g);
        let observation = observation(state);
        self.state = state;
        self.sin = observation[1];
        self.last_torque = Some(torque);
        super::write(observation, obs);
        StepOutcome { reward: -cost, terminated: false, truncated: false }
    }

    fn save_state(&self, to: &mut StateWriter) {
        self.state.iter().for_each(|&x| to.f64(x));
        // Saved because a C library may round `sincos` and `sin` differently.
        to.f64(self.sin);
        to.bool(self.last_torque.is_some());
        to.f32(self.last_torque.unwrap_or(0.0));
    }

    fn load_state(&mut self, from: &mut StateReader<'_>) -> Result<(), EnvError> {
        let state = [from.f64()?, from.f64()?];
        let (sin, known, torque) = (from.f64()?, from.bool()?, from.f32()?);
        self.state = state;
        self.sin = sin;
        self.last_torque = known.then_some(torque);
        Ok(())
    }

    fn render(&self) -> Option<Frame> {
        Some(draw(self.state[0], self.last_torque.unwrap_or(0.0)))
    }
}

impl Dynamics<2, 3> for Pendulum {
    type Action = f32;
    type Setting = ();
    const ID: &'static str = SPEC.id;
    const OBSERVES_STATE: bool = false;
    const DRAWS: bool = false;

    fn actions() -> Space {
        Space::bounded([-MAX_TORQUE], [MAX_TORQUE], [1])
    }

    #[inline(always)]
    fn start((): (), mut uniform: impl FnMut() -> f32) -> [f32; 2] {
        let (angle, speed) = (START_ANGLE as f32, START_SPEED as f32);
        [-angle + 2.0 * angle * uniform(), -speed + 2.0 * speed * uniform()]
    }

    #[inline(always)]
    fn step((): (), state: [f32; 2], action: f32, _: impl FnMut() -> f32) -> ([f32; 2], f32, bool) {
        let torque = action.clip(-f64::from(MAX_TORQUE), f64::from(MAX_TORQUE));
        let (state, cost) = advance(state, Real::sin(state[0]), torque, GRAVITY);
        (state, -cost, false)
    }

    #[inline(always)]
    fn observe(state: [f32; 2]) -> [f32; 3] {
        observation(state)
    }
}

/// The rod, the circle around it with a mark at the top, and an arrow that turns with the last torque and whose sweep
/// is proportional to it.
fn draw(theta: f64, torque: f32) -> Frame {
    let mut canvas = Canvas::new(500, 500, (0.0, 0.0), 500.0 / 3.6);
    canvas.line(&arc((0.0, 0.0), 1.4, 0.0, TAU), 0.01, MUTED.alpha(70));
    canvas.line(&[(0.0, 1.34), (0.0, 1.46)], 0.022, GREEN);
    canvas.rod((0.0, 0.0), theta as f32 + FRAC_PI_2, 1.0, 0.1, ORANGE_LIGHT, ORANGE);
    canvas.joint((0.0, 0.0), 0.06);
    let half = 0.6 * torque;
    if half.abs() > 0.01 {
        let radius = 0.45;
        let head = 0.11 * (half.abs() / 0.3).min(1.0);
        canvas.line(&arc((0.0, 0.0), radius, FRAC_PI_2 - half, FRAC_PI_2 + half), 0.036, VIOLET);
        canvas.at((0.0, 0.0), half, |c| {
            c.polygon(&[(0.0, radius - head), (0.0, radius + head), (-1.5 * head * half.signum(), radius)], VIOLET);
        });
    }
    canvas.into_frame()
}
