//! The journal: a broker that goes away, torn and flipped bytes.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use crate::mosquitto::{Mosquitto, Scenes, journal_bytes, publish, run, segments, subscribed, values};

/// Twenty messages that are only in the journal, whose bytes `damage` changes; then the next run keeps `expected`.
fn check(damage: impl Fn(&Path), says: &str, expected: impl Fn(&[u32]) -> bool) {
    let Some(broker) = Mosquitto::start() else { return };
    let scene = broker.scene("1h");
    let mut running = run(&scene);
    subscribed(&scene, &mut running, &broker);
    for value in 0..20 {
        // Each in a batch of its own.
        let before = journal_bytes(&scene);
        publish(&broker, value..value + 1);
        running.until("the message is in the journal", || journal_bytes(&scene) > before);
    }
    running.kill();
    damage(segments(&scene).last().unwrap());
    let text = std::fs::read_to_string(&scene.pipeline).unwrap();
    std::fs::write(&scene.pipeline, text.replace("every: 1h", "every: 50ms")).unwrap();
    let mut running = run(&scene);
    // What comes now comes after what is in the journal.
    publish(&broker, 20..21);
    running.until("the last message", || values(&scene).contains(&20));
    let found = values(&scene);
    assert!(expected(&found), "{found:?}\n{}", running.said());
    running.until_said(says);
}

#[test]
fn what_is_only_in_the_journal_survives_a_kill() {
    check(|_| {}, "", |found| *found == (0..21).collect::<Vec<_>>());
}

#[test]
fn a_torn_tail_is_cut_and_said() {
    check(
        |segment| {
            let file = File::options().write(true).open(segment).unwrap();
            file.set_len(file.metadata().unwrap().len() - 5).unwrap();
        },
        "was not finished",
        // The broker gives the last one again, if its acknowledgement was not on its way before the kill.
        |found| found.starts_with(&(0..19).collect::<Vec<_>>()) && found.contains(&20),
    );
}

#[test]
fn a_flipped_bit_costs_the_batch_it_hit() {
    check(
        |segment| {
            let file = File::options().read(true).write(true).open(segment).unwrap();
            let middle = file.metadata().unwrap().len() / 2;
            let mut byte = [0];
            file.read_exact_at(&mut byte, middle).unwrap();
            file.write_all_at(&[byte[0] ^ 4], middle).unwrap();
        },
        "quarantine",
        |found| found.len() == 20 && found.contains(&0) && found.contains(&19),
    );
}

#[test]
fn a_segment_without_a_sound_header_is_put_aside() {
    check(
        |segment| {
            let file = File::options().write(true).open(segment).unwrap();
            file.write_all_at(&[0xff; 80], 0).unwrap();
        },
        "quarantine",
        |found| found.contains(&20),
    );
}

#[test]
fn a_broker_that_goes_away_and_comes_back() {
    goes_away(Duration::ZERO);
}

/// `cargo test --test faults -- --ignored minutes`
#[test]
#[ignore = "takes three minutes"]
fn a_broker_that_is_away_for_minutes() {
    goes_away(Duration::from_secs(180));
}

fn goes_away(away: Duration) {
    let Some(mut broker) = Mosquitto::start() else { return };
    let scene = broker.scene("50ms");
    let mut running = run(&scene);
    subscribed(&scene, &mut running, &broker);
    publish(&broker, 0..5);
    running.until("the first five", || values(&scene).len() == 5);
    broker.kill();
    running.until_said("was lost");
    std::thread::sleep(away); // the fault itself
    broker.restart();
    // This broker has forgotten its sessions: what it gets before it is asked again is nobody's.
    running.until("the subscription stands again", || {
        publish(&broker, 100..101);
        values(&scene).contains(&100)
    });
    publish(&broker, 5..10);
    running.until("all messages", || values(&scene) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 100]);
    running.signal(rustix::process::Signal::TERM);
    let (status, said) = running.end();
    assert!(status.success(), "{said}");
}
