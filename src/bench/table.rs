//! Measurements as tables for people.

use std::fmt::Write as _;

use hotfire_bench::compare::{Verdict, median};
use hotfire_bench::measure::Rates;
use hotfire_core::stats::quantile;

use super::Compared;

/// A table a group: a row a workload, a column a number of threads, each with the middle half of its samples.
pub fn rates(results: &[Rates]) -> String {
    let mut text = String::new();
    for group in results.chunk_by(|a, b| group_of(&a.id) == group_of(&b.id)) {
        let mut threads: Vec<usize> = group.iter().map(|rates| rates.threads).collect();
        threads.sort_unstable();
        threads.dedup();
        let width = group.iter().map(|rates| name_of(&rates.id).len()).max().unwrap_or(0).max(24);
        let _ = write!(text, "{:<width$}", format!("{}, {}/s", group_of(&group[0].id), group[0].unit));
        for n in &threads {
            let _ = write!(text, "  {:>18}", if *n == 1 { "1 thread".into() } else { format!("{n} threads") });
        }
        text.push('\n');
        for row in group.chunk_by(|a, b| a.id == b.id) {
            let _ = write!(text, "{:<width$}", name_of(&row[0].id));
            for n in &threads {
                let cell = row.iter().find(|rates| rates.threads == *n).map(cell).unwrap_or_default();
                let _ = write!(text, "  {cell:>18}");
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        text.push('\n');
    }
    text
}

/// The median and half the distance of the quartiles, in per cent.
fn cell(rates: &Rates) -> String {
    let middle = median(&rates.rates);
    let spread = (quantile(&rates.rates, 0.75) - quantile(&rates.rates, 0.25)) / middle * 50.0;
    format!("{} ±{spread:4.1} %", short(middle))
}

/// A row a workload and number of threads, with the interval of the ratio and the verdict.
pub fn comparisons(rows: &[Compared]) -> String {
    let width = rows.iter().map(|row| row.id.len()).max().unwrap_or(0).max(10);
    let mut text = format!("{:<width$} threads       old/s       new/s  ratio (95 % interval)\n", "benchmark");
    for row in rows {
        let ratio = row.comparison.ratio;
        let (old, new) = (short(median(&row.old)), short(median(&row.new)));
        let interval = format!("{:.3} ({:.3} to {:.3})", ratio.estimate, ratio.low, ratio.high);
        let _ = writeln!(
            text,
            "{:<width$} {:>7} {old:>11} {new:>11}  {interval:<23}  {}",
            row.id,
            row.threads,
            name(row.comparison.verdict)
        );
    }
    let count = |verdict| rows.iter().filter(|row| row.comparison.verdict == verdict).count();
    let [faster, slower, same] = [Verdict::Faster, Verdict::Slower, Verdict::NoDifference].map(count);
    let _ = writeln!(text, "{faster} faster, {slower} slower, {same} without a difference shown");
    text
}

fn name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Faster => "faster",
        Verdict::Slower => "slower",
        Verdict::NoDifference => "no difference shown",
    }
}

fn group_of(id: &str) -> &str {
    id.split_once('/').map_or(id, |(group, _)| group)
}

fn name_of(id: &str) -> &str {
    id.split_once('/').map_or(id, |(_, name)| name)
}

/// Four digits and a prefix: 41.82 k.
fn short(value: f64) -> String {
    let (scale, prefix) = match value {
        1e9.. => (1e9, " G"),
        1e6.. => (1e6, " M"),
        1e3.. => (1e3, " k"),
        _ => (1.0, "  "),
    };
    let value = value / scale;
    let digits = if value >= 100.0 { 1 } else { 2 };
    format!("{value:.digits$}{prefix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_a_group_with_a_column_a_number_of_threads() {
        let rates_of = |id: &str, threads, rates: &[f64]| Rates {
            id: id.into(),
            unit: "steps".into(),
            threads,
            rates: rates.to_vec(),
        };
        let results = [
            rates_of("vec_env/CartPole-v1/64", 1, &[40e6, 41e6, 42e6]),
            rates_of("vec_env/CartPole-v1/64", 2, &[80e6]),
            rates_of("gae/gae/4", 1, &[1234.0]),
        ];
        assert_eq!(
            rates(&results),
            "vec_env, steps/s                    1 thread           2 threads\n\
             CartPole-v1/64               41.00 M ± 1.2 %     80.00 M ± 0.0 %\n\n\
             gae, steps/s                        1 thread\n\
             gae/4                         1.23 k ± 0.0 %\n\n"
        );
        assert_eq!([short(593e6), short(5.25), short(2.5e9)], ["593.0 M", "5.25  ", "2.50 G"]);
    }
}
