//! Car racing: drive around a track seen from above, from pixels.
//!
//! # Description
//! A rear-wheel-drive car on a random closed track of tiles in a field of grass. At the bottom of the picture are, from
//! left to right, the reward so far, the speed, the spin of the four wheels, the position of the steering and the
//! gyroscope.
//!
//! # Observation space
//! `Box([96, 96, 3], u8)`: the picture.
//!
//! # Action space
//! `Box([3], f32)`: steering in `[-1, 1]` (-1 is full left), gas and brake in `[0, 1]`. With `continuous` false
//! `Discrete(5)`: 0 nothing, 1 steer right, 2 steer left, 3 gas, 4 brake.
//!
//! # Rewards
//! -0.1 a step, and `1000 / N` for each of the `N` tiles of the track when it is first touched. The last reward is
//! -100 for leaving the playfield.
//!
//! # Start state
//! At rest in the middle of the road; the track is random.
//!
//! # End of episode
//! Terminated when the lap is complete, that is the car touches the first tile after more than `lap_complete_percent`
//! of the tiles, or has touched them all, and when it leaves the playfield; truncated after 1000 steps.
//!
//! # Options
//! - `lap_complete_percent` (number, default 0.95): share of the tiles that makes a lap.
//! - `domain_randomize` (true or false, default false): new colours of grass and road in every episode.
//! - `continuous` (true or false, default true): the action space.
//!
//! # Source
//! Gymnasium's `CarRacing-v3`, by Oleg Klimov; the physics is that of the module `physics`. The picture is painted as
//! Gymnasium's is, polygon by polygon, but without the blended outlines that make its edges a fraction of a pixel
//! wider, and with numerals of its own. Gymnasium keeps the physics' world over resets; here each episode starts as the
//! first one of an environment does. Its reset option `randomize` does not exist here.

mod observation;
mod picture;
mod track;

use std::cell::RefCell;

use track::{TrackPoint, hard_turns, random_track, sign};

use super::car::{Car, FIRST_WHEEL, HULL_BODY};
use super::physics::{GroundShape, Material, Polygon, TimeStep, Vec2, World};
use super::raster::{self, Raster, Rgb};
use crate::{
    ActionRef, Controls, Env, EnvError, EnvSpec, Frame, Key, NpRng, ObsMut, Options, Space, StateReader, StateWriter,
    StepOutcome,
};

/// Registry entry.
pub const SPEC: EnvSpec = EnvSpec {
    id: "CarRacing-v3",
    summary: "drive around a track from pixels",
    max_episode_steps: Some(1000),
    reward_threshold: Some(900.0),
    render_fps: 50,
    controls: &[
        Controls {
            idle: Some(&[0.0, 0.0, 0.0]),
            keys: &[
                (Key::Left, &[(0, -1.0)], "steer left"),
                (Key::Right, &[(0, 1.0)], "steer right"),
                (Key::Up, &[(1, 1.0)], "gas"),
                (Key::Down, &[(2, 0.8)], "brake"),
            ],
        },
        Controls {
            idle: Some(&[0.0]),
            keys: &[
                (Key::Left, &[(0, 2.0)], "steer left"),
                (Key::Right, &[(0, 1.0)], "steer right"),
                (Key::Up, &[(0, 3.0)], "gas"),
                (Key::Down, &[(0, 4.0)], "brake"),
            ],
        },
    ],
    make: |options| Ok(Box::new(CarRacing::new(options)?)),
    make_batch: None,
};

const FPS: f64 = 50.0;
const STEP: TimeStep = TimeStep { dt: (1.0 / FPS) as f32, velocity_iterations: 180, position_iterations: 60 };
const SCALE: f64 = 6.0;
const PLAYFIELD: f64 = 2000.0 / SCALE;
const ZOOM: f64 = 2.7;
const TRACK_WIDTH: f64 = 40.0 / SCALE;
const BORDER: f64 = 8.0 / SCALE;
const GRASS_DIM: f64 = PLAYFIELD / 20.0;
/// Road, ground and patches of grass, unless they are random.
const COLORS: [[f64; 3]; 3] = [[102., 102., 102.], [102., 204., 102.], [102., 230., 102.]];
const BLACK: Rgb = [0; 3];
const WHITE: Rgb = [255; 3];
const RED: Rgb = [255, 0, 0];

/// A quadrilateral of road or border.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Quad {
    corners: [[f32; 2]; 4],
    color: Rgb,
}

/// Marks that slipping wheels leave; drawn alone.
const SKIDS: usize = 256;

/// The car racing environment.
#[derive(Clone, Debug)]
pub struct CarRacing {
    world: World,
    car: Car,
    /// Tiles of the road, one for each ground shape of the world, and borders.
    tiles: Vec<Quad>,
    borders: Vec<Quad>,
    /// The last tile before each border: the order in which Gymnasium paints.
    border_after: Vec<u32>,
    visited: Vec<bool>,
    visited_count: u32,
    lap_complete: bool,
    reward: f64,
    last_reward: f64,
    time: f64,
    colors: [[f64; 3]; 3],
    skids: Vec<[f32; 4]>,
    next_skid: usize,
    lap_complete_percent: f64,
    domain_randomize: bool,
    observation_space: Space,
    action_space: Space,
}

thread_local! {
    /// The large picture is needed while an observation is painted only: one for each thread will do.
    static RASTER: RefCell<Raster> = RefCell::new(Raster::new());
}

impl CarRacing {
    /// Makes the environment, not started yet.
    ///
    /// # Errors
    /// [`EnvError::BadOption`] if an option has the wrong type.
    pub fn new(options: &mut Options) -> Result<Self, EnvError> {
        let continuous = options.bool("continuous", true)?;
        let actions = Space::bounded([-1.0, 0.0, 0.0], [1.0; 3], [3]);
        Ok(Self {
            world: World::new(Vec2::ZERO),
            car: Car::default(),
            tiles: Vec::new(),
            borders: Vec::new(),
            border_after: Vec::new(),
            visited: Vec::new(),
            visited_count: 0,
            lap_complete: false,
            reward: 0.0,
            last_reward: 0.0,
            time: 0.0,
            colors: COLORS,
            skids: Vec::with_capacity(SKIDS),
            next_skid: 0,
            lap_complete_percent: options.f64("lap_complete_percent", 0.95)?,
            domain_randomize: options.bool("domain_randomize", false)?,
            observation_space: Space::image([raster::SIDE, raster::SIDE, 3]),
            action_space: if continuous { actions } else { Space::discrete(5) },
        })
    }

    /// Tiles and borders along a track.
    fn build_road(&mut self, track: &[TrackPoint]) {
        self.world.clear();
        self.tiles.clear();
        self.borders.clear();
        self.border_after.clear();
        self.visited.clear();
        self.visited.resize(track.len(), false);
        let border = hard_turns(track);
        for (i, one) in track.iter().enumerate() {
            let two = &track[(i + track.len() - 1) % track.len()];
            // The point at a distance to the right of the middle.
            let point = |p: &TrackPoint, off: f64| [p.at[0] + off * p.beta.cos(), p.at[1] + off * p.beta.sin()];
            let quad = |a: f64, b: f64| [point(one, a), point(one, b), point(two, b), point(two, a)];
            let single = |corners: [[f64; 2]; 4]| corners.map(|c| c.map(|x| x as f32));
            let corners = quad(-TRACK_WIDTH, TRACK_WIDTH);
            let polygon = Polygon::hull(&corners.map(Vec2::from));
            self.world.add_ground(i, GroundShape::Polygon(polygon), Material::DEFAULT, true);
            let shade = 0.01 * (i % 3) as f64 * 255.0;
            let color = self.colors[0].map(|c| (c + shade) as u8);
            self.tiles.push(Quad { corners: single(corners), color });
            if border[i] {
                let side = sign(two.beta - one.beta);
                let corners = quad(side * TRACK_WIDTH, side * (TRACK_WIDTH + BORDER));
                let color = if i % 2 == 0 { WHITE } else { RED };
                self.borders.push(Quad { corners: single(corners), color });
                self.border_after.push(i as u32);
            }
        }
    }

    /// Physics of one step, after the controls were set.
    fn advance(&mut self) {
        self.car.step(&mut self.world, 1.0 / FPS);
        let before: [Vec2; 4] = std::array::from_fn(|i| self.world.bodies()[FIRST_WHEEL + i].position());
        self.world.step(STEP);
        self.time += 1.0 / FPS;
        let count = self.tiles.len() as f64;
        for event in &self.world.events {
            // What is touched once loses its shade.
            self.tiles[event.ground].color = self.colors[0].map(|c| c as u8);
            let Some(wheel) = event.body.checked_sub(FIRST_WHEEL) else { continue };
            let wheel = &mut self.car.wheels[wheel];
            if !event.begins {
                wheel.tiles = wheel.tiles.saturating_sub(1);
                continue;
            }
            wheel.tiles += 1;
            if !std::mem::replace(&mut self.visited[event.ground], true) {
                self.reward += 1000.0 / count;
                self.visited_count += 1;
                let share = f64::from(self.visited_count) / count;
                self.lap_complete |= event.ground == 0 && share > self.lap_complete_percent;
            }
        }
        for (i, from) in before.into_iter().enumerate().filter(|(i, _)| self.car.wheels[*i].skids) {
            let to = self.world.bodies()[FIRST_WHEEL + i].position();
            let mark = [from.x, from.y, to.x, to.y];
            if self.skids.len() < SKIDS {
                self.skids.push(mark);
            } else {
                self.skids[self.next_skid] = mark;
                self.next_skid = (self.next_skid + 1) % SKIDS;
            }
        }
    }

    /// Tiles and borders in the order in which they are painted.
    fn quads(&self) -> impl Iterator<Item = &Quad> {
        let mut borders = self.borders.iter().zip(&self.border_after).peekable();
        self.tiles.iter().enumerate().flat_map(move |(i, tile)| {
            let border = borders.next_if(|(_, after)| **after == i as u32).map(|(border, _)| border);
            [Some(tile), border].into_iter().flatten()
        })
    }

    fn observe(&self, obs: ObsMut<'_>) {
        let ObsMut::U8(pixels) = obs else { unreachable!("the observation space is an image") };
        RASTER.with_borrow_mut(|raster| {
            self.paint(raster);
            raster.shrink(pixels);
        });
    }
}

impl Env for CarRacing {
    fn observation_space(&self) -> &Space {
        &self.observation_space
    }

    fn action_space(&self) -> &Space {
        &self.action_space
    }

    fn reset(&mut self, rng: &mut NpRng, obs: ObsMut<'_>) {
        (self.reward, self.last_reward, self.time) = (0.0, 0.0, 0.0);
        (self.visited_count, self.lap_complete) = (0, false);
        self.skids.clear();
        self.next_skid = 0;
        if self.domain_randomize {
            let mut color = || [(); 3].map(|()| rng.uniform(0.0, 210.0));
            let (road, ground) = (color(), color());
            let mut grass = ground;
            grass[rng.integers(0, 3) as usize] += 20.0;
            self.colors = [road, ground, grass];
        }
        let track = loop {
            if let Some(track) = random_track(rng) {
                break track;
            }
        };
        self.build_road(&track);
        self.car = Car::new(&mut self.world, track[0].beta, track[0].at);
        self.advance();
        self.observe(obs);
    }

    fn step(&mut self, action: ActionRef<'_>, _rng: &mut NpRng, obs: ObsMut<'_>) -> StepOutcome {
        let [steer, gas, brake] = match action {
            ActionRef::F32(&[steer, gas, brake]) => [-f64::from(steer), gas.into(), brake.into()],
            ActionRef::I32(&[1]) => [-0.6, 0.0, 0.0],
            ActionRef::I32(&[2]) => [0.6, 0.0, 0.0],
            ActionRef::I32(&[3]) => [0.0, 0.2, 0.0],
            ActionRef::I32(&[4]) => [0.0, 0.0, 0.8],
            _ => [0.0; 3],
        };
        self.car.steer(steer);
        self.car.gas(gas);
        self.car.brake(brake);
        self.advance();
        self.observe(obs);
        self.reward -= 0.1;
        let mut reward = self.reward - self.last_reward;
        self.last_reward = self.reward;
        let mut terminated = self.lap_complete || self.visited_count as usize == self.tiles.len();
        let position = self.world.bodies()[HULL_BODY].position();
        if f64::from(position.x).abs() > PLAYFIELD || f64::from(position.y).abs() > PLAYFIELD {
            (terminated, reward) = (true, -100.0);
        }
        StepOutcome { reward, terminated, truncated: false }
    }

    fn save_state(&self, to: &mut StateWriter) {
        self.world.save(to);
        self.car.save(to);
        for quads in [&self.tiles, &self.borders] {
            to.u32(quads.len() as u32);
            for quad in quads {
                quad.corners.as_flattened().iter().for_each(|x| to.f32(*x));
                quad.color.into_iter().for_each(|c| to.u8(c));
            }
        }
        self.border_after.iter().for_each(|i| to.u32(*i));
        self.visited.iter().for_each(|v| to.bool(*v));
        to.u32(self.visited_count);
        to.bool(self.lap_complete);
        [self.reward, self.last_reward, self.time].into_iter().for_each(|x| to.f64(x));
        self.colors.as_flattened().iter().for_each(|x| to.f64(*x));
        to.u32(self.skids.len() as u32);
        self.skids.as_flattened().iter().for_each(|x| to.f32(*x));
        to.u32(self.next_skid as u32);
    }

    fn load_state(&mut self, from: &mut StateReader<'_>) -> Result<(), EnvError> {
        const MANY: usize = 1 << 16;
        let count = |from: &mut StateReader<'_>, most: usize, what: &str| {
            let count = from.u32()? as usize;
            let wrong = || EnvError::State { expected: format!("at most {most} {what}"), found: count.to_string() };
            if count <= most { Ok(count) } else { Err(wrong()) }
        };
        let mut loaded = self.clone();
        loaded.world.load(from)?;
        loaded.car = Car::load(from)?;
        for quads in [&mut loaded.tiles, &mut loaded.borders] {
            quads.clear();
            for _ in 0..count(from, MANY, "quadrilaterals")? {
                let mut quad = Quad { corners: [[0.0; 2]; 4], color: BLACK };
                for x in quad.corners.as_flattened_mut() {
                    *x = from.f32()?;
                }
                quad.color = [from.u8()?, from.u8()?, from.u8()?];
                quads.push(quad);
            }
        }
        let (bodies, grounds) = (loaded.world.bodies().len(), loaded.world.grounds().len());
        if ![0, FIRST_WHEEL + 4].contains(&bodies) || grounds != loaded.tiles.len() {
            let found = format!("{bodies} bodies on {grounds} tiles, {} quadrilaterals", loaded.tiles.len());
            return Err(EnvError::State { expected: "a car on a road".into(), found });
        }
        loaded.border_after = loaded.borders.iter().map(|_| from.u32()).collect::<Result<_, _>>()?;
        loaded.visited = loaded.tiles.iter().map(|_| from.bool()).collect::<Result<_, _>>()?;
        loaded.visited_count = from.u32()?;
        loaded.lap_complete = from.bool()?;
        [loaded.reward, loaded.last_reward, loaded.time] = [from.f64()?, from.f64()?, from.f64()?];
        for x in loaded.colors.as_flattened_mut() {
            *x = from.f64()?;
        }
        loaded.skids.clear();
        for _ in 0..count(from, SKIDS, "skid marks")? {
            loaded.skids.push([from.f32()?, from.f32()?, from.f32()?, from.f32()?]);
        }
        loaded.next_skid = from.u32()? as usize % SKIDS;
        *self = loaded;
        Ok(())
    }

    fn render(&self) -> Option<Frame> {
        Some(self.picture())
    }
}
