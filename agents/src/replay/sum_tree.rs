//! A sum tree: weights that can be changed and drawn from in proportion, both in logarithmic time.
//!
//! Schaul et al. 2016, "Prioritized experience replay", <https://arxiv.org/abs/1511.05952>, appendix B.2.1. A node is
//! always the sum of its two children, recomputed on each change, so no rounding error builds up and the tree is a
//! function of its leaves alone.

/// Weights `0..len` and the sums over them.
#[derive(Clone, Debug)]
pub struct SumTree {
    len: usize,
    /// A power of two: where the leaves begin.
    first_leaf: usize,
    /// Node 1 is the root, the children of node `i` are `2 i` and `2 i + 1`.
    nodes: Vec<f64>,
}

impl SumTree {
    /// `len` weights of zero.
    pub fn new(len: usize) -> Self {
        let first_leaf = len.next_power_of_two();
        Self { len, first_leaf, nodes: vec![0.0; 2 * first_leaf] }
    }

    /// Sum of all weights.
    pub fn total(&self) -> f64 {
        self.nodes[1]
    }

    /// The weight at `index`.
    pub fn get(&self, index: usize) -> f64 {
        self.leaves()[index]
    }

    /// All weights.
    pub fn leaves(&self) -> &[f64] {
        &self.nodes[self.first_leaf..][..self.len]
    }

    /// Changes a weight, which must not be negative.
    pub fn set(&mut self, index: usize, weight: f64) {
        debug_assert!(index < self.len);
        let mut node = self.first_leaf + index;
        self.nodes[node] = weight;
        while node > 1 {
            node /= 2;
            self.nodes[node] = self.nodes[2 * node] + self.nodes[2 * node + 1];
        }
    }

    /// Changes all weights.
    ///
    /// # Panics
    /// If there are not as many as before.
    pub fn set_all(&mut self, weights: &[f64]) {
        self.nodes[self.first_leaf..][..self.len].copy_from_slice(weights);
        for node in (1..self.first_leaf).rev() {
            self.nodes[node] = self.nodes[2 * node] + self.nodes[2 * node + 1];
        }
    }

    /// The index at which the running sum of the weights exceeds `mass`, for `mass` in `[0, total)`.
    ///
    /// Its weight is positive, whatever rounding does to `mass`, if any weight is.
    pub fn find(&self, mut mass: f64) -> usize {
        let mut node = 1;
        while node < self.first_leaf {
            let (left, right) = (self.nodes[2 * node], self.nodes[2 * node + 1]);
            node *= 2;
            if left <= 0.0 || (mass >= left && right > 0.0) {
                mass -= left;
                node += 1;
            }
        }
        // With all weights zero the walk ends in the padding.
        (node - self.first_leaf).min(self.len - 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn draws_by_hand() {
        let mut tree = SumTree::new(5);
        [2.0, 0.0, 3.0, 0.0, 1.0].iter().enumerate().for_each(|(i, w)| tree.set(i, *w));
        assert_eq!(tree.total(), 6.0);
        for (mass, index) in [(0.0, 0), (1.9, 0), (2.0, 2), (4.9, 2), (5.0, 4), (5.9, 4), (6.0, 4), (99.0, 4)] {
            assert_eq!(tree.find(mass), index, "mass {mass}");
        }
        tree.set(4, 0.0);
        assert_eq!((tree.total(), tree.find(5.0)), (5.0, 2));
    }

    proptest! {
        /// Against sums over a plain list, after any changes.
        #[test]
        fn equals_a_plain_list(
            len in 1usize..70,
            changes in prop::collection::vec((any::<prop::sample::Index>(), 0u32..1000), 1..200),
            draws in prop::collection::vec(0.0f64..1.0, 20),
        ) {
            let mut tree = SumTree::new(len);
            let mut plain = vec![0.0; len];
            for (at, weight) in changes {
                let weight = f64::from(weight.saturating_sub(300));
                tree.set(at.index(len), weight);
                plain[at.index(len)] = weight;
            }
            // Whole numbers: sums are exact in any order.
            let total: f64 = plain.iter().sum();
            prop_assert_eq!(tree.total(), total);
            prop_assert_eq!(tree.leaves(), &plain[..]);
            for draw in draws {
                let mut left = draw * total;
                let want = plain.iter().position(|w| { left -= w; left < 0.0 });
                if let Some(want) = want {
                    prop_assert_eq!(tree.find(draw * total), want);
                }
            }
            let mut copy = SumTree::new(len);
            copy.set_all(&plain);
            prop_assert_eq!(copy.nodes, tree.nodes);
        }
    }
}
