//! `hotfire env` and `hotfire list` from outside.

use std::path::Path;
use std::process::{Command, Output};

fn hotfire(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hotfire")).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Pictures of a GIF: image descriptors, found by walking its blocks.
fn pictures(path: &Path) -> usize {
    let gif = std::fs::read(path).unwrap();
    assert_eq!(&gif[..6], b"GIF89a");
    let table = |flags: u8| if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) };
    let (mut at, mut count) = (13 + table(gif[10]), 0);
    let skip = |mut at: usize| {
        while gif[at] != 0 {
            at += 1 + usize::from(gif[at]);
        }
        at + 1
    };
    loop {
        match gif[at] {
            0x21 => at = skip(at + 2),
            0x2c => {
                count += 1;
                at = skip(at + 10 + table(gif[at + 9]) + 1);
            }
            0x3b => return count,
            other => panic!("block {other:#x}"),
        }
    }
}

#[test]
fn random_actions_and_trained_agents_are_filmed() {
    let dir = tempfile::tempdir().unwrap();
    let (gif, again) = (dir.path().join("a.gif"), dir.path().join("b.gif"));
    let film = |path: &Path, more: &[&str]| {
        let mut args = vec!["env", "render", "FrozenLake-v1", "--gif", path.to_str().unwrap()];
        args.extend(more);
        hotfire(&args)
    };
    let done = film(&gif, &["--episodes", "3", "--seed", "4", "env.options.is_slippery=false"]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert_eq!(text(&done.stdout).matches("terminated after").count(), 3, "{}", text(&done.stdout));
    assert!(pictures(&gif) > 3);
    film(&again, &["--episodes", "3", "--seed", "4", "env.options.is_slippery=false"]);
    assert!(std::fs::read(&gif).unwrap() == std::fs::read(&again).unwrap(), "a seed fixes the film");
    film(&again, &["--steps", "1"]);
    assert!((1..=2).contains(&pictures(&again)));

    let run_dir = format!("run.dir={}", dir.path().display());
    let settings = [&run_dir, "run.name=agent", "train.steps=2000", "train.eval_interval=0"];
    let trained = hotfire(&[&["train", "configs/ppo-cartpole.toml", "--quiet"], &settings[..]].concat());
    assert!(trained.status.success(), "{}", text(&trained.stderr));
    let run = dir.path().join("agent");
    let policy = ["env", "render", "CartPole-v1", "--policy", run.to_str().unwrap(), "--gif", again.to_str().unwrap()];
    let done = hotfire(&policy);
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert!(pictures(&again) > 5);
}

#[test]
fn mistakes_end_with_code_2_and_name_what_is_wrong() {
    for (args, expected) in [
        (&["env", "play", "CartPole-v1"][..], "needs a terminal"),
        (&["env", "render", "CartPole-v7", "--gif", "a.gif"], "did you mean `CartPole-v1`?"),
        (&["env", "render", "CartPole-v1", "--gif", "a.gif", "env.options.x=1"], "CartPole-v1 has no option `x`"),
        (&["env", "render", "CartPole-v1", "--gif", "a.gif", "env.wrappers=[\"clip\"]"], "unknown wrapper `clip`"),
        (&["env", "render", "CartPole-v1", "--gif", "a.gif", "--policy", "no/such/run"], "no/such/run"),
        (&["env", "render", "CartPole-v1"], "--gif"),
        (&["env", "check", "CartPole-v7"], "did you mean `CartPole-v1`?"),
    ] {
        let failed = hotfire(args);
        let message = text(&failed.stderr);
        assert!(failed.status.code() == Some(2) && message.contains(expected), "{args:?}: {message}");
        assert!(!Path::new("a.gif").exists());
    }
}

#[test]
fn lists_name_everything() {
    let listed = text(&hotfire(&["list", "envs"]).stdout);
    for spec in hotfire_envs::ENVS {
        assert!(listed.contains(&format!("  {} ", spec.id)) && listed.contains(spec.summary), "{}", spec.id);
    }
    let listed = text(&hotfire(&["list", "wrappers"]).stdout);
    for spec in hotfire_envs::WRAPPERS {
        assert!(listed.contains(&format!("  {} ", spec.name)) && listed.contains(spec.summary), "{}", spec.name);
        assert!(spec.options.iter().all(|(option, what)| listed.contains(option) && listed.contains(what)));
    }
}
