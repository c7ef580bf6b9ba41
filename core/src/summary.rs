//! `summary.json`: the outcome of a run, for programs.

use serde::{Deserialize, Serialize};

use crate::metrics::Metrics;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// All steps were done, or the threshold was reached that ends the run.
    Finished,
    /// The run was stopped and can be continued.
    Interrupted,
    /// The run ended with an error.
    Failed,
}

/// Statistics of the undiscounted returns of evaluation episodes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EvalStats {
    /// Mean return.
    pub mean: f64,
    /// Standard deviation (of the population: divided by the number of episodes).
    pub std: f64,
    /// Smallest return.
    pub min: f64,
    /// Largest return.
    pub max: f64,
    /// Number of episodes.
    pub episodes: u64,
}

impl EvalStats {
    /// The statistics of these returns; `None` when there are none.
    pub fn from_returns(returns: &[f64]) -> Option<Self> {
        if returns.is_empty() {
            return None;
        }
        let count = returns.len() as f64;
        let mean = returns.iter().sum::<f64>() / count;
        let variance = returns.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
        Some(Self {
            mean,
            std: variance.sqrt(),
            min: returns.iter().copied().fold(f64::INFINITY, f64::min),
            max: returns.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            episodes: returns.len() as u64,
        })
    }
}

/// The content of `summary.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How the run ended.
    pub status: Status,
    /// The task's name, such as `ppo CartPole-v1`.
    pub task: String,
    /// The run's seed.
    pub seed: u64,
    /// The device's name, such as `cpu` or `cuda:0`.
    pub device: String,
    /// Training steps done.
    pub steps: u64,
    /// Wall time in seconds, summed over the parts of a resumed run.
    pub wall_seconds: f64,
    /// `steps / wall_seconds`.
    pub steps_per_second: f64,
    /// The last evaluation of an agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval: Option<EvalStats>,
    /// The last metrics: a model's evaluation, or an agent's training metrics with those of its evaluation as
    /// `eval/...`.
    pub metrics: Metrics,
    /// The error of a failed run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_of_returns() {
        let stats = EvalStats::from_returns(&[1.0, 2.0, 6.0]).unwrap();
        assert_eq!((stats.mean, stats.min, stats.max, stats.episodes), (3.0, 1.0, 6.0, 3));
        assert!((stats.std - (14.0f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!(EvalStats::from_returns(&[]), None);
    }

    #[test]
    fn summary_has_the_documented_keys() {
        let summary = Summary {
            status: Status::Finished,
            task: "ppo CartPole-v1".into(),
            seed: 1,
            device: "cpu".into(),
            steps: 100,
            wall_seconds: 0.5,
            steps_per_second: 200.0,
            eval: EvalStats::from_returns(&[5.0]),
            metrics: Metrics::new(),
            error: None,
        };
        assert_eq!(
            serde_json::to_string(&summary).unwrap(),
            r#"{"status":"finished","task":"ppo CartPole-v1","seed":1,"device":"cpu","steps":100,"wall_seconds":0.5,"#
                .to_string()
                + r#""steps_per_second":200.0,"eval":{"mean":5.0,"std":0.0,"min":5.0,"max":5.0,"episodes":1},"metrics":{}}"#
        );
    }
}
