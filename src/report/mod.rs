//! `hotfire report`: runs and sweeps as one self-contained page, with the plots as PNG and the numbers as CSV beside it:
//! `numbers.csv` has a line for each run, `groups.csv` for each configuration, `curves.csv` for each step of the curves.

mod compare;
mod curves;
mod draw;
mod page;
mod runs;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use hotfire_core::CoreError;
use hotfire_core::config::leaves;
use hotfire_core::run_dir::write_atomic;
use toml::Value;

use crate::cli::ReportArgs;
use crate::sweep::{Direction, State, SweepFile, evaluation_metric, objective, read_trials};
use crate::train::prepare;
use curves::Curves;
use runs::{Group, Task};

/// Curves in one plot: more can't be told apart.
const CURVES_SHOWN: usize = 8;

pub fn report(args: &ReportArgs) -> anyhow::Result<()> {
    let sweeps: Vec<Sweep> =
        args.paths.iter().map(|path| Sweep::open(path)).filter_map(Result::transpose).collect::<Result<_, _>>()?;
    // What several sweeps are about is asked for, or as usual.
    let sweep = if args.paths.len() == 1 { sweeps.first() } else { None };
    let mut runs = runs::load(&args.paths)?;
    for run in &mut runs {
        run.pruned = sweeps.iter().any(|sweep| sweep.pruned.contains(&run.path));
    }
    if let Some(asked) = &args.objective {
        measured(&runs, asked)?;
    }
    let asked = args.objective.clone().or(sweep.map(|sweep| sweep.file.objective.clone()));
    let direction = args.direction.map(Into::into).or(sweep.map(|sweep| sweep.file.direction));
    let tasks = runs::group(runs, asked.as_deref(), direction);
    let out = args.out.clone().unwrap_or_else(|| args.paths[0].join("report"));
    fs::create_dir_all(&out).map_err(CoreError::io(&out, "make the report's directory"))?;

    let title = args.paths.iter().map(|path| name_of(path)).collect::<Vec<_>>().join(", ");
    let mut sections = Vec::new();
    for (i, task) in tasks.iter().enumerate() {
        let stem = if tasks.len() > 1 { format!("{}-", slug(&task.name)) } else { String::new() };
        let metric = evaluation_metric(&task.objective);
        let shown = &task.groups[..task.groups.len().min(CURVES_SHOWN)];
        let curves = curves::all(shown, &metric);
        if let Some(first) = curves.first() {
            write_atomic(&out.join(format!("{stem}curves.csv")), curves_csv(shown, first).as_bytes())?;
        }
        let target = args.target.or_else(|| threshold(task));
        let section = page::Section {
            name: task.name.clone(),
            objective: task.objective.clone(),
            maximize: task.direction == Direction::Maximize,
            target,
            rows: compare::rows(task, target),
            profile: compare::profile(task),
            pairs: compare::pairs(task),
            keys: compare::keys(task),
            difference: match (sweep, i) {
                (Some(sweep), 0) => sweep.difference(task)?,
                _ => Vec::new(),
            },
            media: page::media(shown),
            curves,
        };
        draw::all(&out, &stem, &section)?;
        sections.push(section);
    }
    write_atomic(&out.join("numbers.csv"), csv(&tasks).as_bytes())?;
    write_atomic(&out.join("groups.csv"), groups_csv(&sections).as_bytes())?;
    let failed: Vec<String> = sweeps.into_iter().flat_map(|sweep| sweep.failed).collect();
    let html = page::html(&title, &sections, &environment(&tasks), &failed)?;
    write_atomic(&out.join("index.html"), html.as_bytes())?;
    if !args.quiet {
        println!("{}", out.join("index.html").display());
    }
    Ok(())
}

/// Refuses an objective that no finished run has.
fn measured(runs: &[runs::Run], asked: &str) -> Result<(), CoreError> {
    let mut finished = runs.iter().filter(|run| run.status() == "finished").peekable();
    let Some(first) = finished.peek() else { return Ok(()) };
    let Err(problem) = objective(&first.summary, asked) else { return Ok(()) };
    if finished.any(|run| run.number(asked).is_some()) {
        return Ok(());
    }
    Err(CoreError::Usage(format!("--objective {asked}: {problem}")))
}

/// A sweep that a report is about.
struct Sweep {
    file: SweepFile,
    /// Trials that failed, and why.
    failed: Vec<String>,
    /// Run directories of trials that were ended early.
    pruned: Vec<PathBuf>,
}

impl Sweep {
    fn open(path: &Path) -> anyhow::Result<Option<Self>> {
        let Some(trials) = read_trials(path)? else { return Ok(None) };
        let sweep = name_of(path);
        let failed = trials
            .iter()
            .filter(|trial| trial.state == State::Failed)
            .map(|trial| format!("{sweep}, {}: {}", trial.name(), trial.error.as_deref().unwrap_or("failed")))
            .collect();
        let pruned = trials.iter().filter(|trial| trial.state == State::Pruned);
        let pruned = pruned.filter_map(|trial| trial.run_dir.canonicalize().ok()).collect();
        Ok(Some(Self { file: SweepFile::reload(&path.join("sweep.toml"))?, failed, pruned }))
    }

    /// The best configuration against the base config: key, base value, best value.
    fn difference(&self, task: &Task) -> anyhow::Result<Vec<[String; 3]>> {
        let Some(best) = task.groups.first().filter(|best| !best.scores.is_empty()) else { return Ok(Vec::new()) };
        // A base config that has gone since is no reason to have no report.
        let Ok(base) = prepare(&self.file.base, &[], None) else { return Ok(Vec::new()) };
        let values = leaves(&base.resolved.parse()?);
        let own = |key: &str| key.starts_with("run.");
        let keys: BTreeSet<&String> = values.keys().chain(best.configuration.keys()).filter(|key| !own(key)).collect();
        let text = |value: Option<String>| value.unwrap_or_else(|| "—".into());
        Ok(keys
            .into_iter()
            .map(|key| {
                [key.clone(), text(values.get(key).map(Value::to_string)), text(best.configuration.get(key).cloned())]
            })
            .filter(|[_, base, best]| base != best)
            .collect())
    }
}

/// The return at which the environment counts as solved, for agents judged by their mean return.
fn threshold(task: &Task) -> Option<f64> {
    if task.objective != "eval.mean" {
        return None;
    }
    hotfire_envs::spec(&task.name).ok()?.reward_threshold
}

/// One line a run.
fn csv(tasks: &[Task]) -> String {
    let mut text =
        "task,configuration,run,seed,status,objective,score,steps,wall_seconds,steps_per_second\n".to_owned();
    let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
    for task in tasks {
        for group in &task.groups {
            for run in &group.runs {
                let fields = [
                    quoted(&task.name),
                    quoted(&group.label),
                    quoted(&run.name()),
                    run.seed().to_string(),
                    run.status().to_owned(),
                    task.objective.clone(),
                    number(run.number(&task.objective)),
                    number(run.number("steps")),
                    number(run.number("wall_seconds")),
                    number(run.number("steps_per_second")),
                ];
                let _ = writeln!(text, "{}", fields.join(","));
            }
        }
    }
    text
}

/// One line a configuration: the interquartile mean with its 95 % interval, medians of the rest.
fn groups_csv(sections: &[page::Section]) -> String {
    let mut text =
        "task,configuration,objective,runs,interquartile_mean,low,high,mean,steps,wall_seconds,steps_per_second\n"
            .to_owned();
    for section in sections {
        for row in &section.rows {
            let fields = [
                quoted(&section.name),
                quoted(&row.label),
                section.objective.clone(),
                row.runs.to_string(),
                six_digits(row.interquartile_mean),
                six_digits(row.interval.map(|interval| interval.low)),
                six_digits(row.interval.map(|interval| interval.high)),
                six_digits(row.mean),
                row.steps.map_or(String::new(), |steps| steps.to_string()),
                six_digits(row.wall_seconds),
                six_digits(row.steps_per_second),
            ];
            let _ = writeln!(text, "{}", fields.join(","));
        }
    }
    text
}

/// One line a step: for each configuration the mean and the middle half over the seeds.
fn curves_csv(groups: &[Group], curves: &Curves) -> String {
    let names =
        groups.iter().flat_map(|group| ["", " low", " high"].map(|end| quoted(&format!("{}{end}", group.label))));
    let mut text = format!("step,{}\n", names.collect::<Vec<_>>().join(","));
    for (i, step) in curves.steps.iter().enumerate() {
        let values =
            curves.groups.iter().flat_map(|curve| [curve.mean[i], curve.low[i], curve.high[i]].map(six_digits));
        let _ = writeln!(text, "{step},{}", values.collect::<Vec<_>>().join(","));
    }
    text
}

/// A number that was measured, of whatever size: further digits say nothing.
fn six_digits(value: Option<f64>) -> String {
    let rounded = value.and_then(|value| format!("{value:.5e}").parse::<f64>().ok());
    rounded.map_or(String::new(), |value| value.to_string())
}

fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field.to_owned() }
}

/// Where the runs were made; each value that occurs.
fn environment(tasks: &[Task]) -> Vec<[String; 2]> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for run in tasks.iter().flat_map(|task| &task.groups).flat_map(|group| &group.runs) {
        let device = run.summary.get("device").and_then(serde_json::Value::as_str);
        let facts = run.environment.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        for (key, value) in facts.chain(device.map(|device| ("device", device))) {
            found.entry(key.to_owned()).or_default().insert(value.to_owned());
        }
    }
    found.into_iter().map(|(key, values)| [key, values.into_iter().collect::<Vec<_>>().join(", ")]).collect()
}

fn name_of(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn slug(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' }).collect()
}

/// The pictures of a run.
fn pictures(group: &Group) -> Option<(&runs::Run, Vec<PathBuf>)> {
    group.runs.iter().map(|run| (run, run.media())).find(|(_, files)| !files.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_numbers_keep_their_digits() {
        let found = [0.00123456789, -475.0, 1234567.0, 0.1 + 0.2].map(|value| six_digits(Some(value)));
        assert_eq!(found, ["0.00123457", "-475", "1234570", "0.3"]);
        assert_eq!(six_digits(None), "");
    }
}
