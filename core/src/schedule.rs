//! Values that change over a run, such as an annealed learning rate.

use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// A value as a function of the run's progress. In a configuration: a number, or `{ from = 3e-4, to = 0.0 }`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Schedule {
    /// The same value throughout.
    Constant(f64),
    /// A straight line.
    Linear {
        /// The value at progress 0.
        from: f64,
        /// The value at progress 1.
        to: f64,
    },
}

impl Schedule {
    /// The value at `progress`, which is clamped to `[0, 1]`.
    pub fn value(&self, progress: f64) -> f64 {
        match *self {
            Self::Constant(value) => value,
            Self::Linear { from, to } => {
                let progress = progress.clamp(0.0, 1.0);
                from * (1.0 - progress) + to * progress
            }
        }
    }

    /// The smallest and the largest value that the schedule takes, for range checks.
    pub fn bounds(&self) -> (f64, f64) {
        match *self {
            Self::Constant(value) => (value, value),
            Self::Linear { from, to } => (from.min(to), from.max(to)),
        }
    }
}

/// A learning rate that rises over the first steps and falls along half a cosine (Loshchilov & Hutter 2017,
/// <https://arxiv.org/abs/1608.03983>, without restarts), as Transformers are trained with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WarmupCosine {
    /// The largest value.
    pub peak: f64,
    /// The value from step `steps` on.
    pub end: f64,
    /// Steps over which the value rises from nearly zero to `peak`.
    pub warmup: u64,
    /// The step at which `end` is reached.
    pub steps: u64,
}

impl WarmupCosine {
    /// The value at a step, counted from 0.
    pub fn value(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.peak * (step + 1) as f64 / (self.warmup + 1) as f64;
        }
        if step >= self.steps {
            return self.end;
        }
        let progress = (step - self.warmup) as f64 / (self.steps - self.warmup) as f64;
        self.end + 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()) * (self.peak - self.end)
    }
}

impl From<f64> for Schedule {
    fn from(value: f64) -> Self {
        Self::Constant(value)
    }
}

impl Serialize for Schedule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Linear {
            from: f64,
            to: f64,
        }
        match *self {
            Self::Constant(value) => serializer.serialize_f64(value),
            Self::Linear { from, to } => Linear { from, to }.serialize(serializer),
        }
    }
}

// Written by hand because a derived untagged enum hides which key of the table is wrong.
impl<'de> Deserialize<'de> for Schedule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ScheduleVisitor;

        impl<'de> Visitor<'de> for ScheduleVisitor {
            type Value = Schedule;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number or { from = NUMBER, to = NUMBER }")
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Schedule, E> {
                Ok(Schedule::Constant(value))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Schedule, E> {
                Ok(Schedule::Constant(value as f64))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Schedule, E> {
                Ok(Schedule::Constant(value as f64))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Schedule, A::Error> {
                let (mut from, mut to) = (None, None);
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "from" => from = Some(map.next_value()?),
                        "to" => to = Some(map.next_value()?),
                        _ => return Err(Error::unknown_field(&key, &["from", "to"])),
                    }
                }
                Ok(Schedule::Linear {
                    from: from.ok_or_else(|| Error::missing_field("from"))?,
                    to: to.ok_or_else(|| Error::missing_field("to"))?,
                })
            }
        }

        deserializer.deserialize_any(ScheduleVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warm_up_and_cosine_meet_at_the_peak() {
        let rate = WarmupCosine { peak: 1.0, end: 0.1, warmup: 4, steps: 24 };
        let at = |step| (rate.value(step) * 1e3).round() / 1e3;
        assert_eq!([0, 3, 4, 9, 14, 24, 99].map(at), [0.2, 0.8, 1.0, 0.868, 0.55, 0.1, 0.1]);
        let none = WarmupCosine { warmup: 0, steps: 0, ..rate };
        assert_eq!(none.value(0), 0.1);
    }

    #[test]
    fn values() {
        assert_eq!(Schedule::Constant(0.3).value(0.7), 0.3);
        let linear = Schedule::Linear { from: 1.0, to: 0.0 };
        assert_eq!((linear.value(0.0), linear.value(0.25), linear.value(1.0)), (1.0, 0.75, 0.0));
        assert_eq!((linear.value(-1.0), linear.value(2.0)), (1.0, 0.0));
        assert_eq!(linear.bounds(), (0.0, 1.0));
    }

    #[test]
    fn reads_and_writes_both_forms() {
        for (text, schedule) in [
            ("0.5", Schedule::Constant(0.5)),
            ("3", Schedule::Constant(3.0)),
            (r#"{"from":0.5,"to":0}"#, Schedule::Linear { from: 0.5, to: 0.0 }),
        ] {
            let read: Schedule = serde_json::from_str(text).unwrap();
            assert_eq!(read, schedule);
            assert_eq!(serde_json::from_str::<Schedule>(&serde_json::to_string(&read).unwrap()).unwrap(), schedule);
        }
        for wrong in [r#""fast""#, r#"{"from":1}"#, r#"{"from":1,"to":0,"by":2}"#] {
            assert!(serde_json::from_str::<Schedule>(wrong).is_err(), "{wrong}");
        }
    }
}
