//! MinAtar Space Invaders: shoot the aliens that march down before they or their shots reach the cannon.
//!
//! # Description
//! A block of aliens marches sideways; at the side wall it comes down a row and turns. The fewer are left, the faster
//! they march. The one nearest to the cannon shoots. A cleared wave is followed by the next.
//!
//! # Observation space
//! `Box(0, 1, [10, 10, 6], u8)`: cannon, aliens, aliens while they march left, aliens while they march right, the
//! player's shots, the aliens' shots.
//!
//! # Action space
//! `Discrete(4)`: noop, left, right, fire.
//!
//! # Rewards
//! 1 for an alien that is hit.
//!
//! # Start state
//! Four rows of six aliens, marching left; the cannon right of the middle. Always the same.
//!
//! # End of episode
//! Terminated when an alien or a shot reaches the cannon, or the aliens turn while one is in the last row.
//!
//! # Options
//! Those of [`super`]. With ramping, each wave marches a step faster, from 12 steps a move down to 6.
//!
//! # Source
//! Young and Tian, 2019; rules of `minatar` 1.0.15.

use super::{ALL_CONTROLS, Action, Board, CELLS, Channel, Draws, Game, MinAtar, SIDE, Shape, cell, read, read_board};
use crate::render::{BLUE, GREEN, ORANGE, VIOLET};
use crate::{Controls, EnvError, EnvSpec, Key, StateReader, StateWriter};

/// Registry entry.
pub const SPEC: EnvSpec = EnvSpec {
    id: "MinAtar/SpaceInvaders-v1",
    summary: "shoot aliens that march down",
    max_episode_steps: None,
    reward_threshold: None,
    render_fps: 15,
    controls: &[
        ALL_CONTROLS,
        Controls {
            idle: Some(&[0.0]),
            keys: &[
                (Key::Left, &[(0, 1.0)], "left"),
                (Key::Right, &[(0, 2.0)], "right"),
                (Key::Space, &[(0, 3.0)], "fire"),
            ],
        },
    ],
    make: |options| Ok(Box::new(MinAtar::<SpaceInvaders, 6>::new(options)?)),
    make_batch: None,
};

const ROW: Board = (1 << SIDE) - 1;
const BOARD: Board = (1 << CELLS) - 1;
/// The leftmost column.
const COLUMN: Board = BOARD / ROW;
/// Columns 2 to 7 of the first four rows.
const WAVE: Board = (((1 << 6) - 1) << 2) * (COLUMN & ((1 << (4 * SIDE)) - 1));
const CANNON_ROW: i32 = SIDE - 1;
const LAST_ROW: Board = ROW << (SIDE * CANNON_ROW);

const RELOAD: i32 = 5;
const ALIEN_RELOAD: i32 = 10;
const SLOWEST_MARCH: i32 = 12;
const FASTEST_RAMP: i32 = 6;

#[derive(Default)]
pub(super) struct SpaceInvaders {
    /// The cannon's column.
    cannon: i32,
    reload_timer: i32,
    shots: Board,
    aliens: Board,
    marches_right: bool,
    march_interval: i32,
    march_timer: i32,
    alien_shots: Board,
    alien_reload_timer: i32,
}

impl SpaceInvaders {
    /// Sideways, or down and around at the wall; whether they turned with one in the last row. That one is seen in the
    /// first row again, as the reference has it.
    fn march(&mut self) -> bool {
        let (left_wall, right_wall) = (COLUMN, COLUMN << (SIDE - 1));
        let wall = if self.marches_right { right_wall } else { left_wall };
        if self.aliens & wall == 0 {
            self.aliens = if self.marches_right { self.aliens << 1 } else { self.aliens >> 1 };
            return false;
        }
        let landed = self.aliens & LAST_ROW;
        self.marches_right = !self.marches_right;
        self.aliens = ((self.aliens ^ landed) << SIDE) | (landed >> (SIDE * CANNON_ROW));
        landed != 0
    }

    /// The lowest alien of the column nearest to the cannon; of two columns as near, the left one.
    fn shooter(&self) -> Board {
        let column = |x: i32| self.aliens & (COLUMN << x);
        let nearest = (0..SIDE).filter(|x| column(*x) != 0).min_by_key(|x| (x - self.cannon).abs());
        nearest.map_or(0, |x| 1 << column(x).ilog2())
    }
}

impl Game<6> for SpaceInvaders {
    const CHANNELS: [Channel; 6] = [
        Channel { color: BLUE, shape: Shape::Block },
        Channel { color: VIOLET, shape: Shape::Block },
        Channel { color: VIOLET, shape: Shape::Hidden },
        Channel { color: VIOLET, shape: Shape::Hidden },
        Channel { color: GREEN, shape: Shape::Bolt },
        Channel { color: ORANGE, shape: Shape::Bolt },
    ];
    const ACTIONS: &'static [Action] = &[Action::Noop, Action::Left, Action::Right, Action::Fire];

    fn start(&mut self, _draws: &mut impl Draws) {
        *self = Self {
            cannon: 5,
            reload_timer: 0,
            shots: 0,
            aliens: WAVE,
            marches_right: false,
            march_interval: SLOWEST_MARCH,
            march_timer: SLOWEST_MARCH,
            alien_shots: 0,
            alien_reload_timer: ALIEN_RELOAD,
        };
    }

    fn step(&mut self, action: Action, ramping: bool, _draws: &mut impl Draws) -> (i32, bool) {
        match action {
            Action::Fire if self.reload_timer == 0 => {
                self.shots |= cell(self.cannon, CANNON_ROW);
                self.reload_timer = RELOAD;
            }
            Action::Left => self.cannon = (self.cannon - 1).max(0),
            Action::Right => self.cannon = (self.cannon + 1).min(SIDE - 1),
            _ => {}
        }
        let cannon = cell(self.cannon, CANNON_ROW);
        self.shots >>= SIDE;
        self.alien_shots = (self.alien_shots << SIDE) & BOARD;
        let mut over = (self.alien_shots | self.aliens) & cannon != 0;

        if self.march_timer == 0 {
            self.march_timer = self.march_interval.min(self.aliens.count_ones() as i32);
            over |= self.march();
            over |= self.aliens & cannon != 0;
        }
        if self.alien_reload_timer == 0 {
            self.alien_reload_timer = ALIEN_RELOAD;
            self.alien_shots |= self.shooter();
        }
        let hit = self.aliens & self.shots;
        self.aliens ^= hit;
        self.shots ^= hit;

        self.reload_timer = (self.reload_timer - 1).max(0);
        self.march_timer -= 1;
        self.alien_reload_timer -= 1;
        if self.aliens == 0 {
            if ramping {
                self.march_interval = (self.march_interval - 1).max(FASTEST_RAMP);
            }
            self.aliens = WAVE;
        }
        (hit.count_ones() as i32, over)
    }

    fn planes(&self) -> [Board; 6] {
        let (left, right) = if self.marches_right { (0, self.aliens) } else { (self.aliens, 0) };
        [cell(self.cannon, CANNON_ROW), self.aliens, left, right, self.shots, self.alien_shots]
    }

    fn save(&self, to: &mut StateWriter) {
        [self.cannon, self.reload_timer, self.march_interval, self.march_timer, self.alien_reload_timer]
            .into_iter()
            .for_each(|x| to.i32(x));
        [self.shots, self.aliens, self.alien_shots].into_iter().for_each(|x| to.u128(x));
        to.bool(self.marches_right);
    }

    fn load(&mut self, from: &mut StateReader<'_>) -> Result<(), EnvError> {
        self.cannon = read(from, 0..=SIDE - 1, "a column")?;
        self.reload_timer = read(from, 0..=RELOAD, "steps")?;
        self.march_interval = read(from, FASTEST_RAMP..=SLOWEST_MARCH, "steps")?;
        self.march_timer = read(from, 0..=SLOWEST_MARCH, "steps")?;
        self.alien_reload_timer = read(from, 0..=ALIEN_RELOAD, "steps")?;
        [self.shots, self.aliens, self.alien_shots] = [read_board(from)?, read_board(from)?, read_board(from)?];
        self.marches_right = from.bool()?;
        Ok(())
    }
}
