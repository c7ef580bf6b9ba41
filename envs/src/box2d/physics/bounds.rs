//! Bounds of the ground's shapes, searched one by one in vectorised blocks.

use super::math::{Aabb, vec2};

/// Bounds of the ground's shapes, a column for each side.
#[derive(Clone, Debug, Default)]
pub(super) struct GroundBounds {
    lower_x: Vec<f32>,
    lower_y: Vec<f32>,
    upper_x: Vec<f32>,
    upper_y: Vec<f32>,
}

impl GroundBounds {
    pub(super) fn push(&mut self, bounds: Aabb) {
        self.lower_x.push(bounds.lower.x);
        self.lower_y.push(bounds.lower.y);
        self.upper_x.push(bounds.upper.x);
        self.upper_y.push(bounds.upper.y);
    }

    pub(super) fn clear(&mut self) {
        for column in [&mut self.lower_x, &mut self.lower_y, &mut self.upper_x, &mut self.upper_y] {
            column.clear();
        }
    }

    pub(super) fn get(&self, i: usize) -> Aabb {
        Aabb { lower: vec2(self.lower_x[i], self.lower_y[i]), upper: vec2(self.upper_x[i], self.upper_y[i]) }
    }

    /// Calls `found` for each shape whose bounds overlap `bounds`, in order.
    pub(super) fn overlapping(&self, bounds: &Aabb, mut found: impl FnMut(usize)) {
        const BLOCK: usize = 32;
        let len = self.lower_x.len();
        let (lower_x, lower_y) = (&self.lower_x[..len], &self.lower_y[..len]);
        let (upper_x, upper_y) = (&self.upper_x[..len], &self.upper_y[..len]);
        for first in (0..len).step_by(BLOCK) {
            let last = (first + BLOCK).min(len);
            let mut mask = 0u32;
            // Comparisons of whole blocks are vectorised; hits are rare.
            for i in first..last {
                let hit = (lower_x[i] - bounds.upper.x <= 0.0)
                    & (lower_y[i] - bounds.upper.y <= 0.0)
                    & (bounds.lower.x - upper_x[i] <= 0.0)
                    & (bounds.lower.y - upper_y[i] <= 0.0);
                mask |= u32::from(hit) << (i - first);
            }
            while mask != 0 {
                found(first + mask.trailing_zeros() as usize);
                mask &= mask - 1;
            }
        }
    }
}
