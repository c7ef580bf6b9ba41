//! The main job, run as a user runs it: training, repeats, interruption, resume, and mistakes.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

fn hotfire() -> Command {
    Command::new(env!("CARGO_BIN_EXE_hotfire"))
}

/// Trains the CartPole config with CleanRL's settings for a short while, with overrides.
fn train(dir: &Path, overrides: &[&str]) -> Output {
    hotfire()
        .args(["train", "configs/ppo-cartpole-cleanrl.toml", "--quiet", "train.steps=16384"])
        .args(["train.eval_interval=0", "train.checkpoint_interval=4096", "train.keep_checkpoints=9"])
        .arg(format!("run.dir={}", dir.display()))
        .args(overrides)
        .output()
        .unwrap()
}

fn succeed(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// All files of a checkpoint with their bytes.
fn checkpoint(run: &Path, step: u64) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = fs::read_dir(run.join("checkpoints").join(step.to_string()))
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(path).unwrap())
        })
        .collect();
    files.sort();
    assert!(files.len() >= 5, "a checkpoint has its parts");
    files
}

#[test]
fn the_same_seed_gives_the_same_bytes_whatever_the_threads() {
    let dir = tempfile::tempdir().unwrap();
    for (name, threads, seed) in [("one", 1, 3), ("two", 2, 3), ("other", 2, 4)] {
        let overrides = [format!("run.name={name}"), format!("run.threads={threads}"), format!("run.seed={seed}")];
        succeed(&train(dir.path(), &overrides.each_ref().map(String::as_str)));
    }
    let at = |name: &str| checkpoint(&dir.path().join(name), 16384);
    assert!(at("one") == at("two"), "one and two threads end in different checkpoints");
    assert!(at("one") != at("other"), "the seed makes no difference");
}

#[test]
fn a_killed_run_goes_on_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    for (config, steps) in [("ppo-cartpole-cleanrl", 16384u64), ("ppo-mountaincar-continuous", 32768)] {
        let start = |name: &str| {
            let mut command = hotfire();
            command
                .args(["train", &format!("configs/{config}.toml"), "--quiet", &format!("train.steps={steps}")])
                .args(["train.eval_interval=0", "train.checkpoint_interval=4096", "train.keep_checkpoints=99"])
                .args([format!("run.dir={}", dir.path().display()), format!("run.name={config}-{name}")])
                .stderr(Stdio::piped());
            command
        };
        succeed(&start("whole").output().unwrap());
        let mut child = start("killed").spawn().unwrap();
        let killed: PathBuf = dir.path().join(format!("{config}-killed"));
        let first = fs::read_dir(dir.path().join(format!("{config}-whole")).join("checkpoints"))
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().to_string_lossy().parse::<u64>().ok())
            .min()
            .unwrap();
        for _ in 0..6000 {
            if killed.join("checkpoints").join(first.to_string()).exists() {
                break;
            }
            sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let resumed = hotfire().args(["train", "--quiet", "--resume"]).arg(&killed).output().unwrap();
        succeed(&resumed);
        let whole = dir.path().join(format!("{config}-whole"));
        assert!(checkpoint(&killed, steps) == checkpoint(&whole, steps), "{config}: the resumed run went another way");
    }
}

#[test]
fn ppo_solves_cartpole() {
    let dir = tempfile::tempdir().unwrap();
    let output = hotfire()
        .args(["train", "configs/ppo-cartpole.toml", "--quiet", "run.name=run"])
        .arg(format!("run.dir={}", dir.path().display()))
        .output()
        .unwrap();
    succeed(&output);
    let summary: serde_json::Value =
        serde_json::from_slice(&fs::read(dir.path().join("run/summary.json")).unwrap()).unwrap();
    assert_eq!(summary["eval"]["episodes"], 100);
    assert!(summary["eval"]["mean"].as_f64().unwrap() >= 475.0, "{summary}");
}

#[test]
fn a_finished_run_has_its_parts_and_can_be_evaluated() {
    let dir = tempfile::tempdir().unwrap();
    succeed(&train(dir.path(), &["run.name=run"]));
    let run = dir.path().join("run");
    for part in ["config.toml", "metrics.jsonl", "summary.json", "curve.png", "media/agent.gif"] {
        assert!(fs::metadata(run.join(part)).unwrap().len() > 0, "{part}");
    }
    let summary: serde_json::Value = serde_json::from_slice(&fs::read(run.join("summary.json")).unwrap()).unwrap();
    assert_eq!(summary["status"], "finished");
    assert_eq!(summary["steps"], 16384);
    let gif = dir.path().join("film.gif");
    let output =
        hotfire().arg("eval").arg(&run).args(["--episodes", "7", "--json", "--gif"]).arg(&gif).output().unwrap();
    succeed(&output);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["eval"]["episodes"], 7);
    assert!(report["eval"]["mean"].as_f64().unwrap() > 20.0, "better than random: {report}");
    assert!(fs::read(&gif).unwrap().starts_with(b"GIF89a"));
}

/// Each mistake: arguments, exit code, and what the one-line message must contain.
#[test]
fn mistakes_get_one_line_that_names_the_place() {
    let dir = tempfile::tempdir().unwrap();
    let config = "configs/ppo-cartpole.toml";
    let cases: &[(&[&str], &[&str])] = &[
        (&["agent.learning_rat=1"], &["agent.learning_rat", "agent.learning_rate"]),
        (&["agent.gamma=high"], &["agent.gamma", "number", "high"]),
        (&["agent.gamma=1.5"], &["agent.gamma", "0 to 1", "1.5"]),
        (&["agent.minibatches=7"], &["agent.minibatches", "divisor", "7"]),
        (&["env.id=CartPol-v1"], &["env.id", "CartPole-v1"]),
        (&["env.options.gravity=3"], &["gravity", "CartPole-v1"]),
        (&["agent.algorithm=pp"], &["agent.algorithm", "ppo"]),
        (&["run.device=cuda:7"], &["cuda:7"]),
        (&["run.device=tpu"], &["tpu"]),
        (&["model.name=vae"], &["model"]),
    ];
    for (overrides, words) in cases {
        let output = hotfire()
            .args(["train", config])
            .arg(format!("run.dir={}", dir.path().display()))
            .args(*overrides)
            .output()
            .unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{overrides:?}: {message}");
        assert_eq!(message.trim_end().lines().count(), 1, "{overrides:?}: {message}");
        for word in *words {
            assert!(message.contains(word), "{overrides:?} should name {word}: {message}");
        }
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
    let missing = hotfire().args(["train", "configs/none.toml"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(2));
}

#[test]
fn a_run_directory_in_use_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    succeed(&train(dir.path(), &["run.name=run", "train.steps=4096"]));
    let summary = fs::read(dir.path().join("run/summary.json")).unwrap();
    let again = train(dir.path(), &["run.name=run", "train.steps=4096"]);
    assert_eq!(again.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&again.stderr).contains("--resume"));
    assert_eq!(fs::read(dir.path().join("run/summary.json")).unwrap(), summary);
}

#[test]
fn a_damaged_checkpoint_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    succeed(&train(dir.path(), &["run.name=run", "train.steps=4096"]));
    let file = dir.path().join("run/checkpoints/4096/network.safetensors");
    let whole = fs::read(&file).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for damaged in [flipped, whole[..whole.len() - 1].to_vec()] {
        fs::write(&file, damaged).unwrap();
        let output = hotfire().arg("eval").arg(dir.path().join("run")).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains("network.safetensors"), "{message}");
        assert_eq!(message.trim_end().lines().count(), 1, "{message}");
    }
}

#[test]
fn list_and_doctor_answer() {
    let output = hotfire().arg("list").output().unwrap();
    succeed(&output);
    let text = String::from_utf8(output.stdout).unwrap();
    for word in ["CartPole-v1", "Acrobot-v1", "ppo"] {
        assert!(text.contains(word), "{word}");
    }
    succeed(&hotfire().arg("doctor").output().unwrap());
    succeed(&hotfire().args(["env", "check", "Pendulum-v1"]).output().unwrap());
    assert_eq!(hotfire().args(["env", "check", "Pendulm-v1"]).output().unwrap().status.code(), Some(2));
}

/// A run that would train for hours, once it has a checkpoint.
fn endless(dir: &Path, run: &Path, prefix: &[&str]) -> Child {
    let mut command = Command::new(prefix.first().unwrap_or(&env!("CARGO_BIN_EXE_hotfire")));
    if let [_, rest @ ..] = prefix {
        command.args(rest).arg(env!("CARGO_BIN_EXE_hotfire"));
    }
    command
        .args(["train", "configs/ppo-cartpole-cleanrl.toml", "--quiet", "train.steps=400000000"])
        .args(["train.eval_interval=0", "train.checkpoint_interval=4096", "run.name=run"])
        .arg(format!("run.dir={}", dir.display()));
    let child = command.spawn().unwrap();
    wait_for("a checkpoint", || newest(run) > 0);
    child
}

fn newest(run: &Path) -> u64 {
    let entries = fs::read_dir(run.join("checkpoints")).into_iter().flatten();
    entries.filter_map(|entry| entry.unwrap().file_name().to_string_lossy().parse().ok()).max().unwrap_or(0)
}

fn wait_for(what: &str, so: impl Fn() -> bool) {
    for _ in 0..12000 {
        if so() {
            return;
        }
        sleep(Duration::from_millis(10));
    }
    panic!("waited in vain for {what}");
}

fn send(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).unwrap();
    kill_process(pid, signal).unwrap();
}

#[test]
fn two_signals_at_once_stop_a_run_as_one_does() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let mut child = endless(dir.path(), &run, &[]);
    send(&child, Signal::TERM);
    send(&child, Signal::INT);
    assert_eq!(child.wait().unwrap().signal(), Some(2), "a shell's loop would go on");
    let summary: serde_json::Value = serde_json::from_slice(&fs::read(run.join("summary.json")).unwrap()).unwrap();
    assert_eq!(summary["status"], "interrupted");
}

#[test]
fn a_run_started_with_nohup_outlives_its_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let mut child = endless(dir.path(), &run, &["sh", "-c", "trap '' HUP; exec \"$0\" \"$@\""]);
    send(&child, Signal::HUP);
    let before = newest(&run);
    // Whatever had begun with the signal is over by the second of these.
    wait_for("two more checkpoints", || newest(&run) >= before + 2 * 4096);
    assert_eq!(child.try_wait().unwrap(), None);
    send(&child, Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn settings_that_do_not_fit_the_checkpoint_leave_the_run_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    succeed(&train(dir.path(), &["run.name=run", "train.steps=4096"]));
    let run = dir.path().join("run");
    let files = || ["config.toml", "environment.json", "metrics.jsonl"].map(|name| fs::read(run.join(name)).unwrap());
    let before = files();
    let resume = |word: &str| hotfire().args(["train", "--quiet", "--resume"]).arg(&run).arg(word).output().unwrap();
    let wrong = resume("agent.hidden=[32]");
    assert!(!wrong.status.success(), "{wrong:?}");
    assert!(files() == before, "the run was changed");
    succeed(&resume("train.steps=8192"));
    assert!(String::from_utf8_lossy(&files()[0]).contains("steps = 8192"));
}

#[test]
fn a_run_that_goes_on_keeps_what_it_is_and_says_what_changed() {
    let dir = tempfile::tempdir().unwrap();
    succeed(&train(dir.path(), &["run.name=run", "train.steps=4096"]));
    let run = dir.path().join("run");
    let config = || fs::read_to_string(run.join("config.toml")).unwrap();
    let resume = |words: &[&str]| hotfire().args(["train", "--resume"]).arg(&run).args(words).output().unwrap();
    let before = config();
    for word in ["run.seed=9", "run.name=other", "env.id=Acrobot-v1"] {
        let refused = resume(&["train.steps=8192", word]);
        let (key, _) = word.split_once('=').unwrap();
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(2) && said.contains(key), "{word}: {refused:?}");
    }
    let done = resume(&["agent.gamma=0.5"]);
    succeed(&done);
    assert!(String::from_utf8_lossy(&done.stdout).contains("has done its 4096 steps already"), "{done:?}");
    assert_eq!(config(), before, "nothing was done with these settings");

    succeed(&resume(&["agent.gamma=0.5", "train.steps=8192"]));
    succeed(&resume(&["train.steps=12288"]));
    let after = config();
    let notes: Vec<&str> = after.lines().take_while(|line| line.starts_with('#')).collect();
    assert_eq!(
        notes,
        [
            "# Changed at step 4096: agent.gamma = 0.5, train.steps = 8192",
            "# Changed at step 8192: train.steps = 12288"
        ]
    );
}
