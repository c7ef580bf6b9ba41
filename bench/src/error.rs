use std::path::PathBuf;

use thiserror::Error;

/// What can go wrong while measuring. Each message is one line.
#[derive(Debug, Error)]
pub enum BenchError {
    /// No workload has a name that contains this.
    #[error("no benchmark has {filter:?} in its name; groups: {groups}")]
    NoMatch {
        /// What was looked for.
        filter: String,
        /// The groups that there are.
        groups: String,
    },
    /// The threads of a measurement can't be started.
    #[error("{threads} threads can't be started: {problem}")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// What the system says.
        problem: String,
    },
    /// A workload can't be set up.
    #[error("{id}: {problem}")]
    SetUp {
        /// The workload.
        id: String,
        /// Why.
        problem: String,
    },
    /// A record that can't be used.
    #[error("{}: {problem}", path.display())]
    Record {
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}
