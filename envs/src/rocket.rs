//! Rocket: bring a falling booster to an upright stop on a ship's deck, by throttle and gimbal.
//!
//! # Description
//! A planar booster, 30 m tall, falls tail first towards a ship at sea. One engine at its foot can be throttled and
//! turned by 10° to either side. Wind pushes against the hull, stronger with height and in gusts. Legs take the last
//! jolt if the booster comes down slowly, upright and on the deck; otherwise it is lost. Burning fuel makes it lighter;
//! when the tank is empty the engine stops.
//!
//! The state is that of a rigid body: position `x`, `y` of the centre of mass (m; `y` is 0 when the booster stands on
//! the deck, `x` in the middle of it), velocity, tilt `theta` to the left of upright (rad), its rate, the engine's thrust
//! as a share of the largest one, the gimbal angle, the fuel. With mass `m = 12,000 kg + fuel`, thrust `T = 300 kN` times
//! the throttle, axis `a = (-sin theta, cos theta)`, its normal `n = (cos theta, sin theta)`, and the air's speed past
//! the hull along these, `u_a` and `u_n`:
//!
//! ```text
//! m v'      = T (-sin(theta + delta), cos(theta + delta)) - rho/2 (5.6 m2 |u_a| u_a a + 90 m2 |u_n| u_n n) + m g
//! I theta'' = -12 m T sin(delta) + 3 m rho/2 90 m2 |u_n| u_n - 1e5 N m s theta'         I = m (30 m)^2 / 12
//! throttle' = (command - throttle) / 0.2 s      delta' = (command - delta) / 0.1 s      fuel' = -T / (282 s g)
//! ```
//!
//! The side force acts 3 m above the centre of mass, where `u_n` is taken; the engine sits 12 m below it. The air's
//! density falls with height, `rho = 1.225 kg/m3 exp(-y / 8,500 m)`. An episode has one mean wind at 10 m, which grows
//! with height to the power of 1/7; gusts are an Ornstein-Uhlenbeck process with a quarter of the option `wind` as
//! standard deviation and a correlation time of 2 s. A step is 0.05 s, by the classical Runge-Kutta method.
//!
//! # Observation space
//! `Box([11], f32)`:
//!
//! | index | quantity | unit |
//! | --- | --- | --- |
//! | 0, 1 | position `x`, `y` | 100 m |
//! | 2, 3 | velocity | 20 m/s |
//! | 4, 5 | sine and cosine of the tilt | 1 |
//! | 6 | rate of the tilt | rad/s |
//! | 7 | throttle that the engine has reached | 0 to 1 |
//! | 8 | gimbal angle that it has reached | 10° |
//! | 9 | fuel left | of a full tank |
//! | 10 | wind at the booster, gusts included | 10 m/s |
//!
//! # Action space
//! - `Box(-1, 1, [2], f32)`: throttle from 0 (-1) to full (1), and gimbal angle in units of 10°; a positive one turns the
//!   booster to the right. Actions are clamped.
//! - with `continuous = false`: `Discrete(9)`, `3 * throttle + gimbal`, where throttle is none, half or full (0, 1, 2),
//!   and gimbal 10° one way, none or the other way (0, 1, 2).
//!
//! # Rewards
//! The change of a potential, minus 0.05 for each step at full throttle, plus 100 for a landing or minus 100 for any
//! other end. The potential is
//!
//! ```text
//! -40 distance / 300 m - 3 |v - v_ref| / (m/s) - 60 |theta| / rad - 20 |theta'| / (rad/s)
//! ```
//!
//! with the distance from the deck's middle and a velocity that leads there: `v_ref = (-0.15/s x, at most 10 m/s;
//! -1 m/s - sqrt(8 m/s2 y))`. Its sum over an episode depends on the ends alone, so it shows the way without changing
//! what is best. A landing returns about 130 to 210.
//!
//! # Start state
//! Height uniform in 220 to 300 m, `x` in ±80 m, sinking at 30 to 45 m/s, drifting at ±8 m/s, tilt in ±0.15 rad turning
//! at ±0.05 rad/s, engine off, mean wind in ±`wind`, gust from its stationary distribution.
//!
//! # End of episode
//! Terminated when a leg touches deck or water: landed if the foot is on the deck (±15 m), sinking at no more than 4 m/s,
//! drifting at no more than 2 m/s, tilted by no more than 10° and turning at no more than 0.3 rad/s; lost otherwise. A
//! landed booster comes to rest. Also terminated, and lost, beyond `x` of ±200 m, above 450 m or tilted by 90°.
//! Truncated after 500 steps (25 s). A step past the end changes nothing.
//!
//! # Options
//! - `continuous` (bool, default true).
//! - `wind` (0 to 30 m/s, default 8): largest mean wind.
//! - `fuel` (200 to 3,000 kg, default 2,000): in the tank at the start; a full one holds 3,000.
//!
//! # Source
//! This project's own, after the landings of reusable boosters; potential-based shaping: A. Y. Ng, D. Harada and
//! S. Russell, "Policy invariance under reward transformations", 1999.

use std::f64::consts::PI;

use crate::batch::real::{Real, normal};
use crate::batch::{BatchStepper, Dynamics};
use crate::render::{Canvas, Color, Fill, GREEN, INK, INK_LIGHT, LIGHT, MUTED, ORANGE, ORANGE_LIGHT};
use crate::{
    ActionRef, Controls, Env, EnvError, EnvSpec, Frame, Key, NpRng, ObsMut, Options, Space, StateReader, StateWriter,
    StepOutcome,
};

/// Registry entry.
pub const SPEC: EnvSpec = EnvSpec {
    id: "Rocket-v0",
    summary: "land a booster upright on a ship",
    max_episode_steps: Some(500),
    reward_threshold: Some(150.0),
    render_fps: 20,
    controls: &[
        Controls {
            idle: Some(&[-1.0, 0.0]),
            keys: &[
                (Key::Up, &[(0, 1.0)], "full thrust"),
                (Key::Down, &[(0, 0.0)], "half thrust"),
                (Key::Left, &[(1, -1.0)], "turn left"),
                (Key::Right, &[(1, 1.0)], "turn right"),
            ],
        },
        Controls {
            idle: Some(&[1.0]),
            keys: &[
                (Key::Up, &[(0, 7.0)], "full thrust"),
                (Key::Left, &[(0, 6.0)], "and turn left"),
                (Key::Right, &[(0, 8.0)], "and turn right"),
                (Key::Char('w'), &[(0, 4.0)], "half thrust"),
                (Key::Char('a'), &[(0, 3.0)], "and turn left"),
                (Key::Char('d'), &[(0, 5.0)], "and turn right"),
                (Key::Char('x'), &[(0, 0.0)], "gimbal left"),
                (Key::Char('c'), &[(0, 2.0)], "gimbal right"),
            ],
        },
    ],
    make: |options| Ok(Box::new(Rocket::new(options)?)),
    make_batch: Some(|options, n, limit, simd| {
        let Rocket { max_wind, start_fuel, action_space, .. } = Rocket::new(options)?;
        let setting = [max_wind as f32, start_fuel as f32];
        Ok(match action_space {
            Space::Discrete { .. } => {
                Box::new(BatchStepper::<ByChoice, STATE, OBSERVATION>::new(setting, n, limit, simd))
            }
            _ => Box::new(BatchStepper::<ByThrottle, STATE, OBSERVATION>::new(setting, n, limit, simd)),
        })
    }),
};

const GRAVITY: f64 = 9.81;
/// Seconds a step.
const DT: f64 = 0.05;

const DRY_MASS: f64 = 12_000.0;
const FULL_TANK: f64 = 3_000.0;
const HEIGHT: f64 = 30.0;
const MAX_THRUST: f64 = 300_000.0;
/// Impulse of the engine for each kilogram of fuel (N s/kg): a specific impulse of 282 s.
const EXHAUST_SPEED: f64 = 282.0 * GRAVITY;
const MAX_GIMBAL: f64 = 10.0 * PI / 180.0;
/// Time constants of engine and gimbal (s).
const THROTTLE_LAG: f64 = 0.2;
const GIMBAL_LAG: f64 = 0.1;
/// From the centre of mass down to the engine and to the legs' feet, up to where the side force of the air acts (m).
const ENGINE_ARM: f64 = 12.0;
const FOOT_ARM: f64 = 14.0;
const PRESSURE_ARM: f64 = 3.0;
/// From the axis to the legs' feet (m).
const LEG_SPAN: f64 = 7.0;

/// Drag coefficient times area, along the axis and across it (m2).
const DRAG_AXIAL: f64 = 5.6;
const DRAG_NORMAL: f64 = 90.0;
/// Torque that the fins set against turning (N m s).
const DAMPING: f64 = 100_000.0;
const AIR_DENSITY: f64 = 1.225;
const SCALE_HEIGHT: f64 = 8_500.0;
/// Standard deviation of gusts as a share of the largest mean wind, and their correlation time (s).
const GUSTINESS: f64 = 0.25;
const GUST_TIME: f64 = 2.0;

const DECK: f64 = 15.0;
const MAX_SINK: f64 = 4.0;
const MAX_DRIFT: f64 = 2.0;
const MAX_TILT: f64 = 10.0 * PI / 180.0;
const MAX_TURN: f64 = 0.3;
const X_LIMIT: f64 = 200.0;
const Y_LIMIT: f64 = 450.0;

/// Steps between two points of the trail, and most of them: enough for an episode within the registered limit.
const TRAIL_EVERY: u32 = 4;
const TRAIL_LEN: usize = 128;

/// The booster's state; units as in the module's description.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Booster<R = f64> {
    /// Position of the centre of mass (m).
    pub position: [R; 2],
    /// Its velocity (m/s).
    pub velocity: [R; 2],
    /// Tilt to the left of upright (rad).
    pub tilt: R,
    /// Rate of the tilt (rad/s).
    pub turn: R,
    /// Thrust as a share of the largest.
    pub throttle: R,
    /// Angle of the engine (rad).
    pub gimbal: R,
    /// Fuel left (kg).
    pub fuel: R,
}

/// How an episode stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flight {
    /// Still in the air.
    Flying,
    /// Standing on the deck.
    Landed,
    /// Lost.
    Crashed,
}

/// The booster, the wind and the ship.
#[derive(Clone, Debug)]
pub struct Rocket {
    max_wind: f64,
    start_fuel: f64,
    booster: Booster,
    flight: Flight,
    /// Mean wind at 10 m and the gust on top (m/s).
    wind: [f64; 2],
    steps: u32,
    trail: [[f32; 2]; TRAIL_LEN],
    observation_space: Space,
    action_space: Space,
}

impl Booster {
    /// Mass with the fuel left (kg).
    pub fn mass(&self) -> f64 {
        mass(self)
    }

    /// Moment of inertia about the centre of mass (kg m2).
    pub fn inertia(&self) -> f64 {
        inertia(self)
    }

    /// The middle between the legs' feet.
    fn foot(&self) -> [f64; 2] {
        foot(self)
    }
}

fn mass<R: Real>(b: &Booster<R>) -> R {
    R::of(DRY_MASS) + b.fuel
}

fn inertia<R: Real>(b: &Booster<R>) -> R {
    (mass(b) * R::of(HEIGHT) * R::of(HEIGHT)).over_const(12.0)
}

/// Time derivative under commands for throttle and gimbal (rad), in a wind (m/s).
#[inline(always)]
fn derivative<R: Real>(b: &Booster<R>, throttle: R, gimbal: R, wind: R) -> Booster<R> {
    let (sin, cos) = b.tilt.sin_cos();
    let (sin_thrust, cos_thrust) = (b.tilt + b.gimbal).sin_cos();
    let thrust = if b.fuel > R::of(0.0) { R::of(MAX_THRUST) * b.throttle } else { R::of(0.0) };
    let air = [b.velocity[0] - wind, b.velocity[1]];
    let along = cos * air[1] - sin * air[0];
    let across = cos * air[0] + sin * air[1] - R::of(PRESSURE_ARM) * b.turn;
    let pressure = R::of(0.5 * AIR_DENSITY) * (-b.position[1]).over_const(SCALE_HEIGHT).exp();
    let axial = -pressure * R::of(DRAG_AXIAL) * along.abs() * along;
    let normal = -pressure * R::of(DRAG_NORMAL) * across.abs() * across;
    let force = [-thrust * sin_thrust - axial * sin + normal * cos, thrust * cos_thrust + axial * cos + normal * sin];
    let torque = R::of(-ENGINE_ARM) * thrust * b.gimbal.sin() - R::of(PRESSURE_ARM) * normal - R::of(DAMPING) * b.turn;
    Booster {
        position: b.velocity,
        velocity: [force[0].over(mass(b)), force[1].over(mass(b)) - R::of(GRAVITY)],
        tilt: b.turn,
        turn: torque.over(inertia(b)),
        throttle: (throttle - b.throttle).over_const(THROTTLE_LAG),
        gimbal: (gimbal - b.gimbal).over_const(GIMBAL_LAG),
        fuel: (-thrust).over_const(EXHAUST_SPEED),
    }
}

/// A state and `dt` times a derivative.
#[inline(always)]
fn along<R: Real>(b: &Booster<R>, rate: &Booster<R>, dt: f64) -> Booster<R> {
    let dt = R::of(dt);
    Booster {
        position: [b.position[0] + dt * rate.position[0], b.position[1] + dt * rate.position[1]],
        velocity: [b.velocity[0] + dt * rate.velocity[0], b.velocity[1] + dt * rate.velocity[1]],
        tilt: b.tilt + dt * rate.tilt,
        turn: b.turn + dt * rate.turn,
        throttle: b.throttle + dt * rate.throttle,
        gimbal: b.gimbal + dt * rate.gimbal,
        fuel: b.fuel + dt * rate.fuel,
    }
}

/// One classical Runge-Kutta step.
#[inline(always)]
fn advance<R: Real>(b: &Booster<R>, throttle: R, gimbal: R, wind: R) -> Booster<R> {
    let k1 = derivative(b, throttle, gimbal, wind);
    let k2 = derivative(&along(b, &k1, DT / 2.0), throttle, gimbal, wind);
    let k3 = derivative(&along(b, &k2, DT / 2.0), throttle, gimbal, wind);
    let k4 = derivative(&along(b, &k3, DT), throttle, gimbal, wind);
    let sum = along(&along(b, &k1, DT / 6.0), &k2, DT / 3.0);
    let next = along(&along(&sum, &k3, DT / 3.0), &k4, DT / 6.0);
    let empty = next.fuel <= R::of(0.0);
    let unless_empty = |x| if empty { R::of(0.0) } else { x };
    Booster { fuel: unless_empty(next.fuel), throttle: unless_empty(next.throttle), ..next }
}

/// The potential of the reward.
#[inline(always)]
fn potential<R: Real>(b: &Booster<R>) -> R {
    let [x, y] = b.position;
    let reference = [(R::of(-0.15) * x).clip(-10.0, 10.0), R::of(-1.0) - (R::of(8.0) * y.max(R::of(0.0))).sqrt()];
    let error = (b.velocity[0] - reference[0]).hypot(b.velocity[1] - reference[1]);
    (R::of(-40.0) * x.hypot(y)).over_const(300.0)
        - R::of(3.0) * error
        - R::of(60.0) * b.tilt.abs()
        - R::of(20.0) * b.turn.abs()
}

#[inline(always)]
fn foot<R: Real>(b: &Booster<R>) -> [R; 2] {
    let (sin, cos) = b.tilt.sin_cos();
    [b.position[0] + R::of(FOOT_ARM) * sin, b.position[1] + R::of(FOOT_ARM) * (R::of(1.0) - cos)]
}

/// Whether the flight is over, and whether the booster has landed.
#[inline(always)]
fn judge<R: Real>(b: &Booster<R>) -> (bool, bool) {
    let below = |x: R, limit: f64| x <= R::of(limit);
    let [foot_x, foot_y] = foot(b);
    let [x, y] = b.position;
    let down = foot_y <= R::of(LEG_SPAN) * b.tilt.sin().abs();
    let away = !below(x.abs(), X_LIMIT) | !below(y, Y_LIMIT) | !below(b.tilt.abs(), PI / 2.0);
    let gentle = below(-b.velocity[1], MAX_SINK)
        & below(b.velocity[0].abs(), MAX_DRIFT)
        & below(b.tilt.abs(), MAX_TILT)
        & below(b.turn.abs(), MAX_TURN);
    (down | away, down & gentle & below(foot_x.abs(), DECK))
}

/// A step of the flight: the next state, at rest where it has landed, the reward, and [`judge`]'s word.
#[inline(always)]
fn fly<R: Real>(before: &Booster<R>, throttle: R, gimbal: R, wind: R) -> (Booster<R>, R, (bool, bool)) {
    let after = advance(before, throttle, gimbal, wind);
    let (over, landed) = judge(&after);
    let end = if landed { 100.0 } else { -100.0 };
    let reward = potential(&after) - potential(before) - R::of(0.05) * after.throttle;
    let reward = if over { reward + R::of(end) } else { reward };
    let zero = R::of(0.0);
    let unless_landed = |x| if landed { zero } else { x };
    let next = Booster {
        position: [if landed { foot(&after)[0] } else { after.position[0] }, unless_landed(after.position[1])],
        velocity: after.velocity.map(unless_landed),
        tilt: unless_landed(after.tilt),
        turn: unless_landed(after.turn),
        throttle: unless_landed(after.throttle),
        gimbal: unless_landed(after.gimbal),
        fuel: after.fuel,
    };
    (next, reward, (over, landed))
}

/// Wind at a height, from the mean wind at 10 m and the gust.
#[inline(always)]
fn wind_at<R: Real>(height: R, [mean, gust]: [R; 2]) -> R {
    mean * height.max(R::of(1.0)).over_const(10.0).powf(1.0 / 7.0) + gust
}

/// The gust a step later, by the exact transition of the Ornstein-Uhlenbeck process.
#[inline(always)]
fn next_gust<R: Real>(gust: R, max_wind: R, normal: R) -> R {
    let decay = (-DT / GUST_TIME).exp();
    let spread = R::of(GUSTINESS) * max_wind * R::of((1.0 - decay * decay).sqrt());
    R::of(decay) * gust + spread * normal
}

#[inline(always)]
fn observation<R: Real>(b: &Booster<R>, wind: R) -> [R; OBSERVATION] {
    [
        b.position[0].over_const(100.0),
        b.position[1].over_const(100.0),
        b.velocity[0].over_const(20.0),
        b.velocity[1].over_const(20.0),
        b.tilt.sin(),
        b.tilt.cos(),
        b.turn,
        b.throttle,
        b.gimbal.over_const(MAX_GIMBAL),
        b.fuel.over_const(FULL_TANK),
        wind.over_const(10.0),
    ]
}

/// Throttle and gimbal angle (rad) for an action of the box.
#[inline(always)]
fn throttle_command<R: Real>([throttle, gimbal]: [R; 2]) -> [R; 2] {
    [R::of(0.5) + R::of(0.5) * throttle.clip(-1.0, 1.0), R::of(MAX_GIMBAL) * gimbal.clip(-1.0, 1.0)]
}

/// Throttle and gimbal angle (rad) for one of the choices.
#[inline(always)]
fn choice_command<R: Real>(choice: i32) -> [R; 2] {
    let throttle = choice / 3;
    [R::single(0.5 * throttle as f32), R::of(MAX_GIMBAL) * R::single((choice - 3 * throttle - 1) as f32)]
}

impl Rocket {
    /// Makes the environment, not started yet.
    ///
    /// # Errors
    /// [`EnvError::BadOption`] if an option has the wrong type or is out of range.
    pub fn new(options: &mut Options) -> Result<Self, EnvError> {
        let continuous = options.bool("continuous", true)?;
        let free = f32::INFINITY;
        let low = [-free, -free, -free, -free, -1.0, -1.0, -free, 0.0, -1.0, 0.0, -free];
        let high = [free, free, free, free, 1.0, 1.0, free, 1.0, 1.0, 1.0, free];
        Ok(Self {
            max_wind: options.f64_in("wind", 0.0..=30.0)?.unwrap_or(8.0),
            start_fuel: options.f64_in("fuel", 200.0..=FULL_TANK)?.unwrap_or(2_000.0),
            booster: Booster::default(),
            flight: Flight::Flying,
            wind: [0.0; 2],
            steps: 0,
            trail: [[0.0; 2]; TRAIL_LEN],
            observation_space: Space::bounded(low, high, [low.len()]),
            action_space: if continuous { ByThrottle::actions() } else { ByChoice::actions() },
        })
    }

    /// The booster's state.
    pub fn booster(&self) -> &Booster {
        &self.booster
    }

    /// Replaces the booster's state; it counts as flying.
    pub fn set_booster(&mut self, booster: Booster) {
        (self.booster, self.flight) = (booster, Flight::Flying);
    }

    /// Whether the booster flies, has landed or is lost.
    pub fn flight(&self) -> Flight {
        self.flight
    }

    /// Wind at the booster (m/s), gusts included.
    pub fn wind(&self) -> f64 {
        wind_at(self.booster.position[1], self.wind)
    }

    fn observe(&self, obs: ObsMut<'_>) {
        let ObsMut::F32(row) = obs else { unreachable!("the observation space is a box of real numbers") };
        for (to, from) in row.iter_mut().zip(observation(&self.booster, self.wind())) {
            *to = from as f32;
        }
    }

    /// Throttle and gimbal angle (rad) that an action asks for.
    fn command(&self, action: ActionRef<'_>) -> [f64; 2] {
        match action {
            ActionRef::F32(&[throttle, gimbal]) => throttle_command([throttle.into(), gimbal.into()]),
            ActionRef::I32(&[choice]) => choice_command(choice),
            _ => unreachable!("the action space is a box of two numbers or discrete"),
        }
    }

    fn mark_trail(&mut self) {
        let at = (self.steps / TRAIL_EVERY) as usize;
        if self.steps.is_multiple_of(TRAIL_EVERY) && at < TRAIL_LEN {
            self.trail[at] = self.booster.position.map(|x| x as f32);
        }
    }

    /// The points of the trail that are set.
    fn trail(&self) -> &[[f32; 2]] {
        &self.trail[..((self.steps / TRAIL_EVERY) as usize + 1).min(TRAIL_LEN)]
    }
}

impl Env for Rocket {
    fn observation_space(&self) -> &Space {
        &self.observation_space
    }

    fn action_space(&self) -> &Space {
        &self.action_space
    }

    fn reset(&mut self, rng: &mut NpRng, obs: ObsMut<'_>) {
        let position = [rng.uniform(-80.0, 80.0), rng.uniform(220.0, 300.0)];
        let velocity = [rng.uniform(-8.0, 8.0), rng.uniform(-45.0, -30.0)];
        let (tilt, turn) = (rng.uniform(-0.15, 0.15), rng.uniform(-0.05, 0.05));
        self.set_booster(Booster { position, velocity, tilt, turn, fuel: self.start_fuel, ..Booster::default() });
        self.wind = [rng.uniform(-self.max_wind, self.max_wind), GUSTINESS * self.max_wind * rng.normal()];
        self.steps = 0;
        self.mark_trail();
        self.observe(obs);
    }

    fn step(&mut self, action: ActionRef<'_>, rng: &mut NpRng, obs: ObsMut<'_>) -> StepOutcome {
        let mut reward = 0.0;
        if self.flight == Flight::Flying {
            let [throttle, gimbal] = self.command(action);
            let (over, landed);
            (self.booster, reward, (over, landed)) = fly(&self.booster, throttle, gimbal, self.wind());
            self.flight = match (over, landed) {
                (false, _) => Flight::Flying,
                (true, true) => Flight::Landed,
                (true, false) => Flight::Crashed,
            };
            self.wind[1] = next_gust(self.wind[1], self.max_wind, rng.normal());
            self.steps += 1;
            self.mark_trail();
        }
        self.observe(obs);
        StepOutcome { reward, terminated: self.flight != Flight::Flying, truncated: false }
    }

    fn save_state(&self, to: &mut StateWriter) {
        let Booster { position, velocity, tilt, turn, throttle, gimbal, fuel } = self.booster;
        let numbers = [tilt, turn, throttle, gimbal, fuel];
        position.iter().chain(&velocity).chain(&numbers).chain(&self.wind).for_each(|x| to.f64(*x));
        to.u8(self.flight as u8);
        to.u32(self.steps);
        self.trail().as_flattened().iter().for_each(|x| to.f32(*x));
    }

    fn load_state(&mut self, from: &mut StateReader<'_>) -> Result<(), EnvError> {
        let mut numbers = [0.0; 11];
        for x in &mut numbers {
            *x = from.f64()?;
            if !x.is_finite() {
                return Err(EnvError::State { expected: "a finite number".into(), found: x.to_string() });
            }
        }
        let flight = match from.u8()? {
            0 => Flight::Flying,
            1 => Flight::Landed,
            2 => Flight::Crashed,
            other => return Err(EnvError::State { expected: "0, 1 or 2".into(), found: other.to_string() }),
        };
        let mut loaded = Self { steps: from.u32()?, flight, ..self.clone() };
        let marked = loaded.trail().len();
        for x in loaded.trail[..marked].as_flattened_mut() {
            *x = from.f32()?;
        }
        let [x, y, vx, vy, tilt, turn, throttle, gimbal, fuel, mean, gust] = numbers;
        loaded.booster = Booster { position: [x, y], velocity: [vx, vy], tilt, turn, throttle, gimbal, fuel };
        loaded.wind = [mean, gust];
        *self = loaded;
        Ok(())
    }

    fn render(&self) -> Option<Frame> {
        Some(draw::scene(self))
    }
}

/// State columns: the booster, mean wind, gust. Observation columns.
const STATE: usize = 11;
const OBSERVATION: usize = 11;

/// The batch steppers, with continuous and with discrete actions. Their setting is the largest mean wind (m/s) and the
/// fuel at the start (kg).
enum ByThrottle {}
enum ByChoice {}

macro_rules! batch {
    ($name:ident, $action:ty, $space:expr, $command:ident) => {
        impl Dynamics<STATE, OBSERVATION> for $name {
            type Action = $action;
            type Setting = [f32; 2];
            const ID: &'static str = SPEC.id;
            const OBSERVES_STATE: bool = false;
            const DRAWS: bool = true;

            fn actions() -> Space {
                $space
            }

            #[inline(always)]
            fn start(setting: [f32; 2], uniform: impl FnMut() -> f32) -> [f32; STATE] {
                start_lane(setting, uniform)
            }

            #[inline(always)]
            fn step(
                [max_wind, _]: [f32; 2],
                state: [f32; STATE],
                action: $action,
                uniform: impl FnMut() -> f32,
            ) -> ([f32; STATE], f32, bool) {
                let [throttle, gimbal] = $command(action);
                step_lane(max_wind, state, throttle, gimbal, uniform)
            }

            #[inline(always)]
            fn observe(state: [f32; STATE]) -> [f32; OBSERVATION] {
                let (booster, wind) = unpack(state);
                observation(&booster, wind_at(booster.position[1], wind))
            }
        }
    };
}
batch!(ByThrottle, [f32; 2], Space::bounded([-1.0; 2], [1.0; 2], [2]), throttle_command);
batch!(ByChoice, i32, Space::discrete(9), choice_command);

#[inline(always)]
fn pack(b: &Booster<f32>, [mean, gust]: [f32; 2]) -> [f32; STATE] {
    let ([x, y], [vx, vy]) = (b.position, b.velocity);
    [x, y, vx, vy, b.tilt, b.turn, b.throttle, b.gimbal, b.fuel, mean, gust]
}

#[inline(always)]
fn unpack([x, y, vx, vy, tilt, turn, throttle, gimbal, fuel, mean, gust]: [f32; STATE]) -> (Booster<f32>, [f32; 2]) {
    (Booster { position: [x, y], velocity: [vx, vy], tilt, turn, throttle, gimbal, fuel }, [mean, gust])
}

#[inline(always)]
fn start_lane([max_wind, fuel]: [f32; 2], mut uniform: impl FnMut() -> f32) -> [f32; STATE] {
    let mut between = |low: f32, high: f32| low + (high - low) * uniform();
    let position = [between(-80.0, 80.0), between(220.0, 300.0)];
    let velocity = [between(-8.0, 8.0), between(-45.0, -30.0)];
    let (tilt, turn) = (between(-0.15, 0.15), between(-0.05, 0.05));
    let mean = between(-max_wind, max_wind);
    let gust = GUSTINESS as f32 * max_wind * normal(uniform);
    pack(&Booster { position, velocity, tilt, turn, fuel, ..Booster::default() }, [mean, gust])
}

#[inline(always)]
fn step_lane(
    max_wind: f32,
    state: [f32; STATE],
    throttle: f32,
    gimbal: f32,
    uniform: impl FnMut() -> f32,
) -> ([f32; STATE], f32, bool) {
    let (booster, [mean, gust]) = unpack(state);
    let wind = wind_at(booster.position[1], [mean, gust]);
    let (booster, reward, (over, _)) = fly(&booster, throttle, gimbal, wind);
    (pack(&booster, [mean, next_gust(gust, max_wind, normal(uniform))]), reward, over)
}

mod draw;
