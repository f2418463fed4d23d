//! The journal under fire: failing writes, syncs and acknowledgements, a full disk, a successor, `kill -9`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod journal_toy;

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use journal_toy::*;
use taktline_engine::Partition;
use taktline_engine::journal::{Full, Settings};

/// A fault that is caused until this is dropped. Fail points belong to the process, so tests take turns.
struct Fault(&'static str, #[allow(dead_code)] MutexGuard<'static, ()>);

fn fault(point: &'static str, act: &str) -> Fault {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    fail::cfg(point, act).unwrap();
    Fault(point, turn)
}

impl Fault {
    fn repair(&self) {
        fail::remove(self.0);
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        self.repair();
    }
}

/// Three batches pass, then the fault; what is acknowledged is there afterwards, and the error says `why`.
fn fails_at(point: &'static str, why: &str) {
    let folder = tempfile::tempdir().unwrap();
    let fault = fault(point, "off");
    let toy = Toy::with(0..3);
    let (mut journal, watch) = open(settings(folder.path()), None, &toy).unwrap();
    assert_eq!(read(&mut journal, 3).unwrap(), [0, 1, 2]);
    wait("the acknowledgement", || toy.lock().acknowledged == 3);
    fail::cfg(point, "return(broken)").unwrap();
    toy.give(3..30);
    let error = read(&mut journal, 100).unwrap_err();
    assert!(format!("{error:#}").contains(why), "{error:#}");
    let (acknowledged, syncs) = (toy.lock().acknowledged, watch.syncs());
    assert!(acknowledged == 3 || point == "journal.rotate", "{acknowledged}");
    drop(journal);
    assert_eq!(watch.syncs(), syncs, "no second try");
    fault.repair();
    let (numbers, watch) = read_all(settings(folder.path()), Some(0));
    assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>());
    assert!(acknowledged <= numbers.len() as u64);
    assert_eq!((watch.torn_bytes(), watch.lost_batches()), (0, 0));
}

#[test]
fn a_failed_write_ends_the_journal() {
    fails_at("journal.write", "fault at journal.write: broken");
}

#[test]
fn a_failed_sync_is_final_and_nothing_is_acknowledged() {
    fails_at("journal.sync", "fsync of ");
}

#[test]
fn a_failed_acknowledgement_ends_the_journal() {
    fails_at(
        "journal.acknowledge",
        "acknowledging to the source: fault at journal.acknowledge",
    );
}

#[test]
fn a_failed_rotation_ends_the_journal() {
    fails_at("journal.rotate", "fault at journal.rotate: broken");
}

#[test]
fn nothing_is_shown_before_it_is_durable() {
    let folder = tempfile::tempdir().unwrap();
    let _fault = fault("journal.sync", "return(broken)");
    let toy = Toy::with(0..3);
    let (mut journal, watch) = open(settings(folder.path()), None, &toy).unwrap();
    assert!(read(&mut journal, 1).is_err());
    assert_eq!(
        (toy.lock().acknowledged, watch.batches(), journal.offset()),
        (0, 0, at(0))
    );
    drop(journal);
}

#[test]
fn a_stop_tells_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let fault = fault("journal.sync", "off");
    let toy = Toy::with([]);
    toy.lock().held.push_back(batch(0));
    let (mut journal, _) = open(settings(folder.path()), None, &toy).unwrap();
    fail::cfg(fault.0, "return(broken)").unwrap();
    assert!(journal.stop());
    assert!(format!("{:#}", journal.poll().unwrap_err()).contains("fsync of"));
    assert_eq!(toy.lock().acknowledged, 0);
}

/// The disk is full when some batches are written, and then it isn't.
fn waits_for_space(point: &'static str) {
    let folder = tempfile::tempdir().unwrap();
    let fault = fault(point, "2*off->return(full)");
    let toy = Toy::ending(0..50);
    let (mut journal, watch) = open(settings(folder.path()), None, &toy).unwrap();
    let mut said = Vec::new();
    wait("the full disk", || {
        said.extend(watch.sentences());
        !said.is_empty()
    });
    let before = toy.lock().acknowledged;
    assert!(before < 50 && toy.lock().polled == before + 1, "the source waits");
    assert!(said[0].contains("no space left for the journal"), "{said:?}");
    let read_before = read(&mut journal, before as usize).unwrap();
    fault.repair();
    let rest = read(&mut journal, usize::MAX).unwrap();
    assert_eq!(
        read_before.into_iter().chain(rest).collect::<Vec<_>>(),
        (0..50).collect::<Vec<_>>()
    );
    said.extend(watch.sentences());
    assert!(said.len() == 2 && said[1].contains("space again"), "{said:?}");
    assert_eq!(toy.lock().acknowledged, 50);
    drop(journal);
    let (numbers, watch) = read_all(settings(folder.path()), Some(0));
    assert_eq!(numbers, (0..50).collect::<Vec<_>>());
    assert_eq!(watch.sentences(), [""; 0]);
}

#[test]
fn a_full_disk_holds_the_source_up() {
    waits_for_space("journal.write");
    waits_for_space("journal.rotate");
}

#[test]
fn a_stop_on_a_full_disk_leaves_what_was_not_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let fault = fault("journal.write", "3*off->return(full)");
    let toy = Toy::with(0..50);
    let (mut journal, watch) = open(settings(folder.path()), None, &toy).unwrap();
    let mut said = Vec::new();
    wait("the full disk", || {
        said.extend(watch.sentences());
        !said.is_empty()
    });
    assert!(!journal.stop());
    assert!(watch.sentences()[0].contains("could not take all"));
    drop(journal);
    fault.repair();
    assert_eq!(toy.lock().acknowledged, 3);
    assert_eq!(read_all(settings(folder.path()), Some(0)).0, [0, 1, 2]);
}

#[test]
fn a_failed_release_can_be_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let fault = fault("journal.release", "return(broken)");
    let (mut journal, watch) = open(settings(folder.path()), None, &Toy::ending(0..50)).unwrap();
    read(&mut journal, usize::MAX).unwrap();
    let bytes = watch.bytes();
    assert!(journal.release(&at(50)).is_err());
    assert_eq!(watch.bytes(), bytes);
    fault.repair();
    journal.release(&at(50)).unwrap();
    assert!(watch.bytes() < bytes);
}

#[test]
fn a_failed_repair_is_done_the_next_time() {
    let folder = tempfile::tempdir().unwrap();
    let fault = fault("journal.repair", "return(broken)");
    write(settings(folder.path()), 0..5);
    let last = segments(folder.path()).pop().unwrap();
    let mut bytes = std::fs::read(&last).unwrap();
    bytes.extend(b"torn");
    std::fs::write(&last, bytes).unwrap();
    assert!(open(settings(folder.path()), None, &Toy::ending([])).is_err());
    fault.repair();
    let (numbers, watch) = read_all(settings(folder.path()), None);
    assert_eq!((numbers, watch.torn_bytes()), (vec![0, 1, 2, 3, 4], 4));
}

#[test]
fn a_successor_ends_the_journal_before_it_acknowledges_or_removes() {
    let folder = tempfile::tempdir().unwrap();
    let _fault = fault("journal.none", "off");
    let taken = Arc::new(AtomicBool::new(false));
    let fence = Arc::clone(&taken);
    let settings = Settings {
        full: Full::DropOldest,
        fence: Arc::new(move || {
            anyhow::ensure!(!fence.load(Ordering::Acquire), "generation 8 has taken over");
            Ok(())
        }),
        ..settings(folder.path())
    };
    let toy = Toy::with(0..20);
    let (mut journal, watch) = open(settings, None, &toy).unwrap();
    assert_eq!(read(&mut journal, 20).unwrap().len(), 20);
    wait("the acknowledgement", || toy.lock().acknowledged == 20);
    taken.store(true, Ordering::Release);
    let bytes = watch.bytes();
    assert!(
        journal
            .release(&at(20))
            .unwrap_err()
            .to_string()
            .contains("generation 8")
    );
    assert_eq!(watch.bytes(), bytes);
    toy.give([20]);
    assert_eq!(
        read(&mut journal, 1).unwrap_err().to_string(),
        "generation 8 has taken over"
    );
    assert_eq!(toy.lock().acknowledged, 20);
}

#[test]
fn two_writers_do_not_mix() {
    // A run that was taken for dead goes on to write while its successor has opened the journal.
    let folder = tempfile::tempdir().unwrap();
    let _fault = fault("journal.none", "off");
    let (old, new) = (Toy::with(0..3), Toy::with([]));
    let (mut zombie, _) = open(settings(folder.path()), None, &old).unwrap();
    assert_eq!(read(&mut zombie, 3).unwrap(), [0, 1, 2]);
    let (mut successor, _) = open(settings(folder.path()), Some(3), &new).unwrap();
    new.give([100, 101]);
    assert_eq!(read(&mut successor, 2).unwrap(), [100, 101]);
    old.give(3..50); // more than a segment
    let error = read(&mut zombie, 100).unwrap_err();
    assert!(format!("{error:#}").contains("another run writes here"), "{error:#}");
    drop((zombie, successor));
    let (numbers, watch) = read_all(settings(folder.path()), Some(0));
    assert_eq!((numbers, watch.sentences()), (vec![0, 1, 2, 100, 101], vec![]));
}

const CHILD: &str = "TAKTLINE_JOURNAL_CHILD";

/// Writes to the journal in `CHILD` until a fault kills it, and tells in a file what was acknowledged.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(CHILD) else { return };
    let folder = Path::new(&folder);
    let _scenario = fail::FailScenario::setup();
    let (from, _) = read_all(settings(&folder.join("journal")), Some(0));
    let toy = Toy::with(from.len() as u64..from.len() as u64 + 100);
    let (mut journal, _) = open(settings(&folder.join("journal")), Some(0), &toy).unwrap();
    loop {
        let _ = journal.poll().unwrap();
        let acknowledged = from.len() as u64 + toy.lock().acknowledged;
        std::fs::write(folder.join("acknowledged.new"), acknowledged.to_string()).unwrap();
        std::fs::rename(folder.join("acknowledged.new"), folder.join("acknowledged")).unwrap();
    }
}

#[test]
fn a_kill_at_any_point_loses_nothing_acknowledged() {
    for point in ["journal.write", "journal.sync", "journal.rotate", "journal.acknowledge"] {
        let folder = tempfile::tempdir().unwrap();
        let mut torn = 0;
        let mut before = 0;
        for skip in 1..5 {
            let ended = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "child"])
                .env(CHILD, folder.path())
                .env("FAILPOINTS", format!("{point}={skip}*off->return(kill)"))
                .output()
                .unwrap();
            assert_eq!(
                std::os::unix::process::ExitStatusExt::signal(&ended.status),
                Some(9),
                "{point}: {ended:?}"
            );
            let acknowledged = std::fs::read_to_string(folder.path().join("acknowledged"))
                .map_or(0, |text| text.parse::<usize>().unwrap());
            let (numbers, watch) = read_all(settings(&folder.path().join("journal")), Some(0));
            torn += watch.torn_bytes();
            assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>(), "{point}");
            assert!(
                acknowledged.max(before) <= numbers.len(),
                "{point}: {acknowledged} of {}",
                numbers.len()
            );
            assert_eq!(watch.lost_batches(), 0);
            before = numbers.len();
        }
        assert!(before > 0, "{point}");
        assert_eq!(torn > 0, point == "journal.write", "{point} left {torn} torn bytes");
    }
}
