//! `hotfire list` and `hotfire env check`: what there is, and whether it keeps its word.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use hotfire_agents::ALGORITHMS;
use hotfire_core::CoreError;
use hotfire_envs::{ENVS, make};

use crate::cli::{ListArgs, Listing};

pub fn list(args: &ListArgs) -> anyhow::Result<()> {
    let wanted = |what| args.what.is_none_or(|asked| asked == what);
    if wanted(Listing::Envs) {
        println!("Environments");
        for spec in ENVS {
            let env = make(spec.id, &[])?;
            println!("  {:<27} {}", spec.id, spec.summary);
            println!("  {:<27} observations {}", "", env.observation_space());
            println!("  {:<27} actions {}", "", env.action_space());
            let limit = spec.max_episode_steps.map_or("no step limit".into(), |n| format!("limit {n} steps"));
            let solved = spec.reward_threshold.map_or(String::new(), |r| format!(", solved at return {r}"));
            println!("  {:<27} {limit}{solved}", "");
        }
    }
    if wanted(Listing::Algorithms) {
        println!("Algorithms");
        for spec in ALGORITHMS {
            println!("  {:<27} {} ({})", spec.name, spec.summary, spec.source);
        }
    }
    if wanted(Listing::Models) {
        println!("Models");
        for spec in hotfire_generative::MODELS {
            println!("  {:<27} {} ({})", spec.name, spec.summary, spec.source);
        }
    }
    if wanted(Listing::Data) {
        println!("Data sets");
        for spec in hotfire_generative::data::DATA {
            println!("  {:<27} {} ({})", spec.name, spec.summary, spec.source);
        }
    }
    Ok(())
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
