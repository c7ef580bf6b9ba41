//! Every registered environment keeps the contract, and the check finds environments that do not.

use hotfire_envs::{
    ActionRef, Buffer, ENVS, Env, EnvError, NpRng, ObsMut, OptionValue, Space, StateReader, StateWriter, StepOutcome,
    TimeLimit, check_env, make, spec,
};

#[test]
fn every_registered_environment_keeps_the_contract() {
    assert!(!ENVS.is_empty());
    for spec in ENVS {
        let mut env = make(spec.id, &[]).unwrap();
        check_env(env.as_mut(), spec.id).unwrap();
        let limited = [("max_episode_steps".to_owned(), OptionValue::Int(7))];
        check_env(make(spec.id, &limited).unwrap().as_mut(), spec.id).unwrap();
    }
}

#[test]
fn ids_are_unique_and_limits_truncate() {
    for (i, spec) in ENVS.iter().enumerate() {
        assert!(ENVS[..i].iter().all(|other| other.id != spec.id), "{} is registered twice", spec.id);
        let limited = [("max_episode_steps".to_owned(), OptionValue::Int(2))];
        let mut env = make(spec.id, &limited).unwrap();
        let (mut rng, mut row) = (NpRng::seed(0), Buffer::new(env.observation_space(), 1));
        let mut action = Buffer::new(env.action_space(), 1);
        env.action_space().sample_into(&mut rng, action.as_mut()).unwrap();
        for _ in 0..2 {
            env.reset(&mut rng, row.as_mut());
            let truncated = [(); 2].map(|()| env.step(action.as_row(), &mut rng, row.as_mut()).truncated);
            assert_eq!(truncated, [false, true], "{}", spec.id);
        }
    }
}

#[test]
fn mistakes_are_named() {
    let unknown = |id: &str| match spec(id) {
        Err(EnvError::UnknownEnv { nearest, .. }) => nearest,
        other => panic!("{other:?}"),
    };
    assert_eq!(unknown("CartPole-v2").as_deref(), Some("CartPole-v1"));
    assert_eq!(unknown("pendulum").as_deref(), Some("Pendulum-v1"));
    assert_eq!(unknown("zzz"), None);

    let error = |option: &str, value| make("CartPole-v1", &[(option.to_owned(), value)]).err().unwrap().to_string();
    assert_eq!(
        error("max_episode_step", OptionValue::Int(3)),
        "CartPole-v1 has no option `max_episode_step`; did you mean `max_episode_steps`?"
    );
    assert_eq!(
        error("max_episode_steps", OptionValue::Int(0)),
        "CartPole-v1: option `max_episode_steps` must be a whole number from 1 to 4294967295, found 0"
    );
    assert!(error("max_episode_steps", OptionValue::Text("many".into())).ends_with("found \"many\""));
}

#[cfg(not(feature = "python"))]
#[test]
fn environments_of_python_need_the_feature() {
    let error = make("gymnasium:ALE/Pong-v5", &[]).err().unwrap().to_string();
    assert_eq!(
        error,
        "gymnasium:ALE/Pong-v5: this program was built without the feature `python`, which `ALE/Pong-v5` needs; rebuild \
         it with `cargo build --release --features python`"
    );
}

/// What a [`Broken`] environment does wrong.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    Outside,
    NotWritten,
    NotFinite,
    BadReward,
    HiddenState,
    OwnRandomness,
    ForgetsState,
    SavesTooMuch,
    HalfAMask,
}

/// A counter with one fault.
struct Broken {
    fault: Fault,
    space: Space,
    actions: Space,
    count: u32,
    lifetime: u32,
}

impl Broken {
    fn new(fault: Fault) -> Self {
        let space = if fault == Fault::NotFinite {
            Space::unbounded_box([2])
        } else {
            Space::bounded([0.0; 2], [40.0; 2], [2])
        };
        Self { fault, space, actions: Space::discrete(2), count: 0, lifetime: 0 }
    }

    fn observe(&self, rng: &mut NpRng, obs: ObsMut<'_>) {
        let ObsMut::F32(obs) = obs else { panic!("a row of floats") };
        obs[0] = self.count as f32;
        if self.fault != Fault::NotWritten {
            obs[1] = rng.random() as f32;
        }
        match self.fault {
            Fault::Outside if self.count == 30 => obs[0] = -1.0,
            Fault::NotFinite if self.count == 30 => obs[0] = f32::INFINITY,
            Fault::HiddenState => obs[0] = (self.lifetime % 40) as f32,
            Fault::OwnRandomness => obs[1] = (self.lifetime / 150) as f32,
            _ => {}
        }
    }
}

impl Env for Broken {
    fn observation_space(&self) -> &Space {
        &self.space
    }

    fn action_space(&self) -> &Space {
        &self.actions
    }

    fn reset(&mut self, rng: &mut NpRng, obs: ObsMut<'_>) {
        self.count = 0;
        self.observe(rng, obs);
    }

    fn step(&mut self, action: ActionRef<'_>, rng: &mut NpRng, obs: ObsMut<'_>) -> StepOutcome {
        let ActionRef::I32(&[action]) = action else { panic!("one integer") };
        self.count += 1;
        self.lifetime += 1;
        self.observe(rng, obs);
        let reward = if self.fault == Fault::BadReward && self.count == 30 { f64::NAN } else { action.into() };
        StepOutcome { reward, terminated: self.count == 35, truncated: false }
    }

    fn save_state(&self, to: &mut StateWriter) {
        to.u32(self.count);
        if self.fault == Fault::SavesTooMuch {
            to.u32(self.count);
        }
    }

    fn action_mask(&self, mask: &mut [bool]) -> bool {
        let masked = self.fault == Fault::HalfAMask;
        mask[0] |= masked;
        masked
    }

    fn load_state(&mut self, from: &mut StateReader<'_>) -> Result<(), EnvError> {
        let count = from.u32()?;
        self.count = if self.fault == Fault::ForgetsState { 0 } else { count };
        Ok(())
    }
}

/// As in Gymnasium 1.4.0: the limit does not look at `terminated`, and holds until the next reset.
#[test]
fn a_time_limit_counts_steps_alone() {
    let mut env = TimeLimit::new(Box::new(Broken::new(Fault::None)), 35);
    let (mut rng, mut row) = (NpRng::seed(0), [0.0; 2]);
    for _ in 0..2 {
        env.reset(&mut rng, ObsMut::F32(&mut row));
        for step in 1..38 {
            let outcome = env.step(ActionRef::I32(&[0]), &mut rng, ObsMut::F32(&mut row));
            assert_eq!((outcome.terminated, outcome.truncated), (step == 35, step >= 35), "step {step}");
        }
    }
}

#[test]
fn broken_environments_are_found() {
    check_env(&mut Broken::new(Fault::None), "Counter-v0").unwrap();
    for (fault, what) in [
        (Fault::Outside, "not in"),
        (Fault::NotWritten, "not in"),
        (Fault::NotFinite, "not finite"),
        (Fault::BadReward, "reward"),
        (Fault::HiddenState, "differ"),
        (Fault::OwnRandomness, "differ"),
        (Fault::ForgetsState, "same bytes"),
        (Fault::SavesTooMuch, "leaves 4 bytes"),
        (Fault::HalfAMask, "action mask"),
    ] {
        let error = check_env(&mut Broken::new(fault), "Counter-v0").unwrap_err().to_string();
        assert!(error.starts_with("Counter-v0 breaks the environment contract") && error.contains(what), "{error}");
    }
}
