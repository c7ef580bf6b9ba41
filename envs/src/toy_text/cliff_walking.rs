//! Cliff walking: go from one end of a cliff's edge to the other without stepping over it.
//!
//! # Description
//! A grid of 4 rows and 12 columns. Start and goal are the two lower corners; all tiles between them are the cliff.
//! Stepping onto the cliff costs a lot and puts the walker back to the start; the episode goes on.
//!
//! # Observation space
//! `Discrete(48)`: `row * 12 + column` of the walker's tile, counted from the upper left. An episode never shows the
//! cliff's tiles.
//!
//! # Action space
//! `Discrete(4)`: 0 up, 1 right, 2 down, 3 left. In `CliffWalkingSlippery-v1` the walker goes where it wants, or to
//! either side of that, with probability 1/3 each.
//!
//! # Rewards
//! -1 a step, -100 for a step onto the cliff.
//!
//! # Start state
//! The lower left corner, state 36.
//!
//! # End of episode
//! Terminated at the lower right corner, state 47. There is no time limit: set `max_episode_steps` when training.
//!
//! # Options
//! `is_slippery` (bool, by default that of the id); the batch stepper takes it, too.
//!
//! # Source
//! R. S. Sutton and A. G. Barto, *Reinforcement Learning: An Introduction*, 2nd edition, 2018, example 6.6.

use std::f32::consts::FRAC_PI_2;

use super::tabular::{Outcomes, Starts, Table, Transition, TransitionModel};
use crate::batch::DiscreteStepper;
use crate::render::{BLUE, BLUE_LIGHT, Canvas, Color, Fill, GREEN, INK, LIGHT, ORANGE, ORANGE_LIGHT, SHADOW};
use crate::{
    ActionRef, BatchEnv, Controls, Env, EnvError, EnvSpec, Frame, Key, NpRng, ObsMut, Options, Space, StateReader,
    StateWriter, StepOutcome,
};

const CONTROLS: &[Controls] = &[Controls {
    idle: None,
    keys: &[
        (Key::Left, &[(0, 3.0)], "left"),
        (Key::Right, &[(0, 1.0)], "right"),
        (Key::Up, &[(0, 0.0)], "up"),
        (Key::Down, &[(0, 2.0)], "down"),
    ],
}];

/// Registry entry.
pub const SPEC: EnvSpec = EnvSpec {
    id: "CliffWalking-v1",
    summary: "walk along a cliff",
    max_episode_steps: None,
    reward_threshold: None,
    render_fps: 4,
    controls: CONTROLS,
    make: |options| Ok(Box::new(CliffWalking::new(options)?)),
    make_batch: Some(|options, n, limit, _| Ok(CliffWalking::new(options)?.batch(SPEC.id, n, limit))),
};

/// Registry entry of the slippery cliff.
pub const SPEC_SLIPPERY: EnvSpec = EnvSpec {
    id: "CliffWalkingSlippery-v1",
    summary: "walk along a slippery cliff",
    controls: CONTROLS,
    make: |options| Ok(Box::new(CliffWalking::with_default(options, true)?)),
    make_batch: Some(|options, n, limit, _| {
        Ok(CliffWalking::with_default(options, true)?.batch(SPEC_SLIPPERY.id, n, limit))
    }),
    ..SPEC
};

const ROWS: i32 = 4;
const COLUMNS: i32 = 12;
const STATES: i32 = ROWS * COLUMNS;
const ACTIONS: i32 = 4;
const START: i32 = (ROWS - 1) * COLUMNS;
const GOAL: i32 = STATES - 1;

/// The cliff and the walker.
#[derive(Clone, Debug)]
pub struct CliffWalking {
    is_slippery: bool,
    starts: Starts,
    state: i32,
    /// The last action; -1 before the first.
    last_action: i32,
    observation_space: Space,
    action_space: Space,
}

impl CliffWalking {
    /// Makes the environment, not started yet.
    ///
    /// # Errors
    /// [`EnvError::BadOption`] if an option has the wrong type.
    pub fn new(options: &mut Options) -> Result<Self, EnvError> {
        Self::with_default(options, false)
    }

    fn with_default(options: &mut Options, is_slippery: bool) -> Result<Self, EnvError> {
        Ok(Self {
            is_slippery: options.bool("is_slippery", is_slippery)?,
            starts: Starts::uniform(vec![START]),
            state: START,
            last_action: -1,
            observation_space: Space::discrete(STATES),
            action_space: Space::discrete(ACTIONS),
        })
    }

    /// The whole problem as a table.
    pub fn model(&self) -> TransitionModel {
        TransitionModel::new(STATES, ACTIONS, &self.starts, |state, action| self.outcomes(state, action))
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
        assert!((0..STATES).contains(&state), "tile {state} of {STATES}");
        (self.state, self.last_action) = (state, -1);
    }

    fn batch(&self, id: &'static str, num_envs: usize, limit: u32) -> Box<dyn BatchEnv> {
        Box::new(DiscreteStepper::new(id, Table::new(&self.model()), num_envs, limit))
    }

    fn outcomes(&self, state: i32, action: i32) -> Outcomes {
        if !self.is_slippery {
            let (next_state, reward, terminated) = walk(state, action);
            return Outcomes::certain(next_state, reward, terminated);
        }
        let mut outcomes = Outcomes::default();
        for turn in [ACTIONS - 1, 0, 1] {
            let (next_state, reward, terminated) = walk(state, (action + turn) % ACTIONS);
            outcomes.push(Transition { probability: 1.0 / 3.0, next_state, reward, terminated });
        }
        outcomes
    }
}

/// Where going in one direction leads, the reward for it, and whether it ends there.
fn walk(state: i32, direction: i32) -> (i32, f64, bool) {
    let (row, column) = (state / COLUMNS, state % COLUMNS);
    let (row, column) = match direction {
        0 => ((row - 1).max(0), column),
        1 => (row, (column + 1).min(COLUMNS - 1)),
        2 => ((row + 1).min(ROWS - 1), column),
        _ => (row, (column - 1).max(0)),
    };
    let next = row * COLUMNS + column;
    if next > START && next < GOAL { (START, -100.0, false) } else { (next, -1.0, next == GOAL) }
}

impl Env for CliffWalking {
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
        let state = super::load(from, 0, STATES, "a tile")?;
        self.last_action = super::load(from, -1, ACTIONS, "an action")?;
        self.state = state;
        Ok(())
    }

    fn render(&self) -> Option<Frame> {
        Some(draw(self.state, self.last_action))
    }
}

const GRASS: Color = Color::hex(0xBFE0C8);
const GRASS_LIGHT: Color = Color::hex(0xCDE8D4);
const ROCK: Color = Color::hex(0x6B7690);
const ROCK_DARK: Color = Color::hex(0x3C475F);

/// The meadow seen from above, the abyss below its edge, the goal's flag and the walker.
fn draw(state: i32, last_action: i32) -> Frame {
    let (columns, rows) = (COLUMNS as f32, ROWS as f32);
    let mut canvas = Canvas::new(768, 256, (columns / 2.0, -rows / 2.0), 64.0);
    let middle = |state: i32| ((state % COLUMNS) as f32 + 0.5, -((state / COLUMNS) as f32) - 0.5);
    for state in 0..STATES {
        let ((x, y), even) = (middle(state), (state / COLUMNS + state % COLUMNS) % 2 == 0);
        canvas.rect((x - 0.5, y - 0.5), (x + 0.5, y + 0.5), 0.0, if even { GRASS } else { GRASS_LIGHT });
        let (dx, dy) = ((state * 29 % 13) as f32 * 0.04 - 0.26, (state * 17 % 11) as f32 * 0.05 - 0.25);
        for blade in [-0.04, 0.0, 0.04] {
            let foot = (x + dx + 0.5 * blade, y + dy);
            canvas.line(&[foot, (foot.0 + blade, foot.1 + 0.09)], 0.014, GREEN.alpha(110));
        }
    }
    draw_abyss(&mut canvas);
    let (x, y) = middle(START);
    canvas.circle((x, y), 0.32, BLUE_LIGHT.alpha(80));
    canvas.circle((x, y), 0.24, GRASS_LIGHT);
    canvas.at(middle(GOAL), 0.0, |c| {
        c.shadow((0.06, -0.3), 0.26, 0.08);
        c.line(&[(-0.14, -0.3), (-0.14, 0.36)], 0.05, INK);
        c.polygon(&[(-0.12, 0.36), (0.3, 0.21), (-0.12, 0.06)], ORANGE);
    });
    canvas.at(middle(state), 0.0, |c| {
        c.shadow((0.04, -0.1), 0.32, 0.27);
        let angle = if last_action < 0 { 0.0 } else { FRAC_PI_2 - FRAC_PI_2 * last_action as f32 };
        c.at((0.0, 0.0), angle, |c| {
            c.ellipse((0.0, 0.0), 0.17, 0.25, Fill::horizontal(-0.17, BLUE, 0.17, BLUE_LIGHT));
            c.circle((0.02, 0.0), 0.14, INK);
            c.circle((0.05, 0.0), 0.1, ORANGE_LIGHT);
        });
    });
    canvas.into_frame()
}

/// The cliff between start and goal: a face of rock that falls into the dark, with a ragged edge.
fn draw_abyss(canvas: &mut Canvas) {
    let (left, right, top, bottom) = (1.0, COLUMNS as f32 - 1.0, 1.0 - ROWS as f32, -(ROWS as f32));
    canvas.rect((left, bottom), (right, top), 0.0, Fill::vertical(top - 0.1, ROCK, bottom, INK));
    let teeth = 40;
    let edge = |lift: f32, depth: f32| -> Vec<(f32, f32)> {
        let tooth = |i: i32| (i * 7 % 5) as f32 * 0.25 * depth;
        let x = |i: i32| left + (right - left) * i as f32 / teeth as f32;
        let ragged = (0..=teeth).rev().map(|i| (x(i), top - lift - tooth(i)));
        [(left, top), (right, top)].into_iter().chain(ragged).collect()
    };
    canvas.polygon(&edge(0.3, 0.3), ROCK_DARK.alpha(120));
    canvas.polygon(&edge(0.16, 0.2), ROCK.mix(LIGHT, 0.25));
    canvas.polygon(&edge(0.05, 0.1), GRASS);
    for x in [left, right] {
        let inward = if x == left { 0.12 } else { -0.12 };
        canvas.polygon(&[(x, top), (x + inward, top - 0.1), (x + inward, bottom), (x, bottom)], SHADOW);
    }
}
