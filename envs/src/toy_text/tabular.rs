//! Problems that are given by a table: for each state and action the outcomes with their probabilities.

use crate::NpRng;
use crate::batch::{DiscreteDynamics, LaneRng};

/// Most outcomes of an action: the intended one and a slip to either side.
const MAX_OUTCOMES: usize = 3;

/// One possible outcome of an action.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Transition {
    /// How likely it is.
    pub probability: f64,
    /// The state that follows.
    pub next_state: i32,
    /// Reward of the step.
    pub reward: f64,
    /// The state that follows is terminal.
    pub terminated: bool,
}

/// The outcomes of one action in one state.
#[derive(Clone, Copy, Default)]
pub(super) struct Outcomes {
    all: [Transition; MAX_OUTCOMES],
    len: usize,
}

impl Outcomes {
    /// A certain outcome.
    pub(super) fn certain(next_state: i32, reward: f64, terminated: bool) -> Self {
        let mut outcomes = Self::default();
        outcomes.push(Transition { probability: 1.0, next_state, reward, terminated });
        outcomes
    }

    /// Adds an outcome.
    pub(super) fn push(&mut self, outcome: Transition) {
        self.all[self.len] = outcome;
        self.len += 1;
    }

    /// The outcome of the next uniform draw; certain outcomes take one, too.
    #[inline]
    pub(super) fn draw(&self, rng: &mut NpRng) -> Transition {
        let uniform = rng.random();
        let mut cumulative = 0.0;
        for outcome in &self.all[..self.len] {
            cumulative += outcome.probability;
            if cumulative > uniform {
                return *outcome;
            }
        }
        // Rounding left the sum below the draw: numpy's `argmax` finds nothing and says 0.
        self.all[0]
    }
}

/// A distribution of start states that is uniform over some states.
#[derive(Clone, Debug)]
pub(super) struct Starts {
    states: Vec<i32>,
    /// Sum of the probabilities of the states up to this one, in numpy's order of additions.
    cumulative: Vec<f64>,
}

impl Starts {
    /// Uniform over `states`, which ascend.
    pub(super) fn uniform(states: Vec<i32>) -> Self {
        let probability = 1.0 / states.len() as f64;
        let sum = |sum: &mut f64, _| {
            *sum += probability;
            Some(*sum)
        };
        let cumulative = (0..states.len()).scan(0.0, sum).collect();
        Self { states, cumulative }
    }

    /// The start state of the next uniform draw.
    pub(super) fn draw(&self, rng: &mut NpRng) -> i32 {
        let uniform = rng.random();
        let at = self.cumulative.partition_point(|sum| *sum <= uniform);
        // Past the end as in `Outcomes::draw`.
        self.states.get(at).copied().unwrap_or(0)
    }
}

/// A whole problem as a table, for planners: Gymnasium's `P` and `initial_state_distrib`.
#[derive(Clone, Debug, PartialEq)]
pub struct TransitionModel {
    num_actions: usize,
    /// Where the outcomes of each state and action begin, and their total number.
    first: Vec<usize>,
    transitions: Vec<Transition>,
    start: Vec<f64>,
}

impl TransitionModel {
    /// The table of all `outcomes`, a function of state and action.
    pub(super) fn new(
        num_states: i32,
        num_actions: i32,
        starts: &Starts,
        outcomes: impl Fn(i32, i32) -> Outcomes,
    ) -> Self {
        let (mut first, mut transitions) = (vec![0], Vec::new());
        for state in 0..num_states {
            for action in 0..num_actions {
                let Outcomes { all, len } = outcomes(state, action);
                transitions.extend_from_slice(&all[..len]);
                first.push(transitions.len());
            }
        }
        let mut start = vec![0.0; num_states as usize];
        starts.states.iter().for_each(|state| start[*state as usize] = 1.0 / starts.states.len() as f64);
        Self { num_actions: num_actions as usize, first, transitions, start }
    }

    /// Number of states.
    pub fn num_states(&self) -> usize {
        self.start.len()
    }

    /// Number of actions in every state.
    pub fn num_actions(&self) -> usize {
        self.num_actions
    }

    /// The outcomes of an action, in the order in which the environment's draw goes through them.
    ///
    /// # Panics
    /// If there is no such state or action.
    pub fn transitions(&self, state: usize, action: usize) -> &[Transition] {
        assert!(action < self.num_actions, "action {action} of {}", self.num_actions);
        let at = state * self.num_actions + action;
        &self.transitions[self.first[at]..self.first[at + 1]]
    }

    /// Probability of each state to be the first: `[num_states]`.
    pub fn start_distribution(&self) -> &[f64] {
        &self.start
    }
}

/// A [`TransitionModel`] as batch steppers look it up.
pub(super) struct Table {
    num_actions: i32,
    rows: Vec<Row>,
    starts: Vec<i32>,
}

/// The outcomes of one action in one state. Random bits below the first of `cuts` choose the first outcome.
#[derive(Clone, Copy)]
struct Row {
    cuts: [u32; MAX_OUTCOMES - 1],
    outcomes: [Outcome; MAX_OUTCOMES],
}

#[derive(Clone, Copy)]
struct Outcome {
    /// Negative, with all bits inverted, if terminal.
    next_state: i32,
    reward: f32,
}

impl Table {
    pub(super) fn new(model: &TransitionModel) -> Self {
        let row = |state: usize, action: usize| {
            let transitions = model.transitions(state, action);
            let outcome = |k: usize| {
                let t = transitions[k.min(transitions.len() - 1)];
                let next_state = if t.terminated { !t.next_state } else { t.next_state };
                Outcome { next_state, reward: t.reward as f32 }
            };
            let cut = |k: usize| {
                let sum: f64 = transitions.iter().take(k + 1).map(|t| t.probability).sum();
                // Saturates for a certain outcome; the one draw in 2^32 beyond finds the last outcome again.
                (sum * 2f64.powi(32)) as u32
            };
            Row { cuts: std::array::from_fn(cut), outcomes: std::array::from_fn(outcome) }
        };
        let pairs = (0..model.num_states()).flat_map(|s| (0..model.num_actions()).map(move |a| (s, a)));
        let starts = model.start_distribution().iter().enumerate().filter(|(_, p)| **p > 0.0);
        Self {
            num_actions: model.num_actions() as i32,
            rows: pairs.map(|(state, action)| row(state, action)).collect(),
            starts: starts.map(|(state, _)| state as i32).collect(),
        }
    }
}

impl DiscreteDynamics<1> for Table {
    type State = i32;

    #[inline(always)]
    fn num_actions(&self) -> i32 {
        self.num_actions
    }

    #[inline(always)]
    fn start(&self, rng: &mut LaneRng) -> i32 {
        self.starts[rng.below(self.starts.len() as u32) as usize]
    }

    #[inline(always)]
    fn step(&self, state: i32, action: usize, rng: &mut LaneRng) -> (i32, f32, bool) {
        let row = &self.rows[state as usize * self.num_actions as usize + action];
        let bits = rng.bits();
        let outcome = row.outcomes[usize::from(bits >= row.cuts[0]) + usize::from(bits >= row.cuts[1])];
        let terminated = outcome.next_state < 0;
        (if terminated { !outcome.next_state } else { outcome.next_state }, outcome.reward, terminated)
    }

    #[inline(always)]
    fn observe(&self, state: i32) -> [i32; 1] {
        [state]
    }
}
