//! Ending hopeless trials early, from the evaluations that they log while they train.

use hotfire_core::stats::quantile;

use super::file::{Pruner, Search};

/// Whether a trial with these evaluations should end, given those of the other trials; more is better. It has passed
/// with its first `judged` ones: what others did since is no reason to take that back.
///
/// Median (Golovin et al. 2017, "Google Vizier"): its best evaluation so far is below the median of the others' best at
/// the same count. ASHA (Li et al. 2020, arXiv:1810.05934), the stopping variant: at the rungs `warmup`,
/// `warmup * reduction`, `warmup * reduction²`... evaluations, it is not among the best `1 / reduction` of those that
/// got there.
pub fn should_prune(search: &Search, own: &[f64], judged: usize, others: &[Vec<f64>]) -> bool {
    let warmup = search.warmup_evaluations.max(1);
    match search.pruner {
        Pruner::None => false,
        Pruner::Median => {
            if own.len() < warmup.max(judged + 1) {
                return false;
            }
            let best = |values: &[f64]| values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let peers: Vec<f64> =
                others.iter().filter(|other| other.len() >= own.len()).map(|other| best(&other[..own.len()])).collect();
            !peers.is_empty() && best(own) < quantile(&peers, 0.5)
        }
        Pruner::Asha => {
            let fails = |rung: &usize| {
                let here = own[*rung - 1];
                let peers = others.iter().filter_map(|other| other.get(*rung - 1));
                let (count, better) =
                    peers.fold((1, 0), |(n, better), peer| (n + 1, better + usize::from(*peer > here)));
                count >= search.reduction && better >= count.div_ceil(search.reduction)
            };
            let rungs = std::iter::successors(Some(warmup), |rung| rung.checked_mul(search.reduction));
            rungs.take_while(|rung| *rung <= own.len()).filter(|rung| *rung > judged).any(|rung| fails(&rung))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_rule_compares_at_the_same_evaluation() {
        let search = Search { pruner: Pruner::Median, warmup_evaluations: 2, ..Search::default() };
        let others = [vec![1.0, 5.0, 9.0], vec![2.0, 6.0, 9.0], vec![3.0, 7.0]];
        assert!(!should_prune(&search, &[0.0], 0, &others), "warming up");
        assert!(should_prune(&search, &[0.0, 5.5], 0, &others));
        assert!(!should_prune(&search, &[6.5, 0.0], 0, &others), "its best counts");
        assert!(!should_prune(&search, &[0.0, 0.0], 0, &[]), "nobody to compare with");
        assert!(!should_prune(&search, &[0.0; 4], 0, &others), "nobody got as far");
        assert!(!should_prune(&search, &[0.0, 5.5], 2, &others), "it has passed already");
    }

    #[test]
    fn successive_halving_keeps_the_best_third_at_each_rung() {
        let search = Search { pruner: Pruner::Asha, warmup_evaluations: 1, reduction: 3, ..Search::default() };
        assert!(!should_prune(&search, &[0.0], 0, &[vec![1.0]]), "too few for a third");
        let others = [vec![1.0, 1.0, 1.0], vec![2.0, 2.0, 2.0], vec![3.0], vec![4.0], vec![5.0]];
        assert!(!should_prune(&search, &[4.5], 0, &others), "second of six");
        assert!(should_prune(&search, &[3.5], 0, &others), "third of six");
        assert!(!should_prune(&search, &[6.0, 0.0], 0, &others), "two evaluations are no rung");
        assert!(should_prune(&search, &[6.0, 0.0, 0.0], 0, &others), "last of three at the second rung");
        assert!(!should_prune(&search, &[6.0, 0.0, 3.0], 0, &others));
        assert!(should_prune(&search, &[0.0, 0.0], 0, &others), "last of six at the first rung");
        assert!(!should_prune(&search, &[0.0, 0.0], 1, &others), "it has passed the first rung already");
    }
}
