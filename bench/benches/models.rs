//! Training and sampling of every registered model, and tokenizers.

mod common;

use common::{bench, criterion};
use criterion::{Criterion, criterion_group, criterion_main};
use hotfire_bench::{models, tokenizers};

fn all(c: &mut Criterion) {
    bench(c, &models::training(), &[1, 2]);
    bench(c, &models::sampling(), &[1, 2]);
    bench(c, &tokenizers::workloads(), &[1]);
}

criterion_group! { name = benches; config = criterion(); targets = all }
criterion_main!(benches);
