//! Puts the samples of a step in time order, per key: watermarks, lateness, late rows.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use serde::{Deserialize, Serialize};

use super::columns::{Columns, SavedColumns};
use super::keys::Keys;
use super::names::Names;
use crate::snapshot::{Saved, Snapshot};
use crate::table::{self, Samples};

/// All keys of one step on one worker.
pub(crate) struct InTime {
    lateness_us: i64,
    pub keys: Keys,
    signals: Names,
    times: Vec<KeyTime>,
}

/// [`KeyTime`] in a checkpoint.
#[derive(Serialize, Deserialize)]
struct SavedTime {
    newest: i64,
    watermark: i64,
    far_times: u8,
    last_far: i64,
    waiting: SavedColumns,
}

/// How far one key's event time has come.
struct KeyTime {
    newest: i64,
    /// Rows before this are late: it trails the newest row by the lateness, and never goes back.
    watermark: i64,
    /// Rows that wait for the watermark; empty when nothing may be late.
    waiting: Columns,
    /// Tick at or after the newest row, and the time that has passed since, for silent keys.
    last_tick: Option<i64>,
    heard: bool,
    /// Different times in a row that were far ahead, and the last of them.
    far_times: u8,
    last_far: i64,
    /// Rows of this key in the epoch at hand, then where the next of them goes.
    cursor: usize,
}

/// What an epoch released: rows in key order and, for each key that moved, its rows and its watermark.
pub(crate) struct Released {
    pub batch: RecordBatch,
    pub moves: Vec<Move>,
    /// Rows of the `late` table.
    pub late: Option<RecordBatch>,
    /// Keys that heard of a time far ahead, which they remember.
    pub wary: Vec<u32>,
}

/// Keys and where their rows are.
type Runs = Vec<(u32, Range<usize>)>;

/// An epoch's rows, judged.
struct Judged {
    accepted: usize,
    /// Of each row the number of its key, or [`LATE`].
    key_of_row: Vec<u32>,
    /// Keys with rows, in the order of their first.
    touched: Vec<u32>,
    late: Option<RecordBatch>,
    wary: Vec<u32>,
}

/// One key's part of an epoch.
pub(crate) struct Move {
    pub key: u32,
    pub rows: Range<usize>,
    pub watermark: i64,
}

impl InTime {
    pub fn new(lateness_us: i64) -> Self {
        InTime {
            lateness_us,
            keys: Keys::default(),
            signals: Names::new(),
            times: Vec::new(),
        }
    }

    /// The time of a key for a checkpoint. Rows that wait are written each time: the watermark passes them within `lateness`.
    pub fn snapshot(&self, key: u32, into: &mut Snapshot) -> anyhow::Result<()> {
        let key = &self.times[key as usize];
        into.head(&SavedTime {
            newest: key.newest,
            watermark: key.watermark,
            far_times: key.far_times,
            last_far: key.last_far,
            waiting: key.waiting.save(&self.signals),
        })
    }

    /// Takes back what [`InTime::snapshot`] gave. Silence is measured anew: while nobody ran nobody was silent.
    pub fn restore_key(&mut self, key: u32, saved: &Saved) -> anyhow::Result<()> {
        let saved: SavedTime = saved.head()?;
        let waiting = Columns::restore(&saved.waiting, &mut self.signals)?;
        self.times.resize_with(self.keys.slots(), KeyTime::new);
        self.times[key as usize] = KeyTime {
            newest: saved.newest,
            watermark: saved.watermark,
            far_times: saved.far_times,
            last_far: saved.last_far,
            waiting,
            ..KeyTime::new()
        };
        Ok(())
    }

    /// Takes an epoch's batches, in the order of the input.
    pub fn epoch(&mut self, step: &str, batches: &[RecordBatch]) -> anyhow::Result<Released> {
        let judged = self.judge(step, batches)?;
        let (arrived, runs) = self.scatter(batches, &judged)?;
        let released = self.release(arrived, runs, judged.late)?;
        Ok(Released {
            wary: judged.wary,
            ..released
        })
    }

    /// Judges each row in the order of arrival: its key's number, or late. So a verdict never depends on how the input
    /// was cut into epochs.
    fn judge(&mut self, step: &str, batches: &[RecordBatch]) -> anyhow::Result<Judged> {
        let total = batches.iter().map(RecordBatch::num_rows).sum();
        let mut order = Vec::with_capacity(total);
        let mut touched = Vec::new();
        let mut late = Vec::new();
        let mut wary = Vec::new();
        let mut accepted = 0;
        for batch in batches {
            let samples = Samples::of(batch)?;
            let key_of = self.keys.translate(samples.machines, samples.machine);
            self.times.resize_with(self.keys.slots(), KeyTime::new);
            let mut late_rows: Vec<(u32, i64)> = Vec::new();
            for (row, (machine, ts)) in samples.machine.iter().zip(samples.ts).enumerate() {
                let number = key_of[*machine as usize];
                let key = &mut self.times[number as usize];
                if *ts < key.watermark || (*ts > key.newest && key.is_far_ahead(*ts)) {
                    late_rows.push((row as u32, key.watermark));
                    if key.far_times > 0 {
                        wary.push(number);
                    }
                    order.push(LATE);
                    continue;
                }
                if *ts > key.newest {
                    key.newest = *ts;
                    key.watermark = key.watermark.max(ts.saturating_sub(self.lateness_us));
                }
                if key.cursor == 0 {
                    touched.push(number);
                }
                key.cursor += 1;
                accepted += 1;
                order.push(number);
            }
            if !late_rows.is_empty() {
                late.push(late_batch(step, batch, &late_rows)?);
            }
        }
        let late = if late.is_empty() {
            None
        } else {
            Some(concat_batches(&table::late().schema, &late)?)
        };
        Ok(Judged {
            accepted,
            key_of_row: order,
            touched,
            late,
            wary,
        })
    }

    /// Brings the rows of each key together; a key's rows keep their order.
    fn scatter(&mut self, batches: &[RecordBatch], judged: &Judged) -> anyhow::Result<(Columns, Runs)> {
        let mut arrived = Columns::sized(judged.accepted);
        let mut runs = Vec::with_capacity(judged.touched.len());
        let mut start = 0;
        for number in &judged.touched {
            let key = &mut self.times[*number as usize];
            let end = start + key.cursor;
            key.cursor = start;
            runs.push((*number, start..end));
            start = end;
        }
        let mut key_of_row = judged.key_of_row.iter();
        for batch in batches {
            let samples = Samples::of(batch)?;
            let signal_of = self.signals.translate(samples.signals, samples.signal);
            let values = samples.value.values();
            let absent = (samples.value.null_count() > 0)
                .then(|| samples.value.nulls())
                .flatten();
            let has_text = samples.text.null_count() < samples.text.len();
            let has_quality = samples.quality.null_count() < samples.quality.len();
            let qualities = samples.quality.values().as_string::<i32>();
            for ((row, signal), number) in samples.signal.iter().enumerate().zip(key_of_row.by_ref()) {
                if *number == LATE {
                    continue;
                }
                let key = &mut self.times[*number as usize];
                let place = key.cursor;
                key.cursor += 1;
                arrived.ts[place] = samples.ts[row];
                arrived.signal[place] = signal_of[*signal as usize] as i32;
                arrived.value[place] = if absent.is_some_and(|nulls| nulls.is_null(row)) {
                    f64::NAN
                } else {
                    values[row]
                };
                if has_text && !samples.text.is_null(row) {
                    arrived.text.put(place, judged.accepted, samples.text.value(row));
                }
                if has_quality && let Some(number) = samples.quality.key(row) {
                    arrived.quality.put(place, judged.accepted, qualities.value(number));
                }
            }
        }
        Ok((arrived, runs))
    }

    /// Hands out what the watermarks have passed.
    fn release(&mut self, mut arrived: Columns, runs: Runs, late: Option<RecordBatch>) -> anyhow::Result<Released> {
        let mut released = Columns::default();
        let mut moves = Vec::with_capacity(runs.len());
        for (number, range) in runs {
            let key = &mut self.times[number as usize];
            key.cursor = 0;
            key.heard = true;
            if self.lateness_us == 0 {
                // In arrival order no row was before the one ahead of it, so the run is sorted.
                moves.push(Move {
                    key: number,
                    rows: range,
                    watermark: key.watermark,
                });
                continue;
            }
            key.waiting.append(&arrived, range);
            moves.push(key.pass(number, &mut released));
        }
        if self.lateness_us == 0 {
            std::mem::swap(&mut released, &mut arrived);
        }
        self.finish(released, moves, late)
    }

    /// Lets time pass for keys that are silent, up to `patience_us` beyond their newest row.
    pub fn tick(&mut self, now_us: i64, patience_us: i64) -> anyhow::Result<Option<Released>> {
        let mut released = Columns::default();
        let mut moves = Vec::new();
        for (number, key) in self.times.iter_mut().enumerate() {
            if std::mem::take(&mut key.heard) || key.last_tick.is_none() {
                key.last_tick = Some(now_us);
                continue;
            }
            if key.newest == i64::MIN {
                continue; // never heard, or forgotten
            }
            let silent_us = now_us - key.last_tick.unwrap_or(now_us);
            let passed = silent_us.saturating_sub(self.lateness_us).min(patience_us);
            let reached = key.newest.saturating_add(passed);
            if passed >= 0 && reached > key.watermark {
                key.watermark = reached;
                moves.push(key.pass(number as u32, &mut released));
            }
        }
        if moves.is_empty() {
            return Ok(None);
        }
        self.finish(released, moves, None).map(Some)
    }

    /// The input of these keys has ended: hands out all that waits.
    pub fn end(&mut self, numbers: &[u32]) -> anyhow::Result<Released> {
        let mut released = Columns::default();
        let mut moves = Vec::new();
        for number in numbers {
            let key = &mut self.times[*number as usize];
            key.watermark = key.watermark.max(key.newest);
            moves.push(key.pass(*number, &mut released));
        }
        self.finish(released, moves, None)
    }

    /// Forgets a key.
    pub fn forget(&mut self, number: u32) {
        self.times[number as usize] = KeyTime::new();
        self.keys.forget(number);
    }

    /// The newest watermark of all keys, µs.
    pub fn newest_watermark(&self) -> Option<i64> {
        self.times
            .iter()
            .map(|key| key.watermark)
            .filter(|watermark| *watermark > i64::MIN)
            .max()
    }

    fn finish(&self, released: Columns, moves: Vec<Move>, late: Option<RecordBatch>) -> anyhow::Result<Released> {
        let runs: Runs = moves.iter().map(|m| (m.key, m.rows.clone())).collect();
        Ok(Released {
            batch: released.into_batch(&runs, &self.keys, &self.signals)?,
            moves,
            late,
            wary: Vec::new(),
        })
    }
}

const LATE: u32 = u32::MAX;

/// Further ahead of its key's newest row than this, a row is held to be wrong and goes to `late`: 400 days.
const FAR_AHEAD_US: i64 = 400 * 86_400 * 1_000_000;
/// So many different times far ahead are held to be wrong; the next is believed.
const FAR_TIMES: u8 = 3;

impl KeyTime {
    fn new() -> Self {
        KeyTime {
            newest: i64::MIN,
            watermark: i64::MIN,
            waiting: Columns::default(),
            last_tick: None,
            heard: false,
            far_times: 0,
            last_far: 0,
            cursor: 0,
        }
    }

    /// True for a time that is far ahead of all this key's others: one broken clock must not make all later rows late. When
    /// several different times agree, the machine was really away for so long.
    fn is_far_ahead(&mut self, ts: i64) -> bool {
        if self.newest == i64::MIN || ts.saturating_sub(self.newest) <= FAR_AHEAD_US {
            self.far_times = 0;
            return false;
        }
        if self.far_times == 0 || ts != self.last_far {
            self.far_times += 1;
            self.last_far = ts;
        }
        self.far_times <= FAR_TIMES
    }

    /// Moves the waiting rows up to the watermark to the end of `released`.
    fn pass(&mut self, number: u32, released: &mut Columns) -> Move {
        let all = 0..self.waiting.len();
        self.waiting.sort(all);
        let ready = self.waiting.ts.partition_point(|ts| *ts <= self.watermark);
        let start = released.len();
        released.append(&self.waiting, 0..ready);
        self.waiting.remove_first(ready);
        Move {
            key: number,
            rows: start..start + ready,
            watermark: self.watermark,
        }
    }
}

/// Rows of `batch` with the watermark that had passed them, as `late` rows.
fn late_batch(step: &str, batch: &RecordBatch, rows: &[(u32, i64)]) -> anyhow::Result<RecordBatch> {
    let indices = UInt32Array::from_iter_values(rows.iter().map(|(row, _)| *row));
    let taken = take_record_batch(batch, &indices)?;
    let mut columns: Vec<ArrayRef> = vec![Arc::new(StringArray::from_iter_values(rows.iter().map(|_| step)))];
    // A step may have given samples more columns, which `late` doesn't have.
    let own = table::samples().schema.fields().len();
    columns.extend(taken.columns().iter().take(own).cloned());
    let watermarks = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|(_, watermark)| *watermark));
    columns.push(Arc::new(watermarks.with_timezone("UTC")));
    Ok(RecordBatch::try_new(table::late().schema, columns)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use arrow::array::DictionaryArray;
    use arrow::datatypes::Int32Type;

    use super::*;
    use crate::table::{Sample, samples_batch};

    /// Feeds `rows` (machine, ts) cut after every `cut` rows; gives what came out per machine, and the late ones.
    fn run(lateness_us: i64, rows: &[(&str, i64)], cut: usize) -> (Vec<(String, i64)>, Vec<i64>) {
        let mut in_time = InTime::new(lateness_us);
        let (mut out, mut late) = (Vec::new(), Vec::new());
        let mut take = |released: Released| {
            let samples = Samples::of(&released.batch).unwrap();
            for m in &released.moves {
                for row in m.rows.clone() {
                    let machine = samples.machines.value(samples.machine[row] as usize);
                    out.push((machine.to_owned(), samples.ts[row]));
                }
            }
            late.extend(
                released
                    .late
                    .iter()
                    .flat_map(|batch| table::timestamps(batch, "ts").unwrap().to_vec()),
            );
        };
        for chunk in rows.chunks(cut) {
            let row = |(machine, ts): &(&'static str, i64)| Sample {
                machine,
                signal: "s",
                ts: *ts,
                ..Sample::default()
            };
            let rows: Vec<(&'static str, i64)> = chunk
                .iter()
                .map(|(m, ts)| (if *m == "a" { "a" } else { "b" }, *ts))
                .collect();
            let batch = samples_batch(rows.iter().map(row));
            take(in_time.epoch("step", &[batch]).unwrap());
        }
        let keys: Vec<u32> = in_time.keys.in_use().map(|(number, _)| number).collect();
        take(in_time.end(&keys).unwrap());
        out.sort_by(|a, b| a.0.cmp(&b.0));
        (out, late)
    }

    fn check(lateness_us: i64, rows: &[(&str, i64)], a: &[i64], b: &[i64], late: &[i64]) {
        for cut in 1..=rows.len() {
            let (out, came_late) = run(lateness_us, rows, cut);
            let of = |name: &str| {
                out.iter()
                    .filter(|(m, _)| m == name)
                    .map(|(_, ts)| *ts)
                    .collect::<Vec<_>>()
            };
            assert_eq!((of("a").as_slice(), of("b").as_slice()), (a, b), "cut {cut}");
            assert_eq!(came_late, late, "cut {cut}");
        }
    }

    #[test]
    fn order_and_lateness_do_not_depend_on_the_cut() {
        check(0, &[("a", 1), ("b", 9), ("a", 2), ("b", 10)], &[1, 2], &[9, 10], &[]);
        check(0, &[("a", 5), ("a", 3), ("a", 5), ("a", 6)], &[5, 5, 6], &[], &[3]);
        check(
            2,
            &[("a", 5), ("a", 3), ("a", 9), ("a", 6), ("a", 7)],
            &[3, 5, 7, 9],
            &[],
            &[6],
        );
        // A key that is far behind holds nobody back and loses nothing.
        check(
            1,
            &[("a", 100), ("b", 1), ("a", 101), ("b", 2)],
            &[100, 101],
            &[1, 2],
            &[],
        );
    }

    #[test]
    fn a_time_far_ahead_does_not_move_the_watermark() {
        let far = FAR_AHEAD_US + 1000;
        check(
            0,
            &[("a", 1), ("a", far), ("a", far), ("a", 2), ("a", 3)],
            &[1, 2, 3],
            &[],
            &[far, far],
        );
        check(
            5,
            &[("a", 1), ("a", far), ("b", far), ("a", 2), ("a", 3)],
            &[1, 2, 3],
            &[far],
            &[far],
        );
        // Away for years: believed at the fourth time.
        let away = [
            ("a", 1),
            ("a", far),
            ("a", far + 1),
            ("a", far + 2),
            ("a", far + 3),
            ("a", far + 4),
        ];
        check(0, &away, &[1, far + 3, far + 4], &[], &[far, far + 1, far + 2]);
    }

    #[test]
    fn quality_comes_with_its_row_though_it_waited() {
        let of = |rows: &[(i64, Option<&str>)]| {
            let samples = samples_batch(rows.iter().map(|(ts, _)| Sample {
                machine: "a",
                signal: "s",
                ts: *ts,
                value: None,
                text: None,
            }));
            let quality: DictionaryArray<Int32Type> = rows.iter().map(|(_, quality)| *quality).collect();
            let mut columns = samples.columns().to_vec();
            columns[5] = Arc::new(quality);
            RecordBatch::try_new(samples.schema(), columns).unwrap()
        };
        let mut in_time = InTime::new(5);
        let first = in_time.epoch("step", &[of(&[(1, None), (3, Some("stale")), (2, Some("bad"))])]);
        assert_eq!(first.unwrap().batch.num_rows(), 0);
        let released = in_time.epoch("step", &[of(&[(9, None), (4, None)])]).unwrap().batch;
        let samples = Samples::of(&released).unwrap();
        let names = samples.quality.downcast_dict::<StringArray>().unwrap();
        let found: Vec<_> = samples.ts.iter().copied().zip(names).collect();
        assert_eq!(found, [(1, None), (2, Some("bad")), (3, Some("stale")), (4, None)]);
    }

    #[test]
    fn late_rows_leave_the_columns_of_steps_behind() {
        let sample = |ts| Sample {
            machine: "a",
            signal: "s",
            ts,
            ..Sample::default()
        };
        let batch = samples_batch([sample(9), sample(3)]);
        let mut fields: Vec<_> = batch.schema().fields().to_vec();
        fields.push(Arc::new(arrow::datatypes::Field::new(
            "recipe",
            arrow::datatypes::DataType::Float64,
            true,
        )));
        let mut columns = batch.columns().to_vec();
        columns.push(Arc::new(arrow::array::Float64Array::from(vec![1.0, 2.0])));
        let wide = RecordBatch::try_new(Arc::new(arrow::datatypes::Schema::new(fields)), columns).unwrap();
        let late = InTime::new(0).epoch("step", &[wide]).unwrap().late.unwrap();
        assert_eq!((late.schema(), late.num_rows()), (table::late().schema, 1));
    }

    #[test]
    fn silence_passes_time_only_as_far_as_patience() {
        let mut in_time = InTime::new(10);
        let at = |ts| {
            samples_batch([Sample {
                machine: "a",
                signal: "s",
                ts,
                value: Some(1.0),
                text: None,
            }])
        };
        let watermark = |released: Option<Released>| released.map(|r| (r.moves[0].watermark, r.batch.num_rows()));
        in_time.epoch("step", &[at(1000)]).unwrap();
        assert_eq!(watermark(in_time.tick(50_000, 500).unwrap()), None); // the row was heard since the last tick
        assert_eq!(watermark(in_time.tick(50_100, 500).unwrap()), Some((1090, 1)));
        assert_eq!(watermark(in_time.tick(90_000, 500).unwrap()), Some((1500, 0)));
        assert_eq!(watermark(in_time.tick(99_000, 500).unwrap()), None);
        assert!(in_time.epoch("step", &[at(1400)]).unwrap().late.is_some());
        assert!(in_time.epoch("step", &[at(1500)]).unwrap().late.is_none());
    }
}
