//! Steps a second of every registered environment: `vec_env_THREADS/ID/N`, `batch/ID/N` for the structure-of-arrays
//! steppers at the best vector level and `batch_LEVEL/...` at others, `pixels_THREADS/ID/N` with a picture drawn at each
//! step, and one environment alone against a hand-written loop, `single_vec_env/ID` and `single_plain/ID`.

mod common;

use common::{bench, criterion};
use criterion::{Criterion, criterion_group, criterion_main};
use hotfire_bench::env_step::{Levels, PIXEL_ENVS, SIZES, batch_steppers, pixels, single, vec_envs};

fn all(c: &mut Criterion) {
    bench(c, &batch_steppers(&SIZES, Levels::All), &[1]);
    bench(c, &vec_envs(&SIZES), &[1, 2]);
    bench(c, &pixels(PIXEL_ENVS), &[1, 2]);
    bench(c, &single(), &[1]);
}

criterion_group! { name = benches; config = criterion(); targets = all }
criterion_main!(benches);
