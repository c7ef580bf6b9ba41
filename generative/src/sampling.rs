//! The options of `hotfire sample`, and the random streams of samples.

use std::str::FromStr;

use hotfire_core::CoreError;
use hotfire_core::error::nearest;
use hotfire_core::seed::{StreamRng, stream};

use crate::SampleRequest;

/// The streams of samples 0 to `count`: one a sample, so that none depends on how many are drawn at once.
pub(crate) fn sample_seeds(seed: u64, count: usize) -> impl Iterator<Item = StreamRng> {
    (0..count as u64).map(move |index| stream(seed, "sample", index))
}

/// A model's own `key=value` options.
pub(crate) struct Options {
    given: Vec<(String, String)>,
    known: Vec<&'static str>,
}

impl Options {
    /// Takes the options out of a request.
    pub fn of(request: &mut SampleRequest<'_>) -> Self {
        Self { given: std::mem::take(&mut request.options), known: Vec::new() }
    }

    fn take(&mut self, key: &'static str) -> Option<String> {
        self.known.push(key);
        let at = self.given.iter().rposition(|(given, _)| given == key)?;
        let (_, value) = self.given.remove(at);
        self.given.retain(|(given, _)| given != key);
        Some(value)
    }

    /// One of some names; the first without the option.
    pub fn name(&mut self, key: &'static str, names: &[&'static str]) -> Result<&'static str, CoreError> {
        let Some(value) = self.take(key) else { return Ok(names[0]) };
        names.iter().find(|name| **name == value).copied().ok_or_else(|| {
            let hint = nearest(&value, names.iter().copied()).map(|name| format!("; did you mean {name}?"));
            let hint = hint.unwrap_or_else(|| format!("; known: {}", names.join(", ")));
            CoreError::Usage(format!("{key}={value}: {value:?} is not known{hint}"))
        })
    }

    /// A value, if it is given.
    pub fn value<T: FromStr>(&mut self, key: &'static str, expected: &str) -> Result<Option<T>, CoreError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        value.parse().map(Some).map_err(|_| CoreError::Usage(format!("{key}={value}: expected {expected}")))
    }

    /// Refuses options that were not asked for.
    pub fn finish(self) -> Result<(), CoreError> {
        let Some((key, value)) = self.given.first() else { return Ok(()) };
        let hint = match nearest(key, self.known.iter().copied()) {
            Some(name) => format!("did you mean {name}?"),
            None => format!("known: {}", self.known.join(", ")),
        };
        Err(CoreError::Usage(format!("{key}={value}: this model has no such option; {hint}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(given: &[(&str, &str)]) -> Options {
        let given = given.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Options { given, known: Vec::new() }
    }

    #[test]
    fn options_are_read_and_mistakes_named() {
        let mut good = options(&[("class", "3"), ("class", "7"), ("picture", "samples")]);
        assert_eq!(good.value::<u32>("class", "a class").unwrap(), Some(7));
        assert_eq!(good.value::<f32>("scale", "a number").unwrap(), None);
        assert_eq!(good.name("picture", &["grid", "samples"]).unwrap(), "samples");
        good.finish().unwrap();
        let mut bad = options(&[("class", "x"), ("picture", "sampels"), ("clas", "1")]);
        let message = |error: CoreError| error.to_string();
        assert!(message(bad.value::<u32>("class", "a class").unwrap_err()).contains("class=x: expected a class"));
        assert!(message(bad.name("picture", &["grid", "samples"]).unwrap_err()).contains("did you mean samples?"));
        assert!(message(bad.finish().unwrap_err()).contains("did you mean class?"));
    }
}
