//! DTW beside its peers, in one run, taking turns: `cargo bench -p taktline-operators --bench dtw`.
//!
//! Prints a table, and writes it to `bench/results/kernels.md`. Each number is the median of [`ROUNDS`].

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Instant;

use taktline_operators::kernels::dtw::{Scratch, window};
use taktline_operators::kernels::nearest::Library;
use taktline_operators::kernels::search::Search;

mod data;
mod peer;
mod ucr_suite;

use peer::Peer;

const ROUNDS: usize = 7;

struct Row {
    what: String,
    ours: f64,
    peer: Option<f64>,
    peer_name: &'static str,
    /// How many cells an item has, where all are computed.
    cells: Option<usize>,
    goal: Option<f64>,
}

fn main() {
    // `cargo test --benches` builds and starts it too.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map_or_else(PathBuf::new, Path::to_path_buf);
    let target = target_folder().unwrap_or_else(|| root.join("target"));
    let mut peer = Peer::start(&target)
        .inspect_err(|why| println!("without dtaidistance: {why}"))
        .ok();
    let mut rows = Vec::new();
    for (length, count) in [(1024, 8), (128, 32)] {
        rows.push(pairs(&mut peer, "pairs", length, count));
    }
    rows.push(pairs(&mut peer, "single", 128, 32));
    for (name, series) in [
        ("random walks", data::walks(3, 1010, 512)),
        ("cycles of one machine", data::cycles(4, 1010, 512)),
    ] {
        rows.extend(nearest(&mut peer, name, &series));
    }
    let mut random = data::Random::new(5);
    let walk = data::walk(&mut random, 1_000_000);
    rows.push(subsequence("a random walk", &walk, &data::walk(&mut random, 256)));
    let cycles = data::cycles(6, 2500, 400).concat();
    rows.push(subsequence(
        "cycles of one machine",
        &cycles,
        &data::cycles(7, 1, 256)[0],
    ));
    let table = table(&rows);
    print!("{table}");
    let path = root.join("bench/results/kernels.md");
    if let Err(e) = std::fs::write(&path, table) {
        println!("{}: {e}", path.display());
    }
}

/// Distances of all pairs.
fn pairs(peer: &mut Option<Peer>, job: &'static str, length: usize, count: usize) -> Row {
    let series = data::walks(1, count, length);
    let window = window(10.0, length, length);
    let items = (count * (count - 1) / 2) as f64;
    let mut scratch = Scratch::default();
    let ours = || {
        let mut sum = 0.0;
        for (i, a) in series.iter().enumerate() {
            for b in &series[..i] {
                sum += scratch.dtw(a, b, window, f64::INFINITY).unwrap_or(f64::NAN);
            }
        }
        sum
    };
    let (ours, peer) = in_turns(ours, peer, |peer| peer.ask(job, &series, window, 0));
    let peer_name = if job == "pairs" {
        "dtaidistance, all pairs in C"
    } else {
        "dtaidistance, `distance_fast` from Python"
    };
    Row {
        what: format!("DTW, L = {length}, window 10 %"),
        ours: ours / items,
        peer: peer.map(|seconds| seconds / items),
        peer_name,
        cells: Some(length * (2 * window + 1) - window * (window + 1)),
        goal: (job == "pairs").then_some(8.0),
    }
}

/// The nearest of 1,000 to each of ten.
fn nearest(peer: &mut Option<Peer>, name: &str, series: &[Vec<f64>]) -> [Row; 2] {
    const QUERIES: usize = 10;
    let (queries, known) = series.split_at(QUERIES);
    let length = series[0].len();
    let window = window(10.0, length, length);
    let mut library = Library::new(10.0);
    known.iter().for_each(|series| library.push(series));
    let mut cascade = || queries.iter().map(|query| library.nearest(query, 1)[0].distance).sum();
    let (ours, seconds) = in_turns(&mut cascade, peer, |peer| peer.ask("nearest", series, window, QUERIES));
    let mut scratch = Scratch::default();
    let mut all = |query: &Vec<f64>| {
        let distances = known
            .iter()
            .filter_map(|known| scratch.dtw(query, known, window, f64::INFINITY));
        distances.fold(f64::INFINITY, f64::min)
    };
    let (_, brute) = both_in_turns(&mut cascade, || queries.iter().map(&mut all).sum());
    let row = |peer: Option<f64>, peer_name, goal| Row {
        what: format!("1-NN of {} {name}, L = {length}, window 10 %", known.len()),
        ours: ours / QUERIES as f64,
        peer: peer.map(|seconds| seconds / QUERIES as f64),
        peer_name,
        cells: None,
        goal,
    };
    [
        row(seconds, "dtaidistance with LB_Keogh and `max_dist`", Some(30.0)),
        row(Some(brute), "our DTW with all of them", None),
    ]
}

/// The nearest stretch of a million points.
fn subsequence(name: &str, series: &[f64], query: &[f64]) -> Row {
    let window = window(5.0, query.len(), query.len());
    let mut search = Search::new(query, window);
    let ours = || {
        search
            .best(series)
            .map_or(f64::NAN, |found| found.start as f64 + found.distance)
    };
    let suite = || {
        let (place, distance) = ucr_suite::search(series, query, window);
        place as f64 + distance
    };
    let (ours, suite) = both_in_turns(ours, suite);
    Row {
        what: format!(
            "search of {} points, {name}, query {}, window 5 %",
            series.len(),
            query.len()
        ),
        ours,
        peer: Some(suite),
        peer_name: "the UCR suite's loop, in Rust",
        cells: None,
        goal: Some(2.0),
    }
}

/// The median seconds of two of our own.
fn both_in_turns(mut one: impl FnMut() -> f64, mut other: impl FnMut() -> f64) -> (f64, f64) {
    let (mut ones, mut others) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (found, seconds) = timed(&mut one);
        ones.push(seconds);
        let (same, seconds) = timed(&mut other);
        others.push(seconds);
        assert!((found - same).abs() <= 1e-9 * found.abs(), "{found}, and {same}");
    }
    let median = |seconds: &mut Vec<f64>| median(seconds).unwrap_or(f64::NAN);
    (median(&mut ones), median(&mut others))
}

/// What it gives, and the seconds it takes.
fn timed(mut job: impl FnMut() -> f64) -> (f64, f64) {
    let (begin, mut times) = (processor_seconds(), 0);
    let mut found = 0.0;
    // Processor time is counted in steps of a few ms.
    while processor_seconds() - begin < 0.1 {
        found = std::hint::black_box(job());
        times += 1;
    }
    (found, (processor_seconds() - begin) / f64::from(times))
}

/// The median seconds of both, which take turns; both must come to the same sum.
fn in_turns(
    mut ours: impl FnMut() -> f64,
    peer: &mut Option<Peer>,
    mut ask: impl FnMut(&mut Peer) -> Result<peer::Answer, String>,
) -> (f64, Option<f64>) {
    let (mut own, mut other) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (sum, seconds) = timed(&mut ours);
        own.push(seconds);
        if let Some(answer) = peer.as_mut().map(&mut ask) {
            match answer {
                Ok(answer) => {
                    assert!(
                        (answer.sum - sum).abs() <= 1e-9 * sum.abs(),
                        "{sum} here, {} there",
                        answer.sum
                    );
                    other.push(answer.seconds);
                }
                Err(why) => println!("the peer gave up: {why}"),
            }
        }
    }
    (median(&mut own).unwrap_or(f64::NAN), median(&mut other))
}

/// Processor time of this thread, which bears with neighbours better than the clock; the clock where there is no `/proc`.
fn processor_seconds() -> f64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let ns = || {
        std::fs::read_to_string("/proc/self/schedstat")
            .ok()?
            .split(' ')
            .next()?
            .parse::<f64>()
            .ok()
    };
    ns().map_or_else(|| START.elapsed().as_secs_f64(), |ns| ns / 1e9)
}

fn median(seconds: &mut [f64]) -> Option<f64> {
    seconds.sort_by(f64::total_cmp);
    seconds.get(seconds.len() / 2).copied()
}

fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "# Kernels\n\n{} cores of {}; f64, one thread; processor time, the median of {ROUNDS} rounds in which both sides take turns.\n\
         Command: `cargo bench -p taktline-operators --bench dtw`\n\n\
         | what | ours | peer | | ratio | goal |\n| --- | --- | --- | --- | --- | --- |\n",
        std::thread::available_parallelism().map_or(1, usize::from),
        processor()
    );
    for row in rows {
        let speed = |seconds: f64| match row.cells {
            Some(cells) => format!("{} ({:.2} Gcells/s)", time(seconds), cells as f64 / seconds / 1e9),
            None => time(seconds),
        };
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
        text += &format!(
            "| {} | {} | {} | {} | {} | {} |\n",
            row.what,
            speed(row.ours),
            row.peer_name,
            or_dash(row.peer.map(speed)),
            or_dash(row.peer.map(|peer| format!("{:.1} ×", peer / row.ours))),
            or_dash(row.goal.map(|goal| format!("{goal} ×"))),
        );
    }
    text
}

fn time(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.2} µs", s * 1e6),
        s if s < 1.0 => format!("{:.2} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}

fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}

/// The folder that cargo builds into: this program lies in its `release/deps`.
fn target_folder() -> Option<PathBuf> {
    std::env::current_exe().ok()?.ancestors().nth(3).map(Path::to_path_buf)
}
