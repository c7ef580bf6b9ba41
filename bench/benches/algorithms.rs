//! Training with every registered algorithm, and acting with the compiled actor against Burn's forward pass.

mod common;

use common::{bench, criterion};
use criterion::{Criterion, criterion_group, criterion_main};
use hotfire_bench::{actors, algorithms};

fn all(c: &mut Criterion) {
    bench(c, &algorithms::workloads(), &[1, 2]);
    bench(c, &actors::workloads(&[1, 64, 1024]), &[1]);
}

criterion_group! { name = benches; config = criterion(); targets = all }
criterion_main!(benches);
