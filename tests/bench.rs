//! `hotfire bench`, run as a user runs it: records, comparisons, and mistakes. No timing is judged.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn bench(dir: &Path, args: &[&str]) -> Output {
    let quick = ["bench", "--rounds", "3", "--sample-ms", "1", "--threads", "1", "--dir"];
    Command::new(env!("CARGO_BIN_EXE_hotfire")).args(quick).arg(dir).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_record_is_kept_and_compared_with() {
    let dir = tempfile::tempdir().unwrap();
    let saved = bench(dir.path(), &["gae/gae/4", "sum_tree", "--save", "before"]);
    assert!(saved.status.success(), "{}", text(&saved.stderr));
    let table = text(&saved.stdout);
    assert!(table.contains("gae, steps/s") && table.contains("sum_tree, weights/s"), "{table}");
    let record: Value = serde_json::from_slice(&fs::read(dir.path().join("before.json")).unwrap()).unwrap();
    assert_eq!(record["results"].as_array().unwrap().len(), 3);
    assert!(record["environment"]["cpu"].is_string());

    let compared = json(&bench(dir.path(), &["gae", "--against", "before", "--json"]));
    let rows = compared["comparisons"].as_array().unwrap();
    assert_eq!(rows.len(), 1, "only gae/gae/4 is in the record");
    let kept = record["results"].as_array().unwrap().iter().find(|result| result["id"] == "gae/gae/4").unwrap();
    assert_eq!((&rows[0]["id"], &rows[0]["old"]), (&kept["id"], &kept["rates"]));
    let skipped: Vec<&str> = compared["skipped"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(skipped, ["gae/gae/64: not in the record", "gae/gae/1024: not in the record"]);
}

#[test]
fn a_slower_program_fails_where_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fast.json");
    json(&bench(dir.path(), &["gae/gae/4", "--save", "fast", "--json"]));
    let mut record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    // No machine reaches this.
    record["results"][0]["rates"] = vec![1e18; 3].into();
    fs::write(&path, record.to_string()).unwrap();
    let passed = bench(dir.path(), &["gae/gae/4", "--against", "fast"]);
    assert!(passed.status.success() && text(&passed.stdout).contains("1 slower"), "{}", text(&passed.stdout));
    let failed = bench(dir.path(), &["gae/gae/4", "--against", "fast", "--fail-if-slower"]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(text(&failed.stderr).contains("1 of 1 benchmarks are slower"));
}

#[test]
fn two_programs_are_measured_in_turn() {
    let dir = tempfile::tempdir().unwrap();
    let this = env!("CARGO_BIN_EXE_hotfire");
    let compared = json(&bench(dir.path(), &["gae/gae/4", "--against-binary", this, "--json"]));
    let row = &compared["comparisons"][0];
    assert_eq!([&row["old"], &row["new"]].map(|side| side.as_array().unwrap().len()), [3, 3]);
    // A program that was kept is measured anew, not its record.
    json(&bench(dir.path(), &["gae/gae/4", "--save", "kept", "--keep-program", "--json"]));
    let record: Value = serde_json::from_slice(&fs::read(dir.path().join("kept.json")).unwrap()).unwrap();
    let compared = json(&bench(dir.path(), &["gae/gae/4", "--against", "kept", "--json"]));
    assert_ne!(compared["comparisons"][0]["old"], record["results"][0]["rates"]);

    let other = bench(dir.path(), &["gae/gae/4", "--against-binary", "no/such/program"]);
    assert!(text(&other.stderr).contains("no/such/program: cannot run it"), "{}", text(&other.stderr));
}

#[test]
fn mistakes_are_named_with_exit_code_2() {
    let dir = tempfile::tempdir().unwrap();
    for (args, expected) in [
        (&["cartpole-v9"][..], "no benchmark has \"cartpole-v9\" in its name; groups: vec_env, batch, pixels"),
        (&["--against", "none"], "none.json: there is no such record; make one with hotfire bench --save none"),
        (&["gae", "--save", "a/b"], "expected a name without slashes"),
        (&["gae", "--fail-if-slower"], "required arguments were not provided"),
        (&["--num-envs", "0"], "expected a number from 1 to 1048576"),
        (&["--against", "a", "--against-binary", "b"], "cannot be used with"),
    ] {
        let output = bench(dir.path(), args);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains(expected), "{message}");
    }
    bench(dir.path(), &["gae/gae/4", "--save", "few"]);
    for (option, expected) in [
        ("--num-envs=8", "--num-envs: expected 1024 as in the record, found 8"),
        ("--cpu-time", "--cpu-time: expected not as in the record, found given"),
    ] {
        let output = bench(dir.path(), &["gae/gae/4", option, "--against", "few"]);
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains(expected), "{}", text(&output.stderr));
    }
}
