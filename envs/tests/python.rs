//! The bridge to Python's Gymnasium, against the real one; skipped with a message where it is not installed.

#![cfg(feature = "python")]

use hotfire_envs::{
    Actions, AutoresetMode, Buffer, EnvError, NpRng, ObsMut, OptionValue, Space, StateReader, StateWriter, VecEnv,
    check_env, make, spec,
};
use pyo3::prelude::*;

/// Environments for the tests, registered with Gymnasium.
const TEST_ENVS: &str = r#"
import gymnasium, numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text, Tuple
from gymnasium.utils import EzPickle

class Mixed(gymnasium.Env):
    """Echoes actions of a nested space, through arrays of many kinds."""
    observation_space = Dict(
        a=Box(-10, 10, (2, 2), np.float64), b=MultiBinary(3), c=Tuple([Discrete(5, start=-2), MultiDiscrete([3, 4])]),
        d=Box(0, 1, (2,), bool), e=Box(-100, 100, (2, 2), np.int16))
    action_space = Dict(force=Box(-1, 1, (2, 2), np.float64), gear=Discrete(5, start=-2), bits=MultiBinary(3))

    def observe(self, force, gear, bits):
        assert force.dtype == np.float64 and force.shape == (2, 2) and bits.dtype == np.int8, (force, bits)
        whole = np.asarray([[gear, 2], [3, 4]], np.int16)
        # A transposed array is not contiguous.
        return dict(a=(2 * force).T, b=bits, c=(gear, np.asarray([2, 3])), d=bits[:2].astype(bool), e=whole)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return self.observe(np.zeros((2, 2)), -2, np.zeros(3, np.int8)), {}

    def step(self, action):
        return self.observe(action["force"], action["gear"], action["bits"]), np.float32(0.5), np.False_, False, {}

class Failing(gymnasium.Env):
    observation_space, action_space = Box(-1, 1, (1,)), Discrete(2)
    def __init__(self, fault="raise", render_mode=None):
        self.fault, self.count = fault, 0
    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        if self.fault == "reset":
            raise RuntimeError("no fuel")
        return np.zeros(1, np.float32), {}
    def step(self, action):
        self.count += 1
        if self.count == 3 and self.fault == "raise":
            raise RuntimeError("the engine is on fire")
        value = np.nan if self.count == 3 and self.fault == "nan" else 0
        reward = np.inf if self.count == 3 and self.fault == "reward" else 0
        size = 2 if self.count == 3 and self.fault == "shape" else 1
        return np.full(size, value, np.float32), reward, False, False, {}

class Lossy(gymnasium.Env, EzPickle):
    observation_space, action_space = Box(0, 1e6, (1,)), Discrete(2)
    def __init__(self):
        EzPickle.__init__(self)
        self.count = 0
    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(1, np.float32), {}
    def step(self, action):
        self.count += 1
        return np.full(1, self.count, np.float32), 1.0, False, False, {}

class Texts(Failing):
    observation_space = Text(5)

for name, creator in dict(Mixed=Mixed, Failing=Failing, Lossy=Lossy, Texts=Texts).items():
    gymnasium.register(f"Test/{name}-v0", creator)
"#;

/// Whether Gymnasium is there; registers the test environments.
fn available() -> bool {
    static AVAILABLE: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        if let Err(error) = spec("gymnasium:CartPole-v1") {
            let EnvError::Foreign { env, problem } = &error else { panic!("{error}") };
            assert!(env == "gymnasium:CartPole-v1" && problem.contains("cannot import `gymnasium`"), "{error}");
            println!("skipped: {error}");
            return false;
        }
        Python::attach(|py| {
            let code = std::ffi::CString::new(TEST_ENVS).unwrap();
            PyModule::from_code(py, &code, c"test_envs.py", c"test_envs").map(|_| ())
        })
        .unwrap();
        true
    })
}

fn option(name: &str, value: &str) -> (String, OptionValue) {
    (name.to_owned(), OptionValue::Text(value.to_owned()))
}

/// One random action for each environment.
fn actions(space: &Space, rng: &mut NpRng, num_envs: usize) -> Buffer {
    let mut batch = Buffer::new(space, num_envs);
    for i in 0..num_envs {
        let range = i * space.len()..(i + 1) * space.len();
        let row = match &mut batch {
            Buffer::F32(x) => ObsMut::F32(&mut x[range]),
            Buffer::U8(x) => ObsMut::U8(&mut x[range]),
            Buffer::I32(x) => ObsMut::I32(&mut x[range]),
        };
        space.sample_into(rng, row).unwrap();
    }
    batch
}

fn as_actions(batch: &Buffer) -> Actions<'_> {
    match batch {
        Buffer::F32(x) => Actions::F32(x),
        Buffer::U8(x) => Actions::U8(x),
        Buffer::I32(x) => Actions::I32(x),
    }
}

/// Seeds, autoreset, truncation and all numbers: what Gymnasium gives through the bridge is what this crate gives.
#[test]
fn environments_equal_those_of_this_crate() {
    if !available() {
        return;
    }
    for (id, steps) in [("CartPole-v1", 400), ("Pendulum-v1", 450), ("Acrobot-v1", 600), ("MountainCar-v0", 450)] {
        let theirs_id = format!("gymnasium:{id}");
        let (ours, theirs) = (spec(id).unwrap(), spec(&theirs_id).unwrap());
        assert_eq!(theirs.id, theirs_id);
        assert_eq!(
            (theirs.max_episode_steps, theirs.reward_threshold),
            (ours.max_episode_steps, ours.reward_threshold),
            "{id}"
        );
        for mode in [AutoresetMode::SameStep, AutoresetMode::NextStep] {
            let [mut ours, mut theirs] = [id, &theirs_id].map(|id| VecEnv::make(id, 3, mode).unwrap());
            assert_eq!(ours.observation_space(), theirs.observation_space(), "{id}");
            assert_eq!(ours.action_space(), theirs.action_space(), "{id}");
            ours.reset(123);
            theirs.reset(123);
            let (mut rng, mut ended) = (NpRng::seed(5), 0);
            for step in 0..steps {
                let batch = actions(ours.action_space(), &mut rng, 3);
                ours.step(as_actions(&batch)).unwrap();
                theirs.step(as_actions(&batch)).unwrap();
                assert_eq!(ours.observations(), theirs.observations(), "{id}, step {step}");
                assert_eq!(ours.final_observations(), theirs.final_observations(), "{id}, step {step}");
                assert_eq!(ours.rewards(), theirs.rewards(), "{id}, step {step}");
                assert_eq!(ours.terminated(), theirs.terminated(), "{id}, step {step}");
                assert_eq!(ours.truncated(), theirs.truncated(), "{id}, step {step}");
                assert!(ours.ended_episodes().eq(theirs.ended_episodes()), "{id}, step {step}");
                ended += ours.ended_episodes().count();
            }
            assert!(ended >= 3, "{id}: {ended} episodes ended");
        }
    }
}

const PLAY: &str = r#"
import gymnasium, numpy as np
def play(name, actions, seed, dtype):
    """Observations as bytes, rewards, and whether the episode has ended, from a plain loop."""
    if name.startswith("ALE/"):
        import ale_py
    env = gymnasium.make(name)
    seen = [(np.asarray(env.reset(seed=seed)[0], dtype).tobytes(), 0.0, False)]
    for action in actions:
        one = isinstance(env.action_space, gymnasium.spaces.Discrete)
        action = int(action[0]) if one else np.asarray(action, np.float32)
        observation, reward, terminated, truncated, _ = env.step(action)
        seen.append((np.asarray(observation, dtype).tobytes(), float(reward), terminated or truncated))
    return seen
"#;

/// Atari's pixels and MuJoCo's numbers are those of a plain Python loop, where the packages are installed.
#[test]
fn atari_and_mujoco_equal_a_plain_loop() {
    if !available() {
        return;
    }
    for (name, dtype, shape) in [
        ("ALE/Pong-v5", "uint8", &[210, 160, 3][..]),
        ("HalfCheetah-v5", "float32", &[17]),
        ("Ant-v5", "float32", &[105]),
    ] {
        let id = format!("gymnasium:{name}");
        let mut envs = match VecEnv::make(&id, 1, AutoresetMode::SameStep) {
            Ok(envs) => envs,
            Err(error) => {
                println!("skipped: {error}");
                continue;
            }
        };
        assert_eq!(envs.observation_space().shape(), shape, "{id}");
        let (space, mut rng) = (envs.action_space().clone(), NpRng::seed(3));
        let taken: Vec<_> = (0..60).map(|_| actions(&space, &mut rng, 1)).collect();
        let rows = taken.iter().map(|row| match row {
            Buffer::F32(x) => x.clone(),
            Buffer::U8(x) => x.iter().map(|x| f32::from(*x)).collect(),
            Buffer::I32(x) => x.iter().map(|x| *x as f32).collect(),
        });
        let expected: Vec<(Vec<u8>, f64, bool)> = Python::attach(|py| {
            let code = std::ffi::CString::new(PLAY).unwrap();
            let play = PyModule::from_code(py, &code, c"play.py", c"play").unwrap().getattr("play").unwrap();
            play.call1((name, rows.collect::<Vec<_>>(), 7, dtype)).unwrap().extract().unwrap()
        });
        envs.reset(7);
        for (step, (observation, reward, ended)) in expected.iter().enumerate() {
            if step > 0 {
                envs.step(as_actions(&taken[step - 1])).unwrap();
            }
            let seen = match envs.observations() {
                Buffer::F32(x) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
                Buffer::U8(x) => x.clone(),
                Buffer::I32(_) => panic!("{id}: integers"),
            };
            assert!(seen == *observation, "{id}: other observations at step {step}");
            assert_eq!((envs.rewards()[0], ended), (*reward as f32, &false), "{id}: step {step}");
        }
        println!("{id}: {} steps equal a plain loop", expected.len() - 1);
    }
}

#[test]
fn environments_keep_the_contract() {
    if !available() {
        return;
    }
    for id in ["CartPole-v1", "FrozenLake-v1", "Blackjack-v1", "Test/Mixed-v0"] {
        let id = format!("gymnasium:{id}");
        check_env(make(&id, &[]).unwrap().as_mut(), &id).unwrap();
    }
}

/// Nested spaces, arrays of several types and strides, pass both ways.
#[test]
fn nested_values_pass_both_ways() {
    if !available() {
        return;
    }
    let mut envs = VecEnv::make("gymnasium:Test/Mixed-v0", 1, AutoresetMode::SameStep).unwrap();
    envs.reset(0);
    envs.step(Actions::F32(&[0.25, 0.5, -0.25, -0.5, 2.0, 1.0, 0.0, 1.0])).unwrap();
    let expected = [
        0.5, -0.5, 1.0, -1.0, // a: twice the force, transposed
        1.0, 0.0, 1.0, // b
        2.0, 2.0, 3.0, // c
        1.0, 0.0, // d
        2.0, 2.0, 3.0, 4.0, // e
    ];
    assert_eq!(envs.observations_f32(), expected);
    assert_eq!(envs.rewards(), [0.5]);
}

#[test]
fn a_saved_environment_goes_on_where_it_was() {
    if !available() {
        return;
    }
    let make = || VecEnv::make("gymnasium:CartPole-v1", 2, AutoresetMode::SameStep).unwrap();
    let mut first = make();
    first.reset(3);
    let mut rng = NpRng::seed(1);
    let batches: Vec<_> = (0..120).map(|_| actions(first.action_space(), &mut rng, 2)).collect();
    batches[..40].iter().for_each(|batch| first.step(as_actions(batch)).unwrap());
    // A window on the environment is not a part of its state.
    if let Some(frame) = first.env(0).render() {
        assert_eq!(frame.rgb.len(), 3 * 400 * 600);
    }
    let mut state = StateWriter::default();
    first.save_state(&mut state);
    let mut second = make();
    second.load_state(&mut StateReader::new(&state.into_bytes())).unwrap();
    for batch in &batches[40..] {
        first.step(as_actions(batch)).unwrap();
        second.step(as_actions(batch)).unwrap();
        assert_eq!(first.observations(), second.observations());
        assert_eq!(first.terminated(), second.terminated());
    }
}

/// An environment that comes back from a pickle without its state must not pass for the same one.
#[test]
fn an_environment_that_cannot_be_saved_is_refused_or_truncated() {
    if !available() {
        return;
    }
    let make =
        |options: &[_]| VecEnv::make_with("gymnasium:Test/Lossy-v0", options, 1, AutoresetMode::SameStep).unwrap();
    let mut envs = make(&[]);
    envs.reset(0);
    (0..5).for_each(|_| envs.step(Actions::I32(&[0])).unwrap());
    let mut state = StateWriter::default();
    envs.save_state(&mut state);
    let bytes = state.into_bytes();

    let error = make(&[]).load_state(&mut StateReader::new(&bytes)).unwrap_err().to_string();
    assert!(error.contains("Lossy is pickled by its constructor's arguments"), "{error}");
    assert!(error.contains("on_resume = \"truncate\""), "{error}");

    let mut resumed = make(&[option("on_resume", "truncate")]);
    resumed.load_state(&mut StateReader::new(&bytes)).unwrap();
    resumed.step(Actions::I32(&[0])).unwrap();
    assert_eq!((resumed.terminated(), resumed.truncated(), resumed.rewards()), (&[false][..], &[true][..], &[0.0][..]));
    assert_eq!(resumed.final_observations_f32(), [5.0], "the last observation before the state was saved");
    assert_eq!(resumed.observations_f32(), [0.0]);
    let ended: Vec<_> = resumed.ended_episodes().collect();
    assert_eq!((ended[0].episode_return, ended[0].length), (5.0, 6));
    resumed.step(Actions::I32(&[0])).unwrap();
    assert_eq!((resumed.observations_f32(), resumed.truncated()), (&[1.0][..], &[false][..]));
}

#[test]
fn failures_in_python_are_errors() {
    if !available() {
        return;
    }
    let id = "gymnasium:Test/Failing-v0";
    for (fault, step, what) in [
        ("raise", 3, "RuntimeError: the engine is on fire"),
        ("reset", 1, "RuntimeError: no fuel"),
        ("nan", 3, "NaN"),
        ("reward", 3, "inf"),
        ("shape", 3, "2 elements, its space 1"),
    ] {
        let mut envs = VecEnv::make_with(id, &[option("fault", fault)], 1, AutoresetMode::SameStep).unwrap();
        envs.reset(0);
        for _ in 1..step {
            envs.step(Actions::I32(&[0])).unwrap();
        }
        let error = envs.step(Actions::I32(&[0])).unwrap_err();
        assert!(matches!(&error, EnvError::Foreign { env, .. } if env == id), "{error}");
        assert!(error.to_string().contains(what), "{fault}: {error}");
    }
}

#[test]
fn mistakes_are_named() {
    if !available() {
        return;
    }
    let error = |id: &str, options: &[_]| make(id, options).err().unwrap().to_string();
    for (id, options, what) in [
        ("gymnasium:CartPole-v9", &[][..], "CartPole"),
        ("gymnasium:NoSuchGame", &[], "NoSuchGame"),
        ("gymnasium:Test/Texts-v0", &[], "is not one of Box, Discrete"),
        ("gymnasium:CartPole-v1", &[option("colour", "red")], "colour"),
        ("gymnasium:CartPole-v1", &[option("on_resume", "maybe")], "\"refuse\" or \"truncate\", found \"maybe\""),
    ] {
        let error = error(id, options);
        assert!(error.starts_with(id) && error.contains(what), "{error}");
    }
    let limit = ("max_episode_steps".to_owned(), OptionValue::Int(7));
    let mut env = VecEnv::make_with("gymnasium:Pendulum-v1", &[limit], 1, AutoresetMode::SameStep).unwrap();
    env.reset(0);
    let lengths: Vec<_> =
        (1..=14).filter(|_| env.step(Actions::F32(&[0.0])).is_ok_and(|()| env.truncated()[0])).collect();
    assert_eq!(lengths, [7, 14]);
}
