//! `hotfire bench`: what this machine makes a second, and whether that differs from a record or from another program.

mod record;
mod table;

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write, stderr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use hotfire_bench::compare::{Comparison, Design, Verdict, compare};
use hotfire_bench::measure::{Clock, Measured, Plan, Rates, measure};
use hotfire_bench::{BenchError, Workload, workloads};
use hotfire_core::CoreError;
use serde::Serialize;

use crate::cli::BenchArgs;
use record::Record;

/// Ratios so near to 1 count as no difference where both sides are measured in turn...
const ALTERNATING_TOLERANCE: f64 = 0.02;
/// ... and where a record is older: the machine may have been another then in ways that no sample shows.
const RECORD_TOLERANCE: f64 = 0.05;

/// A workload on both sides.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    pub id: String,
    pub unit: String,
    pub threads: usize,
    /// Rates in the record, or of the other program.
    pub old: Vec<f64>,
    /// Rates of this program.
    pub new: Vec<f64>,
    #[serde(flatten)]
    pub comparison: Comparison,
}

pub fn bench(args: &BenchArgs) -> anyhow::Result<()> {
    let plan = plan(args);
    let all = workloads(args.num_envs);
    let chosen = if args.round { exactly(&all, &args.filters) } else { matching(&all, &args.filters)? };
    if args.list {
        chosen.iter().for_each(|workload| println!("{}", workload.id()));
        return Ok(());
    }
    let threads = threads(args);
    if let Some(name) = &args.save {
        record::check_name(name)?;
    }
    let old = args.against.as_ref().map(|name| Record::load(&args.dir, name)).transpose()?;
    let other = match (&args.against_binary, &args.against) {
        (Some(path), _) => Some(path.clone()),
        (None, Some(name)) => record::kept_program(&args.dir, name),
        (None, None) => None,
    };
    if let (Some(old), None) = (&old, &other) {
        old.check_settings(args.num_envs, plan.clock)?;
    }

    let (measured, compared) = match (&other, &old) {
        (Some(program), _) => alternate(program, &chosen, &threads, plan, args)?,
        (None, Some(old)) => against_record(old, &chosen, &threads, plan)?,
        (None, None) => (show_progress(&chosen, &threads, plan)?, Vec::new()),
    };
    let record = Record::new(args.num_envs, plan, measured.results);
    if args.json || args.round {
        println!("{}", record.to_json(&measured.skipped, &compared));
    } else if other.is_some() || old.is_some() {
        print!("{}", table::comparisons(&compared));
    } else {
        print!("{}", table::rates(&record.results));
    }
    for skipped in measured.skipped.iter().filter(|_| !args.round) {
        eprintln!("left out: {skipped}");
    }
    if let Some(name) = &args.save {
        let path = record.save(&args.dir, name)?;
        record::keep_program(&args.dir, name, args.keep_program)?;
        eprintln!("saved {}", path.display());
    }
    if compared.is_empty() && (other.is_some() || old.is_some()) {
        let found = format!("found none of these benchmarks on {threads:?} threads");
        return Err(CoreError::Failed(format!("nothing to compare with: {found}")).into());
    }
    let slower = compared.iter().filter(|row| row.comparison.verdict == Verdict::Slower).count();
    if args.fail_if_slower && slower > 0 {
        return Err(CoreError::Failed(format!("{slower} of {} benchmarks are slower", compared.len())).into());
    }
    Ok(())
}

fn plan(args: &BenchArgs) -> Plan {
    let (rounds, sample) = if args.quick { (5, 10) } else { (10, 50) };
    let rounds = args.rounds.map_or(rounds, usize::from);
    let clock = if args.cpu_time { Clock::Cpu } else { Clock::Wall };
    Plan { rounds, sample: Duration::from_millis(args.sample_ms.unwrap_or(sample)), clock }
}

/// The numbers of threads to measure on: those asked for, or one and all.
fn threads(args: &BenchArgs) -> Vec<usize> {
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    let asked = args.threads.iter().map(|n| usize::from(*n)).collect::<BTreeSet<_>>();
    if asked.is_empty() { BTreeSet::from([1, all]) } else { asked }.into_iter().collect()
}

/// The workloads whose names contain one of the filters; all without filters.
fn matching<'a>(all: &'a [Workload], filters: &[String]) -> Result<Vec<&'a Workload>, CoreError> {
    for filter in filters {
        if !all.iter().any(|workload| workload.id().contains(filter)) {
            let mut groups: Vec<&str> = all.iter().map(|workload| workload.group).collect();
            groups.dedup();
            let error = BenchError::NoMatch { filter: filter.clone(), groups: groups.join(", ") };
            return Err(CoreError::Usage(error.to_string()));
        }
    }
    let wanted = |w: &&Workload| filters.is_empty() || filters.iter().any(|filter| w.id().contains(filter));
    Ok(all.iter().filter(wanted).collect())
}

/// The workloads of these names, without those that this program does not have.
fn exactly<'a>(all: &'a [Workload], ids: &[String]) -> Vec<&'a Workload> {
    all.iter().filter(|workload| ids.contains(&workload.id())).collect()
}

/// Measures with a line in the terminal that tells how far it is.
fn show_progress(workloads: &[&Workload], threads: &[usize], plan: Plan) -> Result<Measured, BenchError> {
    let mut line = Progress::new();
    measure(workloads, threads, plan, &mut |id, done| line.show(id, done))
}

/// One line in the terminal, if there is one.
struct Progress {
    terminal: bool,
}

impl Progress {
    fn new() -> Self {
        Self { terminal: stderr().is_terminal() }
    }

    fn show(&mut self, what: &str, done: f64) {
        if self.terminal {
            eprint!("\r\x1b[K{:3.0} % {what}", 100.0 * done);
            let _ = stderr().flush();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.terminal {
            eprint!("\r\x1b[K");
        }
    }
}

/// Measures and compares with a record. What seems different is measured once more and stays different only if it is
/// so again: of hundreds of intervals at 95 % some miss.
fn against_record(
    old: &Record,
    chosen: &[&Workload],
    threads: &[usize],
    plan: Plan,
) -> Result<(Measured, Vec<Compared>), BenchError> {
    let judge = |new: &[Rates]| paired(&old.results, new, Design::Separate, RECORD_TOLERANCE);
    let known: Vec<&Workload> =
        chosen.iter().copied().filter(|w| old.results.iter().any(|rates| rates.id == w.id())).collect();
    let mut measured = show_progress(&known, threads, plan)?;
    let mut compared = judge(&measured.results);
    let again = doubtful(&compared, &known);
    if !again.is_empty() {
        confirm(&mut compared, judge(&show_progress(&again, threads, plan)?.results));
    }
    measured.skipped.extend(unmatched(chosen, &compared, "the record"));
    Ok((measured, compared))
}

/// Measures the other program and this one in turn, each in a process of its own for each round.
fn alternate(
    program: &Path,
    chosen: &[&Workload],
    threads: &[usize],
    plan: Plan,
    args: &BenchArgs,
) -> anyhow::Result<(Measured, Vec<Compared>)> {
    let this = std::env::current_exe().context("this program's own file")?;
    let mut line = Progress::new();
    let mut run = |workloads: &[&Workload]| -> anyhow::Result<[Vec<Rates>; 2]> {
        let mut sides = [Vec::new(), Vec::new()];
        for round in 0..plan.rounds {
            line.show("old and new in turn", round as f64 / plan.rounds as f64);
            // The order changes, so that neither is always the one to come after a warm machine.
            for side in if round % 2 == 0 { [0, 1] } else { [1, 0] } {
                let one = one_round([program, &this][side], workloads, threads, plan, args)?;
                append(&mut sides[side], one, round);
            }
        }
        Ok(sides)
    };
    let judge = |[old, new]: &[Vec<Rates>; 2]| paired(old, new, Design::Alternating, ALTERNATING_TOLERANCE);
    let sides = run(chosen)?;
    let mut compared = judge(&sides);
    let again = doubtful(&compared, chosen);
    if !again.is_empty() {
        confirm(&mut compared, judge(&run(&again)?));
    }
    let [_, results] = sides;
    let skipped = unmatched(chosen, &compared, "one of the programs");
    Ok((Measured { results, skipped }, compared))
}

/// Runs a program for one round.
fn one_round(
    program: &Path,
    workloads: &[&Workload],
    threads: &[usize],
    plan: Plan,
    args: &BenchArgs,
) -> anyhow::Result<Vec<Rates>> {
    let threads: Vec<String> = threads.iter().map(ToString::to_string).collect();
    let output = Command::new(program)
        .args(["bench", "--round", "--rounds", "1"])
        .args(["--sample-ms", &plan.sample.as_millis().to_string()])
        .args(["--num-envs", &args.num_envs.to_string(), "--threads", &threads.join(",")])
        .args((plan.clock == Clock::Cpu).then_some("--cpu-time"))
        .args(workloads.iter().map(|workload| workload.id()))
        .output()
        .with_context(|| format!("{}: cannot run it", program.display()))?;
    let failed = |problem: String| CoreError::Failed(format!("{}: {problem}", program.display()));
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().next_back().unwrap_or("nothing").to_owned();
        return Err(failed(format!("expected a program with `bench --round`; it said: {said}")).into());
    }
    let record = Record::parse(&output.stdout).map_err(failed)?;
    Ok(record.results)
}

/// Adds a round's rates; a workload that was missing in an earlier round stays out.
fn append(all: &mut Vec<Rates>, round: Vec<Rates>, index: usize) {
    if index == 0 {
        *all = round;
        return;
    }
    for rates in round {
        let same = |known: &&mut Rates| known.id == rates.id && known.threads == rates.threads;
        if let Some(known) = all.iter_mut().find(same) {
            known.rates.extend(rates.rates);
        }
    }
    all.retain(|rates| rates.rates.len() == index + 1);
}

/// Compares what both sides have.
fn paired(old: &[Rates], new: &[Rates], design: Design, tolerance: f64) -> Vec<Compared> {
    let pair = |new: &Rates| {
        let old = old.iter().find(|old| old.id == new.id && old.threads == new.threads)?;
        Some(Compared {
            id: new.id.clone(),
            unit: new.unit.clone(),
            threads: new.threads,
            comparison: compare(&old.rates, &new.rates, design, tolerance),
            old: old.rates.clone(),
            new: new.rates.clone(),
        })
    };
    new.iter().filter_map(pair).collect()
}

/// The workloads that seem different.
fn doubtful<'a>(compared: &[Compared], chosen: &[&'a Workload]) -> Vec<&'a Workload> {
    let different = |row: &&Compared| row.comparison.verdict != Verdict::NoDifference;
    let ids: BTreeSet<&str> = compared.iter().filter(different).map(|row| row.id.as_str()).collect();
    chosen.iter().copied().filter(|workload| ids.contains(workload.id().as_str())).collect()
}

/// Takes back a verdict that the second look does not give too.
fn confirm(compared: &mut [Compared], second: Vec<Compared>) {
    for row in compared.iter_mut().filter(|row| row.comparison.verdict != Verdict::NoDifference) {
        let same = |other: &&Compared| other.id == row.id && other.threads == row.threads;
        if second.iter().find(same).is_none_or(|other| other.comparison.verdict != row.comparison.verdict) {
            row.comparison.verdict = Verdict::NoDifference;
        }
    }
}

/// The workloads that a side does not have.
fn unmatched(chosen: &[&Workload], compared: &[Compared], side: &str) -> Vec<BenchError> {
    let missing = chosen.iter().filter(|workload| compared.iter().all(|row| row.id != workload.id()));
    missing.map(|workload| BenchError::SetUp { id: workload.id(), problem: format!("not in {side}") }).collect()
}

#[cfg(test)]
mod tests {
    use hotfire_core::stats::Interval;

    use super::*;

    fn rates(id: &str, threads: usize, rates: &[f64]) -> Rates {
        Rates { id: id.into(), unit: "steps".into(), threads, rates: rates.to_vec() }
    }

    fn row(id: &str, verdict: Verdict) -> Compared {
        let ratio = Interval { estimate: 1.0, low: 1.0, high: 1.0 };
        Compared {
            id: id.into(),
            unit: "steps".into(),
            threads: 1,
            old: vec![1.0],
            new: vec![1.0],
            comparison: Comparison { ratio, verdict },
        }
    }

    #[test]
    fn only_the_same_workload_on_the_same_threads_is_compared() {
        let old = [rates("a", 1, &[1.0; 4]), rates("a", 2, &[2.0; 4]), rates("b", 1, &[1.0; 4])];
        let new = [rates("a", 2, &[3.0; 4]), rates("c", 1, &[1.0; 4])];
        let compared = paired(&old, &new, Design::Separate, 0.05);
        assert_eq!(compared.len(), 1);
        assert_eq!(
            (compared[0].id.as_str(), compared[0].threads, compared[0].comparison.ratio.estimate),
            ("a", 2, 1.5)
        );
        assert_eq!(compared[0].comparison.verdict, Verdict::Faster);
    }

    #[test]
    fn a_verdict_stands_only_if_the_second_look_agrees() {
        let mut first = vec![
            row("slower twice", Verdict::Slower),
            row("slower once", Verdict::Slower),
            row("both ways", Verdict::Slower),
            row("gone", Verdict::Faster),
            row("never", Verdict::NoDifference),
        ];
        let second = vec![
            row("slower twice", Verdict::Slower),
            row("slower once", Verdict::NoDifference),
            row("both ways", Verdict::Faster),
        ];
        confirm(&mut first, second);
        let verdicts: Vec<Verdict> = first.iter().map(|row| row.comparison.verdict).collect();
        let same = Verdict::NoDifference;
        assert_eq!(verdicts, [Verdict::Slower, same, same, same, same]);
    }

    #[test]
    fn rounds_are_joined_by_name_and_threads() {
        let mut all = Vec::new();
        append(&mut all, vec![rates("a", 1, &[1.0]), rates("a", 2, &[2.0]), rates("b", 1, &[3.0])], 0);
        append(&mut all, vec![rates("a", 2, &[2.5]), rates("a", 1, &[1.5])], 1);
        assert_eq!(all, [rates("a", 1, &[1.0, 1.5]), rates("a", 2, &[2.0, 2.5])]);
    }
}
