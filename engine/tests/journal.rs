//! The journal: order, offsets, policies, damage.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod journal_toy;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use journal_toy::*;
use proptest::prelude::*;
use taktline_engine::journal::{Full, Settings};
use taktline_engine::{Partition, Poll};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn batches_keep_their_order_through_segments() {
    let folder = folder();
    let toy = Toy::ending(0..300);
    let (mut journal, watch) = open(settings(folder.path()), None, &toy).unwrap();
    assert_eq!(read(&mut journal, usize::MAX).unwrap(), (0..300).collect::<Vec<_>>());
    assert_eq!(journal.offset(), at(300));
    assert!(journal.caught_up());
    assert_eq!(toy.lock().acknowledged, 300);
    assert_eq!(
        (watch.batches(), watch.rows(), watch.unread_batches()),
        (300, rows(&(0..300).collect::<Vec<_>>()), 0)
    );
    assert!(segments(folder.path()).len() > 10, "{:?}", segments(folder.path()));
    let bytes: u64 = segments(folder.path())
        .iter()
        .map(|path| fs::metadata(path).unwrap().len())
        .sum();
    assert_eq!(watch.bytes(), bytes);
    assert_eq!(watch.sentences(), [""; 0]);
}

#[test]
fn every_offset_can_be_opened_again() {
    let folder = folder();
    let settings = settings(folder.path());
    write(settings.clone(), 0..30);
    for from in 0..=30 {
        let (mut journal, watch) = open(settings.clone(), Some(from), &Toy::ending([])).unwrap();
        assert_eq!(journal.offset(), at(from));
        assert_eq!(read(&mut journal, usize::MAX).unwrap(), (from..30).collect::<Vec<_>>());
        assert_eq!(journal.offset(), at(30));
        assert_eq!(watch.sentences(), [""; 0]);
    }
    assert_eq!(read_all(settings.clone(), None).0, (0..30).collect::<Vec<_>>());
    // Offsets go on over runs.
    write(settings.clone(), 30..40);
    assert_eq!(read_all(settings, Some(25)).0, (25..40).collect::<Vec<_>>());
}

#[test]
fn a_partition_is_shown_what_an_earlier_run_wrote_last() {
    let folder = folder();
    let settings = settings(folder.path());
    let recalled = |from| {
        let toy = Toy::ending([]);
        let (journal, _) = open(settings.clone(), from, &toy).unwrap();
        let state = toy.lock();
        (journal, state.recalls, state.recalled.clone())
    };
    assert_eq!(recalled(None).1, 0);
    write(settings.clone(), 0..10);
    write(settings.clone(), 10..300);
    assert!(segments(folder.path()).len() > 10);
    let (mut journal, recalls, newest) = recalled(Some(200));
    assert_eq!((recalls, newest), (1, (275..300).rev().collect()));
    // What was released is gone, and yet there was an earlier run.
    assert_eq!(read(&mut journal, usize::MAX).unwrap().len(), 100);
    journal.release(&at(300)).unwrap();
    drop(journal);
    let (_journal, recalls, newest) = recalled(Some(300));
    assert_eq!((recalls, newest), (1, vec![]));
}

#[test]
fn a_reader_far_behind_reads_the_files() {
    let folder = folder();
    let toy = Toy::default();
    toy.lock().give.extend((0..40).map(|number| sized(number, 1 << 20)));
    let settings = Settings {
        segment_bytes: 8 << 20,
        ..settings(folder.path())
    };
    let (mut journal, watch) = open(settings, None, &toy).unwrap();
    assert_eq!(read(&mut journal, 1).unwrap(), [0]);
    wait("the batches", || watch.batches() == 40);
    // From the window, then from the files, then from the window again, within one segment.
    assert_eq!(read(&mut journal, 38).unwrap(), (1..39).collect::<Vec<_>>());
    toy.give(40..43);
    toy.end();
    assert_eq!(read(&mut journal, usize::MAX).unwrap(), (39..43).collect::<Vec<_>>());
    assert_eq!(watch.sentences(), [""; 0]);
}

#[test]
fn released_segments_are_removed() {
    let folder = folder();
    let toy = Toy::with(0..100);
    let (mut journal, watch) = open(settings(folder.path()), None, &toy).unwrap();
    read(&mut journal, 50).unwrap();
    wait("the rest", || watch.batches() == 100);
    let before = segments(folder.path()).len();
    journal.release(&at(0)).unwrap();
    assert_eq!(segments(folder.path()).len(), before);
    journal.release(&at(1000)).unwrap(); // what isn't read yet stays, whatever is asked
    let (after, bytes) = (segments(folder.path()).len(), watch.bytes());
    assert!(1 < after && after < before, "{after} of {before}");
    assert_eq!(read(&mut journal, 50).unwrap(), (50..100).collect::<Vec<_>>());
    journal.release(&journal.offset()).unwrap();
    assert!(segments(folder.path()).len() <= 1 && watch.bytes() < bytes);
    drop(journal);
    assert_eq!(watch.bytes(), 0);
    let (rest, watch) = read_all(settings(folder.path()), Some(100));
    assert_eq!((rest, watch.sentences()), (vec![], vec![]));
}

#[test]
fn offsets_outside_are_said() {
    let folder = folder();
    let settings = settings(folder.path());
    // Newer than the end: the folder was deleted.
    let (mut journal, watch) = open(settings.clone(), Some(7), &Toy::ending(0..30)).unwrap();
    assert_eq!(journal.offset(), at(7));
    assert_eq!(read(&mut journal, usize::MAX).unwrap(), (0..30).collect::<Vec<_>>());
    assert_eq!(journal.offset(), at(37));
    let said = watch.sentences();
    assert!(
        said.len() == 1 && said[0].contains("ends before batch 0, and 7 was to be read"),
        "{said:?}"
    );
    // Older than the oldest.
    drop(journal);
    fs::remove_file(&segments(folder.path())[0]).unwrap();
    let (mut journal, watch) = open(settings, Some(7), &Toy::ending([])).unwrap();
    let first = watch.lost_batches();
    assert_eq!(read(&mut journal, usize::MAX).unwrap(), (first..30).collect::<Vec<_>>());
    let said = watch.sentences();
    assert!(
        first > 0 && said.len() == 1 && said[0].contains("from 7 on are gone"),
        "{said:?}"
    );
}

#[test]
fn an_offset_of_another_kind_is_refused() {
    let folder = folder();
    let (mut journal, _) = open(settings(folder.path()), None, &Toy::default()).unwrap();
    assert!(journal.release(&at(u64::MAX)).is_err());
    let error = journal.release(&serde_json::json!({"row": 1})).unwrap_err();
    assert!(
        error.to_string().contains(r#"{"row":1} is no offset of a journal"#),
        "{error}"
    );
}

#[test]
fn a_stop_takes_what_outside_believes_to_be_ours() {
    let folder = folder();
    let toy = Toy::with(0..5);
    toy.lock().held.extend((5..9).map(batch));
    let (mut journal, watch) = open(settings(folder.path()), None, &toy).unwrap();
    read(&mut journal, 3).unwrap();
    wait("the first ones", || watch.batches() == 5);
    assert!(!journal.stop());
    assert_eq!(toy.lock().acknowledged, 9);
    assert!(matches!(journal.poll().unwrap(), Poll::End));
    assert_eq!(journal.offset(), at(3));
    drop(journal);
    assert_eq!(read_all(settings(folder.path()), Some(3)).0, (3..9).collect::<Vec<_>>());
}

#[test]
fn an_error_of_the_source_comes_after_its_batches() {
    let folder = folder();
    let toy = Toy::with(0..5);
    toy.lock().fails = true;
    let (mut journal, _) = open(settings(folder.path()), None, &toy).unwrap();
    assert_eq!(read(&mut journal, 5).unwrap(), [0, 1, 2, 3, 4]);
    assert_eq!(read(&mut journal, 1).unwrap_err().to_string(), "the toy broke");
    assert_eq!(toy.lock().acknowledged, 5);
}

#[test]
fn a_source_that_cannot_be_opened_is_said_at_once() {
    let folder = folder();
    let inner = Box::new(|_| anyhow::bail!("no such broker"));
    let opened = taktline_engine::journal::open(
        settings(folder.path()),
        None,
        inner,
        std::sync::Arc::new(|| ()),
        taktline_engine::journal::Watch::default(),
    );
    assert_eq!(opened.err().unwrap().to_string(), "no such broker");
}

/// A journal of at most some 20 KiB, which nobody reads.
fn small(folder: &Path, full: Full) -> Settings {
    Settings {
        quota_bytes: 20_000,
        full,
        ..settings(folder)
    }
}

const MOST_BYTES_OF_A_RECORD: u64 = 1500;

#[test]
fn a_full_journal_blocks_the_source_until_it_is_released() {
    let folder = folder();
    let toy = Toy::ending(0..200);
    let (mut journal, watch) = open(small(folder.path(), Full::Block), None, &toy).unwrap();
    let mut all = Vec::new();
    wait("the quota", || {
        watch.sentences().iter().any(|said| said.contains("reached its quota"))
    });
    assert!(toy.lock().polled < 100, "{}", toy.lock().polled);
    while all.len() < 200 {
        assert!(watch.bytes() < 20_000 + MOST_BYTES_OF_A_RECORD, "{}", watch.bytes());
        all.extend(read(&mut journal, 1).unwrap());
        journal.release(&journal.offset()).unwrap();
    }
    assert_eq!(all, (0..200).collect::<Vec<_>>());
    assert_eq!(watch.dropped_rows(), 0);
}

/// What was read, of 200 batches that came while nobody read, and the count of dropped rows.
fn overfill(folder: &Path, full: Full) -> Vec<u64> {
    let toy = Toy::ending(0..200);
    let (mut journal, watch) = open(small(folder, full), None, &toy).unwrap();
    wait("the batches", || toy.lock().acknowledged == 200);
    assert!(
        watch.bytes() < 20_000 + 2500 + MOST_BYTES_OF_A_RECORD,
        "{}",
        watch.bytes()
    );
    let numbers = read(&mut journal, usize::MAX).unwrap();
    let came: Vec<u64> = (0..200).collect();
    assert!(watch.dropped_rows() > 0);
    assert_eq!(rows(&came), rows(&numbers) + watch.dropped_rows(), "{full:?}");
    assert_eq!((watch.lost_batches(), watch.unread_batches()), (0, 0));
    assert!(numbers.is_sorted());
    drop(journal);
    let (again, watch) = read_all(small(folder, full), Some(0));
    assert_eq!(
        (again, watch.lost_batches()),
        (numbers.clone(), 0),
        "{:?}",
        watch.sentences()
    );
    numbers
}

#[test]
fn the_oldest_are_dropped() {
    let folder = folder();
    let numbers = overfill(folder.path(), Full::DropOldest);
    assert_eq!(numbers.last(), Some(&199));
    assert!(numbers[0] > 100);
}

#[test]
fn the_newest_are_dropped() {
    let folder = folder();
    let numbers = overfill(folder.path(), Full::DropNewest);
    assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>());
}

#[test]
fn a_sample_is_kept() {
    let folder = folder();
    let kept = overfill(folder.path(), Full::Sample { keep_one_in: 10 });
    let whole = kept
        .iter()
        .enumerate()
        .take_while(|(place, number)| *place as u64 == **number)
        .count();
    let sampled = &kept[whole..];
    assert!(
        !sampled.is_empty() && sampled.windows(2).all(|two| two[1] - two[0] == 10),
        "{kept:?}"
    );
}

#[test]
fn what_was_read_but_not_released_is_not_dropped() {
    let folder = folder();
    let toy = Toy::with(0..10);
    let (mut journal, watch) = open(small(folder.path(), Full::DropOldest), None, &toy).unwrap();
    assert_eq!(read(&mut journal, 10).unwrap().len(), 10);
    toy.give(10..200);
    wait("the batches", || toy.lock().acknowledged == 200);
    toy.end();
    let rest = read(&mut journal, usize::MAX).unwrap();
    assert_eq!(rows(&(10..200).collect::<Vec<_>>()), rows(&rest) + watch.dropped_rows());
    drop(journal);
    let again = read_all(small(folder.path(), Full::DropOldest), Some(0)).0;
    assert_eq!(again, (0..10).chain(rest).collect::<Vec<_>>());
}

#[test]
fn a_torn_tail_is_cut_at_any_byte() {
    let (folder, other) = (folder(), folder());
    write(settings(folder.path()), 0..6);
    let last = segments(folder.path()).pop().unwrap();
    let name = last.file_name().unwrap();
    let whole = fs::read(&last).unwrap();
    // Where the last record begins is what the journal says when it is cut in the middle of it.
    let mut begins = 0;
    for length in (80..whole.len()).rev() {
        let torn = other.path().join(length.to_string());
        copy(folder.path(), &torn);
        fs::write(torn.join(name), &whole[..length]).unwrap();
        // Now and then new batches come after; each costs a commit, which is slow.
        let fresh = if length % 16 == 0 { vec![5, 6] } else { vec![] };
        let expect = [vec![0, 1, 2, 3, 4], fresh.clone()].concat();
        let (mut journal, watch) = open(settings(&torn), Some(0), &Toy::ending(fresh)).unwrap();
        if begins == 0 {
            begins = length as u64 - watch.torn_bytes();
        }
        if (length as u64) < begins {
            break; // into the record before
        }
        assert_eq!(watch.torn_bytes(), length as u64 - begins);
        assert_eq!(read(&mut journal, usize::MAX).unwrap(), expect, "cut at {length}");
        assert_eq!(watch.sentences().len(), usize::from(length as u64 > begins));
        assert_eq!(watch.lost_batches(), 0);
        drop(journal);
        if expect.len() > 5 {
            assert_eq!(read_all(settings(&torn), None).0, expect);
        }
    }
    assert!(begins > 80);
}

#[test]
fn garbage_at_the_end_is_cut() {
    for garbage in [
        vec![0; 1000],
        vec![0xff; 1000],
        vec![1; 3],
        b"{\"batch\": 6}".repeat(50),
    ] {
        let folder = folder();
        write(settings(folder.path()), 0..6);
        let last = segments(folder.path()).pop().unwrap();
        let mut bytes = fs::read(&last).unwrap();
        bytes.extend(&garbage);
        fs::write(&last, bytes).unwrap();
        let (numbers, watch) = read_all(settings(folder.path()), None);
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5]);
        assert_eq!((watch.torn_bytes(), watch.sentences().len()), (garbage.len() as u64, 1));
    }
}

#[test]
fn a_newer_format_is_refused() {
    let folder = folder();
    write(settings(folder.path()), 0..2);
    let path = &segments(folder.path())[0];
    let mut bytes = fs::read(path).unwrap();
    for copy in [0, 40] {
        bytes[copy + 8] = 9;
        let crc = crc32fast::hash(&bytes[copy..copy + 32]);
        bytes[copy + 32..copy + 36].copy_from_slice(&crc.to_le_bytes());
    }
    fs::write(path, bytes).unwrap();
    let error = open(settings(folder.path()), None, &Toy::default()).err().unwrap();
    assert!(
        format!("{error:#}").contains("is of format 9, this binary reads 1"),
        "{error:#}"
    );
    assert_eq!(segments(folder.path()).len(), 1);
}

/// The segments of a journal of so many batches.
fn files_of(batches: u64) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = folder();
    write(settings(folder.path()), 0..batches);
    let files = segments(folder.path()).into_iter();
    files
        .map(|path| (path.file_name().unwrap().into(), fs::read(path).unwrap()))
        .collect()
}

/// Name and length of the last one.
fn last(files: &[(PathBuf, Vec<u8>)]) -> Option<(PathBuf, usize)> {
    files.last().map(|(name, bytes)| (name.clone(), bytes.len()))
}

/// Damages a journal of 20 batches in several segments, and checks that all that is whole is read, and the rest counted.
fn check_damage(damage: impl Fn(&mut Vec<(PathBuf, Vec<u8>)>), most_lost: u64) {
    static WHOLE: LazyLock<Vec<(PathBuf, Vec<u8>)>> = LazyLock::new(|| files_of(20));
    // Cut between two records, the last file is that of a journal that ended there.
    static ENDS: LazyLock<Vec<Option<(PathBuf, usize)>>> =
        LazyLock::new(|| (0..20).map(|n| last(&files_of(n))).collect());
    let folder = folder();
    let mut files = WHOLE.clone();
    assert!(files.len() >= 3);
    damage(&mut files);
    let ended_early = ENDS.contains(&last(&files));
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    let (mut journal, watch) = open(settings(folder.path()), Some(0), &Toy::ending([100, 101])).unwrap();
    let numbers = read(&mut journal, usize::MAX).unwrap();
    let said = watch.sentences();
    let Some((old, [100, 101])) = numbers.split_last_chunk() else {
        panic!("{numbers:?}");
    };
    assert!(old.windows(2).all(|two| two[0] < two[1]), "{old:?}");
    assert!(old.len() as u64 + most_lost >= 20, "only {old:?} were read: {said:?}");
    // Every number is read or counted as lost; what is missing at the very end was cut as a torn tail.
    let end = journal.offset()["batch"].as_u64().unwrap() - 2;
    assert_eq!(end, old.len() as u64 + watch.lost_batches(), "{said:?}");
    assert!(
        end == 20 || ended_early || watch.torn_bytes() > 0 || watch.quarantined() > 0,
        "{said:?}"
    );
    assert!(old.len() == 20 || ended_early || !said.is_empty());
    // The second time it is the same, and quarantine doesn't grow.
    drop(journal);
    let kept = folder.path().join("quarantine").read_dir().map_or(0, Iterator::count);
    assert_eq!(read_all(settings(folder.path()), Some(0)).0, numbers);
    assert_eq!(
        folder.path().join("quarantine").read_dir().map_or(0, Iterator::count),
        kept
    );
    assert_eq!(watch.quarantined(), kept as u64);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(100) })]

    #[test]
    fn a_flipped_bit_costs_one_batch(file: prop::sample::Index, byte: prop::sample::Index, bit in 0..8_u8) {
        check_damage(|files| {
            let bytes = &mut file.get_mut(files).1;
            *byte.get_mut(bytes) ^= 1_u8 << bit;
        }, 1);
    }

    #[test]
    fn bad_blocks_cost_what_they_hit(
        blocks in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 1..2000_usize, any::<u8>()), 1..4),
    ) {
        check_damage(|files| {
            for (file, byte, length, value) in &blocks {
                let bytes = &mut file.get_mut(files).1;
                let from = byte.index(bytes.len());
                let to = bytes.len().min(from + length);
                bytes[from..to].fill(*value);
            }
        }, 20);
    }

    #[test]
    fn short_files_cost_their_rest(file: prop::sample::Index, byte: prop::sample::Index) {
        check_damage(|files| {
            let bytes = &mut file.get_mut(files).1;
            bytes.truncate(byte.index(bytes.len()));
        }, 20);
    }
}

/// Rows a second through append, commit and reading.
#[test]
#[ignore = "a measurement"]
fn speed() {
    for (batches, length) in [(20_000_u64, 100), (2_000, 100_000)] {
        let folder = tempfile::tempdir_in(".").unwrap();
        let toy = Toy::default();
        toy.lock().give.extend((0..batches).map(|number| sized(number, length)));
        toy.lock().ends = true;
        let settings = Settings {
            sync_every: Duration::from_millis(10),
            segment_bytes: 64 << 20,
            ..settings(folder.path())
        };
        let began = Instant::now();
        let (mut journal, watch) = open(settings.clone(), None, &toy).unwrap();
        let mut count = 0;
        loop {
            match journal.poll().unwrap() {
                Poll::Batch(_) => count += 1,
                Poll::End => break,
                _ => std::thread::park_timeout(Duration::from_millis(1)),
            }
        }
        let live = began.elapsed().as_secs_f64();
        let bytes = watch.bytes();
        drop(journal);
        let began = Instant::now();
        let (mut journal, _) = open(settings, Some(0), &Toy::ending([])).unwrap();
        let opened = began.elapsed().as_secs_f64();
        while let Poll::Batch(_) = journal.poll().unwrap() {}
        println!(
            "{count} batches of {:.0} KiB: {:.0} batches/s and {:.0} MB/s live with {} syncs; opened in {opened:.3} s, read back in {:.3} s",
            bytes as f64 / batches as f64 / 1024.0,
            batches as f64 / live,
            batches as f64 * length as f64 * 1.67 / live / 1e6,
            watch.syncs(),
            began.elapsed().as_secs_f64() - opened,
        );
    }
}
