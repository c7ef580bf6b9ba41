//! Wrappers: environments around an environment, with the names, options and numbers of `gymnasium.wrappers` 1.4.
//!
//! A wrapper is a file with a `SPEC` and one line in [`WRAPPERS`]. Wrappers own their buffers: a `step` through any
//! number of them allocates nothing, but for those that draw pictures. They are listed from the inside out, as they
//! would be applied in Python.

mod action;
mod add_render;
mod clip_action;
mod delay_observation;
mod discretize_action;
mod discretize_observation;
mod filter_observation;
mod flatten_observation;
mod frame_stack;
mod grayscale;
mod max_and_skip;
mod normalize_observation;
mod normalize_reward;
mod observation;
mod record_episode_statistics;
mod record_video;
mod repeat_action;
mod rescale;
mod reshape;
mod resize;
mod reward;
mod running_moments;
mod sticky_action;
mod time_aware;
mod time_limit;
mod transform_reward;

pub use record_video::{OpenVideo, VideoSink, open_with_ffmpeg};
pub use time_limit::TimeLimit;

use crate::options::nearest_name;
use crate::{Env, EnvError, EnvSpec, OptionValue, Options, spec};

/// A wrapper's name and its options.
pub type WrapperConfig = (String, Vec<(String, OptionValue)>);

/// Every wrapper of this crate.
#[rustfmt::skip]
pub const WRAPPERS: &[WrapperSpec] = &[
    time_limit::SPEC,
    record_episode_statistics::SPEC,
    clip_action::SPEC,
    rescale::ACTION_SPEC,
    discretize_action::SPEC,
    sticky_action::SPEC,
    repeat_action::SPEC,
    max_and_skip::SPEC,
    transform_reward::CLIP_SPEC,
    transform_reward::SPEC,
    normalize_reward::SPEC,
    normalize_observation::SPEC,
    rescale::OBSERVATION_SPEC,
    frame_stack::SPEC,
    delay_observation::SPEC,
    time_aware::SPEC,
    flatten_observation::SPEC,
    filter_observation::SPEC,
    discretize_observation::SPEC,
    grayscale::SPEC,
    resize::SPEC,
    reshape::SPEC,
    add_render::SPEC,
    record_video::SPEC,
];

/// What is registered of a wrapper.
#[derive(Clone, Copy)]
pub struct WrapperSpec {
    /// The name in configs.
    pub name: &'static str,
    /// The class in `gymnasium.wrappers`, which [`wrapper_spec`] takes for the name, too.
    pub gymnasium: &'static str,
    /// One line for listings.
    pub summary: &'static str,
    /// Options with what they mean, for listings.
    pub options: &'static [(&'static str, &'static str)],
    /// Puts the wrapper around an environment.
    pub wrap: Wrap,
}

/// Puts a wrapper around an environment.
pub type Wrap = fn(Box<dyn Env>, &mut Options, &mut WrapSite) -> Result<Box<dyn Env>, EnvError>;

/// Where a wrapper is put: what it may need to know of the environment below it.
#[derive(Clone)]
pub struct WrapSite {
    /// The environment's id.
    pub env: String,
    /// The wrapper's name.
    pub wrapper: &'static str,
    /// The time limit in force.
    pub max_episode_steps: Option<u32>,
    /// Frames a second at which one step a frame looks natural.
    pub render_fps: u32,
    /// Which environment of a batch; only the first records videos.
    pub index: usize,
    /// Opens a file that `record_video` writes to.
    pub open_video: OpenVideo,
}

impl WrapSite {
    /// The first environment of a batch, whose videos `ffmpeg` writes.
    pub fn new(env: &str, max_episode_steps: Option<u32>, render_fps: u32) -> Self {
        let open_video = open_with_ffmpeg;
        Self { env: env.to_owned(), wrapper: "", max_episode_steps, render_fps, index: 0, open_video }
    }

    /// An [`EnvError::BadWrapper`] of this wrapper.
    fn needs(&self, expected: &str, found: impl ToString) -> EnvError {
        EnvError::BadWrapper {
            env: self.env.clone(),
            wrapper: self.wrapper.to_owned(),
            expected: expected.to_owned(),
            found: found.to_string(),
        }
    }
}

/// The registered wrapper of this name, or of this class in `gymnasium.wrappers`; `env` names the environment in the
/// error.
///
/// # Errors
/// [`EnvError::UnknownWrapper`] with the nearest name.
pub fn wrapper_spec(env: &str, name: &str) -> Result<&'static WrapperSpec, EnvError> {
    WRAPPERS.iter().find(|w| w.name == name || w.gymnasium == name).ok_or_else(|| EnvError::UnknownWrapper {
        env: env.to_owned(),
        wrapper: name.to_owned(),
        nearest: nearest_name(name, WRAPPERS.iter().map(|w| w.name)),
    })
}

/// Makes an environment with its options, its time limit and these wrappers, from the inside out.
///
/// Episode returns are counted below the wrappers that change rewards, at the environment itself: a `clip_reward` does
/// not clip what [`crate::VecEnv::ended_episodes`] reports. A `record_episode_statistics` in the list counts what
/// reaches it instead.
///
/// # Errors
/// [`EnvError`] for an unknown id, wrapper or option, a value out of range, or a wrapper that can't serve the spaces of
/// the environment below it.
pub fn make_wrapped(
    id: &str,
    options: &[(String, OptionValue)],
    wrappers: &[WrapperConfig],
) -> Result<Box<dyn Env>, EnvError> {
    spec(id)?.make_wrapped(options, wrappers, 0, open_with_ffmpeg)
}

impl EnvSpec {
    /// As [`make_wrapped`], as environment `index` of a batch; `open_video` opens the files that `record_video` writes.
    ///
    /// # Errors
    /// As [`make_wrapped`].
    pub fn make_wrapped(
        &self,
        options: &[(String, OptionValue)],
        wrappers: &[WrapperConfig],
        index: usize,
        open_video: OpenVideo,
    ) -> Result<Box<dyn Env>, EnvError> {
        let limit = |options: &[(String, OptionValue)]| match options.iter().find(|(o, _)| o == "max_episode_steps") {
            Some((_, OptionValue::Int(limit))) => u32::try_from(*limit).ok(),
            _ => self.max_episode_steps,
        };
        let mut env = self.make_with_limit(options)?;
        let site = WrapSite::new(self.id, limit(options), self.render_fps);
        let mut site = WrapSite { index, open_video, ..site };
        for (name, options) in wrappers {
            env = wrap(env, name, options, &mut site)?;
        }
        Ok(env)
    }
}

/// Puts one wrapper around an environment, for example one of the caller's own.
///
/// # Errors
/// As [`make_wrapped`].
pub fn wrap(
    env: Box<dyn Env>,
    name: &str,
    options: &[(String, OptionValue)],
    site: &mut WrapSite,
) -> Result<Box<dyn Env>, EnvError> {
    let spec = wrapper_spec(&site.env, name)?;
    site.wrapper = spec.name;
    let mut options = Options::new(&format!("{}: wrapper `{}`", site.env, spec.name), options.to_vec());
    let env = (spec.wrap)(env, &mut options, site)?;
    options.finish()?;
    Ok(env)
}

/// The value of an option that must be given.
fn required<T>(value: Option<T>, options: &Options, option: &str) -> Result<T, EnvError> {
    value.ok_or_else(|| options.bad(option, "given", "nothing"))
}

/// Writes those methods of [`Env`] that ask only the environment in the field `env`.
macro_rules! forward {
    ($($method:ident)*) => { $( $crate::wrappers::forward!(@ $method); )* };
    (@ observation_space) => {
        fn observation_space(&self) -> &$crate::Space {
            self.env.observation_space()
        }
    };
    (@ action_space) => {
        fn action_space(&self) -> &$crate::Space {
            self.env.action_space()
        }
    };
    (@ action_mask) => {
        fn action_mask(&self, mask: &mut [bool]) -> bool {
            self.env.action_mask(mask)
        }
    };
    (@ render) => {
        fn render(&self) -> Option<$crate::Frame> {
            self.env.render()
        }
    };
    (@ episode_statistics) => {
        fn episode_statistics(&self) -> Option<(f64, u32)> {
            self.env.episode_statistics()
        }
    };
    (@ foreign) => {
        fn foreign(&mut self) -> Option<&mut dyn $crate::Foreign> {
            self.env.foreign()
        }
    };
    (@ reset) => {
        fn reset(&mut self, rng: &mut $crate::NpRng, obs: $crate::ObsMut<'_>) {
            self.env.reset(rng, obs);
        }
    };
    (@ state) => {
        fn save_state(&self, to: &mut $crate::StateWriter) {
            self.env.save_state(to);
        }

        fn load_state(&mut self, from: &mut $crate::StateReader<'_>) -> Result<(), $crate::EnvError> {
            self.env.load_state(from)
        }
    };
}
use forward;
