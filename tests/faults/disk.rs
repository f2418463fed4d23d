//! A full disk, and room on it again.

use std::path::Path;
use std::process::Command;

use crate::mosquitto::{Mosquitto, Scenes, publish, run, subscribed, values};
use crate::scene::Scene;

/// A file system of its own, of a few MiB; ends with this value.
struct Small {
    folder: tempfile::TempDir,
}

impl Small {
    /// None where this user may not mount.
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", "size=24m", "taktline-test"])
            .arg(folder.path());
        if rustix::process::geteuid().is_root() && mount.status().is_ok_and(|status| status.success()) {
            return Some(Small { folder });
        }
        eprintln!("skipped: a small tmpfs needs root and `mount`");
        None
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path()).status();
    }
}

#[test]
fn a_full_disk_ends_the_run_with_its_reason_and_the_next_one_goes_on() {
    let Some(small) = Small::mount() else { return };
    let scene = Scene::at(small.path());
    let mut running = scene.start(&[]);
    running.until("checkpoints", || scene.checkpoints().len() > 2);
    let ballast = small.path().join("ballast");
    fill(&ballast);
    let (status, said) = running.end();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(
        said.contains("No space left on device") || said.contains("no room on the disk"),
        "{said}"
    );
    // Not even a start is possible, and harms nothing.
    let (status, said) = scene.start(&[]).end();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    std::fs::remove_file(ballast).unwrap();
    scene.finish();
    scene.assert_equal();
}

#[test]
fn a_full_disk_under_the_journal_loses_no_message() {
    let (Some(small), Some(broker)) = (Small::mount(), Mosquitto::start()) else {
        return;
    };
    let scene = broker.stage(Scene::at(small.path()), "50ms");
    let mut running = run(&scene);
    subscribed(&scene, &mut running, &broker);
    publish(&broker, 0..5);
    running.until("the first five", || values(&scene).len() == 5);
    let ballast = small.path().join("ballast");
    fill(&ballast);
    publish(&broker, 5..200);
    let (status, said) = running.end();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(
        said.contains("No space left on device") || said.contains("no room on the disk"),
        "{said}"
    );
    std::fs::remove_file(ballast).unwrap();
    let mut running = run(&scene);
    running.until("all messages", || values(&scene) == (0..200).collect::<Vec<_>>());
}

/// Takes all the room there is.
fn fill(path: &Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).unwrap();
    let mut step = vec![0; 1 << 20];
    while !step.is_empty() {
        if file.write_all(&step).is_err() {
            step.truncate(step.len() / 2);
        }
    }
}
