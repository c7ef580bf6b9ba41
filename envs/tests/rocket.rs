//! Rocket-v0: its physics against closed forms, and whether it can be flown.

use hotfire_envs::rocket::{Booster, Flight, Rocket};
use hotfire_envs::{
    ActionRef, Actions, BatchEnv, Env, EnvError, NpRng, ObsMut, OptionValue, Options, check_env, make, make_batch,
};

const GRAVITY: f64 = 9.81;
const MAX_THRUST: f64 = 300_000.0;
const MAX_GIMBAL: f64 = 10.0 * std::f64::consts::PI / 180.0;
const DT: f64 = 0.05;

fn given(options: &[(&str, OptionValue)]) -> Vec<(String, OptionValue)> {
    options.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

fn rocket(options: &[(&str, OptionValue)]) -> Rocket {
    Rocket::new(&mut Options::new("Rocket-v0", given(options))).unwrap()
}

/// An autopilot: follows a profile of velocities to the deck with a wanted acceleration, leans so that the thrust points
/// along it, and turns by gimbal. Returns throttle (0 to 1) and gimbal angle (rad).
fn autopilot(booster: &Booster) -> (f64, f64) {
    const BRAKING: f64 = 4.0;
    let [x, y] = booster.position;
    let [vx, vy] = booster.velocity;
    // Far to the side it comes down later, and it waits above the deck while it drifts.
    let room = (y - 1.0 - 0.5 * (x.abs() - 5.0).max(0.0) - (vx.abs() - 1.0).max(0.0)).max(0.0);
    let wanted_vy = -1.5 - (2.0 * BRAKING * room).sqrt();
    let wanted_vx = (-0.2 * x).clamp(-12.0, 12.0);
    let up = (GRAVITY + BRAKING * (vy / wanted_vy).clamp(0.0, 1.5).powi(2) + 1.2 * (wanted_vy - vy)).max(4.0);
    let across = 0.8 * (wanted_vx - vx);
    let most = (0.06 + 0.02 * y).min(0.35);
    let lean = (-across).atan2(up).clamp(-most, most);
    let throttle = (booster.mass() * up / (MAX_THRUST * booster.tilt.cos())).clamp(0.05, 1.0);
    let turning = 4.0 * (lean - booster.tilt) - 3.5 * booster.turn;
    let thrust = MAX_THRUST * booster.throttle.max(0.1);
    let gimbal = (-turning * booster.inertia() / (12.0 * thrust)).clamp(-MAX_GIMBAL, MAX_GIMBAL);
    (throttle, gimbal)
}

/// Flies one episode; how it ended, its return and its length.
fn fly(env: &mut Rocket, seed: u64, mut pilot: impl FnMut(&Booster, &mut NpRng) -> Vec<f32>) -> (Flight, f64, u32) {
    let (mut rng, mut choices, mut row) = (NpRng::seed(seed), NpRng::seed(seed + 1_000_000), [0f32; 11]);
    env.reset(&mut rng, ObsMut::F32(&mut row));
    let mut total = 0.0;
    for step in 1..=500 {
        let action = pilot(env.booster(), &mut choices);
        let discrete = [action[0] as i32];
        let action = if action.len() == 1 { ActionRef::I32(&discrete) } else { ActionRef::F32(&action) };
        let outcome = env.step(action, &mut rng, ObsMut::F32(&mut row));
        total += outcome.reward;
        if outcome.terminated {
            return (env.flight(), total, step);
        }
    }
    (env.flight(), total, 500)
}

fn continuous(booster: &Booster) -> Vec<f32> {
    let (throttle, gimbal) = autopilot(booster);
    vec![(2.0 * throttle - 1.0) as f32, (gimbal / MAX_GIMBAL) as f32]
}

#[test]
fn an_autopilot_lands_and_random_actions_crash() {
    const EPISODES: u64 = 200;
    for (wind, least) in [(0.0, 0.99), (8.0, 0.95)] {
        let mut env = rocket(&[("wind", OptionValue::Float(wind))]);
        let flights: Vec<_> = (0..EPISODES).map(|seed| fly(&mut env, seed, |b, _| continuous(b))).collect();
        let landed = flights.iter().filter(|(flight, ..)| *flight == Flight::Landed).count();
        let mean = flights.iter().map(|(_, total, _)| total).sum::<f64>() / EPISODES as f64;
        let (fewest, most) = (flights.iter().map(|f| f.2).min(), flights.iter().map(|f| f.2).max());
        let returns = flights.iter().map(|f| f.1);
        let (low, high) = (returns.clone().fold(f64::MAX, f64::min), returns.fold(f64::MIN, f64::max));
        println!(
            "wind {wind}: {landed} landed, return {mean:.1} ({low:.1} to {high:.1}), {fewest:?} to {most:?} steps"
        );
        assert!(landed as f64 >= least * EPISODES as f64, "{landed} of {EPISODES} landed in wind {wind}");
        assert!(mean > 150.0, "mean return {mean}");
        for (flight, total, _) in flights {
            assert_eq!(flight == Flight::Landed, total > 50.0, "a return of {total} after {flight:?}");
        }
    }
    let mut env = rocket(&[]);
    let random = |_: &Booster, rng: &mut NpRng| vec![rng.uniform(-1.0, 1.0) as f32, rng.uniform(-1.0, 1.0) as f32];
    let flights: Vec<_> = (0..EPISODES).map(|seed| fly(&mut env, seed, random)).collect();
    let mean = flights.iter().map(|(_, total, _)| total).sum::<f64>() / EPISODES as f64;
    println!("random: mean return {mean:.1}");
    assert!(flights.iter().all(|(flight, ..)| *flight != Flight::Landed), "random actions land");
    assert!(mean < -50.0, "{mean}");
}

#[test]
fn the_discrete_actions_suffice() {
    const EPISODES: u64 = 100;
    let mut env = rocket(&[("continuous", OptionValue::Bool(false))]);
    // The autopilot's wishes, modulated: what a choice leaves undone is made up for later.
    let landed = (0..EPISODES)
        .filter(|&seed| {
            let (mut throttle_debt, mut gimbal_debt) = (0.0, 0.0);
            let pilot = |booster: &Booster, _: &mut NpRng| {
                let (throttle, gimbal) = autopilot(booster);
                throttle_debt += throttle;
                gimbal_debt += gimbal / MAX_GIMBAL;
                let level = (2.0 * throttle_debt).round().clamp(0.0, 2.0);
                let side = gimbal_debt.round().clamp(-1.0, 1.0);
                throttle_debt = (throttle_debt - level / 2.0).clamp(-0.5, 0.5);
                gimbal_debt = (gimbal_debt - side).clamp(-0.5, 0.5);
                vec![(3.0 * level + side + 1.0) as f32]
            };
            fly(&mut env, seed, pilot).0 == Flight::Landed
        })
        .count();
    println!("discrete: {landed} landed");
    assert!(landed as u64 * 100 >= 95 * EPISODES, "{landed} of {EPISODES} landed");
}

/// Steps a booster with constant commands in still air.
fn coast(start: Booster, steps: usize, action: [f32; 2]) -> Booster {
    let mut env = rocket(&[("wind", OptionValue::Int(0))]);
    let (mut rng, mut row) = (NpRng::seed(0), [0f32; 11]);
    env.reset(&mut rng, ObsMut::F32(&mut row));
    env.set_booster(start);
    for _ in 0..steps {
        env.step(ActionRef::F32(&action), &mut rng, ObsMut::F32(&mut row));
    }
    *env.booster()
}

#[test]
fn the_equations_of_motion_hold() {
    let start = Booster { position: [0.0, 250.0], fuel: 2000.0, ..Booster::default() };

    // A fall from rest with drag k v^2: v = -v_end tanh(g t / v_end). The air's density hardly changes over 12 m.
    let fallen = coast(start, 30, [-1.0, 0.0]);
    let time = 30.0 * DT;
    let k = 0.5 * 1.225 * (-245.0f64 / 8500.0).exp() * 5.6 / start.mass();
    let end = (GRAVITY / k).sqrt();
    assert!((fallen.velocity[1] + end * (GRAVITY * time / end).tanh()).abs() < 1e-4, "{}", fallen.velocity[1]);
    assert_eq!((fallen.velocity[0], fallen.tilt, fallen.fuel), (0.0, 0.0, 2000.0));

    // Full thrust burns thrust / (specific impulse times g), after the engine's lag.
    let burnt = coast(Booster { throttle: 1.0, ..start }, 20, [1.0, 0.0]);
    assert!((start.fuel - burnt.fuel - MAX_THRUST / (282.0 * GRAVITY)).abs() < 1e-6, "{}", burnt.fuel);
    // The rocket equation: velocity gained is the exhaust's speed times ln(m0 / m1), less gravity (drag is below 1 %).
    let gained = 282.0 * GRAVITY * (start.mass() / burnt.mass()).ln() - GRAVITY;
    assert!((burnt.velocity[1] - gained).abs() < 0.01 * gained, "{} {gained}", burnt.velocity[1]);

    // The lags are exponential.
    let lagging = coast(start, 4, [1.0, 1.0]);
    assert!((lagging.throttle - (1.0 - (-0.2f64 / 0.2).exp())).abs() < 1e-3, "{}", lagging.throttle);
    assert!((lagging.gimbal / MAX_GIMBAL - (1.0 - (-0.2f64 / 0.1).exp())).abs() < 2e-3, "{}", lagging.gimbal);

    // A positive gimbal angle turns to the right, and pushes the engine's side of the booster to the left.
    let turned = coast(Booster { throttle: 0.5, ..start }, 10, [0.0, 1.0]);
    assert!(turned.turn < -0.05 && turned.tilt < 0.0 && turned.velocity[0] < 0.0, "{turned:?}");
    let other = coast(Booster { throttle: 0.5, ..start }, 10, [0.0, -1.0]);
    assert_eq!((turned.turn, turned.velocity[0], turned.fuel), (-other.turn, -other.velocity[0], other.fuel));

    // Falling tail first the air turns it upright; an empty tank gives no thrust.
    let weathercock = coast(Booster { velocity: [0.0, -60.0], tilt: 0.2, ..start }, 20, [-1.0, 0.0]);
    assert!(weathercock.turn < -0.01, "{}", weathercock.turn);
    let empty = coast(Booster { fuel: 10.0, throttle: 1.0, ..start }, 40, [1.0, 0.0]);
    assert_eq!((empty.fuel, empty.throttle), (0.0, 0.0));
    assert!(empty.velocity[1] < -15.0, "{}", empty.velocity[1]);

    // Wind from the left pushes to the right, and the hull turns into it.
    let mut env = rocket(&[("wind", OptionValue::Int(12))]);
    let (mut rng, mut row) = (NpRng::seed(4), [0f32; 11]);
    env.reset(&mut rng, ObsMut::F32(&mut row));
    let before = env.wind();
    env.set_booster(start);
    env.step(ActionRef::F32(&[-1.0, 0.0]), &mut rng, ObsMut::F32(&mut row));
    assert!(before.abs() > 1.0 && env.booster().velocity[0] * before > 0.0, "{before}");
    assert!((f64::from(row[10]) - env.wind() / 10.0).abs() < 1e-6);
}

#[test]
fn touchdowns_are_judged() {
    let touch = |booster: Booster| {
        let mut env = rocket(&[("wind", OptionValue::Int(0))]);
        let (mut rng, mut row) = (NpRng::seed(0), [0f32; 11]);
        env.reset(&mut rng, ObsMut::F32(&mut row));
        env.set_booster(booster);
        let outcome = env.step(ActionRef::F32(&[0.0, 0.0]), &mut rng, ObsMut::F32(&mut row));
        assert_eq!(outcome.terminated, env.flight() != Flight::Flying);
        assert!(!outcome.truncated);
        let again = env.step(ActionRef::F32(&[1.0, 1.0]), &mut rng, ObsMut::F32(&mut row));
        if outcome.terminated {
            assert_eq!((again.reward, again.terminated), (0.0, true));
        }
        (env.flight(), *env.booster())
    };
    let good =
        Booster { position: [3.0, 0.05], velocity: [0.5, -2.0], throttle: 0.45, fuel: 900.0, ..Booster::default() };
    let (flight, rest) = touch(good);
    assert_eq!(flight, Flight::Landed);
    assert!(rest.velocity == [0.0; 2] && rest.tilt == 0.0 && rest.position[1] == 0.0, "{rest:?}");
    assert_eq!(touch(Booster { position: [3.0, 5.0], ..good }).0, Flight::Flying);
    for (what, bad) in [
        ("too fast", Booster { velocity: [0.5, -4.5], ..good }),
        ("drifting", Booster { velocity: [2.5, -2.0], ..good }),
        ("tilted", Booster { tilt: 0.2, ..good }),
        ("turning", Booster { turn: -0.4, ..good }),
        ("beside the deck", Booster { position: [16.0, 0.05], ..good }),
        ("too far", Booster { position: [200.5, 80.0], velocity: [1.0, 0.0], ..good }),
        ("too high", Booster { position: [0.0, 450.5], velocity: [0.0, 5.0], ..good }),
        ("upside down", Booster { position: [0.0, 100.0], tilt: 1.6, ..good }),
    ] {
        assert_eq!(touch(bad).0, Flight::Crashed, "{what}");
    }
}

#[test]
fn options_keep_the_contract_and_bad_ones_are_named() {
    for options in [
        given(&[("continuous", OptionValue::Bool(false))]),
        given(&[("wind", OptionValue::Float(25.0)), ("fuel", OptionValue::Int(400))]),
    ] {
        check_env(make("Rocket-v0", &options).unwrap().as_mut(), "Rocket-v0").unwrap();
    }
    let error = |name: &str, value: OptionValue| make("Rocket-v0", &given(&[(name, value)])).err().unwrap().to_string();
    assert_eq!(error("wind", OptionValue::Int(50)), "Rocket-v0: option `wind` must be a number from 0 to 30, found 50");
    assert_eq!(
        error("fuel", OptionValue::Float(f64::NAN)),
        "Rocket-v0: option `fuel` must be a number from 200 to 3000, found NaN"
    );
    assert!(error("winds", OptionValue::Int(5)).ends_with("did you mean `wind`?"));
    let mut env = rocket(&[]);
    let bytes = [255; 400];
    let refused = env.load_state(&mut hotfire_envs::StateReader::new(&bytes));
    assert!(matches!(refused, Err(EnvError::State { .. })));
}

fn row(batch: &dyn BatchEnv, i: usize, last: bool) -> [f64; 11] {
    std::array::from_fn(|d| {
        if last { batch.final_observation_column(d).get(i) } else { batch.observation_column(d).get(i) }
    })
}

/// The booster that an observation shows.
fn shown([x, y, vx, vy, sin, cos, turn, throttle, gimbal, fuel, _]: [f64; 11]) -> Booster {
    Booster {
        position: [100.0 * x, 100.0 * y],
        velocity: [20.0 * vx, 20.0 * vy],
        tilt: sin.atan2(cos),
        turn,
        throttle,
        gimbal: gimbal * MAX_GIMBAL,
        fuel: 3000.0 * fuel,
    }
}

/// In still air a batch does what the scalar simulator does, step by step from the batch's states.
#[test]
fn the_batch_stepper_follows_the_scalar_simulator() {
    const N: usize = 150;
    for discrete in [false, true] {
        let options = given(&[("wind", OptionValue::Int(0)), ("continuous", OptionValue::Bool(!discrete))]);
        let mut batch = make_batch("Rocket-v0", &options, N).unwrap();
        batch.reset(4);
        let mut scalar = Rocket::new(&mut Options::new("Rocket-v0", options)).unwrap();
        let (mut rng, mut expected, mut ends) = (NpRng::seed(7), [0f32; 11], [0; 2]);
        let (mut worst, mut worst_reward) = (0.0f64, 0.0f64);
        for step in 0..400 {
            let before: Vec<_> = (0..N).map(|i| row(&*batch, i, false)).collect();
            // Half of them are flown by the autopilot, so that some land.
            let throttles: Vec<f32> = (0..N)
                .flat_map(|i| match i % 2 {
                    0 => continuous(&shown(before[i])),
                    _ => vec![rng.uniform(-1.5, 1.5) as f32, rng.uniform(-1.5, 1.5) as f32],
                })
                .collect();
            let choices: Vec<i32> = (0..N).map(|_| rng.integers(0, 9) as i32).collect();
            batch.step(if discrete { Actions::I32(&choices) } else { Actions::F32(&throttles) }).unwrap();
            for i in 0..N {
                scalar.reset(&mut NpRng::seed(0), ObsMut::F32(&mut expected));
                scalar.set_booster(shown(before[i]));
                let action = match discrete {
                    true => ActionRef::I32(&choices[i..=i]),
                    false => ActionRef::F32(&throttles[2 * i..2 * i + 2]),
                };
                let outcome = scalar.step(action, &mut NpRng::seed(0), ObsMut::F32(&mut expected));
                let (terminated, truncated) = (batch.terminated()[i] == 1, batch.truncated()[i] == 1);
                assert_eq!(outcome.terminated, terminated, "step {step} of {i}");
                ends[0] += u32::from(scalar.flight() == Flight::Landed);
                ends[1] += u32::from(scalar.flight() == Flight::Crashed);
                let seen = row(&*batch, i, terminated || truncated);
                for (seen, expected) in seen.iter().zip(&expected) {
                    worst = worst.max((seen - f64::from(*expected)).abs());
                }
                worst_reward = worst_reward.max((f64::from(batch.rewards()[i]) - outcome.reward).abs());
            }
        }
        println!("discrete {discrete}: observations within {worst:e}, rewards {worst_reward:e}, ends {ends:?}");
        assert!(worst < 3e-6 && worst_reward < 1e-3, "{worst:e} {worst_reward:e}");
        assert!(ends[1] > 100 && (discrete || ends[0] > 50), "{ends:?}");
    }
}

/// Mean and gust of the wind have the scalar simulator's distribution: variance at the start, and correlation in time.
#[test]
fn the_wind_of_the_batch_stepper_has_the_same_distribution() {
    const N: usize = 20_000;
    const STEPS: usize = 40;
    let moments = |winds: &dyn Fn(usize) -> (f64, f64)| {
        let pairs: Vec<_> = (0..N).map(winds).collect();
        let mean = |f: &dyn Fn(&(f64, f64)) -> f64| pairs.iter().map(f).sum::<f64>() / N as f64;
        [mean(&|w| w.0), mean(&|w| w.0 * w.0), mean(&|w| w.1 * w.1), mean(&|w| w.0 * w.1), mean(&|w| w.0.powi(4))]
    };
    let mut batch = make_batch("Rocket-v0", &[], N).unwrap();
    batch.reset(9);
    let column = |batch: &dyn BatchEnv| (0..N).map(|i| batch.observation_column(10).get(i)).collect::<Vec<_>>();
    let first = column(&*batch);
    (0..STEPS).for_each(|_| batch.step(Actions::F32(&[0.0; 2 * N])).unwrap());
    let second = column(&*batch);
    let of_batch = moments(&|i| (first[i], second[i]));

    let mut env = rocket(&[]);
    let mut row = [0f32; 11];
    let mut pairs = Vec::new();
    for seed in 0..N as u64 {
        let mut rng = NpRng::seed(seed);
        env.reset(&mut rng, ObsMut::F32(&mut row));
        let first = f64::from(row[10]);
        (0..STEPS).for_each(|_| {
            env.step(ActionRef::F32(&[0.0; 2]), &mut rng, ObsMut::F32(&mut row));
        });
        pairs.push((first, f64::from(row[10])));
    }
    let of_scalar = moments(&|i| pairs[i]);
    println!("batch {of_batch:.4?}, scalar {of_scalar:.4?}");
    for (a, b) in of_batch.iter().zip(&of_scalar) {
        // Standard errors lie below 0.01 for variances of about 0.55 and 0.02 for the fourth moment.
        assert!((a - b).abs() < 0.06, "{of_batch:?} {of_scalar:?}");
    }
}
