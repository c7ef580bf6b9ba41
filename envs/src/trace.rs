//! Replays recorded episodes against an environment: JSON Lines, one object a line.
//!
//! The first line has `kind: "header"`, an `env_id` and `make_kwargs`. A line of `kind: "episode"` has the `seed` of its
//! reset (`null`: the generator went on from the episode before), `max_episode_steps`, `initial_obs`, and for each step an
//! element of `actions`, `obs`, `rewards`, `terminated` and `truncated`. Lines of another kind are skipped. Reals are
//! decimals that give the same float back; infinities are the texts `inf` and `-inf`.

use std::io::BufRead;

use serde_json::Value;

use crate::{Buffer, Dtype, Env, EnvError, EnvSpec, NpRng, OptionValue, Space};

/// What a replay found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TraceReport {
    /// Episodes that were replayed.
    pub episodes: usize,
    /// Their steps.
    pub steps: usize,
    /// Episodes that no seed reproduces, because the recorder replaced the state or kept no observations.
    pub skipped: usize,
    /// Largest difference of an element of an observation.
    pub max_obs_difference: f64,
    /// Largest difference of a reward.
    pub max_reward_difference: f64,
    /// The first moment that differs by more than the tolerance, in words; the replay stops there.
    pub first_difference: Option<String>,
}

/// Replays every episode of a trace in an environment made from its header, up to the first moment where observations or
/// rewards differ by more than `tolerance` or an end of the episode differs at all. Each episode has a new environment.
///
/// # Errors
/// [`EnvError::Trace`] if a line can't be read, or does not fit the environment; [`EnvError`] for options in the header
/// that it refuses.
pub fn check_trace(spec: &EnvSpec, trace: impl BufRead, tolerance: f64) -> Result<TraceReport, EnvError> {
    let mut report = TraceReport::default();
    let (mut kwargs, mut rng) = (Vec::new(), None);
    for (number, line) in trace.lines().enumerate() {
        let bad = |expected: &str, found: String| EnvError::Trace {
            env: spec.id.to_owned(),
            line: number + 1,
            expected: expected.to_owned(),
            found,
        };
        let line = line.map_err(|e| bad("a line of UTF-8", e.to_string()))?;
        if line.trim().is_empty() {
            continue;
        }
        let record: Value = serde_json::from_str(&line).map_err(|e| bad("a JSON object", e.to_string()))?;
        match record["kind"].as_str() {
            Some("header") => {
                if let Some(id) = record["env_id"].as_str().filter(|id| *id != spec.id) {
                    return Err(bad("a trace of this environment", format!("one of {id}")));
                }
                kwargs = options(&record["make_kwargs"]).ok_or_else(|| bad("`make_kwargs`", brief(&record)))?;
            }
            Some("episode") => {
                let replayable = record["state_override"] != true && record["obs"].is_array();
                if !replayable {
                    report.skipped += 1;
                    continue;
                }
                rng = match (&record["seed"], rng) {
                    (Value::Null, None) => return Err(bad("a `seed`", "null in the first episode".into())),
                    (Value::Null, rng) => rng,
                    (seed, _) => {
                        let seed = seed.as_u64().ok_or_else(|| bad("a `seed` that is a whole number", brief(seed)))?;
                        Some(NpRng::seed(seed))
                    }
                };
                let mut options = kwargs.clone();
                if let Some(limit) = record["max_episode_steps"].as_i64() {
                    options.push(("max_episode_steps".to_owned(), OptionValue::Int(limit)));
                }
                let mut env = spec.make_with_limit(&options)?;
                let generator = rng.get_or_insert_with(|| NpRng::seed(0));
                replay(env.as_mut(), &record, generator, tolerance, &mut report)
                    .map_err(|what| bad(what, brief(&record)))?;
                if let Some(difference) = &mut report.first_difference {
                    *difference = format!("line {}, {difference}", number + 1);
                    return Ok(report);
                }
            }
            _ => {}
        }
    }
    Ok(report)
}

/// Replays one episode; an error says what is missing in its record.
fn replay(
    env: &mut dyn Env,
    record: &Value,
    rng: &mut NpRng,
    tolerance: f64,
    report: &mut TraceReport,
) -> Result<(), &'static str> {
    let (observations, actions) = (env.observation_space().clone(), env.action_space().clone());
    let mut row = Buffer::new(&observations, 1);
    let mut action = Buffer::new(&actions, 1);
    env.reset(rng, row.as_mut());
    report.episodes += 1;
    let list = |key: &str| record[key].as_array();
    let steps = list("actions").ok_or("a list `actions`")?;
    let compare = |row: &Buffer, recorded: &Value, report: &mut TraceReport| {
        let recorded = elements(recorded, &observations)?;
        let worst = recorded.iter().enumerate().map(|(i, x)| (i, difference(row.as_row().get(i), *x)));
        let Some((i, worst)) = worst.max_by(|a, b| a.1.total_cmp(&b.1)) else { return Some(None) };
        report.max_obs_difference = report.max_obs_difference.max(worst);
        let found = row.as_row().get(i);
        Some((worst > tolerance).then(|| format!("element {i} is {found}, recorded {}", recorded[i])))
    };
    if let Some(what) = compare(&row, &record["initial_obs"], report).ok_or("an `initial_obs` of the space")? {
        report.first_difference = Some(format!("reset: {what}"));
        return Ok(());
    }
    for (t, recorded) in steps.iter().enumerate() {
        let recorded = elements(recorded, &actions).ok_or("`actions` of the space")?;
        recorded.iter().enumerate().for_each(|(i, x)| action.as_mut().put(i, *x));
        if !actions.accepts_action(action.as_row()) {
            return Err("`actions` in the space");
        }
        let outcome = env.step(action.as_row(), rng, row.as_mut());
        report.steps += 1;
        let [obs, reward, terminated, truncated] =
            ["obs", "rewards", "terminated", "truncated"].map(|key| list(key).and_then(|all| all.get(t)));
        let obs = obs.ok_or("as many `obs` as actions")?;
        let reward = reward.and_then(Value::as_f64).ok_or("as many `rewards` as actions")?;
        let terminated = terminated.and_then(Value::as_bool).ok_or("as many `terminated` as actions")?;
        let truncated = truncated.and_then(Value::as_bool).ok_or("as many `truncated` as actions")?;
        let off = difference(outcome.reward, reward);
        report.max_reward_difference = report.max_reward_difference.max(off);
        let ends = (outcome.terminated, outcome.truncated);
        let differs = match compare(&row, obs, report).ok_or("`obs` of the space")? {
            Some(what) => Some(format!("observation: {what}")),
            None if off > tolerance => Some(format!("reward {}, recorded {reward}", outcome.reward)),
            None if ends != (terminated, truncated) => {
                Some(format!("(terminated, truncated) is {ends:?}, recorded {:?}", (terminated, truncated)))
            }
            None => None,
        };
        if let Some(what) = differs {
            report.first_difference = Some(format!("step {t}: {what}"));
            return Ok(());
        }
    }
    Ok(())
}

/// Infinite for NaN, which agrees with nothing.
fn difference(a: f64, b: f64) -> f64 {
    if a == b {
        return 0.0;
    }
    let difference = (a - b).abs();
    if difference.is_nan() { f64::INFINITY } else { difference }
}

/// The numbers of a value of a space, rounded as its rows are; `None` if they are not so many numbers.
fn elements(value: &Value, space: &Space) -> Option<Vec<f64>> {
    fn gather(value: &Value, to: &mut Vec<f64>) -> Option<()> {
        match value {
            Value::Array(items) => items.iter().try_for_each(|item| gather(item, to)),
            Value::Object(parts) => parts.values().try_for_each(|part| gather(part, to)),
            Value::Bool(x) => {
                to.push(f64::from(u8::from(*x)));
                Some(())
            }
            Value::String(x) if x == "inf" => {
                to.push(f64::INFINITY);
                Some(())
            }
            Value::String(x) if x == "-inf" => {
                to.push(f64::NEG_INFINITY);
                Some(())
            }
            other => other.as_f64().map(|x| to.push(x)),
        }
    }
    let mut numbers = Vec::new();
    gather(value, &mut numbers)?;
    if space.dtype() == Dtype::F32 {
        numbers.iter_mut().for_each(|x| *x = f64::from(*x as f32));
    } else if numbers.iter().any(|x| x.fract() != 0.0) {
        return None;
    }
    (numbers.len() == space.len()).then_some(numbers)
}

fn options(kwargs: &Value) -> Option<Vec<(String, OptionValue)>> {
    let value = |value: &Value| {
        Some(match value {
            Value::Bool(x) => OptionValue::Bool(*x),
            Value::String(x) => OptionValue::Text(x.clone()),
            Value::Array(items) if items.iter().all(Value::is_string) => {
                OptionValue::Lines(items.iter().filter_map(Value::as_str).map(str::to_owned).collect())
            }
            Value::Array(items) => OptionValue::Numbers(items.iter().map(Value::as_f64).collect::<Option<_>>()?),
            other => match other.as_i64() {
                Some(x) => OptionValue::Int(x),
                None => OptionValue::Float(other.as_f64()?),
            },
        })
    };
    match kwargs {
        Value::Null => Some(Vec::new()),
        Value::Object(given) => given.iter().map(|(name, given)| Some((name.clone(), value(given)?))).collect(),
        _ => None,
    }
}

/// The start of a value as text.
fn brief(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() > 80 { text.chars().take(80).chain("...".chars()).collect() } else { text }
}
