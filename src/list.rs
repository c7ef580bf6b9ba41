//! `hotfire list` and `hotfire env check`: what there is, and whether it keeps its word.

use std::fs::File;
use std::io::{BufReader, IsTerminal};
use std::path::Path;

use hotfire_agents::ALGORITHMS;
use hotfire_core::CoreError;
use hotfire_envs::{ENVS, WRAPPERS, make};

use crate::cli::{ListArgs, Listing};

pub fn list(args: &ListArgs) -> anyhow::Result<()> {
    let wanted = |what| args.what.is_none_or(|asked| asked == what);
    let columns = columns();
    if wanted(Listing::Envs) {
        println!("Environments");
        list_envs(columns)?;
    }
    if wanted(Listing::Wrappers) {
        println!("Wrappers");
        for spec in WRAPPERS {
            entry(spec.name, &format!("{} ({})", spec.summary, spec.gymnasium), columns);
            for (option, what) in spec.options {
                print_wrapped(&format!("{:NAME$}    {option}", ""), what, NAME + 31, columns);
            }
        }
    }
    if wanted(Listing::Algorithms) {
        println!("Algorithms");
        for spec in ALGORITHMS {
            entry(spec.name, &format!("{} ({})", spec.summary, spec.source), columns);
        }
    }
    if wanted(Listing::Models) {
        println!("Models");
        for spec in hotfire_generative::MODELS {
            entry(spec.name, &format!("{} ({})", spec.summary, spec.source), columns);
        }
    }
    if wanted(Listing::Data) {
        println!("Data sets");
        for spec in hotfire_generative::data::DATA {
            entry(spec.name, &format!("{} ({})", spec.summary, spec.source), columns);
        }
    }
    Ok(())
}

/// Where the text after a name starts.
const NAME: usize = 2 + 27;

/// The terminal's width; unlimited for a pipe, where one line an entry is best.
fn columns() -> usize {
    if !std::io::stdout().is_terminal() {
        return usize::MAX;
    }
    crossterm::terminal::size().map_or(80, |(columns, _)| columns.into())
}

/// Two lines an environment, or one where the window is wide enough for a table.
fn list_envs(columns: usize) -> anyhow::Result<()> {
    let header = ["observations", "actions", "step limit", "solved at"].map(str::to_owned);
    let mut rows = vec![("", header, "")];
    for spec in ENVS {
        let env = make(spec.id, &[])?;
        let limit = spec.max_episode_steps.map_or("none".to_owned(), |n| n.to_string());
        let solved = spec.reward_threshold.map_or("-".to_owned(), |r| r.to_string());
        rows.push((
            spec.id,
            [env.observation_space().brief(), env.action_space().brief(), limit, solved],
            spec.summary,
        ));
    }
    let width = |i: usize| rows.iter().map(|(_, cells, _)| cells[i].chars().count()).max().unwrap_or(0);
    let widths = [0, 1, 2, 3].map(width);
    let table = |cells: &[String; 4]| {
        let [a, b, c, d] = widths;
        format!("{:a$}  {:b$}  {:>c$}  {:>d$}", cells[0], cells[1], cells[2], cells[3])
    };
    let summaries = rows.iter().map(|(.., summary)| summary.len()).max().unwrap_or(0);
    let wide = columns >= NAME + widths.iter().sum::<usize>() + 8 + summaries;
    for (i, (id, cells, summary)) in rows.iter().enumerate() {
        if wide {
            println!("{}", format!("  {id:<27}{}  {summary}", table(cells)).trim_end());
        } else if i > 0 {
            println!("  {id:<27}{summary}");
            let [observations, actions, limit, solved] = cells;
            let limit = if limit == "none" { "no step limit".to_owned() } else { format!("{limit} steps") };
            let solved = if solved == "-" { String::new() } else { format!(", solved at {solved}") };
            print_wrapped("", &format!("{observations} -> {actions}, {limit}{solved}"), NAME, columns);
        }
    }
    Ok(())
}

fn entry(name: &str, text: &str, columns: usize) {
    print_wrapped(&format!("  {name}"), text, NAME, columns);
}

/// Prints `text` in the columns from `indent` on, after `head` in the first line.
fn print_wrapped(head: &str, text: &str, indent: usize, columns: usize) {
    let mut line = format!("{head:<indent$}");
    if line.chars().count() > indent {
        line.push(' ');
    }
    let mut empty = true;
    for word in text.split(' ') {
        if !empty && line.chars().count() + 1 + word.chars().count() > columns {
            println!("{line}");
            line = " ".repeat(indent);
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line += word;
        empty = false;
    }
    println!("{line}");
}

pub fn check_env(id: &str) -> anyhow::Result<()> {
    let mut env = make(id, &[]).map_err(|error| CoreError::Usage(error.to_string()))?;
    hotfire_envs::check_env(env.as_mut(), id)?;
    println!("{id}: keeps the environment contract");
    Ok(())
}

/// Replays recorded episodes; an error where the environment departs from them.
pub fn replay_trace(id: &str, trace: &Path, tolerance: f64) -> anyhow::Result<()> {
    let spec = hotfire_envs::spec(id).map_err(|error| CoreError::Usage(error.to_string()))?;
    let file = File::open(trace).map_err(CoreError::io(trace, "read"))?;
    let report = hotfire_envs::check_trace(spec, BufReader::new(file), tolerance)
        .map_err(|error| CoreError::Failed(format!("{}: {error}", trace.display())))?;
    if let Some(difference) = report.first_difference {
        return Err(CoreError::Failed(format!("{}: {difference}", trace.display())).into());
    }
    let skipped = match report.skipped {
        0 => String::new(),
        n => format!("; {n} left out, which no seed reproduces"),
    };
    println!(
        "{id}: {} episodes of {} steps repeat, largest difference {} of an observation and {} of a reward{skipped}",
        report.episodes, report.steps, report.max_obs_difference, report.max_reward_difference
    );
    Ok(())
}
