//! `hotfire sample`.

use std::io::Write;

use hotfire_core::CoreError;
use hotfire_generative::SampleRequest;

use crate::cli::SampleArgs;
use crate::train::{RunTask, load_run};

pub fn sample(args: &SampleArgs) -> anyhow::Result<()> {
    let mut prepared = load_run(&args.run, &[], false)?;
    let RunTask::Model(task) = &mut prepared.task else {
        let problem = format!("{}: holds an agent; film it with hotfire eval RUN --gif FILE", args.run.display());
        return Err(CoreError::Usage(problem).into());
    };
    let options = args.options.iter().map(|option| match option.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err(CoreError::Usage(format!("{option}: expected KEY=VALUE"))),
    });
    let mut stdout = std::io::stdout();
    let mut print = |text: &str| {
        // A reader that went away, as in `| head`, is no failure of the model.
        let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    };
    let mut request = SampleRequest {
        count: args.count,
        out: args.out.clone(),
        seed: args.seed.unwrap_or(prepared.run.seed),
        prompt: args.prompt.clone(),
        options: options.collect::<Result<_, _>>()?,
        text: &mut print,
    };
    let report = task.model.sample(&mut request)?;
    for file in &report.files {
        println!("{}", file.display());
    }
    if !report.metrics.is_empty() {
        println!("{}", report.metrics);
    }
    Ok(())
}
