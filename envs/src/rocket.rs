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
    make_batch: None,
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
pub struct Booster {
    /// Position of the centre of mass (m).
    pub position: [f64; 2],
    /// Its velocity (m/s).
    pub velocity: [f64; 2],
    /// Tilt to the left of upright (rad).
    pub tilt: f64,
    /// Rate of the tilt (rad/s).
    pub turn: f64,
    /// Thrust as a share of the largest.
    pub throttle: f64,
    /// Angle of the engine (rad).
    pub gimbal: f64,
    /// Fuel left (kg).
    pub fuel: f64,
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
        DRY_MASS + self.fuel
    }

    /// Moment of inertia about the centre of mass (kg m2).
    pub fn inertia(&self) -> f64 {
        self.mass() * HEIGHT * HEIGHT / 12.0
    }

    /// Time derivative under commands for throttle and gimbal (rad), in a wind (m/s).
    fn derivative(&self, throttle: f64, gimbal: f64, wind: f64) -> Self {
        let (sin, cos) = self.tilt.sin_cos();
        let (sin_thrust, cos_thrust) = (self.tilt + self.gimbal).sin_cos();
        let thrust = if self.fuel > 0.0 { MAX_THRUST * self.throttle } else { 0.0 };
        let air = [self.velocity[0] - wind, self.velocity[1]];
        let along = cos * air[1] - sin * air[0];
        let across = cos * air[0] + sin * air[1] - PRESSURE_ARM * self.turn;
        let pressure = 0.5 * AIR_DENSITY * (-self.position[1] / SCALE_HEIGHT).exp();
        let axial = -pressure * DRAG_AXIAL * along.abs() * along;
        let normal = -pressure * DRAG_NORMAL * across.abs() * across;
        let force =
            [-thrust * sin_thrust - axial * sin + normal * cos, thrust * cos_thrust + axial * cos + normal * sin];
        let torque = -ENGINE_ARM * thrust * self.gimbal.sin() - PRESSURE_ARM * normal - DAMPING * self.turn;
        Self {
            position: self.velocity,
            velocity: [force[0] / self.mass(), force[1] / self.mass() - GRAVITY],
            tilt: self.turn,
            turn: torque / self.inertia(),
            throttle: (throttle - self.throttle) / THROTTLE_LAG,
            gimbal: (gimbal - self.gimbal) / GIMBAL_LAG,
            fuel: -thrust / EXHAUST_SPEED,
        }
    }

    /// This state and `dt` times a derivative.
    fn along(&self, rate: &Self, dt: f64) -> Self {
        Self {
            position: [self.position[0] + dt * rate.position[0], self.position[1] + dt * rate.position[1]],
            velocity: [self.velocity[0] + dt * rate.velocity[0], self.velocity[1] + dt * rate.velocity[1]],
            tilt: self.tilt + dt * rate.tilt,
            turn: self.turn + dt * rate.turn,
            throttle: self.throttle + dt * rate.throttle,
            gimbal: self.gimbal + dt * rate.gimbal,
            fuel: self.fuel + dt * rate.fuel,
        }
    }

    /// One classical Runge-Kutta step.
    fn advance(&self, throttle: f64, gimbal: f64, wind: f64) -> Self {
        let k1 = self.derivative(throttle, gimbal, wind);
        let k2 = self.along(&k1, DT / 2.0).derivative(throttle, gimbal, wind);
        let k3 = self.along(&k2, DT / 2.0).derivative(throttle, gimbal, wind);
        let k4 = self.along(&k3, DT).derivative(throttle, gimbal, wind);
        let mut next = self.along(&k1, DT / 6.0).along(&k2, DT / 3.0).along(&k3, DT / 3.0).along(&k4, DT / 6.0);
        if next.fuel <= 0.0 {
            (next.fuel, next.throttle) = (0.0, 0.0);
        }
        next
    }

    /// The potential of the reward.
    fn potential(&self) -> f64 {
        let [x, y] = self.position;
        let reference = [(-0.15 * x).clamp(-10.0, 10.0), -1.0 - (8.0 * y.max(0.0)).sqrt()];
        let error = (self.velocity[0] - reference[0]).hypot(self.velocity[1] - reference[1]);
        -40.0 * x.hypot(y) / 300.0 - 3.0 * error - 60.0 * self.tilt.abs() - 20.0 * self.turn.abs()
    }

    /// The middle between the legs' feet.
    fn foot(&self) -> [f64; 2] {
        let (sin, cos) = self.tilt.sin_cos();
        [self.position[0] + FOOT_ARM * sin, self.position[1] + FOOT_ARM * (1.0 - cos)]
    }

    /// Whether the booster flies on, has landed or is lost.
    fn judge(&self) -> Flight {
        let [x, y] = self.foot();
        if y > LEG_SPAN * self.tilt.sin().abs() {
            let [x, y] = self.position;
            let away = x.abs() > X_LIMIT || y > Y_LIMIT || self.tilt.abs() > PI / 2.0;
            return if away { Flight::Crashed } else { Flight::Flying };
        }
        let gentle = -self.velocity[1] <= MAX_SINK
            && self.velocity[0].abs() <= MAX_DRIFT
            && self.tilt.abs() <= MAX_TILT
            && self.turn.abs() <= MAX_TURN;
        if gentle && x.abs() <= DECK { Flight::Landed } else { Flight::Crashed }
    }
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
            action_space: if continuous { Space::bounded([-1.0; 2], [1.0; 2], [2]) } else { Space::discrete(9) },
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
        let height = self.booster.position[1].max(1.0);
        self.wind[0] * (height / 10.0).powf(1.0 / 7.0) + self.wind[1]
    }

    fn observe(&self, obs: ObsMut<'_>) {
        let Booster { position, velocity, tilt, turn, throttle, gimbal, fuel } = self.booster;
        let ObsMut::F32(row) = obs else { unreachable!("the observation space is a box of real numbers") };
        let values = [
            position[0] / 100.0,
            position[1] / 100.0,
            velocity[0] / 20.0,
            velocity[1] / 20.0,
            tilt.sin(),
            tilt.cos(),
            turn,
            throttle,
            gimbal / MAX_GIMBAL,
            fuel / FULL_TANK,
            self.wind() / 10.0,
        ];
        for (to, from) in row.iter_mut().zip(values) {
            *to = from as f32;
        }
    }

    /// Throttle and gimbal angle (rad) that an action asks for.
    fn command(&self, action: ActionRef<'_>) -> (f64, f64) {
        match action {
            ActionRef::F32(&[throttle, gimbal]) => {
                let clamped = |x: f32| f64::from(x).clamp(-1.0, 1.0);
                (0.5 + 0.5 * clamped(throttle), MAX_GIMBAL * clamped(gimbal))
            }
            ActionRef::I32(&[choice]) => (0.5 * f64::from(choice / 3), MAX_GIMBAL * f64::from(choice % 3 - 1)),
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
            let (throttle, gimbal) = self.command(action);
            let before = self.booster.potential();
            self.booster = self.booster.advance(throttle, gimbal, self.wind());
            // The exact transition of the Ornstein-Uhlenbeck process.
            let decay = (-DT / GUST_TIME).exp();
            let spread = GUSTINESS * self.max_wind * (1.0 - decay * decay).sqrt();
            self.wind[1] = decay * self.wind[1] + spread * rng.normal();
            self.steps += 1;
            self.flight = self.booster.judge();
            reward = self.booster.potential() - before - 0.05 * self.booster.throttle;
            match self.flight {
                Flight::Flying => {}
                Flight::Landed => {
                    reward += 100.0;
                    let (position, fuel) = ([self.booster.foot()[0], 0.0], self.booster.fuel);
                    self.booster = Booster { position, fuel, ..Booster::default() };
                }
                Flight::Crashed => reward -= 100.0,
            }
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

mod draw;
