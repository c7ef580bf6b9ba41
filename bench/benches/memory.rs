//! Replay memory, sum tree, advantage estimation, and checkpoints.

mod common;

use common::{bench, criterion};
use criterion::{Criterion, criterion_group, criterion_main};
use hotfire_bench::{checkpoints, estimators, replay};

fn all(c: &mut Criterion) {
    bench(c, &replay::workloads(), &[1]);
    bench(c, &estimators::workloads(), &[1]);
    bench(c, &checkpoints::workloads(), &[1]);
}

criterion_group! { name = benches; config = criterion(); targets = all }
criterion_main!(benches);
