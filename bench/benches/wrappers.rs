//! Steps a second through every registered wrapper, and without it.

mod common;

use common::{bench, criterion};
use criterion::{Criterion, criterion_group, criterion_main};
use hotfire_bench::wrappers;

fn all(c: &mut Criterion) {
    bench(c, &wrappers::workloads(), &[1]);
}

criterion_group! { name = benches; config = criterion(); targets = all }
criterion_main!(benches);
