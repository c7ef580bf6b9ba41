//! Steps a second of every registered environment: one element is one step of one copy, resets and time limit
//! included, with uniformly random actions that were drawn beforehand.
//!
//! `batch/ID/N` is the structure-of-arrays stepper at the best vector level, `batch_LEVEL/...` another level;
//! `vec_env_THREADS/ID/N` is [`VecEnv`]; `single/ID/...` compares one environment in a [`VecEnv`] with a plain loop.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hotfire_envs::cartpole::CartPole;
use hotfire_envs::{
    ActionRef, Actions, AutoresetMode, Buffer, ENVS, Env, EnvSpec, NpRng, ObsMut, Options, Simd, Space, VecEnv, make,
};

/// Batches of random actions, used in turn.
struct RandomActions {
    batches: Vec<Buffer>,
    at: usize,
}

impl RandomActions {
    fn new(space: &Space, num_envs: usize) -> Self {
        // Enough that one environment alone sees no short cycle, few enough to stay in the second-level cache.
        let count = (4096 / num_envs).max(8);
        let mut rng = NpRng::seed(0);
        let mut sample = |mut batch: Buffer| {
            let width = space.len();
            for i in 0..num_envs {
                let row = match &mut batch {
                    Buffer::F32(x) => ObsMut::F32(&mut x[i * width..(i + 1) * width]),
                    Buffer::U8(x) => ObsMut::U8(&mut x[i * width..(i + 1) * width]),
                    Buffer::I32(x) => ObsMut::I32(&mut x[i * width..(i + 1) * width]),
                };
                space.sample_into(&mut rng, row).expect("a row of the space's type and length");
            }
            batch
        };
        Self { batches: (0..count).map(|_| sample(Buffer::new(space, num_envs))).collect(), at: 0 }
    }

    fn next(&mut self) -> Actions<'_> {
        self.at = (self.at + 1) % self.batches.len();
        match &self.batches[self.at] {
            Buffer::F32(x) => Actions::F32(x),
            Buffer::U8(x) => Actions::U8(x),
            Buffer::I32(x) => Actions::I32(x),
        }
    }
}

const SIZES: [usize; 4] = [1, 64, 1024, 4096];

fn action_space(spec: &EnvSpec) -> Space {
    make(spec.id, &[]).expect("registered without required options").action_space().clone()
}

fn batch_steppers(c: &mut Criterion) {
    let best = Simd::detect();
    for simd in [Simd::Portable, Simd::Avx2, Simd::Avx512] {
        if simd > best {
            continue;
        }
        let name = if simd == best { "batch".to_owned() } else { format!("batch_{simd:?}").to_lowercase() };
        let mut group = c.benchmark_group(name);
        for spec in ENVS {
            let Some(make_batch) = spec.make_batch else { continue };
            // The lower levels of the other environments tell nothing that these two do not.
            if simd != best && !matches!(spec.id, "CartPole-v1" | "Acrobot-v1") {
                continue;
            }
            let space = action_space(spec);
            for n in SIZES {
                let limit = spec.max_episode_steps.unwrap_or(u32::MAX);
                let mut options = Options::new(spec.id, Vec::new());
                let mut env = make_batch(&mut options, n, limit, simd).expect("registered without required options");
                let mut actions = RandomActions::new(&space, n);
                group.throughput(Throughput::Elements(n as u64));
                group.bench_function(BenchmarkId::new(spec.id, n), |b| {
                    b.iter(|| env.step(actions.next()).expect("actions of the space"));
                });
            }
        }
    }
}

fn vec_envs(c: &mut Criterion) {
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
        let mut group = c.benchmark_group(format!("vec_env_{threads}"));
        for spec in ENVS {
            for n in SIZES {
                let mut envs = VecEnv::make(spec.id, n, AutoresetMode::SameStep).expect("a registered environment");
                let mut actions = RandomActions::new(envs.action_space(), n);
                envs.reset(0);
                group.throughput(Throughput::Elements(n as u64));
                group.bench_function(BenchmarkId::new(spec.id, n), |b| {
                    pool.install(|| b.iter(|| envs.step(actions.next()).expect("actions of the space")));
                });
            }
        }
    }
}

/// The loop that one would write by hand around one environment.
fn plain_loop<E: Env + ?Sized>(b: &mut criterion::Bencher<'_>, env: &mut E, limit: u32) {
    let mut actions = RandomActions::new(env.action_space(), 1);
    let mut rng = NpRng::seed(0);
    let mut row = Buffer::new(env.observation_space(), 1);
    let mut elapsed = 0;
    env.reset(&mut rng, row.as_mut());
    b.iter(|| {
        let action = match actions.next() {
            Actions::F32(x) => ActionRef::F32(x),
            Actions::U8(x) => ActionRef::U8(x),
            Actions::I32(x) => ActionRef::I32(x),
        };
        let outcome = env.step(action, &mut rng, row.as_mut());
        elapsed += 1;
        if outcome.terminated || outcome.truncated || elapsed == limit {
            env.reset(&mut rng, row.as_mut());
            elapsed = 0;
        }
        black_box((outcome, &row));
    });
}

fn single(c: &mut Criterion) {
    let mut group = c.benchmark_group("single");
    group.throughput(Throughput::Elements(1));
    for spec in ENVS {
        let limit = spec.max_episode_steps.unwrap_or(u32::MAX);
        let options = || Options::new(spec.id, Vec::new());
        let mut bare = (spec.make)(&mut options()).expect("registered without required options");
        group.bench_function(BenchmarkId::new(spec.id, "plain"), |b| plain_loop(b, bare.as_mut(), limit));
        if spec.id == "CartPole-v1" {
            let mut bare = CartPole::new(&mut options()).expect("no options to get wrong");
            group.bench_function(BenchmarkId::new(spec.id, "plain_static"), |b| plain_loop(b, &mut bare, limit));
        }
        let mut envs = VecEnv::make(spec.id, 1, AutoresetMode::SameStep).expect("a registered environment");
        let mut actions = RandomActions::new(envs.action_space(), 1);
        envs.reset(0);
        group.bench_function(BenchmarkId::new(spec.id, "vec_env"), |b| {
            b.iter(|| {
                envs.step(actions.next()).expect("actions of the space");
                black_box(&envs);
            });
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500));
    targets = batch_steppers, vec_envs, single
}
criterion_main!(benches);
