//! What a row costs each detector.
//!
//! `cargo bench -p taktline-operators --bench anomaly`: noise around a wave, after a warm-up of 4,000 rows.

use std::hint::black_box;
use std::time::Instant;

use taktline_operators::kernels::anomaly::auto::{Judge, MEMORY, Method};
use taktline_operators::kernels::anomaly::random::Random;

const WARM_UP: usize = 4_000;
const ROWS: usize = 20_000;

fn main() {
    let mut random = Random::new(1);
    let value = |row: usize| (row as f64 * 0.05).sin() + 0.2 * (random.share() - 0.5);
    let values: Vec<f64> = (0..WARM_UP + ROWS).map(value).collect();
    println!("{:<20} {:>10} {:>14}", "detector", "µs a row", "rows/s");
    for method in Method::ALL {
        let mut judge = Judge::new(method, MEMORY, "m/a");
        values[..WARM_UP]
            .iter()
            .for_each(|value| _ = black_box(judge.probability(*value)));
        let begin = Instant::now();
        values[WARM_UP..]
            .iter()
            .for_each(|value| _ = black_box(judge.probability(*value)));
        let seconds = begin.elapsed().as_secs_f64();
        let (micros, rate) = (seconds * 1e6 / ROWS as f64, ROWS as f64 / seconds);
        println!("{:<20} {micros:>10.3} {rate:>14.0}", method.as_str());
    }
}
