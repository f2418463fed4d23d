//! A clock that is a day ahead, then a day behind.

use std::path::Path;

use crate::scene::{Running, Scene};

const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// `shift` like `+1d`. None where there is no libfaketime.
fn shifted(scene: &Scene, shift: &str) -> Option<Running> {
    if !Path::new(LIBRARY).exists() {
        eprintln!("skipped: {LIBRARY} is missing (apt-get install libfaketime)");
        return None;
    }
    let mut command = scene.command();
    command
        .env("LD_PRELOAD", LIBRARY)
        .env("FAKETIME", shift)
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    Some(Running::new(&mut command))
}

#[test]
fn a_day_ahead_and_a_day_back() {
    let scene = Scene::new();
    for shift in ["+1d", "-1d", "+1d"] {
        let Some(mut running) = shifted(&scene, shift) else {
            return;
        };
        let before = crate::scene::newest(&scene.checkpoints());
        running.until("checkpoints", || {
            crate::scene::newest(&scene.checkpoints()) > before + 3
        });
        // It is alive whatever the clocks say.
        let (status, said) = scene.start(&["--lease-secs", "8"]).end();
        assert!(
            status.code() == Some(1) && said.contains("is in use by"),
            "{shift}: {said}"
        );
        running.kill();
    }
    scene.finish();
    scene.assert_equal();
}
