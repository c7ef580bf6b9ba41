//! Acrobot: swing the free end of a two-link chain above a line by a torque on the middle joint.
//!
//! # Description
//! Two links of 1 m and 1 kg hang from a fixed joint; only the joint between them is actuated. Angles are 0 hanging
//! down; the second is relative to the first.
//!
//! # Observation space
//! `Box([6], f32)`: cosine and sine of the first angle, cosine and sine of the second, angular velocities in
//! `[-4 pi, 4 pi]` and `[-9 pi, 9 pi]` rad/s.
//!
//! # Action space
//! `Discrete(3)`: a torque of -1, 0 or 1 N m.
//!
//! # Rewards
//! -1 a step, 0 for the step that reaches the goal.
//!
//! # Start state
//! Both angles and velocities uniform in `[-0.1, 0.1)`, rounded to single precision as Gymnasium does.
//!
//! # End of episode
//! Terminated when the free end is more than one link length above the fixed joint,
//! `-cos(theta1) - cos(theta1 + theta2) > 1`; truncated after 500 steps.
//!
//! # Options
//! None: Gymnasium's `dt`, `book_or_nips` and `torque_noise_max` are attributes, not arguments. The equations are the
//! book's, without noise.
//!
//! # Source
//! R. S. Sutton, "Generalization in reinforcement learning: successful examples using sparse coarse coding", 1996;
//! equations of R. S. Sutton and A. G. Barto, "Reinforcement Learning: An Introduction", integrated with one
//! fourth-order Runge-Kutta step of 0.2 s.

use std::f32::consts::{FRAC_PI_2, TAU};
use std::f64::consts::PI;

use crate::batch::real::Real;
use crate::batch::{BatchStepper, Dynamics};
use crate::render::{BLUE, BLUE_LIGHT, Canvas, GREEN, MUTED, ORANGE, ORANGE_LIGHT, arc};
use crate::{
    ActionRef, Controls, Env, EnvError, EnvSpec, Frame, Key, NpRng, ObsMut, Space, StateReader, StateWriter,
    StepOutcome,
};

/// Registry entry.
pub const SPEC: EnvSpec = EnvSpec {
    id: "Acrobot-v1",
    summary: "swing a two-link chain above a line",
    max_episode_steps: Some(500),
    reward_threshold: Some(-100.0),
    render_fps: 15,
    controls: &[Controls {
        idle: Some(&[1.0]),
        keys: &[(Key::Left, &[(0, 0.0)], "torque -1"), (Key::Right, &[(0, 2.0)], "torque 1")],
    }],
    make: |_| Ok(Box::new(Acrobot::new())),
    make_batch: Some(|_, n, limit, simd| Ok(Box::new(BatchStepper::<Acrobot, 4, 6>::new((), n, limit, simd)))),
};

const GRAVITY: f64 = 9.8;
/// Masses of the links (kg).
const M1: f64 = 1.0;
const M2: f64 = 1.0;
/// Length of the first link (m); the second one's does not enter the dynamics.
const L1: f64 = 1.0;
/// Distances of the centres of mass from the upper joints (m).
const LC1: f64 = 0.5;
const LC2: f64 = 0.5;
/// Moments of inertia.
const I1: f64 = 1.0;
const I2: f64 = 1.0;
const MAX_SPEED_1: f64 = 4.0 * PI;
const MAX_SPEED_2: f64 = 9.0 * PI;
/// Seconds a step.
const DT: f64 = 0.2;
const START: f64 = 0.1;

/// The acrobot in double precision.
#[derive(Clone, Debug)]
pub struct Acrobot {
    state: [f64; 4],
    observation_space: Space,
    action_space: Space,
}

impl Acrobot {
    /// Makes the environment, not started yet.
    pub fn new() -> Self {
        let high = [1.0, 1.0, 1.0, 1.0, MAX_SPEED_1 as f32, MAX_SPEED_2 as f32];
        Self {
            state: [0.0; 4],
            observation_space: Space::bounded(high.map(|x| -x), high, [high.len()]),
            action_space: <Self as Dynamics<4, 6>>::actions(),
        }
    }

    /// Angles of the two joints (rad) and their angular velocities (rad/s).
    pub fn state(&self) -> [f64; 4] {
        self.state
    }

    /// Replaces angles and angular velocities.
    pub fn set_state(&mut self, state: [f64; 4]) {
        self.state = state;
    }
}

impl Default for Acrobot {
    fn default() -> Self {
        Self::new()
    }
}

/// Time derivative of the state.
#[inline(always)]
fn derivative<R: Real>([theta1, theta2, dtheta1, dtheta2]: [R; 4], torque: R) -> [R; 4] {
    let (sin2, cos2) = theta2.sin_cos();
    let d1 = R::of(M1 * (LC1 * LC1))
        + R::of(M2) * (R::of(L1 * L1 + LC2 * LC2) + R::of(2.0 * L1 * LC2) * cos2)
        + R::of(I1)
        + R::of(I2);
    let d2 = R::of(M2) * (R::of(LC2 * LC2) + R::of(L1 * LC2) * cos2) + R::of(I2);
    let phi2 = R::of(M2 * LC2 * GRAVITY) * (theta1 + theta2 - R::of(PI / 2.0)).cos();
    let phi1 = R::of(-M2 * L1 * LC2) * (dtheta2 * dtheta2) * sin2
        - R::of(2.0 * M2 * L1 * LC2) * dtheta2 * dtheta1 * sin2
        + R::of((M1 * LC1 + M2 * L1) * GRAVITY) * (theta1 - R::of(PI / 2.0)).cos()
        + phi2;
    let numerator = torque + d2.over(d1) * phi1 - R::of(M2 * L1 * LC2) * (dtheta1 * dtheta1) * sin2 - phi2;
    let ddtheta2 = numerator.over(R::of(M2 * (LC2 * LC2) + I2) - (d2 * d2).over(d1));
    let ddtheta1 = -((d2 * ddtheta2 + phi1).over(d1));
    [dtheta1, dtheta2, ddtheta1, ddtheta2]
}

/// One classical Runge-Kutta step, then angles wrapped and velocities clipped.
#[inline(always)]
fn advance<R: Real>(y: [R; 4], torque: R) -> [R; 4] {
    let along = |k: [R; 4], dt: f64| std::array::from_fn(|i| y[i] + R::of(dt) * k[i]);
    let k1 = derivative(y, torque);
    let k2 = derivative(along(k1, DT / 2.0), torque);
    let k3 = derivative(along(k2, DT / 2.0), torque);
    let k4 = derivative(along(k3, DT), torque);
    let two = R::of(2.0);
    let [theta1, theta2, dtheta1, dtheta2] =
        std::array::from_fn(|i| y[i] + R::of(DT / 6.0) * (k1[i] + two * k2[i] + two * k3[i] + k4[i]));
    [
        theta1.unwound_angle(),
        theta2.unwound_angle(),
        dtheta1.clip(-MAX_SPEED_1, MAX_SPEED_1),
        dtheta2.clip(-MAX_SPEED_2, MAX_SPEED_2),
    ]
}

/// Whether the free end is above the line.
#[inline(always)]
fn arrived<R: Real>([theta1, theta2, ..]: [R; 4]) -> bool {
    -theta1.cos() - (theta2 + theta1).cos() > R::of(1.0)
}

#[inline(always)]
fn observation<R: Real>([theta1, theta2, dtheta1, dtheta2]: [R; 4]) -> [R; 6] {
    let ((sin1, cos1), (sin2, cos2)) = (theta1.sin_cos(), theta2.sin_cos());
    [cos1, sin1, cos2, sin2, dtheta1, dtheta2]
}

impl Env for Acrobot {
    fn observation_space(&self) -> &Space {
        &self.observation_space
    }

    fn action_space(&self) -> &Space {
        &self.action_space
    }

    fn reset(&mut self, rng: &mut NpRng, obs: ObsMut<'_>) {
        self.state = std::array::from_fn(|_| f64::from(rng.uniform(-START, START) as f32));
        super::write(observation(self.state), obs);
    }

    fn step(&mut self, action: ActionRef<'_>, _rng: &mut NpRng, obs: ObsMut<'_>) -> StepOutcome {
        self.state = advance(self.state, f64::from(super::discrete(action) - 1));
        let terminated = arrived(self.state);
        super::write(observation(self.state), obs);
        StepOutcome { reward: if terminated { 0.0 } else { -1.0 }, terminated, truncated: false }
    }

    fn save_state(&self, to: &mut StateWriter) {
        self.state.iter().for_each(|&x| to.f64(x));
    }

    fn load_state(&mut self, from: &mut StateReader<'_>) -> Result<(), EnvError> {
        self.state = [from.f64()?, from.f64()?, from.f64()?, from.f64()?];
        Ok(())
    }

    fn render(&self) -> Option<Frame> {
        Some(draw(self.state))
    }
}

impl Dynamics<4, 6> for Acrobot {
    type Action = i32;
    type Setting = ();
    const ID: &'static str = SPEC.id;
    const OBSERVES_STATE: bool = false;
    const DRAWS: bool = false;

    fn actions() -> Space {
        Space::discrete(3)
    }

    #[inline(always)]
    fn start((): (), mut uniform: impl FnMut() -> f32) -> [f32; 4] {
        let (low, range) = (-START as f32, (2.0 * START) as f32);
        [low + range * uniform(), low + range * uniform(), low + range * uniform(), low + range * uniform()]
    }

    #[inline(always)]
    fn step((): (), state: [f32; 4], action: i32, _: impl FnMut() -> f32) -> ([f32; 4], f32, bool) {
        let state = advance(state, (action - 1) as f32);
        let terminated = arrived(state);
        (state, if terminated { 0.0 } else { -1.0 }, terminated)
    }

    #[inline(always)]
    fn observe(state: [f32; 4]) -> [f32; 6] {
        observation(state)
    }
}

/// The two links, the circle that they can reach and the line to swing above.
fn draw([theta1, theta2, _, _]: [f64; 4]) -> Frame {
    let (theta1, theta2, length) = (theta1 as f32, theta2 as f32, L1 as f32);
    let (half, radius) = (2.2, 0.09);
    let mut canvas = Canvas::new(500, 500, (0.0, 0.0), 250.0 / half);
    canvas.line(&arc((0.0, 0.0), 2.0 * length + radius, 0.0, TAU), 0.01, MUTED.alpha(70));
    canvas.dashes((-half, length), (half, length), 0.018, [0.09, 0.07], GREEN);
    let elbow = (length * theta1.sin(), -length * theta1.cos());
    canvas.rod(elbow, theta1 + theta2 - FRAC_PI_2, length, radius, ORANGE_LIGHT, ORANGE);
    canvas.rod((0.0, 0.0), theta1 - FRAC_PI_2, length, radius, BLUE_LIGHT, BLUE);
    canvas.joint((0.0, 0.0), 0.06);
    canvas.joint(elbow, 0.06);
    canvas.into_frame()
}
