//! A process of a cluster that is stopped, not killed. Kills are `torture`'s.

use rustix::process::{Pid, Signal, kill_process};

use crate::scene::{Running, Scene};
use crate::support::{ok, taktline};

#[test]
fn a_stopped_process_is_killed_and_all_go_on() {
    let scene = Scene::new();
    let mut command = taktline();
    command.args([
        "cluster",
        "start",
        &scene.pipeline,
        "--processes",
        "2",
        "--until-end",
        "--data",
    ]);
    command.arg(&scene.data).current_dir(scene.data.parent().unwrap());
    let mut supervisor = Running::new(&mut command);
    supervisor.until("checkpoints", || scene.checkpoints().len() > 2);
    let status = ok(&[
        "cluster",
        "status",
        "--format",
        "json",
        "--data",
        scene.data.to_str().unwrap(),
    ]);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let pid = status["supervisors"][0]["processes"][1]["pid"].as_i64().unwrap() as i32;
    kill_process(Pid::from_raw(pid).unwrap(), Signal::STOP).unwrap();
    let (status, said) = supervisor.end();
    assert!(status.success(), "{said}");
    assert!(said.contains("all are started again"), "{said}");
    scene.assert_equal();
}

#[test]
fn a_run_that_exceeds_its_memory_is_not_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = folder.path().join("p.yaml");
    // Less than the program takes with so many machines.
    let text = "version: 1\nmemory: {limit: 64MiB}\n\
                sources: {plc: {kind: simulate, machines: 1000, rate: 10, replay: realtime}}\n\
                steps: {sums: {kind: window, from: plc, every: 1s}}\nsinks: {history: {kind: history, from: sums}}\n";
    std::fs::write(&pipeline, text).unwrap();
    let mut command = taktline();
    command.args(["cluster", "start", "--processes", "2", "--data"]);
    command.arg(folder.path().join("data")).arg(&pipeline);
    let (status, said) = Running::new(&mut command).end();
    assert_eq!(status.code(), Some(78), "{said}");
    assert!(said.contains("memory.limit is 64 MiB"), "{said}");
    assert!(!said.contains("are started again"), "{said}");
}
