//! Keyword arguments of environments, as they come from a config file.

use std::ops::RangeInclusive;

use crate::EnvError;

/// The value of one option.
#[derive(Clone, Debug, PartialEq)]
pub enum OptionValue {
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A real number.
    Float(f64),
    /// A text.
    Text(String),
    /// A list of texts, for example the rows of a map.
    Lines(Vec<String>),
    /// A list of numbers.
    Numbers(Vec<f64>),
}

/// Options given to an environment. An environment takes what it knows and then calls [`Options::finish`], which
/// refuses what is left.
#[derive(Clone, Debug, Default)]
pub struct Options {
    env: String,
    given: Vec<(String, OptionValue)>,
    known: Vec<&'static str>,
}

impl Options {
    /// Options for the environment `env`.
    pub fn new(env: &str, given: Vec<(String, OptionValue)>) -> Self {
        Self { env: env.to_owned(), given, known: Vec::new() }
    }

    /// The environment's id.
    pub fn env(&self) -> &str {
        &self.env
    }

    /// The options that were asked for so far, given or not.
    pub fn known(&self) -> &[&'static str] {
        &self.known
    }

    fn take(&mut self, option: &'static str) -> Option<OptionValue> {
        self.known.push(option);
        let at = self.given.iter().position(|(name, _)| name == option)?;
        Some(self.given.remove(at).1)
    }

    /// An [`EnvError::BadOption`] of this environment.
    pub fn bad(&self, option: &str, expected: &str, found: impl ToString) -> EnvError {
        EnvError::BadOption {
            env: self.env.clone(),
            option: option.to_owned(),
            expected: expected.to_owned(),
            found: found.to_string(),
        }
    }

    /// Takes a finite real number, or `default`.
    ///
    /// # Errors
    /// [`EnvError::BadOption`] if the value is not a finite number.
    pub fn f64(&mut self, option: &'static str, default: f64) -> Result<f64, EnvError> {
        match self.take(option) {
            None => Ok(default),
            Some(OptionValue::Float(x)) if x.is_finite() => Ok(x),
            Some(OptionValue::Int(x)) => Ok(x as f64),
            Some(other) => Err(self.bad(option, "a finite number", other)),
        }
    }

    /// Takes a real number in `range`, or `None` if the option is not given.
    ///
    /// # Errors
    /// [`EnvError::BadOption`] if the value is not a number in the range.
    pub fn f64_in(&mut self, option: &'static str, range: RangeInclusive<f64>) -> Result<Option<f64>, EnvError> {
        let Some(value) = self.take(option) else { return Ok(None) };
        match value {
            OptionValue::Float(x) => Some(x),
            OptionValue::Int(x) => Some(x as f64),
            _ => None,
        }
        .filter(|x| range.contains(x))
        .map(Some)
        .ok_or_else(|| self.bad(option, &format!("a number from {} to {}", range.start(), range.end()), &value))
    }

    /// Takes `K` finite numbers, or `None` if the option is not given; `what` says what they mean.
    ///
    /// # Errors
    /// [`EnvError::BadOption`] if the value is not a list of so many finite numbers.
    pub fn numbers<const K: usize>(&mut self, option: &'static str, what: &str) -> Result<Option<[f64; K]>, EnvError> {
        let Some(value) = self.take(option) else { return Ok(None) };
        match &value {
            OptionValue::Numbers(x) if x.iter().all(|x| x.is_finite()) => x.as_slice().try_into().ok(),
            _ => None,
        }
        .map(Some)
        .ok_or_else(|| self.bad(option, &format!("a list of {K} finite numbers, {what}"), &value))
    }

    /// Takes one finite number or a list of them, or `None` if the option is not given; `what` says what they mean.
    ///
    /// # Errors
    /// [`EnvError::BadOption`] if the value is anything else, or the list is empty.
    pub fn one_or_more(&mut self, option: &'static str, what: &str) -> Result<Option<Vec<f64>>, EnvError> {
        let Some(value) = self.take(option) else { return Ok(None) };
        match &value {
            OptionValue::Int(x) => Some(vec![*x as f64]),
            OptionValue::Float(x) => Some(vec![*x]),
            OptionValue::Numbers(x) => Some(x.clone()),
            _ => None,
        }
        .filter(|x| !x.is_empty() && x.iter().all(|x| x.is_finite()))
        .map(Some)
        .ok_or_else(|| self.bad(option, &format!("a finite number or a list of them, {what}"), &value))
    }

    /// Takes one whole number in `range` or a list of them, or `None` if the option is not given.
    ///
    /// # Errors
    /// [`EnvError::BadOption`] if the value is anything else, or the list is empty.
    pub fn one_or_more_u32(
        &mut self,
        option: &'static str,
        range: RangeInclusive<u32>,
    ) -> Result<Option<Vec<u32>>, EnvError> {
        let what = format!("whole and from {} to {}", range.start(), range.end());
        let Some(numbers) = self.one_or_more(option, &what)? else { return Ok(None) };
        let inside = |x: &f64| x.fract() == 0.0 && (f64::from(*range.start())..=f64::from(*range.end())).contains(x);
        if !numbers.iter().all(inside) {
            let expected = format!("a number or a list of them, {what}");
            return Err(self.bad(option, &expected, OptionValue::Numbers(numbers)));
        }
        Ok(Some(numbers.into_iter().map(|x| x as u32).collect()))
    }

    /// Takes a text, or `None` if the option is not given.
    ///
    /// # Errors
    /// [`EnvError::BadOption`] if the value is not a text.
    pub fn text(&mut self, option: &'static str) -> Result<Option<String>, EnvError> {
        match self.take(option) {
            None => Ok(None),
            Some(OptionValue::Text(x)) => Ok(Some(x)),
            Some(other) => Err(self.bad(option, "a text", other)),
        }
    }

    /// Takes a list of texts, or `None` if the option is not given.
    ///
    /// # Errors
    /// [`EnvError::BadOption`] if the value is not a list of texts.
    pub fn lines(&mut self, option: &'static str) -> Result<Option<Vec<String>>, EnvError> {
        match self.take(option) {
            None => Ok(None),
            Some(OptionValue::Lines(x)) => Ok(Some(x)),
            Some(other) => Err(self.bad(option, "a list of texts", other)),
        }
    }

    /// Takes a whole number in `range`, or `None` if the option is not given.
    ///
    /// # Errors
    /// [`EnvError::BadOption`] if the value is not a whole number in the range.
    pub fn u32(&mut self, option: &'static str, range: RangeInclusive<u32>) -> Result<Option<u32>, EnvError> {
        let Some(value) = self.take(option) else { return Ok(None) };
        match value {
            OptionValue::Int(x) => u32::try_from(x).ok().filter(|x| range.contains(x)),
            _ => None,
        }
        .map(Some)
        .ok_or_else(|| self.bad(option, &format!("a whole number from {} to {}", range.start(), range.end()), &value))
    }

    /// Takes a truth value, or `default`.
    ///
    /// # Errors
    /// [`EnvError::BadOption`] if the value is not a truth value.
    pub fn bool(&mut self, option: &'static str, default: bool) -> Result<bool, EnvError> {
        match self.take(option) {
            None => Ok(default),
            Some(OptionValue::Bool(x)) => Ok(x),
            Some(other) => Err(self.bad(option, "true or false", other)),
        }
    }

    /// Takes all options that are left, for an environment that checks them itself.
    pub fn take_all(&mut self) -> Vec<(String, OptionValue)> {
        std::mem::take(&mut self.given)
    }

    /// Checks that every option given was taken.
    ///
    /// # Errors
    /// [`EnvError::UnknownOption`] for the first that was not.
    pub fn finish(self) -> Result<(), EnvError> {
        match self.given.into_iter().next() {
            None => Ok(()),
            Some((option, _)) => Err(EnvError::UnknownOption {
                nearest: nearest_name(&option, self.known.iter().copied()),
                known: self.known.join(", "),
                env: self.env,
                option,
            }),
        }
    }
}

impl std::fmt::Display for OptionValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bool(x) => write!(f, "{x}"),
            Self::Int(x) => write!(f, "{x}"),
            Self::Float(x) => write!(f, "{x}"),
            Self::Text(x) => write!(f, "\"{x}\""),
            Self::Lines(x) => write!(f, "{x:?}"),
            Self::Numbers(x) => write!(f, "{x:?}"),
        }
    }
}

/// The candidate that looks most like `name`, if any looks like it at all.
pub(crate) fn nearest_name<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    candidates
        .map(|c| (strsim::jaro_winkler(&name.to_lowercase(), &c.to_lowercase()), c))
        .filter(|(score, _)| *score > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, c)| c.to_owned())
}
