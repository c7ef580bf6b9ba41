//! The arithmetic that a simulator's dynamics are stated over: double precision for the scalar reference, single
//! precision for the batch steppers.
//!
//! One generic function serves both. In `f64` every operation is the one the reference performs, in its order, so
//! results are equal bit for bit; in `f32` the expensive ones are replaced by forms that a compiler vectorises without
//! hardware beyond SSE2 (no fused multiply-add, no rounding instruction), so every vector width gives the same bits.

use std::f64::consts::PI;
use std::ops::{Add, Mul, Neg, Sub};

/// A real number that dynamics can be stated over.
pub(crate) trait Real:
    Copy + PartialOrd + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Neg<Output = Self>
{
    /// A constant of the model, rounded to this precision.
    fn of(value: f64) -> Self;

    /// A single-precision quantity of the reference, widened exactly.
    fn single(value: f32) -> Self;

    /// Quotient of two variables.
    fn over(self, divisor: Self) -> Self;

    /// Quotient with a constant: a division in `f64`, a product with the reciprocal in `f32`.
    fn over_const(self, divisor: f64) -> Self;

    /// Sine and cosine.
    fn sin_cos(self) -> (Self, Self);

    /// Sine.
    fn sin(self) -> Self {
        self.sin_cos().0
    }

    /// Cosine.
    fn cos(self) -> Self {
        self.sin_cos().1
    }

    /// The number if it lies in `[low, high]`, else the nearer bound.
    fn clip(self, low: f64, high: f64) -> Self;

    /// Magnitude.
    fn abs(self) -> Self;

    /// Square root.
    fn sqrt(self) -> Self;

    /// Length of the vector of the two.
    fn hypot(self, other: Self) -> Self;

    /// e to this power.
    fn exp(self) -> Self;

    /// This positive number to a power.
    fn powf(self, exponent: f64) -> Self;

    /// The larger one.
    fn max(self, other: Self) -> Self;

    /// The angle in `[-pi, pi)` as Python's `(x + pi) % (2 pi) - pi` computes it.
    fn normalized_angle(self) -> Self;

    /// The angle in `[-pi, pi]` by adding or subtracting full turns one at a time.
    fn unwound_angle(self) -> Self;
}

impl Real for f64 {
    #[inline(always)]
    fn of(value: f64) -> Self {
        value
    }

    #[inline(always)]
    fn single(value: f32) -> Self {
        f64::from(value)
    }

    #[inline(always)]
    fn over(self, divisor: Self) -> Self {
        self / divisor
    }

    #[inline(always)]
    fn over_const(self, divisor: f64) -> Self {
        self / divisor
    }

    #[inline(always)]
    fn sin_cos(self) -> (Self, Self) {
        (self.sin(), self.cos())
    }

    #[inline(always)]
    fn sin(self) -> Self {
        f64::sin(self)
    }

    #[inline(always)]
    fn cos(self) -> Self {
        f64::cos(self)
    }

    #[inline(always)]
    fn clip(self, low: f64, high: f64) -> Self {
        self.clamp(low, high)
    }

    #[inline(always)]
    fn abs(self) -> Self {
        f64::abs(self)
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        f64::sqrt(self)
    }

    #[inline(always)]
    fn hypot(self, other: Self) -> Self {
        f64::hypot(self, other)
    }

    #[inline(always)]
    fn exp(self) -> Self {
        f64::exp(self)
    }

    #[inline(always)]
    fn powf(self, exponent: f64) -> Self {
        f64::powf(self, exponent)
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        f64::max(self, other)
    }

    #[inline(always)]
    fn normalized_angle(self) -> Self {
        (self + PI).rem_euclid(2.0 * PI) - PI
    }

    #[inline(always)]
    fn unwound_angle(mut self) -> Self {
        while self > PI {
            self -= 2.0 * PI;
        }
        while self < -PI {
            self += 2.0 * PI;
        }
        self
    }
}

impl Real for f32 {
    #[inline(always)]
    fn of(value: f64) -> Self {
        value as f32
    }

    #[inline(always)]
    fn single(value: f32) -> Self {
        value
    }

    #[inline(always)]
    fn over(self, divisor: Self) -> Self {
        self / divisor
    }

    #[inline(always)]
    fn over_const(self, divisor: f64) -> Self {
        self * ((1.0 / divisor) as f32)
    }

    #[inline(always)]
    fn sin_cos(self) -> (Self, Self) {
        sin_cos(self)
    }

    #[inline(always)]
    fn clip(self, low: f64, high: f64) -> Self {
        // Not `clamp`, which tests its bounds: this is a minimum and a maximum of vectors.
        f32::max(self, low as f32).min(high as f32)
    }

    #[inline(always)]
    fn abs(self) -> Self {
        f32::abs(self)
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        f32::sqrt(self)
    }

    #[inline(always)]
    fn hypot(self, other: Self) -> Self {
        f32::sqrt(self * self + other * other)
    }

    #[inline(always)]
    fn exp(self) -> Self {
        exp(self)
    }

    #[inline(always)]
    fn powf(self, exponent: f64) -> Self {
        exp(ln(self) * exponent as f32)
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        if self > other { self } else { other }
    }

    #[inline(always)]
    fn normalized_angle(self) -> Self {
        let turns = round(self * TURNS_PER_RADIAN);
        (self - turns * TURN_HIGH) - turns * TURN_LOW
    }

    #[inline(always)]
    fn unwound_angle(self) -> Self {
        self.normalized_angle()
    }
}

const TURNS_PER_RADIAN: f32 = (0.5 / PI) as f32;
/// 2 pi in two parts; the high one has 11 trailing zero bits, so that its product with a small integer is exact.
const TURN_HIGH: f32 = 6.28125;
const TURN_LOW: f32 = (2.0 * PI - 6.28125) as f32;

/// 1.5 * 2^23: adding it leaves no fraction bits, and the integer in the low bits of the pattern.
const TO_INTEGER: f32 = 12_582_912.0;

/// Nearest integer, ties to even, for `|x| < 2^22`, with two additions.
#[inline(always)]
fn round(x: f32) -> f32 {
    (x + TO_INTEGER) - TO_INTEGER
}

/// Sine and cosine in single precision, without branches.
///
/// The argument is reduced to `[-pi/4, pi/4]` by subtracting a multiple of pi/2 in three parts (Cody and Waite, 1980),
/// then the two minimax polynomials of Cephes' `sinf` and `cosf` (Moshier) are evaluated. The absolute error is below
/// 1.2e-7 for `|x| <= 1000` and below 1e-6 for `|x| <= 8000`; larger arguments lose accuracy in proportion.
#[inline(always)]
fn sin_cos(x: f32) -> (f32, f32) {
    // pi/2 in parts of 8, 11 and 24 bits: the products with the first two are exact up to 13 bits of quarter turns.
    const PART_1: f32 = 1.570_312_5;
    const PART_2: f32 = 4.837_513e-4;
    const PART_3: f32 = 7.549_79e-8;
    let shifted = x * (2.0 / PI) as f32 + TO_INTEGER;
    let quarters = shifted - TO_INTEGER;
    let quadrant = shifted.to_bits();
    let r = ((x - quarters * PART_1) - quarters * PART_2) - quarters * PART_3;
    let z = r * r;
    let s = ((-1.951_529_6e-4 * z + 8.332_161e-3) * z - 1.666_665_5e-1) * z * r + r;
    let c = ((2.443_315_7e-5 * z - 1.388_731_6e-3) * z + 4.166_664_6e-2) * z * z - 0.5 * z + 1.0;
    // Odd quadrants swap the two; the signs follow from bit 1 of the quadrant and of its successor.
    let swap = quadrant & 1 != 0;
    let (s, c) = if swap { (c, s) } else { (s, c) };
    let sin_sign = (quadrant & 2) << 30;
    let cos_sign = (quadrant.wrapping_add(1) & 2) << 30;
    (f32::from_bits(s.to_bits() ^ sin_sign), f32::from_bits(c.to_bits() ^ cos_sign))
}

/// e to the power of `x` for `|x| <= 80`, by Cephes' polynomial: a relative error below 2e-7.
#[inline(always)]
fn exp(x: f32) -> f32 {
    let shifted = x * std::f32::consts::LOG2_E + TO_INTEGER;
    let n = shifted - TO_INTEGER;
    let r = (x - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let p = ((((1.987_569_2e-4 * r + 1.398_199_9e-3) * r + 8.333_452e-3) * r + 4.166_58e-2) * r + 1.666_666_5e-1) * r;
    let y = (p + 0.5) * (r * r) + r + 1.0;
    // The low bits of `shifted` are the integer `n`: they become the exponent.
    y * f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000))
}

/// Natural logarithm of a positive normal number, by Cephes' polynomial: an error below 1e-7 of it or of 1.
#[inline(always)]
fn ln(x: f32) -> f32 {
    let bits = x.to_bits();
    let exponent = (bits >> 23) as i32 - 126;
    let fraction = f32::from_bits((bits & 0x007f_ffff) | 0x3f00_0000);
    let small = fraction < std::f32::consts::FRAC_1_SQRT_2;
    let m = if small { fraction + fraction } else { fraction } - 1.0;
    let e = if small { exponent - 1 } else { exponent } as f32;
    let z = m * m;
    let p = ((7.037_684e-2 * m - 1.151_461e-1) * m + 1.167_699_9e-1) * m - 1.242_014_1e-1;
    let p = (((p * m + 1.424_932_3e-1) * m - 1.666_805_8e-1) * m + 2.000_071_5e-1) * m - 2.499_999_4e-1;
    let y = (p * m + 3.333_333e-1) * m * z - 2.121_944_4e-4 * e - 0.5 * z;
    (m + y) + 0.693_359_4 * e
}

/// A draw from the standard normal distribution, from two uniform ones in `[0, 1)` (Box and Muller, 1958); it reaches
/// to 5.8 standard deviations.
#[inline(always)]
pub(crate) fn normal(mut uniform: impl FnMut() -> f32) -> f32 {
    let radius = f32::sqrt(-2.0 * ln(1.0 - uniform()));
    radius * Real::cos((2.0 * PI) as f32 * uniform())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_and_ln_stay_within_the_stated_error() {
        for i in 1..=400_000 {
            let x = (f64::from(i) / 400_000.0 * 160.0 - 80.0) as f32;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) / exact - 1.0).abs() < 2e-7 + 6e-8 * f64::from(x.abs()), "exp {x}");
            let x = 1e-7 * 1.0001f32.powi(i % 300_000);
            let exact = f64::from(x).ln();
            assert!((f64::from(ln(x)) - exact).abs() < 1e-7 * exact.abs().max(1.0), "ln {x}");
        }
        assert_eq!((exp(0.0), ln(1.0)), (1.0, 0.0));
    }

    #[test]
    fn normal_draws_have_the_moments_of_the_distribution() {
        let mut rng = crate::batch::LaneRng::seed(3, 0);
        let draws: Vec<_> = (0..400_000).map(|_| f64::from(normal(|| rng.uniform()))).collect();
        let moment = |k: i32| draws.iter().map(|x| x.powi(k)).sum::<f64>() / draws.len() as f64;
        // Ten standard errors each.
        for (k, exact, tolerance) in [(1, 0.0, 0.016), (2, 1.0, 0.023), (3, 0.0, 0.062), (4, 3.0, 0.16)] {
            assert!((moment(k) - exact).abs() < tolerance, "moment {k}: {}", moment(k));
        }
    }

    #[test]
    fn sin_cos_stays_within_the_stated_error() {
        for (limit, tolerance) in [(1000.0, 1.2e-7), (8000.0, 1e-6)] {
            let mut worst: f64 = 0.0;
            for i in -500_000..=500_000 {
                let x = (f64::from(i) / 500_000.0 * limit) as f32;
                let (s, c) = sin_cos(x);
                let exact = f64::from(x).sin_cos();
                worst = worst.max((f64::from(s) - exact.0).abs()).max((f64::from(c) - exact.1).abs());
            }
            assert!(worst < tolerance, "error {worst:e} over +-{limit}");
        }
    }

    #[test]
    fn sin_cos_of_the_quadrants() {
        assert_eq!(sin_cos(0.0), (0.0, 1.0));
        for k in -8..8 {
            let x = (f64::from(k) * PI / 2.0 + 0.3) as f32;
            let (s, c) = sin_cos(x);
            assert!((s - x.sin()).abs() < 1.2e-7 && (c - x.cos()).abs() < 1.2e-7, "quadrant {k}");
        }
    }

    #[test]
    fn single_precision_angles_agree_with_double() {
        for i in -2000..=2000 {
            let x = i as f32 * 0.05 + 0.013;
            let exact = f64::from(x).normalized_angle();
            let error = (f64::from(x.normalized_angle()) - exact).abs();
            assert!(error < 2e-6, "{x}: {error:e}");
            assert!((f64::from(x).unwound_angle() - exact).abs() < 1e-12);
        }
    }

    #[test]
    fn clip_keeps_to_the_bounds() {
        assert_eq!(3f32.clip(-1.0, 1.0), 1.0);
        assert_eq!((-0.25f64).clip(-1.0, 1.0), -0.25);
    }
}
