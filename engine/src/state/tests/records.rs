use std::collections::HashMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

#[test]
fn a_file_without_records_is_none() {
    let (_data, dir) = empty();
    let claim = dir.claim("presses", LEASE).unwrap();
    assert_eq!(
        FileWriter::create(&dir, claim.generation(), 1, 0)
            .unwrap()
            .finish()
            .unwrap(),
        None
    );
    drop(FileWriter::create(&dir, claim.generation(), 2, 0).unwrap());
    assert!(folder::names(&dir.states()).unwrap().is_empty());
}

#[test]
fn records_larger_than_a_chunk_come_back() {
    let (_data, dir) = empty();
    let claim = dir.claim("presses", LEASE).unwrap();
    let long = "0123456789abcdef".repeat(200_000);
    let records = [
        record("a", Change::Append, "x", &long),
        record("b", Change::Append, &long, "y"),
    ];
    let file = write(&dir, 1, 1, 0, &records);
    assert_eq!(file.bytes, fs::metadata(dir.state_path(&file.name)).unwrap().len());
    let states = load(&dir, &manifest(&claim, 1, &[file]), &all).unwrap();
    assert_eq!(states[&("strokes".to_owned(), 0, "a".to_owned())].tail, long.as_bytes());
    assert_eq!(states[&("strokes".to_owned(), 0, "b".to_owned())].head, long.as_bytes());
}

#[test]
fn a_process_gets_the_keys_that_it_wants() {
    let (_data, dir) = empty();
    let claim = dir.claim("presses", LEASE).unwrap();
    let file = write(
        &dir,
        1,
        1,
        0,
        &[record("a", Change::Append, "", ""), record("b", Change::Append, "", "")],
    );
    let states = load(&dir, &manifest(&claim, 1, &[file]), &|key| key == "b").unwrap();
    assert_eq!(states.keys().map(|(_, _, key)| key.as_str()).collect::<Vec<_>>(), ["b"]);
}

/// A record that owns what it says.
#[derive(Clone, Debug)]
struct Owned {
    step: String,
    slot: u8,
    key: String,
    change: Change,
    head: Vec<u8>,
    tail: Vec<u8>,
}

fn owned() -> impl Strategy<Value = Owned> {
    let change = prop_oneof![5 => Just(Change::Append), 2 => Just(Change::Restart), 1 => Just(Change::Gone)];
    let bytes = || prop_oneof![Just(Vec::new()), vec(any::<u8>(), 0..20)];
    ("[st]", 0..2_u8, "[a-cé]", change, bytes(), bytes()).prop_map(|(step, slot, key, change, head, tail)| Owned {
        step,
        slot,
        key,
        change,
        head,
        tail,
    })
}

/// The states by their definition: everything is remembered, and looked through at the end.
fn model(files: &[Vec<Owned>]) -> States {
    let mut all: HashMap<_, Vec<(u64, &Owned)>> = HashMap::new();
    for (checkpoint, records) in (1..).zip(files) {
        for r in records {
            all.entry((r.step.clone(), r.slot, r.key.clone()))
                .or_default()
                .push((checkpoint, r));
        }
    }
    let live = all.into_iter().filter_map(|(key, records)| {
        let from = records
            .iter()
            .rposition(|(_, r)| r.change == Change::Gone)
            .map_or(0, |gone| gone + 1);
        let (newest, last) = records[from..].last()?;
        let from = records
            .iter()
            .rposition(|(_, r)| r.change == Change::Restart)
            .map_or(from, |restart| restart.max(from));
        let tails = &records[from..];
        let oldest = tails
            .iter()
            .find(|(_, r)| !r.tail.is_empty())
            .map_or(*newest, |(checkpoint, _)| *checkpoint);
        let tail = tails.iter().flat_map(|(_, r)| r.tail.clone()).collect();
        Some((
            key,
            Kept {
                head: last.head.clone(),
                tail,
                oldest,
            },
        ))
    });
    live.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn files_load_as_the_naive_model_says(files in vec(vec(owned(), 0..30), 1..6)) {
        let (_data, dir) = empty();
        for folder in [dir.claims(), dir.checkpoints(), dir.states()] {
            folder::make(&folder).unwrap();
        }
        let mut written = Vec::new();
        for (checkpoint, records) in (1..).zip(&files) {
            let mut writer = FileWriter::create(&dir, 1, checkpoint, 0).unwrap();
            for Owned { step, slot, key, change, head, tail } in records {
                writer.write(&Record { step, slot: *slot, key, change: *change, head, tail }).unwrap();
            }
            written.extend(writer.finish().unwrap());
        }
        let mut manifest = Manifest {
            format: FORMAT, checkpoint: 9, generation: 1, pipeline: String::new(), created_us: 0, ended: false,
            steps: BTreeMap::new(), sources: BTreeMap::new(), sinks: BTreeMap::new(), files: written, restores: None,
        };
        let states = load(&dir, &manifest, &all).unwrap();
        prop_assert_eq!(&states, &model(&files));

        // Without the files before the oldest record that is needed, it is the same.
        let oldest = states.values().map(|kept| kept.oldest).min().unwrap_or(u64::MAX);
        manifest.files.retain(|file| file.checkpoint >= oldest);
        prop_assert_eq!(&load(&dir, &manifest, &all).unwrap(), &states);
    }
}
