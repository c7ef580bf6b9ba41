//! Choosing configurations: grid, random draws, and the tree-structured Parzen estimator (TPE).
//!
//! TPE is that of Bergstra et al. 2011, "Algorithms for hyper-parameter optimization", with the choices of Optuna's
//! default sampler: ten random trials first, the best tenth (at most 25) as the good group, each key modelled by itself,
//! 24 candidates from the good group's density of which the one with the highest density ratio wins. The Parzen windows
//! are normal kernels cut at the ends of the interval, as wide as the larger distance to a neighbour, beside a wide one
//! at the middle as the prior; categories are counted, with one count as the prior.

use hotfire_core::seed::{StreamRng, stream};
use toml::Value;

use super::file::{Assignment, Distribution, Method, SweepFile};

const STARTUP_TRIALS: usize = 10;
const CANDIDATES: usize = 24;
const LARGEST_GOOD_GROUP: usize = 25;

/// The configuration `index`. `history` holds those that were measured so far, with scores of which more is better; only
/// TPE looks at it.
pub fn propose(file: &SweepFile, index: usize, history: &[(Assignment, f64)]) -> Assignment {
    let mut rng = stream(file.search.seed, "search", index as u64);
    match file.search.method {
        Method::Grid => grid_point(file, index),
        Method::Tpe if history.len() >= STARTUP_TRIALS => {
            let (good, rest) = split(history);
            file.space.iter().map(|(key, d)| (key.clone(), parzen(key, d, &good, &rest, &mut rng))).collect()
        }
        Method::Random | Method::Tpe => {
            file.space.iter().map(|(key, distribution)| (key.clone(), draw(distribution, &mut rng))).collect()
        }
    }
}

/// The last key varies fastest.
fn grid_point(file: &SweepFile, mut index: usize) -> Assignment {
    let mut point = Assignment::new();
    for (key, distribution) in file.space.iter().rev() {
        if let Distribution::Values(values) = distribution {
            point.insert(key.clone(), values[index % values.len()].clone());
            index /= values.len();
        }
    }
    point
}

fn draw(distribution: &Distribution, rng: &mut StreamRng) -> Value {
    match distribution {
        Distribution::Values(values) => values[rng.below(values.len() as u32) as usize].clone(),
        numeric => {
            let (low, high) = interval(numeric);
            to_value(numeric, low + (high - low) * rng.uniform_f64())
        }
    }
}

/// The interval that a numeric key is modelled on: logarithms of a log-uniform one, and half a step more at the ends
/// of an integer, so that rounding treats all integers alike.
fn interval(distribution: &Distribution) -> (f64, f64) {
    match distribution {
        Distribution::Uniform(low, high) => (*low, *high),
        Distribution::LogUniform(low, high) => (low.ln(), high.ln()),
        Distribution::Int(low, high) => (*low as f64 - 0.5, *high as f64 + 0.5),
        Distribution::Values(_) => unreachable!("categories have no interval"),
    }
}

fn to_value(distribution: &Distribution, at: f64) -> Value {
    match distribution {
        Distribution::LogUniform(low, high) => Value::Float(at.exp().clamp(*low, *high)),
        Distribution::Int(low, high) => Value::Integer((at.round() as i64).clamp(*low, *high)),
        _ => Value::Float(at),
    }
}

fn from_value(distribution: &Distribution, value: &Value) -> f64 {
    let number = value.as_float().or(value.as_integer().map(|x| x as f64)).unwrap_or(f64::NAN);
    match distribution {
        Distribution::LogUniform(..) => number.ln(),
        _ => number,
    }
}

/// The good group and the rest.
fn split(history: &[(Assignment, f64)]) -> (Vec<&Assignment>, Vec<&Assignment>) {
    let mut order: Vec<&(Assignment, f64)> = history.iter().collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1));
    let good = history.len().div_ceil(10).min(LARGEST_GOOD_GROUP);
    let assignments: Vec<&Assignment> = order.into_iter().map(|(assignment, _)| assignment).collect();
    let (good, rest) = assignments.split_at(good);
    (good.to_vec(), rest.to_vec())
}

fn parzen(
    key: &str,
    distribution: &Distribution,
    good: &[&Assignment],
    rest: &[&Assignment],
    rng: &mut StreamRng,
) -> Value {
    if let Distribution::Values(values) = distribution {
        return categories(key, values, good, rest, rng);
    }
    let (low, high) = interval(distribution);
    let observed = |group: &[&Assignment]| -> Vec<f64> {
        group.iter().filter_map(|a| a.get(key)).map(|v| from_value(distribution, v)).filter(|x| x.is_finite()).collect()
    };
    let (good, rest) = (Mixture::new(observed(good), low, high), Mixture::new(observed(rest), low, high));
    let best = (0..CANDIDATES)
        .map(|_| good.draw(rng))
        .max_by(|a, b| {
            (good.log_density(*a) - rest.log_density(*a)).total_cmp(&(good.log_density(*b) - rest.log_density(*b)))
        })
        .unwrap_or((low + high) / 2.0);
    to_value(distribution, best)
}

fn categories(key: &str, values: &[Value], good: &[&Assignment], rest: &[&Assignment], rng: &mut StreamRng) -> Value {
    let shares = |group: &[&Assignment]| -> Vec<f64> {
        let prior = 1.0 / values.len() as f64;
        let count = |value: &Value| group.iter().filter(|a| a.get(key) == Some(value)).count() as f64;
        values.iter().map(|value| (count(value) + prior) / (group.len() as f64 + 1.0)).collect()
    };
    let (good, rest) = (shares(good), shares(rest));
    let ratio = |i: &usize| good[*i] / rest[*i];
    let best = (0..CANDIDATES).map(|_| weighted(&good, rng)).max_by(|a, b| ratio(a).total_cmp(&ratio(b)));
    values[best.unwrap_or(0)].clone()
}

/// An index drawn with these probabilities.
fn weighted(shares: &[f64], rng: &mut StreamRng) -> usize {
    let mut left = rng.uniform_f64() * shares.iter().sum::<f64>();
    for (i, share) in shares.iter().enumerate() {
        left -= share;
        if left < 0.0 {
            return i;
        }
    }
    shares.len() - 1
}

/// Normal kernels of equal weight on an interval, each cut at its ends.
struct Mixture {
    /// Centre and width.
    kernels: Vec<(f64, f64)>,
    low: f64,
    high: f64,
}

impl Mixture {
    fn new(mut centres: Vec<f64>, low: f64, high: f64) -> Self {
        centres.sort_by(f64::total_cmp);
        let middle = (low + high) / 2.0;
        let prior = centres.partition_point(|centre| *centre < middle);
        centres.insert(prior, middle);
        let range = high - low;
        let narrowest = range / (1.0 + centres.len() as f64).min(100.0);
        let width = |i: usize| {
            let left = if i == 0 { low } else { centres[i - 1] };
            let right = centres.get(i + 1).copied().unwrap_or(high);
            (centres[i] - left).max(right - centres[i]).clamp(narrowest, range)
        };
        let kernels = (0..centres.len()).map(|i| (centres[i], if i == prior { range } else { width(i) })).collect();
        Self { kernels, low, high }
    }

    fn draw(&self, rng: &mut StreamRng) -> f64 {
        let (centre, width) = self.kernels[rng.below(self.kernels.len() as u32) as usize];
        loop {
            let x = centre + width * f64::from(rng.normal());
            if (self.low..=self.high).contains(&x) {
                return x;
            }
        }
    }

    fn log_density(&self, x: f64) -> f64 {
        let kernel = |(centre, width): &(f64, f64)| {
            let z = (x - centre) / width;
            let inside = normal_cdf((self.high - centre) / width) - normal_cdf((self.low - centre) / width);
            (-0.5 * z * z).exp() / (width * inside)
        };
        self.kernels.iter().map(kernel).sum::<f64>().max(f64::MIN_POSITIVE).ln()
    }
}

fn normal_cdf(z: f64) -> f64 {
    0.5 * libm::erfc(-z / std::f64::consts::SQRT_2)
}
