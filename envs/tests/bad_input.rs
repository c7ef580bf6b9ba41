//! Whatever a user gets wrong is an error that names the environment and the value: never a panic, never a wrong step.

mod common;

use std::collections::BTreeSet;

use common::examples::{examples, made, view, wrapper};
use hotfire_envs::{
    Actions, AutoresetMode, Buffer, ENVS, EnvError, NpRng, OptionValue, Options, Space, VecEnv, WRAPPERS, WrapSite,
    make, make_batch, make_wrapped, wrap, wrapper_spec,
};

/// Values of all kinds that are wrong for nearly every option.
fn odd_values() -> Vec<OptionValue> {
    use OptionValue::{Bool, Float, Int, Lines, Numbers, Text};
    vec![
        Text("?!".into()),
        Text(String::new()),
        Int(-5),
        Int(i64::MAX),
        Int(0),
        Float(f64::NAN),
        Float(f64::INFINITY),
        Float(1e300),
        Float(-0.5),
        Bool(true),
        Lines(Vec::new()),
        Lines(vec![String::new(), "é".into()]),
        Numbers(Vec::new()),
        Numbers(vec![f64::NAN, 1.0]),
        Numbers(vec![-1.0]),
        Numbers(vec![1e18, 1e18]),
    ]
}

/// Rows of a space that lie outside it, with what a message must show of the value.
fn outside(space: &Space) -> Vec<(Buffer, &'static str)> {
    match space {
        Space::Box { .. } => [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")]
            .map(|(x, text)| (Buffer::F32(vec![x; space.len()]), text))
            .into(),
        Space::Discrete { n, start } => {
            vec![
                (Buffer::I32(vec![start + n]), ""),
                (Buffer::I32(vec![start - 1]), ""),
                (Buffer::I32(vec![i32::MIN]), ""),
            ]
        }
        other => panic!("no environment of this crate has {other}"),
    }
}

/// A batch of `n` rows: the first is `row`, or a good one where there is none; the others are good.
fn batch(space: &Space, n: usize, bad: Option<(usize, &Buffer)>) -> Buffer {
    let mut rng = NpRng::seed(1);
    let mut all = Buffer::new(space, n);
    for i in 0..n {
        let mut row = Buffer::new(space, 1);
        space.sample_into(&mut rng, row.as_mut()).unwrap();
        let row = bad.filter(|(at, _)| *at == i).map_or(&row, |(_, bad)| bad);
        all.copy_from(i * space.len(), row, 0..space.len());
    }
    all
}

fn state(envs: &VecEnv) -> Vec<u8> {
    let mut to = hotfire_envs::StateWriter::default();
    envs.save_state(&mut to);
    to.into_bytes()
}

#[test]
fn wrong_actions_are_named_and_step_nothing() {
    for spec in ENVS {
        let id = spec.id;
        for mode in [AutoresetMode::SameStep, AutoresetMode::NextStep, AutoresetMode::Disabled] {
            let mut envs = VecEnv::make(id, 3, mode).unwrap();
            let space = envs.action_space().clone();
            let good = batch(&space, 3, None);
            let early = envs.step(view(&good)).unwrap_err();
            assert_eq!(early, EnvError::NeedsReset { env: id.into(), index: 0 });
            assert!(early.to_string().starts_with(id));
            envs.reset(5);
            envs.step(view(&good)).unwrap();
            let before = state(&envs);
            for (row, text) in outside(&space) {
                for at in 0..3 {
                    let error = envs.step(view(&batch(&space, 3, Some((at, &row))))).unwrap_err().to_string();
                    let end = format!("of environment {at} is not in {space}");
                    assert!(error.starts_with(id) && error.contains(text) && error.ends_with(&end), "{error}");
                }
            }
            let lengths = [0, 1, 2, 4].map(|n| batch(&space, n, None));
            let other =
                if space.dtype() == hotfire_envs::Dtype::F32 { Actions::I32(&[0; 3]) } else { Actions::F32(&[0.0; 3]) };
            for wrong in lengths.iter().map(view).chain([other]) {
                let error = envs.step(wrong).unwrap_err().to_string();
                let expected = format!("{id}: expected 3 actions of {} {}, found", space.len(), space.dtype());
                assert!(error.starts_with(&expected), "{error}");
            }
            assert!(state(&envs) == before, "{id}: a refused step has changed something");
        }
    }
}

#[test]
fn odd_options_are_refused_or_serve() {
    let mut refused = 0;
    for spec in ENVS {
        let mut options = Options::new(spec.id, Vec::new());
        (spec.make)(&mut options).unwrap();
        for option in options.known().iter().chain(&["max_episode_steps"]) {
            for value in odd_values() {
                let given = [((*option).to_owned(), value.clone())];
                let is_nan = matches!(&value, OptionValue::Float(x) if x.is_nan());
                match make(spec.id, &given) {
                    Ok(env) => {
                        assert!(!is_nan, "{}: {option} may be NaN", spec.id);
                        let mut envs = VecEnv::from_envs(spec.id, vec![env], AutoresetMode::SameStep).unwrap();
                        envs.reset(1);
                        let actions = batch(envs.action_space(), 1, None);
                        envs.step(view(&actions)).unwrap();
                    }
                    Err(error) => {
                        let text = error.to_string();
                        assert!(matches!(error, EnvError::BadOption { .. }), "{text}");
                        assert!(text.starts_with(spec.id) && text.contains(&format!("option `{option}`")), "{text}");
                        refused += 1;
                    }
                }
                if spec.make_batch.is_some()
                    && let Err(error) = make_batch(spec.id, &given, 4)
                {
                    assert!(error.to_string().starts_with(spec.id), "{error}");
                }
            }
        }
        let error = make(spec.id, &[("no_such_thing".into(), OptionValue::Int(1))]).err().unwrap().to_string();
        assert!(error.starts_with(&format!("{} has no option `no_such_thing`", spec.id)), "{error}");
    }
    assert!(refused > 300, "{refused}");
}

#[test]
fn malformed_maps_are_refused() {
    let maps: [&[&str]; 7] =
        [&[], &["SF", "G"], &["SFX", "FFG"], &["FFF", "FFG"], &["SFF", "FFF"], &["SÜ", "FG"], &["", ""]];
    for rows in maps {
        let lines = OptionValue::Lines(rows.iter().map(|row| (*row).to_owned()).collect());
        let error = make("FrozenLake-v1", &[("desc".into(), lines)]).err().unwrap().to_string();
        assert!(error.starts_with("FrozenLake-v1: option `desc` must be ") && error.contains(", found "), "{error}");
        println!("{rows:?}: {error}");
    }
}

/// Every wrapper around every environment: it serves, or says what it needs and what there is.
#[test]
fn wrappers_serve_or_say_why_not() {
    let mut served = BTreeSet::new();
    for (_, wrappers) in examples() {
        let [(name, options)] = &wrappers[..] else { continue };
        for spec in ENVS {
            let env = make(spec.id, &[]).unwrap();
            let mut site = WrapSite::new(spec.id, spec.max_episode_steps, spec.render_fps);
            if name == "record_video" {
                continue;
            }
            match wrap(env, name, options, &mut site) {
                Ok(env) => {
                    let id = format!("{} with {name}", spec.id);
                    let mut envs = VecEnv::from_envs(&id, vec![env], AutoresetMode::SameStep).unwrap();
                    let (observations, actions) = (envs.observation_space().clone(), envs.action_space().clone());
                    envs.reset(2);
                    let mut rng = NpRng::seed(4);
                    for _ in 0..5 {
                        let row = envs.observations();
                        assert_eq!(
                            (row.len(), row.as_row().dtype()),
                            (observations.len(), observations.dtype()),
                            "{id}"
                        );
                        assert!(observations.contains_action(row.as_row()), "{id}: {row:?} is not in {observations}");
                        let mut action = Buffer::new(&actions, 1);
                        actions.sample_into(&mut rng, action.as_mut()).unwrap();
                        envs.step(view(&action)).unwrap();
                    }
                    served.insert(name.clone());
                }
                Err(error) => {
                    let (text, start) = (error.to_string(), format!("{}: wrapper `{name}`", spec.id));
                    assert!(text.starts_with(&start), "{text}");
                    assert!(matches!(error, EnvError::BadWrapper { .. } | EnvError::BadOption { .. }), "{text}");
                }
            }
        }
    }
    assert!(served.len() >= 18, "{served:?}");
}

#[test]
fn odd_options_of_wrappers_are_refused_or_serve() {
    for spec in WRAPPERS.iter().filter(|spec| spec.name != "record_video") {
        for (id, wrappers) in examples() {
            let Some((_, good)) = wrappers.iter().find(|(name, _)| name == spec.name) else { continue };
            // Those below it in the example, which it may need.
            let below: Vec<_> = wrappers.iter().take_while(|(name, _)| name != spec.name).cloned().collect();
            for (option, _) in spec.options {
                for value in odd_values() {
                    let mut options: Vec<_> = good.iter().filter(|(name, _)| name != option).cloned().collect();
                    options.push(((*option).to_owned(), value));
                    let all: Vec<_> = below.iter().cloned().chain([(spec.name.to_owned(), options.clone())]).collect();
                    // A stack that would not fit the memory is as wrong as one of no frames.
                    match make_wrapped(id, &[], &all) {
                        Ok(env) => {
                            let mut envs = VecEnv::from_envs(id, vec![env], AutoresetMode::SameStep).unwrap();
                            envs.reset(1);
                            let actions = batch_of_any(&envs);
                            envs.step(view(&actions)).unwrap();
                        }
                        Err(error) => {
                            let (text, start) = (error.to_string(), format!("{id}: wrapper `{}`", spec.name));
                            assert!(text.starts_with(&start), "{options:?}: {text}");
                        }
                    }
                }
            }
        }
    }
}

/// One good action for each environment, whatever the space.
fn batch_of_any(envs: &VecEnv) -> Buffer {
    let mut action = Buffer::new(envs.action_space(), 1);
    envs.action_space().sample_into(&mut NpRng::seed(0), action.as_mut()).unwrap();
    action
}

#[test]
fn wrong_actions_do_not_get_through_wrappers() {
    for (id, wrappers) in examples() {
        let mut envs = VecEnv::from_envs(id, vec![made(id, &wrappers)], AutoresetMode::SameStep).unwrap();
        envs.reset(3);
        let space = envs.action_space().clone();
        if !matches!(space, Space::Box { .. } | Space::Discrete { .. }) {
            continue;
        }
        for (row, text) in outside(&space) {
            let error = envs.step(view(&row)).unwrap_err().to_string();
            assert!(error.starts_with(id) && error.contains(text) && error.contains("is not in"), "{error}");
        }
    }
}

#[test]
fn unknown_names_come_with_the_nearest() {
    let error = wrapper_spec("CartPole-v1", "frame_stac").err().unwrap().to_string();
    assert_eq!(error, "CartPole-v1: unknown wrapper `frame_stac`; did you mean `frame_stack`?");
    let error = make_wrapped("CartPole-v1", &[], &[wrapper("", &[])]).err().unwrap().to_string();
    assert!(error.starts_with("CartPole-v1: unknown wrapper ``"), "{error}");
    assert!(VecEnv::make("CartPole-v1", 0, AutoresetMode::SameStep).is_err());
}
