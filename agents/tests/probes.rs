//! Every registered algorithm solves every probe: problems so small that a failure names the broken part.

mod common;

use common::{GAMMA, PROBE_STEPS, PROBES, Probe, make_agent, probe_envs, serves};
use hotfire_agents::{ALGORITHMS, Agent, EnvView};
use hotfire_envs::Buffer;

/// How far a value may be off.
const TOLERANCE: f32 = 0.15;

#[test]
fn every_algorithm_solves_every_probe() {
    let mut failures = Vec::new();
    for algorithm in ALGORITHMS {
        let (discrete, boxes) = serves(algorithm.name);
        for (probe, continuous) in PROBES.into_iter().flat_map(|probe| [(probe, false), (probe, true)]) {
            let env = probe_envs(probe, continuous);
            let agent = make_agent(algorithm, &env, 1, &format!("gamma = {GAMMA}"));
            let what =
                format!("{} {probe:?} ({} actions)", algorithm.name, if continuous { "Box" } else { "Discrete" });
            if !(if continuous { boxes } else { discrete }) {
                let problem = agent.err().unwrap_or_else(|| panic!("{what}: was taken")).to_string();
                assert!(problem.contains("env.id"), "{what}: {problem}");
                continue;
            }
            let mut agent = agent.unwrap_or_else(|error| panic!("{what}: {error}"));
            while agent.step() < PROBE_STEPS {
                agent.iterate().unwrap();
            }
            if let Err(problem) = solved(agent.as_ref(), probe, continuous) {
                failures.push(format!("{what}: {problem}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn solved(agent: &dyn Agent, probe: Probe, continuous: bool) -> Result<(), String> {
    for (observation, value) in probe.values() {
        let seen = Buffer::F32(vec![*observation]);
        let Some(found) = agent.state_values(&seen) else { return Err("it has no values".into()) };
        if (found[0] - value).abs() > TOLERANCE {
            return Err(format!("the value at {observation} is {}, not {value}", found[0]));
        }
        let Some(best) = probe.best_action(*observation) else { continue };
        let mut action = if continuous { Buffer::F32(vec![0.0]) } else { Buffer::I32(vec![0]) };
        let view = EnvView { observations: &seen, action_masks: None, terminated: &[false], truncated: &[false] };
        agent.policy().act(view, &mut action);
        let (found, want, slack) = match action {
            Buffer::F32(a) => (a[0], best - 0.5, 0.25),
            Buffer::I32(a) => (a[0] as f32, best, 0.0),
            Buffer::U8(_) => unreachable!("actions are integers or floats"),
        };
        if (found - want).abs() > slack {
            return Err(format!("the action at {observation} is {found}, not {want}"));
        }
    }
    Ok(())
}
