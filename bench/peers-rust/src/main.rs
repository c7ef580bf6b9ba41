//! Steps a second of environments of other crates: a plain loop over copies, random actions drawn beforehand, resets
//! and Gymnasium's time limits included.
//!
//! ```text
//! peers-rust ID                          the crates that have the environment, as JSON
//! peers-rust ID COPIES SECONDS CRATE     {"wall": steps a second, "cpu": steps a second of processor time}
//! ```

use std::hint::black_box;
use std::process::ExitCode;

use gmgn::envs::{box2d, classic_control, toy_text};
use gmgn::space::Space as _;
use gymnasia::envs::classical_control::{cartpole, mountain_car};
use rustix::time::{ClockId, clock_gettime};

/// One copy that takes its next random action, and starts anew when its episode has ended.
type Copy = Box<dyn FnMut()>;
/// Makes copy number `n`.
type Make = Box<dyn Fn(u64) -> Copy>;

/// Random actions of a copy, used in turn.
const ACTIONS: usize = 4096;

/// The crates that have the environment.
fn peers(id: &str) -> Vec<(&'static str, Make)> {
    let mut peers: Vec<(&'static str, Make)> = Vec::new();
    macro_rules! gmgn {
        ($env:expr, $limit:expr) => {
            peers.push(("gmgn", Box::new(|n| of_gmgn($env, n, $limit))))
        };
    }
    match id {
        "CartPole-v1" => gmgn!(classic_control::CartPoleEnv::new(Default::default()).expect("defaults"), 500),
        "Acrobot-v1" => gmgn!(classic_control::AcrobotEnv::new(Default::default()).expect("defaults"), 500),
        "MountainCar-v0" => gmgn!(classic_control::MountainCarEnv::new(Default::default()).expect("defaults"), 200),
        "Pendulum-v1" => gmgn!(classic_control::PendulumEnv::new(Default::default()).expect("defaults"), 200),
        "FrozenLake-v1" => gmgn!(toy_text::FrozenLakeEnv::new(Default::default()).expect("defaults"), 100),
        "Taxi-v4" => gmgn!(toy_text::TaxiEnv::new(Default::default()), 200),
        "CliffWalking-v1" => gmgn!(toy_text::CliffWalkingEnv::new(Default::default()), u32::MAX),
        "Blackjack-v1" => gmgn!(toy_text::BlackjackEnv::new(Default::default()), u32::MAX),
        "LunarLander-v3" => gmgn!(box2d::LunarLanderEnv::new(Default::default()).expect("defaults"), 1000),
        "BipedalWalker-v3" => gmgn!(box2d::BipedalWalkerEnv::new(Default::default()).expect("defaults"), 1600),
        _ => {}
    }
    match id {
        "CartPole-v1" => peers.push(("gymnasia", Box::new(|n| of_gymnasia(cartpole::CartPoleEnv::new(), n, 2, 500)))),
        "MountainCar-v0" => {
            peers.push(("gymnasia", Box::new(|n| of_gymnasia(mountain_car::MountainCarEnv::new(), n, 3, 200))));
        }
        _ => {}
    }
    #[cfg(feature = "gymnasium-rs")]
    if id == "CartPole-v1" {
        peers.push(("gymnasium-rs", Box::new(|n| of_gymnasium_rs(n))));
    }
    peers
}

fn of_gmgn<E: gmgn::env::Env + 'static>(mut env: E, n: u64, limit: u32) -> Copy {
    let mut rng = gmgn::rng::create_rng(Some(n));
    let actions: Vec<E::Act> = (0..ACTIONS).map(|_| env.action_space().sample(&mut rng)).collect();
    env.reset(Some(n)).expect("a fresh environment resets");
    let (mut at, mut elapsed) = (0, 0);
    Box::new(move || {
        at = (at + 1) % ACTIONS;
        elapsed += 1;
        let result = env.step(&actions[at]).expect("an action of the space");
        if result.terminated || result.truncated || elapsed == limit {
            env.reset(None).expect("it was reset before");
            elapsed = 0;
        }
        black_box(&result.obs);
    })
}

/// A linear congruential generator: enough for actions.
fn random_actions(n: u64, count: u64) -> Vec<u64> {
    let mut state = n;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % count
    };
    (0..ACTIONS).map(|_| next()).collect()
}

fn of_gymnasia<E, R>(mut env: E, n: u64, count: u64, limit: u32) -> Copy
where
    E: gymnasia::core::Env<Action = i64, ResetOptions = Option<R>> + 'static,
{
    let actions = random_actions(n, count);
    env.reset(Some(n), None);
    let (mut at, mut elapsed) = (0, 0);
    Box::new(move || {
        at = (at + 1) % ACTIONS;
        elapsed += 1;
        let result = env.step(actions[at] as i64);
        if result.terminated || result.truncated || elapsed == limit {
            env.reset(None, None);
            elapsed = 0;
        }
        black_box(&result.observation);
    })
}

#[cfg(feature = "gymnasium-rs")]
fn of_gymnasium_rs(n: u64) -> Copy {
    use gymnasium_rs::core::Env;
    let mut env = gymnasium_rs::envs::cartpole::CartPole::new();
    let actions = random_actions(n, 2);
    env.reset_seed(n as i32);
    let (mut at, mut elapsed) = (0, 0);
    Box::new(move || {
        at = (at + 1) % ACTIONS;
        elapsed += 1;
        let (observation, _, terminated, ..) = env.step(actions[at] as i32);
        if terminated || elapsed == 500 {
            env.reset_default();
            elapsed = 0;
        }
        black_box(&observation);
    })
}

fn seconds(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

fn measure(make: &Make, copies: u64, length: f64) {
    let mut copies: Vec<Copy> = (0..copies).map(make).collect();
    let mut pass = || copies.iter_mut().for_each(|copy| copy());
    pass();
    let (wall, cpu) = (seconds(ClockId::Monotonic), seconds(ClockId::ProcessCPUTime));
    let mut passes = 0;
    while seconds(ClockId::Monotonic) - wall < length {
        pass();
        passes += 1;
    }
    let (wall, cpu) = (seconds(ClockId::Monotonic) - wall, seconds(ClockId::ProcessCPUTime) - cpu);
    let steps = (passes * copies.len()) as f64;
    println!("{{\"wall\": {}, \"cpu\": {}}}", steps / wall, steps / cpu);
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        [id] => {
            println!("{:?}", peers(id).into_iter().map(|(name, _)| name).collect::<Vec<_>>());
            return ExitCode::SUCCESS;
        }
        [id, copies, length, name] => {
            let peer = peers(id).into_iter().find(|(peer, _)| *peer == name);
            if let (Some((_, make)), Ok(copies), Ok(length)) = (peer, copies.parse(), length.parse()) {
                measure(&make, copies, length);
                return ExitCode::SUCCESS;
            }
        }
        _ => {}
    }
    eprintln!("expected ID, or ID COPIES SECONDS CRATE; found {args:?}");
    ExitCode::from(2)
}
