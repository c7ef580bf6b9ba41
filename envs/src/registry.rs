//! The list of environments. A new one is a file with a `SPEC` and one line in [`ENVS`].

use crate::box2d::{bipedal_walker, car_racing, lunar_lander};
use crate::classic::{acrobot, cartpole, mountain_car, mountain_car_continuous, pendulum};
use crate::minatar::{asterix, breakout, freeway, seaquest, space_invaders};
use crate::options::nearest_name;
use crate::rocket;
use crate::toy_text::{blackjack, cliff_walking, frozen_lake, taxi};
use crate::{BatchEnv, Controls, Env, EnvError, OptionValue, Options, Simd, TimeLimit};

/// Every environment of this crate.
#[rustfmt::skip]
pub const ENVS: &[EnvSpec] = &[
    cartpole::SPEC,
    acrobot::SPEC,
    mountain_car::SPEC,
    mountain_car_continuous::SPEC,
    pendulum::SPEC,
    breakout::SPEC,
    asterix::SPEC,
    freeway::SPEC,
    seaquest::SPEC,
    space_invaders::SPEC,
    frozen_lake::SPEC,
    frozen_lake::SPEC_8X8,
    cliff_walking::SPEC,
    cliff_walking::SPEC_SLIPPERY,
    taxi::SPEC,
    blackjack::SPEC,
    lunar_lander::SPEC,
    lunar_lander::CONTINUOUS_SPEC,
    bipedal_walker::SPEC,
    bipedal_walker::HARDCORE_SPEC,
    rocket::SPEC,
    car_racing::SPEC,
];

/// What is registered of an environment.
#[derive(Clone, Copy, Debug)]
pub struct EnvSpec {
    /// Gymnasium's id.
    pub id: &'static str,
    /// One line for listings.
    pub summary: &'static str,
    /// Steps after which an episode is truncated.
    pub max_episode_steps: Option<u32>,
    /// Mean return at which the task counts as solved.
    pub reward_threshold: Option<f64>,
    /// Frames a second at which one step a frame looks natural.
    pub render_fps: u32,
    /// The keys that play it, one entry for each action space that its options can choose.
    pub controls: &'static [Controls],
    /// Makes the bare environment, without the time limit.
    pub make: fn(&mut Options) -> Result<Box<dyn Env>, EnvError>,
    /// Makes the structure-of-arrays stepper of `N` environments, time limit included, where there is one: see
    /// [`make_batch`].
    pub make_batch: Option<MakeBatch>,
}

/// Makes a structure-of-arrays stepper; the vector level is [`Simd::detect`] but in benchmarks.
pub type MakeBatch = fn(
    options: &mut Options,
    num_envs: usize,
    max_episode_steps: u32,
    simd: Simd,
) -> Result<Box<dyn BatchEnv>, EnvError>;

/// What the ids of Python's Gymnasium start with.
pub(crate) const GYMNASIUM: &str = "gymnasium:";

/// The registered environment of this id, or that of Python's Gymnasium for an id after `gymnasium:`.
///
/// # Errors
/// [`EnvError::UnknownEnv`] with the nearest id, [`EnvError::Foreign`] for what Python does not know or cannot load, or
/// where the Cargo feature `python` is missing.
pub fn spec(id: &str) -> Result<&'static EnvSpec, EnvError> {
    if let Some(name) = id.strip_prefix(GYMNASIUM) {
        #[cfg(feature = "python")]
        return crate::python::spec(id, name);
        #[cfg(not(feature = "python"))]
        return Err(EnvError::Foreign {
            env: id.to_owned(),
            problem: format!(
                "this program was built without the feature `python`, which `{name}` needs; rebuild it with \
                 `cargo build --release --features python`"
            ),
        });
    }
    ENVS.iter()
        .find(|s| s.id == id)
        .ok_or_else(|| EnvError::UnknownEnv { id: id.to_owned(), nearest: nearest_name(id, ENVS.iter().map(|s| s.id)) })
}

/// Makes an environment with its options and its registered time limit, which the option `max_episode_steps` replaces.
///
/// # Errors
/// [`EnvError`] for an unknown id or option, or a value out of range.
pub fn make(id: &str, options: &[(String, OptionValue)]) -> Result<Box<dyn Env>, EnvError> {
    spec(id)?.make_with_limit(options)
}

impl EnvSpec {
    /// Makes the environment with its options and its time limit, which the option `max_episode_steps` replaces.
    ///
    /// # Errors
    /// [`EnvError`] for an unknown option, or a value out of range.
    pub fn make_with_limit(&self, options: &[(String, OptionValue)]) -> Result<Box<dyn Env>, EnvError> {
        let (mut options, limit) = take_limit(self, options)?;
        let env = (self.make)(&mut options)?;
        options.finish()?;
        Ok(match limit {
            Some(limit) => Box::new(TimeLimit::new(env, limit)),
            None => env,
        })
    }
}

/// Makes the structure-of-arrays stepper of `num_envs` environments, which takes those options of [`make`] that its
/// source names.
///
/// # Errors
/// [`EnvError`] for an unknown id or option, a value out of range, [`EnvError::BadBatch`] for no environments or an
/// environment that has no such stepper.
pub fn make_batch(id: &str, options: &[(String, OptionValue)], num_envs: usize) -> Result<Box<dyn BatchEnv>, EnvError> {
    let bad = |expected: &str, found: &str| EnvError::BadBatch {
        env: id.to_owned(),
        expected: expected.to_owned(),
        found: found.to_owned(),
    };
    let spec = spec(id)?;
    let make = spec.make_batch.ok_or_else(|| bad("an environment with a batch stepper", "none, use `VecEnv`"))?;
    if num_envs == 0 {
        return Err(bad("at least one environment", "none"));
    }
    let (mut options, limit) = take_limit(spec, options)?;
    let batch = make(&mut options, num_envs, limit.unwrap_or(u32::MAX), Simd::detect())?;
    options.finish()?;
    Ok(batch)
}

/// The options without the time limit, and that.
fn take_limit(spec: &EnvSpec, options: &[(String, OptionValue)]) -> Result<(Options, Option<u32>), EnvError> {
    let mut options = Options::new(spec.id, options.to_vec());
    let limit = options.u32("max_episode_steps", 1..=u32::MAX)?.or(spec.max_episode_steps);
    Ok((options, limit))
}
