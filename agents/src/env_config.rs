//! The `[env]` section.

use hotfire_core::config::{ConfigDocument, ConfigError};
use hotfire_envs::{AutoresetMode, EnvError, EnvSpec, OptionValue, VecEnv};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

/// Which environment, how many of it, and its options.
#[derive(Clone, Debug)]
pub struct EnvConfig {
    /// The registered environment.
    pub spec: &'static EnvSpec,
    /// Number of environments that collect experience in parallel.
    pub num_envs: usize,
    /// The environment's keyword arguments.
    pub options: Vec<(String, OptionValue)>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    #[serde(default = "one")]
    num_envs: usize,
}

fn one() -> usize {
    1
}

impl EnvConfig {
    /// Reads `[env]`: `id`, `num_envs` and the table `options`, and makes one environment to see that they hold.
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
        let config = Self { spec, num_envs: section.num_envs, options: option_values(document, options)? };
        match config.make(1) {
            Ok(_) => Ok(config),
            Err(error) => {
                let key = match &error {
                    EnvError::UnknownOption { option, .. } | EnvError::BadOption { option, .. } => {
                        format!("env.options.{option}")
                    }
                    _ => "env".to_owned(),
                };
                Err(document.invalid(&key, error))
            }
        }
    }

    /// `num_envs` environments that reset themselves in the step that ends an episode.
    ///
    /// # Errors
    /// [`EnvError`] for options that the environment refuses.
    pub fn make(&self, num_envs: usize) -> Result<VecEnv, EnvError> {
        let envs = (0..num_envs).map(|_| self.spec.make_with_limit(&self.options)).collect::<Result<_, _>>()?;
        VecEnv::from_envs(self.spec.id, envs, AutoresetMode::SameStep)
    }
}

fn option_values(document: &ConfigDocument, table: Table) -> Result<Vec<(String, OptionValue)>, ConfigError> {
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
            &format!("env.options.{key}"),
            "a truth value, number, text, list of texts or list of numbers",
            other,
        )),
    };
    table.into_iter().map(|(key, given)| Ok((key.clone(), value(&key, given)?))).collect()
}
