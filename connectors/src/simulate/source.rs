//! The source around the press line: raw batches say which samples, decoders compute them.

use std::ops::Range;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use anyhow::Context;
use arrow::array::{Array, AsArray, Int64Array, RecordBatch, UInt64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, UInt64Type};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use taktline_engine::config::{Problem, Section};
use taktline_engine::kind::SourceKind;
use taktline_engine::{DeadLetters, Decoded, Decoder, Partition, Poll, Position, Source, Wake};

use super::config::{Settings, SimulateConfig};
use super::press_line::{PressLine, SIGNALS};
use crate::replay::{Pace, Replay};
use crate::rows::Rows;

/// The `simulate` source.
pub const KIND: SourceKind = SourceKind {
    name: "simulate",
    summary: "A simulated press line with faults by name and time.",
    schema: || schemars::schema_for!(SimulateConfig),
    build,
};

/// Rows of a raw batch, at most.
const BLOCK_ROWS: usize = 16_384;
/// What a block spans when it is paced, as time on the wall.
const PACED_SPAN: Duration = Duration::from_millis(50);

fn build(section: &Section) -> Result<Box<dyn Source>, Vec<Problem>> {
    let settings = Arc::new(Settings::of(section)?);
    Ok(Box::new(Simulation {
        settings,
        start: OnceLock::new(),
    }))
}

struct Simulation {
    settings: Arc<Settings>,
    /// Time of the first sample, fixed when the source is opened.
    start: OnceLock<i64>,
}

impl Source for Simulation {
    fn partitions(&self) -> anyhow::Result<Vec<String>> {
        Ok(vec!["line".into()])
    }

    fn open(&self, _: usize, from: Option<&Value>, _: Wake) -> anyhow::Result<Box<dyn Partition>> {
        let settings = self.settings.clone();
        let start = settings
            .start
            .unwrap_or_else(|| jiff::Timestamp::now().as_microsecond());
        let start = *self.start.get_or_init(|| start);
        let pace = match settings.replay {
            Replay::Max => None,
            Replay::Times(speed) => Some(Pace::new(speed)),
        };
        let next = match from {
            Some(offset) => {
                Next::deserialize(offset).with_context(|| format!("no offset of a simulation: {offset}"))?
            }
            None => Next::default(),
        };
        if let Some(pace) = &pace {
            pace.start(start.saturating_add(settings.line.micros(next.sample)));
        }
        let machines = settings.machines.min(BLOCK_ROWS / SIGNALS.len());
        let most = (BLOCK_ROWS / SIGNALS.len() / machines) as u64;
        let due = pace
            .as_ref()
            .map(|pace| (pace.span(PACED_SPAN) as f64 / 1e6 * settings.rate_hz) as u64);
        let samples = due.unwrap_or(most).clamp(1, most);
        Ok(Box::new(Line {
            settings,
            start,
            pace,
            machines,
            samples,
            next,
        }))
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::new(LineDecoder {
            line: self.settings.line.clone(),
        })
    }

    fn bounded(&self) -> bool {
        self.settings.samples.is_some()
    }

    fn replayable(&self) -> bool {
        self.settings.start.is_some()
    }
}

/// Which samples a raw batch stands for: those of `first` up to before `last` of each machine.
static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let columns = ["first", "last", "first_machine", "last_machine"];
    let mut fields: Vec<Field> = columns
        .iter()
        .map(|name| Field::new(*name, DataType::UInt64, false))
        .collect();
    fields.push(Field::new("start", DataType::Int64, false));
    Arc::new(Schema::new(fields))
});

struct Line {
    settings: Arc<Settings>,
    start: i64,
    pace: Option<Pace>,
    /// Machines and samples of a block.
    machines: usize,
    samples: u64,
    next: Next,
}

/// The first sample and machine that are still to come.
#[derive(Default, Serialize, Deserialize)]
struct Next {
    sample: u64,
    machine: usize,
}

impl Partition for Line {
    fn poll(&mut self) -> anyhow::Result<Poll> {
        let end = self.settings.samples.unwrap_or(u64::MAX);
        if self.next.sample >= end {
            return Ok(Poll::End);
        }
        let last = self.next.sample.saturating_add(self.samples).min(end);
        if let Some(pace) = &self.pace {
            let newest = self.start.saturating_add(self.settings.line.micros(last - 1));
            if !pace.until(newest).is_zero() {
                return Ok(Poll::Idle);
            }
        }
        let last_machine = (self.next.machine + self.machines).min(self.settings.machines);
        let raw = raw(self.next.sample..last, self.next.machine..last_machine, self.start)?;
        self.next = if last_machine < self.settings.machines {
            Next {
                machine: last_machine,
                ..self.next
            }
        } else {
            Next {
                sample: last,
                machine: 0,
            }
        };
        Ok(Poll::Batch(raw))
    }

    fn offset(&self) -> Value {
        json!(self.next)
    }

    fn position(&self) -> Position {
        let secs = self.settings.line.micros(self.next.sample) as f64 / 1e6;
        let fraction = self
            .settings
            .samples
            .map(|samples| self.next.sample as f64 / samples.max(1) as f64);
        Position {
            text: format!("{secs:.1} s"),
            fraction,
        }
    }
}

fn raw(samples: Range<u64>, machines: Range<usize>, start: i64) -> anyhow::Result<RecordBatch> {
    let number = |value: u64| Arc::new(UInt64Array::from(vec![value])) as Arc<dyn Array>;
    let columns = vec![
        number(samples.start),
        number(samples.end),
        number(machines.start as u64),
        number(machines.end as u64),
        Arc::new(Int64Array::from(vec![start])),
    ];
    Ok(RecordBatch::try_new(SCHEMA.clone(), columns)?)
}

struct LineDecoder {
    line: PressLine,
}

impl Decoder for LineDecoder {
    fn decode(&mut self, raw: &RecordBatch) -> anyhow::Result<Decoded> {
        anyhow::ensure!(
            raw.schema_ref().fields() == SCHEMA.fields(),
            "a raw batch of another source"
        );
        let number = |column: usize, row: usize| raw.column(column).as_primitive::<UInt64Type>().value(row);
        let mut rows = Rows::default();
        for row in 0..raw.num_rows() {
            let start = raw.column(4).as_primitive::<Int64Type>().value(row);
            let machines = number(2, row) as usize..number(3, row) as usize;
            let names = machines
                .clone()
                .filter_map(|machine| rows.machines.number(PressLine::machine_name(machine).as_bytes()));
            let names: Vec<i32> = names.collect();
            let signals: Vec<i32> = SIGNALS
                .iter()
                .filter_map(|signal| rows.signals.number(signal.as_bytes()))
                .collect();
            for sample in number(0, row)..number(1, row) {
                let ts = start.saturating_add(self.line.micros(sample));
                for (machine, &name) in machines.clone().zip(&names) {
                    for (index, &signal) in signals.iter().enumerate() {
                        if let Some(value) = self.line.value(machine, index, sample) {
                            rows.push(name, signal, ts, Some(value));
                        }
                    }
                }
            }
        }
        Ok(Decoded {
            samples: rows.finish()?,
            dead_letters: DeadLetters::new("").finish(),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use std::time::Instant;
    use taktline_engine::Samples;

    fn read(yaml: &str) -> (Vec<RecordBatch>, f64) {
        let source = build(&Section::from_yaml("line", yaml)).unwrap();
        let mut partition = source.open(0, None, Arc::new(|| {})).unwrap();
        let mut decoder = source.decoder();
        let started = Instant::now();
        let mut batches = Vec::new();
        loop {
            match partition.poll().unwrap() {
                Poll::Batch(raw) => batches.push(decoder.decode(&raw).unwrap().samples),
                Poll::End => return (batches, started.elapsed().as_secs_f64()),
                _ => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    fn total(batches: &[RecordBatch]) -> usize {
        batches.iter().map(RecordBatch::num_rows).sum()
    }

    #[test]
    fn as_many_rows_as_asked_for_in_order_of_time() {
        let check = |yaml: &str, expect: usize| {
            let (batches, _) = read(yaml);
            assert_eq!(total(&batches), expect, "{yaml}");
            assert!(batches.iter().all(|batch| batch.num_rows() <= BLOCK_ROWS));
            let times = batches.iter().flat_map(|batch| Samples::of(batch).unwrap().ts.to_vec());
            assert!(times.is_sorted());
        };
        check("{replay: max, duration: 10s}", 5_000);
        check("{replay: max, duration: 10s, machines: 3, rate: 10}", 1_500);
        check("{replay: max, duration: 2s, machines: 7, rate: 1}", 70);
        check(
            "{replay: max, duration: 10s, faults: [{kind: drop_out, at: 2s, for: 3s}]}",
            4_700,
        );
    }

    #[test]
    fn an_offset_goes_on_with_the_next_block() {
        let yaml = "{replay: max, start: 2026-01-01T00:00:00Z, duration: 9s, rate: 1, machines: 4000}";
        let source = build(&Section::from_yaml("line", yaml)).unwrap();
        assert!(source.replayable());
        let read = |from: Option<&Value>| {
            let mut partition = source.open(0, from, Arc::new(|| {})).unwrap();
            let mut batches = Vec::new();
            while let Poll::Batch(raw) = partition.poll().unwrap() {
                batches.push((raw, partition.offset()));
            }
            batches
        };
        let whole = read(None);
        for (index, (_, offset)) in whole.iter().enumerate() {
            assert_eq!(read(Some(offset)), whole[index + 1..], "{offset}");
        }
        assert!(source.open(0, Some(&json!("x")), Arc::new(|| {})).is_err());
    }

    #[test]
    fn many_machines_are_cut_into_blocks() {
        let (batches, _) = read("{replay: max, duration: 2s, rate: 1, machines: 4000}");
        assert_eq!((total(&batches), batches.len()), (40_000, 4));
    }

    #[test]
    fn real_time_gives_the_same_rows_when_they_are_due() {
        let start = "start: 2026-01-01T00:00:00Z, duration: 4s";
        let (paced, secs) = read(&format!("{{replay: x10, {start}}}"));
        let (fast, _) = read(&format!("{{replay: max, {start}}}"));
        let schema = fast[0].schema();
        let whole = |batches: &[RecordBatch]| {
            let batch = arrow::compute::concat_batches(&schema, batches).unwrap();
            let samples = Samples::of(&batch).unwrap();
            (samples.ts.to_vec(), samples.value.values().to_vec())
        };
        assert_eq!(whole(&paced), whole(&fast));
        assert!((0.39..3.0).contains(&secs), "{secs}");
    }
}
