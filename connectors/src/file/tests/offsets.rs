//! A source that goes on where an offset says.

use ::parquet::arrow::ArrowWriter;
use ::parquet::file::properties::WriterProperties;
use arrow::array::{Int64Array, RecordBatch};
use serde_json::Value;

use super::*;

/// Raw batches of all partitions with the offset after each, and the last offset of each partition.
struct Read {
    batches: Vec<Vec<(RecordBatch, Value)>>,
    ends: Vec<Value>,
}

fn source(yaml: &str, blocks: (usize, u64)) -> FileSource {
    let mut settings = Settings::of(&Section::from_yaml("plant", yaml)).unwrap();
    (settings.block_bytes, settings.block_rows) = blocks;
    FileSource::new(settings)
}

fn read(yaml: &str, blocks: (usize, u64), from: Option<&Value>) -> anyhow::Result<Read> {
    let source = source(yaml, blocks);
    let mut found = Read {
        batches: Vec::new(),
        ends: Vec::new(),
    };
    for index in 0..source.partitions()?.len() {
        let mut partition = source.open(index, from, Arc::new(|| {}))?;
        let mut batches = Vec::new();
        loop {
            match partition.poll()? {
                Poll::Batch(raw) => batches.push((raw, partition.offset())),
                Poll::Idle | Poll::Wait => std::thread::sleep(Duration::from_micros(100)),
                Poll::End => break,
            }
        }
        found.batches.push(batches);
        found.ends.push(partition.offset());
    }
    Ok(found)
}

fn decoded(yaml: &str, batches: &[(RecordBatch, Value)]) -> Output {
    let mut decoder = source(yaml, (1, 1)).decoder();
    let mut output = Output::default();
    for (raw, _) in batches {
        output.add(&decoder.decode(raw).unwrap());
    }
    output
}

/// Resuming after each batch yields exactly the others.
fn check_all(yaml: &str, blocks: (usize, u64)) {
    let whole = read(yaml, blocks, None).unwrap();
    let [batches] = whole.batches.as_slice() else {
        panic!("one partition")
    };
    for (index, (_, offset)) in batches.iter().enumerate() {
        // As it comes back from a manifest.
        let offset: Value = serde_json::from_str(&offset.to_string()).unwrap();
        let rest = read(yaml, blocks, Some(&offset)).unwrap();
        assert_eq!(rest.batches[0], batches[index + 1..], "{yaml} from {offset}");
        assert_eq!(rest.ends, whole.ends, "{yaml} from {offset}");
    }
    let rest = read(yaml, blocks, Some(&whole.ends[0])).unwrap();
    assert_eq!((rest.batches[0].len(), rest.ends), (0, whole.ends));
}

/// What comes after `offset`, decoded.
fn rest(yaml: &str, offset: &Value) -> Output {
    let rest = read(yaml, (64, 2), Some(offset)).unwrap();
    decoded(yaml, &rest.batches[0])
}

fn end(yaml: &str) -> Value {
    read(yaml, (64, 2), None).unwrap().ends[0].clone()
}

fn refused(yaml: &str, offset: &Value) -> String {
    let error = read(yaml, (64, 2), Some(offset)).err().expect("an error");
    format!("{error:#}")
}

const TIME: &str = "machine: {constant: m}, time: {column: ts, unit: us}";
const INDEX: &str = "machine: {constant: m}, time: {start: 1970-01-01T00:00:00Z, rate: 1}";

fn write_parquet(folder: &Folder, name: &str, rows: std::ops::Range<i64>, step: i64, group: usize) {
    let column = || Arc::new(Int64Array::from_iter_values(rows.clone().map(|row| row * step)));
    let columns = [("ts", column() as _), ("a", column() as _)];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(group))
        .build();
    let file = std::fs::File::create(folder.0.path().join(name)).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[test]
fn every_offset_of_a_mixed_folder() {
    let folder = Folder::new();
    folder.file("1.csv", "ts,a\n1,1\n2,2\n\n3,3");
    folder.file("2.csv", "ts,a\n");
    folder.file("3.csv", "");
    folder.file("4.csv", "\u{feff}ts,a\r\n4,4\r\n5,x\r\n");
    folder.file("5.csv", b"ts,\xff\n1,1\n");
    folder.file("6.ndjson", "{\"ts\":6,\"a\":6}\nnope\n{\"ts\":7,\"a\":7}");
    write_parquet(&folder, "7.parquet", 8..15, 1, 3);
    folder.file("8.parquet", "nothing");
    folder.file("9.csv", format!("ts,a\n15,1\n{}\n16,2\n", "z".repeat(500)));
    let path = folder.0.path().join("*");
    for machine in ["constant: m", "file_name: true"] {
        let rest = &format!("machine: {{{machine}}}, max_line: 99, time: {{column: ts, unit: us}}");
        for blocks in [(1, 1), (9, 2), (1 << 20, 100)] {
            check_all(&settings(&path, rest), blocks);
        }
    }
    let index = settings(&folder.0.path().join("[14].csv"), INDEX);
    check_all(&index, (5, 1));
}

#[test]
fn a_replay_goes_on_in_the_middle_of_a_block() {
    let folder = Folder::new();
    let lines: String = (0..30).map(|i| format!("{},{i}\n", i * 1_000_000)).collect();
    folder.file("1.csv", format!("ts,a\n{lines}"));
    write_parquet(&folder, "2.parquet", 30..50, 1_000_000, 7);
    let path = folder.0.path().join("*");
    let yaml = settings(&path, &format!("replay: x100, {TIME}"));
    assert!(read(&yaml, (1 << 20, 5), None).unwrap().batches[0].len() > 8);
    check_all(&yaml, (1 << 20, 5));
}

#[test]
fn an_offset_is_for_people() {
    let folder = Folder::new();
    let path = folder.file("a.csv", "ts,a\n1,1\n2,2\n");
    let mut offset = end(&settings(&path, TIME));
    let mark = offset["files"][0].as_object_mut().unwrap();
    assert_eq!(mark.remove("check").unwrap().as_str().unwrap().len(), 16);
    let expect = serde_json::json!({"file": path.to_str().unwrap(), "byte": 13, "rows": 2, "whole": true});
    assert_eq!(offset["files"][0], expect);
}

#[test]
fn what_was_appended_is_read() {
    let check = |before: &str, after: &str, expect: &[&str]| {
        let folder = Folder::new();
        let path = folder.file("a.csv", before);
        let yaml = settings(&path, TIME);
        let offset = end(&yaml);
        folder.file("a.csv", format!("{before}{after}"));
        let found = rest(&yaml, &offset);
        assert_eq!(
            (found.rows, found.dead),
            (expect.iter().map(ToString::to_string).collect(), vec![]),
            "{before:?} {after:?}"
        );
    };
    check("ts,a\n1,1\n", "2,2\n", &["m a 2 2"]);
    check("ts,a\n1,1", "\n2,2\n", &["m a 2 2"]);
    check("ts,a\n1,1", "\r\n2,2\n", &["m a 2 2"]);
    // The row was read as 1: the digits that came later can't become a row of their own.
    check("ts,a\n1,1", "7\n2,2\n", &["m a 2 2"]);
    check("ts,a\n1,1", "7", &[]);
    check("ts,a\n", "1,1\n", &["m a 1 1"]);
    check("ts,a", "\n1,1\n", &["m a 1 1"]);
    check("", "ts,a\n1,1\n", &["m a 1 1"]);
}

#[test]
fn files_that_came_or_grew_are_read_in_order() {
    let folder = Folder::new();
    folder.file("1.csv", "a\n1\n");
    folder.file("3.csv", "a\n3\n");
    let yaml = settings(&folder.0.path().join("*.csv"), INDEX);
    let offset = end(&yaml);
    folder.file("1.csv", "a\n1\n10\n");
    folder.file("2.csv", "a\n2\n");
    folder.file("4.csv", "a\n4\n");
    assert_eq!(
        rest(&yaml, &offset).rows,
        ["m a 2000000 10", "m a 3000000 2", "m a 4000000 4"]
    );
    std::fs::remove_file(folder.0.path().join("1.csv")).unwrap();
    assert_eq!(
        rest(&yaml, &offset).rows,
        ["m a 2000000 2", "m a 3000000 4"],
        "a file that was read may go"
    );
}

#[test]
fn another_file_is_refused() {
    let folder = Folder::new();
    let path = folder.file("a.csv", "ts,a\n1,1\n2,2\n3,3\n");
    let yaml = settings(&path, TIME);
    let whole = read(&yaml, (10, 2), None).unwrap();
    let offset = &whole.batches[0][0].1;
    let check = |text: &str, expect: &str| {
        folder.file("a.csv", text);
        let error = refused(&yaml, offset);
        assert!(
            error.contains("a.csv ") && error.contains(expect) && error.contains("--fresh"),
            "{error}"
        );
    };
    check("ts,a\n1,9\n2,2\n3,3\n", "is not what it was before byte");
    check("ts,a\n", "has 5 bytes now, and");
    check("", "has 0 bytes now, and");
    std::fs::rename(&path, folder.0.path().join("b.csv")).unwrap();
    let yaml = settings(&folder.0.path().join("*.csv"), TIME);
    assert!(refused(&yaml, offset).contains("is no longer there"));
    write_parquet(&folder, "c.parquet", 0..10, 1, 3);
    let yaml = settings(&folder.0.path().join("c.parquet"), TIME);
    let offset = end(&yaml);
    write_parquet(&folder, "c.parquet", 0..11, 1, 3);
    assert!(refused(&yaml, &offset).contains("is another file now"));
    let error = refused(&yaml, &serde_json::json!({"sample": 7}));
    assert!(error.contains("no offset of a file source"), "{error}");
}

#[test]
fn a_file_that_vanished_half_read_is_missed() {
    let folder = Folder::new();
    folder.file("a.csv", "ts,a\n1,1\n");
    let path = folder.file("b.csv", "ts,a\n2,2\n3,3\n");
    let yaml = settings(&folder.0.path().join("*.csv"), TIME);
    let whole = read(&yaml, (5, 2), None).unwrap();
    let half = &whole.batches[0][1].1;
    std::fs::remove_file(path).unwrap();
    let error = refused(&yaml, half);
    assert!(
        error.contains("b.csv was not read to its end and is no longer there"),
        "{error}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_files_resume_at_every_batch(
        files in proptest::collection::vec(
            (proptest::collection::vec(prop_oneof!["[0-9]{1,3}", Just(String::new()), "[a-z,]{1,30}"], 0..12), any::<bool>(), any::<bool>()),
            1..4,
        ),
        block in 1usize..40,
    ) {
        let folder = Folder::new();
        for (number, (lines, has_end, header)) in files.iter().enumerate() {
            let end = if *has_end { "\n" } else { "" };
            let header = if *header { "a\n" } else { "a" };
            let text = if lines.is_empty() { header.to_owned() } else { format!("a\n{}{end}", lines.join("\n")) };
            folder.file(&format!("{number}.csv"), text);
        }
        check_all(&settings(&folder.0.path().join("*.csv"), INDEX), (block, 1));
    }
}
