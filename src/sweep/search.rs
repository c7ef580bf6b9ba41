//! Choosing configurations: grid, random draws, and the tree-structured Parzen estimator (TPE).
//!
//! TPE is that of Bergstra et al. 2011, "Algorithms for hyper-parameter optimization", over all keys jointly (Falkner et
//! al. 2018, "BOHB"), with the choices of Optuna's default sampler: ten random configurations first; the best tenth, at
//! most 25, as the good group; 24 candidates drawn from the good group's density, of which the one with the highest
//! ratio of the densities wins. A density is a mixture of one kernel a configuration, old ones weighing less, and a wide
//! one as the prior. A kernel is a product: of normals cut at the ends of the interval, as wide as the larger distance
//! to a neighbour, and of shares for categories. Configurations that still run count as bad ones, so that several at
//! once are not all alike.

use std::collections::BTreeMap;

use hotfire_core::seed::{StreamRng, stream};
use toml::Value;

use super::file::{Assignment, Distribution, Method, Search};

const STARTUP_TRIALS: usize = 10;
const CANDIDATES: usize = 24;
const LARGEST_GOOD_GROUP: usize = 25;
/// So many of the newest configurations have full weight.
const FULL_WEIGHT: usize = 25;

const SQRT_2PI: f64 = 2.506_628_274_631_000_5;

/// What is searched over.
pub type Space = BTreeMap<String, Distribution>;

/// What is known of the configurations before the next; only TPE looks at it.
#[derive(Default)]
pub struct History {
    /// Those that were measured, oldest first, with scores of which more is better.
    pub measured: Vec<(Assignment, f64)>,
    /// Those that still run.
    pub running: Vec<Assignment>,
}

/// The configuration `index`.
pub fn propose(search: &Search, space: &Space, index: usize, history: &History) -> Assignment {
    let mut rng = stream(search.seed, "search", index as u64);
    match search.method {
        Method::Grid => grid_point(space, index),
        Method::Tpe if history.measured.len() >= STARTUP_TRIALS => parzen(space, history, &mut rng),
        Method::Random | Method::Tpe => {
            let draw = |(key, distribution): (&String, &Distribution)| {
                let at = Component::prior(distribution).draw(&mut rng, true);
                (key.clone(), to_value(distribution, at))
            };
            space.iter().map(draw).collect()
        }
    }
}

/// The last key varies fastest.
fn grid_point(space: &Space, mut index: usize) -> Assignment {
    let mut point = Assignment::new();
    for (key, distribution) in space.iter().rev() {
        if let Distribution::Values(values) = distribution {
            point.insert(key.clone(), values[index % values.len()].clone());
            index /= values.len();
        }
    }
    point
}

fn parzen(space: &Space, history: &History, rng: &mut StreamRng) -> Assignment {
    let mut order: Vec<usize> = (0..history.measured.len()).collect();
    order.sort_by(|a, b| history.measured[*b].1.total_cmp(&history.measured[*a].1));
    let size = order.len().div_ceil(10).min(LARGEST_GOOD_GROUP);
    let (good, rest) = order.split_at_mut(size);
    // Within a group the age counts.
    good.sort_unstable();
    rest.sort_unstable();
    let group = |indices: &[usize]| -> Vec<&Assignment> { indices.iter().map(|i| &history.measured[*i].0).collect() };
    let mut rest = group(rest);
    rest.extend(&history.running);
    let (good, rest) = (Density::new(space, &group(good)), Density::new(space, &rest));
    let candidates = (0..CANDIDATES).map(|_| good.draw(rng)).map(|point| {
        let ratio = good.log_density(&point) - rest.log_density(&point);
        (point, ratio)
    });
    let best = candidates.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(point, _)| point).unwrap_or_default();
    space.iter().zip(best).map(|((key, distribution), at)| (key.clone(), to_value(distribution, at))).collect()
}

/// Where a key's values lie: logarithms of a log-uniform one, the place in the list of a category.
fn from_value(distribution: &Distribution, value: &Value) -> Option<f64> {
    let number = value.as_float().or(value.as_integer().map(|x| x as f64));
    match distribution {
        Distribution::Values(values) => values.iter().position(|known| known == value).map(|i| i as f64),
        Distribution::LogUniform(..) => number.map(f64::ln),
        Distribution::Uniform(..) | Distribution::Int(..) => number,
    }
    .filter(|at| at.is_finite())
}

fn to_value(distribution: &Distribution, at: f64) -> Value {
    match distribution {
        Distribution::Values(values) => values[(at as usize).min(values.len() - 1)].clone(),
        Distribution::LogUniform(low, high) => Value::Float(at.exp().clamp(*low, *high)),
        Distribution::Int(low, high) => Value::Integer((at as i64).clamp(*low, *high)),
        Distribution::Uniform(..) => Value::Float(at),
    }
}

/// One key's part of a kernel.
#[derive(Clone)]
enum Component {
    /// A normal, cut at the ends.
    Real { centre: f64, width: f64, low: f64, high: f64 },
    /// A normal rounded to integers; its ends lie half a step outside, so that all integers are treated alike.
    Whole { centre: f64, width: f64, low: f64, high: f64 },
    /// The probability of each category.
    Shares(Vec<f64>),
}

impl Component {
    /// What is known of a key before anything was measured.
    fn prior(distribution: &Distribution) -> Self {
        let middle = |low: f64, high: f64| ((low + high) / 2.0, high - low);
        match distribution {
            Distribution::Values(values) => Self::Shares(vec![1.0 / values.len() as f64; values.len()]),
            Distribution::Int(low, high) => {
                let (low, high) = (*low as f64 - 0.5, *high as f64 + 0.5);
                let (centre, width) = middle(low, high);
                Self::Whole { centre, width, low, high }
            }
            Distribution::Uniform(low, high) => {
                let (centre, width) = middle(*low, *high);
                Self::Real { centre, width, low: *low, high: *high }
            }
            Distribution::LogUniform(low, high) => {
                let (low, high) = (low.ln(), high.ln());
                let (centre, width) = middle(low, high);
                Self::Real { centre, width, low, high }
            }
        }
    }

    /// The same around an observation.
    fn around(&self, at: f64, width: f64, kernels: usize) -> Self {
        match self {
            Self::Real { low, high, .. } => Self::Real { centre: at, width, low: *low, high: *high },
            Self::Whole { low, high, .. } => Self::Whole { centre: at, width, low: *low, high: *high },
            Self::Shares(shares) => {
                // The prior's one count is split between the kernels.
                let prior = 1.0 / kernels as f64;
                let total = 1.0 + prior * shares.len() as f64;
                let share = |i| (prior + f64::from(u8::from(i == at as usize))) / total;
                Self::Shares((0..shares.len()).map(share).collect())
            }
        }
    }

    /// `flat` draws evenly over the interval.
    fn draw(&self, rng: &mut StreamRng, flat: bool) -> f64 {
        match self {
            Self::Shares(shares) => weighted(shares, rng) as f64,
            Self::Real { low, high, .. } if flat => low + (high - low) * rng.uniform_f64(),
            Self::Whole { low, high, .. } if flat => (low + (high - low) * rng.uniform_f64()).round().min(high - 0.5),
            Self::Real { centre, width, low, high } => normal_within(*centre, *width, *low, *high, rng),
            Self::Whole { centre, width, low, high } => {
                normal_within(*centre, *width, *low, *high, rng).round().clamp(low + 0.5, high - 0.5)
            }
        }
    }

    fn log_density(&self, at: f64) -> f64 {
        let between = |a: f64, b: f64, centre: f64, width: f64| {
            (normal_cdf((b - centre) / width) - normal_cdf((a - centre) / width)).max(f64::MIN_POSITIVE)
        };
        match self {
            Self::Shares(shares) => shares[at as usize].ln(),
            Self::Real { centre, width, low, high } => {
                let z = (at - centre) / width;
                -0.5 * z * z - (width * SQRT_2PI * between(*low, *high, *centre, *width)).ln()
            }
            Self::Whole { centre, width, low, high } => {
                (between(at - 0.5, at + 0.5, *centre, *width) / between(*low, *high, *centre, *width)).ln()
            }
        }
    }
}

/// A mixture of kernels over all keys.
struct Density {
    kernels: Vec<Vec<Component>>,
    weights: Vec<f64>,
}

impl Density {
    fn new(space: &Space, observed: &[&Assignment]) -> Self {
        let place = |assignment: &&Assignment| -> Option<Vec<f64>> {
            space.iter().map(|(key, distribution)| from_value(distribution, assignment.get(key)?)).collect()
        };
        let points: Vec<Vec<f64>> = observed.iter().filter_map(place).collect();
        let prior: Vec<Component> = space.values().map(Component::prior).collect();
        let widths: Vec<Vec<f64>> = (0..prior.len())
            .map(|key| match &prior[key] {
                Component::Shares(_) => vec![0.0; points.len()],
                Component::Real { low, high, .. } | Component::Whole { low, high, .. } => {
                    widths(&points.iter().map(|point| point[key]).collect::<Vec<_>>(), *low, *high)
                }
            })
            .collect();
        let count = points.len() + 1;
        let kernel = |(i, point): (usize, &Vec<f64>)| -> Vec<Component> {
            prior.iter().enumerate().map(|(key, c)| c.around(point[key], widths[key][i], count)).collect()
        };
        let mut kernels: Vec<Vec<Component>> = points.iter().enumerate().map(kernel).collect();
        let mut weights = weights(points.len());
        kernels.push(prior);
        weights.push(1.0);
        let total: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|weight| *weight /= total);
        Self { kernels, weights }
    }

    fn draw(&self, rng: &mut StreamRng) -> Vec<f64> {
        self.kernels[weighted(&self.weights, rng)].iter().map(|component| component.draw(rng, false)).collect()
    }

    fn log_density(&self, point: &[f64]) -> f64 {
        let kernel = |(kernel, weight): (&Vec<Component>, &f64)| {
            weight.ln() + kernel.iter().zip(point).map(|(component, at)| component.log_density(*at)).sum::<f64>()
        };
        let terms: Vec<f64> = self.kernels.iter().zip(&self.weights).map(kernel).collect();
        let largest = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        largest + terms.iter().map(|term| (term - largest).exp()).sum::<f64>().ln()
    }
}

/// A linear rise with age, then full weight; oldest first.
fn weights(count: usize) -> Vec<f64> {
    let rising = count.saturating_sub(FULL_WEIGHT);
    let first = 1.0 / count.max(1) as f64;
    let rise = |i: usize| first + (1.0 - first) * i as f64 / (rising.max(2) - 1) as f64;
    (0..count).map(|i| if i < rising { rise(i) } else { 1.0 }).collect()
}

/// The larger distance of each centre to a neighbour; the outermost have one neighbour, one alone the ends.
fn widths(centres: &[f64], low: f64, high: f64) -> Vec<f64> {
    let range = high - low;
    let narrowest = range / (2.0 + centres.len() as f64).min(100.0);
    let mut order: Vec<usize> = (0..centres.len()).collect();
    order.sort_by(|a, b| centres[*a].total_cmp(&centres[*b]));
    let mut widths = vec![range; centres.len()];
    for (rank, i) in order.iter().enumerate() {
        let before = rank.checked_sub(1).map(|rank| centres[*i] - centres[order[rank]]);
        let after = order.get(rank + 1).map(|next| centres[*next] - centres[*i]);
        let width = match (before, after) {
            (None, None) => (centres[*i] - low).max(high - centres[*i]),
            (before, after) => before.unwrap_or(0.0).max(after.unwrap_or(0.0)),
        };
        widths[*i] = width.clamp(narrowest, range);
    }
    widths
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

fn normal_within(centre: f64, width: f64, low: f64, high: f64, rng: &mut StreamRng) -> f64 {
    loop {
        // The centre lies within, and the width is at most the range: a third of the draws or more do.
        let x = centre + width * f64::from(rng.normal());
        if (low..=high).contains(&x) {
            return x;
        }
    }
}

fn normal_cdf(z: f64) -> f64 {
    0.5 * libm::erfc(-z / std::f64::consts::SQRT_2)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Problem {
        name: &'static str,
        space: Vec<(&'static str, Distribution)>,
        loss: fn(&Assignment) -> f64,
    }

    fn at(point: &Assignment, key: &str) -> f64 {
        point[key].as_float().or(point[key].as_integer().map(|x| x as f64)).unwrap()
    }

    fn problems() -> Vec<Problem> {
        use Distribution::{Int, LogUniform, Uniform, Values};
        let cube = |n: usize, low: f64, high: f64| {
            let names = ["x0", "x1", "x2", "x3", "x4", "x5"];
            names[..n].iter().map(|name| (*name, Uniform(low, high))).collect()
        };
        let activations = ["tanh", "relu", "gelu"].map(|name| Value::String(name.into())).to_vec();
        vec![
            Problem {
                name: "sphere (5)",
                space: cube(5, -5.0, 5.0),
                loss: |p| p.keys().map(|k| at(p, k).powi(2)).sum(),
            },
            Problem {
                name: "Branin (2)",
                space: vec![("x0", Uniform(-5.0, 10.0)), ("x1", Uniform(0.0, 15.0))],
                loss: |p| branin(at(p, "x0"), at(p, "x1")),
            },
            Problem { name: "Hartmann (6)", space: cube(6, 0.0, 1.0), loss: hartmann6 },
            Problem {
                name: "mixed (4)",
                space: vec![
                    ("activation", Values(activations)),
                    ("layers", Int(1, 8)),
                    ("learning_rate", LogUniform(1e-6, 1.0)),
                    ("momentum", Uniform(0.0, 1.0)),
                ],
                loss: |p| {
                    let penalty = match p["activation"].as_str() {
                        Some("tanh") => 0.0,
                        Some("relu") => 0.3,
                        _ => 1.0,
                    };
                    let rate = (at(p, "learning_rate") / 3e-3).log10();
                    let slow = at(p, "momentum") - 0.9;
                    rate.powi(2) + penalty + 0.1 * (at(p, "layers") - 3.0).powi(2) + 4.0 * slow.powi(2)
                },
            },
        ]
    }

    fn branin(x: f64, y: f64) -> f64 {
        use std::f64::consts::PI;
        let curve = y - 5.1 / (4.0 * PI * PI) * x * x + 5.0 / PI * x - 6.0;
        curve.powi(2) + 10.0 * (1.0 - 1.0 / (8.0 * PI)) * x.cos() + 10.0
    }

    fn hartmann6(point: &Assignment) -> f64 {
        const HEIGHT: [f64; 4] = [1.0, 1.2, 3.0, 3.2];
        const STEEP: [[f64; 6]; 4] = [
            [10.0, 3.0, 17.0, 3.5, 1.7, 8.0],
            [0.05, 10.0, 17.0, 0.1, 8.0, 14.0],
            [3.0, 3.5, 1.7, 10.0, 17.0, 8.0],
            [17.0, 8.0, 0.05, 10.0, 0.1, 14.0],
        ];
        const PLACE: [[f64; 6]; 4] = [
            [0.1312, 0.1696, 0.5569, 0.0124, 0.8283, 0.5886],
            [0.2329, 0.4135, 0.8307, 0.3736, 0.1004, 0.9991],
            [0.2348, 0.1451, 0.3522, 0.2883, 0.3047, 0.6650],
            [0.4047, 0.8828, 0.8732, 0.5743, 0.1091, 0.0381],
        ];
        let x: Vec<f64> = point.keys().map(|key| at(point, key)).collect();
        let well = |i: usize| {
            let distance: f64 = (0..6).map(|j| STEEP[i][j] * (x[j] - PLACE[i][j]).powi(2)).sum();
            HEIGHT[i] * (-distance).exp()
        };
        -(0..4).map(well).sum::<f64>()
    }

    /// The best loss after each of `trials` configurations.
    fn run(problem: &Problem, method: Method, seed: u64, trials: usize) -> Vec<f64> {
        let search = Search { method, seed, ..Search::default() };
        let space: Space = problem.space.iter().map(|(key, d)| ((*key).to_owned(), d.clone())).collect();
        let mut history = History::default();
        let mut best = f64::INFINITY;
        (0..trials)
            .map(|index| {
                let point = propose(&search, &space, index, &history);
                let loss = (problem.loss)(&point);
                history.measured.push((point, -loss));
                best = best.min(loss);
                best
            })
            .collect()
    }

    /// Prints the best losses, too: `bench/peers/search.py` sets both variables and runs Optuna beside it.
    #[test]
    fn the_estimator_beats_random_draws_on_every_problem() {
        let setting = |name, otherwise| std::env::var(name).map_or(otherwise, |text| text.parse().unwrap());
        let (seeds, trials) = (setting("HOTFIRE_SEARCH_SEEDS", 11), setting("HOTFIRE_SEARCH_TRIALS", 60));
        for problem in problems() {
            let [random, tpe] = [("random", Method::Random), ("tpe", Method::Tpe)].map(|(name, method)| {
                let last = |seed: usize| {
                    let best = run(&problem, method, seed as u64, trials);
                    println!("{}", serde_json::json!({"problem": problem.name, "method": name, "best": best}));
                    *best.last().unwrap()
                };
                hotfire_core::stats::quantile(&(0..seeds).map(last).collect::<Vec<_>>(), 0.5)
            });
            assert!(tpe < random, "{}: {tpe} against {random}", problem.name);
        }
    }

    #[test]
    fn proposals_are_in_the_space_and_the_same_each_time() {
        for problem in problems() {
            assert_eq!(run(&problem, Method::Tpe, 3, 40), run(&problem, Method::Tpe, 3, 40));
        }
        let mixed = &problems()[3];
        let space: Space = mixed.space.iter().map(|(key, d)| ((*key).to_owned(), d.clone())).collect();
        let search = Search { method: Method::Tpe, ..Search::default() };
        let mut history = History::default();
        for index in 0..60 {
            let point = propose(&search, &space, index, &history);
            assert!((1e-6..=1.0).contains(&at(&point, "learning_rate")), "{point:?}");
            assert!((0.0..=1.0).contains(&at(&point, "momentum")), "{point:?}");
            assert!((1..=8).contains(&point["layers"].as_integer().unwrap()), "{point:?}");
            assert!(["tanh", "relu", "gelu"].contains(&point["activation"].as_str().unwrap()), "{point:?}");
            let loss = (mixed.loss)(&point);
            history.measured.push((point, -loss));
        }
    }

    #[test]
    fn configurations_that_run_are_kept_away_from() {
        let space = Space::from([("x".to_owned(), Distribution::Uniform(0.0, 1.0))]);
        let point = |x: f64| Assignment::from([("x".to_owned(), Value::Float(x))]);
        let measured: Vec<_> = (0..20).map(|i| f64::from(i) / 19.0).map(|x| (point(x), -(x - 0.5).abs())).collect();
        let search = Search { method: Method::Tpe, ..Search::default() };
        let mean_distance = |running: Vec<Assignment>| -> f64 {
            let history = History { measured: measured.clone(), running };
            (100..140).map(|i| (at(&propose(&search, &space, i, &history), "x") - 0.5).abs()).sum::<f64>() / 40.0
        };
        let (alone, crowded) = (mean_distance(Vec::new()), mean_distance(vec![point(0.5); 12]));
        assert!(crowded > 1.5 * alone, "{crowded} against {alone}");
    }

    #[test]
    fn a_density_integrates_to_one() {
        let space = Space::from([
            ("n".to_owned(), Distribution::Int(1, 4)),
            ("x".to_owned(), Distribution::LogUniform(0.1, 10.0)),
        ]);
        let point =
            |n: i64, x: f64| Assignment::from([("n".to_owned(), Value::Integer(n)), ("x".to_owned(), Value::Float(x))]);
        let points = [point(1, 0.1), point(3, 2.0), point(3, 9.0)];
        let density = Density::new(&space, &points.iter().collect::<Vec<_>>());
        let (low, high, cells) = (0.1_f64.ln(), 10.0_f64.ln(), 2000);
        let step = (high - low) / f64::from(cells);
        let x = |i: i32| low + (f64::from(i) + 0.5) * step;
        let total: f64 = (1..=4)
            .flat_map(|n| (0..cells).map(move |i| (n, i)))
            .map(|(n, i)| density.log_density(&[f64::from(n), x(i)]).exp() * step)
            .sum();
        assert!((total - 1.0).abs() < 1e-6, "{total}");
    }
}
