//! Every workload can be set up and runs; every registry's entries are among them.

use std::collections::BTreeSet;

use hotfire_agents::ALGORITHMS;
use hotfire_bench::{env_step, workloads};
use hotfire_envs::{ENVS, WRAPPERS};
use hotfire_generative::MODELS;

#[test]
fn every_workload_runs() {
    let lower_levels = env_step::batch_steppers(&[16], env_step::Levels::All);
    for workload in workloads(2).into_iter().chain(env_step::single()).chain(lower_levels) {
        let mut work = workload.set_up().unwrap();
        assert!(work.units > 0, "{}", workload.id());
        (work.run)();
    }
}

#[test]
fn registries_are_covered_and_names_are_unique() {
    let all = workloads(1024);
    let ids: BTreeSet<String> = all.iter().map(|workload| workload.id()).collect();
    assert_eq!(ids.len(), all.len());
    let names = |group: &str| -> BTreeSet<String> {
        let name = |name: &str| name.split(',').next().unwrap().to_owned();
        all.iter().filter(|w| w.group == group).map(|w| name(&w.name)).collect()
    };
    let registered = |names: &mut dyn Iterator<Item = &'static str>| names.map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(names("vec_env"), registered(&mut ENVS.iter().map(|spec| spec.id)));
    assert_eq!(names("pixels"), registered(&mut ENVS.iter().map(|spec| spec.id)));
    let batched = ENVS.iter().filter(|spec| spec.make_batch.is_some()).map(|spec| spec.id);
    assert_eq!(names("batch"), registered(&mut batched.into_iter()));
    assert_eq!(names("algorithm"), registered(&mut ALGORITHMS.iter().map(|spec| spec.name)));
    assert_eq!(names("train"), registered(&mut MODELS.iter().map(|spec| spec.name)));
    assert_eq!(names("sample"), registered(&mut MODELS.iter().map(|spec| spec.name)));
    let wrapped = registered(&mut WRAPPERS.iter().map(|spec| spec.name).chain(["none"]));
    assert_eq!(names("wrapper"), wrapped);
}
