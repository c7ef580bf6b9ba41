//! `hotfire data`: whole data sets from the network, and pictures of agents at work.

use std::path::PathBuf;

use hotfire_core::CoreError;
use hotfire_core::media::save_png;
use hotfire_envs::Frame;
use hotfire_generative::data::fetch::{DOWNLOADS, fetch};

use crate::cli::{DataCommand, FetchArgs, FramesArgs};
use crate::train::{RunTask, load_run};

pub fn data(command: &DataCommand) -> anyhow::Result<()> {
    match command {
        DataCommand::Fetch(args) => fetch_set(args),
        DataCommand::Frames(args) => frames(args),
    }
}

fn fetch_set(args: &FetchArgs) -> anyhow::Result<()> {
    let Some(download) = DOWNLOADS.iter().find(|download| download.name == args.name) else {
        let known: Vec<&str> = DOWNLOADS.iter().map(|download| download.name).collect();
        let hint = match hotfire_core::error::nearest(&args.name, known.iter().copied()) {
            Some(name) => format!("did you mean {name}?"),
            None => format!("known: {}", known.join(", ")),
        };
        return Err(CoreError::Usage(format!("{:?} can't be fetched; {hint}", args.name)).into());
    };
    let dir = args.dir.clone().unwrap_or_else(|| PathBuf::from("datasets").join(download.name));
    let mirrors: Vec<&str> = match args.mirrors.is_empty() {
        true => download.mirrors.to_vec(),
        false => args.mirrors.iter().map(String::as_str).collect(),
    };
    fetch(download, &mirrors, &dir, &mut |note| println!("{note}")).map_err(CoreError::from)?;
    println!("use it with data.name={} data.dir={}", download.name, dir.display());
    Ok(())
}

/// Writes pictures of the run's agent until there are enough, episode after episode.
fn frames(args: &FramesArgs) -> anyhow::Result<()> {
    let prepared = load_run(&args.run, &[], false)?;
    let RunTask::Agent(task) = &prepared.task else {
        return Err(CoreError::Usage(format!("{}: holds a model; frames are of agents", args.run.display())).into());
    };
    std::fs::create_dir_all(&args.out).map_err(CoreError::io(&args.out, "make"))?;
    let seed = args.seed.unwrap_or(prepared.run.seed);
    let (mut seen, mut written, mut episode) = (0usize, 0usize, 0);
    while written < args.count {
        let mut keep = |frame: Frame| {
            if seen.is_multiple_of(args.every.max(1)) && written < args.count {
                let path = args.out.join(format!("{written:06}.png"));
                save_png(&path, frame.width, frame.height, &frame.rgb).map_err(CoreError::io(&path, "write"))?;
                written += 1;
            }
            seen += 1;
            Ok(())
        };
        if task.watch(seed.wrapping_add(episode), &mut keep)?.is_none() {
            return Err(CoreError::Usage(format!("{} has no pictures", task.name())).into());
        }
        episode += 1;
    }
    println!(
        "{written} pictures of {episode} episodes; use them with data.name=folder data.dir={}",
        args.out.display()
    );
    Ok(())
}
