//! Timing in rounds: each round runs every workload once, so that the samples of one lie as far apart as the round is
//! long, and a disturbance of the machine spoils one sample of many workloads instead of all samples of one.

use std::time::{Duration, Instant};

use rayon::ThreadPool;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::{BenchError, Prepared, Workload};

/// How long to measure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// Samples of each workload.
    pub rounds: usize,
    /// The length of a sample, at least one run.
    pub sample: Duration,
    /// What is counted as time.
    pub clock: Clock,
}

/// What is counted as time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Clock {
    /// The time of day.
    #[default]
    Wall,
    /// Processor time of all threads of this process: a rate is then one a core, which other programs disturb less.
    Cpu,
}

impl Clock {
    fn now(self) -> Duration {
        let id = match self {
            Self::Wall => ClockId::Monotonic,
            Self::Cpu => ClockId::ProcessCPUTime,
        };
        let time = clock_gettime(id);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    }
}

/// A workload's rates on a number of threads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rates {
    /// The workload's name.
    pub id: String,
    /// What is counted.
    pub unit: String,
    /// The number of threads.
    pub threads: usize,
    /// Units a second in each round.
    pub rates: Vec<f64>,
}

/// What came of [`measure`].
#[derive(Debug, Default)]
pub struct Measured {
    /// In the workloads' order, the numbers of threads in theirs.
    pub results: Vec<Rates>,
    /// Workloads that can't be set up here.
    pub skipped: Vec<BenchError>,
}

/// A workload on a number of threads.
struct Cell<'a> {
    /// Index into the workloads that were set up.
    workload: usize,
    pool: &'a ThreadPool,
    /// Runs that make a sample.
    runs: u32,
}

/// Measures the workloads on each number of threads; those that run on one thread anyway, once. `progress` is told what
/// comes next and the share that is done.
///
/// # Errors
/// [`BenchError::Threads`] if the system does not start as many.
pub fn measure(
    workloads: &[&Workload],
    threads: &[usize],
    plan: Plan,
    progress: &mut dyn FnMut(&str, f64),
) -> Result<Measured, BenchError> {
    let pool = |&threads: &usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.map_err(|error| BenchError::Threads { threads, problem: error.to_string() })
    };
    let pools: Vec<ThreadPool> = threads.iter().map(pool).collect::<Result<_, _>>()?;
    let (mut measured, mut cells, mut prepared): (_, Vec<Cell<'_>>, Vec<Prepared>) =
        (Measured::default(), vec![], vec![]);
    for (i, workload) in workloads.iter().enumerate() {
        progress(&workload.id(), i as f64 / (workloads.len() * (plan.rounds + 1)) as f64);
        let mut work = match workload.set_up() {
            Ok(work) => work,
            Err(error) => {
                measured.skipped.push(error);
                continue;
            }
        };
        for pool in pools.iter().take(if workload.parallel { pools.len() } else { 1 }) {
            let runs = pool.install(|| calibrate(&mut work, plan.sample));
            cells.push(Cell { workload: prepared.len(), pool, runs });
            measured.results.push(Rates {
                id: workload.id(),
                unit: workload.unit.to_owned(),
                threads: pool.current_num_threads(),
                rates: Vec::with_capacity(plan.rounds),
            });
        }
        prepared.push(work);
    }
    for round in 0..plan.rounds {
        for (i, (cell, result)) in cells.iter().zip(&mut measured.results).enumerate() {
            let done = (round + 1) as f64 + i as f64 / cells.len() as f64;
            progress(&result.id, done / (plan.rounds + 1) as f64);
            let work = &mut prepared[cell.workload];
            result.rates.push(cell.pool.install(|| sample(work, cell.runs, plan.clock)));
        }
    }
    Ok(measured)
}

/// Warms up for the length of a sample and returns how many runs that takes, at least one.
fn calibrate(work: &mut Prepared, length: Duration) -> u32 {
    (work.run)();
    let (start, mut runs) = (Instant::now(), 0);
    while runs == 0 || start.elapsed() < length {
        (work.run)();
        runs += 1;
    }
    runs
}

/// Units a second over `runs` runs, after some that bring the caches back.
fn sample(work: &mut Prepared, runs: u32, clock: Clock) -> f64 {
    (0..runs / 5).for_each(|_| (work.run)());
    let start = clock.now();
    (0..runs).for_each(|_| (work.run)());
    (work.units * u64::from(runs)) as f64 / (clock.now() - start).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_counts_its_units() {
        let spin = Workload::new("test", "spin", "spins", || {
            Ok(Prepared::new(3, || std::thread::sleep(Duration::from_millis(2))))
        });
        let broken = Workload::new("test", "broken", "spins", || Err("no such part".into()));
        let serial = Workload::new("test", "serial", "spins", || Ok(Prepared::new(1, || ()))).serial();
        let plan = Plan { rounds: 4, sample: Duration::from_millis(1), clock: Clock::Wall };
        let mut seen = Vec::new();
        let measured = measure(&[&spin, &broken, &serial], &[1, 2], plan, &mut |_, done| seen.push(done)).unwrap();
        let shape: Vec<_> = measured.results.iter().map(|r| (r.id.as_str(), r.threads, r.rates.len())).collect();
        assert_eq!(shape, [("test/spin", 1, 4), ("test/spin", 2, 4), ("test/serial", 1, 4)]);
        // Sleeping takes at least as long as asked for: 3 units in 2 ms or more.
        assert!(measured.results[0].rates.iter().all(|rate| *rate > 0.0 && *rate <= 1500.0));
        let skipped: Vec<String> = measured.skipped.iter().map(ToString::to_string).collect();
        assert_eq!(skipped, ["test/broken: no such part"]);
        assert!(seen.is_sorted() && seen.iter().all(|done| (0.0..1.0).contains(done)), "{seen:?}");
    }

    #[test]
    fn processor_time_is_counted_where_asked_for() {
        let millisecond = Duration::from_millis(1);
        let busy = Workload::new("test", "busy", "spins", move || {
            Ok(Prepared::new(3, move || {
                let start = Clock::Cpu.now();
                while Clock::Cpu.now() - start < millisecond {}
            }))
        });
        let plan = Plan { rounds: 3, sample: millisecond, clock: Clock::Cpu };
        let measured = measure(&[&busy], &[1], plan, &mut |_, _| ()).unwrap();
        // Other threads of the process can only add to its time: 3 units in 1 ms or more.
        assert!(measured.results[0].rates.iter().all(|rate| *rate > 0.0 && *rate <= 3000.0), "{measured:?}");
    }
}
