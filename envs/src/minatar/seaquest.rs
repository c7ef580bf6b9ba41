//! MinAtar Seaquest: shoot fish and submarines, pick up divers, and surface before the oxygen runs out.
//!
//! # Description
//! The player's submarine moves in all four directions and shoots ahead. Fish and submarines come in from the sides, and
//! the submarines shoot. Divers that are met come on board, six at most. Surfacing costs one of them and fills the
//! oxygen; surfacing with six sets all ashore for a reward.
//!
//! # Observation space
//! `Box(0, 1, [10, 10, 10], u8)`: front of the player, back of the player, the player's shots, trails (behind fish,
//! submarines and divers), enemies' shots, fish, submarines, oxygen gauge, divers on board, divers. The gauges lie in the
//! last row: a tenth of the oxygen a cell from the left, a diver a cell up to the last but one column.
//!
//! # Action space
//! `Discrete(6)`: noop, left, up, right, down, fire.
//!
//! # Rewards
//! 1 for an enemy that is shot; on surfacing with six divers, 1 for each tenth of the oxygen that is left.
//!
//! # Start state
//! The player at the surface, facing left, with full oxygen and nobody around.
//!
//! # End of episode
//! Terminated when the player meets an enemy or a shot, has no oxygen left, or surfaces with exactly no divers.
//!
//! # Options
//! Those of [`super`]. With ramping, each surfacing shortens the time between enemies (20 steps, down to 1) and each
//! second one the time they take for a cell (5 pauses, down to 2).
//!
//! # Source
//! Young and Tian, 2019; rules of `minatar` 1.0.15. That includes: setting six divers ashore costs the one that every
//! surfacing costs as well, so that the count is -1 then and the next six take seven divers; a submarine that is shot or
//! has left while its gun is loaded still fires.

use super::{ALL_CONTROLS, Action, Board, Channel, Draws, Game, MinAtar, SIDE, Shape, ahead, cell, cell_behind, read};
use crate::render::{BLUE, BLUE_LIGHT, GREEN, LIGHT, ORANGE, VIOLET};
use crate::{EnvError, EnvSpec, StateReader, StateWriter};

/// Registry entry.
pub const SPEC: EnvSpec = EnvSpec {
    id: "MinAtar/Seaquest-v1",
    summary: "rescue divers from submarines and fish",
    max_episode_steps: None,
    reward_threshold: None,
    render_fps: 15,
    controls: &[ALL_CONTROLS],
    make: |options| Ok(Box::new(MinAtar::<Seaquest, 10>::new(options)?)),
    make_batch: None,
};

const MAX_OXYGEN: i32 = 200;
const MAX_DIVERS: i32 = 6;
const RELOAD: i32 = 5;
const ENEMY_RELOAD: i32 = 10;
const START_SPAWN_INTERVAL: i32 = 20;
const START_MOVE_INTERVAL: i32 = 5;
const FASTEST_MOVE_INTERVAL: i32 = 2;
const DIVER_SPAWN_INTERVAL: i32 = 30;
const DIVER_MOVE_INTERVAL: i32 = 5;
const DEEPEST: i32 = SIDE - 2;
const GAUGE_ROW: i32 = SIDE - 1;
/// More of a kind than can be on the board at once: at most one fish a step comes in and each stays some 30 steps.
const CAPACITY: usize = 64;

/// Something that crosses the board in its row. Shots move every step and need no timers.
#[derive(Clone, Copy, PartialEq)]
struct Swimmer {
    x: i32,
    y: i32,
    heads_right: bool,
    move_timer: i32,
    reload_timer: i32,
}

impl Swimmer {
    fn at(&self) -> (i32, i32) {
        (self.x, self.y)
    }

    /// Moves a cell; whether it is still on the board.
    fn swim(&mut self) -> bool {
        self.x = ahead(self.x, self.heads_right);
        (0..SIDE).contains(&self.x)
    }

    /// Counts down to its next move, one step in `interval + 1`; whether it moves now.
    fn is_due(&mut self, interval: i32) -> bool {
        let due = self.move_timer == 0;
        self.move_timer = if due { interval } else { self.move_timer - 1 };
        due
    }
}

/// Takes out of `others` the first one in this cell; whether there was one.
fn take(others: &mut Vec<Swimmer>, at: (i32, i32)) -> bool {
    let found = others.iter().position(|other| other.at() == at);
    found.inspect(|i| _ = others.remove(*i)).is_some()
}

/// Visits the youngest first and keeps those for which `stays` is true, in their order.
fn retain_from_youngest(all: &mut Vec<Swimmer>, mut stays: impl FnMut(&mut Swimmer) -> bool) {
    for i in (0..all.len()).rev() {
        if !stays(&mut all[i]) {
            all.remove(i);
        }
    }
}

pub(super) struct Seaquest {
    x: i32,
    y: i32,
    faces_right: bool,
    oxygen: i32,
    /// On board; negative after six were set ashore.
    diver_count: i32,
    /// The player has not dived since it last surfaced.
    at_surface: bool,
    reload_timer: i32,
    spawn_interval: i32,
    spawn_timer: i32,
    diver_spawn_timer: i32,
    move_interval: i32,
    level: i32,
    shots: Vec<Swimmer>,
    enemy_shots: Vec<Swimmer>,
    fish: Vec<Swimmer>,
    submarines: Vec<Swimmer>,
    divers: Vec<Swimmer>,
}

impl Default for Seaquest {
    fn default() -> Self {
        let [shots, enemy_shots, fish, submarines, divers] = [(); 5].map(|()| Vec::with_capacity(CAPACITY));
        Self {
            x: 0,
            y: 0,
            faces_right: false,
            oxygen: 0,
            diver_count: 0,
            at_surface: true,
            reload_timer: 0,
            spawn_interval: 1,
            spawn_timer: 0,
            diver_spawn_timer: 0,
            move_interval: START_MOVE_INTERVAL,
            level: 0,
            shots,
            enemy_shots,
            fish,
            submarines,
            divers,
        }
    }
}

impl Seaquest {
    fn new_swimmer(y: i32, heads_right: bool, move_timer: i32) -> Swimmer {
        let x = if heads_right { 0 } else { SIDE - 1 };
        Swimmer { x, y, heads_right, move_timer, reload_timer: ENEMY_RELOAD }
    }

    /// A fish or submarine comes in, unless one in its row heads the other way.
    fn spawn_enemy(&mut self, draws: &mut impl Draws) {
        let heads_right = draws.coin();
        let is_submarine = draws.uniform() < 1.0 / 3.0;
        let y = 1 + draws.below(DEEPEST);
        if self.fish.iter().chain(&self.submarines).any(|other| other.y == y && other.heads_right != heads_right) {
            return;
        }
        let kind = if is_submarine { &mut self.submarines } else { &mut self.fish };
        kind.push(Self::new_swimmer(y, heads_right, self.move_interval));
    }

    fn spawn_diver(&mut self, draws: &mut impl Draws) {
        let heads_right = draws.coin();
        let y = 1 + draws.below(DEEPEST);
        self.divers.push(Self::new_swimmer(y, heads_right, DIVER_MOVE_INTERVAL));
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Fire if self.reload_timer == 0 => {
                let [x, y] = [self.x, self.y];
                self.shots.push(Swimmer { x, y, ..Self::new_swimmer(y, self.faces_right, 0) });
                self.reload_timer = RELOAD;
            }
            Action::Left => {
                self.x = (self.x - 1).max(0);
                self.faces_right = false;
            }
            Action::Right => {
                self.x = (self.x + 1).min(SIDE - 1);
                self.faces_right = true;
            }
            Action::Up => self.y = (self.y - 1).max(0),
            Action::Down => self.y = (self.y + 1).min(DEEPEST),
            Action::Noop | Action::Fire => {}
        }
    }

    /// The player's shots fly; how many hit.
    fn move_shots(&mut self) -> i32 {
        let mut hits = 0;
        let Self { shots, fish, submarines, .. } = self;
        retain_from_youngest(shots, |shot| {
            if !shot.swim() {
                return false;
            }
            let hit = take(fish, shot.at()) || take(submarines, shot.at());
            hits += i32::from(hit);
            !hit
        });
        hits
    }

    fn move_divers(&mut self) {
        let (player, on_board) = ((self.x, self.y), &mut self.diver_count);
        retain_from_youngest(&mut self.divers, |diver| {
            let mut boards = |diver: &Swimmer| {
                let boards = diver.at() == player && *on_board < MAX_DIVERS;
                *on_board += i32::from(boards);
                boards
            };
            !boards(diver) && (!diver.is_due(DIVER_MOVE_INTERVAL) || (diver.swim() && !boards(diver)))
        });
    }

    /// Fish or submarines swim, `after` each whatever became of it; how many swam into a shot, and whether one met the
    /// player.
    fn move_enemies(
        enemies: &mut Vec<Swimmer>,
        shots: &mut Vec<Swimmer>,
        player: (i32, i32),
        interval: i32,
        mut after: impl FnMut(&mut Swimmer),
    ) -> (i32, bool) {
        let (mut hits, mut met) = (0, false);
        retain_from_youngest(enemies, |enemy| {
            met |= enemy.at() == player;
            let mut stays = true;
            if enemy.is_due(interval) {
                stays = enemy.swim();
                if stays && enemy.at() == player {
                    met = true;
                } else if stays && take(shots, enemy.at()) {
                    hits += 1;
                    stays = false;
                }
            }
            after(enemy);
            stays
        });
        (hits, met)
    }

    /// The enemies' shots fly; whether one met the player, before or after.
    fn move_enemy_shots(&mut self) -> bool {
        let (player, mut met) = ((self.x, self.y), false);
        retain_from_youngest(&mut self.enemy_shots, |shot| {
            met |= shot.at() == player;
            let stays = shot.swim();
            met |= shot.at() == player;
            stays
        });
        met
    }

    /// The player reaches the surface with divers: the reward.
    fn surface(&mut self, ramping: bool) -> i32 {
        self.at_surface = true;
        let mut reward = 0;
        if self.diver_count == MAX_DIVERS {
            self.diver_count = 0;
            reward = self.oxygen * SIDE / MAX_OXYGEN;
        }
        self.oxygen = MAX_OXYGEN;
        self.diver_count -= 1;
        if ramping && (self.spawn_interval > 1 || self.move_interval > FASTEST_MOVE_INTERVAL) {
            if self.level % 2 == 1 {
                self.move_interval = (self.move_interval - 1).max(FASTEST_MOVE_INTERVAL);
            }
            self.spawn_interval = (self.spawn_interval - 1).max(1);
            self.level += 1;
        }
        reward
    }
}

impl Game<10> for Seaquest {
    const CHANNELS: [Channel; 10] = [
        Channel { color: BLUE, shape: Shape::Block },
        Channel { color: BLUE_LIGHT, shape: Shape::Disk },
        Channel { color: BLUE_LIGHT, shape: Shape::Dart },
        Channel { color: LIGHT.alpha(90), shape: Shape::Trail },
        Channel { color: ORANGE, shape: Shape::Dart },
        Channel { color: ORANGE, shape: Shape::Disk },
        Channel { color: VIOLET, shape: Shape::Block },
        Channel { color: LIGHT.alpha(190), shape: Shape::Block },
        Channel { color: GREEN, shape: Shape::Disk },
        Channel { color: GREEN, shape: Shape::Disk },
    ];
    const ACTIONS: &'static [Action] = super::ALL_ACTIONS;

    fn start(&mut self, _draws: &mut impl Draws) {
        (self.x, self.y, self.faces_right) = (5, 0, false);
        (self.oxygen, self.diver_count, self.at_surface) = (MAX_OXYGEN, 0, true);
        self.reload_timer = 0;
        (self.spawn_interval, self.spawn_timer) = (START_SPAWN_INTERVAL, START_SPAWN_INTERVAL);
        self.diver_spawn_timer = DIVER_SPAWN_INTERVAL;
        self.move_interval = START_MOVE_INTERVAL;
        self.level = 0;
        [&mut self.shots, &mut self.enemy_shots, &mut self.fish, &mut self.submarines, &mut self.divers]
            .into_iter()
            .for_each(Vec::clear);
    }

    fn step(&mut self, action: Action, ramping: bool, draws: &mut impl Draws) -> (i32, bool) {
        if self.spawn_timer == 0 {
            self.spawn_enemy(draws);
            self.spawn_timer = self.spawn_interval;
        }
        if self.diver_spawn_timer == 0 {
            self.spawn_diver(draws);
            self.diver_spawn_timer = DIVER_SPAWN_INTERVAL;
        }
        self.act(action);

        let player = (self.x, self.y);
        let mut reward = self.move_shots();
        self.move_divers();
        let (hits, met_submarine) =
            Self::move_enemies(&mut self.submarines, &mut self.shots, player, self.move_interval, |submarine| {
                if submarine.reload_timer == 0 {
                    submarine.reload_timer = ENEMY_RELOAD;
                    self.enemy_shots.push(Swimmer { move_timer: 0, ..*submarine });
                } else {
                    submarine.reload_timer -= 1;
                }
            });
        reward += hits;
        let met_shot = self.move_enemy_shots();
        let (hits, met_fish) = Self::move_enemies(&mut self.fish, &mut self.shots, player, self.move_interval, |_| {});
        reward += hits;

        self.spawn_timer -= 1;
        self.diver_spawn_timer -= 1;
        self.reload_timer = (self.reload_timer - 1).max(0);
        let mut over = met_submarine || met_shot || met_fish || self.oxygen <= 0;
        if self.y > 0 {
            self.oxygen -= 1;
            self.at_surface = false;
        } else if !self.at_surface {
            if self.diver_count == 0 {
                over = true;
            } else {
                reward += self.surface(ramping);
            }
        }
        (reward, over)
    }

    fn planes(&self) -> [Board; 10] {
        let cells = |all: &[Swimmer]| all.iter().fold(0, |board, s| board | cell(s.x, s.y));
        let swimmers = [&self.fish, &self.submarines, &self.divers].into_iter().flatten();
        let trails = swimmers.fold(0, |board, s| board | cell_behind(s.x, s.y, s.heads_right));
        // The gauges: so many cells from the first column, and so many up to the last but one.
        let oxygen = (0..self.oxygen * SIDE / MAX_OXYGEN).fold(0, |board, x| board | cell(x, GAUGE_ROW));
        let on_board = (0..self.diver_count).fold(0, |board, i| board | cell(SIDE - 2 - i, GAUGE_ROW));
        [
            cell(self.x, self.y),
            cell_behind(self.x, self.y, self.faces_right),
            cells(&self.shots),
            trails,
            cells(&self.enemy_shots),
            cells(&self.fish),
            cells(&self.submarines),
            oxygen,
            on_board,
            cells(&self.divers),
        ]
    }

    fn save(&self, to: &mut StateWriter) {
        [self.x, self.y, self.oxygen, self.diver_count, self.reload_timer, self.spawn_interval, self.spawn_timer]
            .into_iter()
            .for_each(|x| to.i32(x));
        [self.diver_spawn_timer, self.move_interval, self.level].into_iter().for_each(|x| to.i32(x));
        [self.faces_right, self.at_surface].into_iter().for_each(|x| to.bool(x));
        for kind in [&self.shots, &self.enemy_shots, &self.fish, &self.submarines, &self.divers] {
            to.i32(kind.len() as i32);
            for s in kind {
                [s.x, s.y, s.move_timer, s.reload_timer].into_iter().for_each(|x| to.i32(x));
                to.bool(s.heads_right);
            }
        }
    }

    fn load(&mut self, from: &mut StateReader<'_>) -> Result<(), EnvError> {
        self.x = read(from, 0..=SIDE - 1, "a column")?;
        self.y = read(from, 0..=DEEPEST, "a row")?;
        self.oxygen = read(from, -1..=MAX_OXYGEN, "oxygen")?;
        self.diver_count = read(from, -1_000_000..=MAX_DIVERS, "a number of divers")?;
        self.reload_timer = read(from, 0..=RELOAD, "steps")?;
        self.spawn_interval = read(from, 1..=START_SPAWN_INTERVAL, "steps")?;
        self.spawn_timer = read(from, 0..=START_SPAWN_INTERVAL, "steps")?;
        self.diver_spawn_timer = read(from, 0..=DIVER_SPAWN_INTERVAL, "steps")?;
        self.move_interval = read(from, FASTEST_MOVE_INTERVAL..=START_MOVE_INTERVAL, "steps")?;
        self.level = read(from, 0..=START_SPAWN_INTERVAL, "a level")?;
        (self.faces_right, self.at_surface) = (from.bool()?, from.bool()?);
        for kind in [&mut self.shots, &mut self.enemy_shots, &mut self.fish, &mut self.submarines, &mut self.divers] {
            kind.clear();
            for _ in 0..read(from, 0..=CAPACITY as i32, "a number of swimmers")? {
                kind.push(Swimmer {
                    x: read(from, 0..=SIDE - 1, "a column")?,
                    y: read(from, 0..=DEEPEST, "a row")?,
                    move_timer: read(from, 0..=DIVER_MOVE_INTERVAL, "steps")?,
                    reload_timer: read(from, 0..=ENEMY_RELOAD, "steps")?,
                    heads_right: from.bool()?,
                });
            }
        }
        Ok(())
    }
}
