//! Every mistake in a configuration gets one line that says where it is and what would be right.

use hotfire_core::config::{ConfigDocument, ConfigError};
use hotfire_core::run_config::{RunConfig, TrainConfig};
use hotfire_core::schedule::Schedule;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Agent {
    learning_rate: Schedule,
    gamma: f32,
    gae_lambda: f64,
    minibatches: u32,
    hidden: Vec<usize>,
    activation: Activation,
    target_kl: Option<f32>,
    anneal: bool,
    optimizer: Optimizer,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Activation {
    Tanh,
    Relu,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Optimizer {
    epsilon: f32,
}

impl Default for Optimizer {
    fn default() -> Self {
        Self { epsilon: 1e-5 }
    }
}

impl Default for Agent {
    fn default() -> Self {
        Self {
            learning_rate: 2.5e-4.into(),
            gamma: 0.99,
            gae_lambda: 0.95,
            minibatches: 4,
            hidden: vec![64, 64],
            activation: Activation::Tanh,
            target_kl: None,
            anneal: true,
            optimizer: Optimizer::default(),
        }
    }
}

const FILE: &str = "\
[run]
seed = 3

[env]
id = \"CartPole-v1\"
options = { gravity = 9.8 }

[agent]
algorithm = \"ppo\"
gamma = 0.98

[agent.optimizer]
epsilon = 1e-7
";

#[derive(Debug, Clone, PartialEq)]
struct Config {
    run: RunConfig,
    train: TrainConfig,
    env: String,
    algorithm: String,
    options: toml::Table,
    agent: Agent,
    resolved: String,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NoMore {}

fn read(text: &str, overrides: &[&str]) -> Result<Config, ConfigError> {
    let overrides: Vec<String> = overrides.iter().map(|text| text.to_string()).collect();
    let mut document = ConfigDocument::parse("configs/a.toml", text, &overrides)?;
    let run: RunConfig = document.section("run")?;
    run.check(&document)?;
    let train = TrainConfig::read(&mut document)?;
    let env = document.take_tag("env", "id")?;
    let options = document.table("env", "options")?;
    document.section::<NoMore>("env")?;
    let algorithm = document.take_tag("agent", "algorithm")?;
    if algorithm != "ppo" {
        return Err(document.unknown_value("agent.algorithm", &algorithm, &["ppo", "dqn"]));
    }
    let agent: Agent = document.section("agent")?;
    document.finish()?;
    Ok(Config { run, train, env, algorithm, options, agent, resolved: document.resolved() })
}

fn message(text: &str, overrides: &[&str]) -> String {
    let message = read(text, overrides).expect_err("the configuration has a mistake").to_string();
    assert!(!message.contains('\n'), "{message:?} is more than a line");
    message
}

#[test]
fn values_come_from_the_file_the_overrides_and_the_defaults() {
    let config =
        read(FILE, &["agent.minibatches=8", "run.device=cuda:0", "train.steps=1e6", "env.options.max_force=2.0"])
            .unwrap();
    assert_eq!(config.run.seed, 3);
    assert_eq!(config.run.device, "cuda:0");
    assert_eq!(config.train.steps, 1_000_000);
    assert_eq!((config.env.as_str(), config.algorithm.as_str()), ("CartPole-v1", "ppo"));
    assert_eq!(config.options.to_string(), "gravity = 9.8\nmax_force = 2.0\n");
    assert_eq!(config.agent.optimizer.epsilon, 1e-7);
    let expected = Agent { gamma: 0.98, minibatches: 8, optimizer: config.agent.optimizer.clone(), ..Agent::default() };
    assert_eq!(config.agent, expected);
}

#[test]
fn override_values_are_toml_or_else_bare_text() {
    let config = read(
        FILE,
        &[
            "agent.hidden=[1, 2]",
            "agent.learning_rate={ from = 1e-3, to = 0 }",
            "agent.activation=relu",
            "agent.anneal=false",
            "agent.gamma=1",
            "agent.gamma=0.5",
            "agent.target_kl=0.01",
            "run.name=2024-05-01",
            "agent.optimizer.epsilon=1e-3",
        ],
    )
    .unwrap();
    assert_eq!(config.agent.hidden, [1, 2]);
    assert_eq!(config.agent.learning_rate, Schedule::Linear { from: 1e-3, to: 0.0 });
    assert_eq!(config.agent.activation, Activation::Relu);
    assert!(!config.agent.anneal);
    assert_eq!(config.agent.gamma, 0.5, "the last override wins");
    assert_eq!(config.agent.target_kl, Some(0.01));
    assert_eq!(config.run.name.as_deref(), Some("2024-05-01"));
    assert_eq!(config.agent.optimizer.epsilon, 1e-3);
}

#[test]
fn the_resolved_text_holds_every_value_and_gives_the_same_config() {
    let config = read(FILE, &["agent.learning_rate={ from = 3e-4, to = 0 }", "agent.target_kl=0.015"]).unwrap();
    let again = read(&config.resolved, &[]).unwrap();
    assert_eq!(again, config);
    for line in ["gamma = 0.98", "epsilon = 0.0000001", "target_kl = 0.015", "minibatches = 4", "algorithm = \"ppo\""] {
        assert!(config.resolved.lines().any(|found| found == line), "{line} is not in\n{}", config.resolved);
    }
}

#[test]
fn unknown_keys() {
    assert_eq!(
        message("[agent]\nalgorithm = \"ppo\"\nlearning_rat = 1", &["env.id=a"]),
        "configs/a.toml:3: agent.learning_rat: unknown key; did you mean agent.learning_rate?"
    );
    assert_eq!(
        message(FILE, &["agent.gama=0.9"]),
        "override agent.gama=0.9: agent.gama: unknown key; did you mean agent.gamma?"
    );
    assert_eq!(
        message(&FILE.replace("epsilon", "epsilom"), &[]),
        "configs/a.toml:13: agent.optimizer.epsilom: unknown key; did you mean agent.optimizer.epsilon?"
    );
    assert_eq!(
        message("[run]\nzzz = 1", &[]),
        "configs/a.toml:2: run.zzz: unknown key; known: name, dir, seed, device, threads"
    );
    assert_eq!(
        message(&FILE.replace("algorithm", "algoritm"), &[]),
        "configs/a.toml:9: agent.algoritm: unknown key; did you mean agent.algorithm?"
    );
    assert_eq!(
        message(
            "[train]\nsteps = 5\n[agent]\nlearning_rate = { from = 1, two = 2 }",
            &["env.id=a", "agent.algorithm=ppo"]
        ),
        "configs/a.toml:4: agent.learning_rate.two: unknown key; did you mean agent.learning_rate.to?"
    );
}

#[test]
fn unknown_sections() {
    let text = format!("{FILE}\n[trian]\nsteps = 5\n");
    assert_eq!(message(&text, &[]), "configs/a.toml:15: [trian]: unknown section; did you mean [train]?");
    assert_eq!(
        message(FILE, &["agnet.gamma=1"]),
        "override agnet.gamma=1: [agnet]: unknown section; did you mean [agent]?"
    );
    assert_eq!(
        message(&format!("seed = 1\n{FILE}"), &[]),
        "configs/a.toml:1: [seed]: unknown section; known: [run], [train], [env], [agent]"
    );
    assert_eq!(message("run = 5", &[]), "configs/a.toml:1: run: expected a table, found the integer 5");
}

#[test]
fn wrong_types() {
    let cases = [
        ("agent.gamma=high", "agent.gamma: expected a number, found the string \"high\""),
        ("agent.gamma=[1]", "agent.gamma: expected a number, found an array"),
        ("agent.gamma=nan", "agent.gamma: expected a finite number, found NaN"),
        ("agent.minibatches=1.5", "agent.minibatches: expected an integer, found the number 1.5"),
        ("agent.minibatches=-1", "agent.minibatches: expected an integer from 0 to 4294967295, found the integer -1"),
        ("agent.hidden=[64, true]", "agent.hidden[1]: expected an integer, found the boolean true"),
        ("agent.hidden=64", "agent.hidden: expected an array, found the integer 64"),
        ("agent.anneal=1", "agent.anneal: expected a boolean, found the integer 1"),
        ("agent.activation=reul", "agent.activation: \"reul\" is not known; did you mean relu?"),
        ("agent.activation=3", "agent.activation: expected a string, found the integer 3"),
        (
            "agent.learning_rate=fast",
            "agent.learning_rate: expected a number or { from = NUMBER, to = NUMBER }, found the string \"fast\"",
        ),
        ("agent.learning_rate={ from = 1 }", "agent.learning_rate.to: missing"),
        (
            "agent.learning_rate={ from = 1, to = true }",
            "agent.learning_rate.to: expected a number, found the boolean true",
        ),
        ("agent.optimizer=adam", "agent.optimizer: expected a table, found the string \"adam\""),
        ("agent.algorithm=1", "agent.algorithm: expected a string, found 1"),
        ("agent.algorithm=pop", "agent.algorithm: \"pop\" is not known; did you mean ppo?"),
        ("env.options=1", "env.options: expected a table, found 1"),
        ("run.seed=-1", "run.seed: expected an integer from 0 to 9223372036854775807, found the integer -1"),
        ("run.name=5", "run.name: expected a string, found the integer 5"),
        ("train.steps=0", "train.steps: expected at least 1, found 0"),
    ];
    for (text, expected) in cases {
        assert_eq!(message(FILE, &[text]), format!("override {text}: {expected}"));
    }
    assert_eq!(
        message(&FILE.replace("0.98", "\"high\""), &[]),
        "configs/a.toml:10: agent.gamma: expected a number, found the string \"high\""
    );
}

#[test]
fn missing_tags_and_files() {
    assert_eq!(message("[agent]\ngamma = 1", &["env.id=a"]), "configs/a.toml:1: agent.algorithm: missing");
    assert_eq!(message("", &["env.id=a"]), "configs/a.toml: agent.algorithm: missing");
    let error = ConfigDocument::load("no/such.toml", &[]).unwrap_err().to_string();
    assert!(error.starts_with("no/such.toml: cannot read: "), "{error}");
}

#[test]
fn broken_toml() {
    let text = message("[run]\nseed = \n", &[]);
    assert!(text.starts_with("configs/a.toml:2: not valid TOML: "), "{text}");
    let text = message("[run]\n[run]\n", &[]);
    assert!(text.starts_with("configs/a.toml:2: not valid TOML: "), "{text}");
}

#[test]
fn broken_overrides() {
    assert_eq!(message(FILE, &["agent.gamma"]), "override agent.gamma: expected section.key=value, found no =");
    assert_eq!(message(FILE, &["gamma=1"]), "override gamma=1: expected section.key=value, found the key \"gamma\"");
    assert_eq!(
        message(FILE, &["agent..gamma=1"]),
        "override agent..gamma=1: expected section.key=value, found the key \"agent..gamma\""
    );
    assert_eq!(
        message(FILE, &["agent.gamma.x=1"]),
        "override agent.gamma.x=1: expected section.key=value, but gamma is not a table"
    );
}

proptest! {
    #[test]
    fn no_override_panics(text in ".*", key in "[a-z]{1,5}(\\.[a-z_]{1,9}){0,3}") {
        for text in [text.clone(), format!("{key}={text}"), format!("agent.gamma={text}")] {
            if let Err(error) = read(FILE, &[&text]) {
                prop_assert!(!error.to_string().is_empty());
            }
        }
    }

    #[test]
    fn no_file_panics(text in "(\\[[a-z]{1,5}\\]\n|[a-z]{1,5} = ([0-9.e-]{1,5}|\"[a-z]*\"|\\[1, 2\\])\n){0,8}") {
        let _ = read(&text, &[]);
    }

    #[test]
    fn every_finite_number_survives_the_resolved_text(bits in any::<u32>(), wide in any::<f64>()) {
        let number = f32::from_bits(bits);
        prop_assume!(number.is_finite() && wide.is_finite());
        let overrides = [format!("agent.gamma={number:e}"), format!("agent.gae_lambda={wide:e}")];
        let config = read(FILE, &[&overrides[0], &overrides[1]]).unwrap();
        prop_assert_eq!(config.agent.gamma.to_bits(), number.to_bits());
        prop_assert_eq!(config.agent.gae_lambda.to_bits(), wide.to_bits());
        prop_assert_eq!(read(&config.resolved, &[]).unwrap(), config);
    }
}
