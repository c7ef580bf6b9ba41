//! Games of the Python package, replayed with the random draws that they made: `tests/fixtures/README.md` says how they
//! were recorded.

use std::io::{BufRead, BufReader};
use std::path::Path;

use serde_json::Value;

use super::{ALL_ACTIONS, CELLS, Draws, Game, MinAtar};
use crate::{OptionValue, Options, Space, make};

/// Draws that were recorded: a uniform one is a number, an integer below `n` a pair with `n`.
struct Recording<'a> {
    draws: std::slice::Iter<'a, Value>,
}

impl Draws for Recording<'_> {
    fn uniform(&mut self) -> f64 {
        self.draws.next().and_then(Value::as_f64).expect("a uniform draw comes next")
    }

    fn below(&mut self, n: i32) -> i32 {
        let draw = self.draws.next().and_then(Value::as_array).expect("an integer comes next");
        assert_eq!(draw[1], n, "the number of values to draw from");
        draw[0].as_i64().expect("an integer") as i32
    }
}

fn flip(observation: &mut [u8], cells: &Value) {
    for i in cells.as_array().expect("a list of indices") {
        observation[i.as_u64().expect("an index") as usize] ^= 1;
    }
}

fn observation<G: Game<C>, const C: usize>(env: &MinAtar<G, C>) -> Vec<u8> {
    let mut row = vec![7; CELLS * C];
    env.observe(crate::ObsMut::U8(&mut row));
    row
}

/// Replays every recorded episode of a game; returns their number and that of the steps.
fn replay<G: Game<C>, const C: usize>(name: &str) -> (usize, usize) {
    let path = Path::new("../tests/fixtures").join(format!("MinAtar-{name}-v1.jsonl.gz"));
    let file = std::fs::File::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let (mut episodes, mut steps) = (0, 0);
    for line in BufReader::new(flate2::read::GzDecoder::new(file)).lines() {
        let record: Value = serde_json::from_str(&line.expect("a gzip stream of text")).expect("a JSON record a line");
        if record["kind"] == "header" {
            let minimal: Vec<_> = record["minimal_action_set"].as_array().unwrap().iter().collect();
            let expected: Vec<_> = minimal.iter().map(|i| ALL_ACTIONS[i.as_u64().unwrap() as usize]).collect();
            assert_eq!(G::ACTIONS, expected, "{name}: the minimal action set");
            assert_eq!(record["shape"], serde_json::json!([10, 10, C]), "{name}");
            continue;
        }
        let options = vec![
            ("sticky_action_prob".to_owned(), OptionValue::Float(record["sticky_action_prob"].as_f64().unwrap())),
            ("difficulty_ramping".to_owned(), OptionValue::Bool(record["difficulty_ramping"].as_bool().unwrap())),
            ("use_minimal_action_set".to_owned(), OptionValue::Bool(false)),
        ];
        let mut env = MinAtar::<G, C>::new(&mut Options::new(name, options)).unwrap();
        let mut draws = Recording { draws: record["draws"].as_array().unwrap().iter() };
        let at = format!("{name}, episode {episodes} ({}, seed {})", record["policy"], record["seed"]);

        env.start(&mut draws);
        let mut expected = vec![0; CELLS * C];
        flip(&mut expected, &record["initial"]);
        assert_eq!(observation(&env), expected, "{at}: the start");
        for (t, action) in record["actions"].as_array().unwrap().iter().enumerate() {
            let outcome = env.advance(action.as_i64().unwrap() as i32, &mut draws);
            flip(&mut expected, &record["flips"][t]);
            let (reward, terminated) = (&record["rewards"][t], &record["terminated"][t]);
            assert_eq!(Some(outcome.reward), reward.as_f64(), "{at}: the reward of step {t}");
            assert_eq!(Some(outcome.terminated), terminated.as_bool(), "{at}: step {t}");
            assert_eq!(observation(&env), expected, "{at}: the observation of step {t}");
            steps += 1;
        }
        assert_eq!(draws.draws.len(), 0, "{at}: draws that were not made");
        episodes += 1;
    }
    (episodes, steps)
}

#[test]
fn breakout_follows_the_reference() {
    let (episodes, steps) = replay::<super::breakout::Breakout, 4>("Breakout");
    assert!(episodes >= 8 && steps >= 3000, "{episodes} episodes, {steps} steps");
}

#[test]
fn asterix_follows_the_reference() {
    let (episodes, steps) = replay::<super::asterix::Asterix, 4>("Asterix");
    assert!(episodes >= 8 && steps >= 2000, "{episodes} episodes, {steps} steps");
}

#[test]
fn freeway_follows_the_reference() {
    let (episodes, steps) = replay::<super::freeway::Freeway, 7>("Freeway");
    assert!(episodes >= 7 && steps >= 5000, "{episodes} episodes, {steps} steps");
}

#[test]
fn seaquest_follows_the_reference() {
    let (episodes, steps) = replay::<super::seaquest::Seaquest, 10>("Seaquest");
    assert!(episodes >= 8 && steps >= 3000, "{episodes} episodes, {steps} steps");
}

#[test]
fn space_invaders_follow_the_reference() {
    let (episodes, steps) = replay::<super::space_invaders::SpaceInvaders, 6>("SpaceInvaders");
    assert!(episodes >= 8 && steps >= 2000, "{episodes} episodes, {steps} steps");
}

#[test]
fn options_choose_the_actions_and_are_checked() {
    let actions = |id: &str, options: &[(String, OptionValue)]| match make(id, options).unwrap().action_space() {
        Space::Discrete { n, start: 0 } => *n,
        other => panic!("{id}: {other}"),
    };
    let all = [("use_minimal_action_set".to_owned(), OptionValue::Bool(false))];
    for (id, minimal) in [("Breakout", 3), ("Asterix", 5), ("Freeway", 3), ("Seaquest", 6), ("SpaceInvaders", 4)] {
        let id = format!("MinAtar/{id}-v1");
        assert_eq!((actions(&id, &[]), actions(&id, &all)), (minimal, 6), "{id}");
    }
    let error = make("MinAtar/Breakout-v1", &[("sticky_action_prob".to_owned(), OptionValue::Float(1.5))]).err();
    assert_eq!(
        error.unwrap().to_string(),
        "MinAtar/Breakout-v1: option `sticky_action_prob` must be a probability from 0 to 1, found 1.5"
    );
}
