//! Frozen lake: cross slippery ice from the start to the goal without falling into a hole.
//!
//! # Description
//! The lake is a grid of frozen tiles and holes. The walker wants to go one tile to the left, down, to the right or up;
//! on slippery ice it as often goes to either side of where it wants to. Walking against the edge of the grid leaves it
//! where it is.
//!
//! # Observation space
//! `Discrete(rows * columns)`: `row * columns + column` of the walker's tile, counted from the upper left.
//!
//! # Action space
//! `Discrete(4)`: 0 left, 1 down, 2 right, 3 up.
//!
//! # Rewards
//! 1 for reaching the goal, 0 otherwise; see `reward_schedule`.
//!
//! # Start state
//! The tile `S`; one of them at random where a map has several.
//!
//! # End of episode
//! Terminated in a hole or at the goal; truncated after 100 steps (`FrozenLake-v1`) or 200 (`FrozenLake8x8-v1`).
//!
//! # Options
//! - `map_name` (`"4x4"` or `"8x8"`): a map of Gymnasium's; by default that of the id.
//! - `desc` (list of texts): a map of your own, one text a row, of the letters `S` start, `F` frozen, `H` hole and `G`
//!   goal, for example `["SFF", "FHF", "FFG"]`.
//! - `size` (2 to 256, default 8), `p` (0 to 1, default 0.8), `seed` (whole number, default 0): any of them asks for a
//!   generated map of `size` x `size` tiles, each frozen with probability `p`; the start is at the upper left, the goal
//!   at the lower right, and there is a way between them. It is the map of Gymnasium's `generate_random_map`.
//! - `is_slippery` (bool, default true).
//! - `success_rate` (0 to 1, default 1/3): probability of going where the action says on slippery ice; each side gets
//!   half of the rest.
//! - `reward_schedule` (3 numbers, default `[1, 0, 0]`): for reaching the goal, a hole, a frozen tile.
//!
//! The batch stepper takes them, too.
//!
//! # Source
//! Gymnasium's `FrozenLake-v1`.

use std::f32::consts::{FRAC_PI_2, PI};

use super::tabular::{Outcomes, Starts, Table, Transition, TransitionModel};
use crate::batch::DiscreteStepper;
use crate::render::{BLUE, BLUE_LIGHT, Canvas, Color, Fill, GREEN, INK, LIGHT, MUTED, ORANGE, ORANGE_LIGHT};
use crate::{
    ActionRef, BatchEnv, Controls, Env, EnvError, EnvSpec, Frame, Key, NpRng, ObsMut, Options, Space, StateReader,
    StateWriter, StepOutcome,
};

const CONTROLS: &[Controls] = &[Controls {
    idle: None,
    keys: &[
        (Key::Left, &[(0, 0.0)], "left"),
        (Key::Right, &[(0, 2.0)], "right"),
        (Key::Up, &[(0, 3.0)], "up"),
        (Key::Down, &[(0, 1.0)], "down"),
    ],
}];

/// Registry entry of the small lake.
pub const SPEC: EnvSpec = EnvSpec {
    id: "FrozenLake-v1",
    summary: "cross slippery ice without falling into a hole",
    max_episode_steps: Some(100),
    reward_threshold: Some(0.7),
    render_fps: 4,
    controls: CONTROLS,
    make: |options| Ok(Box::new(FrozenLake::new(options)?)),
    make_batch: Some(|options, n, limit, _| Ok(FrozenLake::new(options)?.batch(SPEC.id, n, limit))),
};

/// Registry entry of the large lake.
pub const SPEC_8X8: EnvSpec = EnvSpec {
    id: "FrozenLake8x8-v1",
    summary: "cross a larger lake",
    max_episode_steps: Some(200),
    reward_threshold: Some(0.85),
    controls: CONTROLS,
    make: |options| Ok(Box::new(FrozenLake::with_map(options, MAP_8X8)?)),
    make_batch: Some(|options, n, limit, _| Ok(FrozenLake::with_map(options, MAP_8X8)?.batch(SPEC_8X8.id, n, limit))),
    ..SPEC
};

const MAP_4X4: &[&str] = &["SFFF", "FHFH", "FFFH", "HFFG"];
const MAP_8X8: &[&str] =
    &["SFFFFFFF", "FFFFFFFF", "FFFHFFFF", "FFFFFHFF", "FFFHFFFF", "FHHFFFHF", "FHFFHFHF", "FFFHFFFG"];

const ACTIONS: i32 = 4;
const MAX_SIZE: u32 = 256;
/// Generated maps are given up after so many without a way to the goal.
const MAX_TRIES: u32 = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tile {
    Start,
    Frozen,
    Hole,
    Goal,
}

/// The lake and the walker.
#[derive(Clone, Debug)]
pub struct FrozenLake {
    tiles: Vec<Tile>,
    columns: i32,
    starts: Starts,
    is_slippery: bool,
    success_rate: f64,
    /// Rewards of the goal, a hole, a frozen tile.
    rewards: [f64; 3],
    state: i32,
    /// The last action; -1 before the first.
    last_action: i32,
    observation_space: Space,
    action_space: Space,
}

impl FrozenLake {
    /// Makes the environment, not started yet.
    ///
    /// # Errors
    /// [`EnvError::BadOption`] for a value out of range or a malformed map.
    pub fn new(options: &mut Options) -> Result<Self, EnvError> {
        Self::with_map(options, MAP_4X4)
    }

    fn with_map(options: &mut Options, default_map: &[&str]) -> Result<Self, EnvError> {
        let (tiles, columns) = read_map(options, default_map)?;
        let starts = (0..).zip(&tiles).filter(|(_, tile)| **tile == Tile::Start).map(|(state, _)| state).collect();
        Ok(Self {
            observation_space: Space::discrete(tiles.len() as i32),
            action_space: Space::discrete(ACTIONS),
            tiles,
            columns,
            starts: Starts::uniform(starts),
            is_slippery: options.bool("is_slippery", true)?,
            success_rate: options.f64_in("success_rate", 0.0..=1.0)?.unwrap_or(1.0 / 3.0),
            rewards: options.numbers("reward_schedule", "for the goal, a hole, a frozen tile")?.unwrap_or([1., 0., 0.]),
            state: 0,
            last_action: -1,
        })
    }

    /// The rows of the map.
    pub fn map(&self) -> Vec<String> {
        let letter = |tile: &Tile| match tile {
            Tile::Start => 'S',
            Tile::Frozen => 'F',
            Tile::Hole => 'H',
            Tile::Goal => 'G',
        };
        self.tiles.chunks(self.columns as usize).map(|row| row.iter().map(letter).collect()).collect()
    }

    /// The whole problem as a table.
    pub fn model(&self) -> TransitionModel {
        TransitionModel::new(self.tiles.len() as i32, ACTIONS, &self.starts, |s, a| self.outcomes(s, a))
    }

    /// The walker's tile.
    pub fn state(&self) -> i32 {
        self.state
    }

    /// Puts the walker on a tile.
    ///
    /// # Panics
    /// If there is no such tile.
    pub fn set_state(&mut self, state: i32) {
        assert!((0..self.tiles.len() as i32).contains(&state), "tile {state} of {}", self.tiles.len());
        (self.state, self.last_action) = (state, -1);
    }

    fn batch(&self, id: &'static str, num_envs: usize, limit: u32) -> Box<dyn BatchEnv> {
        Box::new(DiscreteStepper::new(id, Table::new(&self.model()), num_envs, limit))
    }

    fn outcomes(&self, state: i32, action: i32) -> Outcomes {
        if matches!(self.tiles[state as usize], Tile::Hole | Tile::Goal) {
            return Outcomes::certain(state, 0.0, true);
        }
        if !self.is_slippery {
            let (next_state, reward, terminated) = self.walk(state, action);
            return Outcomes::certain(next_state, reward, terminated);
        }
        let mut outcomes = Outcomes::default();
        let slip = (1.0 - self.success_rate) / 2.0;
        for (turn, probability) in [(ACTIONS - 1, slip), (0, self.success_rate), (1, slip)] {
            let (next_state, reward, terminated) = self.walk(state, (action + turn) % ACTIONS);
            outcomes.push(Transition { probability, next_state, reward, terminated });
        }
        outcomes
    }

    /// Where going in one direction leads, the reward for it, and whether it ends there.
    fn walk(&self, state: i32, direction: i32) -> (i32, f64, bool) {
        let (row, column, rows) = (state / self.columns, state % self.columns, self.tiles.len() as i32 / self.columns);
        let (row, column) = match direction {
            0 => (row, (column - 1).max(0)),
            1 => ((row + 1).min(rows - 1), column),
            2 => (row, (column + 1).min(self.columns - 1)),
            _ => ((row - 1).max(0), column),
        };
        let next = row * self.columns + column;
        let [goal, hole, frozen] = self.rewards;
        match self.tiles[next as usize] {
            Tile::Goal => (next, goal, true),
            Tile::Hole => (next, hole, true),
            Tile::Start | Tile::Frozen => (next, frozen, false),
        }
    }
}

impl Env for FrozenLake {
    fn observation_space(&self) -> &Space {
        &self.observation_space
    }

    fn action_space(&self) -> &Space {
        &self.action_space
    }

    fn reset(&mut self, rng: &mut NpRng, obs: ObsMut<'_>) {
        (self.state, self.last_action) = (self.starts.draw(rng), -1);
        super::write([self.state], obs);
    }

    fn step(&mut self, action: ActionRef<'_>, rng: &mut NpRng, obs: ObsMut<'_>) -> StepOutcome {
        self.last_action = super::discrete(action);
        let outcome = self.outcomes(self.state, self.last_action).draw(rng);
        self.state = outcome.next_state;
        super::write([self.state], obs);
        StepOutcome { reward: outcome.reward, terminated: outcome.terminated, truncated: false }
    }

    fn save_state(&self, to: &mut StateWriter) {
        to.i32(self.state);
        to.i32(self.last_action);
    }

    fn load_state(&mut self, from: &mut StateReader<'_>) -> Result<(), EnvError> {
        let state = super::load(from, 0, self.tiles.len() as i32, "a tile")?;
        self.last_action = super::load(from, -1, ACTIONS, "an action")?;
        self.state = state;
        Ok(())
    }

    fn render(&self) -> Option<Frame> {
        Some(self.draw())
    }
}

/// The tiles of the map that the options ask for, and its number of columns.
fn read_map(options: &mut Options, default_map: &[&str]) -> Result<(Vec<Tile>, i32), EnvError> {
    let desc = options.lines("desc")?;
    let map_name = options.text("map_name")?;
    let size = options.u32("size", 2..=MAX_SIZE)?;
    let p = options.f64_in("p", 0.0..=1.0)?;
    let seed = options.u32("seed", 0..=u32::MAX)?;
    let generated = size.is_some() || p.is_some() || seed.is_some();
    if usize::from(desc.is_some()) + usize::from(map_name.is_some()) + usize::from(generated) > 1 {
        let option = if desc.is_some() { "desc" } else { "map_name" };
        let expected = "the only one of `desc`, `map_name` and `size`, `p`, `seed`";
        return Err(options.bad(option, expected, "several of them"));
    }
    if generated {
        let (size, p) = (size.unwrap_or(8), p.unwrap_or(0.8));
        let tiles = generate_map(size as usize, p, seed.unwrap_or(0).into()).ok_or_else(|| {
            let expected = format!("large enough that a map of {size} x {size} tiles has a way to the goal");
            options.bad("p", &expected, p)
        })?;
        return Ok((tiles, size as i32));
    }
    let rows = match (desc, map_name.as_deref()) {
        (Some(rows), _) => rows,
        (None, Some("4x4")) => MAP_4X4.iter().map(|row| (*row).to_owned()).collect(),
        (None, Some("8x8")) => MAP_8X8.iter().map(|row| (*row).to_owned()).collect(),
        (None, Some(other)) => return Err(options.bad("map_name", "\"4x4\" or \"8x8\"", format!("\"{other}\""))),
        (None, None) => default_map.iter().map(|row| (*row).to_owned()).collect(),
    };
    parse_map(options, &rows)
}

fn parse_map(options: &Options, rows: &[String]) -> Result<(Vec<Tile>, i32), EnvError> {
    let bad = |expected: String, found: String| Err(options.bad("desc", &expected, found));
    let columns = rows.first().map_or(0, |row| row.chars().count());
    let (most, size) = (MAX_SIZE as usize, format!("{} rows of {columns} letters", rows.len()));
    if columns == 0 || columns > most || rows.len() > most {
        return bad(format!("1 to {most} rows of 1 to {most} letters"), size);
    }
    let mut tiles = Vec::with_capacity(rows.len() * columns);
    for (i, row) in rows.iter().enumerate() {
        if row.chars().count() != columns {
            return bad(
                format!("rows of one length, {columns} letters as the first"),
                format!("{} in row {i}, \"{row}\"", row.chars().count()),
            );
        }
        for letter in row.chars() {
            tiles.push(match letter {
                'S' => Tile::Start,
                'F' => Tile::Frozen,
                'H' => Tile::Hole,
                'G' => Tile::Goal,
                other => return bad("of the letters S, F, H and G".to_owned(), format!("`{other}` in row {i}")),
            });
        }
    }
    for (tile, name) in [(Tile::Start, "start `S`"), (Tile::Goal, "goal `G`")] {
        if !tiles.contains(&tile) {
            return bad(format!("a map with at least one {name}"), format!("none in {rows:?}"));
        }
    }
    Ok((tiles, columns as i32))
}

/// Gymnasium's `generate_random_map`; `None` if too many maps had no way to the goal.
fn generate_map(size: usize, p: f64, seed: u64) -> Option<Vec<Tile>> {
    let mut rng = NpRng::seed(seed);
    // `Generator.choice` normalises the cumulative sum.
    let frozen = p / (p + (1.0 - p));
    (0..MAX_TRIES).find_map(|_| {
        let tile = |_| if rng.random() < frozen { Tile::Frozen } else { Tile::Hole };
        let mut tiles: Vec<Tile> = (0..size * size).map(tile).collect();
        tiles[0] = Tile::Start;
        tiles[size * size - 1] = Tile::Goal;
        has_way(&tiles, size).then_some(tiles)
    })
}

/// Whether the goal of a square map can be reached from its upper left corner.
fn has_way(tiles: &[Tile], size: usize) -> bool {
    let (mut frontier, mut seen) = (vec![0], vec![false; tiles.len()]);
    while let Some(at) = frontier.pop() {
        if tiles[at] == Tile::Goal {
            return true;
        }
        if std::mem::replace(&mut seen[at], true) || tiles[at] == Tile::Hole {
            continue;
        }
        let (row, column) = (at / size, at % size);
        frontier.extend((row > 0).then(|| at - size));
        frontier.extend((row + 1 < size).then_some(at + size));
        frontier.extend((column > 0).then(|| at - 1));
        frontier.extend((column + 1 < size).then_some(at + 1));
    }
    false
}

const ICE_LIGHT: Color = Color::hex(0xEAF3FD);
const ICE: Color = Color::hex(0xCFE0F4);
const WATER: Color = Color::hex(0x2A4C86);
const WATER_LIGHT: Color = Color::hex(0x4E7CC4);

impl FrozenLake {
    /// Tiles of ice, holes with dark water, the goal's flag, and the walker, who looks where the last action pointed.
    fn draw(&self) -> Frame {
        let (columns, rows) = (self.columns as u32, self.tiles.len() as u32 / self.columns as u32);
        let cell = (512 / columns.max(rows)).clamp(8, 96);
        let center = (columns as f32 / 2.0, -(rows as f32) / 2.0);
        let mut canvas = Canvas::new(columns * cell, rows * cell, center, cell as f32);
        let middle = |state: i32| ((state % self.columns) as f32 + 0.5, -((state / self.columns) as f32) - 0.5);
        canvas.rect((0.0, -(rows as f32)), (columns as f32, 0.0), 0.0, ICE.mix(WATER_LIGHT, 0.25));
        for (state, tile) in (0..).zip(&self.tiles) {
            canvas.at(middle(state), 0.0, |c| draw_tile(c, *tile, state));
        }
        let fallen = self.tiles[self.state as usize] == Tile::Hole;
        canvas.at(middle(self.state), 0.0, |c| draw_walker(c, self.last_action, fallen));
        canvas.into_frame()
    }
}

/// One tile in a square of side 1 around the origin.
fn draw_tile(c: &mut Canvas, tile: Tile, state: i32) {
    c.rect((-0.48, -0.48), (0.48, 0.48), 0.07, Fill::vertical(0.48, ICE_LIGHT, -0.48, ICE));
    // Two scratches, placed so that neighbouring tiles differ.
    let turn = (state * 37 % 11) as f32 * 0.57;
    c.at((0.0, 0.0), turn, |c| {
        c.line(&[(-0.22, 0.12), (0.06, 0.24)], 0.016, LIGHT);
        c.line(&[(-0.02, -0.24), (0.2, -0.15)], 0.012, LIGHT);
    });
    match tile {
        Tile::Frozen => {}
        Tile::Start => {
            c.circle((0.0, 0.0), 0.3, BLUE_LIGHT.alpha(70));
            c.circle((0.0, 0.0), 0.22, ICE_LIGHT);
        }
        Tile::Hole => {
            c.ellipse((0.0, 0.0), 0.4, 0.36, LIGHT);
            c.ellipse((0.0, -0.015), 0.36, 0.32, Fill::vertical(0.32, WATER, -0.32, WATER_LIGHT));
            c.ellipse((0.0, -0.1), 0.24, 0.16, LIGHT.alpha(28));
        }
        Tile::Goal => {
            c.shadow((0.04, -0.3), 0.26, 0.07);
            c.line(&[(-0.14, -0.3), (-0.14, 0.36)], 0.045, INK);
            let wave = [(-0.12, 0.36), (0.08, 0.31), (0.32, 0.34), (0.24, 0.2), (0.32, 0.06), (0.08, 0.03)];
            c.polygon(&[&wave[..], &[(-0.12, 0.08)]].concat(), GREEN);
        }
    }
}

/// The walker on its tile, seen from above; in a hole only the head is left.
fn draw_walker(c: &mut Canvas, last_action: i32, fallen: bool) {
    let angle = match last_action {
        0 => PI,
        2 => 0.0,
        3 => FRAC_PI_2,
        _ => -FRAC_PI_2,
    };
    if fallen {
        c.ellipse((0.0, -0.04), 0.25, 0.2, LIGHT.alpha(90));
        c.ellipse((0.0, -0.04), 0.19, 0.14, WATER_LIGHT);
        c.circle((0.0, -0.01), 0.12, Fill::vertical(0.11, ORANGE_LIGHT, -0.13, ORANGE));
        return;
    }
    c.shadow((0.03, -0.08), 0.32, 0.27);
    c.at((0.0, 0.0), angle, |c| {
        for side in [-1.0, 1.0] {
            c.line(&[(-0.05, 0.2 * side), (0.12, 0.25 * side)], 0.085, BLUE);
        }
        c.ellipse((-0.02, 0.0), 0.16, 0.22, Fill::horizontal(-0.18, BLUE, 0.14, BLUE_LIGHT));
        c.circle((0.03, 0.0), 0.135, ORANGE);
        c.circle((0.04, 0.0), 0.1, ORANGE_LIGHT);
        c.line(&[(-0.02, 0.0), (-0.24, 0.06)], 0.05, ORANGE);
        c.circle((0.14, 0.0), 0.028, MUTED.mix(INK, 0.7));
    });
}
