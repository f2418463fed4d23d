use std::fs::File;

use super::*;

fn numbers(dir: &StateDir) -> Vec<u64> {
    dir.ids().unwrap().iter().map(|id| id.checkpoint).collect()
}

fn states(dir: &StateDir) -> Vec<u64> {
    let names = folder::names(&dir.states()).unwrap();
    names
        .iter()
        .map(|name| name.split_once('-').unwrap().0.parse().unwrap())
        .collect()
}

const DAY: Duration = Duration::from_secs(86_400);

#[test]
fn the_newest_stay_with_their_files_and_those_of_savepoints() {
    let (_data, dir) = empty();
    let claim = dir.claim("presses", LEASE).unwrap();
    let first = checkpoint(&dir, &claim, 1, &[]);
    let second = checkpoint(&dir, &claim, 2, &[]);
    dir.name_savepoint("second", &second).unwrap();
    let third = checkpoint(&dir, &claim, 3, &[]);
    let fourth = checkpoint(&dir, &claim, 4, &third.files);
    checkpoint(&dir, &claim, 5, &fourth.files);

    let done = dir.collect(&claim, 2, DAY).unwrap();
    let expected = Collected {
        manifests: 3,
        state_files: 1,
        state_bytes: first.files[0].bytes,
        oldest_needed: 4,
        ..Collected::default()
    };
    assert_eq!(done, expected);
    assert_eq!((numbers(&dir), states(&dir)), (vec![4, 5], vec![2, 3, 4, 5]));
    assert_eq!(
        dir.collect(&claim, 2, DAY).unwrap(),
        Collected {
            oldest_needed: 4,
            ..Collected::default()
        }
    );
    load(&dir, &dir.savepoint("second").unwrap().manifest, &all).unwrap();
}

#[test]
fn a_damaged_checkpoint_doesnt_count_as_one_that_is_kept() {
    let (_data, dir) = empty();
    let claim = dir.claim("presses", LEASE).unwrap();
    let manifests: Vec<_> = (1..=4).map(|number| checkpoint(&dir, &claim, number, &[])).collect();
    fs::remove_file(dir.state_path(&manifests[2].files[0].name)).unwrap();
    fs::write(dir.manifest_path(id(4, 1)), "x").unwrap();
    dir.collect(&claim, 1, DAY).unwrap();
    assert_eq!(numbers(&dir), [2, 3, 4]);
    drop(claim);
    assert_eq!(latest(&dir, &dir.claim("presses", LEASE).unwrap()), Some(id(2, 1)));
}

#[test]
fn orphans_go_after_the_grace_and_never_while_they_are_written() {
    let (_data, dir) = empty();
    let killed = dir.claim("presses", LEASE).unwrap();
    write(&dir, 1, 1, 0, &[record("a", Change::Append, "", "")]);
    drop(killed);
    let claim = dir.claim("presses", LEASE).unwrap();
    fs::write(dir.checkpoints().join(".7-7.tmp"), "half").unwrap();
    checkpoint(&dir, &claim, 2, &[]);
    write(&dir, 2, 3, 0, &[record("a", Change::Append, "", "")]); // its checkpoint isn't committed yet
    // Times of files, and so a clock that jumps, play no part.
    for name in folder::names(&dir.states()).unwrap() {
        let file = File::options().write(true).open(dir.state_path(&name)).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    }
    let done = dir.collect(&claim, 3, DAY).unwrap();
    assert_eq!((done.state_files, done.unfinished, states(&dir)), (0, 0, vec![1, 2, 3]));
    let done = dir.collect(&claim, 3, Duration::ZERO).unwrap();
    assert_eq!((done.state_files, done.unfinished, states(&dir)), (1, 1, vec![2, 3]));
}

#[test]
fn claims_go_when_no_kept_checkpoint_needs_them() {
    let (_data, dir) = empty();
    let mut number = 0;
    let mut next = || {
        let claim = dir.claim("presses", LEASE).unwrap();
        number += 1;
        checkpoint(&dir, &claim, number, &[]);
        claim
    };
    for _ in 0..3 {
        drop(next());
    }
    drop(dir.claim("presses", LEASE).unwrap());
    let claim = next();
    let done = dir.collect(&claim, 2, DAY).unwrap();
    assert_eq!((done.manifests, done.claims, numbers(&dir)), (2, 3, vec![3, 4]));
    let names = folder::names(&dir.claims()).unwrap();
    assert_eq!(
        names,
        ["00000003.base", "00000003.json", "00000005.base", "00000005.json"]
    );
    drop(claim);
    let claim = dir.claim("presses", LEASE).unwrap();
    assert_eq!(claim.chain().unwrap().ids, [id(4, 5), id(3, 3)]);
}

#[test]
fn nothing_goes_before_there_is_a_checkpoint_to_go_on_from() {
    let (_data, dir) = empty();
    let claim = dir.claim("presses", LEASE).unwrap();
    write(&dir, 1, 1, 0, &[record("a", Change::Append, "", "")]);
    assert_eq!(dir.collect(&claim, 1, Duration::ZERO).unwrap(), Collected::default());
    assert_eq!(states(&dir), [1]);
}

#[test]
fn a_stopped_run_collects_nothing() {
    let (_data, dir) = empty();
    let mut zombie = dir.claim("presses", LEASE).unwrap();
    (1..4).for_each(|number| drop(checkpoint(&dir, &zombie, number, &[])));
    zombie.stop_heartbeat();
    let claim = dir.claim("presses", SHORT).unwrap();
    assert!(said(dir.collect(&zombie, 1, Duration::ZERO)).contains("taken over"));
    assert_eq!(numbers(&dir), [1, 2, 3]);
    drop(claim);
}

#[test]
fn a_savepoint_of_a_newer_format_keeps_everything() {
    let (_data, dir) = empty();
    let claim = dir.claim("presses", LEASE).unwrap();
    (1..4).for_each(|number| drop(checkpoint(&dir, &claim, number, &[])));
    let newer = Manifest {
        format: 2,
        ..dir.manifest(1, 1).unwrap()
    };
    dir.name_savepoint("newer", &newer).unwrap();
    assert!(said(dir.collect(&claim, 1, Duration::ZERO)).contains("format 2"));
    assert_eq!((numbers(&dir), states(&dir)), (vec![1, 2, 3], vec![1, 2, 3]));
}

#[test]
fn a_damaged_savepoint_is_told() {
    let (_data, dir) = empty();
    let claim = dir.claim("presses", LEASE).unwrap();
    let first = checkpoint(&dir, &claim, 1, &[]);
    let path = dir.name_savepoint("first", &first).unwrap();
    fs::write(path, "x").unwrap();
    let done = dir.collect(&claim, 1, DAY).unwrap();
    assert!(
        done.remarks[0].contains("savepoint \"first\" is lost"),
        "{:?}",
        done.remarks
    );
}
