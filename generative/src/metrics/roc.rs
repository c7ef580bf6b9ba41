//! The receiver operating characteristic of a score that should be larger for anomalies.

/// The area under the curve: the probability that an anomaly scores above a normal example, ties counting half
/// (Mann and Whitney 1947). 0.5 is chance; `None` without examples of either kind.
pub fn auroc(normal: &[f32], anomalies: &[f32]) -> Option<f64> {
    if normal.is_empty() || anomalies.is_empty() {
        return None;
    }
    let mut sorted = normal.to_vec();
    sorted.sort_by(f32::total_cmp);
    let below = |score: &f32| {
        let less = sorted.partition_point(|x| x < score);
        let equal = sorted.partition_point(|x| x <= score) - less;
        less as f64 + 0.5 * equal as f64
    };
    Some(anomalies.iter().map(below).sum::<f64>() / (normal.len() * anomalies.len()) as f64)
}

/// Points (false positive rate, true positive rate) from (0, 0) to (1, 1), one a distinct threshold.
pub fn roc_curve(normal: &[f32], anomalies: &[f32]) -> Vec<(f64, f64)> {
    let mut scores: Vec<(f32, bool)> = normal.iter().map(|s| (*s, false)).collect();
    scores.extend(anomalies.iter().map(|s| (*s, true)));
    scores.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut points = vec![(0.0, 0.0)];
    let (mut false_positives, mut true_positives) = (0usize, 0usize);
    for (i, (score, anomaly)) in scores.iter().enumerate() {
        if *anomaly {
            true_positives += 1;
        } else {
            false_positives += 1;
        }
        if scores.get(i + 1).is_none_or(|next| next.0 != *score) {
            let rate = |count: usize, all: usize| count as f64 / all.max(1) as f64;
            points.push((rate(false_positives, normal.len()), rate(true_positives, anomalies.len())));
        }
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_area_is_the_share_of_ordered_pairs() {
        let (normal, anomalies) = ([0.1, 0.4, 0.4, 0.8], [0.4, 0.9, 0.3]);
        // Pairs above: 0.4 -> 1 + 2 halves, 0.9 -> 4, 0.3 -> 1.
        let area = auroc(&normal, &anomalies).unwrap();
        assert!((area - 7.0 / 12.0).abs() < 1e-12, "{area}");
        // The trapezoids under the curve have the same area.
        let curve = roc_curve(&normal, &anomalies);
        let under: f64 = curve.windows(2).map(|p| (p[1].0 - p[0].0) * (p[0].1 + p[1].1) / 2.0).sum();
        assert!((under - area).abs() < 1e-12);
        assert_eq!((curve[0], curve[curve.len() - 1]), ((0.0, 0.0), (1.0, 1.0)));
        assert_eq!(auroc(&[1.0], &[2.0]), Some(1.0));
        assert_eq!(auroc(&[], &[2.0]), None);
    }
}
