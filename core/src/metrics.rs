//! An ordered list of named numbers: what an iteration or an evaluation measured.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

/// Named numbers in the order in which they were added.
///
/// A value that does not exist at this step (no episode ended, say) is left out: a NaN stops the run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics {
    entries: Vec<(Cow<'static, str>, f64)>,
}

impl Metrics {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value, or replaces the value that `key` already has.
    pub fn push(&mut self, key: impl Into<Cow<'static, str>>, value: impl Into<f64>) {
        let (key, value) = (key.into(), value.into());
        match self.entries.iter_mut().find(|(known, _)| *known == key) {
            Some(entry) => entry.1 = value,
            None => self.entries.push((key, value)),
        }
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<f64> {
        self.entries.iter().find(|(known, _)| known == key).map(|(_, value)| *value)
    }

    /// The entries in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.entries.iter().map(|(key, value)| (key.as_ref(), *value))
    }

    /// Adds all entries of `other`.
    pub fn extend(&mut self, other: &Metrics) {
        for (key, value) in &other.entries {
            self.push(key.clone(), *value);
        }
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The first entry that is NaN or infinite.
    pub fn first_non_finite(&self) -> Option<(&str, f64)> {
        self.iter().find(|(_, value)| !value.is_finite())
    }
}

/// Means of named numbers, in the order in which the names came.
#[derive(Debug, Clone, Default)]
pub struct Means {
    /// Names, sums and how many numbers are in them.
    sums: Vec<(Cow<'static, str>, f64, f64)>,
}

impl Means {
    /// Counts a value.
    pub fn add(&mut self, key: impl Into<Cow<'static, str>>, value: impl Into<f64>) {
        let (key, value) = (key.into(), value.into());
        match self.sums.iter_mut().find(|(known, ..)| *known == key) {
            Some((_, sum, count)) => (*sum, *count) = (*sum + value, *count + 1.0),
            None => self.sums.push((key, value, 1.0)),
        }
    }

    /// Counts the value of each entry.
    pub fn add_all(&mut self, metrics: &Metrics) {
        for (key, value) in &metrics.entries {
            self.add(key.clone(), *value);
        }
    }

    /// The means.
    pub fn into_metrics(self) -> Metrics {
        Metrics { entries: self.sums.into_iter().map(|(key, sum, count)| (key, sum / count)).collect() }
    }
}

/// Entries as `key=value` pairs on one line.
impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.entries.is_empty() {
            return f.write_str("none");
        }
        for (index, (key, value)) in self.iter().enumerate() {
            let separator = if index == 0 { "" } else { " " };
            write!(f, "{separator}{key}={value}")?;
        }
        Ok(())
    }
}

/// A map from key to value, in order.
impl Serialize for Metrics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.entries.len()))?;
        for (key, value) in self.iter() {
            map.serialize_entry(key, &value)?;
        }
        map.end()
    }
}

/// The entries of a map, in order.
impl<'de> Deserialize<'de> for Metrics {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MetricsVisitor;

        impl<'de> Visitor<'de> for MetricsVisitor {
            type Value = Metrics;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of numbers")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metrics, A::Error> {
                let mut metrics = Metrics::new();
                while let Some((key, value)) = map.next_entry::<String, f64>()? {
                    metrics.push(key, value);
                }
                Ok(metrics)
            }
        }

        deserializer.deserialize_map(MetricsVisitor)
    }
}

/// A number with four digits that matter.
pub fn short(value: f64) -> String {
    if value == 0.0 || (1e-3..1e5).contains(&value.abs()) {
        let digits = (3 - value.abs().max(1e-3).log10().floor() as i32).clamp(0, 6) as usize;
        let text = format!("{value:.digits$}");
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    } else {
        let text = format!("{value:.3e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        format!("{}e{exponent}", digits.trim_end_matches('0').trim_end_matches('.'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_numbers_have_four_digits() {
        let found = [0.0, 475.0, 99.99, 1234.56, -0.031416, 1e-4, 2.5e-7, 123456.0].map(short);
        assert_eq!(found, ["0", "475", "99.99", "1235", "-0.03142", "1e-4", "2.5e-7", "1.235e5"]);
    }

    #[test]
    fn keeps_order_and_replaces() {
        let mut metrics = Metrics::new();
        metrics.push("loss", 2.0);
        metrics.push("entropy", 0.5f32);
        metrics.push("loss", 1.0);
        assert_eq!(metrics.iter().collect::<Vec<_>>(), [("loss", 1.0), ("entropy", 0.5)]);
        assert_eq!(metrics.get("lr"), None);
        assert_eq!(metrics.to_string(), "loss=1 entropy=0.5");
        assert_eq!(serde_json::to_string(&metrics).unwrap(), r#"{"loss":1.0,"entropy":0.5}"#);
        assert_eq!(serde_json::from_str::<Metrics>(r#"{"loss":1,"entropy":0.5}"#).unwrap(), metrics);
    }

    #[test]
    fn means_are_of_those_that_have_the_value() {
        let mut means = Means::default();
        for (loss, episode) in [(1.0, None), (4.0, Some(10.0)), (1.0, None)] {
            let mut metrics = Metrics::new();
            metrics.push("loss", loss);
            episode.into_iter().for_each(|episode: f64| metrics.push("return", episode));
            means.add_all(&metrics);
        }
        assert_eq!(means.into_metrics().to_string(), "loss=2 return=10");
    }

    #[test]
    fn finds_the_first_non_finite() {
        let mut metrics = Metrics::new();
        metrics.push("a", 1.0);
        assert_eq!(metrics.first_non_finite(), None);
        metrics.push("b", f64::INFINITY);
        metrics.push("c", f64::NAN);
        assert_eq!(metrics.first_non_finite(), Some(("b", f64::INFINITY)));
    }
}
