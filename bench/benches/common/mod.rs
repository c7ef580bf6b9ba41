//! Workloads as criterion benches: a group a number of threads, so that the report reads as a table of names and sizes.

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use hotfire_bench::Workload;

/// Settings that do with half a second for each workload.
pub fn criterion() -> Criterion {
    assert!(hotfire_core::plot::register_fonts(), "the built-in font is not readable");
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500))
        .configure_from_args()
}

/// Benches the workloads on these numbers of threads; those that run on one thread anyway, once and without a number.
///
/// Times are those of one unit of work: a step of one environment, say, however large the batch. A workload is set up
/// when it is measured, so that a filter costs nothing.
pub fn bench(c: &mut Criterion, workloads: &[Workload], threads: &[usize]) {
    for threads in threads {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(*threads).build().expect("a thread pool");
        for same_group in workloads.chunk_by(|a, b| a.group == b.group) {
            let [first, ..] = same_group else { continue };
            if !first.parallel && *threads > 1 {
                continue;
            }
            let name = if first.parallel { format!("{}_{threads}", first.group) } else { first.group.to_owned() };
            let mut group = c.benchmark_group(name);
            group.throughput(Throughput::Elements(1));
            for workload in same_group {
                let id = match workload.size {
                    Some(size) => BenchmarkId::new(&workload.name, size),
                    None => BenchmarkId::from_parameter(&workload.name),
                };
                let mut work = None;
                group.bench_function(id, |b| {
                    let work = work.get_or_insert_with(|| workload.set_up().unwrap_or_else(|error| panic!("{error}")));
                    b.iter_custom(|runs| {
                        let time = pool.install(|| {
                            let start = Instant::now();
                            (0..runs).for_each(|_| (work.run)());
                            start.elapsed()
                        });
                        time.div_f64(work.units as f64)
                    });
                });
            }
        }
    }
}
