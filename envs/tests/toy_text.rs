//! Toy text against recordings of Gymnasium, and the batch steppers against the scalar simulators.

mod common;

use std::collections::BTreeMap;

use hotfire_envs::blackjack::Blackjack;
use hotfire_envs::cliff_walking::CliffWalking;
use hotfire_envs::frozen_lake::FrozenLake;
use hotfire_envs::taxi::{self, Taxi};
use hotfire_envs::{
    ActionRef, Actions, AutoresetMode, Env, EnvError, NpRng, ObsMut, OptionValue, Options, TransitionModel, VecEnv,
    check_env, make, make_batch,
};
use serde_json::Value;

type Given = Vec<(String, OptionValue)>;

/// Options of a recording's `make_kwargs`.
fn options(kwargs: &Value) -> Given {
    let value = |json: &Value| match json {
        Value::Bool(x) => OptionValue::Bool(*x),
        Value::Number(x) => x.as_i64().map_or_else(|| OptionValue::Float(x.as_f64().unwrap()), OptionValue::Int),
        Value::String(x) => OptionValue::Text(x.clone()),
        Value::Array(x) if x.iter().all(Value::is_string) => {
            OptionValue::Lines(x.iter().map(|row| row.as_str().unwrap().to_owned()).collect())
        }
        Value::Array(x) => OptionValue::Numbers(x.iter().map(|x| x.as_f64().unwrap()).collect()),
        other => panic!("{other}"),
    };
    kwargs.as_object().unwrap().iter().map(|(name, json)| (name.clone(), value(json))).collect()
}

fn integers(value: &Value) -> Vec<i32> {
    match value {
        Value::Array(all) => all.iter().map(|x| x.as_i64().unwrap() as i32).collect(),
        one => vec![one.as_i64().unwrap() as i32],
    }
}

fn mask(env: &dyn Env, len: usize) -> Vec<bool> {
    let mut mask = vec![false; len];
    assert!(env.action_mask(&mut mask));
    mask
}

fn recorded_mask(json: &Value) -> Vec<bool> {
    integers(json).iter().map(|x| *x == 1).collect()
}

/// Replays episodes of one environment from their seeds; returns the number of steps.
fn replay(id: &str, kwargs: &Value, episodes: &[Value]) -> usize {
    let mut steps = 0;
    let mut rng = NpRng::seed(0);
    for episode in episodes {
        let place = |what: &str, t: usize| format!("{id} {kwargs}, episode {}, {what} {t}", episode["index"]);
        let mut given = options(kwargs);
        if let Some(limit) = episode["max_episode_steps"].as_i64() {
            given.push(("max_episode_steps".into(), OptionValue::Int(limit)));
        }
        let mut env = make(id, &given).unwrap();
        let mut row = vec![0; env.observation_space().len()];
        if let Some(seed) = episode["seed"].as_u64() {
            rng = NpRng::seed(seed);
        }
        let mut draws = rng.clone();
        env.reset(&mut rng, ObsMut::I32(&mut row));
        assert_eq!(row, integers(&episode["initial_obs"]), "{}", place("first observation", 0));
        let same_draws = |draws: &mut NpRng, recorded: &Value, place: String| {
            for draw in recorded.as_array().into_iter().flatten() {
                assert_eq!(Some(draws.random()), draw.as_f64(), "{place}");
            }
        };
        same_draws(&mut draws, &episode["reset_draws"], place("reset draws", 0));
        if let Some(recorded) = episode.get("initial_action_mask") {
            assert_eq!(mask(&*env, 6), recorded_mask(recorded), "{}", place("first mask", 0));
        }
        for (t, action) in episode["actions"].as_array().unwrap().iter().enumerate() {
            let mut draws = rng.clone();
            let outcome = env.step(ActionRef::I32(&integers(action)), &mut rng, ObsMut::I32(&mut row));
            assert_eq!(row, integers(&episode["obs"][t]), "{}", place("observation", t));
            assert_eq!(Some(outcome.reward), episode["rewards"][t].as_f64(), "{}", place("reward", t));
            assert_eq!(Some(outcome.terminated), episode["terminated"][t].as_bool(), "{}", place("terminated", t));
            assert_eq!(Some(outcome.truncated), episode["truncated"][t].as_bool(), "{}", place("truncated", t));
            same_draws(&mut draws, &episode["step_draws"][t], place("draws", t));
            if let Some(recorded) = episode.get("action_masks") {
                assert_eq!(mask(&*env, 6), recorded_mask(&recorded[t]), "{}", place("mask", t));
            }
            steps += 1;
        }
    }
    steps
}

/// Compares a whole table.
fn same_model(model: &TransitionModel, record: &Value) {
    let start: Vec<f64> =
        record["initial_state_distribution"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    assert_eq!(model.start_distribution(), start);
    let Some(states) = record["P"].as_array() else { return };
    assert_eq!(model.num_states(), states.len());
    for (state, actions) in states.iter().enumerate() {
        let actions = actions.as_array().unwrap();
        assert_eq!(model.num_actions(), actions.len());
        for (action, recorded) in actions.iter().enumerate() {
            let found: Vec<Value> = model
                .transitions(state, action)
                .iter()
                .map(|t| serde_json::json!([t.probability, t.next_state, t.reward, t.terminated]))
                .collect();
            assert_eq!(&Value::Array(found), recorded, "state {state}, action {action}");
        }
    }
}

fn model(id: &str, kwargs: &Value) -> TransitionModel {
    let mut given = Options::new(id, options(kwargs));
    match id {
        "FrozenLake-v1" => FrozenLake::new(&mut given).unwrap().model(),
        "FrozenLake8x8-v1" => {
            let mut given = options(kwargs);
            given.retain(|(name, _)| name != "map_name");
            given.push(("map_name".to_owned(), OptionValue::Text("8x8".to_owned())));
            FrozenLake::new(&mut Options::new(id, given)).unwrap().model()
        }
        "CliffWalking-v1" | "CliffWalkingSlippery-v1" => CliffWalking::new(&mut given).unwrap().model(),
        "Taxi-v4" => Taxi::new(&mut given).unwrap().model(),
        other => panic!("{other}"),
    }
}

#[test]
fn recordings_are_replayed_bit_for_bit() {
    for (file, steps) in [
        ("FrozenLake-v1_4x4", 119),
        ("FrozenLake-v1_4x4_slippery", 49),
        ("FrozenLake-v1_8x8", 253),
        ("FrozenLake-v1_8x8_slippery", 151),
        ("CliffWalking-v1", 120),
        ("CliffWalkingSlippery-v1", 327),
        ("Taxi-v4", 232),
        ("Taxi-v4_fickle", 234),
        ("Taxi-v4_rainy", 243),
        ("Blackjack-v1_natural", 48),
        ("Blackjack-v1_sab", 48),
    ] {
        let records = common::read(&format!("{file}.jsonl"));
        let (id, kwargs) = (records[0]["env_id"].as_str().unwrap(), &records[0]["make_kwargs"]);
        let episodes: Vec<Value> = records.iter().filter(|r| r["kind"] == "episode").cloned().collect();
        let replayed = replay(id, kwargs, &episodes);
        assert_eq!(replayed, steps, "{file}: recorded steps");
        for record in records.iter().filter(|r| r["kind"] == "transitions") {
            same_model(&model(id, kwargs), record);
        }
        let env = make(id, &options(kwargs)).unwrap();
        assert_eq!(env.action_space().flat_len() as i64, records[0]["action_space"]["n"].as_i64().unwrap());
    }
}

#[test]
fn recordings_with_other_options_are_replayed() {
    let records = common::read("toy_text_options.jsonl");
    let (mut maps, mut models, mut episodes) = (0, 0, 0);
    for record in &records {
        let id = record["env_id"].as_str().unwrap_or_default();
        let kwargs = &record["make_kwargs"];
        match record["kind"].as_str().unwrap() {
            "map" => {
                let given = serde_json::json!({"size": record["size"], "p": record["p"], "seed": record["seed"]});
                let lake = FrozenLake::new(&mut Options::new("FrozenLake-v1", options(&given))).unwrap();
                assert_eq!(serde_json::json!(lake.map()), record["rows"]);
                maps += 1;
            }
            "transitions" => {
                same_model(&model(id, kwargs), record);
                models += 1;
            }
            "episode" => {
                episodes += 1;
                replay(id, kwargs, std::slice::from_ref(record));
                if id == "CliffWalking-v1" && kwargs["is_slippery"] == true {
                    replay("CliffWalkingSlippery-v1", &serde_json::json!({}), std::slice::from_ref(record));
                }
            }
            other => panic!("{other}"),
        }
    }
    assert!((maps, models) == (7, 5) && episodes > 200, "{maps} maps, {models} tables, {episodes} episodes");
}

#[test]
fn blackjack_draws_the_recorded_cards() {
    for file in ["Blackjack-v1_natural", "Blackjack-v1_sab"] {
        let records = common::read(&format!("{file}.jsonl"));
        let mut rng = NpRng::seed(0);
        for episode in records.iter().filter(|r| r["kind"] == "episode") {
            let mut env =
                Blackjack::new(&mut Options::new("Blackjack-v1", options(&records[0]["make_kwargs"]))).unwrap();
            if let Some(seed) = episode["seed"].as_u64() {
                rng = NpRng::seed(seed);
            }
            let mut row = [0; 3];
            let hands = |env: &Blackjack| serde_json::json!({"dealer": env.dealer(), "player": env.player()});
            env.reset(&mut rng, ObsMut::I32(&mut row));
            assert_eq!(hands(&env), episode["initial_state"], "{file}, episode {}", episode["index"]);
            for action in episode["actions"].as_array().unwrap() {
                env.step(ActionRef::I32(&integers(action)), &mut rng, ObsMut::I32(&mut row));
            }
            assert_eq!(hands(&env), episode["final_state"], "{file}, episode {}", episode["index"]);
        }
    }
}

#[test]
fn actions_outside_taxis_mask_do_nothing() {
    let model = model("Taxi-v4", &serde_json::json!({}));
    let (mut allowed, mut masked) = (0, 0);
    for state in 0..500 {
        for (action, does_something) in taxi::action_mask(state).into_iter().enumerate() {
            let [outcome] = model.transitions(state as usize, action) else { panic!("a dry town is certain") };
            if does_something {
                allowed += 1;
                assert_ne!(outcome.next_state, state);
                assert!(outcome.reward > -10.0);
            } else {
                masked += 1;
                assert_eq!(outcome.next_state, state);
            }
        }
    }
    assert!(allowed > 1000 && masked > 1000, "{allowed} {masked}");

    let mut envs = VecEnv::make("Taxi-v4", 9, AutoresetMode::SameStep).unwrap();
    envs.reset(3);
    let mut rng = NpRng::seed(1);
    for _ in 0..500 {
        let states = envs.observations().as_i32().unwrap();
        let expected: Vec<bool> = states.iter().flat_map(|state| taxi::action_mask(*state)).collect();
        assert_eq!(envs.action_masks(), Some(&expected[..]));
        let actions: Vec<i32> = (0..9).map(|_| rng.integers(0, 6) as i32).collect();
        envs.step(Actions::I32(&actions)).unwrap();
    }
}

/// What was seen in a state with an action: how often each outcome followed.
type Counts = BTreeMap<Vec<i32>, BTreeMap<Vec<i32>, f64>>;

fn count(counts: &mut Counts, given: Vec<i32>, outcome: Vec<i32>) {
    *counts.entry(given).or_default().entry(outcome).or_default() += 1.0;
}

/// Batch and scalar steppers with random actions must show the same outcomes equally often, for every state and action.
#[test]
fn batch_steppers_follow_the_scalar_simulators() {
    const NUM_ENVS: usize = 256;
    const STEPS: usize = 1500;
    const LIMIT: i64 = 60;
    for (id, kwargs) in [
        ("FrozenLake-v1", serde_json::json!({})),
        ("FrozenLake-v1", serde_json::json!({"is_slippery": false})),
        ("FrozenLake-v1", serde_json::json!({"desc": ["SFF", "FSG"], "success_rate": 0.5})),
        ("FrozenLake8x8-v1", serde_json::json!({"reward_schedule": [5, -1, -0.5]})),
        ("CliffWalking-v1", serde_json::json!({})),
        ("CliffWalkingSlippery-v1", serde_json::json!({})),
        ("Taxi-v4", serde_json::json!({})),
        ("Taxi-v4", serde_json::json!({"is_rainy": true, "fickle_passenger": true, "fickle_probability": 0.6})),
        ("Blackjack-v1", serde_json::json!({})),
        ("Blackjack-v1", serde_json::json!({"sab": false, "natural": true})),
    ] {
        let mut given = options(&kwargs);
        given.push(("max_episode_steps".to_owned(), OptionValue::Int(LIMIT)));
        let mut scalar = VecEnv::make_with(id, &given, NUM_ENVS, AutoresetMode::SameStep).unwrap();
        let mut batch = make_batch(id, &given, NUM_ENVS).unwrap();
        let width = batch.observation_len();
        let num_actions = scalar.action_space().flat_len() as i64;
        let mut rng = NpRng::seed(5);
        let mut actions = move || (0..NUM_ENVS).map(|_| rng.integers(0, num_actions) as i32).collect::<Vec<_>>();
        scalar.reset(1);
        batch.reset(1);
        let [mut of_scalar, mut of_batch] = [Counts::new(), Counts::new()];
        for t in 0..STEPS {
            let chosen = actions();
            let before = scalar.observations().as_i32().unwrap().to_vec();
            scalar.step(Actions::I32(&chosen)).unwrap();
            let (after, last) = (scalar.observations(), scalar.final_observations());
            let (after, last) = (after.as_i32().unwrap(), last.as_i32().unwrap());
            for i in 0..NUM_ENVS {
                let lane = i * width..(i + 1) * width;
                let ended = scalar.terminated()[i] || scalar.truncated()[i];
                let seen = if ended { &last[lane.clone()] } else { &after[lane.clone()] };
                let flags = [(scalar.rewards()[i] * 2.0) as i32, scalar.terminated()[i].into()];
                count(&mut of_scalar, [&before[lane.clone()], &chosen[i..=i]].concat(), [seen, &flags].concat());
                if ended {
                    count(&mut of_scalar, vec![-1], after[lane].to_vec());
                }
            }

            let chosen = actions();
            let row = |i: usize, last: bool| -> Vec<i32> {
                let column = |d| if last { batch.final_observation_column(d) } else { batch.observation_column(d) };
                (0..width).map(|d| column(d).as_i32().unwrap()[i]).collect()
            };
            let before: Vec<_> = (0..NUM_ENVS).map(|i| row(i, false)).collect();
            batch.step(Actions::I32(&chosen)).unwrap();
            let row = |i: usize, last: bool| -> Vec<i32> {
                let column = |d| if last { batch.final_observation_column(d) } else { batch.observation_column(d) };
                (0..width).map(|d| column(d).as_i32().unwrap()[i]).collect()
            };
            for i in 0..NUM_ENVS {
                let ended = batch.terminated()[i] == 1 || batch.truncated()[i] == 1;
                let flags = [(batch.rewards()[i] * 2.0) as i32, batch.terminated()[i].into()];
                count(&mut of_batch, [&before[i][..], &chosen[i..=i]].concat(), [&row(i, ended)[..], &flags].concat());
                if ended {
                    count(&mut of_batch, vec![-1], row(i, false));
                }
                let truncated = batch.truncated()[i] == 1;
                assert!(!truncated || (t + 1) >= LIMIT as usize, "{id}: truncated in step {t}");
            }
        }

        let (mut compared, mut ends) = (0, 0.0);
        for (given, outcomes) in of_scalar.iter().chain(&of_batch) {
            let empty = BTreeMap::new();
            let [a, b] = [&of_scalar, &of_batch].map(|counts| counts.get(given).unwrap_or(&empty));
            let [n, m] = [a, b].map(|counts| counts.values().sum::<f64>());
            if n.min(m) < 20.0 {
                continue;
            }
            for outcome in outcomes.keys() {
                let [x, y] = [a, b].map(|counts| counts.get(outcome).copied().unwrap_or(0.0));
                let p = (x + y) / (n + m);
                let sigma = (p * (1.0 - p) * (1.0 / n + 1.0 / m)).sqrt();
                let difference = (x / n - y / m).abs();
                // Half a count of slack on either side: rare outcomes are not normally distributed.
                let bound = 5.0 * sigma + 2.0 / n.min(m);
                assert!(difference <= bound, "{id} {kwargs}: after {given:?}, {outcome:?}: {x} of {n}, {y} of {m}");
                compared += 1;
            }
            if given == &[-1] {
                ends += n;
            }
        }
        assert!(compared > 40 && ends > 1000.0, "{id}: {compared} comparisons, {ends} ends");
    }
}

#[test]
fn options_keep_the_contract() {
    for (id, kwargs) in [
        ("FrozenLake-v1", serde_json::json!({"size": 30, "p": 0.9, "seed": 3, "is_slippery": false})),
        ("FrozenLake-v1", serde_json::json!({"desc": ["SG"]})),
        ("Taxi-v4", serde_json::json!({"is_rainy": true, "fickle_passenger": true})),
        ("Blackjack-v1", serde_json::json!({"sab": false, "natural": true})),
    ] {
        check_env(make(id, &options(&kwargs)).unwrap().as_mut(), id).unwrap();
    }
}

#[test]
fn states_that_cannot_be_are_refused() {
    let mut rng = NpRng::seed(0);
    for id in ["FrozenLake-v1", "CliffWalking-v1", "Taxi-v4", "Blackjack-v1"] {
        let mut env = make(id, &[]).unwrap();
        let mut row = vec![0; env.observation_space().len()];
        env.reset(&mut rng, ObsMut::I32(&mut row));
        let bytes = [255; 64];
        let refused = env.load_state(&mut hotfire_envs::StateReader::new(&bytes));
        assert!(matches!(refused, Err(EnvError::State { .. })), "{id}");
        // The state before is still there.
        let outcome = env.step(ActionRef::I32(&[0]), &mut rng, ObsMut::I32(&mut row));
        assert!(outcome.reward.is_finite(), "{id}");
    }
}

#[test]
fn mistakes_name_the_environment_the_option_and_what_was_expected() {
    let error = |id: &str, kwargs: Value| make(id, &options(&kwargs)).err().expect("an error").to_string();
    let lake = |kwargs| error("FrozenLake-v1", kwargs);
    let desc = |rows: &[&str]| lake(serde_json::json!({ "desc": rows }));
    for (found, expected) in [
        (
            desc(&["SFF", "FG"]),
            "FrozenLake-v1: option `desc` must be rows of one length, 3 letters as the first, found 2 in row 1, \"FG\"",
        ),
        (desc(&["SXG"]), "FrozenLake-v1: option `desc` must be of the letters S, F, H and G, found `X` in row 0"),
        (
            desc(&["FFG"]),
            "FrozenLake-v1: option `desc` must be a map with at least one start `S`, found none in [\"FFG\"]",
        ),
        (
            desc(&["SFF"]),
            "FrozenLake-v1: option `desc` must be a map with at least one goal `G`, found none in [\"SFF\"]",
        ),
        (
            desc(&[""]),
            "FrozenLake-v1: option `desc` must be 1 to 256 rows of 1 to 256 letters, found 1 rows of 0 letters",
        ),
        (
            lake(serde_json::json!({"desc": "SFG"})),
            "FrozenLake-v1: option `desc` must be a list of texts, found \"SFG\"",
        ),
        (
            lake(serde_json::json!({"map_name": "16x16"})),
            "FrozenLake-v1: option `map_name` must be \"4x4\" or \"8x8\", found \"16x16\"",
        ),
        (
            lake(serde_json::json!({"map_name": "8x8", "size": 8})),
            "FrozenLake-v1: option `map_name` must be the only one of `desc`, `map_name` and `size`, `p`, `seed`, \
             found several of them",
        ),
        (
            lake(serde_json::json!({"size": 12, "p": 0.05})),
            "FrozenLake-v1: option `p` must be large enough that a map of 12 x 12 tiles has a way to the goal, \
             found 0.05",
        ),
        (
            lake(serde_json::json!({"size": 1})),
            "FrozenLake-v1: option `size` must be a whole number from 2 to 256, found 1",
        ),
        (
            lake(serde_json::json!({"success_rate": 1.5})),
            "FrozenLake-v1: option `success_rate` must be a number from 0 to 1, found 1.5",
        ),
        (
            lake(serde_json::json!({"reward_schedule": [1, 0]})),
            "FrozenLake-v1: option `reward_schedule` must be a list of 3 finite numbers, for the goal, a hole, a \
             frozen tile, found [1.0, 0.0]",
        ),
        (
            lake(serde_json::json!({"is_slipery": false})),
            "FrozenLake-v1 has no option `is_slipery`; did you mean `is_slippery`?",
        ),
        (
            error("Taxi-v4", serde_json::json!({"is_rainy": 1})),
            "Taxi-v4: option `is_rainy` must be true or false, found 1",
        ),
        (
            error("Taxi-v4", serde_json::json!({"rainy_probability": -0.1})),
            "Taxi-v4: option `rainy_probability` must be a number from 0 to 1, found -0.1",
        ),
        (
            error("Blackjack-v1", serde_json::json!({"natural": "yes"})),
            "Blackjack-v1: option `natural` must be true or false, found \"yes\"",
        ),
    ] {
        assert_eq!(found, expected);
    }
    let given = options(&serde_json::json!({"desc": ["SFF", "FG"]}));
    assert!(matches!(make_batch("FrozenLake-v1", &given, 8), Err(EnvError::BadOption { .. })));
    let nan = [("success_rate".to_owned(), OptionValue::Float(f64::NAN))];
    assert!(matches!(make("FrozenLake-v1", &nan), Err(EnvError::BadOption { .. })));
}
