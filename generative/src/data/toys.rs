//! Distributions of points of the plane that are easy to look at and hard for a bad model. All have about unit scale.

use std::f32::consts::{PI, TAU};

use hotfire_core::seed::StreamRng;

use super::{DataSpec, Load};

/// The registry's entry.
pub(super) const MOONS: DataSpec = DataSpec {
    name: "moons",
    summary: "two interleaved half circles in the plane",
    source: "after scikit-learn's make_moons",
    load: Load::Points(moons),
};

/// The registry's entry.
pub(super) const SWISS_ROLL: DataSpec = DataSpec {
    name: "swiss-roll",
    summary: "a spiral in the plane",
    source: "after scikit-learn's make_swiss_roll, as in Sohl-Dickstein et al. 2015",
    load: Load::Points(swiss_roll),
};

/// The registry's entry.
pub(super) const EIGHT_GAUSSIANS: DataSpec = DataSpec {
    name: "8gaussians",
    summary: "eight narrow Gaussians on a circle in the plane",
    source: "as in Gulrajani et al. 2017",
    load: Load::Points(eight_gaussians),
};

/// A point of the upper or the lower half circle of radius 1, with noise of 0.07; the whole is centred.
pub fn moons(rng: &mut StreamRng) -> [f32; 2] {
    let (sin, cos) = (PI * rng.uniform()).sin_cos();
    let [x, y] = if rng.below(2) == 0 { [cos, sin] } else { [1.0 - cos, 0.5 - sin] };
    [x - 0.5 + 0.07 * rng.normal(), y - 0.25 + 0.07 * rng.normal()]
}

/// A point of the spiral `r = t / 10`, `t` from 1.5 pi to 4.5 pi, with noise of 0.03.
pub fn swiss_roll(rng: &mut StreamRng) -> [f32; 2] {
    let t = 1.5 * PI * (1.0 + 2.0 * rng.uniform());
    let (sin, cos) = t.sin_cos();
    [0.1 * t * cos + 0.03 * rng.normal(), 0.1 * t * sin + 0.03 * rng.normal()]
}

/// A point of one of eight Gaussians with standard deviation 0.1, at distance 1.4 from the origin.
pub fn eight_gaussians(rng: &mut StreamRng) -> [f32; 2] {
    let (sin, cos) = (TAU / 8.0 * rng.below(8) as f32).sin_cos();
    [1.4 * cos + 0.1 * rng.normal(), 1.4 * sin + 0.1 * rng.normal()]
}

#[cfg(test)]
mod tests {
    use hotfire_core::seed::stream;

    use super::*;

    #[test]
    fn points_lie_where_they_should() {
        let mut rng = stream(1, "test", 0);
        let (mut upper, mut modes) = (0, [0; 8]);
        for _ in 0..4000 {
            let [x, y] = moons(&mut rng);
            let to_arc = |cx: f32, cy: f32, up: bool| {
                let (dx, dy) = (x + 0.5 - cx, y + 0.25 - cy);
                if (dy > 0.0) == up { (dx.hypot(dy) - 1.0).abs() } else { (dx.abs() - 1.0).hypot(dy) }
            };
            let (first, second) = (to_arc(0.0, 0.0, true), to_arc(1.0, 0.5, false));
            assert!(first.min(second) < 0.4, "{x}, {y}");
            upper += usize::from(first < second);
            let [x, y] = swiss_roll(&mut rng);
            let (radius, angle) = (10.0 * x.hypot(y), y.atan2(x));
            let turns = ((radius - angle) / TAU).round();
            assert!((radius - angle - turns * TAU).abs() < 2.0 && (3.0..16.0).contains(&radius), "{x}, {y}");
            let [x, y] = eight_gaussians(&mut rng);
            modes[(y.atan2(x) / (TAU / 8.0)).round().rem_euclid(8.0) as usize] += 1;
        }
        assert!((1850..2150).contains(&upper), "{upper}");
        assert!(modes.iter().all(|count| (420..580).contains(count)), "{modes:?}");
    }
}
