//! The `[run]` and `[train]` sections, which every configuration shares.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::{ConfigDocument, ConfigError};

/// The `[run]` section: where a run is kept, its seed and its device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunConfig {
    /// The run's directory name; without one, the configuration's file name and the seed, as in `ppo-cartpole-s1`.
    pub name: Option<String>,
    /// The directory that holds the run directories.
    pub dir: PathBuf,
    /// The seed from which every random stream of the run is derived.
    pub seed: u64,
    /// The device: `auto`, `cpu`, `cuda`, `cuda:N`, `wgpu` or `wgpu:N`.
    pub device: String,
    /// The number of CPU threads; 0 means all. It changes the speed of a run, not its result.
    pub threads: usize,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self { name: None, dir: "runs".into(), seed: 1, device: "auto".into(), threads: 0 }
    }
}

impl RunConfig {
    /// Keys that change no result.
    pub const KEYS_WITHOUT_EFFECT: [&'static str; 4] = ["name", "dir", "device", "threads"];

    const MOST_THREADS: usize = 1024;

    /// Refuses values out of range.
    pub fn check(&self, document: &ConfigDocument) -> Result<(), ConfigError> {
        if self.threads > Self::MOST_THREADS {
            let expected = format!("at most {}, or 0 for all", Self::MOST_THREADS);
            return Err(document.out_of_range("run.threads", expected, self.threads));
        }
        match &self.name {
            Some(name) if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\']) => {
                Err(document.out_of_range("run.name", "a directory name without slashes or a leading dot", name))
            }
            _ => Ok(()),
        }
    }

    /// The run directory of a run of the configuration file `config`.
    pub fn run_dir(&self, config: &Path) -> PathBuf {
        let stem = config.file_stem().map_or("run".into(), |stem| stem.to_string_lossy().into_owned());
        self.dir.join(self.name.clone().unwrap_or_else(|| format!("{stem}-s{}", self.seed)))
    }
}

/// The `[train]` section: how long to train, and the run shell's clocks.
///
/// A clock with interval `n` is due whenever the step count crosses a multiple of `n`. Where the length is given in
/// epochs, the intervals of evaluations and checkpoints are in epochs too; [`count_epochs`](Self::count_epochs) turns
/// all into steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Training steps: environment steps for an agent, batches for a model.
    #[serde(skip_serializing_if = "is_zero")]
    pub steps: u64,
    /// Passes over the training data, in place of `steps`, for a model.
    #[serde(skip_serializing_if = "is_zero")]
    pub epochs: u64,
    /// Examples of a batch, for a model; 0 means the model's own choice.
    #[serde(skip_serializing_if = "is_zero")]
    pub batch_size: u64,
    /// Steps between evaluations; 0 means only the final one.
    pub eval_interval: u64,
    /// Episodes of an evaluation during training.
    pub eval_episodes: u32,
    /// Episodes of the final evaluation.
    pub final_eval_episodes: u32,
    /// Steps between checkpoints; 0 means only the final one.
    pub checkpoint_interval: u64,
    /// How many of the newest checkpoints are kept.
    pub keep_checkpoints: usize,
    /// Steps between lines of metrics, which are means of the iterations since the last; 0 means every iteration.
    pub log_interval: u64,
    /// Whether the checkpoint of the best evaluation is kept too, below `best/`.
    pub save_best: bool,
    /// Whether the run ends with the first evaluation whose mean return reaches the environment's threshold.
    pub stop_at_threshold: bool,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            steps: 0,
            epochs: 0,
            batch_size: 0,
            eval_interval: 0,
            eval_episodes: 10,
            final_eval_episodes: 100,
            checkpoint_interval: 0,
            keep_checkpoints: 3,
            log_interval: 0,
            save_best: false,
            stop_at_threshold: false,
        }
    }
}

impl TrainConfig {
    /// Steps of a run that says nothing of its length.
    const DEFAULT_STEPS: u64 = 100_000;

    /// Reads and checks the section.
    pub fn read(document: &mut ConfigDocument) -> Result<Self, ConfigError> {
        let epochs_given = document.has_key("train", "epochs");
        let steps = if epochs_given { 0 } else { Self::DEFAULT_STEPS };
        let train: Self = document.section_over("train", &Self { steps, ..Self::default() })?;
        train.check(document, epochs_given)?;
        Ok(train)
    }

    /// Refuses values out of range.
    fn check(&self, document: &ConfigDocument, epochs_given: bool) -> Result<(), ConfigError> {
        match (self.steps, self.epochs) {
            (0, 0) => {
                let key = if epochs_given { "train.epochs" } else { "train.steps" };
                return Err(document.out_of_range(key, "at least 1", 0));
            }
            (1.., 1..) => {
                return Err(document.invalid("train.epochs", "stands beside train.steps: expected one of them"));
            }
            _ => {}
        }
        for (key, value) in [
            ("train.eval_episodes", self.eval_episodes.into()),
            ("train.final_eval_episodes", self.final_eval_episodes.into()),
            ("train.keep_checkpoints", self.keep_checkpoints as u64),
        ] {
            if value == 0 {
                return Err(document.out_of_range(key, "at least 1", value));
            }
        }
        for (key, wanted) in [("save_best", self.save_best), ("stop_at_threshold", self.stop_at_threshold)] {
            if wanted && self.eval_interval == 0 {
                let expected = format!("at least 1, since train.{key} looks at evaluations");
                return Err(document.out_of_range("train.eval_interval", expected, 0));
            }
        }
        Ok(())
    }

    /// Turns epochs of `steps_per_epoch` steps into steps, where the length is given in epochs.
    pub fn count_epochs(&mut self, steps_per_epoch: u64) {
        if self.epochs > 0 {
            self.steps = self.epochs * steps_per_epoch;
            self.eval_interval *= steps_per_epoch;
            self.checkpoint_interval *= steps_per_epoch;
        }
    }
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_run_name_is_the_config_and_the_seed() {
        let config = RunConfig { seed: 7, ..RunConfig::default() };
        assert_eq!(config.run_dir(Path::new("configs/ppo-cartpole.toml")), Path::new("runs/ppo-cartpole-s7"));
        let named = RunConfig { name: Some("mine".into()), ..config };
        assert_eq!(named.run_dir(Path::new("configs/ppo-cartpole.toml")), Path::new("runs/mine"));
    }

    #[test]
    fn values_out_of_range_are_refused() {
        let mut document =
            ConfigDocument::parse("a.toml", "[run]\nname = \"../x\"\n[train]\nsteps = 0\n", &[]).unwrap();
        let run: RunConfig = document.section("run").unwrap();
        assert_eq!(
            run.check(&document).unwrap_err().to_string(),
            "a.toml:2: run.name: expected a directory name without slashes or a leading dot, found ../x"
        );
        let run = RunConfig { threads: 100_000, ..RunConfig::default() };
        assert!(
            run.check(&document)
                .unwrap_err()
                .to_string()
                .ends_with("expected at most 1024, or 0 for all, found 100000")
        );
        assert_eq!(
            TrainConfig::read(&mut document).unwrap_err().to_string(),
            "a.toml:4: train.steps: expected at least 1, found 0"
        );
    }

    #[test]
    fn epochs_stand_in_for_steps() {
        let read = |text: &str| {
            let mut document = ConfigDocument::parse("a.toml", text, &[]).unwrap();
            TrainConfig::read(&mut document).map(|train| (train, document.resolved()))
        };
        let (mut train, resolved) = read("[train]\nepochs = 3\neval_interval = 1\nlog_interval = 5").unwrap();
        assert!(resolved.contains("epochs = 3") && !resolved.contains("steps"), "{resolved}");
        train.count_epochs(79);
        assert_eq!((train.steps, train.eval_interval, train.log_interval), (237, 79, 5));
        let message = read("[train]\nepochs = 0").unwrap_err().to_string();
        assert_eq!(message, "a.toml:2: train.epochs: expected at least 1, found 0");
        let message = read("[train]\nsteps = 3\nepochs = 3").unwrap_err().to_string();
        assert!(message.contains("train.epochs") && message.contains("train.steps"), "{message}");
    }
}
