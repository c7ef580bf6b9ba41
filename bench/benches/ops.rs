//! The fused ops against the stock Burn ops, forward and backward.

mod common;

use common::{bench, criterion};
use criterion::{Criterion, criterion_group, criterion_main};
use hotfire_bench::ops;

fn all(c: &mut Criterion) {
    bench(c, &ops::workloads(), &[1, 2]);
}

criterion_group! { name = benches; config = criterion(); targets = all }
criterion_main!(benches);
