//! `hotfire eval`.

use hotfire_core::CoreError;
use hotfire_core::media::expect_ending;
use serde_json::json;

use crate::cli::EvalArgs;
use crate::train::{RunTask, load_run};

pub fn eval(args: &EvalArgs) -> anyhow::Result<()> {
    if let Some(path) = &args.gif {
        expect_ending("--gif", path, &["gif"])?;
    }
    let overrides: Vec<String> = args.data.iter().map(|dir| format!("data.dir={}", dir.display())).collect();
    let mut prepared = load_run(&args.run, &overrides, args.best)?;
    let seed = args.seed.unwrap_or(prepared.run.seed);
    let (evaluation, film) = match &mut prepared.task {
        RunTask::Agent(task) => {
            let evaluation = task.evaluate_with_seed(args.episodes, seed)?;
            let film = match &args.gif {
                Some(path) => task.film(path, seed)?,
                None => None,
            };
            (evaluation, film)
        }
        RunTask::Model(_) if args.gif.is_some() => {
            return Err(CoreError::Usage("--gif films agents; for a model's pictures use hotfire sample".into()).into());
        }
        RunTask::Model(task) => (task.model.evaluate(args.episodes)?, None),
    };
    let steps = prepared.task.as_task().step();
    let name = prepared.task.name();
    if args.json {
        let report = json!({
            "run": args.run,
            "task": name,
            "seed": seed,
            "steps": steps,
            "eval": evaluation.eval,
            "metrics": evaluation.metrics,
        });
        println!("{report}");
        return Ok(());
    }
    match &evaluation.eval {
        Some(eval) => println!(
            "{name}: return {:.2} ± {:.2} over {} episodes (min {:.2}, max {:.2}), {}",
            eval.mean, eval.std, eval.episodes, eval.min, eval.max, evaluation.metrics
        ),
        None => println!("{name}: {}", evaluation.metrics),
    }
    match (&args.gif, film) {
        (Some(path), Some(episode_return)) => println!("{}: an episode of return {episode_return:.2}", path.display()),
        (Some(_), None) => println!("{name} has no pictures to film"),
        (None, _) => {}
    }
    Ok(())
}
