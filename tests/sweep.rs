//! Sweeps, run as a user runs them: resumed after a kill, shared by two processes, with mistakes and with failing trials.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::Duration;

use rusqlite::Connection;

const SPACE: &str =
    "[space]\nagent.gamma = { values = [0.9, 0.98] }\nagent.learning_rate = { values = [1e-4, 1e-3] }\n";

/// A sweep file over a quick CartPole run, with further lines.
fn write_sweep(dir: &Path, head: &str, sections: &str) -> std::path::PathBuf {
    let base = fs::canonicalize("configs/ppo-cartpole-cleanrl.toml").unwrap();
    let path = dir.join("sweep.toml");
    let text = format!(
        "base = {base:?}\nobjective = \"eval.mean\"\ndirection = \"maximize\"\n{head}\n[overrides]\ntrain.steps = 4096\n\
         train.eval_interval = 0\ntrain.log_interval = 0\ntrain.checkpoint_interval = 1024\ntrain.final_eval_episodes = 5\n{sections}"
    );
    fs::write(&path, text).unwrap();
    path
}

fn sweep(file: &Path, out: &Path, jobs: u8) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hotfire"));
    command.arg("sweep").arg(file).arg("--out").arg(out).args(["--jobs", &jobs.to_string()]);
    command
}

/// The process that trains a run.
fn trainer(run_dir: &Path) -> Option<rustix::process::Pid> {
    let pids =
        fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let trains = |pid: &i32| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        command.split(|byte| *byte == 0).any(|word| word == run_dir.as_os_str().as_encoded_bytes())
    };
    pids.into_iter().find(trains).and_then(rustix::process::Pid::from_raw)
}

/// Waits for a process to train this run, and signals it.
fn signal(run_dir: &Path, signal: rustix::process::Signal) {
    for _ in 0..6000 {
        if let Some(pid) = trainer(run_dir) {
            return rustix::process::kill_process(pid, signal).unwrap();
        }
        sleep(Duration::from_millis(5));
    }
    panic!("{} was never trained", run_dir.display());
}

fn succeed(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// So many of all trials have failed, and the sweep says so.
fn fail(output: &Output, failed: usize, all: usize) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let last = said.lines().last().unwrap_or_default();
    assert!(last.starts_with(&format!("error: {failed} of {all} trials failed; hotfire report ")), "{said}");
}

/// Run directory to state, objective, and error of each trial.
fn trials(out: &Path) -> BTreeMap<String, (String, Option<f64>, Option<String>)> {
    let connection = Connection::open(out.join("sweep.sqlite")).unwrap();
    let mut query = connection.prepare("SELECT run_dir, state, objective, error FROM trials").unwrap();
    let rows = query.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?, row.get(3)?)))).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

/// How often each trial was started: every start makes an event file.
fn starts(out: &Path) -> BTreeMap<String, usize> {
    let is_events = |name: &str| name.starts_with("events.out.tfevents.");
    let count = |dir: &Path| {
        fs::read_dir(dir)
            .unwrap()
            .filter(|entry| is_events(&entry.as_ref().unwrap().file_name().to_string_lossy()))
            .count()
    };
    let dirs = fs::read_dir(out.join("trials")).unwrap().map(|entry| entry.unwrap().path());
    dirs.map(|dir| (format!("trials/{}", dir.file_name().unwrap().to_string_lossy()), count(&dir))).collect()
}

#[test]
fn a_killed_sweep_goes_on_and_runs_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let file = write_sweep(dir.path(), "seeds = [1, 2]", SPACE);
    let whole = dir.path().join("whole");
    succeed(&sweep(&file, &whole, 2).output().unwrap());
    let expected = trials(&whole);
    assert_eq!(expected.len(), 8);
    assert!(expected.values().all(|(state, objective, _)| state == "finished" && objective.is_some()), "{expected:?}");

    let killed = dir.path().join("killed");
    let mut child = sweep(&file, &killed, 2).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let finished = |out: &Path| out.join("sweep.sqlite").exists() && trials(out).values().any(|t| t.0 == "finished");
    for _ in 0..3000 {
        // The database may be between its making and its first table.
        if killed.join("trials/0000-s2").exists() && finished(&killed) {
            break;
        }
        sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let before = trials(&killed);
    assert!(before.values().any(|trial| trial.0 != "finished"), "the sweep was over before it was killed");
    succeed(&sweep(&file, &killed, 2).output().unwrap());
    assert_eq!(trials(&killed), expected, "the same trials with the same results");
    assert!(starts(&killed).values().all(|starts| *starts == 1), "{:?}", starts(&killed));

    let again = sweep(&file, &killed, 2).output().unwrap();
    succeed(&again);
    assert_eq!(trials(&killed), expected);
    assert_eq!(String::from_utf8_lossy(&again.stderr), "", "nothing was left to run");
    assert!(starts(&killed).values().all(|starts| *starts == 1), "{:?}", starts(&killed));
}

#[test]
fn two_processes_share_a_sweep() {
    let dir = tempfile::tempdir().unwrap();
    let file = write_sweep(dir.path(), "seeds = [1, 2]", SPACE);
    let out = dir.path().join("shared");
    let start = || sweep(&file, &out, 1).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let outputs = [start(), start()].map(|child| child.wait_with_output().unwrap());
    outputs.iter().for_each(succeed);
    let found = trials(&out);
    assert_eq!(found.len(), 8);
    assert!(found.values().all(|trial| trial.0 == "finished"), "{found:?}");
    assert!(starts(&out).values().all(|starts| *starts == 1), "{:?}", starts(&out));
    let lines = outputs.map(|output| String::from_utf8_lossy(&output.stderr).lines().count());
    assert_eq!(lines.iter().sum::<usize>(), 8, "each trial was told of once");
}

#[test]
fn all_mistakes_are_told_at_once_before_anything_starts() {
    let dir = tempfile::tempdir().unwrap();
    let sections = "[search]\nmethod = \"grid\"\ntrials = 3\n[space]\nagent.gamma = { values = [] }\n\
                    agent.learning_rate = { log_uniform = [0, 1] }\nagent.clip = { uniformly = [0.1, 0.2] }\n\
                    agent.epochs = { int = [2, 8] }\n";
    let file = write_sweep(dir.path(), "seeds = [1, 1]", sections);
    let output = sweep(&file, &dir.path().join("out"), 1).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    for mistake in [
        "seeds: expected different seeds, found 1 twice",
        "space.agent.gamma: values: expected at least one value, found []",
        "space.agent.learning_rate: log_uniform: expected positive ends, found [0, 1]",
        "space.agent.clip: unknown distribution \"uniformly\"; did you mean \"uniform\"?",
        "space.agent.epochs: a grid needs { values = [...] }, found { int = [2, 8] }",
        "search.trials: a grid runs all of its combinations",
    ] {
        assert!(said.contains(mistake), "{mistake} is not in\n{said}");
    }
    assert!(!dir.path().join("out").exists(), "nothing was written");

    let text = fs::read_to_string(&file).unwrap();
    let wrong = "agent.gama = 0.9\ntrain.stepps = 10\n[space]\nagent.gamma = { values = [1.5, 0.9, 0.9] }\n\
                 train.steps = { values = [1, 2] }\nagent.learning_rat = { values = [1, 1.0] }\nagent.clip_range = { values = [-1.0] }\n";
    let text = text.split("train.final").next().unwrap().replace("seeds =", "sedes = [2]\nseeds =") + wrong;
    let text =
        text.replace("maximize", "up") + "[search]\nmethod = \"tpee\"\ntrails = 3\nretries = -1\n[slurm]\nmem = 3\n";
    fs::write(&file, text).unwrap();
    let output = sweep(&file, &dir.path().join("out"), 1).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    for mistake in [
        "sedes: unknown key; did you mean seeds?",
        "direction: unknown variant `up`, expected `maximize` or `minimize`",
        "search.method: unknown variant `tpee`, expected one of `grid`, `random`, `tpe`",
        "search.trails: unknown field `trails`",
        "search.retries: ",
        "slurm.mem: invalid type: integer `3`, expected a string",
        "space.agent.gamma: values: 0.9 is listed twice",
        "space.agent.learning_rat: values: 1.0 is listed twice",
        "space.train.steps: is fixed in [overrides] too; leave it out of one of them",
        "overrides.agent.gama: ",
        "overrides.train.stepps: ",
        "space.agent.clip_range: ",
    ] {
        assert!(said.contains(mistake), "{mistake} is not in\n{said}");
    }
    assert!(!dir.path().join("out").exists(), "nothing was written");

    let file =
        write_sweep(dir.path(), "", "[space]\nagent.gama = { values = [0.9] }\nagent.gamma = { values = [1.5] }\n");
    let output = sweep(&file, &dir.path().join("out"), 1).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("agent.gama: unknown key; did you mean agent.gamma?"), "{said}");
    assert!(said.contains("agent.gamma: expected a number from 0 to 1, found 1.5"), "{said}");

    let text = "base = \"ae.toml\"\nobjective = \"eval.mean\"\ndirection = \"maximize\"\n\
                [space]\nmodel.latent = { values = [2, 4] }\n";
    fs::write(&file, text).unwrap();
    let config = "[model]\nname = \"autoencoder\"\n[data]\nname = \"shapes\"\ntrain_count = 64\ntest_count = 64\n\
                  [train]\nsteps = 1\n";
    fs::write(dir.path().join("ae.toml"), config).unwrap();
    let output = sweep(&file, &dir.path().join("out"), 1).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let expected =
        "objective: eval.mean is a return, which agents have; a model is measured by metrics.NAME, as in metrics.mse";
    assert!(said.contains(expected), "{said}");
}

#[test]
fn a_changed_sweep_is_refused_and_more_seeds_are_welcome() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let space = "[space]\nagent.gamma = { values = [0.9] }\n";
    succeed(&sweep(&write_sweep(dir.path(), "seeds = [1]", space), &out, 1).output().unwrap());
    succeed(&sweep(&write_sweep(dir.path(), "seeds = [1, 2]", space), &out, 1).output().unwrap());
    assert_eq!(trials(&out).len(), 2);
    let definition = || fs::read_to_string(out.join("sweep.toml")).unwrap();
    let before = definition();
    assert!(before.contains("seeds = [1, 2]"), "{before}");
    let other = "[space]\nagent.gamma = { values = [0.95] }\n";
    let output = sweep(&write_sweep(dir.path(), "seeds = [1]", other), &out, 1).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("belongs to another sweep"));
    assert_eq!(trials(&out).len(), 2, "nothing was lost");
    assert_eq!(definition(), before, "the refused one left no trace");
}

#[test]
fn a_trial_that_crashes_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let sections = "[search]\nretries = 1\n[space]\nagent.gamma = { values = [0.9, 0.98] }\n";
    let file = write_sweep(dir.path(), "", sections);
    let text = fs::read_to_string(&file).unwrap().replace("train.steps = 4096", "train.steps = 32768");
    fs::write(&file, text).unwrap();
    let out = fs::canonicalize(dir.path()).unwrap().join("out");
    let child = sweep(&file, &out, 2).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    signal(&out.join("trials/0000-s1"), rustix::process::Signal::ABORT);
    let output = child.wait_with_output().unwrap();
    succeed(&output);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("0000-s1 failed, tried again (gamma=0.9): signal: 6 (SIGABRT)"), "{said}");
    let found = trials(&out);
    assert!(found.values().all(|trial| trial.0 == "finished"), "{found:?}");
}

#[test]
fn an_interrupted_sweep_stops_its_trials_and_goes_on_with_the_same_results() {
    let dir = tempfile::tempdir().unwrap();
    let file = write_sweep(dir.path(), "seeds = [1, 2]", SPACE);
    let text = fs::read_to_string(&file).unwrap().replace("train.steps = 4096", "train.steps = 16384");
    fs::write(&file, text).unwrap();
    let dir = fs::canonicalize(dir.path()).unwrap();
    let (whole, stopped) = (dir.join("whole"), dir.join("stopped"));
    succeed(&sweep(&file, &whole, 2).output().unwrap());
    let child = sweep(&file, &stopped, 2).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let first = stopped.join("trials/0000-s1");
    for _ in 0..6000 {
        if first.join("checkpoints").exists() {
            break;
        }
        sleep(Duration::from_millis(5));
    }
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.signal(), Some(2), "a shell's loop would go on: {output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("not complete; the same command goes on"), "{output:?}");
    assert_eq!(trainer(&first), None, "a trial was left behind");
    let states: Vec<String> = trials(&stopped).into_values().map(|trial| trial.0).collect();
    assert!(states.iter().all(|state| state == "open" || state == "finished"), "{states:?}");
    assert!(states.contains(&"open".to_owned()), "the sweep was over before it was stopped");
    let (before, left) = (starts(&stopped), trials(&stopped));
    succeed(&sweep(&file, &stopped, 2).output().unwrap());
    assert_eq!(trials(&stopped), trials(&whole));
    for (trial, starts) in starts(&stopped) {
        let open = left.get(&trial).is_none_or(|trial| trial.0 == "open");
        assert_eq!(starts, before.get(&trial).unwrap_or(&0) + usize::from(open), "{trial}");
    }
}

/// A small network, and one whose checkpoint takes more than eight megabytes and has a file of more than four.
const SIZES: &str = "[space]\nagent.hidden = { values = [[64, 64], [640, 640]] }\n";

#[test]
fn a_trial_whose_checkpoint_exceeds_the_file_size_limit_has_failed_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = write_sweep(dir.path(), "", SIZES);
    let text = fs::read_to_string(&file).unwrap().replace("train.steps = 4096", "train.steps = 2048");
    fs::write(&file, text).unwrap();
    let out = dir.path().join("out");
    let mut limited = Command::new("bash");
    let program = env!("CARGO_BIN_EXE_hotfire");
    limited
        .args(["-c", "ulimit -f 4096; exec \"$0\" sweep \"$1\" --out \"$2\" --jobs 2", program])
        .arg(&file)
        .arg(&out);
    fail(&limited.output().unwrap(), 1, 2);
    let found = trials(&out);
    assert_eq!(found["trials/0000-s1"].0, "finished", "{found:?}");
    let (state, _, error) = &found["trials/0001-s1"];
    assert_eq!(state, "failed");
    assert!(
        error.as_deref().is_some_and(|error| error.contains("SIGXFSZ") || error.contains("File too large")),
        "{error:?}"
    );
    // Without the limit, and with one more try, all is well.
    let text = fs::read_to_string(&file).unwrap().replace("[space]", "[search]\nretries = 1\n[space]");
    fs::write(&file, text).unwrap();
    succeed(&sweep(&file, &out, 2).output().unwrap());
    assert!(trials(&out).values().all(|trial| trial.0 == "finished"), "{:?}", trials(&out));
}

#[test]
fn a_trial_that_fills_the_disk_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let file = write_sweep(dir.path(), "", SIZES);
    let text = fs::read_to_string(&file).unwrap().replace("train.steps = 4096", "train.steps = 2048");
    fs::write(&file, text).unwrap();
    let out = dir.path().join("out");
    fs::create_dir_all(out.join("trials")).unwrap();
    // The mount is gone with its namespace.
    let mount = "mount -t tmpfs -o size=8m tmpfs \"$2/trials\" || exit 99; exec \"$0\" sweep \"$1\" --out \"$2\"";
    let mut small = Command::new("unshare");
    small.args(["--mount", "bash", "-c", mount, env!("CARGO_BIN_EXE_hotfire")]).arg(&file).arg(&out);
    let output = match small.output() {
        Ok(output) if output.status.code() != Some(99) && out.join("sweep.sqlite").exists() => output,
        refused => return eprintln!("skipped: no small disk can be mounted here: {refused:?}"),
    };
    fail(&output, 1, 2);
    let found = trials(&out);
    assert_eq!(found["trials/0000-s1"].0, "finished", "{found:?}");
    let (state, _, error) = &found["trials/0001-s1"];
    assert_eq!(state, "failed");
    assert!(error.as_deref().is_some_and(|error| error.contains("No space left on device")), "{error:?}");
}

#[test]
fn reports_hold_every_run_and_need_no_network() {
    let dir = tempfile::tempdir().unwrap();
    let file = write_sweep(dir.path(), "seeds = [1, 2]", SPACE);
    let out = dir.path().join("swept");
    succeed(&sweep(&file, &out, 2).output().unwrap());
    let report = |arguments: &[&Path]| {
        Command::new(env!("CARGO_BIN_EXE_hotfire")).arg("report").args(arguments).output().unwrap()
    };
    succeed(&report(&[&out]));
    let csv = fs::read_to_string(out.join("report/numbers.csv")).unwrap();
    assert_eq!(csv.lines().count(), 9, "{csv}");
    for (run, (_, objective, _)) in trials(&out) {
        let name = run.rsplit('/').next().unwrap();
        let line = csv.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{name} is not in {csv}"));
        assert!(line.contains(&objective.unwrap().to_string()), "{line}");
    }
    let read = |name: &str| fs::read_to_string(out.join("report").join(name)).unwrap();
    let (groups, curves) = (read("groups.csv"), read("curves.csv"));
    assert_eq!(groups.lines().count(), 5, "a line for each configuration: {groups}");
    let header = curves.lines().next().unwrap();
    assert_eq!((header.split(',').next(), header.split(',').count()), (Some("step"), 1 + 3 * 4), "{header}");
    assert!(curves.lines().skip(1).all(|line| line.split(',').count() == 13), "{curves}");
    let page = fs::read_to_string(out.join("report/index.html")).unwrap();
    let data = page.split("id=\"data\">").nth(1).unwrap().split("</script>").next().unwrap();
    let data: serde_json::Value = serde_json::from_str(data).unwrap();
    let section = &data["sections"][0];
    assert_eq!(section["rows"].as_array().unwrap().len(), 4);
    assert_eq!(section["rows"][0]["scores"].as_array().unwrap().len(), 2);
    let changed: Vec<&str> =
        section["difference"].as_array().unwrap().iter().map(|row| row[0].as_str().unwrap()).collect();
    assert!(changed.contains(&"train.steps"), "{changed:?}");
    assert!(data["environment"].as_array().unwrap().iter().any(|fact| fact[0] == "rustc"));
    for outside in ["src=\"http", "href=\"http", "url(http", "@import", "fetch("] {
        assert!(!page.contains(outside), "the page reaches out with {outside}");
    }
    assert!(fs::metadata(out.join("report/curves.png")).unwrap().len() > 1000);

    let nothing = report(&[dir.path().join("nowhere").as_path()]);
    assert_eq!(nothing.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("no run here"));
}

#[test]
fn a_slip_in_the_objective_costs_one_trial_and_no_training() {
    let dir = tempfile::tempdir().unwrap();
    let file = write_sweep(dir.path(), "seeds = [1, 2]", SPACE);
    let text = fs::read_to_string(&file).unwrap();
    let out = dir.path().join("out");
    fs::write(&file, text.replace("\"eval.mean\"", "\"metrics.nope\"")).unwrap();
    let refused = sweep(&file, &out, 1).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("objective: summary.json has no number at metrics.nope; there is"), "{said}");
    assert_eq!(trials(&out).values().filter(|trial| trial.0 == "failed").count(), 1);

    fs::write(&file, &text).unwrap();
    succeed(&sweep(&file, &out, 1).output().unwrap());
    assert!(trials(&out).values().all(|trial| trial.0 == "finished"), "{:?}", trials(&out));
    let log = fs::read_to_string(out.join("trials/0000-s1/metrics.jsonl")).unwrap();
    let whole = dir.path().join("whole");
    succeed(&sweep(&file, &whole, 1).output().unwrap());
    let other = fs::read_to_string(whole.join("trials/0000-s1/metrics.jsonl")).unwrap();
    assert_eq!(log.lines().count(), other.lines().count(), "it was evaluated again");
    assert_eq!(trials(&out), trials(&whole));
}
