//! `VecEnv` against Gymnasium 1.4.0's `SyncVectorEnv`, and its own promises.

mod common;

use hotfire_envs::{
    ActionRef, Actions, AutoresetMode, Buffer, EndedEpisode, Env, EnvError, NpRng, ObsMut, OptionValue, Space,
    StateReader, StateWriter, StepOutcome, TimeLimit, VecEnv,
};
use serde_json::Value;

fn rows(json: &Value) -> Vec<f32> {
    json.as_array()
        .unwrap()
        .iter()
        .flat_map(|row| row.as_array().unwrap())
        .map(|x| x.as_f64().unwrap() as f32)
        .collect()
}

fn bools(json: &Value) -> Vec<bool> {
    json.as_array().unwrap().iter().map(|x| x.as_bool().unwrap()).collect()
}

fn limit(steps: i64) -> [(String, OptionValue); 1] {
    [("max_episode_steps".to_owned(), OptionValue::Int(steps))]
}

#[test]
fn autoreset_modes_equal_gymnasiums() {
    let mut traces = common::read_kinds("vector_autoreset.jsonl", &["vector_trace"]);
    traces.retain(|trace| trace["vectoriser"] == "SyncVectorEnv");
    assert_eq!(traces.len(), 3);
    for trace in &traces {
        let (name, mode) = match trace["autoreset_mode"].as_str().unwrap() {
            "NextStep" => ("next step", AutoresetMode::NextStep),
            "SameStep" => ("same step", AutoresetMode::SameStep),
            "Disabled" => ("disabled", AutoresetMode::Disabled),
            other => panic!("autoreset mode {other}"),
        };
        let num_envs = trace["num_envs"].as_u64().unwrap() as usize;
        let options = limit(trace["max_episode_steps"].as_i64().unwrap());
        let mut envs = VecEnv::make_with("CartPole-v1", &options, num_envs, mode).unwrap();
        envs.reset(trace["seed"].as_u64().unwrap());
        assert_eq!(envs.observations_f32(), rows(&trace["initial_obs"]), "{name}");

        let (mut ended, mut running) = (0, vec![(0.0, 0); num_envs]);
        for (t, step) in trace["steps"].as_array().unwrap().iter().enumerate() {
            let at = format!("{name}, step {t}");
            let actions: Vec<i32> =
                step["actions"].as_array().unwrap().iter().map(|a| a.as_i64().unwrap() as i32).collect();
            envs.step(Actions::I32(&actions)).unwrap();
            let observations = rows(&step["obs"]);
            assert_eq!(envs.observations_f32(), observations, "{at}");
            let rewards: Vec<f64> = step["rewards"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
            assert_eq!(envs.rewards(), rewards.iter().map(|x| *x as f32).collect::<Vec<_>>(), "{at}");
            let (terminated, truncated) = (bools(&step["terminations"]), bools(&step["truncations"]));
            assert_eq!(envs.terminated(), terminated, "{at}");
            assert_eq!(envs.truncated(), truncated, "{at}");

            let mut expected = Vec::new();
            for i in 0..num_envs {
                // A reset by the next step is the one step without a reward here.
                if rewards[i] != 0.0 {
                    running[i] = (running[i].0 + rewards[i], running[i].1 + 1);
                }
                if terminated[i] || truncated[i] {
                    let (episode_return, length) = std::mem::take(&mut running[i]);
                    expected.push(EndedEpisode { env: i, episode_return, length });
                    let final_obs = match mode {
                        AutoresetMode::SameStep => {
                            assert_eq!(step["info"]["_final_obs"][i], true, "{at}");
                            rows(&serde_json::json!([step["info"]["final_obs"][i]]))
                        }
                        _ => observations[4 * i..4 * i + 4].to_vec(),
                    };
                    assert_eq!(envs.final_observations_f32()[4 * i..4 * i + 4], final_obs, "{at}");
                }
            }
            assert_eq!(envs.ended_episodes().collect::<Vec<_>>(), expected, "{at}");
            ended += expected.len();

            if let Some(mask) = step.get("reset_mask").filter(|mask| !mask.is_null()) {
                envs.reset_masked(&bools(mask)).unwrap();
                assert_eq!(envs.observations_f32(), rows(&step["obs_after_masked_reset"]), "{at}");
            }
        }
        assert!(ended >= 6, "only {ended} episodes ended");
    }
}

/// Counts its steps and ends after `length` of them; the reward is a random number. `work` burns time.
struct Count {
    observation: Space,
    action: Space,
    steps: i32,
    length: i32,
    work: u32,
}

impl Count {
    fn boxed(length: i32, work: u32) -> Box<dyn Env> {
        let observation = Space::multi_discrete([1000, 1000]);
        Box::new(Self { observation, action: Space::bounded([-1.0], [1.0], [1]), steps: 0, length, work })
    }
}

impl Env for Count {
    fn observation_space(&self) -> &Space {
        &self.observation
    }

    fn action_space(&self) -> &Space {
        &self.action
    }

    fn reset(&mut self, rng: &mut NpRng, obs: ObsMut<'_>) {
        self.steps = 0;
        let ObsMut::I32(obs) = obs else { panic!("integers") };
        obs.copy_from_slice(&[0, rng.integers(0, 1000) as i32]);
    }

    fn step(&mut self, action: ActionRef<'_>, rng: &mut NpRng, obs: ObsMut<'_>) -> StepOutcome {
        let ActionRef::F32(&[action]) = action else { panic!("one float") };
        let ObsMut::I32(obs) = obs else { panic!("integers") };
        self.steps += 1;
        let noise = (0..self.work).fold(rng.random(), |x, _| (x * 3.7 * (1.0 - x)).clamp(0.0, 1.0));
        obs.copy_from_slice(&[self.steps, (noise * 999.0) as i32]);
        let ended = self.steps == self.length;
        StepOutcome { reward: noise + f64::from(action), terminated: ended, truncated: ended && self.length % 2 == 0 }
    }

    fn save_state(&self, to: &mut StateWriter) {
        to.i32(self.steps);
    }

    fn load_state(&mut self, from: &mut StateReader<'_>) -> Result<(), EnvError> {
        self.steps = from.i32()?;
        Ok(())
    }
}

fn counters(num_envs: usize, work: u32, mode: AutoresetMode) -> VecEnv {
    let envs = (0..num_envs).map(|i| Count::boxed(3 + i as i32 % 5, work)).collect();
    VecEnv::from_envs("Count-v0", envs, mode).unwrap()
}

/// All that a caller can see of a batch.
fn view(envs: &VecEnv) -> (Buffer, Buffer, Vec<f32>, Vec<bool>, Vec<bool>, Vec<EndedEpisode>) {
    (
        envs.observations().clone(),
        envs.final_observations().clone(),
        envs.rewards().to_vec(),
        envs.terminated().to_vec(),
        envs.truncated().to_vec(),
        envs.ended_episodes().collect(),
    )
}

fn actions(num_envs: usize, t: usize) -> Vec<f32> {
    (0..num_envs).map(|i| ((i * 7 + t * 3) % 11) as f32 / 11.0).collect()
}

#[test]
fn threads_do_not_change_results() {
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut envs = counters(37, 20_000, AutoresetMode::SameStep);
            envs.reset(5);
            let views: Vec<_> = (0..12)
                .map(|t| {
                    envs.step(Actions::F32(&actions(37, t))).unwrap();
                    view(&envs)
                })
                .collect();
            views
        })
    };
    assert!(run(1) == run(3));
}

#[test]
fn every_environment_is_seeded_with_its_index() {
    let mut batch = counters(5, 0, AutoresetMode::SameStep);
    batch.reset(u64::MAX - 1);
    for i in 0..5 {
        let mut rng = NpRng::seed_u128(u128::from(u64::MAX) - 1 + i as u128);
        let first = rng.integers(0, 1000) as i32;
        assert_eq!(batch.observations().as_i32().unwrap()[2 * i..2 * i + 2], [0, first]);
    }
}

#[test]
fn a_saved_batch_goes_on() {
    for mode in [AutoresetMode::NextStep, AutoresetMode::SameStep, AutoresetMode::Disabled] {
        let step = |envs: &mut VecEnv, t: usize| {
            if mode == AutoresetMode::Disabled {
                let ended: Vec<bool> = envs.terminated().iter().zip(envs.truncated()).map(|(a, b)| a | b).collect();
                envs.reset_masked(&ended).unwrap();
            }
            envs.step(Actions::F32(&actions(6, t))).unwrap();
            view(envs)
        };
        let mut envs = counters(6, 0, mode);
        envs.reset(1);
        for t in 0..17 {
            let mut to = StateWriter::default();
            envs.save_state(&mut to);
            let bytes = to.into_bytes();
            let mut other = counters(6, 0, mode);
            let mut from = StateReader::new(&bytes);
            other.load_state(&mut from).unwrap();
            assert_eq!(from.remaining(), 0);
            assert!(view(&envs) == view(&other), "{mode:?}, step {t}");
            for ahead in 0..5 {
                step(&mut other, t + ahead);
            }
            let mut again = counters(6, 0, mode);
            again.load_state(&mut StateReader::new(&bytes)).unwrap();
            let mut last = None;
            for ahead in 0..5 {
                last = Some(step(&mut again, t + ahead));
            }
            assert!(last == Some(view(&other)), "{mode:?}, step {t}");
            assert!(step(&mut envs, t).2.len() == 6);

            for cut in 0..bytes.len() {
                assert!(other.load_state(&mut StateReader::new(&bytes[..cut])).is_err(), "{cut} bytes");
            }
            let refused = other.step(Actions::F32(&actions(6, 0)));
            assert!(matches!(refused, Err(EnvError::NeedsReset { .. })), "after a failed load");
        }
        let mut to = StateWriter::default();
        envs.save_state(&mut to);
        let bytes = to.into_bytes();
        assert!(counters(5, 0, mode).load_state(&mut StateReader::new(&bytes)).is_err());
    }
}

#[test]
fn mistakes_step_nothing() {
    let mut envs = counters(3, 0, AutoresetMode::Disabled);
    let good = [0.0, 0.5, -0.5];
    assert_eq!(
        envs.step(Actions::F32(&good)).unwrap_err().to_string(),
        "Count-v0: environment 0 must be reset before it is stepped"
    );
    assert!(matches!(envs.reset_masked(&[true; 3]), Err(EnvError::NeedsReset { .. })));
    envs.reset(0);
    let before = view(&envs);
    let bad: [(Actions<'_>, &str); 5] = [
        (Actions::I32(&[0, 0, 0]), "Count-v0: expected 3 actions of 1 float32, found 3 int32"),
        (Actions::F32(&[0.0; 2]), "Count-v0: expected 3 actions of 1 float32, found 2 float32"),
        (Actions::F32(&[0.0; 4]), "Count-v0: expected 3 actions of 1 float32, found 4 float32"),
        (
            Actions::F32(&[0.0, f32::NAN, 0.0]),
            "Count-v0: action [NaN] of environment 1 is not in Box(-1.0, 1.0, (1,), float32)",
        ),
        (
            Actions::F32(&[0.0, 0.0, f32::INFINITY]),
            "Count-v0: action [inf] of environment 2 is not in Box(-1.0, 1.0, (1,), float32)",
        ),
    ];
    for (actions, message) in bad {
        assert_eq!(envs.step(actions).unwrap_err().to_string(), message);
        assert!(view(&envs) == before, "{message}");
    }
    envs.step(Actions::F32(&[5.0, 0.0, 0.0])).unwrap();
    assert!(envs.reset_masked(&[true]).is_err());

    for _ in 0..2 {
        envs.step(Actions::F32(&good)).unwrap();
    }
    let ended = view(&envs);
    assert_eq!(envs.terminated(), [true, false, false]);
    assert_eq!(envs.step(Actions::F32(&good)), Err(EnvError::NeedsReset { env: "Count-v0".into(), index: 0 }));
    assert!(view(&envs) == ended);
    envs.reset_masked(&[true, false, false]).unwrap();
    envs.step(Actions::F32(&good)).unwrap();

    let mut envs = VecEnv::make("CartPole-v1", 2, AutoresetMode::SameStep).unwrap();
    envs.reset(0);
    let error = envs.step(Actions::I32(&[1, 2])).unwrap_err().to_string();
    assert_eq!(error, "CartPole-v1: action [2] of environment 1 is not in Discrete(2)");

    let none = VecEnv::make("CartPole-v1", 0, AutoresetMode::SameStep).err().unwrap().to_string();
    assert_eq!(none, "CartPole-v1: expected at least one environment, found none");
    let cartpole = hotfire_envs::make("CartPole-v1", &[]).unwrap();
    assert!(VecEnv::from_envs("mixed", vec![cartpole, Count::boxed(3, 0)], AutoresetMode::SameStep).is_err());
}

#[test]
fn both_ends_of_an_episode_can_come_together() {
    let mut envs = VecEnv::from_envs("Count-v0", vec![Count::boxed(4, 0)], AutoresetMode::SameStep).unwrap();
    envs.reset(0);
    for _ in 0..4 {
        envs.step(Actions::F32(&[0.0])).unwrap();
    }
    assert_eq!((envs.terminated(), envs.truncated()), (&[true][..], &[true][..]));
    assert_eq!(envs.ended_episodes().map(|e| e.length).collect::<Vec<_>>(), [4]);
    assert_eq!(envs.final_observations().as_i32().unwrap()[0], 4);
    assert_eq!(envs.observations().as_i32().unwrap()[0], 0);
}

/// Counts its steps and ends after three; allows all actions but the number of steps taken.
struct Masked(i32, [Space; 2]);

impl Env for Masked {
    fn observation_space(&self) -> &Space {
        &self.1[0]
    }

    fn action_space(&self) -> &Space {
        &self.1[1]
    }

    fn reset(&mut self, rng: &mut NpRng, obs: ObsMut<'_>) {
        self.0 = rng.integers(0, 2) as i32;
        let ObsMut::I32([obs]) = obs else { panic!("one integer") };
        *obs = self.0;
    }

    fn step(&mut self, _action: ActionRef<'_>, _rng: &mut NpRng, obs: ObsMut<'_>) -> StepOutcome {
        self.0 += 1;
        let ObsMut::I32([obs]) = obs else { panic!("one integer") };
        *obs = self.0;
        StepOutcome { reward: 0.0, terminated: self.0 == 3, truncated: false }
    }

    fn action_mask(&self, mask: &mut [bool]) -> bool {
        mask.iter_mut().enumerate().for_each(|(i, allowed)| *allowed = i as i32 != self.0);
        true
    }

    fn save_state(&self, to: &mut StateWriter) {
        to.i32(self.0);
    }

    fn load_state(&mut self, from: &mut StateReader<'_>) -> Result<(), EnvError> {
        self.0 = from.i32()?;
        Ok(())
    }
}

#[test]
fn action_masks_belong_to_the_current_observations() {
    let make = |mode| {
        let masked = || Box::new(Masked(0, [4, 5].map(Space::discrete))) as Box<dyn Env>;
        let envs = (0..7).map(|_| Box::new(TimeLimit::new(masked(), 9)) as Box<dyn Env>).collect();
        VecEnv::from_envs("Masked-v0", envs, mode).unwrap()
    };
    let check = |envs: &VecEnv, at: &str| {
        let states = envs.observations().as_i32().unwrap();
        let expected: Vec<bool> = states.iter().flat_map(|s| (0..5).map(move |i| i != *s)).collect();
        assert_eq!(envs.action_masks().expect("masks"), expected, "{at}");
    };
    for mode in [AutoresetMode::NextStep, AutoresetMode::SameStep, AutoresetMode::Disabled] {
        let mut envs = make(mode);
        envs.reset(2);
        check(&envs, "reset");
        // Past the steps that are all timed.
        for t in 0..300 {
            if mode == AutoresetMode::Disabled {
                let ended = envs.terminated().to_vec();
                envs.reset_masked(&ended).unwrap();
                check(&envs, &format!("{mode:?}, masked reset {t}"));
            }
            envs.step(Actions::I32(&[0; 7])).unwrap();
            check(&envs, &format!("{mode:?}, step {t}"));
        }
        let mut to = StateWriter::default();
        envs.save_state(&mut to);
        let mut other = make(mode);
        other.load_state(&mut StateReader::new(&to.into_bytes())).unwrap();
        assert_eq!(other.action_masks(), envs.action_masks());
    }
    assert_eq!(VecEnv::make("CartPole-v1", 2, AutoresetMode::SameStep).unwrap().action_masks(), None);
}
