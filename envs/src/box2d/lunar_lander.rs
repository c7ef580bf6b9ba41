//! Lunar lander: bring a craft with three engines down between two flags.
//!
//! # Description
//! A craft falls towards a rugged moon. A main engine pushes it up, two small ones turn it. Fuel is unlimited. The pad
//! lies at the origin of the coordinates that are observed, and is flat.
//!
//! # Observation space
//! `Box([8], f32)`: position `x`, `y` relative to the pad in units of half the picture (bounds ±2.5), velocity `x`, `y`
//! (±10, scaled by the same units), angle in radians (±2π), angular velocity (±10, in units of 0.4 rad/s), and for the
//! left and the right leg 1 while it touches the ground, else 0.
//!
//! # Action space
//! `Discrete(4)`: 0 nothing, 1 left engine, 2 main engine, 3 right engine. With `continuous` `Box([2], f32)` in
//! `[-1, 1]`: the main engine is off below 0 and gives 50 to 100 % from 0 to 1; the left engine fires below -0.5, the
//! right one above 0.5, with 50 to 100 % at 0.5 to 1. Values outside are clipped.
//!
//! # Rewards
//! The gain of a potential: -100 for each unit of distance from the pad, -100 for each unit of speed, -100 for each
//! radian of tilt, and 10 for each leg on the ground. A step of the main engine costs 0.3, of a side engine 0.03, times
//! its power. The last reward is -100 for a crash and 100 for coming to rest.
//!
//! # Start state
//! At the top of the picture, with a random force in `[-1000, 1000)²` on the first step; the ground is random.
//! Each step draws two numbers that disperse the engines' jets, also while they are off.
//!
//! # End of episode
//! Terminated when the craft's body touches the ground, when `|x| >= 1`, or when it has come to rest (the physics puts
//! it to sleep); truncated after 1000 steps.
//!
//! # Options
//! - `continuous` (true or false): the action space; false for `LunarLander-v3`, true for `LunarLanderContinuous-v3`.
//! - `gravity` (number between -12 and 0, default -10).
//! - `enable_wind` (true or false, default false): a wind that changes in time pushes and turns the craft until a leg
//!   touches the ground.
//! - `wind_power` (number, default 15, sensible from 0 to 20): greatest force of the wind.
//! - `turbulence_power` (number, default 1.5, sensible from 0 to 2): greatest torque of the wind.
//!
//! # Source
//! Gymnasium's `LunarLander-v3`, by Oleg Klimov; the physics is that of the module `physics`. Gymnasium's exhaust
//! particles are only drawn here: as there, they do not touch the craft.

use std::f64::consts::PI;

use super::physics::{Body, GroundShape, JointDef, Material, Polygon, TimeStep, Vec2, World, vec2};
use crate::render::{self, Canvas, Color, Fill};
use crate::{
    ActionRef, Controls, Env, EnvError, EnvSpec, Frame, Key, NpRng, ObsMut, Options, Space, StateReader, StateWriter,
    StepOutcome,
};

const CONTROLS: &[Controls] = &[
    Controls {
        idle: Some(&[0.0]),
        keys: &[
            (Key::Up, &[(0, 2.0)], "main engine"),
            (Key::Left, &[(0, 1.0)], "left engine"),
            (Key::Right, &[(0, 3.0)], "right engine"),
        ],
    },
    Controls {
        idle: Some(&[0.0, 0.0]),
        keys: &[
            (Key::Up, &[(0, 1.0)], "main engine"),
            (Key::Left, &[(1, -1.0)], "left engine"),
            (Key::Right, &[(1, 1.0)], "right engine"),
        ],
    },
];

/// Registry entry with discrete actions.
pub const SPEC: EnvSpec = EnvSpec {
    id: "LunarLander-v3",
    summary: "land a craft between two flags, engines on or off",
    max_episode_steps: Some(1000),
    reward_threshold: Some(200.0),
    render_fps: 50,
    controls: CONTROLS,
    make: |options| Ok(Box::new(LunarLander::new(options, false)?)),
    make_batch: None,
};

/// Registry entry with continuous actions.
pub const CONTINUOUS_SPEC: EnvSpec = EnvSpec {
    id: "LunarLanderContinuous-v3",
    summary: "land a craft between two flags, engines with throttle",
    controls: CONTROLS,
    make: |options| Ok(Box::new(LunarLander::new(options, true)?)),
    ..SPEC
};

const FPS: f64 = 50.0;
/// Pixels a metre: lengths below are pixels of the original picture.
const SCALE: f64 = 30.0;
const VIEWPORT: [f64; 2] = [600.0, 400.0];
/// Half the picture in metres.
const HALF: [f64; 2] = [VIEWPORT[0] / SCALE / 2.0, VIEWPORT[1] / SCALE / 2.0];
const STEP: TimeStep = TimeStep { dt: (1.0 / FPS) as f32, velocity_iterations: 180, position_iterations: 60 };

const MAIN_ENGINE_POWER: f64 = 13.0;
const SIDE_ENGINE_POWER: f64 = 0.6;
const INITIAL_RANDOM: f64 = 1000.0;
const LANDER: [[f64; 2]; 6] = [[-14., 17.], [-17., 0.], [-17., -10.], [17., -10.], [17., 0.], [14., 17.]];
const LEG_AWAY: f64 = 20.0;
const LEG_DOWN: f64 = 18.0;
const LEG: [f64; 2] = [2.0, 8.0];
const LEG_SPRING_TORQUE: f32 = 40.0;
const SIDE_ENGINE_HEIGHT: f64 = 14.0;
/// Where the side engines' jets act along the craft when it is tilted; meant to be their height.
const SIDE_ENGINE_TILTED_HEIGHT: f64 = 17.0;
const SIDE_ENGINE_AWAY: f64 = 12.0;
const MAIN_ENGINE_LOCATION: f64 = 4.0;

/// Points of the ground.
const CHUNKS: usize = 11;
const PAD_Y: f64 = HALF[1] / 2.0;

/// Bodies in the order of their making.
const CRAFT: usize = 0;
const LEGS: [usize; 2] = [1, 2];

/// Puffs of exhaust that are drawn, and the steps for which one is seen.
const PUFFS: usize = 32;
const PUFF_STEPS: u32 = 16;

/// Exhaust that left an engine: decoration, drawn where it has got to by now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Puff {
    step: u32,
    from: Vec2,
    velocity: Vec2,
    size: f32,
}

/// The lunar lander.
#[derive(Clone, Debug)]
pub struct LunarLander {
    world: World,
    /// Steps of this episode.
    steps: u32,
    puffs: [Puff; PUFFS],
    next_puff: usize,
    game_over: bool,
    leg_contacts: [bool; 2],
    last_shaping: Option<f64>,
    /// Phases of the wind's force and torque.
    wind: [i64; 2],
    wind_power: Option<f64>,
    turbulence_power: f64,
    observation_space: Space,
    action_space: Space,
}

impl LunarLander {
    /// Makes the environment, not started yet.
    ///
    /// # Errors
    /// [`EnvError::BadOption`] if an option has the wrong type or is out of range.
    pub fn new(options: &mut Options, continuous: bool) -> Result<Self, EnvError> {
        let continuous = options.bool("continuous", continuous)?;
        let gravity = options.f64("gravity", -10.0)?;
        if !(-12.0 < gravity && gravity < 0.0) {
            return Err(options.bad("gravity", "a number between -12 and 0, both excluded", gravity));
        }
        let enable_wind = options.bool("enable_wind", false)?;
        let wind_power = options.f64("wind_power", 15.0)?;
        let turbulence_power = options.f64("turbulence_power", 1.5)?;
        let high = [2.5, 2.5, 10.0, 10.0, 2.0 * PI, 10.0, 1.0, 1.0].map(|x| x as f32);
        let low = [-2.5, -2.5, -10.0, -10.0, -2.0 * PI, -10.0, -0.0, -0.0].map(|x| x as f32);
        Ok(Self {
            world: World::new(vec2(0.0, gravity as f32)),
            steps: 0,
            puffs: [Puff::default(); PUFFS],
            next_puff: 0,
            game_over: false,
            leg_contacts: [false; 2],
            last_shaping: None,
            wind: [0; 2],
            wind_power: enable_wind.then_some(wind_power),
            turbulence_power,
            observation_space: Space::bounded(low, high, [8]),
            action_space: if continuous { Space::bounded([-1.0; 2], [1.0; 2], [2]) } else { Space::discrete(4) },
        })
    }

    /// Fresh ground, craft and legs.
    fn build(&mut self, rng: &mut NpRng) {
        self.world.clear();
        let [width, height] = HALF.map(|x| 2.0 * x);
        let mut raw = [0.0; CHUNKS + 1];
        raw.fill_with(|| rng.uniform(0.0, height / 2.0));
        raw[CHUNKS / 2 - 2..=CHUNKS / 2 + 2].fill(PAD_Y);
        let point = |i: usize| {
            let before = raw[(i + CHUNKS) % (CHUNKS + 1)];
            let x = width / (CHUNKS - 1) as f64 * i as f64;
            Vec2::from([x, 0.33 * (before + raw[i] + raw[i + 1])])
        };
        let floor = GroundShape::Edge([vec2(0.0, 0.0), vec2(width as f32, 0.0)]);
        self.world.add_ground(0, floor, Material::DEFAULT, false);
        for i in 0..CHUNKS - 1 {
            let edge = GroundShape::Edge([point(i), point(i + 1)]);
            self.world.add_ground(0, edge, Material { friction: 0.1, ..Material::DEFAULT }, false);
        }

        let hull = Polygon::hull(&LANDER.map(|[x, y]| Vec2::from([x / SCALE, y / SCALE])));
        let material = Material { friction: 0.1, ..Material::DEFAULT };
        let start = [width / 2.0, height];
        self.world.add_body(Vec2::from(start), 0.0, &[(hull, 5.0, material)]);
        let force = [(); 2].map(|()| rng.uniform(-INITIAL_RANDOM, INITIAL_RANDOM));
        self.world.body_mut(CRAFT).apply_force(Vec2::from(force));
        if self.wind_power.is_some() {
            self.wind = [(); 2].map(|()| rng.integers(-9999, 9999));
        }
        let leg = Polygon::rectangle((LEG[0] / SCALE) as f32, (LEG[1] / SCALE) as f32);
        for side in [-1.0, 1.0] {
            let position = [start[0] - side * LEG_AWAY / SCALE, start[1]];
            let body =
                self.world.add_body(Vec2::from(position), (side * 0.05) as f32, &[(leg, 1.0, Material::DEFAULT)]);
            self.world.add_joint(JointDef {
                bodies: [CRAFT, body],
                anchors: [Vec2::ZERO, Vec2::from([side * LEG_AWAY / SCALE, LEG_DOWN / SCALE])],
                limits: if side < 0.0 { [0.9 - 0.5, 0.9] } else { [-0.9, -0.9 + 0.5] }.map(|x| x as f32),
                motor_speed: (0.3 * side) as f32,
                max_motor_torque: LEG_SPRING_TORQUE,
            });
        }
    }

    fn blow(&mut self) {
        let Some(power) = self.wind_power else { return };
        if self.leg_contacts != [false; 2] {
            return;
        }
        let magnitude = |phase: i64, power: f64| {
            let phase = phase as f64;
            ((0.02 * phase).sin() + (PI * 0.01 * phase).sin()).tanh() * power
        };
        let (force, torque) = (magnitude(self.wind[0], power), magnitude(self.wind[1], self.turbulence_power));
        self.wind = self.wind.map(|phase| phase + 1);
        let craft = self.world.body_mut(CRAFT);
        craft.apply_force(Vec2::from([force, 0.0]));
        craft.apply_torque(torque as f32);
    }

    /// Power of the main engine, and direction and power of the side engines, that an action asks for.
    fn throttle(&self, action: ActionRef<'_>) -> (f64, f64, f64) {
        match action {
            ActionRef::I32(&[2]) => (1.0, 0.0, 0.0),
            ActionRef::I32(&[action]) if action != 0 => (0.0, f64::from(action - 2), 1.0),
            ActionRef::F32(&[main, side]) => {
                let [main, side] = [main, side].map(|x| f64::from(x.clamp(-1.0, 1.0)));
                let main = if main > 0.0 { (main + 1.0) * 0.5 } else { 0.0 };
                if side.abs() > 0.5 { (main, side.signum(), side.abs()) } else { (main, 0.0, 0.0) }
            }
            _ => (0.0, 0.0, 0.0),
        }
    }

    /// Lets exhaust out of an engine: the jet leaves `at` in the direction `along`, both in the craft's coordinates.
    fn puff(&mut self, at: Vec2, along: Vec2, size: f32) {
        let craft = &self.world.bodies()[CRAFT];
        let velocity = craft.velocity() + craft.world_vector(along);
        self.puffs[self.next_puff] = Puff { step: self.steps, from: craft.world_point(at), velocity, size };
        self.next_puff = (self.next_puff + 1) % PUFFS;
    }

    /// One step; `None` is the step without an action that ends a reset.
    fn advance(&mut self, action: Option<ActionRef<'_>>, rng: &mut NpRng, obs: ObsMut<'_>) -> StepOutcome {
        self.blow();
        let dispersion = [(); 2].map(|()| rng.uniform(-1.0, 1.0) / SCALE);
        let (main, direction, side) = action.map_or((0.0, 0.0, 0.0), |action| self.throttle(action));
        let craft = self.world.body_mut(CRAFT);
        let (sin, cos) = (f64::from(craft.angle()).sin(), f64::from(craft.angle()).cos());
        let (tip, across) = ([sin, cos], [-cos, sin]);
        if main > 0.0 {
            let along = MAIN_ENGINE_LOCATION / SCALE + 2.0 * dispersion[0];
            let [ox, oy] = [tip[0] * along + across[0] * dispersion[1], -tip[1] * along - across[1] * dispersion[1]];
            let position = craft.position();
            let at = [f64::from(position.x) + ox, f64::from(position.y) + oy];
            let impulse = [-ox * MAIN_ENGINE_POWER * main, -oy * MAIN_ENGINE_POWER * main];
            craft.apply_impulse(Vec2::from(impulse), Vec2::from(at));
        }
        if side > 0.0 {
            let along = 3.0 * dispersion[1] + direction * SIDE_ENGINE_AWAY / SCALE;
            let [ox, oy] = [tip[0] * dispersion[0] + across[0] * along, -tip[1] * dispersion[0] - across[1] * along];
            let position = craft.position();
            let at = [
                f64::from(position.x) + ox - tip[0] * SIDE_ENGINE_TILTED_HEIGHT / SCALE,
                f64::from(position.y) + oy + tip[1] * SIDE_ENGINE_HEIGHT / SCALE,
            ];
            let impulse = [-ox * SIDE_ENGINE_POWER * side, -oy * SIDE_ENGINE_POWER * side];
            craft.apply_impulse(Vec2::from(impulse), Vec2::from(at));
        }

        if main > 0.0 {
            let spread = (60.0 * dispersion[1]) as f32;
            self.puff(NOZZLE, vec2(spread, -9.0), 0.16 + 0.1 * main as f32);
        }
        if side > 0.0 {
            let out = -direction as f32;
            self.puff(vec2(out * SIDE_NOZZLE.x, SIDE_NOZZLE.y), vec2(6.0 * out, (40.0 * dispersion[0]) as f32), 0.12);
        }

        self.world.step(STEP);
        self.steps += 1;
        for event in &self.world.events {
            if event.body == CRAFT {
                self.game_over |= event.begins;
            } else {
                // As in the original, the end of one contact hides another that goes on.
                self.leg_contacts[event.body - LEGS[0]] = event.begins;
            }
        }

        let craft = &self.world.bodies()[CRAFT];
        let (position, velocity) = (craft.position(), craft.velocity());
        let legs = self.leg_contacts.map(|touches| f64::from(u8::from(touches)));
        let state = [
            (f64::from(position.x) - HALF[0]) / HALF[0],
            (f64::from(position.y) - (PAD_Y + LEG_DOWN / SCALE)) / HALF[1],
            f64::from(velocity.x) * HALF[0] / FPS,
            f64::from(velocity.y) * HALF[1] / FPS,
            f64::from(craft.angle()),
            20.0 * f64::from(craft.angular_velocity()) / FPS,
            legs[0],
            legs[1],
        ];
        super::write(&state, obs);

        let shaping = -100.0 * (state[0] * state[0] + state[1] * state[1]).sqrt()
            - 100.0 * (state[2] * state[2] + state[3] * state[3]).sqrt()
            - 100.0 * state[4].abs()
            + 10.0 * state[6]
            + 10.0 * state[7];
        let mut reward = self.last_shaping.map_or(0.0, |last| shaping - last);
        self.last_shaping = Some(shaping);
        reward -= main * 0.30;
        reward -= side * 0.03;
        let mut terminated = false;
        if self.game_over || state[0].abs() >= 1.0 {
            (terminated, reward) = (true, -100.0);
        }
        if !craft.awake() {
            (terminated, reward) = (true, 100.0);
        }
        StepOutcome { reward, terminated, truncated: false }
    }
}

impl Env for LunarLander {
    fn observation_space(&self) -> &Space {
        &self.observation_space
    }

    fn action_space(&self) -> &Space {
        &self.action_space
    }

    fn reset(&mut self, rng: &mut NpRng, obs: ObsMut<'_>) {
        self.steps = 0;
        self.puffs = [Puff::default(); PUFFS];
        self.next_puff = 0;
        self.game_over = false;
        self.leg_contacts = [false; 2];
        self.last_shaping = None;
        self.build(rng);
        self.advance(None, rng, obs);
    }

    fn step(&mut self, action: ActionRef<'_>, rng: &mut NpRng, obs: ObsMut<'_>) -> StepOutcome {
        self.advance(Some(action), rng, obs)
    }

    fn save_state(&self, to: &mut StateWriter) {
        self.world.save(to);
        to.u32(self.steps);
        for puff in &self.puffs {
            to.u32(puff.step);
            for x in [puff.from.x, puff.from.y, puff.velocity.x, puff.velocity.y, puff.size] {
                to.f32(x);
            }
        }
        to.u8(self.next_puff as u8);
        for flag in [self.game_over, self.leg_contacts[0], self.leg_contacts[1], self.last_shaping.is_some()] {
            to.bool(flag);
        }
        to.f64(self.last_shaping.unwrap_or(0.0));
        self.wind.iter().for_each(|phase| to.u64(*phase as u64));
    }

    fn load_state(&mut self, from: &mut StateReader<'_>) -> Result<(), EnvError> {
        let mut loaded = self.clone();
        loaded.world.load(from)?;
        if ![0, 3].contains(&loaded.world.bodies().len()) {
            let found = format!("{} bodies", loaded.world.bodies().len());
            return Err(EnvError::State { expected: "the craft and two legs".into(), found });
        }
        loaded.steps = from.u32()?;
        for puff in &mut loaded.puffs {
            *puff = Puff {
                step: from.u32()?,
                from: vec2(from.f32()?, from.f32()?),
                velocity: vec2(from.f32()?, from.f32()?),
                size: from.f32()?,
            };
        }
        loaded.next_puff = usize::from(from.u8()?) % PUFFS;
        loaded.game_over = from.bool()?;
        loaded.leg_contacts = [from.bool()?, from.bool()?];
        let shaped = from.bool()?;
        loaded.last_shaping = Some(from.f64()?).filter(|_| shaped);
        loaded.wind = [from.u64()? as i64, from.u64()? as i64];
        *self = loaded;
        Ok(())
    }

    fn render(&self) -> Option<Frame> {
        let [width, height] = VIEWPORT.map(|x| x as u32);
        let mut canvas = Canvas::new(width, height, (HALF[0] as f32, HALF[1] as f32), SCALE as f32);
        draw_sky(&mut canvas);
        self.draw_ground(&mut canvas);
        if let [craft, legs @ ..] = self.world.bodies() {
            self.draw_exhaust(&mut canvas);
            legs.iter().for_each(|leg| draw_leg(&mut canvas, craft, leg));
            draw_craft(&mut canvas, craft);
        }
        Some(canvas.into_frame())
    }
}

/// Where the jets leave the craft, in its coordinates.
const NOZZLE: Vec2 = vec2(0.0, -0.42);
const SIDE_NOZZLE: Vec2 = vec2(0.56, 0.44);

const NIGHT_TOP: Color = Color::hex(0x10162B);
const NIGHT_BOTTOM: Color = Color::hex(0x3B4A73);
const FLAME: Color = Color::hex(0xFFD98A);
const MOON_TOP: Color = Color::hex(0xD5DBE8);
const MOON_BOTTOM: Color = Color::hex(0x7C88A3);

fn pair(v: Vec2) -> (f32, f32) {
    (v.x, v.y)
}

fn draw_sky(canvas: &mut Canvas) {
    let [right, top] = HALF.map(|x| 2.0 * x as f32);
    let sky = Fill::vertical(top, NIGHT_TOP, 0.0, NIGHT_BOTTOM);
    canvas.polygon(&[(0.0, 0.0), (right, 0.0), (right, top), (0.0, top)], sky);
    // The same stars every night, from a linear congruential generator.
    let mut state = 20u32;
    let mut draw = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32
    };
    for _ in 0..90 {
        let (x, y, light) = (draw() * right, draw() * top, draw());
        canvas.circle((x, y), 0.015 + 0.03 * light * light, render::LIGHT.alpha((60.0 + 180.0 * light) as u8));
    }
    // The home planet, in half light.
    let home = (16.9, 11.0);
    canvas.circle(home, 1.05, render::BLUE.alpha(40));
    canvas.circle(home, 0.82, Fill::horizontal(16.2, render::BLUE_LIGHT, 17.6, NIGHT_TOP));
    canvas.circle((16.75, 11.2), 0.22, render::GREEN.alpha(150));
    canvas.circle((16.6, 10.75), 0.16, render::GREEN.alpha(130));
}

fn draw_leg(canvas: &mut Canvas, craft: &Body, leg: &Body) {
    let foot = leg.world_point(vec2(0.0, -0.24));
    let knee = leg.world_point(vec2(0.0, 0.24));
    let side = if leg.position().x - craft.position().x < 0.0 { -1.0 } else { 1.0 };
    // Which side it belongs to is seen in the craft's coordinates, whichever way that has turned.
    let side = if craft.world_vector(vec2(1.0, 0.0)).x < 0.0 { -side } else { side };
    let strut = craft.world_point(vec2(side * 0.36, -0.28));
    canvas.line(&[pair(strut), pair(knee)], 0.07, render::MUTED);
    canvas.line(&[pair(strut), pair(0.5 * (knee + foot))], 0.05, render::MUTED);
    canvas.line(&[pair(knee), pair(foot)], 0.12, render::GROUND_TOP);
    let (a, b) = (leg.world_point(vec2(-0.15, -0.25)), leg.world_point(vec2(0.15, -0.25)));
    canvas.line(&[pair(a), pair(b)], 0.07, render::LIGHT);
}

fn draw_craft(canvas: &mut Canvas, craft: &Body) {
    let hull = LANDER.map(|[x, y]| ((x / SCALE) as f32, (y / SCALE) as f32));
    canvas.at(pair(craft.position()), craft.angle(), |c| {
        c.polygon(&[(-0.16, -0.3), (0.16, -0.3), (0.24, -0.5), (-0.24, -0.5)], render::INK_LIGHT);
        c.line(&[(-0.24, -0.5), (0.24, -0.5)], 0.04, render::MUTED);
        for side in [-1.0, 1.0f32] {
            let (x0, x1) = (side * 0.46, side * 0.58);
            c.rect((x0.min(x1), 0.37), (x0.max(x1), 0.51), 0.03, render::INK_LIGHT);
        }
        c.polygon(&hull, Fill::horizontal(-0.5, render::LIGHT, 0.55, render::MUTED));
        c.rect((-0.57, -0.33), (0.57, -0.02), 0.05, Fill::horizontal(-0.5, render::ORANGE_LIGHT, 0.55, render::ORANGE));
        for x in [-0.34, -0.11, 0.11, 0.34] {
            c.line(&[(x, -0.28), (x, -0.07)], 0.025, render::INK.alpha(70));
        }
        c.circle((0.0, 0.27), 0.2, render::INK);
        c.circle((0.0, 0.27), 0.15, Fill::vertical(0.42, render::BLUE_LIGHT, 0.12, render::BLUE));
        c.circle((-0.05, 0.33), 0.045, render::LIGHT.alpha(220));
        c.line(&[(0.25, 0.56), (0.32, 0.78)], 0.03, render::MUTED);
        c.circle((0.32, 0.79), 0.045, render::ORANGE);
    });
}

impl LunarLander {
    fn draw_ground(&self, canvas: &mut Canvas) {
        let right = 2.0 * HALF[0] as f32;
        let mut ridge: Vec<(f32, f32)> = vec![(0.0, -1.0)];
        for ground in self.world.grounds().iter().skip(1) {
            let ends = ground.shape.vertices();
            ridge.extend((ridge.len() == 1).then(|| pair(ends[0])));
            ridge.extend(ends.get(1).map(|end| pair(*end)));
        }
        ridge.push((right, -1.0));
        let crest = ridge[1..ridge.len() - 1].to_vec();
        // Hills behind, a paler copy of the ground.
        let behind: Vec<_> = ridge.iter().map(|&(x, y)| (right - x, 0.62 * y + 1.9 * f32::from(y > 0.0))).collect();
        canvas.polygon(&behind, Fill::vertical(6.0, render::INK_LIGHT, 0.0, NIGHT_BOTTOM));
        canvas.polygon(&ridge, Fill::vertical(6.0, MOON_TOP, 0.0, MOON_BOTTOM));
        for (i, [(x0, y0), (x1, y1)]) in crest.windows(2).map(|w| [w[0], w[1]]).enumerate() {
            // A crater below each slope.
            let t = 0.3 + 0.4 * ((i * 7 % 5) as f32 / 4.0);
            let (x, y) = (x0 + t * (x1 - x0), y0 + t * (y1 - y0) - 0.75 - 0.5 * (i * 3 % 4) as f32);
            let r = 0.22 + 0.09 * (i * 5 % 4) as f32;
            canvas.shadow((x, y), 1.5 * r, 0.7 * r);
        }
        canvas.line(&crest, 0.08, render::LIGHT);
        let (left, right) = ((HALF[0] - 2.0) as f32, (HALF[0] + 2.0) as f32);
        let y = PAD_Y as f32;
        canvas.line(&[(left, y), (right, y)], 0.14, render::GREEN);
        for x in [left, right] {
            canvas.line(&[(x, y), (x, y + 1.65)], 0.05, render::LIGHT);
            canvas.polygon(
                &[(x, y + 1.67), (x, y + 1.2), (x + 0.85, y + 1.44)],
                Fill::horizontal(x, render::ORANGE_LIGHT, x + 0.85, render::ORANGE),
            );
        }
    }

    fn draw_exhaust(&self, canvas: &mut Canvas) {
        // Older puffs lie below newer ones.
        for i in 0..PUFFS {
            let puff = &self.puffs[(self.next_puff + i) % PUFFS];
            let age = self.steps.wrapping_sub(puff.step);
            if puff.size == 0.0 || age > PUFF_STEPS {
                continue;
            }
            let (age, share) = (age as f32 - 0.5, age as f32 / (PUFF_STEPS + 1) as f32);
            let at = pair(puff.from + (STEP.dt * age) * puff.velocity);
            let opacity = 255.0 * (1.0 - share) * (1.0 - share);
            let size = puff.size * (1.0 + 1.6 * share);
            let color = if share < 0.2 { FLAME } else { render::ORANGE_LIGHT };
            canvas.circle(at, 1.6 * size, render::ORANGE.alpha((0.25 * opacity) as u8));
            canvas.circle(at, size, color.alpha((0.85 * opacity) as u8));
        }
    }
}
