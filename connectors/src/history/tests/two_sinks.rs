//! Two history sinks of one pipeline in one data directory, as `--data DIR` makes them.

use super::super::part::PartName;
use super::*;

const BOTH: [&str; 2] = ["results", "raw"];

/// The sinks of a run; `tables` of each.
fn run(dir: &Path, generation: u64, tables: [fn() -> Input; 2]) -> [Box<dyn Sink>; 2] {
    [0, 1].map(|at| {
        let section = Section::from_yaml(BOTH[at], &format!("path: {}", dir.display()));
        let opening = Opening {
            generation,
            publishes: true,
            folder: None,
        };
        build(&section, &[tables[at]()]).unwrap().open(&opening).unwrap()
    })
}

fn strokes() -> Input {
    input("strokes", cycles(&[]), &[])
}

/// A row of one sink's own table.
fn write(sink: &mut Box<dyn Sink>, table: fn() -> Input, second: i64) {
    let rows = match table().table.name {
        "samples" => samples_batch([sample(second)]),
        _ => cycle_rows(&cycles(&[]), &[&second.to_string()]),
    };
    sink.write(0, &rows).unwrap();
}

fn stage(sinks: &mut [Box<dyn Sink>; 2], tables: [fn() -> Input; 2], number: u64) -> [Vec<Staged>; 2] {
    [0, 1].map(|at| {
        write(&mut sinks[at], tables[at], number as i64 * 2 + at as i64);
        vec![sinks[at].stage(number).unwrap()]
    })
}

/// The seconds of all samples, as a reader finds them in the files.
fn seconds(dir: &Path) -> Vec<u64> {
    numbers(&query(dir, "SELECT CAST(value AS BIGINT) AS n FROM samples ORDER BY 1"))
}

fn numbers(table: &str) -> Vec<u64> {
    let cells = table
        .lines()
        .filter_map(|line| line.trim_matches(['|', ' ']).parse().ok());
    cells.collect()
}

#[test]
fn a_crash_before_a_commit_leaves_every_table_whole() {
    for tables in [[strokes as fn() -> Input, plc], [plc, strokes], [plc, plc]] {
        for order in [[0, 1], [1, 0]] {
            // How many sinks came to their commit before the crash.
            for committed in 0..2 {
                let case = format!("{:?} {order:?} {committed}", tables.map(|table| table().table.name));
                let dir = tempfile::tempdir().unwrap();
                let mut sinks = run(dir.path(), 1, tables);
                sinks.iter_mut().for_each(|sink| sink.recover(0, &[]).unwrap());
                let first = stage(&mut sinks, tables, 1);
                for at in 0..2 {
                    sinks[at].publish(1, &first[at]).unwrap();
                }
                let staged = stage(&mut sinks, tables, 2);
                for at in 0..committed {
                    sinks[at].publish(2, &staged[at]).unwrap();
                }
                stage(&mut sinks, tables, 3); // no manifest names it
                std::mem::forget(sinks);

                // Twice: the second time, nothing is left to be done.
                for generation in 2..4 {
                    let mut sinks = run(dir.path(), generation, tables);
                    for at in order {
                        sinks[at].recover(2, &staged[at]).unwrap();
                    }
                    let mut all = [seconds(dir.path()), cycle_ids(dir.path())].concat();
                    all.sort_unstable();
                    assert_eq!(all, [2, 3, 4, 5], "{case}");
                }
                assert_eq!(parts_of(dir.path(), 3), 0, "{case}: never to be published");
            }
        }
    }
}

/// None where no sink has cycles.
fn cycle_ids(dir: &Path) -> Vec<u64> {
    match dir.join("cycles").exists() {
        true => numbers(&query(dir, "SELECT cycle_id FROM cycles")),
        false => Vec::new(),
    }
}

/// Files in all tables that were staged for a checkpoint.
fn parts_of(dir: &Path, checkpoint: u64) -> usize {
    let folders = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let entries = folders.flat_map(|folder| fs::read_dir(folder).unwrap());
    let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    names
        .filter_map(|name| PartName::parse(&name))
        .filter(|name| name.checkpoint == Some(checkpoint))
        .count()
}

#[test]
fn sinks_of_one_table_lose_none_of_each_others_commits() {
    let dir = tempfile::tempdir().unwrap();
    let sinks = run(dir.path(), 1, [plc, plc]);
    let start = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        for (at, mut sink) in sinks.into_iter().enumerate() {
            let start = &start;
            scope.spawn(move || {
                for number in 1..=8 {
                    write(&mut sink, plc, number * 2 + at as i64);
                    let staged = [sink.stage(number as u64).unwrap()];
                    start.wait();
                    sink.publish(number as u64, &staged).unwrap();
                }
            });
        }
    });
    assert_eq!(seconds(dir.path()), (2..18).collect::<Vec<_>>());
}

#[test]
fn going_back_is_for_all_sinks_of_a_table_and_a_number_used_again_counts() {
    for order in [[0, 1], [1, 0]] {
        let dir = tempfile::tempdir().unwrap();
        let tables = [plc as fn() -> Input, plc];
        let mut sinks = run(dir.path(), 1, tables);
        let mut all = Vec::new();
        for number in 1..=3 {
            let staged = stage(&mut sinks, tables, number);
            for at in 0..2 {
                sinks[at].publish(number, &staged[at]).unwrap();
            }
            all.push(staged);
        }
        assert_eq!(seconds(dir.path()), [2, 3, 4, 5, 6, 7]);

        let mut sinks = run(dir.path(), 2, tables);
        for at in order {
            sinks[at].recover(1, &all[0][at]).unwrap();
        }
        assert_eq!(seconds(dir.path()), [2, 3], "{order:?}");

        let staged = stage(&mut sinks, tables, 2);
        for at in 0..2 {
            sinks[at].publish(2, &staged[at]).unwrap();
            sinks[at].publish(2, &staged[at]).unwrap();
        }
        assert_eq!(seconds(dir.path()), [2, 3, 4, 5], "{order:?}");
    }
}

#[test]
fn a_staged_file_that_is_gone_or_cut_is_named_and_nothing_is_committed() {
    for cut in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let tables = [strokes as fn() -> Input, plc];
        let mut sinks = run(dir.path(), 1, tables);
        let [_, staged] = stage(&mut sinks, tables, 1);
        std::mem::forget(sinks);
        let part = &Token::merged(&staged).unwrap()["samples"][0];
        let path = dir.path().join("samples").join(&part.name);
        let bytes = fs::read(&path).unwrap();
        let expect = if cut {
            fs::write(&path, &bytes[1..]).unwrap();
            format!("with {} bytes and has {}", bytes.len(), bytes.len() - 1)
        } else {
            fs::remove_file(&path).unwrap();
            "is gone".to_owned()
        };
        let error = format!("{:#}", run(dir.path(), 2, tables)[1].recover(1, &staged).unwrap_err());
        assert!(error.contains(&part.name) && error.contains(&expect), "{error}");
        assert_eq!(seconds(dir.path()), [0; 0], "readable");
        fs::write(&path, bytes).unwrap();
        run(dir.path(), 3, tables)[1].recover(1, &staged).unwrap();
        assert_eq!(seconds(dir.path()), [3]);
    }
}
