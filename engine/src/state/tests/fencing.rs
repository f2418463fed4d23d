use super::*;
use crate::state::place::Beside;

/// As a run does that was stopped between its check and the link.
fn force(dir: &StateDir, manifest: &Manifest) {
    let path = dir.manifest_path(manifest.id());
    assert!(
        Beside::write("forced", &path, &sealed::seal(manifest).unwrap())
            .unwrap()
            .link()
            .unwrap()
    );
}

fn stalled(dir: &StateDir) -> Claim {
    let mut claim = dir.claim("presses", SHORT).unwrap();
    claim.stop_heartbeat();
    claim
}

#[test]
fn a_manifest_comes_back_as_it_was_written() {
    let (_data, dir) = empty();
    let claim = dir.claim("presses", LEASE).unwrap();
    assert_eq!((claim.next_checkpoint(), dir.latest(&claim).unwrap()), (1, None));
    let written = checkpoint(&dir, &claim, 1, &[]);
    drop(claim);
    let claim = dir.claim("presses", LEASE).unwrap();
    let (found, states) = dir.recover(&claim, &all).unwrap().unwrap();
    assert_eq!((&found.manifest, found.passed_over.len()), (&written, 0));
    assert_eq!(
        press_1(&states),
        &Kept {
            head: b"head 1".to_vec(),
            tail: b"+".to_vec(),
            oldest: 1
        }
    );
    assert_eq!(dir.manifest(1, 1).unwrap(), written);
    assert_eq!(claim.next_checkpoint(), 2);
}

#[test]
fn a_checkpoint_is_written_once_and_by_its_own_generation() {
    let (_data, dir) = empty();
    let claim = dir.claim("presses", LEASE).unwrap();
    let first = checkpoint(&dir, &claim, 1, &[]);
    assert!(said(claim.commit(&first)).contains("is there already"));
    assert!(
        said(claim.commit(&Manifest {
            generation: 2,
            ..first.clone()
        }))
        .contains("was given to generation 1")
    );
    assert!(said(claim.commit(&Manifest { format: 2, ..first })).contains("format 2"));
}

#[test]
fn what_a_stopped_run_writes_after_it_lost_the_directory_never_counts() {
    let (_data, dir) = empty();
    let zombie = stalled(&dir);
    checkpoint(&dir, &zombie, 1, &[]);
    let claim = stalled(&dir);
    assert!(said(zombie.commit(&manifest(&zombie, 2, &[]))).contains("another run has taken over"));
    force(&dir, &manifest(&zombie, 2, &[]));
    force(&dir, &manifest(&zombie, 7, &[]));
    assert_eq!(latest(&dir, &claim), Some(id(1, 1)));

    // Nor for the runs after that, whether or not there are checkpoints in between.
    let claim = stalled(&dir);
    assert_eq!((latest(&dir, &claim), claim.next_checkpoint()), (Some(id(1, 1)), 8));
    checkpoint(&dir, &claim, 8, &[]);
    force(&dir, &manifest(&zombie, 9, &[]));
    let claim = dir.claim("presses", SHORT).unwrap();
    assert_eq!((latest(&dir, &claim), claim.next_checkpoint()), (Some(id(8, 3)), 10));
    assert_eq!(claim.chain().unwrap().ids, [id(8, 3), id(1, 1)]);
}

#[test]
fn nothing_of_a_stopped_run_without_checkpoints_counts() {
    let (_data, dir) = empty();
    let zombie = stalled(&dir);
    let claim = stalled(&dir);
    force(&dir, &manifest(&zombie, 1, &[]));
    assert_eq!(latest(&dir, &claim), None);
    assert_eq!(latest(&dir, &dir.claim("presses", SHORT).unwrap()), None);
}

#[test]
fn a_checkpoint_whose_run_was_killed_right_after_it_counts() {
    let (_data, dir) = empty();
    let killed = dir.claim("presses", LEASE).unwrap();
    checkpoint(&dir, &killed, 1, &[]);
    force(&dir, &manifest(&killed, 2, &[]));
    drop(killed);
    assert_eq!(latest(&dir, &dir.claim("presses", LEASE).unwrap()), Some(id(2, 1)));
}

#[test]
fn a_claim_that_was_killed_before_it_had_a_base_is_passed() {
    let (_data, dir) = empty();
    let first = dir.claim("presses", LEASE).unwrap();
    checkpoint(&dir, &first, 1, &[]);
    drop(first);
    drop(dir.claim("presses", LEASE).unwrap());
    fs::remove_file(dir.base_path(2)).unwrap();
    let claim = dir.claim("presses", LEASE).unwrap();
    assert_eq!((claim.generation(), latest(&dir, &claim)), (3, Some(id(1, 1))));
}

#[test]
fn going_back_lasts_and_must_come_first() {
    let (_data, dir) = empty();
    let claim = dir.claim("presses", LEASE).unwrap();
    let manifests: Vec<_> = (1..=3).map(|number| checkpoint(&dir, &claim, number, &[])).collect();
    assert!(said(claim.resume_from(None)).contains("has checkpoints of its own"));
    drop(claim);
    dir.claim("presses", LEASE)
        .unwrap()
        .resume_from(Some(&manifests[1]))
        .unwrap();
    let claim = dir.claim("presses", LEASE).unwrap();
    assert_eq!((latest(&dir, &claim), claim.next_checkpoint()), (Some(id(2, 1)), 4));
    claim.resume_from(None).unwrap();
    drop(claim);
    assert_eq!(latest(&dir, &dir.claim("presses", LEASE).unwrap()), None);
}
