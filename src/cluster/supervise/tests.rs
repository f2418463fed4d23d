//! Supervisors of shell scripts. A script knows its process ($P), how often it was started again ($R), its folder ($D) and its
//! heartbeat file ($H).

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::process::{Pid, test_kill_process};

use super::*;
use crate::cluster::alive;

/// Generous: a test that needs it has failed.
const LONG: Duration = Duration::from_secs(60);

fn supervisor(folder: &Path, processes: usize, script: &'static str) -> Supervisor {
    let dir = folder.to_owned();
    Supervisor {
        folder: folder.to_owned(),
        pipeline: "press.yaml".into(),
        processes: (0..processes).collect(),
        addresses: Addresses::Free(processes),
        timing: Timing {
            lease: LONG,
            stopping: LONG,
            settled: Duration::ZERO,
            tick: Duration::from_millis(2),
        },
        command: Box::new(move |start| {
            let mut command = Command::new("sh");
            command
                .args(["-c", script])
                .env("P", start.process.to_string())
                .env("R", start.restarts.to_string())
                .env("D", &dir)
                .env("H", alive::heartbeat_file(&dir, start.process));
            command
        }),
    }
}

fn log(folder: &Path, process: usize) -> String {
    std::fs::read_to_string(output::log_file(folder, process)).unwrap_or_default()
}

fn wait_for(what: &str, mut seen: impl FnMut() -> bool) {
    let until = Instant::now() + LONG;
    while !seen() {
        assert!(Instant::now() < until, "{what} did not come to be");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn in_background(
    make: impl FnOnce() -> Supervisor + Send + 'static,
) -> (Arc<AtomicBool>, JoinHandle<anyhow::Result<Outcome>>) {
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    (stop, std::thread::spawn(move || make().run(&told)))
}

/// The pids that scripts wrote to `pids`.
fn left(folder: &Path) -> Vec<i32> {
    let pids = std::fs::read_to_string(folder.join("pids")).unwrap();
    let pids: Vec<i32> = pids.lines().map(|pid| pid.parse().unwrap()).collect();
    assert!(!pids.is_empty());
    pids.into_iter()
        .filter(|pid| test_kill_process(Pid::from_raw(*pid).unwrap()).is_ok())
        .collect()
}

#[test]
fn all_that_end_well_end_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let done = supervisor(dir.path(), 3, "echo out $P; echo err $P >&2")
        .run(&AtomicBool::new(false))
        .unwrap();
    assert_eq!(done, Outcome::Done);
    for process in 0..3 {
        assert_eq!(log(dir.path(), process), format!("out {process}\nerr {process}\n"));
    }
    assert_eq!(record::read_all(dir.path()).unwrap(), []);
}

#[test]
fn one_that_dies_takes_all_with_it_and_all_are_started_again() {
    for death in ["exit 1", "kill -9 $$", "kill -ABRT $$"] {
        let dir = tempfile::tempdir().unwrap();
        // Process 1 dies when 0 has said that it is there.
        let script = format!(
            "echo $$ >> $D/pids; echo start $R; [ $R = 2 ] && exit 0; [ $P = 0 ] && exec sleep 1000; \
             until grep -q \"start $R\" $D/logs/process-0.log; do sleep 0.01; done; {death}"
        );
        let script: &'static str = Box::leak(script.into_boxed_str());
        let done = supervisor(dir.path(), 2, script).run(&AtomicBool::new(false)).unwrap();
        assert_eq!(done, Outcome::Done, "{death}");
        assert_eq!(log(dir.path(), 0), "start 0\nstart 1\nstart 2\n", "{death}");
        assert_eq!(log(dir.path(), 1), "start 0\nstart 1\nstart 2\n", "{death}");
        assert_eq!(left(dir.path()), [0; 0], "{death}");
    }
}

#[test]
fn the_one_that_died_is_named_not_those_that_miss_it() {
    let dir = tempfile::tempdir().unwrap();
    let supervisor = supervisor(dir.path(), 3, "[ $P = 1 ] && kill -9 $$; exit 1");
    let mut round = supervisor.start(0).unwrap();
    let mut end = None;
    wait_for("the end of all", || {
        end = round.look(LONG).unwrap();
        round.children.iter().all(|one| one.pid().is_none())
    });
    let how = "was ended by signal 9".to_owned();
    assert_eq!(end, Some(End::Died { process: 1, how }));
}

#[test]
fn logs_that_were_removed_between_two_starts_are_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let supervisor = supervisor(dir.path(), 1, "echo start $R");
    for restarts in 0..2 {
        let mut round = supervisor.start(restarts).unwrap();
        wait_for("its end", || round.look(LONG).unwrap() == Some(End::All));
        round.kill(); // waits for its last lines
        assert_eq!(log(dir.path(), 0), format!("start {restarts}\n"));
        std::fs::remove_dir_all(output::logs(dir.path())).unwrap();
    }
}

#[test]
fn bad_configuration_is_not_started_again() {
    for code in [78, 2] {
        let dir = tempfile::tempdir().unwrap();
        let script: &'static str =
            Box::leak(format!("echo $$ >> $D/pids; [ $P = 1 ] && exit {code}; exec sleep 1000").into_boxed_str());
        let ended = supervisor(dir.path(), 2, script).run(&AtomicBool::new(false)).unwrap();
        assert_eq!(ended, Outcome::Hopeless { process: 1, code });
        wait_for("the other's end", || left(dir.path()).is_empty());
    }
}

#[test]
fn told_to_stop_it_lets_all_end_in_good_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let (stop, thread) = in_background(move || {
        supervisor(
            &path,
            2,
            "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.01; done",
        )
    });
    wait_for("both", || {
        (0..2).all(|process| log(dir.path(), process).contains("ready"))
    });
    stop.store(true, Ordering::Release);
    assert_eq!(thread.join().unwrap().unwrap(), Outcome::Done);
    for process in 0..2 {
        assert_eq!(log(dir.path(), process), "ready\nbye\n");
    }
}

#[test]
fn one_that_does_not_stop_is_killed_in_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let (stop, thread) = in_background(move || {
        let mut supervisor = supervisor(
            &path,
            2,
            "trap '' TERM; echo $$ >> $D/pids; echo ready; while :; do sleep 0.01; done",
        );
        supervisor.timing.stopping = Duration::from_millis(200);
        supervisor
    });
    wait_for("both", || {
        (0..2).all(|process| log(dir.path(), process).contains("ready"))
    });
    stop.store(true, Ordering::Release);
    assert_eq!(thread.join().unwrap().unwrap(), Outcome::Cut);
    assert_eq!(left(dir.path()), [0; 0]);
}

#[test]
fn one_that_ends_badly_when_told_to_stop_is_not_a_good_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let (stop, thread) = in_background(move || {
        supervisor(
            &path,
            2,
            "trap 'echo bye; exit $P' TERM; echo ready; while :; do sleep 0.01; done",
        )
    });
    wait_for("both", || {
        (0..2).all(|process| log(dir.path(), process).contains("ready"))
    });
    stop.store(true, Ordering::Release);
    assert_eq!(thread.join().unwrap().unwrap(), Outcome::Cut);
    assert_eq!(log(dir.path(), 0), "ready\nbye\n", "the other has its good end");
}

#[test]
fn a_stopped_process_is_noticed_by_its_heartbeat() {
    let dir = tempfile::tempdir().unwrap();
    let mut supervisor = supervisor(
        dir.path(),
        2,
        "echo $$ >> $D/pids; [ $R = 1 ] && exit 0; touch $H; [ $P = 1 ] && kill -STOP $$; while :; do touch $H; sleep 0.01; done",
    );
    supervisor.timing.lease = Duration::from_secs(1);
    assert_eq!(supervisor.run(&AtomicBool::new(false)).unwrap(), Outcome::Done);
    assert_eq!(left(dir.path()), [0; 0]);
}

#[test]
fn while_it_waits_to_start_again_it_can_be_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let (stop, thread) = in_background(move || {
        let mut supervisor = supervisor(&path, 1, "echo start; exit 1");
        supervisor.timing.settled = LONG;
        supervisor
    });
    // At once, then after 1 s, then the wait of 2 s.
    wait_for("three starts", || log(dir.path(), 0).lines().count() == 3);
    stop.store(true, Ordering::Release);
    assert_eq!(thread.join().unwrap().unwrap(), Outcome::Cut);
    assert_eq!(log(dir.path(), 0).lines().count(), 3);
}

#[test]
fn a_second_supervisor_is_refused_and_the_first_says_what_runs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let (stop, thread) = in_background(move || {
        supervisor(
            &path,
            2,
            "echo ready $R; until [ -e $D/die-$R ]; do sleep 0.01; done; exit 1",
        )
    });
    wait_for("both", || {
        (0..2).all(|process| log(dir.path(), process).contains("ready 0"))
    });
    wait_for("the record", || !record::read_all(dir.path()).unwrap().is_empty());
    let error = supervisor(dir.path(), 3, "exit 0")
        .run(&AtomicBool::new(false))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("process 0") && error.contains(&format!("pid {}", std::process::id())),
        "{error}"
    );
    std::fs::write(dir.path().join("die-0"), "").unwrap();
    wait_for("the second start", || {
        let records = record::read_all(dir.path()).unwrap();
        records
            .iter()
            .flat_map(|record| &record.processes)
            .filter(|one| one.restarts == 1 && one.pid.is_some())
            .count()
            == 2
    });
    stop.store(true, Ordering::Release);
    assert_eq!(thread.join().unwrap().unwrap(), Outcome::Cut);
    assert_eq!(record::read_all(dir.path()).unwrap(), []);
}

#[test]
fn starts_are_made_at_once_then_ever_later_then_at_once_again() {
    let mut backoff = Backoff::default();
    let settled = Duration::from_secs(30);
    let mut delays = |lived: u64, n: usize| -> Vec<u64> {
        (0..n)
            .map(|_| backoff.next(Duration::from_secs(lived), settled).as_secs())
            .collect()
    };
    assert_eq!(delays(1, 9), [0, 1, 2, 4, 8, 16, 30, 30, 30]);
    assert_eq!(delays(30, 3), [0, 0, 0]);
    assert_eq!(delays(29, 3), [1, 2, 4]);
    assert_eq!(delays(0, 100).last(), Some(&30));
}
