//! Reads the reference recordings in `tests/fixtures` of the repository: gzip-compressed JSON, one record a line.

#![allow(dead_code)] // Each test binary uses its own part of this module.

pub mod examples;

use std::io::{BufRead, BufReader};
use std::path::Path;

/// All records of `tests/fixtures/<name>.gz`; `name` ends in `.jsonl`.
pub fn read(name: &str) -> Vec<serde_json::Value> {
    // Cargo runs tests in their package's folder; a path from the time of the build could be another checkout's.
    let path = Path::new("../tests/fixtures").join(format!("{name}.gz"));
    let file = std::fs::File::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    BufReader::new(flate2::read::GzDecoder::new(file))
        .lines()
        .map(|line| serde_json::from_str(&line.expect("a gzip stream of text")).expect("a JSON record a line"))
        .collect()
}

/// Those records of [`read`] whose field `kind` is one of `kinds`.
pub fn read_kinds(name: &str, kinds: &[&str]) -> Vec<serde_json::Value> {
    let mut records = read(name);
    records.retain(|r| r["kind"].as_str().is_some_and(|k| kinds.contains(&k)));
    records
}
