//! Gymnasium's `RunningMeanStd` for one sample at a time (Chan, Golub and LeVeque 1979, equations for joining sets).

use crate::{EnvError, StateReader, StateWriter};

/// Mean and variance of all samples so far, starting from variance 1 with a count of 1e-4.
pub(super) struct RunningMoments {
    pub(super) mean: f64,
    pub(super) var: f64,
}

/// The count before the first sample.
pub(super) const FIRST_COUNT: f64 = 1e-4;

impl RunningMoments {
    pub(super) fn new() -> Self {
        Self { mean: 0.0, var: 1.0 }
    }

    /// Adds the sample `x` to `count` earlier ones. `round` rounds to the precision that the reference computes in;
    /// each double-precision operation on single-precision numbers, rounded, is the single-precision one.
    #[inline]
    pub(super) fn add(&mut self, x: f64, count: f64, round: impl Fn(f64) -> f64) {
        let (total, count) = (round(count + 1.0), round(count));
        let delta = round(x - self.mean);
        self.mean = round(self.mean + round(delta / total));
        let between = round(round(round(delta * delta) * count) / total);
        self.var = round(round(round(self.var * count) + between) / total);
    }

    pub(super) fn save(&self, to: &mut StateWriter) {
        to.f64(self.mean);
        to.f64(self.var);
    }

    pub(super) fn load(&mut self, from: &mut StateReader<'_>) -> Result<(), EnvError> {
        (self.mean, self.var) = (from.f64()?, from.f64()?);
        Ok(())
    }
}
