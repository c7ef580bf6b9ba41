//! MinAtar: five Atari games cut down to a board of 10 x 10 cells and a few channels of zeros and ones.
//!
//! K. Young and T. Tian, "MinAtar: An Atari-Inspired Testbed for Thorough and Reproducible Reinforcement Learning
//! Experiments", 2019. The rules are those of the Python package `minatar` 1.0.15, whose recorded games the tests
//! replay draw for draw; the code is this crate's own. What the games share is here: the board, sticky actions, the
//! action sets, observations, pictures. A game itself is a file with its rules.
//!
//! # Observation space
//! `Box(0, 1, [10, 10, C], u8)`: row (from the top), column, channel; 1 where the channel's object is.
//!
//! # Action space
//! `Discrete` over the game's own minimal action set (the reference's `v1`), in the order noop, left, up, right, down,
//! fire; with `use_minimal_action_set = false` all six in this order (its `v0`), of which some do nothing.
//!
//! # Options
//! `sticky_action_prob` (default 0.1): probability that a step repeats the last action instead of the given one.
//! `difficulty_ramping` (default true): games that know levels get faster; Breakout and Freeway have none.
//! `use_minimal_action_set` (default true): see above.
//!
//! # Departures from the reference
//! Randomness comes from [`NpRng`], not from numpy's older `RandomState`: the same draws in the same order from the
//! same distributions, but other values for a seed. A reset forgets the last action, which the reference carries into
//! the next episode's first step, so that a seed alone decides an episode.

pub mod asterix;
pub mod breakout;
pub mod freeway;
pub mod seaquest;
pub mod space_invaders;
#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;

use crate::render::{Canvas, Color, Fill, GROUND_BOTTOM, INK, INK_LIGHT};
use crate::{
    ActionRef, Controls, Dtype, Env, EnvError, Frame, Key, NpRng, ObsMut, Options, Space, StateReader, StateWriter,
    StepOutcome,
};

/// Cells of a board's side.
const SIDE: i32 = 10;
const CELLS: usize = (SIDE * SIDE) as usize;

/// Keys for all six actions.
const ALL_CONTROLS: Controls = Controls {
    idle: Some(&[0.0]),
    keys: &[
        (Key::Left, &[(0, 1.0)], "left"),
        (Key::Up, &[(0, 2.0)], "up"),
        (Key::Right, &[(0, 3.0)], "right"),
        (Key::Down, &[(0, 4.0)], "down"),
        (Key::Space, &[(0, 5.0)], "fire"),
    ],
};

/// One bit a cell, row after row from the top; bit 0 is the upper left cell.
type Board = u128;

/// The board with one cell set.
fn cell(x: i32, y: i32) -> Board {
    1 << (SIDE * y + x)
}

/// The cell behind something that heads to the right, or to the left; nothing where that is off the board.
fn cell_behind(x: i32, y: i32, heads_right: bool) -> Board {
    let x = if heads_right { x - 1 } else { x + 1 };
    if (0..SIDE).contains(&x) { cell(x, y) } else { 0 }
}

/// One step to the right or left.
fn ahead(x: i32, heads_right: bool) -> i32 {
    if heads_right { x + 1 } else { x - 1 }
}

/// What a player can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Noop,
    Left,
    Up,
    Right,
    Down,
    Fire,
}

const ALL_ACTIONS: &[Action] = &[Action::Noop, Action::Left, Action::Up, Action::Right, Action::Down, Action::Fire];

/// The source of a game's random draws: the environment's generator, or a recording.
trait Draws {
    /// A uniform number in `[0, 1)`.
    fn uniform(&mut self) -> f64;

    /// A uniform integer in `0..n`.
    fn below(&mut self, n: i32) -> i32;

    /// A coin.
    fn coin(&mut self) -> bool {
        self.uniform() < 0.5
    }
}

impl Draws for NpRng {
    #[inline]
    fn uniform(&mut self) -> f64 {
        self.random()
    }

    #[inline]
    fn below(&mut self, n: i32) -> i32 {
        self.integers(0, n.into()) as i32
    }
}

/// A game with `C` channels.
trait Game<const C: usize>: Default + Send + 'static {
    /// What the channels show, in the order of the observation.
    const CHANNELS: [Channel; C];

    /// The minimal action set.
    const ACTIONS: &'static [Action];

    /// Starts a new episode.
    fn start(&mut self, draws: &mut impl Draws);

    /// Advances one step: its reward, and whether the game is over.
    fn step(&mut self, action: Action, ramping: bool, draws: &mut impl Draws) -> (i32, bool);

    /// The channels of the observation.
    fn planes(&self) -> [Board; C];

    /// Writes the state.
    fn save(&self, to: &mut StateWriter);

    /// Reads what [`Game::save`] wrote; `self` is in no particular state after an error.
    fn load(&mut self, from: &mut StateReader<'_>) -> Result<(), EnvError>;
}

/// A channel's look. Later channels are drawn over earlier ones.
struct Channel {
    color: Color,
    shape: Shape,
}

/// How a cell of a channel is drawn.
enum Shape {
    /// The whole cell.
    Block,
    /// A disk in the cell.
    Disk,
    /// An upright bar, for shots up or down.
    Bolt,
    /// A lying bar, for shots to the side.
    Dart,
    /// A faint dot: where something has just been.
    Trail,
    /// Nothing: the channel repeats another one.
    Hidden,
}

/// The environment around a game.
struct MinAtar<G, const C: usize> {
    game: G,
    last_action: Action,
    over: bool,
    actions: &'static [Action],
    sticky_action_prob: f64,
    ramping: bool,
    observation_space: Space,
    action_space: Space,
}

impl<G: Game<C>, const C: usize> MinAtar<G, C> {
    fn new(options: &mut Options) -> Result<Self, EnvError> {
        let sticky_action_prob = options.f64("sticky_action_prob", 0.1)?;
        if !(0.0..=1.0).contains(&sticky_action_prob) {
            return Err(options.bad("sticky_action_prob", "a probability from 0 to 1", sticky_action_prob));
        }
        let actions = if options.bool("use_minimal_action_set", true)? { G::ACTIONS } else { ALL_ACTIONS };
        let (len, shape) = (CELLS * C, vec![SIDE as usize, SIDE as usize, C]);
        Ok(Self {
            game: G::default(),
            last_action: Action::Noop,
            over: false,
            actions,
            sticky_action_prob,
            ramping: options.bool("difficulty_ramping", true)?,
            observation_space: Space::boxed(vec![0.0; len], vec![1.0; len], shape, Dtype::U8),
            action_space: Space::discrete(actions.len() as i32),
        })
    }

    fn start(&mut self, draws: &mut impl Draws) {
        self.last_action = Action::Noop;
        self.over = false;
        self.game.start(draws);
    }

    /// A game that is over stands still.
    fn advance(&mut self, action: i32, draws: &mut impl Draws) -> StepOutcome {
        if draws.uniform() >= self.sticky_action_prob {
            self.last_action = self.actions[action as usize];
        }
        let mut reward = 0;
        if !self.over {
            (reward, self.over) = self.game.step(self.last_action, self.ramping, draws);
        }
        StepOutcome { reward: reward.into(), terminated: self.over, truncated: false }
    }

    fn observe(&self, obs: ObsMut<'_>) {
        let ObsMut::U8(row) = obs else { unreachable!("the observation space is a box of bytes") };
        row.fill(0);
        for (channel, plane) in self.game.planes().into_iter().enumerate() {
            for_each_cell(plane, |i| row[i * C + channel] = 1);
        }
    }
}

/// Calls `visit` with the index of every cell that is set.
#[inline(always)]
fn for_each_cell(board: Board, mut visit: impl FnMut(usize)) {
    for (half, offset) in [(board as u64, 0), ((board >> 64) as u64, 64)] {
        let mut rest = half;
        while rest != 0 {
            visit(offset + rest.trailing_zeros() as usize);
            rest &= rest - 1;
        }
    }
}

impl<G: Game<C>, const C: usize> Env for MinAtar<G, C> {
    fn observation_space(&self) -> &Space {
        &self.observation_space
    }

    fn action_space(&self) -> &Space {
        &self.action_space
    }

    fn reset(&mut self, rng: &mut NpRng, obs: ObsMut<'_>) {
        self.start(rng);
        self.observe(obs);
    }

    fn step(&mut self, action: ActionRef<'_>, rng: &mut NpRng, obs: ObsMut<'_>) -> StepOutcome {
        let ActionRef::I32(&[action]) = action else { unreachable!("the action space is discrete") };
        let outcome = self.advance(action, rng);
        self.observe(obs);
        outcome
    }

    fn save_state(&self, to: &mut StateWriter) {
        to.u8(self.last_action as u8);
        to.bool(self.over);
        self.game.save(to);
    }

    fn load_state(&mut self, from: &mut StateReader<'_>) -> Result<(), EnvError> {
        self.last_action = ALL_ACTIONS[from.u8().and_then(|i| within(i.into(), 0..=5, "an action"))? as usize];
        self.over = from.bool()?;
        self.game.load(from)
    }

    fn render(&self) -> Option<Frame> {
        Some(draw(&G::CHANNELS, &self.game.planes()))
    }
}

/// A saved number that must lie in `range`.
fn within(value: i32, range: RangeInclusive<i32>, what: &str) -> Result<i32, EnvError> {
    if range.contains(&value) {
        return Ok(value);
    }
    Err(EnvError::State {
        expected: format!("{what} from {} to {}", range.start(), range.end()),
        found: value.to_string(),
    })
}

/// Reads a number that must lie in `range`.
fn read(from: &mut StateReader<'_>, range: RangeInclusive<i32>, what: &str) -> Result<i32, EnvError> {
    within(from.i32()?, range, what)
}

/// Reads a board, which has no bits beyond its cells.
fn read_board(from: &mut StateReader<'_>) -> Result<Board, EnvError> {
    let board = from.u128()?;
    if board >> CELLS == 0 {
        return Ok(board);
    }
    Err(EnvError::State { expected: "a board of 100 cells".into(), found: format!("{board:#x}") })
}

/// The board, channel over channel.
fn draw(channels: &[Channel], planes: &[Board]) -> Frame {
    const PIXELS: f32 = 40.0;
    let side = SIDE as f32;
    let mut canvas = Canvas::new(440, 440, (side / 2.0, side / 2.0), PIXELS);
    canvas.rect((-0.25, -0.25), (side + 0.25, side + 0.25), 0.25, Fill::vertical(side, INK_LIGHT, 0.0, INK));
    for i in 0..CELLS as i32 {
        let (x, y) = ((i % SIDE) as f32, side - 1.0 - (i / SIDE) as f32);
        canvas.rect((x + 0.03, y + 0.03), (x + 0.97, y + 0.97), 0.08, INK);
    }
    for (channel, plane) in channels.iter().zip(planes) {
        for_each_cell(*plane, |i| {
            let (x, y) = ((i as i32 % SIDE) as f32, side - 1.0 - (i as i32 / SIDE) as f32);
            let (low, high) = match channel.shape {
                Shape::Block => ((0.03, 0.03), (0.97, 0.97)),
                Shape::Disk => ((0.12, 0.12), (0.88, 0.88)),
                Shape::Bolt => ((0.38, 0.1), (0.62, 0.9)),
                Shape::Dart => ((0.1, 0.38), (0.9, 0.62)),
                Shape::Trail => ((0.34, 0.34), (0.66, 0.66)),
                Shape::Hidden => return,
            };
            let radius = match channel.shape {
                Shape::Block => 0.1,
                _ => 0.5,
            };
            let (low, high) = ((x + low.0, y + low.1), (x + high.0, y + high.1));
            let (top, bottom) = (channel.color.mix(GROUND_BOTTOM, 0.18), channel.color);
            canvas.rect(low, high, radius, Fill::vertical(high.1, top, low.1, bottom));
        });
    }
    canvas.into_frame()
}
