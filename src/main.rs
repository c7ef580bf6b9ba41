//! The `hotfire` command: trains, evaluates and samples agents and models, and tells what there is.

mod allocator;
mod attention;
mod bench;
mod cli;
mod data;
mod doctor;
mod embed;
mod environment;
mod eval;
mod export;
mod film;
mod interrupt;
mod list;
mod play;
mod report;
mod sample;
mod sweep;
mod terminal;
mod tokens;
mod train;

use std::process::ExitCode;

use clap::Parser;
use hotfire_core::CoreError;

fn main() -> ExitCode {
    allocator::keep_freed_memory();
    leave_quietly_when_nobody_reads();
    let result = match cli::Cli::parse().command {
        cli::Command::Train(args) => train::train(&args),
        cli::Command::Eval(args) => eval::eval(&args),
        cli::Command::Export(args) => export::export(&args),
        cli::Command::Sample(args) => sample::sample(&args),
        cli::Command::Sweep(args) => sweep::sweep(&args),
        cli::Command::Tokens(args) => tokens::tokens(&args),
        cli::Command::Attention(args) => attention::attention(&args),
        cli::Command::Embed(args) => embed::embed(&args),
        cli::Command::Similar(args) => embed::similar(&args),
        cli::Command::Report(args) => report::report(&args),
        cli::Command::Bench(args) => bench::bench(&args),
        cli::Command::List(args) => list::list(&args),
        cli::Command::Env(args) => match args.command {
            cli::EnvCommand::Render(args) => film::render(&args),
            cli::EnvCommand::Play(args) => play::play(&args),
            cli::EnvCommand::Check { id, trace: None, .. } => list::check_env(&id),
            cli::EnvCommand::Check { id, trace: Some(trace), tolerance } => list::replay_trace(&id, &trace, tolerance),
        },
        cli::Command::Data(args) => data::data(&args.command),
        cli::Command::Doctor => doctor::doctor(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if matches!(error.downcast_ref(), Some(CoreError::Interrupted)) => interrupt::end(),
        Err(error) => {
            eprintln!("error: {}", message(&error));
            let code = error.downcast_ref::<CoreError>().map_or(1, CoreError::exit_code);
            ExitCode::from(u8::try_from(code).unwrap_or(1))
        }
    }
}

/// The error and its causes, without those that the text before them names already.
fn message(error: &anyhow::Error) -> String {
    error
        .chain()
        .skip(1)
        .map(ToString::to_string)
        .fold(error.to_string(), |text, cause| if text.contains(&cause) { text } else { format!("{text}: {cause}") })
}

/// Ends the program, as other programs do, where the reader of its output has gone: `hotfire list | head`.
fn leave_quietly_when_nobody_reads() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info.payload_as_str().is_some_and(|said| said.contains("Broken pipe")) {
            std::process::exit(141);
        }
        report(info);
    }));
}
