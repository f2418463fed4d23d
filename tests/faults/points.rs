//! A kill, and an I/O error, at the fault points.

use std::os::unix::process::ExitStatusExt;

use crate::scene::{Running, Scene};

/// One of each kind of act: write, fsync, link or rename, folder, commit; of each part. `torture --failpoints` has them all.
const POINTS: [&str; 14] = [
    "claim.write",
    "claim.link",
    "base.sync",
    "base.link",
    "state.write",
    "state.sync",
    "manifest.write",
    "manifest.link",
    "history.write",
    "history.rename",
    "history.commit",
    "history.committed",
    "log.sync",
    "log.link",
];

#[test]
fn a_kill_at_each_kind_of_fault_point() {
    let scene = Scene::new();
    for (number, point) in POINTS.iter().enumerate() {
        // The acts of a claim come once in a run.
        let passed = if point.starts_with("claim") || point.starts_with("base") {
            0
        } else {
            number % 3
        };
        let (status, said) = armed(&scene, point, passed, "kill").end();
        assert_eq!(status.signal(), Some(9), "{point}: {status}: {said}");
    }
    scene.finish();
    scene.assert_equal();
}

#[test]
fn an_fsync_error_ends_the_process_and_the_next_one_goes_on() {
    let scene = Scene::new();
    for point in [
        "claim.sync",
        "base.sync",
        "state.sync",
        "manifest.sync",
        "history.sync",
        "log.sync",
    ] {
        let (status, said) = armed(&scene, point, 0, "broken").end();
        assert_eq!(status.code(), Some(1), "{point}: {status}: {said}");
        assert!(said.contains(&format!("fault at {point}: broken")), "{point}: {said}");
    }
    scene.finish();
    scene.assert_equal();
}

fn armed(scene: &Scene, point: &str, passed: usize, what: &str) -> Running {
    let fault = match passed {
        0 => format!("{point}=return({what})"),
        _ => format!("{point}={passed}*off->return({what})"),
    };
    Running::new(scene.command().env("TAKTLINE_FAILPOINTS", "1").env("FAILPOINTS", fault))
}
