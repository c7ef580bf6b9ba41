//! MinAtar Asterix: collect the gold that crosses the board and avoid the enemies that do.
//!
//! # Description
//! Enemies and gold come in from the sides, at most one a row, and cross the board. The player moves in all four
//! directions between the second and the ninth row.
//!
//! # Observation space
//! `Box(0, 1, [10, 10, 4], u8)`: player, enemies, trails (behind what moves), gold.
//!
//! # Action space
//! `Discrete(5)`: noop, left, up, right, down.
//!
//! # Rewards
//! 1 for gold that is picked up.
//!
//! # Start state
//! The player in the middle of an empty board.
//!
//! # End of episode
//! Terminated when the player and an enemy meet.
//!
//! # Options
//! Those of [`super`]. With ramping, something comes in more often (every 10 steps, down to 1) and moves faster (a cell
//! in 5 steps, down to 1) about every 100 steps.
//!
//! # Source
//! Young and Tian, 2019; rules of `minatar` 1.0.15.

use super::{ALL_CONTROLS, Action, Board, Channel, Draws, Game, MinAtar, SIDE, Shape, ahead, cell, cell_behind, read};
use crate::render::{BLUE, GREEN, LIGHT, ORANGE};
use crate::{Controls, EnvError, EnvSpec, Key, StateReader, StateWriter};

/// Registry entry.
pub const SPEC: EnvSpec = EnvSpec {
    id: "MinAtar/Asterix-v1",
    summary: "collect gold, avoid enemies",
    max_episode_steps: None,
    reward_threshold: None,
    render_fps: 15,
    controls: &[
        ALL_CONTROLS,
        Controls {
            idle: Some(&[0.0]),
            keys: &[
                (Key::Left, &[(0, 1.0)], "left"),
                (Key::Up, &[(0, 2.0)], "up"),
                (Key::Right, &[(0, 3.0)], "right"),
                (Key::Down, &[(0, 4.0)], "down"),
            ],
        },
    ],
    make: |options| Ok(Box::new(MinAtar::<Asterix, 4>::new(options)?)),
    make_batch: None,
};

/// Rows that something crosses: the second to the ninth.
const ROWS: usize = 8;
const RAMP_INTERVAL: i32 = 100;
const START_SPAWN_INTERVAL: i32 = 10;
const START_MOVE_INTERVAL: i32 = 5;

/// Something that crosses a row.
#[derive(Clone, Copy)]
struct Traveller {
    x: i32,
    heads_right: bool,
    is_gold: bool,
}

#[derive(Default)]
pub(super) struct Asterix {
    player: (i32, i32),
    /// Who is in row `i + 1`.
    travellers: [Option<Traveller>; ROWS],
    spawn_interval: i32,
    spawn_timer: i32,
    move_interval: i32,
    move_timer: i32,
    ramp_timer: i32,
    level: i32,
}

impl Asterix {
    /// A random traveller enters a random free row, if there is one.
    fn spawn(&mut self, draws: &mut impl Draws) {
        let heads_right = draws.coin();
        let is_gold = draws.uniform() < 1.0 / 3.0;
        let free = self.travellers.iter().filter(|row| row.is_none()).count();
        if free > 0 {
            let pick = draws.below(free as i32) as usize;
            let row = self.travellers.iter_mut().filter(|row| row.is_none()).nth(pick);
            let x = if heads_right { 0 } else { SIDE - 1 };
            *row.expect("fewer than the free rows are skipped") = Some(Traveller { x, heads_right, is_gold });
        }
    }

    /// The player meets who is in the same cell: reward, and whether that is the end.
    fn meet(&mut self) -> (i32, bool) {
        let (x, y) = self.player;
        let row = &mut self.travellers[(y - 1) as usize];
        match *row {
            Some(Traveller { x: other, is_gold, .. }) if other == x => {
                if is_gold {
                    *row = None;
                }
                (i32::from(is_gold), !is_gold)
            }
            _ => (0, false),
        }
    }

    /// Raises the level once in an interval.
    fn ramp(&mut self) {
        if self.spawn_interval == 1 && self.move_interval == 1 {
            return;
        }
        if self.ramp_timer >= 0 {
            self.ramp_timer -= 1;
            return;
        }
        if self.level % 2 == 1 {
            self.move_interval = (self.move_interval - 1).max(1);
        }
        self.spawn_interval = (self.spawn_interval - 1).max(1);
        self.level += 1;
        self.ramp_timer = RAMP_INTERVAL;
    }
}

impl Game<4> for Asterix {
    const CHANNELS: [Channel; 4] = [
        Channel { color: BLUE, shape: Shape::Block },
        Channel { color: ORANGE, shape: Shape::Block },
        Channel { color: LIGHT.alpha(90), shape: Shape::Trail },
        Channel { color: GREEN, shape: Shape::Disk },
    ];
    const ACTIONS: &'static [Action] = &[Action::Noop, Action::Left, Action::Up, Action::Right, Action::Down];

    fn start(&mut self, _draws: &mut impl Draws) {
        *self = Self {
            player: (5, 5),
            travellers: [None; ROWS],
            spawn_interval: START_SPAWN_INTERVAL,
            spawn_timer: START_SPAWN_INTERVAL,
            move_interval: START_MOVE_INTERVAL,
            move_timer: START_MOVE_INTERVAL,
            ramp_timer: RAMP_INTERVAL,
            level: 0,
        };
    }

    fn step(&mut self, action: Action, ramping: bool, draws: &mut impl Draws) -> (i32, bool) {
        if self.spawn_timer == 0 {
            self.spawn(draws);
            self.spawn_timer = self.spawn_interval;
        }
        let (x, y) = &mut self.player;
        match action {
            Action::Left => *x = (*x - 1).max(0),
            Action::Right => *x = (*x + 1).min(SIDE - 1),
            Action::Up => *y = (*y - 1).max(1),
            Action::Down => *y = (*y + 1).min(ROWS as i32),
            Action::Noop | Action::Fire => {}
        }
        let (mut reward, mut over) = self.meet();
        if self.move_timer == 0 {
            self.move_timer = self.move_interval;
            for row in &mut self.travellers {
                if let Some(traveller) = row {
                    traveller.x = ahead(traveller.x, traveller.heads_right);
                    if !(0..SIDE).contains(&traveller.x) {
                        *row = None;
                    }
                }
            }
            let (more, met) = self.meet();
            reward += more;
            over |= met;
        }
        self.spawn_timer -= 1;
        self.move_timer -= 1;
        if ramping {
            self.ramp();
        }
        (reward, over)
    }

    fn planes(&self) -> [Board; 4] {
        let [mut enemies, mut trails, mut gold] = [0; 3];
        for (y, row) in (1..).zip(&self.travellers) {
            if let Some(Traveller { x, heads_right, is_gold }) = *row {
                *(if is_gold { &mut gold } else { &mut enemies }) |= cell(x, y);
                trails |= cell_behind(x, y, heads_right);
            }
        }
        [cell(self.player.0, self.player.1), enemies, trails, gold]
    }

    fn save(&self, to: &mut StateWriter) {
        [self.player.0, self.player.1].into_iter().for_each(|x| to.i32(x));
        for row in &self.travellers {
            let Traveller { x, heads_right, is_gold } =
                row.unwrap_or(Traveller { x: -1, heads_right: false, is_gold: false });
            to.i32(x);
            to.bool(heads_right);
            to.bool(is_gold);
        }
        let timers = [self.spawn_interval, self.spawn_timer, self.move_interval, self.move_timer, self.ramp_timer];
        timers.into_iter().for_each(|x| to.i32(x));
        to.i32(self.level);
    }

    fn load(&mut self, from: &mut StateReader<'_>) -> Result<(), EnvError> {
        self.player = (read(from, 0..=SIDE - 1, "a column")?, read(from, 1..=ROWS as i32, "a row")?);
        for row in &mut self.travellers {
            let x = read(from, -1..=SIDE - 1, "a column, or -1 for nothing")?;
            let (heads_right, is_gold) = (from.bool()?, from.bool()?);
            *row = (x >= 0).then_some(Traveller { x, heads_right, is_gold });
        }
        self.spawn_interval = read(from, 1..=START_SPAWN_INTERVAL, "steps")?;
        self.spawn_timer = read(from, 0..=START_SPAWN_INTERVAL, "steps")?;
        self.move_interval = read(from, 1..=START_MOVE_INTERVAL, "steps")?;
        self.move_timer = read(from, 0..=START_MOVE_INTERVAL, "steps")?;
        self.ramp_timer = read(from, -1..=RAMP_INTERVAL, "steps")?;
        self.level = read(from, 0..=i32::MAX / 2, "a level")?;
        Ok(())
    }
}
