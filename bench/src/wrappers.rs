//! Steps through every registered wrapper, 64 environments in a batch; beside them the environments alone.

use std::io;
use std::path::Path;

use hotfire_envs::OptionValue::{Int, Numbers, Text};
use hotfire_envs::{AutoresetMode, EnvError, Frame, OptionValue, VecEnv, VideoSink, WRAPPERS, WrapperConfig, spec};

use crate::env_step::stepping;
use crate::{Prepared, Workload};

const NUM_ENVS: usize = 64;
/// Copies of an environment whose observations are pictures.
const NUM_PICTURE_ENVS: usize = 8;

/// The environment around which a wrapper is put, with the wrappers between them and the wrapper's own options.
fn setting(wrapper: &str) -> (&'static str, Vec<WrapperConfig>) {
    let shape = |shape: [f64; 2]| vec![("shape", Numbers(shape.to_vec()))];
    let (env, below, options): (_, &[&str], Vec<(&str, OptionValue)>) = match wrapper {
        "clip_action" | "rescale_action" => ("Pendulum-v1", &[], vec![]),
        "discretize_action" => ("Pendulum-v1", &[], vec![("bins", Int(5))]),
        "rescale_observation" => ("MountainCar-v0", &[], vec![]),
        "discretize_observation" => ("MountainCar-v0", &[], vec![("bins", Int(12))]),
        "time_limit" => ("CartPole-v1", &[], vec![("max_episode_steps", Int(100))]),
        "repeat_action" => ("CartPole-v1", &[], vec![("num_repeats", Int(4))]),
        "frame_stack" => ("CartPole-v1", &[], vec![("size", Int(4))]),
        "delay_observation" => ("CartPole-v1", &[], vec![("delay", Int(3))]),
        "filter_observation" => {
            ("CartPole-v1", &["time_aware_observation"], vec![("filter_keys", OptionValue::Lines(vec!["obs".into()]))])
        }
        "flatten_observation" => ("Blackjack-v1", &[], vec![]),
        "reshape_observation" => ("CartPole-v1", &[], shape([2.0, 2.0])),
        "max_and_skip" | "grayscale_observation" => ("CarRacing-v3", &[], vec![]),
        "resize_observation" => ("CarRacing-v3", &["grayscale_observation"], shape([42.0, 42.0])),
        // No episode but the first would be filmed, and of that one picture.
        "record_video" => {
            let folder = std::env::temp_dir().join("hotfire-bench-video").display().to_string();
            let options = vec![("video_folder", Text(folder)), ("every", Int(1 << 30)), ("video_length", Int(1))];
            ("CartPole-v1", &[], options)
        }
        _ => ("CartPole-v1", &[], vec![]),
    };
    let below = below.iter().map(|name| {
        let nested = *name == "time_aware_observation";
        let options = nested.then(|| ("flatten".to_owned(), OptionValue::Bool(false))).into_iter().collect();
        ((*name).to_owned(), options)
    });
    let options = options.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    (env, below.chain([(wrapper.to_owned(), options)]).collect())
}

/// A video that is not kept.
struct Unkept;

impl VideoSink for Unkept {
    fn push(&mut self, _: &Frame) -> io::Result<()> {
        Ok(())
    }

    fn finish(self: Box<Self>) -> io::Result<()> {
        Ok(())
    }
}

fn unkept(_: &Path, _: u32, _: u32, _: u32) -> io::Result<Box<dyn VideoSink>> {
    Ok(Box::new(Unkept))
}

fn batch(id: &'static str, wrappers: &[WrapperConfig]) -> Result<Prepared, EnvError> {
    let num_envs = if id == "CarRacing-v3" { NUM_PICTURE_ENVS } else { NUM_ENVS };
    let make = |index| spec(id)?.make_wrapped(&[], wrappers, index, unkept);
    let envs = (0..num_envs).map(make).collect::<Result<_, EnvError>>()?;
    stepping(VecEnv::from_envs(id, envs, AutoresetMode::SameStep)?)
}

/// Every wrapper, and what it is put around.
pub fn workloads() -> Vec<Workload> {
    let bare = ["CartPole-v1", "Pendulum-v1", "MountainCar-v0", "Blackjack-v1", "CarRacing-v3"]
        .map(|id| Workload::new("wrapper", format!("none, {id}"), "steps", move || Ok(batch(id, &[])?)));
    let wrapped = WRAPPERS.iter().map(|wrapper| {
        let (id, wrappers) = setting(wrapper.name);
        Workload::new("wrapper", format!("{}, {id}", wrapper.name), "steps", move || Ok(batch(id, &wrappers)?))
    });
    bare.into_iter().chain(wrapped).collect()
}
