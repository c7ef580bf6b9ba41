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

    fn take(&mut self, key: &'static str) -> Result<Option<String>, CoreError> {
        self.known.push(key);
        let Some(at) = self.given.iter().position(|(given, _)| given == key) else { return Ok(None) };
        let (_, value) = self.given.remove(at);
        match self.given.iter().find(|(given, _)| given == key) {
            Some((_, again)) => Err(CoreError::Usage(format!("{key}={again}: expected once, found {key}={value} too"))),
            None => Ok(Some(value)),
        }
    }

    /// What the one of some names stands for that is given, if one is.
    pub fn choice<T: Copy>(&mut self, key: &'static str, names: &[(&'static str, T)]) -> Result<Option<T>, CoreError> {
        let Some(value) = self.take(key)? else { return Ok(None) };
        let chosen = names.iter().find(|(name, _)| *name == value).map(|(_, meaning)| *meaning);
        chosen.map(Some).ok_or_else(|| {
            let names: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
            let hint = nearest(&value, names.iter().copied()).map(|name| format!("; did you mean {name}?"));
            let hint = hint.unwrap_or_else(|| format!("; known: {}", names.join(", ")));
            CoreError::Usage(format!("{key}={value}: {value:?} is not known{hint}"))
        })
    }

    /// One of some names; the first without the option.
    pub fn name(&mut self, key: &'static str, names: &[&'static str]) -> Result<&'static str, CoreError> {
        let pairs: Vec<_> = names.iter().map(|name| (*name, *name)).collect();
        Ok(self.choice(key, &pairs)?.unwrap_or(names[0]))
    }

    /// A value that `fits`, if one is given.
    pub fn value<T: FromStr>(
        &mut self,
        key: &'static str,
        expected: &str,
        fits: impl Fn(&T) -> bool,
    ) -> Result<Option<T>, CoreError> {
        let Some(value) = self.take(key)? else { return Ok(None) };
        let parsed = value.parse().ok().filter(fits);
        parsed.map(Some).ok_or_else(|| CoreError::Usage(format!("{key}={value}: expected {expected}")))
    }

    /// Refuses options that were not asked for.
    pub fn finish(self) -> Result<(), CoreError> {
        let Some((key, value)) = self.given.first() else { return Ok(()) };
        let hint = match nearest(key, self.known.iter().copied()) {
            Some(name) => format!("did you mean {name}?"),
            None if self.known.is_empty() => "it has none".into(),
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
        let mut good = options(&[("class", "7"), ("picture", "samples")]);
        assert_eq!(good.value("class", "a class", |class: &u32| *class < 8).unwrap(), Some(7));
        assert_eq!(good.value("scale", "a number", |_: &f32| true).unwrap(), None);
        assert_eq!(good.name("picture", &["grid", "samples"]).unwrap(), "samples");
        good.finish().unwrap();
        let mut bad = options(&[("class", "x"), ("steps", "0"), ("picture", "sampels"), ("clas", "1")]);
        let message = |error: CoreError| error.to_string();
        let any = |_: &u32| true;
        assert!(message(bad.value("class", "a class", any).unwrap_err()).contains("class=x: expected a class"));
        let least = bad.value("steps", "a number from 1", |n: &u32| *n > 0).unwrap_err();
        assert!(message(least).contains("steps=0: expected a number from 1"));
        let twice = options(&[("class", "3"), ("class", "7")]).value("class", "a class", any).unwrap_err();
        assert_eq!(message(twice), "class=7: expected once, found class=3 too");
        assert!(message(bad.name("picture", &["grid", "samples"]).unwrap_err()).contains("did you mean samples?"));
        assert!(message(bad.finish().unwrap_err()).contains("did you mean class?"));
    }
}
