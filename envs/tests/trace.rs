//! Replays of recorded traces by `check_trace`.

use std::io::{BufReader, Read};
use std::path::Path;

use hotfire_envs::{TraceReport, check_trace, spec};

fn text(name: &str) -> String {
    let file = std::fs::File::open(Path::new("../tests/fixtures").join(format!("{name}.jsonl.gz"))).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    text
}

fn check(id: &str, text: &str) -> TraceReport {
    check_trace(spec(id).unwrap(), BufReader::new(text.as_bytes()), 0.0).unwrap()
}

#[test]
fn recordings_of_gymnasium_repeat() {
    let mut steps = 0;
    for (name, id) in [
        ("CartPole-v1", "CartPole-v1"),
        ("MountainCar-v0", "MountainCar-v0"),
        ("Pendulum-v1", "Pendulum-v1"),
        ("FrozenLake-v1_8x8_slippery", "FrozenLake8x8-v1"),
        ("CliffWalkingSlippery-v1", "CliffWalkingSlippery-v1"),
        ("Taxi-v4_rainy", "Taxi-v4"),
        ("Blackjack-v1_natural", "Blackjack-v1"),
        ("LunarLander-v3_wind", "LunarLander-v3"),
    ] {
        let report = check(id, &text(name));
        assert_eq!(report.first_difference, None, "{name}");
        assert!(report.episodes > 0 && report.max_obs_difference == 0.0, "{name}: {report:?}");
        steps += report.steps;
    }
    assert!(steps > 2000, "{steps}");
}

#[test]
fn the_first_difference_is_named() {
    let text = text("FrozenLake-v1_4x4");
    let changed = text.replacen("\"obs\": [4, 8, 9,", "\"obs\": [4, 8, 10,", 1).replacen(
        "\"obs\":[4,8,9,",
        "\"obs\":[4,8,10,",
        1,
    );
    assert_ne!(text, changed);
    let report = check("FrozenLake-v1", &changed);
    let difference = report.first_difference.unwrap();
    assert!(difference.ends_with("step 2: observation: element 0 is 9, recorded 10"), "{difference}");
}

#[test]
fn traces_that_do_not_fit_are_errors() {
    let error = |id: &str, text: &str| {
        check_trace(spec(id).unwrap(), BufReader::new(text.as_bytes()), 0.0).unwrap_err().to_string()
    };
    let header = "{\"kind\": \"header\", \"env_id\": \"CartPole-v1\"}\n";
    assert_eq!(
        error("Acrobot-v1", header),
        "Acrobot-v1: line 1 of the trace: expected a trace of this environment, found one of CartPole-v1"
    );
    assert!(error("CartPole-v1", "{").starts_with("CartPole-v1: line 1 of the trace: expected a JSON object"));
    let episode = |fields: &str| format!("{header}{{\"kind\": \"episode\", \"seed\": 0, \"obs\": [], {fields}}}");
    let short = error("CartPole-v1", &episode("\"actions\": [0], \"initial_obs\": [0, 0, 0]"));
    assert!(short.contains("line 2 of the trace: expected an `initial_obs` of the space"), "{short}");
}
