//! For every registered algorithm: save, load and go on equals going on, in every byte of a later checkpoint.

mod common;

use std::fs;
use std::path::Path;

use common::{envs, make_agent, serves};
use hotfire_agents::{ALGORITHMS, Agent};
use hotfire_core::checkpoint::{CheckpointReader, CheckpointWriter};

fn advance(agent: &mut dyn Agent, steps: u64) {
    let end = agent.step() + steps;
    while agent.step() < end {
        agent.iterate().unwrap();
    }
}

fn checkpoint(agent: &dyn Agent, dir: &Path) -> CheckpointReader {
    let mut writer = CheckpointWriter::create(dir, agent.step()).unwrap();
    agent.save(&mut writer).unwrap();
    CheckpointReader::open(writer.commit().unwrap()).unwrap()
}

fn bytes(checkpoint: &CheckpointReader) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(checkpoint.path()).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn a_loaded_agent_goes_on_bit_for_bit() {
    for algorithm in ALGORITHMS {
        let (discrete, boxes) = serves(algorithm.name);
        // Episodes of CartPole terminate, those of Pendulum are truncated.
        for (id, _) in [("CartPole-v1", discrete), ("Pendulum-v1", boxes)].into_iter().filter(|(_, served)| *served) {
            let env = envs(id);
            let make = || make_agent(algorithm, &env, 5, "").unwrap_or_else(|error| panic!("{id}: {error}"));
            let mut agent = make();
            let [first, whole, resumed] = [(); 3].map(|()| tempfile::tempdir().unwrap());
            advance(agent.as_mut(), 400);
            let middle = checkpoint(agent.as_ref(), first.path());
            advance(agent.as_mut(), 400);
            let mut other = make();
            other.load(&middle).unwrap();
            assert_eq!(other.step(), middle.step(), "{} {id}", algorithm.name);
            advance(other.as_mut(), 400);
            let (a, b) =
                (bytes(&checkpoint(agent.as_ref(), whole.path())), bytes(&checkpoint(other.as_ref(), resumed.path())));
            let differing: Vec<&str> = a.iter().zip(&b).filter(|(a, b)| a != b).map(|(a, _)| a.0.as_str()).collect();
            assert!(a.len() == b.len() && differing.is_empty(), "{} {id}: {differing:?} differ", algorithm.name);
        }
    }
}
