use super::*;

#[test]
fn a_savepoint_is_found_by_its_name() {
    let (_data, dir) = empty();
    assert!(said(dir.savepoint("none")).contains("nor any other"));
    let claim = dir.claim("presses", LEASE).unwrap();
    let first = checkpoint(&dir, &claim, 1, &[]);
    dir.name_savepoint("before-update", &first).unwrap();
    dir.name_savepoint("a.b_C-9", &first).unwrap();
    assert_eq!(dir.savepoint("before-update").unwrap().manifest, first);
    assert_eq!(dir.savepoints().unwrap(), ["a.b_C-9", "before-update"]);
    assert!(said(dir.savepoint("after")).contains("there are: a.b_C-9, before-update"));
    assert!(said(dir.name_savepoint("before-update", &first)).contains("already"));
}

#[test]
fn a_name_is_no_path() {
    let (_data, dir) = empty();
    let claim = dir.claim("presses", LEASE).unwrap();
    let first = checkpoint(&dir, &claim, 1, &[]);
    for name in ["", "..", ".hidden", "a/b", "a b", "ä", &"x".repeat(65)] {
        assert!(said(dir.name_savepoint(name, &first)).contains("is no name"), "{name}");
    }
    dir.name_savepoint(&"x".repeat(64), &first).unwrap();
}

#[test]
fn what_is_collected_can_not_be_named() {
    let (_data, dir) = empty();
    let claim = dir.claim("presses", LEASE).unwrap();
    let first = checkpoint(&dir, &claim, 1, &[]);
    fs::remove_file(dir.state_path(&first.files[0].name)).unwrap();
    assert!(said(dir.name_savepoint("late", &first)).contains("can't be named"));
    assert!(dir.savepoints().unwrap().is_empty());
}

#[test]
fn a_run_goes_on_from_a_savepoint_whose_checkpoint_was_collected() {
    let (_data, dir) = empty();
    let claim = dir.claim("presses", LEASE).unwrap();
    let first = checkpoint(&dir, &claim, 1, &[]);
    dir.name_savepoint("before", &first).unwrap();
    (2..6).for_each(|number| drop(checkpoint(&dir, &claim, number, &[])));
    dir.collect(&claim, 1, Duration::ZERO).unwrap();
    assert!(dir.manifest(1, 1).is_err());
    drop(claim);

    let claim = dir.claim("presses", LEASE).unwrap();
    assert_eq!(claim.next_checkpoint(), 6);
    let found = dir.savepoint("before").unwrap();
    claim.resume_from(Some(&found.manifest)).unwrap();
    drop(claim); // killed before its first checkpoint

    let claim = dir.claim("presses", LEASE).unwrap();
    let (found, states) = dir.recover(&claim, &all).unwrap().unwrap();
    assert_eq!(
        (found.manifest, press_1(&states).head.as_slice()),
        (first, &b"head 1"[..])
    );
}
