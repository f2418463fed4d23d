use super::*;

#[test]
fn a_claim_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Claim>();
}

#[test]
fn a_second_claim_is_refused_while_the_first_lives() {
    let (_data, dir) = empty();
    let first = dir.claim("presses", LEASE).unwrap();
    let refusal = said(dir.claim("presses", LEASE));
    for part in [
        &std::process::id().to_string(),
        "generation 1",
        "presses",
        "_taktline",
        "is in use",
    ] {
        assert!(refusal.contains(part), "{refusal}");
    }
    first.check().unwrap();
}

#[test]
fn a_run_that_is_gone_is_followed_at_once_and_without_a_warning() {
    let (_data, dir) = empty();
    for generation in 1..4 {
        let claim = dir.claim("presses", LEASE).unwrap();
        assert_eq!((claim.generation(), claim.took_over()), (generation, None));
    }
}

#[test]
fn a_run_that_shows_no_life_for_a_lease_loses_the_directory() {
    let (_data, dir) = empty();
    let mut stopped = dir.claim("presses", LEASE).unwrap();
    stopped.stop_heartbeat();
    let claim = dir.claim("presses", SHORT).unwrap();
    let warning = claim.took_over().unwrap();
    assert!(
        warning.contains("showed no life") && warning.contains("generation 1"),
        "{warning}"
    );

    let end = said(stopped.check());
    assert!(
        end.contains("another run has taken over") && end.contains("generation 2"),
        "{end}"
    );
    claim.check().unwrap();
}

#[test]
fn a_clock_that_jumps_makes_no_live_run_look_dead() {
    let (_data, dir) = empty();
    let claim = dir.claim("presses", LEASE).unwrap();
    let day = Duration::from_secs(86_400);
    for touched in [std::time::SystemTime::now() - day, std::time::SystemTime::now() + day] {
        let file = fs::File::options().write(true).open(dir.claim_path(1)).unwrap();
        file.set_modified(touched).unwrap();
        assert!(said(dir.claim("presses", LEASE)).contains("is in use"));
    }
    claim.check().unwrap();
}

#[test]
fn of_many_newcomers_one_wins() {
    let (_data, dir) = empty();
    drop(dir.claim("presses", LEASE).unwrap());
    let claims: Vec<_> = std::thread::scope(|scope| {
        let newcomers: Vec<_> = (0..8).map(|_| scope.spawn(|| dir.claim("presses", LEASE))).collect();
        newcomers.into_iter().map(|newcomer| newcomer.join().unwrap()).collect()
    });
    let won: Vec<_> = claims.iter().flatten().map(Claim::generation).collect();
    assert_eq!(won, [2]);
}

#[test]
fn the_holder_is_told_while_there_is_one() {
    let (_data, dir) = empty();
    assert_eq!(dir.holder().unwrap(), None);
    let claim = dir.claim("presses", LEASE).unwrap();
    let holder = dir.holder().unwrap().unwrap();
    assert_eq!(
        (holder.pid, holder.generation, holder.pipeline.as_str()),
        (std::process::id(), 1, "presses")
    );
    drop(claim);
    assert_eq!(dir.holder().unwrap(), None);
}

#[test]
fn removal_leaves_nothing_to_go_on_from_and_generations_rise() {
    let (_data, dir) = empty();
    assert!(!dir.exists());
    let mut stopped = dir.claim("presses", LEASE).unwrap();
    assert!(dir.exists());
    let first = checkpoint(&dir, &stopped, 1, &[]);
    dir.name_savepoint("before", &first).unwrap();
    fs::create_dir_all(dir.journal().join("plc")).unwrap();
    let lock = dir.root.join("cluster/process-0.lock");
    fs::create_dir_all(lock.parent().unwrap()).unwrap();
    fs::write(&lock, "").unwrap();
    assert!(said(dir.remove()).contains("is in use"));

    stopped.stop_heartbeat();
    drop(dir.claim("presses", SHORT).unwrap());
    dir.note_published(7).unwrap();
    dir.remove().unwrap();
    assert_eq!(dir.published().unwrap(), None, "numbers begin anew");
    assert!(!dir.exists() && !dir.journal().exists() && dir.savepoints().unwrap().is_empty());
    assert_eq!(folder::names(&dir.root).unwrap(), ["claims", "cluster"]);
    assert!(lock.exists(), "the supervisor that starts this run has it");
    let claim = dir.claim("presses", LEASE).unwrap();
    assert_eq!((claim.generation(), latest(&dir, &claim)), (4, None));
    assert!(said(stopped.check()).contains("taken over"));
    assert!(said(stopped.commit(&manifest(&stopped, 2, &[]))).contains("taken over"));
}

#[test]
fn a_run_whose_directory_is_deleted_ends() {
    let (data, dir) = empty();
    let claim = dir.claim("presses", LEASE).unwrap();
    fs::remove_dir_all(data.path().join("_taktline")).unwrap();
    assert!(said(claim.check()).contains("was removed"));
    let again = dir.claim("presses", LEASE).unwrap();
    assert_eq!(again.generation(), 1);
    assert!(
        said(claim.check()).contains("was removed"),
        "the same number is not the same claim"
    );
}
