//! Damaged and missing files of the state.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};

use crate::scene::{Running, Scene, files};

/// Damages, after a kill, what `what` finds; the next run says `says`, and history is that of an undisturbed one.
fn check(damage: impl Fn(&Scene), says: &[&str]) {
    let scene = Scene::new();
    scene.kill_after(6);
    damage(&scene);
    let said = scene.finish();
    for part in says {
        assert!(said.contains(part), "{part}: {said}");
    }
    scene.assert_equal();
}

#[test]
fn a_flipped_bit_in_the_newest_manifest() {
    check(
        |scene| flip(&newest(&scene.checkpoints())),
        &["passed over", "checksum"],
    );
}

#[test]
fn a_torn_manifest() {
    check(|scene| cut(&newest(&scene.checkpoints())), &["passed over"]);
}

#[test]
fn an_empty_manifest() {
    check(|scene| set_len(&newest(&scene.checkpoints()), 0), &["passed over"]);
}

#[test]
fn a_flipped_bit_in_the_newest_state_file() {
    check(|scene| flip(&newest_state(scene)), &["passed over"]);
}

#[test]
fn a_torn_state_file() {
    check(|scene| cut(&newest_state(scene)), &["passed over"]);
}

#[test]
fn a_deleted_state_file() {
    check(
        |scene| std::fs::remove_file(newest_state(scene)).unwrap(),
        &["passed over"],
    );
}

#[test]
fn a_torn_claim_of_the_run_before() {
    check(
        |scene| cut(&newest(&files(&scene.data.join("_taktline/claims"), "json"))),
        &[],
    );
}

#[test]
fn no_checkpoint_is_whole() {
    let scene = Scene::new();
    scene.kill_after(6);
    scene.checkpoints().iter().for_each(|path| flip(path));
    for _ in 0..2 {
        let (status, said) = scene.start(&[]).end();
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(
            said.contains("no checkpoint in") && said.contains("--overwrite"),
            "{said}"
        );
        assert!(!said.contains("panicked"), "{said}");
    }
    let (status, said) = scene.start(&["--overwrite"]).end();
    assert!(status.success(), "{said}");
    scene.assert_equal();
}

#[test]
fn a_torn_newest_entry_of_a_tables_log() {
    let scene = Scene::new();
    // Killed right after a commit, which the crash of a machine could tear.
    let fault = "history.committed=9*off->return(kill)";
    let mut armed = scene.command();
    let (status, said) = Running::new(armed.env("TAKTLINE_FAILPOINTS", "1").env("FAILPOINTS", fault)).end();
    assert_eq!(status.signal(), Some(9), "{said}");
    let tables = std::fs::read_dir(&scene.data).unwrap();
    let logs = tables.map(|table| table.unwrap().path().join("_delta_log"));
    let entries = logs.flat_map(|log| files(&log, "json"));
    let written = |path: &PathBuf| std::fs::metadata(path).unwrap().modified().unwrap();
    cut(&entries.max_by_key(written).unwrap());
    let said = scene.finish();
    assert!(said.contains("was torn by a crash"), "{said}");
    scene.assert_equal();
}

fn newest(files: &[PathBuf]) -> PathBuf {
    files.last().unwrap().clone()
}

/// Of the newest checkpoint: its files begin with its number, like its manifest.
fn newest_state(scene: &Scene) -> PathBuf {
    let manifest = newest(&scene.checkpoints());
    let number = manifest
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .split('-')
        .next()
        .unwrap()
        .to_owned();
    let states = std::fs::read_dir(scene.data.join("_taktline/state")).unwrap();
    let mut states: Vec<PathBuf> = states.map(|entry| entry.unwrap().path()).collect();
    states.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&number));
    states.sort();
    newest(&states)
}

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    File::options()
        .write(true)
        .open(path)
        .unwrap()
        .write_all_at(&bytes, 0)
        .unwrap();
}

fn cut(path: &Path) {
    set_len(path, std::fs::metadata(path).unwrap().len() * 2 / 3);
}

fn set_len(path: &Path, length: u64) {
    File::options().write(true).open(path).unwrap().set_len(length).unwrap();
}
