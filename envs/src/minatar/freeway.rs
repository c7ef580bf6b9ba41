//! MinAtar Freeway: bring a chicken across eight lanes of traffic, again and again.
//!
//! # Description
//! The chicken starts at the bottom and can take one step in three frames. A car that meets it sends it back to the
//! bottom. Each lane has one car, which comes in again on the other side; all get new speeds and directions when the
//! chicken arrives.
//!
//! # Observation space
//! `Box(0, 1, [10, 10, 7], u8)`: chicken, cars, and five channels with the cell behind a car, one for each speed (a cell
//! in 1 to 5 frames, and one for the pause of a frame each).
//!
//! # Action space
//! `Discrete(3)`: noop, up, down.
//!
//! # Rewards
//! 1 when the chicken reaches the top, from where it starts again at the bottom.
//!
//! # Start state
//! The chicken at the bottom, all cars at the left with random speeds (uniform from 1 to 5) and directions.
//!
//! # End of episode
//! Terminated after 2501 steps: the time is a part of the game.
//!
//! # Options
//! Those of [`super`]; there are no levels of difficulty.
//!
//! # Source
//! Young and Tian, 2019; rules of `minatar` 1.0.15.

use super::{ALL_CONTROLS, Action, Board, Channel, Draws, Game, MinAtar, SIDE, Shape, ahead, cell, read};
use crate::render::{Color, GREEN, ORANGE, VIOLET};
use crate::{Controls, EnvError, EnvSpec, Key, StateReader, StateWriter};

/// Registry entry.
pub const SPEC: EnvSpec = EnvSpec {
    id: "MinAtar/Freeway-v1",
    summary: "cross a road with eight lanes",
    max_episode_steps: None,
    reward_threshold: None,
    render_fps: 15,
    controls: &[
        ALL_CONTROLS,
        Controls { idle: Some(&[0.0]), keys: &[(Key::Up, &[(0, 1.0)], "up"), (Key::Down, &[(0, 2.0)], "down")] },
    ],
    make: |options| Ok(Box::new(MinAtar::<Freeway, 7>::new(options)?)),
    make_batch: None,
};

const LANES: usize = 8;
const START_ROW: i32 = SIDE - 1;
/// The chicken's column.
const CROSSING: i32 = 4;
const STEP_INTERVAL: i32 = 3;
const FRAMES: i32 = 2500;
const SLOWEST: i32 = 5;

#[derive(Clone, Copy, Default)]
struct Car {
    x: i32,
    heads_right: bool,
    /// Pauses of a frame between two moves.
    interval: i32,
    timer: i32,
}

#[derive(Default)]
pub(super) struct Freeway {
    /// The chicken's row.
    row: i32,
    step_timer: i32,
    frames_left: i32,
    /// The car of row `i + 1`.
    cars: [Car; LANES],
}

impl Freeway {
    /// New speeds, then new directions.
    fn redraw_cars(&mut self, draws: &mut impl Draws) {
        for car in &mut self.cars {
            car.interval = 1 + draws.below(SLOWEST);
            car.timer = car.interval;
        }
        for car in &mut self.cars {
            car.heads_right = !draws.coin();
        }
    }
}

impl Game<7> for Freeway {
    const CHANNELS: [Channel; 7] = {
        const fn trail(alpha: u8) -> Channel {
            Channel { color: Color::alpha(VIOLET, alpha), shape: Shape::Trail }
        }
        [
            Channel { color: GREEN, shape: Shape::Disk },
            Channel { color: ORANGE, shape: Shape::Block },
            // The faster, the brighter.
            trail(255),
            trail(210),
            trail(165),
            trail(120),
            trail(75),
        ]
    };
    const ACTIONS: &'static [Action] = &[Action::Noop, Action::Up, Action::Down];

    fn start(&mut self, draws: &mut impl Draws) {
        *self = Self { row: START_ROW, step_timer: STEP_INTERVAL, frames_left: FRAMES, cars: [Car::default(); LANES] };
        self.redraw_cars(draws);
    }

    fn step(&mut self, action: Action, _ramping: bool, draws: &mut impl Draws) -> (i32, bool) {
        if self.step_timer == 0 && matches!(action, Action::Up | Action::Down) {
            self.step_timer = STEP_INTERVAL;
            self.row = (self.row + if action == Action::Up { -1 } else { 1 }).min(START_ROW);
        }
        let arrived = self.row == 0;
        if arrived {
            self.redraw_cars(draws);
            self.row = START_ROW;
        }
        for (lane, car) in (1..).zip(&mut self.cars) {
            let mut hits = car.x == CROSSING;
            if car.timer == 0 {
                car.timer = car.interval;
                car.x = ahead(car.x, car.heads_right).rem_euclid(SIDE);
                hits |= car.x == CROSSING;
            } else {
                car.timer -= 1;
            }
            if hits && lane == self.row {
                self.row = START_ROW;
            }
        }
        self.step_timer = (self.step_timer - 1).max(0);
        self.frames_left -= 1;
        (i32::from(arrived), self.frames_left < 0)
    }

    fn planes(&self) -> [Board; 7] {
        let mut planes = [0; 7];
        planes[0] = cell(CROSSING, self.row);
        for (y, car) in (1..).zip(&self.cars) {
            planes[1] |= cell(car.x, y);
            planes[1 + car.interval as usize] |= cell(ahead(car.x, !car.heads_right).rem_euclid(SIDE), y);
        }
        planes
    }

    fn save(&self, to: &mut StateWriter) {
        [self.row, self.step_timer, self.frames_left].into_iter().for_each(|x| to.i32(x));
        for car in &self.cars {
            [car.x, car.interval, car.timer].into_iter().for_each(|x| to.i32(x));
            to.bool(car.heads_right);
        }
    }

    fn load(&mut self, from: &mut StateReader<'_>) -> Result<(), EnvError> {
        self.row = read(from, 1..=START_ROW, "a row")?;
        self.step_timer = read(from, 0..=STEP_INTERVAL, "frames")?;
        self.frames_left = read(from, -1..=FRAMES, "frames")?;
        for car in &mut self.cars {
            car.x = read(from, 0..=SIDE - 1, "a column")?;
            car.interval = read(from, 1..=SLOWEST, "frames")?;
            car.timer = read(from, 0..=SLOWEST, "frames")?;
            car.heads_right = from.bool()?;
        }
        Ok(())
    }
}
