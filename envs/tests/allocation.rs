//! Steps allocate nothing, and how large batches are: counted by the allocator itself.

#![allow(unsafe_code)] // An allocator can't be written without; this one hands everything on to the system's.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::examples::{examples, made, view};
use hotfire_envs::{Actions, AutoresetMode, Buffer, ENVS, NpRng, ObsMut, Space, VecEnv, make, make_batch};

/// Counts for each thread by itself: tests run side by side.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static LIVE: Cell<i64> = const { Cell::new(0) };
    static PEAK: Cell<i64> = const { Cell::new(0) };
}

impl Counting {
    fn count(allocations: u64, bytes: i64) {
        ALLOCATIONS.set(ALLOCATIONS.get() + allocations);
        LIVE.set(LIVE.get() + bytes);
        PEAK.set(PEAK.get().max(LIVE.get()));
    }
}

// SAFETY: every call is the system allocator's own; counting in cells without destructors does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count(1, layout.size() as i64);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::count(1, layout.size() as i64);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        Self::count(0, -(layout.size() as i64));
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        Self::count(1, new_size as i64 - layout.size() as i64);
        unsafe { System.realloc(memory, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of this thread during `work`.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

/// A batch of random actions.
fn sample(space: &Space, rows: &mut Buffer, rng: &mut NpRng) {
    let width = space.len();
    match rows {
        Buffer::F32(x) => x.chunks_mut(width).for_each(|r| space.sample_into(rng, ObsMut::F32(r)).unwrap()),
        Buffer::U8(x) => x.chunks_mut(width).for_each(|r| space.sample_into(rng, ObsMut::U8(r)).unwrap()),
        Buffer::I32(x) => x.chunks_mut(width).for_each(|r| space.sample_into(rng, ObsMut::I32(r)).unwrap()),
    }
}

/// Allocations in steps and in resets between them, of a batch on one thread, after `warm` steps that may grow buffers.
fn stepped(mut envs: VecEnv, warm: usize, steps: usize) -> (u64, u64) {
    let (space, mut rng) = (envs.action_space().clone(), NpRng::seed(1));
    let mut actions = Buffer::new(&space, envs.num_envs());
    let (mut in_steps, mut in_resets) = (0, 0);
    envs.reset(3);
    for step in 0..warm + steps {
        sample(&space, &mut actions, &mut rng);
        let count = allocations(|| envs.step(view(&actions)).unwrap());
        // Long episodes are cut.
        let due = step % 60 == 59;
        let ended: Vec<_> = envs.terminated().iter().zip(envs.truncated()).map(|(a, b)| *a || *b || due).collect();
        let resets = allocations(|| envs.reset_masked(&ended).unwrap());
        if step >= warm {
            (in_steps, in_resets) = (in_steps + count, in_resets + resets);
        }
    }
    (in_steps, in_resets)
}

/// A pool of one thread: handing parts of a batch to others may allocate.
fn alone<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(work)
}

#[test]
fn the_allocator_counts() {
    let mut kept = Vec::new();
    assert_eq!(allocations(|| kept.push([0u8; 100])), 1);
    assert_eq!(allocations(|| kept[0][3] = 1), 0);
    assert!(LIVE.get() >= 100);
}

#[test]
fn no_environment_allocates_in_a_step() {
    for spec in ENVS {
        let envs = VecEnv::make(spec.id, 3, AutoresetMode::Disabled).unwrap();
        let (in_steps, in_resets) = alone(move || stepped(envs, 0, 400));
        assert_eq!(in_steps, 0, "{} allocates in its steps", spec.id);
        // A new track has another length.
        let builds = spec.id == "CarRacing-v3";
        println!("{}: {in_resets} allocations in resets", spec.id);
        assert!(in_resets == 0 || builds, "{}: {in_resets} allocations in its resets", spec.id);
    }
}

#[test]
fn no_wrapper_allocates_in_a_step() {
    for (id, wrappers) in examples() {
        // These draw pictures.
        if wrappers.iter().any(|(name, _)| ["add_render_observation", "record_video"].contains(&name.as_str())) {
            continue;
        }
        let envs = (0..3).map(|_| made(id, &wrappers)).collect();
        let envs = VecEnv::from_envs(id, envs, AutoresetMode::Disabled).unwrap();
        let (in_steps, in_resets) = alone(move || stepped(envs, 0, 300));
        assert_eq!(in_steps, 0, "{id} with {wrappers:?} allocates in its steps");
        assert!(in_resets == 0 || id.starts_with("CarRacing"), "{id} with {wrappers:?}: {in_resets} in resets");
    }
}

#[test]
fn no_batch_stepper_allocates() {
    for spec in ENVS.iter().filter(|spec| spec.make_batch.is_some()) {
        let space = make(spec.id, &[]).unwrap().action_space().clone();
        let mut batch = make_batch(spec.id, &[], 100).unwrap();
        let (mut actions, mut rng) = (Buffer::new(&space, 100), NpRng::seed(2));
        let count = (0..300).map(|_| {
            sample(&space, &mut actions, &mut rng);
            allocations(|| batch.step(view(&actions)).unwrap())
        });
        assert_eq!(count.sum::<u64>(), 0, "{}", spec.id);
        assert_eq!(allocations(|| batch.reset(5)), 0, "{}", spec.id);
    }
}

/// Most bytes that were in use at once during `work`.
fn peak(work: impl FnOnce()) -> i64 {
    let before = LIVE.get();
    PEAK.set(before);
    work();
    PEAK.get() - before
}

#[test]
fn a_million_cart_poles_take_less_than_100_megabytes() {
    const N: usize = 1_000_000;
    let batch = peak(|| {
        let mut batch = make_batch("CartPole-v1", &[], N).unwrap();
        let actions = vec![1; N];
        // Long enough for all to fall and start anew.
        let fallen = (0..12).map(|_| {
            batch.step(Actions::I32(&actions)).unwrap();
            batch.terminated().iter().filter(|x| **x == 1).count()
        });
        assert_eq!(fallen.sum::<usize>(), N);
    });
    println!("a million copies of CartPole-v1 with their actions: {:.1} MB", batch as f64 / 1e6);
    assert!(batch < 100_000_000, "{batch} bytes");
    let scalar = peak(|| drop(VecEnv::make("CartPole-v1", N / 100, AutoresetMode::SameStep).unwrap()));
    println!("as many in a `VecEnv`, by a hundredth of them: {:.0} MB", scalar as f64 / 1e4);
}
