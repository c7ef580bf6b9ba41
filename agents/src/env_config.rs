//! The `[env]` section.

use std::io;
use std::path::Path;

use hotfire_core::config::{ConfigDocument, ConfigError};
use hotfire_core::media::GifWriter;
use hotfire_envs::{
    AutoresetMode, Env, EnvError, EnvSpec, Frame, OptionValue, TimeLimit, VecEnv, VideoSink, WrapperConfig,
    open_with_ffmpeg,
};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

/// Steps of the longest episode that is waited for.
pub(crate) const LONGEST_EPISODE: u32 = 100_000;

/// Which environment, how many of it, and its options.
#[derive(Clone, Debug)]
pub struct EnvConfig {
    /// The registered environment.
    pub spec: &'static EnvSpec,
    /// Number of environments that collect experience in parallel.
    pub num_envs: usize,
    /// The environment's keyword arguments.
    pub options: Vec<(String, OptionValue)>,
    /// The wrappers around it, from the inside out.
    pub wrappers: Vec<WrapperConfig>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    #[serde(default = "one")]
    num_envs: usize,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    wrappers: Vec<Value>,
}

fn one() -> usize {
    1
}

impl EnvConfig {
    /// Reads `[env]`: `id`, `num_envs`, the list `wrappers` and the table `options`, and makes one environment to see that
    /// they hold. A wrapper is its name, or a table with its `name` and options.
    ///
    /// # Errors
    /// [`ConfigError`] that names the key.
    pub fn read(document: &mut ConfigDocument) -> Result<Self, ConfigError> {
        let id = document.take_tag("env", "id")?;
        let options = document.table("env", "options")?;
        let section: Section = document.section("env")?;
        let spec = hotfire_envs::spec(&id).map_err(|error| document.invalid("env.id", error))?;
        if !(1..=1 << 20).contains(&section.num_envs) {
            return Err(document.out_of_range("env.num_envs", "a number from 1 to 1048576", section.num_envs));
        }
        let options = option_values(document, "env.options", options)?;
        if let Err(error) = spec.make_with_limit(&options) {
            let key = match &error {
                EnvError::UnknownOption { option, .. } | EnvError::BadOption { option, .. } => {
                    format!("env.options.{option}")
                }
                _ => "env".to_owned(),
            };
            return Err(document.invalid(&key, error));
        }
        let wrappers = section.wrappers.into_iter().map(|wrapper| wrapper_config(document, wrapper));
        let config = Self { spec, num_envs: section.num_envs, options, wrappers: wrappers.collect::<Result<_, _>>()? };
        match config.make(1) {
            Ok(_) => Ok(config),
            Err(error) => Err(document.invalid("env.wrappers", error)),
        }
    }

    /// `num_envs` environments that reset themselves in the step that ends an episode.
    ///
    /// # Errors
    /// [`EnvError`] for options or wrappers that the environment refuses.
    pub fn make(&self, num_envs: usize) -> Result<VecEnv, EnvError> {
        self.make_from(0, num_envs, |env| env)
    }

    /// The same for an evaluation: the wrapper `record_video` films training only, since both would write the same
    /// files; and episodes end after 100,000 steps, since a policy that has learned little may end none of them.
    ///
    /// # Errors
    /// As [`EnvConfig::make`].
    pub fn make_for_evaluation(&self, num_envs: usize) -> Result<VecEnv, EnvError> {
        self.make_from(1, num_envs, |env| Box::new(TimeLimit::new(env, LONGEST_EPISODE)))
    }

    /// How many frames the first axis of an observation stacks, oldest first and the first one repeated at an episode's
    /// start; 1 without the wrapper `frame_stack`, or where others come after it or it pads with zeros.
    pub fn stacked_frames(&self) -> usize {
        let Some((name, options)) = self.wrappers.last() else { return 1 };
        let zeros = OptionValue::Text("zero".into());
        let size = options.iter().find_map(|(key, value)| match (key.as_str(), value) {
            ("size", OptionValue::Int(size)) => usize::try_from(*size).ok(),
            _ => None,
        });
        let padded = options.iter().any(|(key, value)| key == "padding" && *value == zeros);
        size.filter(|_| name == "frame_stack" && !padded).unwrap_or(1)
    }

    fn make_from(
        &self,
        first: usize,
        num_envs: usize,
        outermost: impl Fn(Box<dyn Env>) -> Box<dyn Env>,
    ) -> Result<VecEnv, EnvError> {
        let make = |index| self.spec.make_wrapped(&self.options, &self.wrappers, index, open_video).map(&outermost);
        let envs = (first..first + num_envs).map(make).collect::<Result<_, _>>()?;
        VecEnv::from_envs(self.spec.id, envs, AutoresetMode::SameStep)
    }
}

/// Opens a video file: a GIF of this program's own, and what `ffmpeg` makes of other endings.
///
/// # Errors
/// If the file or the program can't be used; the message names it.
pub fn open_video(path: &Path, width: u32, height: u32, fps: u32) -> io::Result<Box<dyn VideoSink>> {
    struct Gif(GifWriter);
    impl VideoSink for Gif {
        fn push(&mut self, frame: &Frame) -> io::Result<()> {
            self.0.push(&frame.rgb)
        }

        fn finish(self: Box<Self>) -> io::Result<()> {
            self.0.finish()
        }
    }
    if path.extension().is_some_and(|ending| ending == "gif") {
        return Ok(Box::new(Gif(GifWriter::new(path, width, height, fps)?)));
    }
    open_with_ffmpeg(path, width, height, fps)
}

fn wrapper_config(document: &ConfigDocument, wrapper: Value) -> Result<WrapperConfig, ConfigError> {
    let key = "env.wrappers";
    let expected = "a wrapper's name, or a table with its `name` and options";
    match wrapper {
        Value::String(name) => Ok((name, Vec::new())),
        Value::Table(mut table) => match table.remove("name") {
            Some(Value::String(name)) => {
                let options = option_values(document, &format!("{key}.{name}"), table)?;
                Ok((name, options))
            }
            Some(other) => Err(document.out_of_range(key, expected, other)),
            None => Err(document.out_of_range(key, expected, Value::Table(table))),
        },
        other => Err(document.out_of_range(key, expected, other)),
    }
}

fn option_values(
    document: &ConfigDocument,
    place: &str,
    table: Table,
) -> Result<Vec<(String, OptionValue)>, ConfigError> {
    let value = |key: &str, value: Value| match value {
        Value::Boolean(x) => Ok(OptionValue::Bool(x)),
        Value::Integer(x) => Ok(OptionValue::Int(x)),
        Value::Float(x) => Ok(OptionValue::Float(x)),
        Value::String(x) => Ok(OptionValue::Text(x)),
        Value::Array(lines) if lines.iter().all(Value::is_str) => {
            Ok(OptionValue::Lines(lines.iter().filter_map(Value::as_str).map(str::to_owned).collect()))
        }
        Value::Array(numbers) if numbers.iter().all(|x| x.is_float() || x.is_integer()) => {
            let number = |x: &Value| x.as_float().or(x.as_integer().map(|x| x as f64));
            Ok(OptionValue::Numbers(numbers.iter().filter_map(number).collect()))
        }
        other => Err(document.out_of_range(
            &format!("{place}.{key}"),
            "a truth value, number, text, list of texts or list of numbers",
            other,
        )),
    };
    table.into_iter().map(|(key, given)| Ok((key.clone(), value(&key, given)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(wrappers: &str) -> Result<EnvConfig, ConfigError> {
        let text = format!("[env]\nid = \"CartPole-v1\"\nwrappers = {wrappers}\n");
        EnvConfig::read(&mut ConfigDocument::parse("test.toml", &text, &[])?)
    }

    #[test]
    fn wrappers_are_names_or_tables() {
        let config = read("[\"clip_reward\", { name = \"frame_stack\", size = 3 }]").unwrap();
        assert_eq!(config.wrappers[1], ("frame_stack".to_owned(), vec![("size".to_owned(), OptionValue::Int(3))]));
        for envs in [config.make(2), config.make_for_evaluation(2)] {
            assert_eq!(envs.unwrap().observation_space().shape(), [3, 4]);
        }
        assert_eq!(config.stacked_frames(), 3);
        let stack = "{ name = \"frame_stack\", size = 3, padding = \"zero\" }";
        assert_eq!(read(&format!("[{stack}]")).unwrap().stacked_frames(), 1, "other frames come before an episode");
        assert_eq!(read("[{ name = \"frame_stack\", size = 3 }, \"clip_reward\"]").unwrap().stacked_frames(), 1);
        let error = |wrappers| read(wrappers).unwrap_err().to_string();
        assert_eq!(
            error("[\"clip_rewards\"]"),
            "test.toml:3: env.wrappers: CartPole-v1: unknown wrapper `clip_rewards`; did you mean `clip_reward`?"
        );
        assert!(error("[{ size = 3 }]").contains("env.wrappers: expected a wrapper's name"));
        assert!(
            error("[{ name = \"frame_stack\", size = \"many\" }]").contains("option `size` must be a whole number")
        );
    }
}
