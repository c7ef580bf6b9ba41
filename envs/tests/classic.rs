//! Classic control against trajectories recorded from Gymnasium, and the batch steppers against the scalar simulators.

mod common;

use hotfire_envs::acrobot::Acrobot;
use hotfire_envs::cartpole::CartPole;
use hotfire_envs::mountain_car::MountainCar;
use hotfire_envs::mountain_car_continuous::MountainCarContinuous;
use hotfire_envs::pendulum::Pendulum;
use hotfire_envs::{
    ActionRef, Actions, BatchEnv, Column, Dtype, Env, EnvError, NpRng, ObsMut, OptionValue, Options, Simd, StateReader,
    StateWriter, StepOutcome, make, spec,
};
use serde_json::Value;

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|x| x.as_f64().expect("a number")).collect()
}

/// An action of either kind.
enum Action {
    Discrete([i32; 1]),
    Continuous(Vec<f32>),
}

impl Action {
    fn parse(value: &Value) -> Self {
        match value.as_i64() {
            Some(action) => Self::Discrete([action as i32]),
            None => Self::Continuous(numbers(value).iter().map(|&x| x as f32).collect()),
        }
    }

    fn view(&self) -> ActionRef<'_> {
        match self {
            Self::Discrete(action) => ActionRef::I32(action),
            Self::Continuous(action) => ActionRef::F32(action),
        }
    }
}

/// A bare simulator, and access to its typed state.
trait Scalar: Env {
    fn get(&self) -> Vec<f64>;
    fn set(&mut self, state: &[f64]);
}

macro_rules! scalar {
    ($($kind:ty),*) => {$(
        impl Scalar for $kind {
            fn get(&self) -> Vec<f64> {
                self.state().to_vec()
            }
            fn set(&mut self, state: &[f64]) {
                self.set_state(state.try_into().expect("a state of the right length"));
            }
        }
    )*};
}
scalar!(CartPole, Acrobot, MountainCar, MountainCarContinuous, Pendulum);

/// Largest relative difference allowed; 0 asks for equal bits.
fn assert_close(found: &[f64], expected: &[f64], tolerance: f64, place: &str) {
    assert_eq!(found.len(), expected.len(), "{place}");
    for (a, b) in found.iter().zip(expected) {
        let equal = if tolerance == 0.0 { a == b } else { (a - b).abs() <= tolerance * b.abs().max(1.0) };
        assert!(equal, "{place}: {found:?}, recorded {expected:?}");
    }
}

/// Replays every recorded episode of `id`. States must agree to `state_tolerance`, all that an agent sees to
/// `seen_tolerance`.
fn replay<E: Scalar>(id: &str, mut env: E, state_tolerance: f64, seen_tolerance: f64) {
    let spec = spec(id).unwrap();
    let mut steps = 0;
    for episode in common::read_kinds(&format!("{id}.jsonl"), &["episode"]) {
        let place = |what: &str, t: usize| format!("{id}, episode {}, {what} {t}", episode["index"]);
        let seed: u64 = episode["seed"].as_u64().unwrap();
        let mut rng = NpRng::seed(seed);
        let mut row = vec![0f32; env.observation_space().len()];
        env.reset(&mut rng, ObsMut::F32(&mut row));
        assert_close(&env.get(), &numbers(&episode["reset_state"]), 0.0, &place("reset state", 0));
        let overridden = episode["state_override"].as_bool().unwrap();
        if overridden {
            env.set(&numbers(&episode["initial_state"]));
        } else {
            let seen: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
            // Acrobot's first observation comes from numpy's single-precision sine and cosine.
            let tolerance = if id == "Acrobot-v1" { 1.2e-7 } else { 0.0 };
            let expected: Vec<f64> = numbers(&episode["initial_obs"]).iter().map(|&x| f64::from(x as f32)).collect();
            assert_close(&seen, &expected, tolerance, &place("first observation", 0));
        }

        // The registered environment has the time limit; its flags must come out as recorded, too.
        let limit = episode["max_episode_steps"].as_u64().map(|x| x as u32);
        let registered = !overridden && limit == spec.max_episode_steps;
        let mut limited = make(id, &[]).unwrap();
        let mut limited_rng = NpRng::seed(seed);
        let mut limited_row = row.clone();
        limited.reset(&mut limited_rng, ObsMut::F32(&mut limited_row));

        for (t, action) in episode["actions"].as_array().unwrap().iter().enumerate() {
            let action = Action::parse(action);
            let outcome = env.step(action.view(), &mut rng, ObsMut::F32(&mut row));
            assert_close(&env.get(), &numbers(&episode["states"][t]), state_tolerance, &place("state", t));
            let seen: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
            let expected: Vec<f64> = numbers(&episode["obs"][t]).iter().map(|&x| f64::from(x as f32)).collect();
            assert_close(&seen, &expected, seen_tolerance, &place("observation", t));
            let reward = episode["rewards"][t].as_f64().unwrap();
            assert_close(&[outcome.reward], &[reward], seen_tolerance, &place("reward", t));
            assert_eq!(Some(outcome.terminated), episode["terminated"][t].as_bool(), "{}", place("terminated", t));
            assert!(!outcome.truncated, "a bare simulator never truncates");
            if registered {
                let outcome = limited.step(action.view(), &mut limited_rng, ObsMut::F32(&mut limited_row));
                assert_eq!(limited_row, row, "{}", place("observation with time limit", t));
                assert_eq!(Some(outcome.terminated), episode["terminated"][t].as_bool(), "{}", place("terminated", t));
                assert_eq!(Some(outcome.truncated), episode["truncated"][t].as_bool(), "{}", place("truncated", t));
            }
            steps += 1;
        }
    }
    assert!(steps > 100, "{id}: only {steps} recorded steps");
}

fn default_options(id: &str) -> Options {
    Options::new(id, Vec::new())
}

#[test]
fn cartpole_replays_gymnasium() {
    replay("CartPole-v1", CartPole::new(&mut default_options("CartPole-v1")).unwrap(), 0.0, 0.0);
}

#[test]
fn acrobot_replays_gymnasium() {
    replay("Acrobot-v1", Acrobot::new(), 1e-9, 1e-6);
}

#[test]
fn mountain_car_replays_gymnasium() {
    replay("MountainCar-v0", MountainCar::new(&mut default_options("MountainCar-v0")).unwrap(), 0.0, 0.0);
}

#[test]
fn mountain_car_continuous_replays_gymnasium() {
    let id = "MountainCarContinuous-v0";
    replay(id, MountainCarContinuous::new(&mut default_options(id)).unwrap(), 0.0, 0.0);
}

#[test]
fn pendulum_replays_gymnasium() {
    replay("Pendulum-v1", Pendulum::new(&mut default_options("Pendulum-v1")).unwrap(), 0.0, 0.0);
}

#[test]
fn rewards_past_the_end_and_options() {
    let id = "CartPole-v1";
    let step = |env: &mut CartPole| -> StepOutcome {
        let mut row = [0f32; 4];
        env.step(ActionRef::I32(&[1]), &mut NpRng::seed(0), ObsMut::F32(&mut row))
    };
    let out_of_bounds = [2.39, 5.0, 0.0, 0.0];

    let mut env = CartPole::new(&mut default_options(id)).unwrap();
    env.set_state(out_of_bounds);
    let outcomes = [step(&mut env), step(&mut env)];
    assert_eq!(outcomes.map(|o| (o.reward, o.terminated)), [(1.0, true), (0.0, true)]);

    let given = vec![("sutton_barto_reward".to_owned(), OptionValue::Bool(true))];
    let mut env = CartPole::new(&mut Options::new(id, given)).unwrap();
    env.set_state([0.0; 4]);
    assert_eq!(step(&mut env).reward, 0.0);
    env.set_state(out_of_bounds);
    let outcomes = [step(&mut env), step(&mut env)];
    assert_eq!(outcomes.map(|o| (o.reward, o.terminated)), [(-1.0, true), (-1.0, true)]);

    // A goal that asks for speed is not reached by rolling over it slowly.
    for (goal_velocity, arrives) in [(0.0, true), (0.05, false)] {
        let given = vec![("goal_velocity".to_owned(), OptionValue::Float(goal_velocity))];
        let mut row = [0f32; 2];
        let mut env = MountainCar::new(&mut Options::new("MountainCar-v0", given.clone())).unwrap();
        env.set_state([0.49, 0.02]);
        let outcome = env.step(ActionRef::I32(&[2]), &mut NpRng::seed(0), ObsMut::F32(&mut row));
        assert_eq!(outcome.terminated, arrives);
        let mut env = MountainCarContinuous::new(&mut Options::new("MountainCarContinuous-v0", given)).unwrap();
        env.set_state([0.44, 0.02]);
        let outcome = env.step(ActionRef::F32(&[1.0]), &mut NpRng::seed(0), ObsMut::F32(&mut row));
        assert_eq!(outcome.terminated, arrives);
    }

    // Without gravity the pendulum turns at a constant rate.
    let mut env = Pendulum::new(&mut Options::new("Pendulum-v1", vec![("g".to_owned(), OptionValue::Int(0))])).unwrap();
    env.set_state([1.0, 0.5]);
    env.step(ActionRef::F32(&[0.0]), &mut NpRng::seed(0), ObsMut::F32(&mut [0f32; 3]));
    assert_eq!(env.state(), [1.0 + 0.5 * 0.05, 0.5]);

    let given = [("sutton_barto_rewards".to_owned(), OptionValue::Bool(true))];
    let refused = make(id, &given).err();
    let nearest = Some("sutton_barto_reward".to_owned());
    let (env, option) = (id.to_owned(), given[0].0.clone());
    let known = "max_episode_steps, sutton_barto_reward".to_owned();
    assert_eq!(refused, Some(EnvError::UnknownOption { env, option, nearest, known }));
}

/// Sets a simulator to the state behind an observation.
fn set_from_observation(env: &mut dyn Scalar, seen: &[f64]) {
    match seen.len() {
        3 => env.set(&[seen[1].atan2(seen[0]), seen[2]]),
        6 => env.set(&[seen[1].atan2(seen[0]), seen[3].atan2(seen[2]), seen[4], seen[5]]),
        _ => env.set(seen),
    }
}

fn bare(id: &str) -> Box<dyn Scalar> {
    match id {
        "CartPole-v1" => Box::new(CartPole::new(&mut default_options(id)).unwrap()),
        "Acrobot-v1" => Box::new(Acrobot::new()),
        "MountainCar-v0" => Box::new(MountainCar::new(&mut default_options(id)).unwrap()),
        "MountainCarContinuous-v0" => Box::new(MountainCarContinuous::new(&mut default_options(id)).unwrap()),
        "Pendulum-v1" => Box::new(Pendulum::new(&mut default_options(id)).unwrap()),
        other => panic!("{other} is not a classic-control environment"),
    }
}

const CLASSIC: [&str; 5] = ["CartPole-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1"];

fn make_batch(id: &str, num_envs: usize, limit: u32, simd: Simd) -> Box<dyn BatchEnv> {
    let make = spec(id).unwrap().make_batch.expect("classic control has batch steppers");
    make(&mut default_options(id), num_envs, limit, simd).unwrap()
}

/// Random actions for a batch; every eighth continuous one is out of range.
enum BatchActions {
    Discrete(Vec<i32>),
    Continuous(Vec<f32>),
}

impl BatchActions {
    fn sample(id: &str, num_envs: usize, rng: &mut NpRng) -> Self {
        match id {
            "CartPole-v1" => Self::Discrete((0..num_envs).map(|_| rng.integers(0, 2) as i32).collect()),
            "Acrobot-v1" | "MountainCar-v0" => {
                Self::Discrete((0..num_envs).map(|_| rng.integers(0, 3) as i32).collect())
            }
            _ => Self::Continuous((0..num_envs).map(|_| rng.uniform(-2.3, 2.3) as f32).collect()),
        }
    }

    fn view(&self) -> Actions<'_> {
        match self {
            Self::Discrete(actions) => Actions::I32(actions),
            Self::Continuous(actions) => Actions::F32(actions),
        }
    }

    fn one(&self, i: usize) -> ActionRef<'_> {
        match self {
            Self::Discrete(actions) => ActionRef::I32(&actions[i..=i]),
            Self::Continuous(actions) => ActionRef::F32(&actions[i..=i]),
        }
    }
}

fn floats(column: Column<'_>) -> &[f32] {
    column.as_f32().expect("observations of real numbers")
}

fn row(env: &dyn BatchEnv, i: usize) -> Vec<f64> {
    (0..env.observation_len()).map(|d| env.observation_column(d).get(i)).collect()
}

fn final_row(env: &dyn BatchEnv, i: usize) -> Vec<f64> {
    (0..env.observation_len()).map(|d| env.final_observation_column(d).get(i)).collect()
}

#[test]
fn batch_steppers_follow_the_scalar_simulators() {
    // More than one block, and a last block that is not full. Every few steps the scalar simulator is set to the
    // batch's state, so that chaos has no time to pull them apart.
    const NUM_ENVS: usize = 131;
    const LIMIT: u32 = 90;
    const RESYNC: usize = 10;
    for id in CLASSIC {
        let mut rng = NpRng::seed(3);
        let mut batch = make_batch(id, NUM_ENVS, LIMIT, Simd::detect());
        batch.reset(11);
        let mut scalars: Vec<Box<dyn Scalar>> = (0..NUM_ENVS).map(|_| bare(id)).collect();
        let mut age = vec![0u32; NUM_ENVS];
        let (mut ends, mut worst) = (0, 0f64);
        for t in 0..400 {
            if t % RESYNC == 0 {
                (0..NUM_ENVS).for_each(|i| set_from_observation(&mut *scalars[i], &row(&*batch, i)));
            }
            let actions = BatchActions::sample(id, NUM_ENVS, &mut rng);
            batch.step(actions.view()).unwrap();
            for i in 0..NUM_ENVS {
                let place = format!("{id}, lane {i}, step {t}");
                age[i] += 1;
                let mut expected = vec![0f32; batch.observation_len()];
                let outcome = scalars[i].step(actions.one(i), &mut rng, ObsMut::F32(&mut expected));
                let truncated = age[i] >= LIMIT;
                assert_eq!(batch.terminated()[i], u8::from(outcome.terminated), "{place}");
                assert_eq!(batch.truncated()[i], u8::from(truncated), "{place}");
                let ended = outcome.terminated || truncated;
                let seen = if ended { final_row(&*batch, i) } else { row(&*batch, i) };
                let reward = f64::from(batch.rewards()[i]);
                // The batch pays for the clipped force, the reference for the force asked for.
                let clipped = match actions.one(i) {
                    ActionRef::F32(&[a]) if id.starts_with("Mountain") => {
                        0.1 * (f64::from(a).powi(2) - f64::from(a).clamp(-1.0, 1.0).powi(2))
                    }
                    _ => 0.0,
                };
                let difference = seen.iter().zip(&expected).map(|(a, &b)| (a - f64::from(b)).abs());
                worst = difference.chain([(reward - outcome.reward - clipped).abs()]).fold(worst, f64::max);
                if ended {
                    ends += 1;
                    age[i] = 0;
                    set_from_observation(&mut *scalars[i], &row(&*batch, i));
                }
            }
        }
        assert!(worst < 1e-4, "{id}: batch and scalar differ by {worst:e}");
        assert!(ends >= 4 * NUM_ENVS, "{id}: only {ends} episodes ended");
    }
}

#[test]
fn vector_levels_give_the_same_bits() {
    for id in CLASSIC {
        for num_envs in [1, 64, 83, 200] {
            let levels = [Simd::Portable, Simd::Avx2, Simd::Avx512];
            let mut batches = levels.map(|simd| make_batch(id, num_envs, 30, simd));
            batches.iter_mut().for_each(|b| b.reset(5));
            let mut rng = NpRng::seed(8);
            for t in 0..70 {
                let actions = BatchActions::sample(id, num_envs, &mut rng);
                batches.iter_mut().for_each(|b| b.step(actions.view()).unwrap());
                let [first, others @ ..] = &batches;
                for other in others {
                    let place = format!("{id}, {num_envs} lanes, step {t}");
                    let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                    assert_eq!(bits(first.rewards()), bits(other.rewards()), "{place}");
                    assert_eq!(first.terminated(), other.terminated(), "{place}");
                    assert_eq!(first.truncated(), other.truncated(), "{place}");
                    for d in 0..first.observation_len() {
                        assert_eq!(
                            bits(floats(first.observation_column(d))),
                            bits(floats(other.observation_column(d))),
                            "{place}"
                        );
                        let (a, b) = (first.final_observation_column(d), other.final_observation_column(d));
                        assert_eq!(bits(floats(a)), bits(floats(b)), "{place}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_lane_does_not_depend_on_the_batch() {
    for id in CLASSIC {
        let (mut small, mut large) = (make_batch(id, 5, 25, Simd::detect()), make_batch(id, 150, 25, Simd::detect()));
        small.reset(9);
        large.reset(9);
        let mut rng = NpRng::seed(1);
        for t in 0..80 {
            let actions = BatchActions::sample(id, 150, &mut rng);
            large.step(actions.view()).unwrap();
            match &actions {
                BatchActions::Discrete(a) => small.step(Actions::I32(&a[..5])).unwrap(),
                BatchActions::Continuous(a) => small.step(Actions::F32(&a[..5])).unwrap(),
            }
            for i in 0..5 {
                assert_eq!(row(&*small, i), row(&*large, i), "{id}, lane {i}, step {t}");
            }
        }
    }
}

#[test]
fn start_states_are_uniform_and_unrelated_between_lanes() {
    const NUM_ENVS: usize = 4096;
    // First observation column that is a uniform draw, and its range.
    for (id, column, low, high) in [
        ("CartPole-v1", 2, -0.05, 0.05),
        ("Acrobot-v1", 4, -0.1, 0.1),
        ("MountainCar-v0", 0, -0.6, -0.4),
        ("MountainCarContinuous-v0", 0, -0.6, -0.4),
        ("Pendulum-v1", 2, -1.0, 1.0),
    ] {
        let mut batch = make_batch(id, NUM_ENVS, 4, Simd::detect());
        batch.reset(2);
        let mut rng = NpRng::seed(4);
        let mut columns = vec![floats(batch.observation_column(column)).to_vec()];
        for _ in 0..3 {
            // No episode ends by itself within four steps: all lanes are reset in the fourth.
            for t in 0..4 {
                batch.step(BatchActions::sample(id, NUM_ENVS, &mut rng).view()).unwrap();
                assert!(batch.truncated().iter().all(|&x| x == u8::from(t == 3)), "{id}");
            }
            columns.push(floats(batch.observation_column(column)).to_vec());
        }
        let unit: Vec<Vec<f64>> =
            columns.iter().map(|c| c.iter().map(|&x| (f64::from(x) - low) / (high - low)).collect()).collect();
        let bound = 4.5 / (NUM_ENVS as f64).sqrt();
        let correlation = |a: &[f64], b: &[f64]| {
            12.0 * a.iter().zip(b).map(|(a, b)| (a - 0.5) * (b - 0.5)).sum::<f64>() / a.len() as f64
        };
        for (k, column) in unit.iter().enumerate() {
            assert!(column.iter().all(|x| (-1e-6..=1.0 + 1e-6).contains(x)), "{id}");
            let mean = column.iter().sum::<f64>() / NUM_ENVS as f64;
            assert!((mean - 0.5).abs() * 12f64.sqrt() < bound, "{id}: mean {mean}");
            let variance = column.iter().map(|x| (x - 0.5).powi(2)).sum::<f64>() / NUM_ENVS as f64;
            assert!((12.0 * variance - 1.0).abs() < bound, "{id}: variance {variance}");
            for lag in [1, 2, 16, 64] {
                let neighbours = correlation(&column[lag..], &column[..NUM_ENVS - lag]);
                assert!(neighbours.abs() < 1.1 * bound, "{id}: lanes {lag} apart correlate by {neighbours}");
            }
            if let Some(next) = unit.get(k + 1) {
                let successive = correlation(column, next);
                assert!(successive.abs() < bound, "{id}: successive episodes correlate by {successive}");
            }
        }
    }
}

#[test]
fn forces_out_of_range_are_clipped() {
    for id in CLASSIC.into_iter().filter(|id| bare(id).action_space().dtype() == Dtype::F32) {
        let mut batch = make_batch(id, 3, 50, Simd::detect());
        let mut after = |actions: [f32; 3]| {
            batch.reset(1);
            batch.step(Actions::F32(&actions)).unwrap();
            [0, 1, 2].map(|i| row(&*batch, i))
        };
        assert_eq!(after([-1e30, f32::MAX, 2.0]), after([-2.0, 2.0, 2.0]), "{id}");
    }
}

#[test]
fn saved_states_go_on_bit_for_bit() {
    for id in CLASSIC {
        let mut rng = NpRng::seed(21);
        let mut env = bare(id);
        let mut a = vec![0f32; env.observation_space().len()];
        env.reset(&mut rng, ObsMut::F32(&mut a));
        let actions: Vec<_> = (0..60).map(|_| BatchActions::sample(id, 1, &mut rng)).collect();
        // After none, one and many steps: the continuous mountain car differs between the first and the rest.
        for saved_at in [0, 1, 30] {
            for action in &actions[..saved_at] {
                env.step(action.one(0), &mut rng, ObsMut::F32(&mut a));
            }
            let mut saved = StateWriter::default();
            env.save_state(&mut saved);
            let saved = saved.into_bytes();
            let mut copy = bare(id);
            let mut reader = StateReader::new(&saved);
            copy.load_state(&mut reader).unwrap();
            assert_eq!(reader.remaining(), 0, "{id}");
            let mut b = a.clone();
            for action in &actions[30..] {
                let outcome = env.step(action.one(0), &mut rng, ObsMut::F32(&mut a));
                assert_eq!(outcome, copy.step(action.one(0), &mut rng, ObsMut::F32(&mut b)), "{id}");
                assert_eq!((env.get(), &a), (copy.get(), &b), "{id}");
            }
            let cut = copy.load_state(&mut StateReader::new(&saved[..saved.len() - 1]));
            assert!(matches!(cut, Err(EnvError::State { .. })), "{id}");
        }
    }
}
