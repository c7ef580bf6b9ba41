//! MinAtar Breakout: keep a ball in play with a paddle and break bricks with it.
//!
//! # Description
//! The ball moves one cell diagonally a step. Walls, ceiling, bricks and paddle reflect it; when three rows of bricks
//! are broken, a new wall stands the next time the ball comes down to the paddle.
//!
//! # Observation space
//! `Box(0, 1, [10, 10, 4], u8)`: paddle, ball, trail (where the ball was), bricks.
//!
//! # Action space
//! `Discrete(3)`: noop, left, right.
//!
//! # Rewards
//! 1 for a broken brick.
//!
//! # Start state
//! The ball in the fourth row at the left or the right side, with equal chance, on its way down to the middle.
//!
//! # End of episode
//! Terminated when the ball passes the paddle.
//!
//! # Options
//! Those of [`super`]; there are no levels of difficulty.
//!
//! # Source
//! Young and Tian, 2019; rules of `minatar` 1.0.15.

use super::{ALL_CONTROLS, Action, Board, Channel, Draws, Game, MinAtar, SIDE, Shape, cell, read, read_board};
use crate::render::{BLUE, LIGHT, ORANGE};
use crate::{Controls, EnvError, EnvSpec, Key, StateReader, StateWriter};

/// Registry entry.
pub const SPEC: EnvSpec = EnvSpec {
    id: "MinAtar/Breakout-v1",
    summary: "break bricks with a ball",
    max_episode_steps: None,
    reward_threshold: None,
    render_fps: 15,
    controls: &[
        ALL_CONTROLS,
        Controls { idle: Some(&[0.0]), keys: &[(Key::Left, &[(0, 1.0)], "left"), (Key::Right, &[(0, 2.0)], "right")] },
    ],
    make: |options| Ok(Box::new(MinAtar::<Breakout, 4>::new(options)?)),
    make_batch: None,
};

/// Three rows of bricks below the first row.
const WALL: Board = ((1 << (3 * SIDE)) - 1) << SIDE;
const PADDLE_ROW: i32 = SIDE - 1;

#[derive(Default)]
pub(super) struct Breakout {
    paddle: i32,
    ball: (i32, i32),
    trail: (i32, i32),
    /// Direction of flight, each -1 or 1; `y` points down.
    velocity: (i32, i32),
    bricks: Board,
    /// The ball met a brick in the last step. It flies through bricks until it meets none.
    struck: bool,
}

impl Game<4> for Breakout {
    const CHANNELS: [Channel; 4] = [
        Channel { color: BLUE, shape: Shape::Block },
        Channel { color: LIGHT, shape: Shape::Disk },
        Channel { color: LIGHT.alpha(90), shape: Shape::Trail },
        Channel { color: ORANGE, shape: Shape::Block },
    ];
    const ACTIONS: &'static [Action] = &[Action::Noop, Action::Left, Action::Right];

    fn start(&mut self, draws: &mut impl Draws) {
        let from_left = draws.below(2) == 0;
        let x = if from_left { 0 } else { SIDE - 1 };
        *self = Self {
            paddle: 4,
            ball: (x, 3),
            trail: (x, 3),
            velocity: (if from_left { 1 } else { -1 }, 1),
            bricks: WALL,
            struck: false,
        };
    }

    fn step(&mut self, action: Action, _ramping: bool, _draws: &mut impl Draws) -> (i32, bool) {
        match action {
            Action::Left => self.paddle = (self.paddle - 1).max(0),
            Action::Right => self.paddle = (self.paddle + 1).min(SIDE - 1),
            _ => {}
        }
        self.trail = self.ball;
        let (from_x, from_y) = self.ball;
        let (dx, dy) = &mut self.velocity;
        let mut x = from_x + *dx;
        if !(0..SIDE).contains(&x) {
            x = from_x;
            *dx = -*dx;
        }
        let mut y = (from_y + *dy).min(PADDLE_ROW);
        let (mut reward, mut missed, mut meets_brick) = (0, false, false);
        if y < 0 {
            y = 0;
            *dy = -*dy;
        } else if self.bricks & cell(x, y) != 0 {
            meets_brick = true;
            if !self.struck {
                self.bricks ^= cell(x, y);
                reward = 1;
                y = from_y;
                *dy = -*dy;
            }
        } else if y == PADDLE_ROW {
            if self.bricks == 0 {
                self.bricks = WALL;
            }
            // From straight above, the paddle sends the ball on; met with its edge, back where it came from.
            missed = self.paddle != from_x && self.paddle != x;
            if !missed {
                y = from_y;
                *dy = -*dy;
                if self.paddle != from_x {
                    *dx = -*dx;
                }
            }
        }
        self.struck = meets_brick;
        self.ball = (x, y);
        (reward, missed)
    }

    fn planes(&self) -> [Board; 4] {
        let at = |(x, y)| cell(x, y);
        [cell(self.paddle, PADDLE_ROW), at(self.ball), at(self.trail), self.bricks]
    }

    fn save(&self, to: &mut StateWriter) {
        let [ball, trail, velocity] = [self.ball, self.trail, self.velocity];
        [self.paddle, ball.0, ball.1, trail.0, trail.1, velocity.0, velocity.1].into_iter().for_each(|x| to.i32(x));
        to.u128(self.bricks);
        to.bool(self.struck);
    }

    fn load(&mut self, from: &mut StateReader<'_>) -> Result<(), EnvError> {
        let mut coordinate = |what| read(from, 0..=SIDE - 1, what);
        self.paddle = coordinate("a paddle's column")?;
        self.ball = (coordinate("a ball's column")?, coordinate("a ball's row")?);
        self.trail = (coordinate("a trail's column")?, coordinate("a trail's row")?);
        for speed in [&mut self.velocity.0, &mut self.velocity.1] {
            *speed = if read(from, -1..=1, "a ball's velocity")? < 0 { -1 } else { 1 };
        }
        self.bricks = read_board(from)?;
        self.struck = from.bool()?;
        Ok(())
    }
}
