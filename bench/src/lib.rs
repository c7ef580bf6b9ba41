//! What is timed, and what a difference of two timings says.
//!
//! A [`Workload`] is a repeatable piece of work with a unit; each module of this crate lists those of one part of the
//! suite, most of them by iterating a registry. The criterion benches in `benches/`, the instruction counts and
//! `hotfire bench` run the same workloads. [`measure`] times them in rounds, and [`compare`] says whether two sets of
//! rounds differ by more than noise.

pub mod actors;
pub mod algorithms;
pub mod checkpoints;
pub mod compare;
pub mod env_step;
mod error;
pub mod estimators;
pub mod measure;
pub mod models;
pub mod ops;
pub mod replay;
pub mod tokenizers;
mod workload;
pub mod wrappers;

pub use error::BenchError;
pub use workload::{Prepared, Workload};

/// Every workload, environments in batches of `num_envs`.
pub fn workloads(num_envs: usize) -> Vec<Workload> {
    [
        env_step::vec_envs(&[num_envs]),
        env_step::batch_steppers(&[num_envs], env_step::Levels::Best),
        env_step::pixels(env_step::PIXEL_ENVS),
        wrappers::workloads(),
        replay::workloads(),
        estimators::workloads(),
        actors::workloads(&[1, 64, 1024]),
        algorithms::workloads(),
        models::training(),
        models::sampling(),
        tokenizers::workloads(),
        checkpoints::workloads(),
        ops::workloads(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
