//! Tells the program what it was built from, so that every run can say so. With the feature `python`, programs find the
//! libpython that they were linked with when they run.

use std::path::Path;
use std::process::Command;

fn main() {
    #[cfg(feature = "python")]
    pyo3_build_config::add_libpython_rpath_link_args();
    for path in ["Cargo.lock", "src", "envs", "core", "nn", "agents", "generative", "bench/src"] {
        println!("cargo:rerun-if-changed={path}");
    }
    let git_log = output("git", &["rev-parse", "--git-path", "logs/HEAD"]);
    if let Some(log) = git_log.filter(|log| Path::new(log).exists()) {
        println!("cargo:rerun-if-changed={log}");
    }
    let revision = output("git", &["describe", "--always", "--dirty", "--abbrev=12"]);
    println!("cargo:rustc-env=HOTFIRE_REVISION={}", revision.unwrap_or_else(|| "unknown".into()));
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    println!("cargo:rustc-env=HOTFIRE_RUSTC={}", output(&rustc, &["--version"]).unwrap_or_else(|| "unknown".into()));
    println!("cargo:rustc-env=HOTFIRE_BURN={}", burn_version().unwrap_or_else(|| "unknown".into()));
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

fn burn_version() -> Option<String> {
    let lock = std::fs::read_to_string("Cargo.lock").ok()?;
    let (_, after) = lock.split_once("name = \"burn\"\nversion = \"")?;
    after.split('"').next().map(str::to_owned)
}
