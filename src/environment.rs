//! What a run was made with: versions and machine, kept in its directory for reports.

use std::collections::BTreeMap;

/// The file's name in a run directory.
pub const FILE: &str = "environment.json";

/// The file's content.
pub fn text() -> String {
    serde_json::to_string_pretty(&describe()).expect("texts always serialize") + "\n"
}

/// Versions and machine.
pub fn describe() -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("hotfire", format!("{} ({})", env!("CARGO_PKG_VERSION"), env!("HOTFIRE_REVISION"))),
        ("burn", env!("HOTFIRE_BURN").to_owned()),
        ("rustc", env!("HOTFIRE_RUSTC").to_owned()),
        ("system", format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)),
        ("cpu", cpu()),
        ("threads", rayon::current_num_threads().to_string()),
    ])
}

fn cpu() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name));
    format!("{}, {cores} cores", model.map_or("unknown", str::trim))
}
