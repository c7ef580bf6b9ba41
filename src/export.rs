//! `hotfire export`.

use hotfire_core::CoreError;

use crate::cli::ExportArgs;
use crate::train::{RunTask, load_run};

pub fn export(args: &ExportArgs) -> anyhow::Result<()> {
    let prepared = load_run(&args.run, &[], args.best)?;
    let RunTask::Agent(task) = &prepared.task else {
        let problem = format!("{}: holds a model; only an agent's policy can be exported", args.run.display());
        return Err(CoreError::Usage(problem).into());
    };
    for file in task.export(&args.out)? {
        println!("{}", file.display());
    }
    Ok(())
}
