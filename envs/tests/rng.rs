//! `NpRng` against numpy 2.4.6.

mod common;

use hotfire_envs::{NpRng, StateReader, StateWriter};
use proptest::prelude::*;
use serde_json::Value;

fn seed(record: &Value) -> NpRng {
    NpRng::seed_u128(record["seed"].as_str().expect("a seed").parse().expect("a seed of at most 128 bits"))
}

fn floats(list: &Value) -> Vec<f64> {
    list.as_array().expect("a list").iter().map(|x| x.as_f64().expect("a number")).collect()
}

fn integers(list: &Value) -> Vec<i64> {
    list.as_array().expect("a list").iter().map(|x| x.as_i64().expect("an integer")).collect()
}

#[test]
fn draws_equal_numpys() {
    let records = common::read_kinds("numpy_rng.jsonl", &["rng"]);
    assert_eq!(records.len(), 10);
    for record in &records {
        let what = format!("seed {}", record["seed"]);
        let mut rng = seed(record);
        let raw: Vec<u64> = record["raw_u64"].as_array().unwrap().iter().map(number).collect();
        assert_eq!(raw, raw.iter().map(|_| rng.next_u64()).collect::<Vec<_>>(), "{what}");

        let same = |key: &str, draw: fn(&mut NpRng) -> f64| {
            let (expected, mut rng) = (floats(&record[key]), seed(record));
            assert_eq!(expected, expected.iter().map(|_| draw(&mut rng)).collect::<Vec<_>>(), "{what}, {key}");
        };
        same("random", NpRng::random);
        same("uniform_-0.05_0.05_x4", |rng| rng.uniform(-0.05, 0.05));
        same("standard_normal_x6", NpRng::normal);
        same("standard_exponential_x6", NpRng::exponential);

        let same = |key: &str, low: i64, high: i64| {
            let (expected, mut rng) = (integers(&record[key]), seed(record));
            let found: Vec<_> = expected.iter().map(|_| rng.integers(low, high)).collect();
            assert_eq!(expected, found, "{what}, {key}");
        };
        same("integers_0_13_x12", 0, 13);
        same("integers_scalar_0_13_x6", 0, 13);
        same("integers_-9999_9999_x4", -9999, 9999);
        same("integers_0_2pow40_x4", 0, 1 << 40);

        let mut items: Vec<i64> = (0..10).collect();
        seed(record).shuffle(&mut items);
        assert_eq!(integers(&record["permutation_10"]), items, "{what}");

        let mut rng = seed(record);
        let mixed = [
            rng.integers(0, 13) as f64,
            rng.random(),
            rng.integers(0, 13) as f64,
            rng.integers(0, 13) as f64,
            rng.integers(5, 1 << 40) as f64,
            rng.integers(0, 3) as f64,
        ];
        assert_eq!(floats(&record["mixed"]), mixed, "{what}");
    }
}

/// A JSON integer or a decimal string.
fn number(x: &Value) -> u64 {
    x.as_str().map_or_else(|| x.as_u64().expect("an integer"), |x| x.parse().expect("an integer"))
}

/// Sums over long runs of `numpy.random.default_rng(5)`: they reach the tails, wedges and rejections that a few draws
/// miss.
#[test]
fn long_runs_equal_numpys() {
    let mut rng = NpRng::seed(5);
    assert_eq!((0..200_000).map(|_| rng.normal()).sum::<f64>(), 365.9578149829071);
    let mut rng = NpRng::seed(5);
    assert_eq!((0..200_000).map(|_| rng.exponential()).sum::<f64>(), 199670.62565014212);

    let mut rng = NpRng::seed(5);
    assert_eq!((0..20_000).map(|_| rng.integers(0, 3 << 30)).sum::<i64>(), 32_182_757_827_051);
    let wide: i128 = (0..2_000).map(|_| i128::from(rng.integers(-(1 << 62), (1 << 62) + (1 << 61)))).sum();
    assert_eq!(wide, 2_225_455_756_551_464_145_947);
    assert_eq!(rng.integers(0, 1 << 32), 2_246_149_357);
    assert_eq!(rng.integers(i64::MIN, i64::MAX), 5_707_589_284_973_973_393);
}

#[test]
fn an_empty_range_draws_nothing() {
    let mut rng = NpRng::seed(1);
    assert_eq!((rng.integers(4, 4), rng.integers(4, 5), rng.integers(4, -4)), (4, 4, 4));
    assert_eq!(rng, NpRng::seed(1));
}

#[test]
fn damaged_states_are_refused() {
    let mut to = StateWriter::default();
    NpRng::seed(1).save_state(&mut to);
    let bytes = to.into_bytes();
    for cut in 0..bytes.len() {
        assert!(NpRng::seed(2).load_state(&mut StateReader::new(&bytes[..cut])).is_err(), "{cut} bytes");
    }
    let mut even = bytes.clone();
    even[16] &= !1;
    assert!(NpRng::seed(2).load_state(&mut StateReader::new(&even)).is_err());
}

proptest! {
    #[test]
    fn a_saved_generator_goes_on(seed: u128, draws in proptest::collection::vec(0..4u8, 0..20)) {
        let draw = |rng: &mut NpRng, kind: u8| match kind {
            0 => rng.random(),
            1 => rng.integers(0, 7) as f64,
            2 => rng.normal(),
            _ => rng.integers(0, 1 << 50) as f64,
        };
        let mut rng = NpRng::seed_u128(seed);
        for kind in &draws {
            draw(&mut rng, *kind);
        }
        let mut to = StateWriter::default();
        rng.save_state(&mut to);
        let mut loaded = NpRng::seed(0);
        loaded.load_state(&mut StateReader::new(&to.into_bytes())).unwrap();
        for kind in draws {
            prop_assert_eq!(draw(&mut rng, kind), draw(&mut loaded, kind));
        }
        prop_assert_eq!(rng, loaded);
    }

    #[test]
    fn integers_stay_in_range(seed: u64, low: i64, high: i64) {
        prop_assume!(low < high);
        let x = NpRng::seed(seed).integers(low, high);
        prop_assert!((low..high).contains(&x));
    }
}
