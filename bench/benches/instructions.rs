//! Instructions of the hot loops on one thread, counted by valgrind: for machines whose clocks are noisy.
//!
//! A run of a workload is counted after another that warms it up. Valgrind knows no AVX-512, so that what is counted are
//! the AVX2 kernels.

// What the macros of gungraun write has no documentation.
#![allow(missing_docs)]

use gungraun::{Callgrind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main};
use hotfire_bench::{Prepared, Workload, actors, algorithms, env_step, estimators, ops, replay, tokenizers};

/// The workload of this id, run once.
fn warm(workloads: &[Workload], id: &str) -> Prepared {
    // The thread that is counted is the only one.
    rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build_global().expect("the first pool");
    let workload = workloads.iter().find(|workload| workload.id() == id).unwrap_or_else(|| panic!("no workload {id}"));
    let mut work = workload.set_up().unwrap_or_else(|error| panic!("{error}"));
    (work.run)();
    work
}

fn env(id: &str) -> Prepared {
    let [one, many] = [&[64], &[1024]];
    let batch = env_step::batch_steppers(many, env_step::Levels::Best);
    warm(&[env_step::vec_envs(one), batch].into_iter().flatten().collect::<Vec<_>>(), id)
}

fn memory(id: &str) -> Prepared {
    warm(&[replay::workloads(), estimators::workloads()].into_iter().flatten().collect::<Vec<_>>(), id)
}

fn network(id: &str) -> Prepared {
    warm(&[actors::workloads(&[1, 64]), ops::workloads()].into_iter().flatten().collect::<Vec<_>>(), id)
}

fn algorithm(id: &str) -> Prepared {
    warm(&algorithms::workloads(), id)
}

fn tokenizer(id: &str) -> Prepared {
    warm(&tokenizers::workloads(), id)
}

#[library_benchmark]
#[benches::vec_env(args = [
    "vec_env/CartPole-v1/64", "vec_env/Acrobot-v1/64", "vec_env/FrozenLake-v1/64", "vec_env/MinAtar/Breakout-v1/64",
    "vec_env/LunarLander-v3/64", "vec_env/BipedalWalker-v3/64",
], setup = env)]
#[benches::batch(args = [
    "batch/CartPole-v1/1024", "batch/Acrobot-v1/1024", "batch/Pendulum-v1/1024", "batch/Taxi-v4/1024",
], setup = env)]
#[benches::memory(args = [
    "replay/sample uniform", "replay/sample by priority", "sum_tree/set", "sum_tree/find", "gae/gae/1024",
], setup = memory)]
#[benches::network(args = [
    "actor/compiled, with drawing/1", "actor/compiled, with drawing/64", "op/mlp_tanh, fused", "op/attention, fused",
    "op/layer_norm, fused", "op/softmax, fused", "op/conv2d 32 to 32 at 28, fused", "op/group_norm_silu, fused",
], setup = network)]
#[benches::algorithm(args = ["algorithm/ppo", "algorithm/dqn"], setup = algorithm)]
#[benches::tokenizer(args = ["tokenizer/bpe, encode", "tokenizer/wordpiece, encode"], setup = tokenizer)]
fn run(mut work: Prepared) -> Prepared {
    (work.run)();
    work
}

library_benchmark_group!(name = hot_loops, benchmarks = run);
main!(
    config = LibraryBenchmarkConfig::default().tool(Callgrind::with_args(["--cache-sim=no"]));
    library_benchmark_groups = hot_loops
);
