//! `hotfire eval`.

use hotfire_core::task::Task;
use serde_json::json;

use crate::cli::EvalArgs;
use crate::train::load_run;

pub fn eval(args: &EvalArgs) -> anyhow::Result<()> {
    let prepared = load_run(&args.run)?;
    let seed = args.seed.unwrap_or(prepared.run.seed);
    let task = &prepared.task;
    let evaluation = task.evaluate_with_seed(args.episodes, seed)?;
    let film = match &args.gif {
        Some(path) => task.film(path, seed)?,
        None => None,
    };
    if args.json {
        let report = json!({
            "run": args.run,
            "task": task.name(),
            "seed": seed,
            "steps": task.step(),
            "eval": evaluation.eval,
            "metrics": evaluation.metrics,
        });
        println!("{report}");
        return Ok(());
    }
    if let Some(eval) = &evaluation.eval {
        println!(
            "{}: return {:.2} ± {:.2} over {} episodes (min {:.2}, max {:.2}), {}",
            task.name(),
            eval.mean,
            eval.std,
            eval.episodes,
            eval.min,
            eval.max,
            evaluation.metrics
        );
    }
    match (&args.gif, film) {
        (Some(path), Some(episode_return)) => println!("{}: an episode of return {episode_return:.2}", path.display()),
        (Some(_), None) => println!("{} has no pictures to film", task.name()),
        (None, _) => {}
    }
    Ok(())
}
