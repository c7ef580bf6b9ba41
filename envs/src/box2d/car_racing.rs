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

use std::cell::RefCell;
use std::f64::consts::PI;
use std::io::Write;

use super::car::{Car, FIRST_WHEEL, HULL_BODY};
use super::physics::{GroundShape, Material, Polygon, TimeStep, Vec2, World};
use super::raster::{self, Raster, Rgb, Rule};
use crate::render::{self, Canvas, Color, Fill};
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
const TRACK_RAD: f64 = 900.0 / SCALE;
const PLAYFIELD: f64 = 2000.0 / SCALE;
const ZOOM: f64 = 2.7;
const CHECKPOINTS: usize = 12;
const TRACK_DETAIL_STEP: f64 = 21.0 / SCALE;
const TRACK_TURN_RATE: f64 = 0.31;
const TRACK_WIDTH: f64 = 40.0 / SCALE;
const BORDER: f64 = 8.0 / SCALE;
const BORDER_MIN_COUNT: usize = 4;
const GRASS_DIM: f64 = PLAYFIELD / 20.0;
/// Road, ground and patches of grass, unless they are random.
const COLORS: [[f64; 3]; 3] = [[102., 102., 102.], [102., 204., 102.], [102., 230., 102.]];
const BLACK: Rgb = [0; 3];
const WHITE: Rgb = [255; 3];
const RED: Rgb = [255, 0, 0];
const HULL_COLOR: Rgb = [204, 0, 0];
const STRIP_COLOR: Rgb = [77; 3];

/// A point of the track's middle: direction from the centre, heading, and place.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct TrackPoint {
    alpha: f64,
    beta: f64,
    at: [f64; 2],
}

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

fn sign(x: f64) -> f64 {
    if x == 0.0 { 0.0 } else { x.signum() }
}

/// The track that starts from random checkpoints, closed; `None` if it does not close: then others are drawn.
fn random_track(rng: &mut NpRng) -> Option<Vec<TrackPoint>> {
    let n = CHECKPOINTS as f64;
    let mut checkpoints = [(0.0, 0.0, 0.0); CHECKPOINTS];
    let start_alpha = 2.0 * PI * -0.5 / n;
    for (c, checkpoint) in checkpoints.iter_mut().enumerate() {
        let noise = rng.uniform(0.0, 2.0 * PI * 1.0 / n);
        let mut alpha = 2.0 * PI * c as f64 / n + noise;
        let mut radius = rng.uniform(TRACK_RAD / 3.0, TRACK_RAD);
        if c == 0 {
            (alpha, radius) = (0.0, 1.5 * TRACK_RAD);
        }
        if c == CHECKPOINTS - 1 {
            (alpha, radius) = (2.0 * PI * c as f64 / n, 1.5 * TRACK_RAD);
        }
        *checkpoint = (alpha, radius * alpha.cos(), radius * alpha.sin());
    }

    // Head for one checkpoint after the other, five times around.
    let ([mut x, mut y], mut beta) = ([1.5 * TRACK_RAD, 0.0], 0.0f64);
    let (mut next, mut laps, mut other_side) = (0, 0, false);
    let mut track: Vec<TrackPoint> = Vec::new();
    for _ in 0..2500 {
        let mut alpha = y.atan2(x);
        if other_side && alpha > 0.0 {
            laps += 1;
            other_side = false;
        }
        if alpha < 0.0 {
            other_side = true;
            alpha += 2.0 * PI;
        }
        let (goal_x, goal_y) = 'found: loop {
            loop {
                let (goal_alpha, goal_x, goal_y) = checkpoints[next % CHECKPOINTS];
                if alpha <= goal_alpha {
                    break 'found (goal_x, goal_y);
                }
                next += 1;
                if next % CHECKPOINTS == 0 {
                    break;
                }
            }
            alpha -= 2.0 * PI;
        };
        let (cos, sin) = (beta.cos(), beta.sin());
        let mut off = cos * (goal_x - x) + sin * (goal_y - y);
        while beta - alpha > 1.5 * PI {
            beta -= 2.0 * PI;
        }
        while beta - alpha < -1.5 * PI {
            beta += 2.0 * PI;
        }
        let last_beta = beta;
        off *= SCALE;
        let turn = TRACK_TURN_RATE.min((0.001 * off).abs());
        if off > 0.3 {
            beta -= turn;
        }
        if off < -0.3 {
            beta += turn;
        }
        x += -sin * TRACK_DETAIL_STEP;
        y += cos * TRACK_DETAIL_STEP;
        track.push(TrackPoint { alpha, beta: last_beta * 0.5 + beta * 0.5, at: [x, y] });
        if laps > 4 {
            break;
        }
    }

    // The last whole lap, from where it passes the start.
    let passes = |i: &usize| track[*i].alpha > start_alpha && track[*i - 1].alpha <= start_alpha;
    let mut passing = (1..track.len()).rev().filter(passes);
    let (end, begin) = (passing.next()?, passing.next()?);
    let track = track[begin..end - 1].to_vec();
    let (first, last) = (track[0], track[track.len() - 1]);
    let gap = [first.beta.cos() * (first.at[0] - last.at[0]), first.beta.sin() * (first.at[1] - last.at[1])];
    let glued = (gap[0] * gap[0] + gap[1] * gap[1]).sqrt() <= TRACK_DETAIL_STEP;
    glued.then_some(track)
}

/// Which tiles have a border: those of hard turns to one side.
fn hard_turns(track: &[TrackPoint]) -> Vec<bool> {
    let len = track.len();
    let before = |i: usize, steps: usize| (i + len - steps) % len;
    let turn = |i: usize| track[i].beta - track[before(i, 1)].beta;
    let mut border: Vec<bool> = (0..len)
        .map(|i| {
            let turns: [f64; BORDER_MIN_COUNT] = std::array::from_fn(|steps| turn(before(i, steps)));
            let one_side: f64 = turns.iter().map(|t| sign(*t)).sum();
            turns.iter().all(|t| t.abs() > TRACK_TURN_RATE * 0.2) && one_side.abs() == BORDER_MIN_COUNT as f64
        })
        .collect();
    for i in 0..len {
        for steps in 0..BORDER_MIN_COUNT {
            let marked = border[i];
            border[before(i, steps)] |= marked;
        }
    }
    border
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

    /// Paints what Gymnasium paints, on its large picture.
    fn paint(&self, raster: &mut Raster) {
        const HALF_WIDTH: f64 = raster::WIDTH as f64 / 2.0;
        const QUARTER_HEIGHT: f64 = raster::HEIGHT as f64 / 4.0;
        /// The corner of the picture that is furthest from the car.
        const REACH: f64 = 790.0;
        raster.clear();
        let hull = &self.world.bodies()[HULL_BODY];
        let (sin, cos) = (-f64::from(hull.angle())).sin_cos();
        let zoom = 0.1 * SCALE * (1.0 - self.time).max(0.0) + ZOOM * SCALE * self.time.min(1.0);
        let center = [f64::from(hull.position().x), f64::from(hull.position().y)];
        let shift = [-center[0] * zoom, -center[1] * zoom];
        let shift = [HALF_WIDTH + shift[0] * cos - shift[1] * sin, QUARTER_HEIGHT + shift[0] * sin + shift[1] * cos];
        // The picture is upside down until it is complete.
        let project = |[x, y]: [f64; 2]| {
            let (x, y) = (x * cos - y * sin, x * sin + y * cos);
            [(x * zoom + shift[0]) as i32, (y * zoom + shift[1]) as i32]
        };
        let near = |[x, y]: [f64; 2], radius: f64| {
            let (dx, dy, reach) = (x - center[0], y - center[1], REACH / zoom + radius);
            dx * dx + dy * dy <= reach * reach
        };
        raster.flipped = true;
        let p = PLAYFIELD;
        let [ground, grass] = [1, 2].map(|i| self.colors[i].map(|c| c as u8));
        raster.polygon(&[[p, p], [p, -p], [-p, -p], [-p, p]].map(project), ground, Rule::Gfx);
        for x in (-20..20).step_by(2) {
            for y in (-20..20).step_by(2) {
                let [left, bottom] = [x, y].map(|i| GRASS_DIM * f64::from(i));
                let (right, top) = (left + GRASS_DIM, bottom + GRASS_DIM);
                if near([left + GRASS_DIM / 2.0, bottom + GRASS_DIM / 2.0], 0.71 * GRASS_DIM) {
                    let corners = [[right, bottom], [left, bottom], [left, top], [right, top]];
                    raster.polygon(&corners.map(project), grass, Rule::Gfx);
                }
            }
        }
        for quad in self.quads() {
            let corners = quad.corners.map(|c| c.map(f64::from));
            if near(corners[0], 2.5 * TRACK_WIDTH) {
                raster.polygon(&corners.map(project), quad.color, Rule::Gfx);
            }
        }

        let project = |v: Vec2| project([f64::from(v.x), f64::from(v.y)]);
        for (i, body) in self.world.bodies().iter().enumerate().skip(FIRST_WHEEL).chain([(HULL_BODY, hull)]) {
            let color = if i == HULL_BODY { HULL_COLOR } else { BLACK };
            for fixture in self.world.fixtures().iter().filter(|f| f.body == i) {
                let mut corners = [[0; 2]; 8];
                let vertices = fixture.polygon.vertices();
                corners.iter_mut().zip(vertices).for_each(|(to, v)| *to = project(body.world_point(*v)));
                raster.polygon(&corners[..vertices.len()], color, Rule::Draw);
            }
            let strip = (i != HULL_BODY).then(|| self.car.strip(i - FIRST_WHEEL, body)).flatten();
            if let Some(strip) = strip {
                raster.polygon(&strip.map(project), STRIP_COLOR, Rule::Draw);
            }
        }
        raster.flipped = false;
        self.paint_indicators(raster);
    }

    fn paint_indicators(&self, raster: &mut Raster) {
        const W: f64 = raster::WIDTH as f64;
        const H: f64 = raster::HEIGHT as f64;
        const UNIT_X: f64 = W / 40.0;
        const UNIT_Y: f64 = H / 40.0;
        let mut rectangle = |x0: f64, y0: f64, x1: f64, y1: f64, color: Rgb| {
            let corners = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]].map(|c| c.map(|x| x as i32));
            raster.polygon(&corners, color, Rule::Draw);
        };
        rectangle(0.0, H - 5.0 * UNIT_Y, W, H, BLACK);
        let mut vertical = |place: f64, value: f64, share: f64, color: Rgb| {
            if value.abs() > 1e-4 {
                let top = H - (UNIT_Y + UNIT_Y * (share * value));
                rectangle(place * UNIT_X, top, (place + 1.0) * UNIT_X, H - UNIT_Y, color);
            }
        };
        let hull = &self.world.bodies()[HULL_BODY];
        let [vx, vy] = [hull.velocity().x, hull.velocity().y].map(f64::from);
        vertical(5.0, (vx * vx + vy * vy).sqrt(), 0.02, WHITE);
        let front = [0, 0, 255];
        for (wheel, (place, color)) in
            self.car.wheels.iter().zip([(7.0, front), (8.0, front), (9.0, [51, 0, 255]), (10.0, [51, 0, 255])])
        {
            vertical(place, wheel.omega, 0.01, color);
        }
        let mut horizontal = |place: f64, value: f64, share: f64, color: Rgb| {
            if value.abs() > 1e-4 {
                let end = (place + share * value) * UNIT_X;
                rectangle(place * UNIT_X, H - 4.0 * UNIT_Y, end, H - 2.0 * UNIT_Y, color);
            }
        };
        horizontal(20.0, self.world.joint_angle(0).into(), -10.0, [0, 255, 0]);
        horizontal(30.0, hull.angular_velocity().into(), -0.8, RED);
        self.paint_reward(raster);
    }

    /// The reward so far, rounded to a whole number, in four numerals or more.
    fn paint_reward(&self, raster: &mut Raster) {
        let mut text = [0u8; 24];
        let mut rest = &mut text[..];
        // More than fits is cut off.
        let _ = write!(rest, "{:04.0}", self.reward);
        let unused = rest.len();
        let text = &text[..text.len() - unused];
        let pitch = |c: &u8| if *c == b'-' { MINUS_PITCH } else { NUMERAL_PITCH };
        let mut x = 60 - text.iter().map(pitch).sum::<i32>() / 2;
        for c in text {
            let pieces = if *c == b'-' { &MINUS[..] } else { NUMERALS[usize::from(c.wrapping_sub(b'0') % 10)] };
            for (color, corners) in pieces {
                let corners = corners.map(|[a, b]| [x + a, 729 + b]);
                raster.polygon(&corners, *color, Rule::Draw);
            }
            x += pitch(c);
        }
    }
}

/// A part of a numeral: colour and corners, in pixels.
type Piece = (Rgb, [[i32; 2]; 8]);

/// A rectangle without its corners.
const fn round(color: Rgb, [x0, y0, x1, y1]: [i32; 4], cut: i32) -> Piece {
    let corners = [
        [x0 + cut, y0],
        [x1 - cut, y0],
        [x1, y0 + cut],
        [x1, y1 - cut],
        [x1 - cut, y1],
        [x0 + cut, y1],
        [x0, y1 - cut],
        [x0, y0 + cut],
    ];
    (color, corners)
}

const fn bar(rectangle: [i32; 4]) -> Piece {
    round(WHITE, rectangle, 0)
}

const fn quad([a, b, c, d]: [[i32; 2]; 4]) -> Piece {
    (WHITE, [a, a, b, b, c, c, d, d])
}

/// Numerals of white parts, some with black holes.
const NUMERALS: [&[Piece]; 10] = [
    &[round(WHITE, [1, 2, 21, 33], 6), round(BLACK, [7, 7, 15, 28], 3)],
    &[bar([10, 4, 15, 33]), quad([[3, 10], [10, 6], [10, 14], [3, 14]])],
    &[
        round(WHITE, [1, 4, 21, 20], 5),
        round(BLACK, [7, 9, 15, 15], 2),
        round(BLACK, [0, 14, 12, 22], 0),
        quad([[15, 16], [21, 17], [9, 28], [2, 28]]),
        bar([1, 28, 21, 33]),
    ],
    &[
        round(WHITE, [2, 2, 20, 18], 5),
        round(WHITE, [1, 15, 21, 33], 5),
        round(BLACK, [7, 7, 14, 14], 2),
        round(BLACK, [7, 20, 15, 28], 2),
        round(BLACK, [0, 11, 7, 23], 0),
    ],
    &[bar([13, 4, 18, 33]), bar([1, 21, 21, 26]), quad([[13, 4], [13, 11], [7, 21], [1, 21]])],
    &[
        round(WHITE, [1, 14, 21, 33], 5),
        bar([3, 4, 8, 18]),
        bar([4, 4, 19, 9]),
        round(BLACK, [7, 19, 15, 28], 2),
        round(BLACK, [0, 20, 7, 24], 0),
    ],
    &[
        round(WHITE, [1, 2, 21, 33], 6),
        round(BLACK, [7, 19, 15, 28], 2),
        round(BLACK, [7, 7, 15, 14], 2),
        round(BLACK, [15, 10, 21, 14], 0),
    ],
    &[bar([1, 4, 21, 9]), quad([[15, 9], [21, 9], [13, 33], [7, 33]])],
    &[
        round(WHITE, [2, 2, 20, 18], 5),
        round(WHITE, [1, 15, 21, 33], 5),
        round(BLACK, [8, 7, 14, 13], 2),
        round(BLACK, [7, 20, 15, 28], 2),
    ],
    &[
        round(WHITE, [1, 3, 21, 34], 6),
        round(BLACK, [7, 8, 15, 17], 2),
        round(BLACK, [7, 22, 15, 29], 2),
        round(BLACK, [1, 22, 7, 26], 0),
    ],
];
const NUMERAL_PITCH: i32 = 25;
const MINUS: [Piece; 1] = [bar([1, 19, 12, 24])];
const MINUS_PITCH: i32 = 15;

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
        const SIZE: (u32, u32) = (600, 400);
        let zoom = 0.1 * SCALE * (1.0 - self.time).max(0.0) + ZOOM * SCALE * self.time.min(1.0);
        let scale = (0.6 * zoom) as f32;
        // The car looks up from the middle of the lower half.
        let mut canvas = Canvas::new(SIZE.0, SIZE.1, (0.0, 100.0 / scale), scale);
        let Some(hull) = self.world.bodies().first() else { return Some(canvas.into_frame()) };
        let (origin, reach) = (hull.position(), 420.0 / scale);
        let local = move |[x, y]: [f32; 2]| (x - origin.x, y - origin.y);
        canvas.at((0.0, 0.0), -hull.angle(), |c| {
            self.draw_field(c, local, reach);
            self.draw_road(c, local, reach);
            for &[x0, y0, x1, y1] in &self.skids {
                c.line(&[local([x0, y0]), local([x1, y1])], 0.35, SKID_MARK);
            }
            self.draw_car(c, local);
        });
        let mut panel = Canvas::over(canvas, (300.0, 200.0), 1.0);
        self.draw_panel(&mut panel);
        Some(panel.into_frame())
    }
}

const SKID_MARK: Color = Color::hex(0x7E8A93);
const FIELD: Color = Color::hex(0xBBD8BE);
const FIELD_PATCH: Color = Color::hex(0xC6E0C7);
const ROAD: Color = Color::hex(0x66718A);
const ROAD_VISITED: Color = Color::hex(0x57627C);

fn color([r, g, b]: [f64; 3]) -> Color {
    Color::hex(u32::from_be_bytes([0, r as u8, g as u8, b as u8]))
}

impl CarRacing {
    fn draw_field(&self, c: &mut Canvas, local: impl Fn([f32; 2]) -> (f32, f32), reach: f32) {
        let [_, ground, grass] = self.colors.map(color);
        let [ground, grass] = if self.domain_randomize { [ground, grass] } else { [FIELD, FIELD_PATCH] };
        let p = PLAYFIELD as f32;
        c.polygon(&[[p, p], [p, -p], [-p, -p], [-p, p]].map(&local), ground);
        let cell = GRASS_DIM as f32;
        for x in (-20..20).step_by(2) {
            for y in (-20..20).step_by(2) {
                let (x, y) = local([x, y].map(|i| cell * i as f32));
                if (x + cell / 2.0).hypot(y + cell / 2.0) < reach + cell {
                    c.rect((x, y), (x + cell, y + cell), 1.2, grass);
                }
            }
        }
    }

    fn draw_road(&self, c: &mut Canvas, local: impl Fn([f32; 2]) -> (f32, f32), reach: f32) {
        let near = |quad: &Quad| {
            let (x, y) = local(quad.corners[0]);
            x.hypot(y) < reach + 2.0 * TRACK_WIDTH as f32
        };
        let road = color(self.colors[0]);
        for (i, tile) in self.tiles.iter().enumerate().filter(|(_, tile)| near(tile)) {
            let [a, b, d, e] = tile.corners.map(&local);
            let fill = match (self.domain_randomize, self.visited[i]) {
                (true, _) => road,
                (false, visited) => {
                    if visited {
                        ROAD_VISITED
                    } else {
                        ROAD
                    }
                }
            };
            c.polygon(&[a, b, d, e], fill);
            // Close the seams, which are anti-aliased, and draw the edges.
            c.line(&[e, d], 0.12, fill);
            c.line(&[a, e], 0.3, render::LIGHT);
            c.line(&[b, d], 0.3, render::LIGHT);
            if i == 0 {
                c.line(&[a, b], 0.8, render::GREEN);
            } else if i % 4 < 2 {
                let middle = |(x0, y0): (f32, f32), (x1, y1): (f32, f32)| (0.5 * (x0 + x1), 0.5 * (y0 + y1));
                c.line(&[middle(a, b), middle(e, d)], 0.18, render::LIGHT.alpha(140));
            }
        }
        for border in self.borders.iter().filter(|border| near(border)) {
            let fill = if border.color == WHITE { render::LIGHT } else { render::ORANGE };
            c.polygon(&border.corners.map(&local), fill);
        }
    }

    fn draw_car(&self, c: &mut Canvas, local: impl Fn([f32; 2]) -> (f32, f32)) {
        let local = |v: Vec2| local([v.x, v.y]);
        let bodies = self.world.bodies();
        let outline = |fixture: &super::physics::Fixture, shift: Vec2| -> Vec<(f32, f32)> {
            let place = |v: &Vec2| local(bodies[fixture.body].world_point(*v) + shift);
            fixture.polygon.vertices().iter().map(place).collect()
        };
        for fixture in self.world.fixtures() {
            c.polygon(&outline(fixture, Vec2::from([0.3, -0.3])), render::SHADOW);
        }
        for (i, body) in bodies.iter().enumerate().skip(FIRST_WHEEL) {
            for fixture in self.world.fixtures().iter().filter(|f| f.body == i) {
                c.polygon(&outline(fixture, Vec2::ZERO), render::INK);
            }
            if let Some(strip) = self.car.strip(i - FIRST_WHEEL, body) {
                c.polygon(&strip.map(local), render::MUTED.alpha(150));
            }
        }
        let hull = &bodies[HULL_BODY];
        for (i, fixture) in self.world.fixtures().iter().filter(|f| f.body == HULL_BODY).enumerate() {
            // The wings at both ends, and the body between them.
            c.polygon(
                &outline(fixture, Vec2::ZERO),
                [render::ORANGE, render::BLUE_LIGHT, render::BLUE, render::ORANGE][i % 4],
            );
        }
        let at = |x: f64, y: f64| local(hull.world_point(Vec2::from([x, y])));
        c.line(&[at(0.0, 2.2), at(0.0, 0.6)], 0.16, render::LIGHT);
        c.circle(at(0.0, -0.55), 0.42, render::INK);
        c.circle(at(0.0, -0.55), 0.27, render::ORANGE_LIGHT);
    }

    /// Speed, wheels, steering and gyroscope, in pixels from the lower left corner.
    fn draw_panel(&self, c: &mut Canvas) {
        c.rect((14.0, 14.0), (250.0, 66.0), 10.0, render::INK.alpha(215));
        let hull = &self.world.bodies()[HULL_BODY];
        let speed = hull.velocity().x.hypot(hull.velocity().y);
        let column = |c: &mut Canvas, x: f32, share: f32, fill: Fill| {
            c.rect((x, 22.0), (x + 10.0, 58.0), 3.0, render::INK_LIGHT);
            c.rect((x, 22.0), (x + 10.0, 22.0 + 36.0 * share.clamp(0.05, 1.0)), 3.0, fill);
        };
        column(c, 26.0, speed / 100.0, render::LIGHT.into());
        for (i, wheel) in self.car.wheels.iter().enumerate() {
            let share = wheel.omega.abs() as f32 / 200.0;
            column(c, 46.0 + 14.0 * i as f32, share, render::BLUE_LIGHT.into());
        }
        let row = |c: &mut Canvas, y: f32, share: f32, fill: Color| {
            c.rect((116.0, y), (236.0, y + 10.0), 4.0, render::INK_LIGHT);
            let end = 176.0 + 60.0 * share.clamp(-1.0, 1.0);
            c.rect((end.min(176.0) - 2.0, y), (end.max(176.0) + 2.0, y + 10.0), 2.0, fill);
        };
        row(c, 44.0, -self.world.joint_angle(0) / 0.42, render::GREEN);
        row(c, 26.0, -hull.angular_velocity() / 5.0, render::ORANGE_LIGHT);
    }
}
