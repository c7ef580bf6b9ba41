//! Each wrapper with an environment that it can serve, for tests that go through all of them.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use hotfire_envs::{Actions, Buffer, Env, Frame, OptionValue, VideoSink, WrapperConfig, spec};

pub fn options(given: &[(&str, OptionValue)]) -> Vec<(String, OptionValue)> {
    given.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

pub fn wrapper(name: &str, given: &[(&str, OptionValue)]) -> WrapperConfig {
    (name.to_owned(), options(given))
}

/// Each wrapper with an environment that it can serve.
pub fn examples() -> Vec<(&'static str, Vec<WrapperConfig>)> {
    use OptionValue::{Bool, Float, Int, Lines, Numbers, Text};
    let one = |env, name, given: &[(&str, OptionValue)]| (env, vec![wrapper(name, given)]);
    let folder = std::env::temp_dir().join(format!("hotfire-wrappers-{}", std::process::id()));
    let shape = |shape: [f64; 2]| [("shape", Numbers(shape.to_vec()))];
    vec![
        one("CartPole-v1", "time_limit", &[("max_episode_steps", Int(9))]),
        one("CartPole-v1", "record_episode_statistics", &[]),
        one("Pendulum-v1", "clip_action", &[]),
        one("Pendulum-v1", "rescale_action", &[]),
        one("Pendulum-v1", "discretize_action", &[("bins", Int(5))]),
        one("LunarLanderContinuous-v3", "discretize_action", &[("bins", Int(3)), ("multidiscrete", Bool(true))]),
        one("Taxi-v4", "sticky_action", &[("repeat_action_duration", Numbers(vec![1.0, 3.0]))]),
        one("CartPole-v1", "repeat_action", &[("num_repeats", Int(3))]),
        one("MinAtar/Breakout-v1", "max_and_skip", &[]),
        one("Acrobot-v1", "max_and_skip", &[("skip", Int(2))]),
        one("Pendulum-v1", "clip_reward", &[]),
        one("Pendulum-v1", "transform_reward", &[("function", Text("symlog".into())), ("scale", Float(0.5))]),
        one("Pendulum-v1", "normalize_reward", &[]),
        one("Taxi-v4", "normalize_observation", &[]),
        one("Pendulum-v1", "rescale_observation", &[]),
        one("Taxi-v4", "frame_stack", &[("size", Int(3))]),
        one("CartPole-v1", "delay_observation", &[("delay", Int(3))]),
        (
            "Blackjack-v1",
            vec![
                wrapper("time_limit", &[("max_episode_steps", Int(3))]),
                wrapper("time_aware_observation", &[("flatten", Bool(false))]),
            ],
        ),
        one("CartPole-v1", "time_aware_observation", &[("normalize_time", Bool(true))]),
        one("Blackjack-v1", "flatten_observation", &[]),
        (
            "CartPole-v1",
            vec![
                wrapper("time_aware_observation", &[("flatten", Bool(false))]),
                wrapper("filter_observation", &[("filter_keys", Lines(vec!["obs".into()]))]),
            ],
        ),
        one("MountainCar-v0", "discretize_observation", &[("bins", Int(12))]),
        one("MinAtar/Breakout-v1", "add_render_observation", &[("render_only", Bool(false))]),
        one(
            "CartPole-v1",
            "record_video",
            &[("video_folder", Text(folder.display().to_string())), ("every", Int(1 << 30)), ("video_length", Int(1))],
        ),
        // The usual stack for pictures, and one of everything for vectors.
        (
            "CarRacing-v3",
            vec![
                wrapper("grayscale_observation", &[]),
                wrapper("resize_observation", &shape([42.0, 40.0])),
                wrapper("reshape_observation", &shape([40.0, 42.0])),
                wrapper("frame_stack", &[("size", Int(4))]),
                wrapper("clip_reward", &[]),
            ],
        ),
        (
            "Pendulum-v1",
            vec![
                wrapper("clip_action", &[]),
                wrapper("sticky_action", &[]),
                wrapper("time_aware_observation", &[("normalize_time", Bool(true))]),
                wrapper("delay_observation", &[("delay", Int(1))]),
                wrapper("frame_stack", &[("size", Int(2)), ("padding", Text("zero".into()))]),
                wrapper("flatten_observation", &[]),
                wrapper("normalize_observation", &[]),
                wrapper("normalize_reward", &[]),
                wrapper("transform_reward", &[("scale", Float(0.1))]),
            ],
        ),
    ]
}

/// Counts pictures and writes their number, so that tests need no program for videos.
struct Counter(PathBuf, usize);

impl VideoSink for Counter {
    fn push(&mut self, frame: &Frame) -> io::Result<()> {
        assert_eq!(frame.rgb.len(), 3 * 600 * 400);
        self.1 += 1;
        Ok(())
    }

    fn finish(self: Box<Self>) -> io::Result<()> {
        write!(std::fs::File::create(&self.0)?, "{}", self.1)
    }
}

pub fn count_pictures(path: &Path, width: u32, height: u32, fps: u32) -> io::Result<Box<dyn VideoSink>> {
    assert_eq!((width, height, fps), (600, 400, 50));
    Ok(Box::new(Counter(path.to_owned(), 0)))
}

pub fn made(env: &str, wrappers: &[WrapperConfig]) -> Box<dyn Env> {
    spec(env).unwrap().make_wrapped(&[], wrappers, 0, count_pictures).unwrap()
}

/// The buffer as the actions of a batch.
pub fn view(buffer: &Buffer) -> Actions<'_> {
    match buffer {
        Buffer::F32(x) => Actions::F32(x),
        Buffer::U8(x) => Actions::U8(x),
        Buffer::I32(x) => Actions::I32(x),
    }
}
