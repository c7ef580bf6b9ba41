//! The random track.

use std::f64::consts::PI;

use super::SCALE;
use crate::NpRng;

const TRACK_RAD: f64 = 900.0 / SCALE;
const CHECKPOINTS: usize = 12;
const TRACK_DETAIL_STEP: f64 = 21.0 / SCALE;
const TRACK_TURN_RATE: f64 = 0.31;
const BORDER_MIN_COUNT: usize = 4;

/// A point of the track's middle: direction from the centre, heading, and place.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct TrackPoint {
    pub(super) alpha: f64,
    pub(super) beta: f64,
    pub(super) at: [f64; 2],
}

pub(super) fn sign(x: f64) -> f64 {
    if x == 0.0 { 0.0 } else { x.signum() }
}

/// The track that starts from random checkpoints, closed; `None` if it does not close: then others are drawn.
pub(super) fn random_track(rng: &mut NpRng) -> Option<Vec<TrackPoint>> {
    let n = CHECKPOINTS as f64;
    let mut checkpoints = [(0.0, 0.0, 0.0); CHECKPOINTS];
    let start_alpha = 2.0 * PI * -0.5 / n;
    for (c, checkpoint) in checkpoints.iter_mut().enumerate() {
        let noise = rng.uniform(0.0, 2.0 * PI * 1.0 / n);
        let mut alpha = 2.0 * PI * c as f64 / n + noise;
        let mut radius = rng.uniform(TRACK_RAD / 3.0, TRACK_RAD);
        if c == 0 {
            (alpha, radius) = (0.0, 1.5 * TRACK_RAD);
        }
        if c == CHECKPOINTS - 1 {
            (alpha, radius) = (2.0 * PI * c as f64 / n, 1.5 * TRACK_RAD);
        }
        *checkpoint = (alpha, radius * alpha.cos(), radius * alpha.sin());
    }

    // Head for one checkpoint after the other, five times around.
    let ([mut x, mut y], mut beta) = ([1.5 * TRACK_RAD, 0.0], 0.0f64);
    let (mut next, mut laps, mut other_side) = (0, 0, false);
    let mut track: Vec<TrackPoint> = Vec::new();
    for _ in 0..2500 {
        let mut alpha = y.atan2(x);
        if other_side && alpha > 0.0 {
            laps += 1;
            other_side = false;
        }
        if alpha < 0.0 {
            other_side = true;
            alpha += 2.0 * PI;
        }
        let (goal_x, goal_y) = 'found: loop {
            loop {
                let (goal_alpha, goal_x, goal_y) = checkpoints[next % CHECKPOINTS];
                if alpha <= goal_alpha {
                    break 'found (goal_x, goal_y);
                }
                next += 1;
                if next % CHECKPOINTS == 0 {
                    break;
                }
            }
            alpha -= 2.0 * PI;
        };
        let (cos, sin) = (beta.cos(), beta.sin());
        let mut off = cos * (goal_x - x) + sin * (goal_y - y);
        while beta - alpha > 1.5 * PI {
            beta -= 2.0 * PI;
        }
        while beta - alpha < -1.5 * PI {
            beta += 2.0 * PI;
        }
        let last_beta = beta;
        off *= SCALE;
        let turn = TRACK_TURN_RATE.min((0.001 * off).abs());
        if off > 0.3 {
            beta -= turn;
        }
        if off < -0.3 {
            beta += turn;
        }
        x += -sin * TRACK_DETAIL_STEP;
        y += cos * TRACK_DETAIL_STEP;
        track.push(TrackPoint { alpha, beta: last_beta * 0.5 + beta * 0.5, at: [x, y] });
        if laps > 4 {
            break;
        }
    }

    // The last whole lap, from where it passes the start.
    let passes = |i: &usize| track[*i].alpha > start_alpha && track[*i - 1].alpha <= start_alpha;
    let mut passing = (1..track.len()).rev().filter(passes);
    let (end, begin) = (passing.next()?, passing.next()?);
    let track = track[begin..end - 1].to_vec();
    let (first, last) = (track[0], track[track.len() - 1]);
    let gap = [first.beta.cos() * (first.at[0] - last.at[0]), first.beta.sin() * (first.at[1] - last.at[1])];
    let glued = (gap[0] * gap[0] + gap[1] * gap[1]).sqrt() <= TRACK_DETAIL_STEP;
    glued.then_some(track)
}

/// Which tiles have a border: those of hard turns to one side.
pub(super) fn hard_turns(track: &[TrackPoint]) -> Vec<bool> {
    let len = track.len();
    let before = |i: usize, steps: usize| (i + len - steps) % len;
    let turn = |i: usize| track[i].beta - track[before(i, 1)].beta;
    let mut border: Vec<bool> = (0..len)
        .map(|i| {
            let turns: [f64; BORDER_MIN_COUNT] = std::array::from_fn(|steps| turn(before(i, steps)));
            let one_side: f64 = turns.iter().map(|t| sign(*t)).sum();
            turns.iter().all(|t| t.abs() > TRACK_TURN_RATE * 0.2) && one_side.abs() == BORDER_MIN_COUNT as f64
        })
        .collect();
    for i in 0..len {
        for steps in 0..BORDER_MIN_COUNT {
            let marked = border[i];
            border[before(i, steps)] |= marked;
        }
    }
    border
}
