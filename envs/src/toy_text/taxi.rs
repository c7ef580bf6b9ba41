//! Taxi: fetch a passenger from one of four places and bring them to another.
//!
//! # Description
//! A town of 5 x 5 blocks with some walls between them and four places: R(ed), G(reen), Y(ellow) and B(lue).
//!
//! ```text
//! +---------+
//! |R: | : :G|
//! | : | : : |
//! | : : : : |
//! | | : | : |
//! |Y| : |B: |
//! +---------+
//! ```
//!
//! # Observation space
//! `Discrete(500)`: `((row * 5 + column) * 5 + passenger) * 4 + destination`, where `passenger` is one of the places R,
//! G, Y, B (0 to 3) or 4 in the taxi, and `destination` one of the places. 404 of them are reached in episodes.
//!
//! # Action space
//! `Discrete(6)`: 0 down, 1 up, 2 right, 3 left, 4 pick up, 5 drop off. [`action_mask`] says which of them do something.
//!
//! # Rewards
//! -1 a step; 20 for bringing the passenger to the destination; -10 for picking up or dropping off where that is not
//! possible. The passenger may be dropped off at each of the four places.
//!
//! # Start state
//! The taxi anywhere, the passenger at a place, the destination another one: 300 states with the same probability.
//!
//! # End of episode
//! Terminated when the passenger is dropped off at the destination; truncated after 200 steps.
//!
//! # Options
//! - `is_rainy` (bool, default false): a taxi that can move goes where it is steered with `rainy_probability` (0 to 1,
//!   default 0.8), and to either side of that with half of the rest each, where walls allow it.
//! - `fickle_passenger` (bool, default false): with `fickle_probability` (0 to 1, default 0.3) an episode's passenger
//!   chooses another destination when the taxi first moves with them.
//!
//! The batch stepper takes them, too.
//!
//! # Source
//! T. G. Dietterich, "Hierarchical Reinforcement Learning with the MAXQ Value Function Decomposition", 2000; as in
//! Gymnasium's `Taxi-v4`.

use std::f32::consts::{FRAC_PI_2, PI};
use std::sync::{Arc, LazyLock};

use super::tabular::{Outcomes, Starts, Table, Transition, TransitionModel};
use crate::batch::{DiscreteDynamics, DiscreteStepper, LaneRng};
use crate::render::{BLUE, Canvas, Color, Fill, GREEN, INK, INK_LIGHT, LIGHT, ORANGE, ORANGE_LIGHT, VIOLET};
use crate::{
    ActionRef, Controls, Env, EnvError, EnvSpec, Frame, Key, NpRng, ObsMut, Options, Space, StateReader, StateWriter,
    StepOutcome,
};

/// Registry entry.
pub const SPEC: EnvSpec = EnvSpec {
    id: "Taxi-v4",
    summary: "fetch a passenger and bring them to their destination",
    max_episode_steps: Some(200),
    reward_threshold: Some(8.0),
    render_fps: 4,
    controls: &[Controls {
        idle: None,
        keys: &[
            (Key::Left, &[(0, 3.0)], "left"),
            (Key::Right, &[(0, 2.0)], "right"),
            (Key::Up, &[(0, 1.0)], "up"),
            (Key::Down, &[(0, 0.0)], "down"),
            (Key::Char('p'), &[(0, 4.0)], "pick up"),
            (Key::Char('d'), &[(0, 5.0)], "drop off"),
        ],
    }],
    make: |options| Ok(Box::new(Taxi::new(options)?)),
    make_batch: Some(|options, n, limit, _| {
        let dynamics = TaxiDynamics::new(&Taxi::new(options)?);
        Ok(Box::new(DiscreteStepper::new(SPEC.id, dynamics, n, limit)))
    }),
};

const SIZE: i32 = 5;
const STATES: i32 = 500;
const ACTIONS: i32 = 6;
/// Rows and columns of R, G, Y and B.
const PLACES: [(i32, i32); 4] = [(0, 0), (0, 4), (4, 0), (4, 3)];
/// What stands for the place of a passenger who is in the taxi.
const ON_BOARD: i32 = 4;
/// Down, up, right, left, each with what lies to its left and to its right.
const MOVES: [[(i32, i32); 3]; 4] =
    [[(1, 0), (0, 1), (0, -1)], [(-1, 0), (0, -1), (0, 1)], [(0, 1), (-1, 0), (1, 0)], [(0, -1), (1, 0), (-1, 0)]];

static STARTS: LazyLock<Arc<Starts>> = LazyLock::new(|| {
    let is_start = |state: &i32| {
        let Town { passenger, destination, .. } = Town::of(*state);
        passenger != ON_BOARD && passenger != destination
    };
    Arc::new(Starts::uniform((0..STATES).filter(is_start).collect()))
});

/// A state, taken apart.
#[derive(Clone, Copy)]
struct Town {
    at: (i32, i32),
    passenger: i32,
    destination: i32,
}

impl Town {
    #[inline]
    fn of(state: i32) -> Self {
        let (block, rest) = (state / 20, state % 20);
        Self { at: (block / SIZE, block % SIZE), passenger: rest / 4, destination: rest % 4 }
    }

    #[inline]
    fn state(self) -> i32 {
        ((self.at.0 * SIZE + self.at.1) * 5 + self.passenger) * 4 + self.destination
    }

    /// The place where the taxi is.
    fn place(self) -> Option<i32> {
        (0..).zip(PLACES).find(|(_, at)| *at == self.at).map(|(place, _)| place)
    }

    /// Where a move leads; `None` if a wall or the edge of the town is in the way.
    #[inline]
    fn moved(self, (down, right): (i32, i32)) -> Option<(i32, i32)> {
        let (row, column) = self.at;
        let to = (row + down, column + right);
        let inside = (0..SIZE).contains(&to.0) && (0..SIZE).contains(&to.1);
        (inside && (right == 0 || !has_wall(row, column.min(to.1)))).then_some(to)
    }
}

/// Whether a wall stands to the right of a block.
fn has_wall(row: i32, column: i32) -> bool {
    if row < 2 { column == 1 } else { row > 2 && matches!(column, 0 | 2) }
}

/// Which actions do something in a state: moves that no wall blocks, picking up a passenger who waits there, dropping
/// off at one of the places.
pub fn action_mask(state: i32) -> [bool; 6] {
    let town = Town::of(state);
    let [down, up, right, left] = MOVES.map(|[ahead, ..]| town.moved(ahead).is_some());
    let place = town.place();
    let waits = town.passenger != ON_BOARD && place == Some(town.passenger);
    [down, up, right, left, waits, town.passenger == ON_BOARD && place.is_some()]
}

/// The town, the taxi and the passenger.
#[derive(Clone, Debug)]
pub struct Taxi {
    /// Probability of going where the taxi is steered, if it rains.
    rainy: Option<f64>,
    /// Probability that a passenger changes their mind, if they do at all.
    fickle: Option<f64>,
    starts: Arc<Starts>,
    state: i32,
    /// The passenger of this episode will change their mind, and has not done so yet.
    will_change: bool,
    /// The last move; -1 before the first.
    heading: i32,
    observation_space: Space,
    action_space: Space,
}

impl Taxi {
    /// Makes the environment, not started yet.
    ///
    /// # Errors
    /// [`EnvError::BadOption`] for an option of the wrong type or out of range.
    pub fn new(options: &mut Options) -> Result<Self, EnvError> {
        let is_rainy = options.bool("is_rainy", false)?;
        let rainy = options.f64_in("rainy_probability", 0.0..=1.0)?.unwrap_or(0.8);
        let is_fickle = options.bool("fickle_passenger", false)?;
        let fickle = options.f64_in("fickle_probability", 0.0..=1.0)?.unwrap_or(0.3);
        Ok(Self {
            rainy: is_rainy.then_some(rainy),
            fickle: is_fickle.then_some(fickle),
            starts: STARTS.clone(),
            state: 0,
            will_change: false,
            heading: -1,
            observation_space: Space::discrete(STATES),
            action_space: Space::discrete(ACTIONS),
        })
    }

    /// The whole problem as a table; what a fickle passenger does is not a part of it, as in Gymnasium.
    pub fn model(&self) -> TransitionModel {
        TransitionModel::new(STATES, ACTIONS, &self.starts, |state, action| self.outcomes(state, action))
    }

    /// The state that is observed.
    pub fn state(&self) -> i32 {
        self.state
    }

    /// Replaces the state; the passenger will not change their mind.
    ///
    /// # Panics
    /// If there is no such state.
    pub fn set_state(&mut self, state: i32) {
        assert!((0..STATES).contains(&state), "state {state} of {STATES}");
        (self.state, self.will_change, self.heading) = (state, false, -1);
    }

    fn outcomes(&self, state: i32, action: i32) -> Outcomes {
        let town = Town::of(state);
        let Some([ahead, left, right]) = MOVES.get(action as usize).copied() else {
            let (passenger, reward, terminated) = if action == 4 { pick_up(town) } else { drop_off(town) };
            return Outcomes::certain(Town { passenger, ..town }.state(), reward, terminated);
        };
        let to = |step| Town { at: town.moved(step).unwrap_or(town.at), ..town }.state();
        let Some(probability) = self.rainy else { return Outcomes::certain(to(ahead), -1.0, false) };
        let blocked = town.moved(ahead).is_none();
        let mut outcomes = Outcomes::default();
        let slip = (1.0 - probability) / 2.0;
        for (step, probability) in [(ahead, probability), (left, slip), (right, slip)] {
            // A taxi that stands does not slide.
            let next_state = if blocked { state } else { to(step) };
            outcomes.push(Transition { probability, next_state, reward: -1.0, terminated: false });
        }
        outcomes
    }
}

/// Where the passenger is after an attempt to pick them up, the reward, and whether the episode ends.
fn pick_up(town: Town) -> (i32, f64, bool) {
    let waits = town.passenger != ON_BOARD && town.place() == Some(town.passenger);
    if waits { (ON_BOARD, -1.0, false) } else { (town.passenger, -10.0, false) }
}

/// As [`pick_up`], for an attempt to drop them off.
fn drop_off(town: Town) -> (i32, f64, bool) {
    match town.place() {
        Some(place) if town.passenger == ON_BOARD => {
            let arrived = place == town.destination;
            (place, if arrived { 20.0 } else { -1.0 }, arrived)
        }
        _ => (town.passenger, -10.0, false),
    }
}

/// Whether a step from one state to another moved a taxi that had the passenger on board.
#[inline(always)]
fn has_carried(from: i32, to: i32) -> bool {
    from % 20 / 4 == ON_BOARD && from / 20 != to / 20
}

/// The state with the `choice`-th of the three other destinations.
#[inline(always)]
fn with_other_destination(state: i32, choice: i32) -> i32 {
    let destination = state % 4;
    state - destination + choice + i32::from(choice >= destination)
}

impl Env for Taxi {
    fn observation_space(&self) -> &Space {
        &self.observation_space
    }

    fn action_space(&self) -> &Space {
        &self.action_space
    }

    fn reset(&mut self, rng: &mut NpRng, obs: ObsMut<'_>) {
        let state = self.starts.draw(rng);
        self.set_state(state);
        if let Some(probability) = self.fickle {
            self.will_change = rng.random() < probability;
        }
        super::write([self.state], obs);
    }

    fn step(&mut self, action: ActionRef<'_>, rng: &mut NpRng, obs: ObsMut<'_>) -> StepOutcome {
        let action = super::discrete(action);
        if action < 4 {
            self.heading = action;
        }
        let mut outcome = self.outcomes(self.state, action).draw(rng);
        if self.will_change && has_carried(self.state, outcome.next_state) {
            self.will_change = false;
            outcome.next_state = with_other_destination(outcome.next_state, rng.integers(0, 3) as i32);
        }
        self.state = outcome.next_state;
        super::write([self.state], obs);
        StepOutcome { reward: outcome.reward, terminated: outcome.terminated, truncated: false }
    }

    fn action_mask(&self, mask: &mut [bool]) -> bool {
        mask.copy_from_slice(&action_mask(self.state));
        true
    }

    fn save_state(&self, to: &mut StateWriter) {
        to.i32(self.state);
        to.i32(self.heading);
        to.bool(self.will_change);
    }

    fn load_state(&mut self, from: &mut StateReader<'_>) -> Result<(), EnvError> {
        let state = super::load(from, 0, STATES, "a state")?;
        let heading = super::load(from, -1, 4, "a move")?;
        self.will_change = from.bool()?;
        (self.state, self.heading) = (state, heading);
        Ok(())
    }

    fn render(&self) -> Option<Frame> {
        Some(draw(self))
    }
}

/// The batch stepper's view: the table, and the fickle passenger.
struct TaxiDynamics {
    table: Table,
    /// Random bits below this make a passenger fickle.
    fickle: u32,
}

impl TaxiDynamics {
    fn new(taxi: &Taxi) -> Self {
        Self { table: Table::new(&taxi.model()), fickle: (taxi.fickle.unwrap_or(0.0) * 2f64.powi(32)) as u32 }
    }
}

impl DiscreteDynamics<1> for TaxiDynamics {
    /// The observed state, and whether the passenger will change their mind.
    type State = (i32, bool);

    #[inline(always)]
    fn num_actions(&self) -> i32 {
        ACTIONS
    }

    #[inline(always)]
    fn start(&self, rng: &mut LaneRng) -> (i32, bool) {
        (self.table.start(rng), self.fickle > 0 && rng.bits() < self.fickle)
    }

    #[inline(always)]
    fn step(&self, (state, will_change): (i32, bool), action: usize, rng: &mut LaneRng) -> ((i32, bool), f32, bool) {
        let (next, reward, terminated) = self.table.step(state, action, rng);
        if will_change && has_carried(state, next) {
            return ((with_other_destination(next, rng.below(3) as i32), false), reward, terminated);
        }
        ((next, will_change), reward, terminated)
    }

    #[inline(always)]
    fn observe(&self, (state, _): (i32, bool)) -> [i32; 1] {
        [state]
    }
}

const ROAD: Color = Color::hex(0xDCE3EE);
const BLOCK: Color = Color::hex(0xC9D3E3);
const RAIN: Color = Color::hex(0x5C7FBF);
const YELLOW: Color = Color::hex(0xF2B632);
const RED: Color = Color::hex(0xE5554F);
const PLACE_COLORS: [Color; 4] = [RED, GREEN, YELLOW, BLUE];

/// The town from above: places with their letters, walls, the waiting or riding passenger, the flag of the
/// destination, and the taxi, which looks where it went last.
fn draw(taxi: &Taxi) -> Frame {
    let town = Town::of(taxi.state);
    let size = SIZE as f32;
    let mut canvas = Canvas::new(500, 500, (size / 2.0, -size / 2.0), 500.0 / (size + 0.5));
    let middle = |(row, column): (i32, i32)| (column as f32 + 0.5, -(row as f32) - 0.5);
    canvas.rect((-0.12, -size - 0.12), (size + 0.12, 0.12), 0.16, INK_LIGHT);
    canvas.rect((-0.04, -size - 0.04), (size + 0.04, 0.04), 0.1, ROAD);
    for corner_row in 0..=SIZE {
        for corner_column in 0..=SIZE {
            let (x, y) = (corner_column as f32, -(corner_row as f32));
            let (low, high) = (0.01, size - 0.01);
            let clip = |v: f32| v.clamp(low, high);
            canvas.rect((clip(x - 0.2), -clip(0.2 - y)), (clip(x + 0.2), -clip(-y - 0.2)), 0.07, BLOCK);
        }
    }
    for i in 0..SIZE {
        for j in 0..SIZE - 1 {
            let along = j as f32 + 0.8;
            let across = i as f32 + 0.5;
            if !has_wall(i, j) {
                canvas.dashes((along, -across), (along + 0.4, -across), 0.022, [0.1, 0.05], LIGHT);
            }
            canvas.dashes((across, -along), (across, -along - 0.4), 0.022, [0.1, 0.05], LIGHT);
        }
    }
    for (place, (at, color)) in PLACES.into_iter().zip(PLACE_COLORS).enumerate() {
        let (x, y) = middle(at);
        canvas.rect((x - 0.38, y - 0.38), (x + 0.38, y + 0.38), 0.1, color.mix(LIGHT, 0.45));
        canvas.rect((x - 0.33, y - 0.33), (x + 0.33, y + 0.33), 0.07, color.mix(LIGHT, 0.75));
        canvas.centered_text((x - 0.19, y + 0.19), 0.17, ["R", "G", "Y", "B"][place], color);
    }
    for row in 0..SIZE {
        for column in (0..SIZE - 1).filter(|column| has_wall(row, *column)) {
            let (x, y) = (column as f32 + 1.0, -(row as f32));
            canvas.rect((x - 0.06, y - 1.04), (x + 0.06, y + 0.04), 0.06, INK_LIGHT);
            canvas.rect((x - 0.03, y - 1.01), (x, y + 0.01), 0.02, INK_LIGHT.mix(LIGHT, 0.25));
        }
    }
    let (x, y) = middle(PLACES[town.destination as usize]);
    canvas.line(&[(x + 0.12, y - 0.3), (x + 0.12, y + 0.28)], 0.035, INK);
    canvas.polygon(&[(x + 0.13, y + 0.29), (x + 0.36, y + 0.2), (x + 0.13, y + 0.1)], VIOLET);
    if let Some(place) = PLACES.get(town.passenger as usize) {
        let (x, y) = middle(*place);
        canvas.at((x - 0.12, y - 0.12), 0.0, draw_passenger);
    }
    canvas.at(middle(town.at), 0.0, |c| draw_taxi(c, taxi.heading, town.passenger == ON_BOARD));
    if taxi.rainy.is_some() {
        for i in 0..46 {
            let (x, y) = ((i * 37 % 97) as f32 / 97.0 * size, -((i * 61 % 89) as f32) / 89.0 * size);
            canvas.line(&[(x, y), (x - 0.05, y - 0.16)], 0.015, RAIN.alpha(120));
        }
    }
    canvas.into_frame()
}

fn draw_passenger(c: &mut Canvas) {
    c.shadow((0.02, -0.16), 0.15, 0.05);
    c.rect((-0.1, -0.18), (0.1, 0.05), 0.1, Fill::vertical(0.05, VIOLET.mix(LIGHT, 0.3), -0.18, VIOLET));
    c.circle((0.0, 0.12), 0.085, ORANGE_LIGHT);
}

fn draw_taxi(c: &mut Canvas, heading: i32, occupied: bool) {
    let angle = match heading {
        0 => -FRAC_PI_2,
        1 => FRAC_PI_2,
        3 => PI,
        _ => 0.0,
    };
    c.shadow((0.03, -0.06), 0.46, 0.34);
    c.at((0.0, 0.0), angle, |c| {
        for (x, y) in [(-0.21, -0.19), (-0.21, 0.19), (0.2, -0.19), (0.2, 0.19)] {
            c.rect((x - 0.08, y - 0.035), (x + 0.08, y + 0.035), 0.03, INK);
        }
        c.rect((-0.36, -0.19), (0.36, 0.19), 0.1, Fill::horizontal(-0.36, ORANGE, 0.36, YELLOW));
        c.rect((-0.26, -0.145), (0.16, 0.145), 0.07, INK);
        c.rect((-0.19, -0.13), (0.07, 0.13), 0.05, YELLOW.mix(LIGHT, 0.2));
        for y in [-0.13, 0.13] {
            c.circle((0.33, y), 0.03, LIGHT);
        }
        if occupied {
            c.circle((-0.06, 0.0), 0.1, VIOLET);
            c.circle((-0.06, 0.0), 0.07, ORANGE_LIGHT);
        } else {
            c.rect((-0.1, -0.07), (-0.02, 0.07), 0.02, LIGHT);
        }
    });
}
