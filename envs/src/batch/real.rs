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
        // Not `clamp`: a NaN becomes `low` here, so that one bad action cannot poison a lane for good.
        self.max(low as f32).min(high as f32)
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn clip_turns_nan_into_a_bound() {
        assert_eq!(f32::NAN.clip(-1.0, 1.0), -1.0);
        assert_eq!(3f32.clip(-1.0, 1.0), 1.0);
        assert_eq!((-0.25f64).clip(-1.0, 1.0), -0.25);
    }
}
