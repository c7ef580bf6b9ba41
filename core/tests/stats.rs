//! Statistics against values of the Python package rliable 1.2.0 (numpy 2.4.6, scipy 1.17.1): normal scores of seven
//! runs on three tasks, intervals from 50,000 resamples.

use hotfire_core::stats::{
    Interval, bootstrap, interquartile_mean, interquartile_mean_interval, mean, optimality_gap, performance_profile,
    probability_of_improvement, quantile,
};
use serde_json::Value;

fn reference() -> Value {
    serde_json::from_str(&std::fs::read_to_string("tests/rliable.json").unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

/// The reference's `[run][task]` as `[task][run]`.
fn by_task(value: &Value) -> Vec<Vec<f64>> {
    let runs: Vec<Vec<f64>> = value.as_array().unwrap().iter().map(numbers).collect();
    (0..runs[0].len()).map(|task| runs.iter().map(|run| run[task]).collect()).collect()
}

fn close(a: f64, b: &Value) {
    let b = b.as_f64().unwrap();
    assert!((a - b).abs() < 1e-9 * b.abs().max(1.0), "{a} is not {b}");
}

#[test]
fn point_estimates_equal_the_reference() {
    let reference = reference();
    let thresholds = numbers(&reference["taus"]);
    for name in ["a", "b"] {
        let tasks = by_task(&reference[name]);
        let all = tasks.concat();
        let at = |key: &str| &reference[format!("{name}_{key}")];
        close(interquartile_mean(&all), at("iqm"));
        close(mean(&all), at("mean"));
        close(quantile(&tasks.iter().map(|task| mean(task)).collect::<Vec<_>>(), 0.5), at("median"));
        close(optimality_gap(&all, 220.0), at("gap"));
        let profile = performance_profile(&all, &thresholds);
        profile.iter().zip(at("profile").as_array().unwrap()).for_each(|(a, b)| close(*a, b));
    }
    let (a, b) = (by_task(&reference["a"]), by_task(&reference["b"]));
    let improvement: Vec<f64> = a.iter().zip(&b).map(|(x, y)| probability_of_improvement(x, y)).collect();
    close(mean(&improvement), &reference["improve_a_b"]);
}

#[test]
fn intervals_agree_with_the_reference_up_to_resampling() {
    let reference = reference();
    for name in ["a", "b"] {
        let tasks = by_task(&reference[name]);
        let gap = bootstrap(&tasks, 5_000, 1, |sample| optimality_gap(&sample.concat(), 220.0));
        for (index, found) in [(0, interquartile_mean_interval(&tasks, 1)), (1, gap)] {
            let ends =
                [&reference["ci"][name][0][index], &reference["ci"][name][1][index]].map(|x| x.as_f64().unwrap());
            let width = ends[1] - ends[0];
            let near = |a: f64, b: f64| (a - b).abs() < 0.05 * width;
            assert!(near(found.low, ends[0]) && near(found.high, ends[1]), "{found:?} is far from {ends:?}");
        }
    }
}

#[test]
fn the_bootstrap_repeats_and_stays_within_a_task() {
    let scores = [vec![1.0, 1.0, 1.0], vec![5.0, 5.0]];
    let found = bootstrap(&scores, 200, 3, |sample| mean(&sample.concat()));
    assert_eq!(found, Interval { estimate: 2.6, low: 2.6, high: 2.6 }, "no task borrows another's runs");
    let scores = [vec![1.0, 2.0, 4.0, 8.0, 16.0]];
    let once = interquartile_mean_interval(&scores, 7);
    assert_eq!(once, interquartile_mean_interval(&scores, 7));
    assert!(once.low < once.estimate && once.estimate < once.high);
}

#[test]
fn small_samples() {
    assert_eq!(interquartile_mean(&[3.0]), 3.0);
    assert_eq!(interquartile_mean(&[1.0, 2.0, 3.0, 100.0]), 2.5);
    assert_eq!(quantile(&[4.0, 1.0], 0.25), 1.75);
    assert_eq!(probability_of_improvement(&[1.0, 2.0], &[1.0]), 0.75);
}
