//! Whether two sets of timings differ by more than noise.

use hotfire_core::stats::{Interval, bootstrap, quantile};
use serde::Serialize;

const RESAMPLES: usize = 2_000;

/// What a difference of two sets of rates says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The new rates are higher: the whole interval of the ratio lies above the tolerance.
    Faster,
    /// The new rates are lower.
    Slower,
    /// The interval reaches into the tolerance: no difference is shown, which does not say that there is none.
    NoDifference,
}

/// How the two sides were measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Design {
    /// One after the other: each side's samples are drawn by themselves.
    Separate,
    /// In turn, a sample of each side a round: rounds are drawn, so that what disturbs a whole round disturbs both.
    Alternating,
}

/// The ratio of the medians with its 95 % bootstrap interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// New over old.
    pub ratio: Interval,
    /// What it says.
    pub verdict: Verdict,
}

/// Compares rates, of which more is better. Ratios within `tolerance` of 1 count as no difference.
///
/// # Panics
/// If a side has no rates, or alternating sides have not equally many.
pub fn compare(old: &[f64], new: &[f64], design: Design, tolerance: f64) -> Comparison {
    assert!(!old.is_empty() && !new.is_empty(), "both sides have samples");
    let ratio = match design {
        Design::Separate => {
            bootstrap(&[old.to_vec(), new.to_vec()], RESAMPLES, 0, |sample| median(&sample[1]) / median(&sample[0]))
        }
        Design::Alternating => {
            assert_eq!(old.len(), new.len(), "a sample of each side a round");
            let rounds: Vec<f64> = (0..old.len()).map(|round| round as f64).collect();
            bootstrap(&[rounds], RESAMPLES, 0, |drawn| {
                let pick = |side: &[f64]| drawn[0].iter().map(|round| side[*round as usize]).collect::<Vec<_>>();
                median(&pick(new)) / median(&pick(old))
            })
        }
    };
    Comparison { ratio, verdict: verdict(ratio, tolerance) }
}

/// What an interval of a ratio says.
pub fn verdict(ratio: Interval, tolerance: f64) -> Verdict {
    if ratio.low > 1.0 + tolerance {
        Verdict::Faster
    } else if ratio.high < 1.0 / (1.0 + tolerance) {
        Verdict::Slower
    } else {
        Verdict::NoDifference
    }
}

/// The middle of the rates.
pub fn median(rates: &[f64]) -> f64 {
    quantile(rates, 0.5)
}

#[cfg(test)]
mod tests {
    use hotfire_core::seed::stream;

    use super::*;

    /// Rates around `level` with a spread of 3 %, and a burst that halves every sixth.
    fn noisy(level: f64, count: usize, seed: u64) -> Vec<f64> {
        let mut rng = stream(seed, "noise", 0);
        (0..count)
            .map(|i| level * (1.0 + 0.03 * f64::from(rng.normal())) * if i % 6 == 3 { 0.5 } else { 1.0 })
            .collect()
    }

    #[test]
    fn verdicts_on_noisy_samples() {
        let old = noisy(100.0, 12, 0);
        let of = |level: f64, seed| compare(&old, &noisy(level, 12, seed), Design::Separate, 0.02).verdict;
        for seed in 1..20 {
            assert_eq!(of(100.0, seed), Verdict::NoDifference, "seed {seed}");
            assert_eq!(of(130.0, seed), Verdict::Faster, "seed {seed}");
            assert_eq!(of(75.0, seed), Verdict::Slower, "seed {seed}");
        }
    }

    #[test]
    fn a_small_difference_that_is_certain_is_still_within_the_tolerance() {
        let (old, new) = (vec![100.0; 10], vec![101.0; 10]);
        let comparison = compare(&old, &new, Design::Separate, 0.02);
        assert_eq!((comparison.ratio.low, comparison.ratio.high), (1.01, 1.01));
        assert_eq!(comparison.verdict, Verdict::NoDifference);
        assert_eq!(compare(&old, &new, Design::Separate, 0.0).verdict, Verdict::Faster);
    }

    #[test]
    fn the_tolerance_is_the_same_factor_both_ways() {
        let at = |x| Interval { estimate: x, low: x, high: x };
        assert_eq!(verdict(at(1.25 + 1e-9), 0.25), Verdict::Faster);
        assert_eq!(verdict(at(0.8 - 1e-9), 0.25), Verdict::Slower);
        assert_eq!(verdict(at(1.25), 0.25), Verdict::NoDifference);
        assert_eq!(verdict(at(0.8), 0.25), Verdict::NoDifference);
    }

    #[test]
    fn alternating_rounds_take_out_what_slows_both_sides() {
        // The machine gets slower from round to round by far more than the difference of 8 %.
        let drift: Vec<f64> = (0..12).map(|round| 100.0 / (1.0 + 0.2 * f64::from(round))).collect();
        let new: Vec<f64> = drift.iter().map(|rate| rate * 1.08).collect();
        let separate = compare(&drift, &new, Design::Separate, 0.02);
        let alternating = compare(&drift, &new, Design::Alternating, 0.02);
        assert_eq!(separate.verdict, Verdict::NoDifference);
        assert_eq!(alternating.verdict, Verdict::Faster);
        assert!((alternating.ratio.estimate - 1.08).abs() < 1e-9);
    }
}
