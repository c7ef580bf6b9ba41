//! What actor-critics with a replay memory do beyond the probes: mistakes in their configs, and noise that goes on
//! where it stopped.

mod common;

use common::{envs, make_agent};
use hotfire_agents::{ALGORITHMS, AlgorithmSpec};
use hotfire_core::checkpoint::{CheckpointReader, CheckpointWriter};

fn spec(name: &str) -> &'static AlgorithmSpec {
    ALGORITHMS.iter().find(|spec| spec.name == name).unwrap()
}

fn refusal(algorithm: &str, env: &str, more: &str) -> String {
    match make_agent(spec(algorithm), &envs(env), 1, more) {
        Ok(_) => panic!("{algorithm} took {env} with {more:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn mistakes_are_found_before_the_first_step() {
    for algorithm in ["td3", "ddpg"] {
        let problem = refusal(algorithm, "CartPole-v1", "");
        assert!(problem.contains("Box actions") && problem.contains("dqn and sac"), "{problem}");
    }
    for algorithm in ["sac", "td3"] {
        let problem = refusal(algorithm, "Pendulum-v1", "n_step = 0");
        assert!(problem.contains("agent.n_step") && problem.contains("at least 1"), "{problem}");
        let problem = refusal(algorithm, "Pendulum-v1", "gamma = 1.5");
        assert!(problem.contains("agent.gamma"), "{problem}");
    }
    let problem = refusal("sac", "Pendulum-v1", "temperature = 0.0");
    assert!(problem.contains("agent.temperature"), "{problem}");
    let problem = refusal("td3", "Pendulum-v1", "policy_delay = 0");
    assert!(problem.contains("agent.policy_delay"), "{problem}");
}

#[test]
fn lasting_noise_goes_on_where_it_stopped() {
    let make = || make_agent(spec("sac"), &envs("Pendulum-v1"), 3, "noise = \"ou\"\nnoise_std = 0.5").unwrap();
    let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let checkpoint = |agent: &dyn hotfire_agents::Agent, at: usize| {
        let mut writer = CheckpointWriter::create(dirs[at].path(), agent.step()).unwrap();
        agent.save(&mut writer).unwrap();
        CheckpointReader::open(writer.commit().unwrap()).unwrap()
    };
    let (mut whole, mut resumed) = (make(), make());
    whole.iterate().unwrap();
    let middle = checkpoint(whole.as_ref(), 0);
    assert!(middle.arrays("noise.safetensors").unwrap()["noise"].iter().all(|noise| *noise != 0.0));
    resumed.load(&middle).unwrap();
    whole.iterate().unwrap();
    resumed.iterate().unwrap();
    let (a, b) = (checkpoint(whole.as_ref(), 1), checkpoint(resumed.as_ref(), 2));
    for name in ["noise.safetensors", "actor.safetensors", "replay-actions.bin"] {
        assert_eq!(a.bytes(name).unwrap(), b.bytes(name).unwrap(), "{name}");
    }
}
