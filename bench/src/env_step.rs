//! Steps of every registered environment, resets and time limit included, with uniformly random actions that were
//! drawn beforehand: [`VecEnv`], the structure-of-arrays steppers, and [`VecEnv`] with a picture drawn at each step.

use std::collections::BTreeSet;
use std::hint::black_box;

use hotfire_envs::{
    ActionRef, Actions, AutoresetMode, BatchEnv, Buffer, ENVS, Env, EnvError, EnvSpec, NpRng, ObsMut, Options, Simd,
    Space, VecEnv, make, open_with_ffmpeg,
};

use crate::{Prepared, Workload};

/// The batch sizes of benches.
pub const SIZES: [usize; 4] = [1, 64, 1024, 4096];
/// Environments that are drawn at each step.
pub const PIXEL_ENVS: usize = 8;
/// Bytes of the observations of the largest batch.
const LARGEST_BATCH: usize = 8 << 20;

/// Which vector units the structure-of-arrays steppers are run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Levels {
    /// The best one.
    Best,
    /// All that the machine has, for CartPole-v1 and Acrobot-v1: the others tell nothing that these two do not.
    All,
}

/// Batches of random actions, used in turn.
#[derive(Debug)]
pub struct RandomActions {
    batches: Vec<Buffer>,
    at: usize,
}

impl RandomActions {
    /// Actions of the space for `num_envs` environments.
    ///
    /// # Panics
    /// If nothing can be drawn from the space.
    pub fn new(space: &Space, num_envs: usize) -> Self {
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

    /// The next batch.
    pub fn next_batch(&mut self) -> Actions<'_> {
        self.at = (self.at + 1) % self.batches.len();
        self.batches[self.at].as_actions()
    }
}

/// The largest power of two of environments whose observations fit into [`LARGEST_BATCH`].
fn most(spec: &EnvSpec) -> usize {
    let env = make(spec.id, &[]).expect("registered without required options");
    let row = Buffer::new(env.observation_space(), 1);
    let bytes = row.len() * if matches!(row, Buffer::U8(_)) { 1 } else { 4 };
    1 << (LARGEST_BATCH / bytes).max(1).ilog2()
}

/// A reset batch that steps itself.
///
/// # Errors
/// If its first step fails, as where a file for a video can't be opened.
pub fn stepping(mut envs: VecEnv) -> Result<Prepared, EnvError> {
    let num_envs = envs.num_envs();
    let mut actions = RandomActions::new(envs.action_space(), num_envs);
    envs.reset(0);
    envs.step(actions.next_batch())?;
    Ok(Prepared::new(num_envs, move || {
        envs.step(actions.next_batch()).expect("it was stepped before");
        black_box(&envs);
    }))
}

/// [`VecEnv`] of every environment, in these batch sizes; in one that fits into memory in place of a larger one.
pub fn vec_envs(sizes: &[usize]) -> Vec<Workload> {
    let mut all = Vec::new();
    for spec in ENVS {
        let most = most(spec);
        let fits = sizes.iter().map(|size| *size.min(&most)).collect::<BTreeSet<_>>();
        all.extend(fits.into_iter().map(|size| {
            let set_up = move || Ok(stepping(VecEnv::make(spec.id, size, AutoresetMode::SameStep)?)?);
            Workload::new("vec_env", spec.id, "steps", set_up).sized(size)
        }));
    }
    all
}

/// The structure-of-arrays stepper of every environment that has one.
pub fn batch_steppers(sizes: &[usize], levels: Levels) -> Vec<Workload> {
    let best = Simd::detect();
    let mut all = Vec::new();
    for (simd, lower) in
        [(Simd::Portable, "batch_portable"), (Simd::Avx2, "batch_avx2"), (Simd::Avx512, "batch_avx512")]
    {
        if simd > best || (simd < best && levels == Levels::Best) {
            continue;
        }
        let group = if simd == best { "batch" } else { lower };
        for spec in ENVS {
            if simd < best && !matches!(spec.id, "CartPole-v1" | "Acrobot-v1") {
                continue;
            }
            let Some(make_batch) = spec.make_batch else { continue };
            for &size in sizes {
                let set_up = move || {
                    let limit = spec.max_episode_steps.unwrap_or(u32::MAX);
                    let env = make_batch(&mut Options::new(spec.id, Vec::new()), size, limit, simd)?;
                    Ok(stepping_batch(env, make(spec.id, &[])?.action_space()))
                };
                all.push(Workload::new(group, spec.id, "steps", set_up).sized(size).serial());
            }
        }
    }
    all
}

fn stepping_batch(mut env: Box<dyn BatchEnv>, space: &Space) -> Prepared {
    let size = env.num_envs();
    let mut actions = RandomActions::new(space, size);
    Prepared::new(size, move || env.step(actions.next_batch()).expect("actions of the space"))
}

/// [`VecEnv`] of `num_envs` of every environment that has pictures, where each step draws one.
pub fn pixels(num_envs: usize) -> Vec<Workload> {
    let has_pictures = |spec: &&EnvSpec| {
        let rendered = |mut env: Box<dyn Env>| {
            let mut row = Buffer::new(env.observation_space(), 1);
            env.reset(&mut NpRng::seed(0), row.as_mut());
            env.render().is_some()
        };
        make(spec.id, &[]).is_ok_and(rendered)
    };
    let drawn = |spec: &'static EnvSpec| {
        let set_up = move || {
            let wrappers = [("add_render_observation".to_owned(), Vec::new())];
            let make = |index| spec.make_wrapped(&[], &wrappers, index, open_with_ffmpeg);
            let envs = (0..num_envs).map(make).collect::<Result<_, EnvError>>()?;
            Ok(stepping(VecEnv::from_envs(spec.id, envs, AutoresetMode::SameStep)?)?)
        };
        Workload::new("pixels", spec.id, "steps", set_up).sized(num_envs)
    };
    ENVS.iter().filter(has_pictures).map(drawn).collect()
}

/// One environment alone: a [`VecEnv`] of one, and the loop that one would write by hand.
pub fn single() -> Vec<Workload> {
    let plain = |spec: &'static EnvSpec| {
        let set_up = move || {
            let env = (spec.make)(&mut Options::new(spec.id, Vec::new()))?;
            Ok(plain_loop(env, spec.max_episode_steps.unwrap_or(u32::MAX)))
        };
        Workload::new("single_plain", spec.id, "steps", set_up).serial()
    };
    let vec_env = |spec: &'static EnvSpec| {
        let set_up = move || Ok(stepping(VecEnv::make(spec.id, 1, AutoresetMode::SameStep)?)?);
        Workload::new("single_vec_env", spec.id, "steps", set_up).serial()
    };
    ENVS.iter().flat_map(|spec| [plain(spec), vec_env(spec)]).collect()
}

fn plain_loop(mut env: Box<dyn Env>, limit: u32) -> Prepared {
    let mut actions = RandomActions::new(env.action_space(), 1);
    let mut rng = NpRng::seed(0);
    let mut row = Buffer::new(env.observation_space(), 1);
    let mut elapsed = 0;
    env.reset(&mut rng, row.as_mut());
    Prepared::new(1, move || {
        let action = match actions.next_batch() {
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
    })
}
