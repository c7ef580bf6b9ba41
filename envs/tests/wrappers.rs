//! Wrappers against recordings of Gymnasium's, and what this crate promises of them besides.

mod common;

use common::examples::{count_pictures, examples, made, wrapper};

use std::collections::BTreeSet;
use std::path::Path;

use hotfire_envs::{
    ActionRef, Actions, AutoresetMode, Buffer, Dtype, Env, EnvError, Frame, NpRng, ObsMut, OptionValue, Space,
    StateReader, StateWriter, StepOutcome, VecEnv, WRAPPERS, WrapSite, WrapperConfig, check_env, make_wrapped,
    open_with_ffmpeg, spec, wrap,
};
use serde_json::Value;

/// The numbers of a JSON value, in order; infinities are texts.
fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(items) => items.iter().flat_map(numbers).collect(),
        Value::Object(parts) => parts.values().flat_map(numbers).collect(),
        Value::Bool(x) => vec![f64::from(u8::from(*x))],
        Value::String(x) => vec![x.parse().unwrap()],
        _ => vec![value.as_f64().unwrap()],
    }
}

fn option_value(value: &Value) -> OptionValue {
    match value {
        Value::Bool(x) => OptionValue::Bool(*x),
        Value::String(x) => OptionValue::Text(x.clone()),
        Value::Array(_) => OptionValue::Numbers(numbers(value)),
        _ => value.as_i64().map_or_else(|| OptionValue::Float(value.as_f64().unwrap()), OptionValue::Int),
    }
}

fn values(row: ActionRef<'_>) -> Vec<f64> {
    match row {
        ActionRef::F32(x) => x.iter().map(|x| f64::from(*x)).collect(),
        ActionRef::U8(x) => x.iter().map(|x| f64::from(*x)).collect(),
        ActionRef::I32(x) => x.iter().map(|x| f64::from(*x)).collect(),
    }
}

fn row_of(space: &Space, numbers: &[f64]) -> Buffer {
    match space.dtype() {
        Dtype::F32 => Buffer::F32(numbers.iter().map(|x| *x as f32).collect()),
        Dtype::U8 => Buffer::U8(numbers.iter().map(|x| *x as u8).collect()),
        Dtype::I32 => Buffer::I32(numbers.iter().map(|x| *x as i32).collect()),
    }
}

/// Shows pictures one after the other.
struct Pictures {
    space: Space,
    actions: Space,
    pictures: Vec<Vec<u8>>,
    next: usize,
}

impl Pictures {
    fn show(&mut self, obs: ObsMut<'_>) {
        let ObsMut::U8(row) = obs else { panic!("{obs:?}") };
        row.copy_from_slice(&self.pictures[self.next % self.pictures.len()]);
        self.next += 1;
    }
}

impl Env for Pictures {
    fn observation_space(&self) -> &Space {
        &self.space
    }

    fn action_space(&self) -> &Space {
        &self.actions
    }

    fn reset(&mut self, _: &mut NpRng, obs: ObsMut<'_>) {
        self.show(obs);
    }

    fn step(&mut self, _: ActionRef<'_>, _: &mut NpRng, obs: ObsMut<'_>) -> StepOutcome {
        self.show(obs);
        StepOutcome { reward: 0.0, terminated: false, truncated: false }
    }

    fn save_state(&self, to: &mut StateWriter) {
        to.u64(self.next as u64);
    }

    fn load_state(&mut self, from: &mut StateReader<'_>) -> Result<(), EnvError> {
        self.next = from.u64()? as usize;
        Ok(())
    }
}

/// The wrapped environment of a trace.
fn traced(trace: &Value, max_episode_steps: Option<i64>) -> Box<dyn Env> {
    let name = trace["wrapper"].as_str().unwrap();
    let rename = |option: &str| match option {
        "stack_size" => "size".to_owned(),
        "padding_type" => "padding".to_owned(),
        other => other.to_owned(),
    };
    let params = trace["params"].as_object().unwrap();
    let given: Vec<_> = params.iter().map(|(option, value)| (rename(option), option_value(value))).collect();
    let base = trace["base_env"].as_str().unwrap();
    if base == "pictures" {
        let shape: Vec<_> = numbers(&trace["base_options"]["shape"]).into_iter().map(|x| x as usize).collect();
        let pictures = trace["pictures"].as_array().unwrap();
        let pictures = pictures.iter().map(|p| numbers(p).into_iter().map(|x| x as u8).collect()).collect();
        let env = Pictures { space: Space::image(shape), actions: Space::discrete(2), pictures, next: 0 };
        return wrap(Box::new(env), name, &given, &mut WrapSite::new(base, None, 30)).unwrap();
    }
    let mut base_options: Vec<_> =
        max_episode_steps.map(|n| ("max_episode_steps".to_owned(), OptionValue::Int(n))).into_iter().collect();
    if name == "FlattenObservation" && base == "FrozenLake-v1" {
        base_options.push(("is_slippery".to_owned(), OptionValue::Bool(false)));
    }
    let wrappers = if name == "Autoreset" { Vec::new() } else { vec![(name.to_owned(), given)] };
    make_wrapped(base, &base_options, &wrappers).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Replays a trace; observations may be off by `tolerance`.
fn replay(trace: &Value, max_episode_steps: Option<i64>, tolerance: f64) {
    let name = format!("{} {}", trace["wrapper"], trace["params"]);
    let mut env = traced(trace, max_episode_steps);
    let mut rng = NpRng::seed(trace["seed"].as_u64().unwrap());
    let mut row = Buffer::new(env.observation_space(), 1);
    let check = |row: &Buffer, expected: &Value, at: &str| {
        let (found, expected) = (values(row.as_row()), numbers(expected));
        assert_eq!(found.len(), expected.len(), "{name}: {at}");
        for (found, expected) in found.iter().zip(&expected) {
            // Recordings of 64-bit observations are rounded to this crate's 32 bits.
            let same = *found == *expected || *found == f64::from(*expected as f32);
            assert!(same || (found - expected).abs() <= tolerance, "{name}: {at}: {found} instead of {expected}");
        }
    };
    env.reset(&mut rng, row.as_mut());
    check(&row, &trace["initial_obs"], "reset");
    let mut ends = 0;
    for (t, step) in trace["steps"].as_array().unwrap().iter().enumerate() {
        let action = row_of(env.action_space(), &numbers(&step["action"]));
        let outcome = env.step(action.as_row(), &mut rng, row.as_mut());
        check(&row, &step["obs"], &format!("step {t}"));
        assert_eq!(outcome.reward, step["reward"].as_f64().unwrap(), "{name}: reward of step {t}");
        assert_eq!(outcome.terminated, step["terminated"], "{name}: step {t}");
        assert_eq!(outcome.truncated, step["truncated"], "{name}: step {t}");
        if let Some(episode) = step.get("episode") {
            let (r, l) = (episode["r"].as_f64().unwrap(), episode["l"].as_u64().unwrap() as u32);
            assert_eq!(env.episode_statistics(), Some((r, l)), "{name}: step {t}");
            ends += 1;
        }
        if let Some(first) = step.get("reset_obs") {
            env.reset(&mut rng, row.as_mut());
            check(&row, first, &format!("reset after step {t}"));
        }
    }
    assert!(ends > 0 || trace["wrapper"] != "RecordEpisodeStatistics");
}

/// The bounds and shape of a recorded space.
fn check_space(found: &Space, recorded: &Value, name: &str) {
    match found {
        Space::Box { low, high, shape, .. } => {
            assert_eq!(recorded["type"], "Box", "{name}");
            let narrow = |x: &Value| numbers(x).into_iter().map(|x| x as f32).collect::<Vec<_>>();
            let recorded_shape: Vec<_> = numbers(&recorded["shape"]).into_iter().map(|n| n as usize).collect();
            assert_eq!(*shape, recorded_shape, "{name}");
            assert_eq!((low, high), (&narrow(&recorded["low"]), &narrow(&recorded["high"])), "{name}");
        }
        Space::Discrete { n, start } => {
            assert_eq!(
                (recorded["n"].as_i64(), recorded["start"].as_i64()),
                (Some((*n).into()), Some((*start).into()))
            );
        }
        other => panic!("{name}: {other}"),
    }
}

#[test]
fn traces_of_gymnasium_repeat() {
    let traces = common::read_kinds("wrappers.jsonl", &["wrapper_trace"]);
    assert_eq!(traces.len(), 19);
    for trace in traces {
        let limit = match (trace["wrapper"].as_str().unwrap(), trace["base_env"].as_str().unwrap()) {
            ("TimeAwareObservation" | "Autoreset", _) => Some(12),
            ("MaxAndSkipObservation" | "RepeatAction", _) => Some(40),
            (_, "Pendulum-v1") => Some(25),
            _ => None,
        };
        let env = traced(&trace, limit);
        let name = trace["wrapper"].to_string();
        check_space(env.observation_space(), &trace["observation_space"], &name);
        check_space(env.action_space(), &trace["action_space"], &name);
        replay(&trace, limit, 0.0);
    }
    let traces = common::read_kinds("wrappers_more.jsonl", &["wrapper_trace"]);
    assert_eq!(traces.len(), 25);
    for trace in traces {
        // OpenCV enlarges in fixed point.
        replay(&trace, None, if trace["wrapper"] == "ResizeObservation" { 1.0 } else { 0.0 });
    }
}

#[test]
fn shrinking_is_exact() {
    let traces = common::read_kinds("wrappers_more.jsonl", &["wrapper_trace"]);
    let shrinks = |trace: &&Value| {
        trace["wrapper"] == "ResizeObservation" && {
            let (new, old) = (numbers(&trace["params"]["shape"]), numbers(&trace["base_options"]["shape"]));
            new[0] <= old[0] && new[1] <= old[1]
        }
    };
    let traces: Vec<_> = traces.iter().filter(shrinks).collect();
    assert_eq!(traces.len(), 7);
    traces.into_iter().for_each(|trace| replay(trace, None, 0.0));
}

#[test]
fn every_wrapper_keeps_the_contract() {
    let examples = examples();
    for (id, wrappers) in &examples {
        let name = format!("{id} {wrappers:?}");
        // Statistics outlive episodes, so a second run with the same seed differs; pictures of thousands of steps are
        // too much to keep. The test of loaded batches covers both.
        if wrappers.iter().any(|w| w.0.starts_with("normalize_") || w.0 == "add_render_observation") {
            continue;
        }
        check_env(made(id, wrappers).as_mut(), &name).unwrap();
    }
    let tried: BTreeSet<_> = examples.iter().flat_map(|(_, wrappers)| wrappers.iter().map(|w| w.0.as_str())).collect();
    assert_eq!(tried, WRAPPERS.iter().map(|w| w.name).collect());
}

#[test]
fn a_loaded_batch_goes_on_in_new_environments() {
    for (id, wrappers) in examples() {
        let batch = || VecEnv::from_envs(id, (0..2).map(|_| made(id, &wrappers)).collect(), AutoresetMode::SameStep);
        let (mut first, mut second) = (batch().unwrap(), batch().unwrap());
        first.reset(11);
        let mut rng = NpRng::seed(5);
        let space = first.action_space().clone();
        let mut actions = || {
            let rows: Vec<_> = (0..2)
                .flat_map(|_| {
                    let mut row = Buffer::new(&space, 1);
                    space.sample_into(&mut rng, row.as_mut()).unwrap();
                    values(row.as_row())
                })
                .collect();
            row_of(&space, &rows)
        };
        let step = |envs: &mut VecEnv, actions: &Buffer| {
            envs.step(match actions {
                Buffer::F32(x) => Actions::F32(x),
                Buffer::U8(x) => Actions::U8(x),
                Buffer::I32(x) => Actions::I32(x),
            })
        };
        (0..25).for_each(|_| step(&mut first, &actions()).unwrap());
        let mut state = StateWriter::default();
        first.save_state(&mut state);
        second.load_state(&mut StateReader::new(&state.into_bytes())).unwrap();
        for _ in 0..25 {
            let actions = actions();
            step(&mut first, &actions).unwrap();
            step(&mut second, &actions).unwrap();
            assert!(first.observations() == second.observations(), "{id} {wrappers:?}");
            assert_eq!(first.rewards(), second.rewards(), "{id} {wrappers:?}");
            assert!(first.ended_episodes().eq(second.ended_episodes()), "{id} {wrappers:?}");
        }
    }
}

/// Episode returns that a batch of one reports over 400 steps of Pendulum without thrust, from the wrappers' view.
fn reported(wrappers: &[WrapperConfig]) -> (f64, f64) {
    let env = make_wrapped("Pendulum-v1", &[], wrappers).unwrap();
    let mut envs = VecEnv::from_envs("Pendulum-v1", vec![env], AutoresetMode::SameStep).unwrap();
    envs.reset(3);
    let mut seen = 0.0;
    for _ in 0..200 {
        envs.step(Actions::F32(&[0.0])).unwrap();
        seen += f64::from(envs.rewards()[0]);
    }
    let episode = envs.ended_episodes().next().unwrap();
    assert_eq!(episode.length, 200);
    (episode.episode_return, seen)
}

#[test]
fn returns_are_counted_below_changed_rewards() {
    let (plain, _) = reported(&[]);
    let clip = || wrapper("clip_reward", &[("min_reward", OptionValue::Float(-0.5))]);
    let (below, seen) = reported(&[clip()]);
    assert_eq!(below, plain);
    assert!(plain < -150.0 && (-100.0..-10.0).contains(&seen), "{plain} {seen}");
    assert_eq!(reported(&[clip(), wrapper("normalize_reward", &[])]).0, plain);
    let (above, seen) = reported(&[clip(), wrapper("record_episode_statistics", &[])]);
    assert!((above - seen).abs() < 1e-3, "{above} {seen}");
    assert_eq!(reported(&[wrapper("record_episode_statistics", &[]), clip()]).0, plain);
}

#[test]
fn mistakes_are_named() {
    let error = |env: &str, name: &str, given: &[(&str, OptionValue)]| {
        make_wrapped(env, &[], &[wrapper(name, given)]).err().unwrap_or_else(|| panic!("{name} works")).to_string()
    };
    for (env, name, given, expected) in [
        (
            "CartPole-v1",
            "clip_rewards",
            vec![],
            "CartPole-v1: unknown wrapper `clip_rewards`; did you mean `clip_reward`?",
        ),
        (
            "CartPole-v1",
            "clip_reward",
            vec![("min_rewards", OptionValue::Int(0))],
            "CartPole-v1: wrapper `clip_reward` has no option `min_rewards`; did you mean `min_reward`?",
        ),
        (
            "CartPole-v1",
            "clip_reward",
            vec![("min_reward", OptionValue::Int(2)), ("max_reward", OptionValue::Int(1))],
            "CartPole-v1: wrapper `clip_reward`: option `max_reward` must be at least 2 (`min_reward`), found 1",
        ),
        (
            "CartPole-v1",
            "clip_action",
            vec![],
            "CartPole-v1: wrapper `clip_action` needs a `Box` of floats as action space, found Discrete(2)",
        ),
        (
            "Blackjack-v1",
            "frame_stack",
            vec![("size", OptionValue::Int(2))],
            "Blackjack-v1: wrapper `frame_stack` needs observations of one array (see flatten_observation), found \
             Tuple(Discrete(32), Discrete(11), Discrete(2))",
        ),
        (
            "CartPole-v1",
            "frame_stack",
            vec![],
            "CartPole-v1: wrapper `frame_stack`: option `size` must be given, found nothing",
        ),
        (
            "Pendulum-v1",
            "reshape_observation",
            vec![("shape", OptionValue::Numbers(vec![2.0, 2.0]))],
            "Pendulum-v1: wrapper `reshape_observation`: option `shape` must be of 3 elements, found [2, 2]",
        ),
        (
            "CartPole-v1",
            "grayscale_observation",
            vec![],
            "CartPole-v1: wrapper `grayscale_observation` needs pictures `[H, W, 3]` of bytes from 0 to 255, found \
             Box([-4.8 -inf -0.41887903 -inf], [4.8 inf 0.41887903 inf], (4,), float32)",
        ),
    ] {
        assert_eq!(error(env, name, &given), expected);
    }
    // The number of bins of all elements together must be a number.
    let many = error("Pendulum-v1", "discretize_observation", &[("bins", OptionValue::Int(1 << 20))]);
    assert!(many.contains("multidiscrete"), "{many}");
}

#[test]
fn bad_actions_are_refused() {
    let batch = |env: &str, wrappers: &[WrapperConfig]| {
        let mut envs =
            VecEnv::from_envs(env, vec![make_wrapped(env, &[], wrappers).unwrap()], AutoresetMode::SameStep).unwrap();
        envs.reset(0);
        envs
    };
    for name in ["clip_action", "rescale_action"] {
        let mut envs = batch("Pendulum-v1", &[wrapper(name, &[])]);
        for bad in [f32::NAN, f32::INFINITY] {
            assert!(matches!(envs.step(Actions::F32(&[bad])), Err(EnvError::BadAction { .. })), "{name}");
        }
        assert!(matches!(envs.step(Actions::F32(&[0.0, 0.0])), Err(EnvError::BadBatch { .. })), "{name}");
        envs.step(Actions::F32(&[f32::MAX])).unwrap();
        assert!(envs.observations_f32().iter().all(|x| x.is_finite()), "{name}");
    }
    let mut envs = batch("Pendulum-v1", &[wrapper("discretize_action", &[("bins", OptionValue::Int(5))])]);
    envs.step(Actions::I32(&[4])).unwrap();
    for bad in [5, -1] {
        assert!(matches!(envs.step(Actions::I32(&[bad])), Err(EnvError::BadAction { .. })));
    }
    assert!(matches!(envs.step(Actions::F32(&[0.0])), Err(EnvError::BadBatch { .. })));
}

#[test]
fn action_masks_are_passed_on() {
    let wrappers = ["sticky_action", "flatten_observation", "normalize_reward"].map(|name| wrapper(name, &[]));
    let env = make_wrapped("Taxi-v4", &[], &wrappers).unwrap();
    let mut envs = VecEnv::from_envs("Taxi-v4", vec![env], AutoresetMode::SameStep).unwrap();
    envs.reset(0);
    let masks = envs.action_masks().expect("Taxi has masks");
    assert!(masks.len() == 6 && masks.contains(&false));
}

/// Plays CartPole to the right under `record_video` for `episodes`; the lengths of the episodes.
fn filmed(folder: &Path, given: &[(&str, OptionValue)], episodes: usize) -> Vec<u32> {
    let mut given = given.to_vec();
    given.push(("video_folder", OptionValue::Text(folder.display().to_string())));
    let wrappers = [wrapper("record_video", &given)];
    let envs = (0..2).map(|i| spec("CartPole-v1").unwrap().make_wrapped(&[], &wrappers, i, count_pictures).unwrap());
    let mut envs = VecEnv::from_envs("CartPole-v1", envs.collect(), AutoresetMode::SameStep).unwrap();
    envs.reset(0);
    let mut lengths = Vec::new();
    while lengths.len() < episodes {
        envs.step(Actions::I32(&[1, 1])).unwrap();
        lengths.extend(envs.ended_episodes().filter(|e| e.env == 0).map(|e| e.length));
    }
    lengths
}

#[test]
fn videos_hold_whole_episodes_or_so_many_pictures() {
    let folder = std::env::temp_dir().join(format!("hotfire-videos-{}", std::process::id()));
    let count = |name: &str| std::fs::read_to_string(folder.join(name)).ok().map(|text| text.parse::<u32>().unwrap());
    let lengths = filmed(&folder, &[("every", OptionValue::Int(2))], 3);
    assert_eq!(count("rl-video-episode-0.gif"), Some(lengths[0] + 1));
    assert_eq!(count("rl-video-episode-1.gif"), None);
    assert_eq!(count("rl-video-episode-2.gif"), Some(lengths[2] + 1));

    let given = [("format", "mp4"), ("name_prefix", "cut")].map(|(k, v)| (k, OptionValue::Text(v.into())));
    filmed(&folder, &[given[0].clone(), given[1].clone(), ("video_length", OptionValue::Int(15))], 3);
    assert_eq!(count("cut-episode-0.mp4"), Some(15), "a video goes on over the end of an episode");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_video_that_cannot_be_written_is_an_error_of_the_step() {
    let file = std::env::temp_dir().join(format!("hotfire-not-a-folder-{}", std::process::id()));
    std::fs::write(&file, "").unwrap();
    let given = [("video_folder", OptionValue::Text(file.display().to_string()))];
    let env = make_wrapped("CartPole-v1", &[], &[wrapper("record_video", &given)]).unwrap();
    let mut envs = VecEnv::from_envs("CartPole-v1", vec![env], AutoresetMode::SameStep).unwrap();
    envs.reset(0);
    let error = envs.step(Actions::I32(&[0])).unwrap_err().to_string();
    assert!(error.starts_with(&format!("CartPole-v1: {}", file.display())), "{error}");
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn ffmpeg_writes_mp4() {
    if std::process::Command::new("ffmpeg").arg("-version").output().is_err() {
        eprintln!("skipped: the program `ffmpeg` is not installed");
        return;
    }
    let path = std::env::temp_dir().join(format!("hotfire-{}.mp4", std::process::id()));
    let mut video = open_with_ffmpeg(&path, 5, 3, 30).unwrap();
    (0..10).for_each(|i| video.push(&Frame { width: 5, height: 3, rgb: vec![20 * i; 45] }).unwrap());
    video.finish().unwrap();
    assert_eq!(&std::fs::read(&path).unwrap()[4..8], b"ftyp");
    std::fs::remove_file(&path).unwrap();
}
