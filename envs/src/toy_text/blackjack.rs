//! Blackjack: get closer to 21 than the dealer, but not over it.
//!
//! # Description
//! Cards come from an infinite deck. Face cards count 10, an ace 11 where that does not exceed 21 (it is usable then),
//! else 1. The player sees one of the dealer's two cards and takes more cards until they stick or go bust; then the
//! dealer takes cards up to a sum of 17 or more. Who is closer to 21 wins.
//!
//! # Observation space
//! `Tuple(Discrete(32), Discrete(11), Discrete(2))`: the player's sum (4 to 31), the dealer's open card (1 to 10, where
//! 1 is an ace), and whether the player has a usable ace.
//!
//! # Action space
//! `Discrete(2)`: 0 stick, 1 hit.
//!
//! # Rewards
//! 1 for a win, -1 for a loss, 0 for a draw and before the end.
//!
//! # Start state
//! Two cards each.
//!
//! # End of episode
//! Terminated when the player sticks or goes bust; there is no time limit. A step past the end changes nothing.
//!
//! # Options
//! - `sab` (bool, default true): Sutton and Barto's rules. A natural, ace and ten in two cards, wins against all but the
//!   dealer's natural.
//! - `natural` (bool, default false): without `sab`, winning with a natural gives 1.5.
//!
//! The batch stepper takes them, too.
//!
//! # Source
//! R. S. Sutton and A. G. Barto, *Reinforcement Learning: An Introduction*, 2nd edition, 2018, example 5.1.

use super::write;
use crate::batch::{DiscreteDynamics, DiscreteStepper, LaneRng};
use crate::render::{BLUE, BLUE_LIGHT, Canvas, Color, Fill, GREEN, INK, LIGHT, MUTED, SHADOW};
use crate::{
    ActionRef, Controls, Env, EnvError, EnvSpec, Frame, Key, NpRng, ObsMut, Options, Space, StateReader, StateWriter,
    StepOutcome,
};

/// Registry entry.
pub const SPEC: EnvSpec = EnvSpec {
    id: "Blackjack-v1",
    summary: "get closer to 21 than the dealer",
    max_episode_steps: None,
    reward_threshold: None,
    render_fps: 4,
    controls: &[Controls {
        idle: None,
        keys: &[(Key::Char('h'), &[(0, 1.0)], "hit"), (Key::Char('s'), &[(0, 0.0)], "stick")],
    }],
    make: |options| Ok(Box::new(Blackjack::new(options)?)),
    make_batch: Some(|options, n, limit, _| {
        Ok(Box::new(DiscreteStepper::new(SPEC.id, BlackjackDynamics::new(Rules::read(options)?), n, limit)))
    }),
};

/// Cards of the deck that differ: ace to ten, jack, queen, king.
const KINDS: u32 = 13;
/// More cards than a hand can have: 21 aces, and one more.
const MAX_CARDS: usize = 22;
/// The dealer stops at this sum.
const DEALER_STOPS: u32 = 17;

/// The value of one of the kinds of cards.
#[inline(always)]
fn card_value(kind: u32) -> u32 {
    (kind + 1).min(10)
}

/// What of a hand matters to the rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Hand {
    /// Sum with aces as 1.
    low: u32,
    cards: u32,
    has_ace: bool,
}

impl Hand {
    #[inline(always)]
    fn take(&mut self, value: u32) {
        self.low += value;
        self.cards += 1;
        self.has_ace |= value == 1;
    }

    #[inline(always)]
    fn has_usable_ace(self) -> bool {
        self.has_ace && self.low <= 11
    }

    #[inline(always)]
    fn sum(self) -> u32 {
        self.low + if self.has_usable_ace() { 10 } else { 0 }
    }

    /// The sum, 0 if it is over 21.
    #[inline(always)]
    fn score(self) -> u32 {
        if self.is_bust() { 0 } else { self.sum() }
    }

    #[inline(always)]
    fn is_bust(self) -> bool {
        self.low > 21
    }

    #[inline(always)]
    fn is_natural(self) -> bool {
        self.cards == 2 && self.sum() == 21
    }
}

/// Which rules are played.
#[derive(Clone, Copy, Debug)]
struct Rules {
    sab: bool,
    natural: bool,
}

impl Rules {
    fn read(options: &mut Options) -> Result<Self, EnvError> {
        Ok(Self { sab: options.bool("sab", true)?, natural: options.bool("natural", false)? })
    }

    /// The player's reward when all cards are taken.
    #[inline(always)]
    fn settle(self, player: Hand, dealer_score: u32, dealer_is_natural: bool) -> f32 {
        let (mine, theirs) = (player.score(), dealer_score);
        let reward = f32::from(i8::from(mine > theirs) - i8::from(mine < theirs));
        if self.sab && player.is_natural() && !dealer_is_natural {
            1.0
        } else if !self.sab && self.natural && player.is_natural() && reward == 1.0 {
            1.5
        } else {
            reward
        }
    }
}

/// The cards of a hand in the order in which they were drawn, for the picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cards {
    values: [u8; MAX_CARDS],
    len: usize,
}

impl Cards {
    fn push(&mut self, value: u8) {
        self.values[self.len] = value;
        self.len += 1;
    }

    fn as_slice(&self) -> &[u8] {
        &self.values[..self.len]
    }

    fn hand(&self) -> Hand {
        let mut hand = Hand::default();
        self.as_slice().iter().for_each(|value| hand.take((*value).into()));
        hand
    }
}

/// The table with both hands.
#[derive(Clone, Debug)]
pub struct Blackjack {
    rules: Rules,
    dealer: Cards,
    player: Cards,
    /// Suit (0 to 3) of the dealer's open card, and which of jack, queen and king it is (0 to 2) if it counts ten.
    open_suit: u8,
    open_face: u8,
    over: bool,
    observation_space: Space,
    action_space: Space,
}

impl Blackjack {
    /// Makes the environment, not started yet.
    ///
    /// # Errors
    /// [`EnvError::BadOption`] if an option has the wrong type.
    pub fn new(options: &mut Options) -> Result<Self, EnvError> {
        Ok(Self {
            rules: Rules::read(options)?,
            dealer: Cards::default(),
            player: Cards::default(),
            open_suit: 0,
            open_face: 0,
            over: false,
            observation_space: Space::Tuple([32, 11, 2].map(Space::discrete).into()),
            action_space: Space::discrete(2),
        })
    }

    /// Values of the dealer's cards; the first one is open.
    pub fn dealer(&self) -> &[u8] {
        self.dealer.as_slice()
    }

    /// Values of the player's cards.
    pub fn player(&self) -> &[u8] {
        self.player.as_slice()
    }

    fn observe(&self, obs: ObsMut<'_>) {
        write(observation(self.player.hand(), self.dealer.values[0].into()), obs);
    }
}

#[inline(always)]
fn observation(player: Hand, open_card: u32) -> [i32; 3] {
    [player.sum() as i32, open_card as i32, player.has_usable_ace().into()]
}

fn draw_card(rng: &mut NpRng) -> u8 {
    card_value(rng.integers(0, KINDS.into()) as u32) as u8
}

impl Env for Blackjack {
    fn observation_space(&self) -> &Space {
        &self.observation_space
    }

    fn action_space(&self) -> &Space {
        &self.action_space
    }

    fn reset(&mut self, rng: &mut NpRng, obs: ObsMut<'_>) {
        self.over = false;
        for cards in [&mut self.dealer, &mut self.player] {
            *cards = Cards::default();
            cards.push(draw_card(rng));
            cards.push(draw_card(rng));
        }
        self.open_suit = rng.integers(0, 4) as u8;
        self.open_face = if self.dealer.values[0] == 10 { rng.integers(0, 3) as u8 } else { 0 };
        self.observe(obs);
    }

    fn step(&mut self, action: ActionRef<'_>, rng: &mut NpRng, obs: ObsMut<'_>) -> StepOutcome {
        let mut reward = 0.0;
        if !self.over && super::discrete(action) == 1 {
            self.player.push(draw_card(rng));
            self.over = self.player.hand().is_bust();
            reward = if self.over { -1.0 } else { 0.0 };
        } else if !self.over {
            while self.dealer.hand().sum() < DEALER_STOPS {
                self.dealer.push(draw_card(rng));
            }
            self.over = true;
            let dealer = self.dealer.hand();
            reward = self.rules.settle(self.player.hand(), dealer.score(), dealer.is_natural());
        }
        self.observe(obs);
        StepOutcome { reward: reward.into(), terminated: self.over, truncated: false }
    }

    fn save_state(&self, to: &mut StateWriter) {
        for cards in [&self.dealer, &self.player] {
            to.u8(cards.len as u8);
            cards.as_slice().iter().for_each(|value| to.u8(*value));
        }
        to.u8(self.open_suit);
        to.u8(self.open_face);
        to.bool(self.over);
    }

    fn load_state(&mut self, from: &mut StateReader<'_>) -> Result<(), EnvError> {
        let mut hands = [Cards::default(); 2];
        for cards in &mut hands {
            let len = from.u8()?;
            if usize::from(len) > MAX_CARDS {
                let expected = format!("at most {MAX_CARDS} cards");
                return Err(EnvError::State { expected, found: len.to_string() });
            }
            for _ in 0..len {
                match from.u8()? {
                    value @ 1..=10 => cards.push(value),
                    other => {
                        return Err(EnvError::State {
                            expected: "a card from 1 to 10".into(),
                            found: other.to_string(),
                        });
                    }
                }
            }
        }
        let found = (from.u8()?, from.u8()?);
        let (open_suit @ 0..=3, open_face @ 0..=2) = found else {
            return Err(EnvError::State { expected: "a suit and a face".into(), found: format!("{found:?}") });
        };
        self.over = from.bool()?;
        ([self.dealer, self.player], self.open_suit, self.open_face) = (hands, open_suit, open_face);
        Ok(())
    }

    fn render(&self) -> Option<Frame> {
        Some(self.draw())
    }
}

/// How a dealer's hand can end: bust, 17 to 21 without a natural, a natural.
const DEALER_ENDS: usize = 7;
const NATURAL: usize = DEALER_ENDS - 1;

/// Adds the probabilities of the dealer's ends, times `weight`, when `hand` is played on.
fn add_dealer_ends(hand: Hand, weight: f64, ends: &mut [f64; DEALER_ENDS]) {
    if hand.sum() >= DEALER_STOPS {
        let end = match hand.score() {
            0 => 0,
            _ if hand.is_natural() => NATURAL,
            score => (score - DEALER_STOPS + 1) as usize,
        };
        ends[end] += weight;
        return;
    }
    for kind in 0..KINDS {
        let mut next = hand;
        next.take(card_value(kind));
        add_dealer_ends(next, weight / f64::from(KINDS), ends);
    }
}

/// The batch stepper's view. The dealer's cards depend on nothing that the player does, so their end is drawn at the
/// start, from its exact distribution given the open card.
struct BlackjackDynamics {
    rules: Rules,
    /// For each open card (index 0 is none) the random bits from which on the dealer's end is a later one.
    cuts: [[u32; DEALER_ENDS - 1]; 11],
}

impl BlackjackDynamics {
    fn new(rules: Rules) -> Self {
        let cuts = |open_card: usize| {
            let (mut hand, mut ends) = (Hand::default(), [0.0; DEALER_ENDS]);
            hand.take(open_card.max(1) as u32);
            add_dealer_ends(hand, 1.0, &mut ends);
            std::array::from_fn(|end| (ends[..=end].iter().sum::<f64>() * 2f64.powi(32)) as u32)
        };
        Self { rules, cuts: std::array::from_fn(cuts) }
    }
}

/// A game of a batch.
#[derive(Clone, Copy)]
struct Game {
    player: Hand,
    open_card: u32,
    /// How the dealer's hand will end.
    dealer_end: u32,
}

#[inline(always)]
fn draw_lane_card(rng: &mut LaneRng) -> u32 {
    card_value(rng.below(KINDS))
}

impl DiscreteDynamics<3> for BlackjackDynamics {
    type State = Game;

    #[inline(always)]
    fn num_actions(&self) -> i32 {
        2
    }

    #[inline(always)]
    fn start(&self, rng: &mut LaneRng) -> Game {
        let (open_card, bits) = (draw_lane_card(rng), rng.bits());
        let dealer_end = self.cuts[open_card as usize].iter().map(|cut| u32::from(bits >= *cut)).sum();
        let mut player = Hand::default();
        player.take(draw_lane_card(rng));
        player.take(draw_lane_card(rng));
        Game { player, open_card, dealer_end }
    }

    #[inline(always)]
    fn step(&self, mut game: Game, action: usize, rng: &mut LaneRng) -> (Game, f32, bool) {
        // Both ways are computed: a branch on the action would be mispredicted half of the time.
        let hit = action == 1;
        let is_natural = game.dealer_end == NATURAL as u32;
        let score = if game.dealer_end == 0 { 0 } else { (game.dealer_end + DEALER_STOPS - 1).min(21) };
        let settled = self.rules.settle(game.player, score, is_natural);
        let mut player = game.player;
        player.take(draw_lane_card(rng));
        let bust = player.is_bust();
        if hit {
            game.player = player;
        }
        (
            game,
            if !hit {
                settled
            } else if bust {
                -1.0
            } else {
                0.0
            },
            !hit | bust,
        )
    }

    #[inline(always)]
    fn observe(&self, game: Game) -> [i32; 3] {
        observation(game.player, game.open_card)
    }
}

const FELT: Color = Color::hex(0x1E8A68);
const FELT_DARK: Color = Color::hex(0x14694F);
const RED: Color = Color::hex(0xD9483F);

impl Blackjack {
    /// Both hands on green felt with their sums; the dealer's second card is face down until the game is over.
    fn draw(&self) -> Frame {
        let mut canvas = Canvas::new(600, 500, (0.0, 0.0), 100.0);
        canvas.rect((-3.0, -2.5), (3.0, 2.5), 0.0, Fill::vertical(2.5, FELT, -2.5, FELT_DARK));
        canvas.rect((-2.86, -2.36), (2.86, 2.36), 0.3, LIGHT.alpha(36));
        canvas.rect((-2.83, -2.33), (2.83, 2.33), 0.28, Fill::vertical(2.33, FELT, -2.33, FELT_DARK));
        canvas.dashes((-2.4, 0.0), (2.4, 0.0), 0.02, [0.14, 0.1], LIGHT.alpha(90));
        let open = |i: usize| (i == 0).then_some((self.open_suit, self.open_face));
        for (cards, y, is_dealer) in [(&self.dealer, 1.18, true), (&self.player, -1.18, false)] {
            let hidden = is_dealer && !self.over;
            let gap = (3.6 / (cards.len as f32 - 1.0).max(1.0)).min(1.1);
            let first = -0.55 - gap * (cards.len as f32 - 1.0) / 2.0;
            for (i, value) in cards.as_slice().iter().enumerate() {
                // The order on the table decides the looks that the game leaves open.
                let looks = (i + 3 * usize::from(!is_dealer)) as u8;
                let (suit, face) = open(i).filter(|_| is_dealer).unwrap_or((looks * 3 % 4, (looks * 7 + value) % 3));
                let tilt = 0.03 * ((i * 5 % 3) as f32 - 1.0);
                canvas.at((first + gap * i as f32, y), tilt, |c| match hidden && i == 1 {
                    true => draw_back(c),
                    false => draw_front(c, *value, suit, face),
                });
            }
            let sum = if hidden { u32::from(cards.values[0]) } else { cards.hand().sum() };
            let color = match (self.over, sum > 21) {
                (_, true) => RED,
                (true, _) if is_dealer == (self.dealer.hand().score() > self.player.hand().score()) => GREEN,
                _ => INK,
            };
            canvas.circle((2.28, y - 0.03), 0.4, SHADOW);
            canvas.circle((2.28, y), 0.4, LIGHT);
            canvas.centered_text((2.28, y), 0.3, &sum.to_string(), color);
        }
        canvas.into_frame()
    }
}

const CARD: (f32, f32) = (0.5, 0.72);

fn draw_blank(c: &mut Canvas) {
    let (w, h) = CARD;
    c.rect((-w + 0.03, -h - 0.05), (w + 0.03, h - 0.05), 0.1, SHADOW);
    c.rect((-w, -h), (w, h), 0.1, LIGHT);
}

fn draw_back(c: &mut Canvas) {
    let (w, h) = (CARD.0 - 0.07, CARD.1 - 0.07);
    draw_blank(c);
    c.rect((-w, -h), (w, h), 0.06, Fill::vertical(h, BLUE_LIGHT, -h, BLUE));
    for row in -3..=3 {
        for column in -2..=2 {
            c.circle((column as f32 * 0.17, row as f32 * 0.18), 0.035, LIGHT.alpha(110));
        }
    }
}

fn draw_front(c: &mut Canvas, value: u8, suit: u8, face: u8) {
    let text = match (value, face) {
        (1, _) => "A".to_owned(),
        (10, face) => ["J", "Q", "K"][usize::from(face)].to_owned(),
        _ => value.to_string(),
    };
    let color = if matches!(suit, 1 | 2) { RED } else { INK };
    draw_blank(c);
    for angle in [0.0, std::f32::consts::PI] {
        c.at((0.0, 0.0), angle, |c| {
            c.centered_text((-0.35, 0.54), 0.2, &text, color);
            c.at((-0.35, 0.31), 0.0, |c| draw_suit(c, suit, 0.1, color));
        });
    }
    if value == 10 {
        c.rect((-0.2, -0.3), (0.2, 0.3), 0.05, MUTED.mix(LIGHT, 0.6));
    }
    c.at((0.0, 0.0), 0.0, |c| draw_suit(c, suit, if value == 10 { 0.17 } else { 0.26 }, color));
}

/// Clubs, diamonds, hearts, spades (0 to 3), within `r` of the origin.
fn draw_suit(c: &mut Canvas, suit: u8, r: f32, color: Color) {
    let stem = [(0.0, 0.0), (0.3 * r, -r), (-0.3 * r, -r)];
    match suit {
        0 => {
            for (x, y) in [(0.0, 0.5), (-0.5, -0.15), (0.5, -0.15)] {
                c.circle((x * r, y * r), 0.45 * r, color);
            }
            c.polygon(&stem, color);
        }
        1 => c.polygon(&[(0.0, r), (0.75 * r, 0.0), (0.0, -r), (-0.75 * r, 0.0)], color),
        2 => draw_heart(c, r, color),
        _ => {
            c.at((0.0, 0.1 * r), std::f32::consts::PI, |c| draw_heart(c, 0.9 * r, color));
            c.polygon(&stem, color);
        }
    }
}

fn draw_heart(c: &mut Canvas, r: f32, color: Color) {
    for side in [-1.0, 1.0] {
        c.circle((0.42 * side * r, 0.38 * r), 0.46 * r, color);
    }
    c.polygon(&[(-0.83 * r, 0.2 * r), (0.0, 0.3 * r), (0.83 * r, 0.2 * r), (0.0, -r)], color);
}
