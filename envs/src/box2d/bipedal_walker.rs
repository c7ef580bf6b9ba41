//! Bipedal walker: make a two-legged robot with four motors walk over rough ground.
//!
//! # Description
//! A hull on two legs with hips and knees. In the normal version the ground is slightly uneven, in the hardcore version
//! there are pits, stumps and stairs.
//!
//! # Observation space
//! `Box([24], f32)`: hull angle (±π), angular velocity, horizontal and vertical velocity (±5, scaled); then for each leg
//! hip angle (±π), hip speed (±5), knee angle (±π), knee speed (±5), and 1 while the lower leg touches the ground, else
//! 0; then 10 distances to the ground from the hull, as shares of the range of the sensor, from straight down to 86°
//! forward. No coordinates.
//!
//! # Action space
//! `Box([4], f32)` in `[-1, 1]`: for hip and knee of one leg and of the other, the sign is the direction in which the
//! motor turns, the magnitude the share of its torque. Values outside are clipped.
//!
//! # Rewards
//! 130/30 for each metre forward, which sums up to more than 300 at the far end, -5 for each radian of tilt that is
//! gained, and -0.028 for each motor at full torque a step. The last reward is -100 for a fall.
//!
//! # Start state
//! Standing at the left end, with a random horizontal force in `[-5, 5)` on the first step; the ground is random.
//!
//! # End of episode
//! Terminated when the hull touches the ground, when it leaves the ground to the left, or when it reaches the far end;
//! truncated after 1600 steps (2000 in the hardcore version).
//!
//! # Options
//! `hardcore` (true or false): pits, stumps and stairs; false for `BipedalWalker-v3`, true for
//! `BipedalWalkerHardcore-v3`.
//!
//! # Source
//! Gymnasium's `BipedalWalker-v3`, by Oleg Klimov; the physics is that of the module `physics`. Gymnasium keeps the
//! physics' world over resets, which shifts later episodes in the last bits; here each episode starts as the first one
//! of an environment does.

use super::physics::{Body, GroundShape, JointDef, Material, Polygon, TimeStep, Vec2, World, vec2};
use crate::render::{self, Canvas, Color, Fill};
use crate::{
    ActionRef, Controls, Env, EnvError, EnvSpec, Frame, Key, NpRng, ObsMut, Options, Space, StateReader, StateWriter,
    StepOutcome,
};

const CONTROLS: &[Controls] = &[Controls {
    idle: Some(&[0.0, 0.0, 0.0, 0.0]),
    keys: &[
        (Key::Char('w'), &[(0, 1.0)], "hip 1 forward"),
        (Key::Char('s'), &[(0, -1.0)], "back"),
        (Key::Char('e'), &[(1, 1.0)], "knee 1 forward"),
        (Key::Char('d'), &[(1, -1.0)], "back"),
        (Key::Char('i'), &[(2, 1.0)], "hip 2 forward"),
        (Key::Char('k'), &[(2, -1.0)], "back"),
        (Key::Char('o'), &[(3, 1.0)], "knee 2 forward"),
        (Key::Char('l'), &[(3, -1.0)], "back"),
    ],
}];

/// Registry entry of the normal version.
pub const SPEC: EnvSpec = EnvSpec {
    id: "BipedalWalker-v3",
    summary: "walk on two legs over uneven ground",
    max_episode_steps: Some(1600),
    reward_threshold: Some(300.0),
    render_fps: 50,
    controls: CONTROLS,
    make: |options| Ok(Box::new(BipedalWalker::new(options, false)?)),
    make_batch: None,
};

/// Registry entry of the hardcore version.
pub const HARDCORE_SPEC: EnvSpec = EnvSpec {
    id: "BipedalWalkerHardcore-v3",
    summary: "walk on two legs over pits, stumps and stairs",
    max_episode_steps: Some(2000),
    controls: CONTROLS,
    make: |options| Ok(Box::new(BipedalWalker::new(options, true)?)),
    ..SPEC
};

const FPS: f64 = 50.0;
/// Pixels a metre: lengths below are pixels of the original picture, where they are divided by it.
const SCALE: f64 = 30.0;
const VIEWPORT: [f64; 2] = [600.0, 400.0];
const STEP: TimeStep = TimeStep { dt: (1.0 / FPS) as f32, velocity_iterations: 180, position_iterations: 60 };

const MOTORS_TORQUE: f32 = 80.0;
/// Rated speeds of hip and knee.
const SPEED: [f64; 2] = [4.0, 6.0];
const LIDAR_RANGE: f64 = 160.0 / SCALE;
const LIDARS: usize = 10;
const INITIAL_RANDOM: f64 = 5.0;

const HULL: [[f64; 2]; 5] = [[-30., 9.], [6., 9.], [34., 1.], [34., -8.], [-30., -8.]];
const LEG_DOWN: f64 = -8.0 / SCALE;
const LEG: [f64; 2] = [8.0 / SCALE, 34.0 / SCALE];
const HIP_LIMITS: [f32; 2] = [-0.8, 1.1];
const KNEE_LIMITS: [f32; 2] = [-1.6, -0.1];

const TERRAIN_STEP: f64 = 14.0 / SCALE;
const TERRAIN_LENGTH: usize = 200;
const TERRAIN_HEIGHT: f64 = VIEWPORT[1] / SCALE / 4.0;
const TERRAIN_GRASS: usize = 10;
const TERRAIN_STARTPAD: usize = 20;
const GROUND: Material = Material { friction: 2.5, restitution: 0.0 };
const CLOUDS: usize = TERRAIN_LENGTH / 20;

/// Bodies in the order of their making: hull, then upper and lower leg of both sides.
const HULL_BODY: usize = 0;
const LOWER_LEGS: [usize; 2] = [2, 4];
const BODIES: usize = 5;

/// What the ground does from a point on.
#[derive(Clone, Copy, PartialEq)]
enum Stretch {
    Grass,
    Stump,
    Stairs,
    Pit,
}

/// The bipedal walker.
#[derive(Clone, Debug)]
pub struct BipedalWalker {
    world: World,
    game_over: bool,
    leg_contacts: [bool; 2],
    last_shaping: Option<f64>,
    lidar: [f32; LIDARS],
    /// Corners of clouds, which are drawn alone.
    clouds: [[Vec2; 5]; CLOUDS],
    hardcore: bool,
    observation_space: Space,
    action_space: Space,
}

/// numpy's sign: 0 for 0.
fn sign(x: f64) -> f64 {
    if x == 0.0 { 0.0 } else { x.signum() }
}

impl BipedalWalker {
    /// Makes the environment, not started yet.
    ///
    /// # Errors
    /// [`EnvError::BadOption`] if an option has the wrong type.
    pub fn new(options: &mut Options, hardcore: bool) -> Result<Self, EnvError> {
        const PI: f32 = std::f32::consts::PI;
        let mut high = vec![PI, 5.0, 5.0, 5.0];
        let mut low = vec![-PI, -5.0, -5.0, -5.0];
        for _ in 0..2 {
            high.extend([PI, 5.0, PI, 5.0, 5.0]);
            low.extend([-PI, -5.0, -PI, -5.0, -0.0]);
        }
        high.extend([1.0; LIDARS]);
        low.extend([-1.0; LIDARS]);
        Ok(Self {
            world: World::new(vec2(0.0, -10.0)),
            game_over: false,
            leg_contacts: [false; 2],
            last_shaping: None,
            lidar: [1.0; LIDARS],
            clouds: [[Vec2::ZERO; 5]; CLOUDS],
            hardcore: options.bool("hardcore", hardcore)?,
            observation_space: Space::bounded(low, high, [4 + 10 + LIDARS]),
            action_space: Space::bounded([-1.0; 4], [1.0; 4], [4]),
        })
    }

    fn add_obstacle(&mut self, corners: [[f64; 2]; 4]) {
        let body = self.world.grounds().len();
        let polygon = Polygon::hull(&corners.map(Vec2::from));
        self.world.add_ground(body, GroundShape::Polygon(polygon), GROUND, false);
    }

    /// Fresh ground: a random walk of heights, and obstacles in the hardcore version.
    fn build_terrain(&mut self, rng: &mut NpRng) {
        const STEP: f64 = TERRAIN_STEP;
        let (mut stretch, mut begins) = (Stretch::Grass, false);
        let (mut velocity, mut y) = (0.0, TERRAIN_HEIGHT);
        let mut counter = TERRAIN_STARTPAD as i64;
        let (mut steps, mut width, mut rise) = (0, 0, 0);
        let mut original_y = 0.0;
        let mut heights = [0.0; TERRAIN_LENGTH];
        for (i, height) in heights.iter_mut().enumerate() {
            let x = i as f64 * STEP;
            match (stretch, begins) {
                (Stretch::Grass, false) => {
                    velocity = 0.8 * velocity + 0.01 * sign(TERRAIN_HEIGHT - y);
                    if i > TERRAIN_STARTPAD {
                        velocity += rng.uniform(-1.0, 1.0) / SCALE;
                    }
                    y += velocity;
                }
                (Stretch::Pit, true) => {
                    counter = rng.integers(3, 5);
                    let wall = [[x, y], [x + STEP, y], [x + STEP, y - 4.0 * STEP], [x, y - 4.0 * STEP]];
                    self.add_obstacle(wall);
                    self.add_obstacle(wall.map(|[x, y]| [x + STEP * counter as f64, y]));
                    counter += 2;
                    original_y = y;
                }
                (Stretch::Pit, false) => {
                    y = original_y;
                    if counter > 1 {
                        y -= 4.0 * STEP;
                    }
                }
                (Stretch::Stump, true) => {
                    counter = rng.integers(1, 3);
                    let size = counter as f64 * STEP;
                    self.add_obstacle([[x, y], [x + size, y], [x + size, y + size], [x, y + size]]);
                }
                (Stretch::Stairs, true) => {
                    rise = if rng.random() > 0.5 { 1 } else { -1 };
                    width = rng.integers(4, 5);
                    steps = rng.integers(3, 5);
                    original_y = y;
                    for s in 0..steps {
                        let left = x + (s * width) as f64 * STEP;
                        let right = x + ((1 + s) * width) as f64 * STEP;
                        let top = y + (s * rise) as f64 * STEP;
                        let bottom = y + (-1 + s * rise) as f64 * STEP;
                        self.add_obstacle([[left, top], [right, top], [right, bottom], [left, bottom]]);
                    }
                    counter = steps * width;
                }
                (Stretch::Stairs, false) => {
                    let s = steps * width - counter - rise;
                    y = original_y + (s as f64 / width as f64 * rise as f64) * STEP;
                }
                (Stretch::Grass, true) | (Stretch::Stump, false) => {}
            }
            begins = false;
            *height = y;
            counter -= 1;
            if counter == 0 {
                counter = rng.integers(TERRAIN_GRASS as i64 / 2, TERRAIN_GRASS as i64);
                begins = true;
                stretch = if stretch == Stretch::Grass && self.hardcore {
                    [Stretch::Stump, Stretch::Stairs, Stretch::Pit][rng.integers(1, 4) as usize - 1]
                } else {
                    Stretch::Grass
                };
            }
        }
        let point = |i: usize| Vec2::from([i as f64 * STEP, heights[i]]);
        for i in 0..TERRAIN_LENGTH - 1 {
            let body = self.world.grounds().len();
            self.world.add_ground(body, GroundShape::Edge([point(i), point(i + 1)]), GROUND, false);
        }
    }

    fn build_clouds(&mut self, rng: &mut NpRng) {
        #[allow(clippy::approx_constant)] // The original's.
        const ROUGH_PI: f64 = 3.14;
        for cloud in &mut self.clouds {
            let x = rng.uniform(0.0, TERRAIN_LENGTH as f64) * TERRAIN_STEP;
            let y = VIEWPORT[1] / SCALE * 3.0 / 4.0;
            for (a, corner) in cloud.iter_mut().enumerate() {
                let angle = ROUGH_PI * 2.0 * a as f64 / 5.0;
                *corner = Vec2::from([
                    x + 15.0 * TERRAIN_STEP * angle.sin() + rng.uniform(0.0, 5.0 * TERRAIN_STEP),
                    y + 5.0 * TERRAIN_STEP * angle.cos() + rng.uniform(0.0, 5.0 * TERRAIN_STEP),
                ]);
            }
        }
    }

    fn build_robot(&mut self, rng: &mut NpRng) {
        let x = TERRAIN_STEP * TERRAIN_STARTPAD as f64 / 2.0;
        let y = TERRAIN_HEIGHT + 2.0 * LEG[1];
        let hull = Polygon::hull(&HULL.map(|[x, y]| Vec2::from([x / SCALE, y / SCALE])));
        let material = Material { friction: 0.1, ..Material::DEFAULT };
        self.world.add_body(Vec2::from([x, y]), 0.0, &[(hull, 5.0, material)]);
        let force = rng.uniform(-INITIAL_RANDOM, INITIAL_RANDOM);
        self.world.body_mut(HULL_BODY).apply_force(Vec2::from([force, 0.0]));

        let [leg_width, leg_height] = LEG;
        let upper = Polygon::rectangle((leg_width / 2.0) as f32, (leg_height / 2.0) as f32);
        let lower = Polygon::rectangle((0.8 * leg_width / 2.0) as f32, (leg_height / 2.0) as f32);
        let top = Vec2::from([0.0, leg_height / 2.0]);
        for side in [-1.0, 1.0] {
            let angle = (side * 0.05) as f32;
            let at = Vec2::from([x, y - leg_height / 2.0 - LEG_DOWN]);
            let leg = self.world.add_body(at, angle, &[(upper, 1.0, Material::DEFAULT)]);
            let hip = JointDef {
                bodies: [HULL_BODY, leg],
                anchors: [Vec2::from([0.0, LEG_DOWN]), top],
                limits: HIP_LIMITS,
                motor_speed: side as f32,
                max_motor_torque: MOTORS_TORQUE,
            };
            self.world.add_joint(hip);
            let at = Vec2::from([x, y - leg_height * 3.0 / 2.0 - LEG_DOWN]);
            let shin = self.world.add_body(at, angle, &[(lower, 1.0, Material::DEFAULT)]);
            let bottom = Vec2::from([0.0, -leg_height / 2.0]);
            self.world.add_joint(JointDef {
                bodies: [leg, shin],
                anchors: [bottom, top],
                limits: KNEE_LIMITS,
                motor_speed: 1.0,
                ..hip
            });
        }
    }

    /// Where a ray of the sensor ends if nothing is in its way.
    fn lidar_end(from: Vec2, i: usize) -> Vec2 {
        let angle = 1.5 * i as f64 / LIDARS as f64;
        Vec2::from([f64::from(from.x) + angle.sin() * LIDAR_RANGE, f64::from(from.y) - angle.cos() * LIDAR_RANGE])
    }

    fn advance(&mut self, action: [f32; 4], obs: ObsMut<'_>) -> StepOutcome {
        let torque_share = action.map(|a| a.abs().clamp(0.0, 1.0));
        for (joint, (a, share)) in action.into_iter().zip(torque_share).enumerate() {
            let speed = SPEED[joint % 2] * sign(a.into());
            self.world.set_motor(joint, speed as f32, Some(MOTORS_TORQUE * share));
        }
        self.world.step(STEP);
        for event in &self.world.events {
            if event.body == HULL_BODY {
                self.game_over |= event.begins;
            } else if let Some(leg) = LOWER_LEGS.iter().position(|leg| *leg == event.body) {
                // As in the original, the end of one contact hides another that goes on.
                self.leg_contacts[leg] = event.begins;
            }
        }

        let hull = &self.world.bodies()[HULL_BODY];
        let (position, velocity) = (hull.position(), hull.velocity());
        for (i, fraction) in self.lidar.iter_mut().enumerate() {
            *fraction = self.world.cast_ray(position, Self::lidar_end(position, i));
        }
        let mut state = [0.0; 14 + LIDARS];
        state[..4].copy_from_slice(&[
            f64::from(hull.angle()),
            2.0 * f64::from(hull.angular_velocity()) / FPS,
            0.3 * f64::from(velocity.x) * (VIEWPORT[0] / SCALE) / FPS,
            0.3 * f64::from(velocity.y) * (VIEWPORT[1] / SCALE) / FPS,
        ]);
        for (leg, state) in state[4..14].chunks_exact_mut(5).enumerate() {
            let (hip, knee) = (2 * leg, 2 * leg + 1);
            state.copy_from_slice(&[
                f64::from(self.world.joint_angle(hip)),
                f64::from(self.world.joint_speed(hip)) / SPEED[0],
                f64::from(self.world.joint_angle(knee)) + 1.0,
                f64::from(self.world.joint_speed(knee)) / SPEED[1],
                f64::from(u8::from(self.leg_contacts[leg])),
            ]);
        }
        state[14..].copy_from_slice(&self.lidar.map(f64::from));
        super::write(&state, obs);

        let x = f64::from(position.x);
        let shaping = 130.0 * x / SCALE - 5.0 * state[0].abs();
        let gained = self.last_shaping.map_or(0.0, |last| shaping - last);
        self.last_shaping = Some(shaping);
        // From here on in single precision, as numpy has it.
        let cost = (0.00035 * f64::from(MOTORS_TORQUE)) as f32;
        let mut reward = f64::from(torque_share.iter().fold(gained as f32, |reward, share| reward - cost * share));
        let mut terminated = false;
        if self.game_over || x < 0.0 {
            (terminated, reward) = (true, -100.0);
        }
        terminated |= x > (TERRAIN_LENGTH - TERRAIN_GRASS) as f64 * TERRAIN_STEP;
        StepOutcome { reward, terminated, truncated: false }
    }
}

impl Env for BipedalWalker {
    fn observation_space(&self) -> &Space {
        &self.observation_space
    }

    fn action_space(&self) -> &Space {
        &self.action_space
    }

    fn reset(&mut self, rng: &mut NpRng, obs: ObsMut<'_>) {
        self.world.clear();
        self.game_over = false;
        self.leg_contacts = [false; 2];
        self.last_shaping = None;
        self.build_terrain(rng);
        self.build_clouds(rng);
        self.build_robot(rng);
        self.advance([0.0; 4], obs);
    }

    fn step(&mut self, action: ActionRef<'_>, _rng: &mut NpRng, obs: ObsMut<'_>) -> StepOutcome {
        let ActionRef::F32(&[a, b, c, d]) = action else { unreachable!("the action space is a box of four numbers") };
        self.advance([a, b, c, d], obs)
    }

    fn save_state(&self, to: &mut StateWriter) {
        self.world.save(to);
        for flag in [self.game_over, self.leg_contacts[0], self.leg_contacts[1], self.last_shaping.is_some()] {
            to.bool(flag);
        }
        to.f64(self.last_shaping.unwrap_or(0.0));
        self.lidar.iter().for_each(|x| to.f32(*x));
        for corner in self.clouds.as_flattened() {
            to.f32(corner.x);
            to.f32(corner.y);
        }
    }

    fn load_state(&mut self, from: &mut StateReader<'_>) -> Result<(), EnvError> {
        let mut loaded = self.clone();
        loaded.world.load(from)?;
        if ![0, BODIES].contains(&loaded.world.bodies().len()) {
            let found = format!("{} bodies", loaded.world.bodies().len());
            return Err(EnvError::State { expected: "a hull and two legs".into(), found });
        }
        loaded.game_over = from.bool()?;
        loaded.leg_contacts = [from.bool()?, from.bool()?];
        let shaped = from.bool()?;
        loaded.last_shaping = Some(from.f64()?).filter(|_| shaped);
        for x in &mut loaded.lidar {
            *x = from.f32()?;
        }
        for corner in loaded.clouds.as_flattened_mut() {
            *corner = vec2(from.f32()?, from.f32()?);
        }
        *self = loaded;
        Ok(())
    }

    fn render(&self) -> Option<Frame> {
        let [width, height] = VIEWPORT.map(|x| (x / SCALE) as f32);
        let scroll = self.world.bodies().first().map_or(0.0, |hull| hull.position().x - width / 5.0).max(0.0);
        let [pixels_x, pixels_y] = VIEWPORT.map(|x| x as u32);
        let center = (scroll + width / 2.0, height / 2.0);
        let mut canvas = Canvas::new(pixels_x, pixels_y, center, SCALE as f32);
        self.draw_sky(&mut canvas, scroll);
        self.draw_ground(&mut canvas, scroll);
        if let [hull, leg1, shin1, leg2, shin2] = self.world.bodies() {
            // The far leg, then what is in front of it.
            draw_leg(&mut canvas, leg1, shin1, (render::BLUE, render::INK_LIGHT));
            self.draw_lidar(&mut canvas, hull.position());
            draw_hull(&mut canvas, hull);
            draw_leg(&mut canvas, leg2, shin2, (render::BLUE_LIGHT, render::BLUE));
        }
        Some(canvas.into_frame())
    }
}

const EARTH_TOP: Color = Color::hex(0xB9CDBF);
const EARTH_BOTTOM: Color = Color::hex(0xDDE8E2);

fn pair(v: Vec2) -> (f32, f32) {
    (v.x, v.y)
}

fn draw_leg(canvas: &mut Canvas, leg: &Body, shin: &Body, (light, dark): (Color, Color)) {
    let (half, turn) = ((LEG[1] / 2.0) as f32, std::f32::consts::FRAC_PI_2);
    let [hip, knee] = [half, -half].map(|y| leg.world_point(vec2(0.0, y)));
    let foot = shin.world_point(vec2(0.0, -half + 0.1));
    canvas.rod(pair(knee), shin.angle() - turn, 2.0 * half - 0.1, 0.105, light, dark);
    canvas.rod(pair(hip), leg.angle() - turn, 2.0 * half, 0.135, light, dark);
    canvas.joint(pair(knee), 0.09);
    canvas.joint(pair(hip), 0.1);
    canvas.circle(pair(foot), 0.075, render::INK);
}

fn draw_hull(canvas: &mut Canvas, hull: &Body) {
    let corners = HULL.map(|[x, y]| ((x / SCALE) as f32, (y / SCALE) as f32));
    canvas.at(pair(hull.position()), hull.angle(), |c| {
        c.polygon(&corners.map(|(x, y)| (x + 0.05, y - 0.07)), render::SHADOW);
        c.polygon(&corners, Fill::vertical(0.3, render::ORANGE_LIGHT, -0.27, render::ORANGE));
        c.line(&[(-0.92, -0.16), (1.05, -0.16)], 0.035, render::INK.alpha(60));
        c.polygon(&[(0.28, 0.21), (0.98, 0.0), (0.98, -0.08), (0.28, -0.08)], render::INK);
        c.polygon(&[(0.34, 0.14), (0.74, 0.02), (0.74, -0.02), (0.34, -0.02)], render::BLUE_LIGHT.alpha(170));
        c.line(&[(-0.8, 0.3), (-0.86, 0.62)], 0.035, render::INK_LIGHT);
        c.circle((-0.86, 0.63), 0.055, render::VIOLET);
    });
}

impl BipedalWalker {
    fn draw_sky(&self, canvas: &mut Canvas, scroll: f32) {
        for cloud in &self.clouds {
            // Clouds are far away: they move at half the speed.
            let corners = cloud.map(|c| (c.x + scroll / 2.0, c.y));
            let (sum_x, sum_y) = corners.iter().fold((0.0, 0.0), |(x, y), c| (x + c.0, y + c.1));
            let (x, y) = (sum_x / 5.0, sum_y / 5.0);
            for (cx, cy) in corners {
                let (px, py) = (x + 0.45 * (cx - x), y + 0.45 * (cy - y));
                canvas.circle((px, py), 0.7 + 0.12 * (cx - px).abs(), render::LIGHT);
            }
        }
        // Far hills, at a third of the speed.
        let far = |x: f32| 4.6 + 0.9 * (0.31 * x).sin() + 0.5 * (0.77 * x + 1.0).sin();
        let [width, _] = VIEWPORT.map(|x| (x / SCALE) as f32);
        let mut hills = vec![(scroll - 1.0, 0.0)];
        hills.extend((0..=48).map(|i| {
            let x = (width + 2.0) * i as f32 / 48.0 - 1.0;
            (scroll + x, far(x + scroll / 3.0))
        }));
        hills.push((scroll + width + 1.0, 0.0));
        canvas
            .polygon(&hills, Fill::vertical(6.0, render::GROUND_TOP.alpha(150), 1.0, render::GROUND_BOTTOM.alpha(40)));
    }

    fn draw_ground(&self, canvas: &mut Canvas, scroll: f32) {
        let width = (VIEWPORT[0] / SCALE) as f32;
        let seen = |vertices: &[Vec2]| {
            vertices.iter().any(|v| v.x >= scroll - 1.0) && vertices.iter().any(|v| v.x <= scroll + width + 1.0)
        };
        let shapes = self.world.grounds().iter().map(|g| &g.shape).filter(|shape| seen(shape.vertices()));
        let mut crest: Vec<(f32, f32)> = Vec::new();
        for shape in shapes.clone() {
            if let GroundShape::Edge([a, b]) = shape {
                crest.extend(crest.is_empty().then(|| pair(*a)));
                crest.push(pair(*b));
            }
        }
        let (Some(&(left, _)), Some(&(right, _))) = (crest.first(), crest.last()) else { return };
        let mut earth = crest.clone();
        earth.extend([(right, -1.0), (left, -1.0)]);
        canvas.polygon(&earth, Fill::vertical(4.5, EARTH_TOP, 0.0, EARTH_BOTTOM));
        canvas.line(&crest, 0.09, render::GREEN);
        for shape in shapes {
            if let GroundShape::Polygon(polygon) = shape {
                let corners: Vec<_> = polygon.vertices().iter().map(|v| pair(*v)).collect();
                let top = corners.iter().fold(f32::MIN, |y, c| y.max(c.1));
                canvas.polygon(&corners, Fill::vertical(top, render::INK_LIGHT, top - 2.0, render::MUTED));
            }
        }
        let (x, y) = ((3.0 * TERRAIN_STEP) as f32, TERRAIN_HEIGHT as f32);
        canvas.line(&[(x, y), (x, y + 1.65)], 0.05, render::INK_LIGHT);
        canvas.polygon(&[(x, y + 1.67), (x, y + 1.2), (x + 0.85, y + 1.44)], render::ORANGE);
    }

    fn draw_lidar(&self, canvas: &mut Canvas, from: Vec2) {
        for (i, &share) in self.lidar.iter().enumerate() {
            let end = from + share * (Self::lidar_end(from, i) - from);
            canvas.line(&[pair(from), pair(end)], 0.02, render::VIOLET.alpha(70));
            if share < 1.0 {
                canvas.circle(pair(end), 0.06, render::VIOLET.alpha(170));
            }
        }
    }
}
