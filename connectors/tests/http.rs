//! The HTTP source, driven by requests as senders make them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch, StringArray};
use arrow::ipc::writer::StreamWriter;
use serde_json::{Value, json};
use taktline_connectors::http::source;
use taktline_engine::config::Section;
use taktline_engine::journal::{self, Full, Settings, Watch};
use taktline_engine::{Partition, Poll, Samples, Source};

const PATIENCE: Duration = Duration::from_secs(40);

/// Polls until there is something, or the patience ends.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn build(rest: &str) -> Box<dyn Source> {
    let section = Section::from_yaml("plc", &format!("listen: 127.0.0.1:0\n{rest}"));
    (source::KIND.build)(&section)
        .map_err(|problems| format!("{problems:?}"))
        .unwrap()
}

/// A running source: a thread polls it, as the engine would.
struct Served {
    url: String,
    /// Samples as `machine signal value`, and dead letters as `stream index reason`.
    taken: Arc<Mutex<(Vec<String>, Vec<String>)>>,
    acknowledges: Arc<AtomicBool>,
    polls: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    fn start(rest: &str) -> Self {
        let source = build(rest);
        assert!(!source.bounded() && !source.replayable());
        let partition = source.open(0, None, Arc::new(|| {})).unwrap();
        Served::over(source, partition)
    }

    fn over(source: Box<dyn Source>, mut partition: Box<dyn Partition>) -> Self {
        let text = partition.position().text;
        let url = text.split_once(": ").unwrap().0.to_owned();
        let taken: Arc<Mutex<(Vec<String>, Vec<String>)>> = Arc::default();
        let flag = |value| Arc::new(AtomicBool::new(value));
        let (acknowledges, polls, stop) = (flag(true), flag(true), flag(false));
        let thread = std::thread::spawn({
            let (taken, acknowledges, polls, stop) = (taken.clone(), acknowledges.clone(), polls.clone(), stop.clone());
            move || {
                let mut decoder = source.decoder();
                let (mut polled, mut told, mut stopped) = (0, 0, false);
                // The first poll starts the server.
                let mut more = Some(partition.poll().unwrap());
                loop {
                    match more {
                        Some(Poll::Batch(raw)) => {
                            polled += 1;
                            let decoded = decoder.decode(&raw).unwrap();
                            let mut taken = taken.lock().unwrap();
                            taken.0.extend(samples(&decoded.samples));
                            taken.1.extend(letters(&decoded.dead_letters));
                        }
                        Some(Poll::End) => return,
                        _ => std::thread::sleep(Duration::from_millis(1)),
                    }
                    if told < polled && acknowledges.load(Ordering::Acquire) {
                        partition.acknowledge(polled).unwrap();
                        told = polled;
                    }
                    if stop.load(Ordering::Acquire) && !stopped {
                        stopped = true;
                        partition.stop();
                    }
                    more = polls.load(Ordering::Acquire).then(|| partition.poll().unwrap());
                }
            }
        });
        Served {
            url,
            taken,
            acknowledges,
            polls,
            stop,
            thread: Some(thread),
        }
    }

    fn samples(&self) -> Vec<String> {
        self.taken.lock().unwrap().0.clone()
    }

    fn letters(&self) -> Vec<String> {
        self.taken.lock().unwrap().1.clone()
    }

    fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Answer {
        send(&agent(), method, &format!("{}{path}", self.url), headers, body.as_ref())
    }

    fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Answer {
        self.request("POST", path, &[], body)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.polls.store(true, Ordering::Release);
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take()
            && !std::thread::panicking()
        {
            thread.join().unwrap();
        }
    }
}

fn samples(batch: &RecordBatch) -> Vec<String> {
    let samples = Samples::of(batch).unwrap();
    let row = |row: usize| {
        let machine = samples.machines.value(samples.machine[row] as usize);
        let signal = samples.signals.value(samples.signal[row] as usize);
        let value = match (samples.value.is_valid(row), samples.text.is_valid(row)) {
            (true, _) => samples.value.value(row).to_string(),
            (_, true) => samples.text.value(row).to_owned(),
            _ => "-".into(),
        };
        format!("{machine} {signal} {value}")
    };
    (0..batch.num_rows()).map(row).collect()
}

fn letters(batch: &RecordBatch) -> Vec<String> {
    let text = |column: usize, row| batch.column(column).as_string::<i32>().value(row).to_owned();
    let index = batch.column(2).as_primitive::<arrow::datatypes::UInt64Type>();
    (0..batch.num_rows())
        .map(|row| format!("{} {} {}", text(1, row), index.value(row), text(3, row)))
        .collect()
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(PATIENCE));
    config.build().new_agent()
}

#[derive(Debug)]
struct Answer {
    status: u16,
    media: String,
    retry_after: Option<String>,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("{self:?}"))
    }
}

fn send(agent: &ureq::Agent, method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    // As curl -d sends it.
    if headers.iter().all(|(name, _)| *name != "content-type") {
        request = request.header("content-type", "application/x-www-form-urlencoded");
    }
    let mut answer = match method {
        "GET" => agent.run(request.body(()).unwrap()).unwrap(),
        _ => agent.run(request.body(body).unwrap()).unwrap(),
    };
    let header = |name: &str| {
        answer
            .headers()
            .get(name)
            .map(|value| value.to_str().unwrap().to_owned())
    };
    Answer {
        status: answer.status().as_u16(),
        media: header("content-type").unwrap_or_default(),
        retry_after: header("retry-after"),
        text: answer.body_mut().read_to_string().unwrap(),
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

#[test]
fn each_format_brings_its_rows() {
    let served = Served::start("");
    let mut seen = 0;
    let mut check = |path: &str, headers: &[(&str, &str)], body: &[u8], expect: &[&str]| {
        let answer = served.request("POST", path, headers, body);
        assert_eq!(answer.status, 202, "{answer:?}");
        assert_eq!(
            answer.json(),
            json!({"accepted": expect.len(), "refused": 0, "reasons": []})
        );
        let all = served.samples();
        assert_eq!(all[seen..], *expect, "{}", String::from_utf8_lossy(body));
        seen = all.len();
    };
    let media = |media| [("content-type", media)];
    // What a microcontroller or a hand sends.
    check(
        "/streams/press-1",
        &[],
        b"press-1 temperature=21.5",
        &["press-1 temperature 21.5"],
    );
    check(
        "/streams/press-1",
        &[],
        b"{\"temperature\": 21.5}",
        &["press-1 temperature 21.5"],
    );
    check(
        "/streams/press-1",
        &media("application/json"),
        format!(
            "[{{\"machine\":\"m\",\"signal\":\"p\",\"ts\":{},\"value\":1}},{{\"state\":\"run\"}}]",
            now_ms()
        )
        .as_bytes(),
        &["m p 1", "press-1 state run"],
    );
    check(
        "/streams/press-1?precision=s",
        &media("application/x-ndjson"),
        format!("{{\"ts\":{},\"a\":1}}\n{{\"a\":2}}\n", now_ms() / 1000).as_bytes(),
        &["press-1 a 1", "press-1 a 2"],
    );
    let columns: [(&str, ArrayRef); 2] = [
        ("p", Arc::new(Float64Array::from(vec![1.5, 2.5]))),
        ("state", Arc::new(StringArray::from(vec!["a", "b"]))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = StreamWriter::try_new(Vec::new(), batch.schema_ref()).unwrap();
    writer.write(&batch).unwrap();
    check(
        "/streams/press-1",
        &media("application/vnd.apache.arrow.stream"),
        &writer.into_inner().unwrap(),
        &["press-1 p 1.5", "press-1 state a", "press-1 p 2.5", "press-1 state b"],
    );
    check(
        "/streams/hall%201",
        &[("content-encoding", "gzip")],
        &gzip(b"presses,machine=p7 t=1i"),
        &["p7 t 1"],
    );
    let streams = served.request("GET", "/streams", &[], "").json();
    let names: Vec<&str> = streams["streams"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| s["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["hall 1", "press-1"]);
    assert_eq!(streams["streams"][1]["samples"], 10);
}

#[test]
fn refused_rows_are_told_and_are_dead_letters() {
    let served = Served::start("");
    let body = "press-1 a=1\npress-1\npress-1 b=x\n";
    let answer = served.post("/streams/press-1", body);
    assert_eq!(answer.status, 202);
    let told = answer.json();
    assert_eq!((&told["accepted"], &told["refused"]), (&json!(1), &json!(2)));
    assert_eq!(
        (&told["reasons"][0]["index"], &told["reasons"][1]["index"]),
        (&json!(1), &json!(2))
    );
    assert!(told["reasons"][1]["reason"].as_str().unwrap().contains("`x`"), "{told}");
    assert_eq!(served.samples(), ["press-1 a 1"]);
    let letters = served.letters();
    assert!(
        letters[0].starts_with("press-1 1 ") && letters[1].starts_with("press-1 2 "),
        "{letters:?}"
    );
    // No row is good: the sender need not wait, and the dead letter comes all the same.
    let answer = served.post("/streams/press-1", "[{\"a\": {}}]");
    assert_eq!(
        (answer.status, answer.media.as_str()),
        (422, "application/problem+json")
    );
    let problem = answer.json();
    assert_eq!((&problem["status"], &problem["refused"]), (&json!(422), &json!(1)));
    assert!(
        problem["detail"].as_str().unwrap().contains("row 0: `a` is an object"),
        "{problem}"
    );
    until("the dead letter", || (served.letters().len() == 3).then_some(()));
    assert_eq!(served.samples().len(), 1);
}

#[test]
fn problems_name_the_way_out() {
    let served = Served::start("max_body: 1KiB\nunregistered: refuse\nstreams: {oven: {signals: [t]}}");
    let check = |method: &str, path: &str, headers: &[(&str, &str)], body: &[u8], expect: (u16, &str)| {
        let answer = served.request(method, path, headers, body);
        assert_eq!(
            (answer.status, answer.media.as_str()),
            (expect.0, "application/problem+json"),
            "{path} {answer:?}"
        );
        assert_eq!(answer.json()["status"], expect.0);
        assert!(
            answer.json()["detail"].as_str().unwrap().contains(expect.1),
            "{path} {answer:?}"
        );
    };
    check("POST", "/streams/oven", &[], b"", (400, "the body is empty"));
    check("POST", "/streams/oven", &[], b"# nothing", (400, "no row"));
    check("POST", "/streams/oven", &[], b"[{\"t\": 1}", (400, "not closed"));
    check("POST", "/streams/oven", &[], b"{\"t\": 1", (400, "not JSON"));
    check("POST", "/streams/oven", &[], &[b'x'; 2000], (413, "`max_body`"));
    check(
        "POST",
        "/streams/oven",
        &[("content-encoding", "gzip")],
        &gzip(&[b' '; 9000]),
        (413, "`max_body`"),
    );
    check(
        "POST",
        "/streams/oven",
        &[("content-encoding", "gzip")],
        b"{}",
        (400, "not gzip"),
    );
    check(
        "POST",
        "/streams/oven",
        &[("content-encoding", "br")],
        b"{}",
        (415, "br"),
    );
    check(
        "POST",
        "/streams/oven",
        &[("content-type", "text/xml")],
        b"<a/>",
        (415, "text/xml"),
    );
    check(
        "POST",
        "/streams/oven?precision=days",
        &[],
        b"oven t=1",
        (400, "precision=days"),
    );
    check("POST", "/streams/oven", &[], b"oven p=1", (422, "no signal `p`"));
    check(
        "POST",
        "/streams/oven",
        &[("idempotency-key", "")],
        b"oven t=1",
        (400, "Idempotency-Key"),
    );
    check(
        "POST",
        "/streams/press-1",
        &[],
        b"press-1 t=1",
        (404, "PUT /streams/press-1"),
    );
    check("POST", "/elsewhere", &[], b"", (404, "/streams/NAME"));
    check("DELETE", "/streams/oven", &[], b"", (405, "POST"));
    check(
        "PUT",
        "/streams/oven",
        &[],
        b"{\"signals\": [\"p\"]}",
        (409, "`streams`"),
    );
    check(
        "PUT",
        "/streams/x",
        &[],
        b"{\"signal\": [\"p\"]}",
        (400, "unknown field `signal`"),
    );
    check("PUT", "/streams/x", &[], b"{\"machine\": \"\"}", (422, "`machine`"));
    assert_eq!(served.samples(), Vec::<String>::new());
    // A registration opens the door, and saying it again changes nothing.
    let stream = br#"{"machine": "p1", "signals": {"t": {"unit": "degC"}}}"#;
    let first = served.request(
        "PUT",
        "/streams/press-1",
        &[("content-type", "application/json")],
        stream,
    );
    assert_eq!(
        (first.status, &first.json()["signals"]["t"]["unit"]),
        (201, &json!("degC"))
    );
    assert_eq!(served.request("PUT", "/streams/press-1", &[], stream).status, 200);
    assert_eq!(served.post("/streams/press-1", "{\"t\": 1}").status, 202);
    assert_eq!(served.samples(), ["p1 t 1"]);
}

/// The requests of Telegraf's `outputs.influxdb` and `outputs.influxdb_v2`.
#[test]
fn telegraf_writes() {
    let served = Served::start("token: geheim");
    let ns = now_ms() * 1_000_000;
    let lines = format!(
        "modbus,host=gw,machine=press-1,type=holding temperature=21.5,running=true {ns}\npress-2 speed=3i {ns}\n"
    );
    let text = ("content-type", "text/plain; charset=utf-8");
    let v1 = ("authorization", "Basic dGVsZWdyYWY6Z2VoZWlt");
    let form = ("content-type", "application/x-www-form-urlencoded");
    let created = served.request("POST", "/query", &[form, v1], "q=CREATE+DATABASE+%22telegraf%22");
    assert_eq!((created.status, created.json()["results"][0].get("error")), (200, None));
    let written = served.request(
        "POST",
        "/write?db=telegraf&consistency=any",
        &[text, v1, ("content-encoding", "gzip")],
        gzip(lines.as_bytes()),
    );
    assert_eq!((written.status, written.text.as_str()), (204, ""));
    let v2 = ("authorization", "Token geheim");
    let written = served.request(
        "POST",
        "/api/v2/write?bucket=plant&org=acme",
        &[text, v2, ("content-encoding", "gzip")],
        gzip(lines.as_bytes()),
    );
    assert_eq!((written.status, written.text.as_str()), (204, ""));
    let three = ["press-1 temperature 21.5", "press-1 running 1", "press-2 speed 3"];
    assert_eq!(served.samples(), [three, three].concat());
    let ms = format!("press-1 t=1 {}", now_ms());
    assert_eq!(
        served
            .request("POST", "/write?db=x&precision=ms&p=geheim", &[text], &ms)
            .status,
        204
    );
    // What they understand: 400 is logged and not sent again, 503 is.
    let partial = served.request("POST", "/write?db=x", &[text, v1], "m t=1\nm t=\n");
    assert_eq!((partial.status, partial.media.as_str()), (400, "application/json"));
    assert!(
        partial.json()["error"]
            .as_str()
            .unwrap()
            .starts_with("partial write: 1 of 2"),
        "{partial:?}"
    );
    let partial = served.request("POST", "/api/v2/write?bucket=x", &[text, v2], &ms);
    assert_eq!((partial.status, &partial.json()["code"]), (400, &json!("invalid")));
    assert!(
        partial.json()["message"]
            .as_str()
            .unwrap()
            .contains("as ms it would be"),
        "{partial:?}"
    );
    assert_eq!(served.request("POST", "/write?db=x", &[text], "m t=1").status, 401);
    let wrong = served.request(
        "POST",
        "/api/v2/write?bucket=x",
        &[text, ("authorization", "Token x")],
        "m t=1",
    );
    assert_eq!((wrong.status, &wrong.json()["code"]), (401, &json!("unauthorized")));
    assert_eq!(served.request("GET", "/ping", &[], "").status, 204);
    assert_eq!(served.request("GET", "/health", &[], "").json()["status"], "pass");
    assert_eq!(served.samples().len(), 8);
}

#[test]
fn a_client_above_its_rate_waits() {
    let served = Served::start("rate: 2");
    let answers: Vec<Answer> = (0..4).map(|_| served.post("/streams/m", "m t=1")).collect();
    assert_eq!(answers[0].status, 202);
    let last = answers
        .iter()
        .find(|answer| answer.status == 429)
        .expect("4 requests at once are more than 2 a second");
    assert_eq!(last.retry_after.as_deref(), Some("1"));
    assert!(last.json()["detail"].as_str().unwrap().contains("`rate`"));
}

#[test]
fn nobody_is_told_before_the_rows_are_safe() {
    let served = Served::start("timeout: 300ms");
    served.acknowledges.store(false, Ordering::Release);
    let key = [("idempotency-key", "k1")];
    let late = served.request("POST", "/streams/m", &key, "m t=1");
    assert_eq!((late.status, late.retry_after.as_deref()), (503, Some("1")));
    assert!(
        late.json()["detail"].as_str().unwrap().contains("`timeout`"),
        "{late:?}"
    );
    // The same again adds nothing, and waits for the first.
    assert_eq!(served.request("POST", "/streams/m", &key, "m t=1").status, 503);
    served.acknowledges.store(true, Ordering::Release);
    let again = until("the rows are safe", || {
        Some(served.request("POST", "/streams/m", &key, "m t=1")).filter(|answer| answer.status == 202)
    });
    assert_eq!(again.json()["accepted"], 1);
    assert_eq!(served.samples(), ["m t 1"]);
    let other = served.request("POST", "/streams/m", &key, "m t=2");
    assert_eq!(other.status, 422);
    assert!(other.json()["detail"].as_str().unwrap().contains("another body"));
    // Another stream has keys of its own, and so has no key at all.
    assert_eq!(served.request("POST", "/streams/n", &key, "n t=2").status, 202);
    assert_eq!(served.post("/streams/m", "m t=1").status, 202);
    assert_eq!(served.samples(), ["m t 1", "n t 2", "m t 1"]);
}

#[test]
fn a_full_queue_says_later() {
    let served = Served::start("timeout: 1ms");
    served.polls.store(false, Ordering::Release);
    let body = "m t=1\n".repeat(100_000);
    let full = until("the queue is full", || {
        let answer = served.post("/streams/m", &body);
        (answer.status == 429).then_some(answer)
    });
    assert_eq!(full.retry_after.as_deref(), Some("1"));
    // InfluxDB 1's senders would give up on 429.
    assert_eq!(served.post("/write?db=x", &body).status, 503);
    served.polls.store(true, Ordering::Release);
    let taken = until("there is room again", || {
        Some(served.post("/streams/m", "m t=2")).filter(|answer| answer.status != 429)
    });
    assert!(matches!(taken.status, 202 | 503), "{taken:?}");
    let sent = until("all that was queued", || {
        let samples = served.samples();
        (samples.last().map(String::as_str) == Some("m t 2")).then_some(samples.len())
    });
    assert_eq!(sent % 100_000, 1, "a request is taken as a whole or not at all");
}

#[test]
fn what_was_queued_before_a_stop_is_handed_over() {
    let served = Served::start("timeout: 10s");
    served.polls.store(false, Ordering::Release);
    let url = format!("{}/streams/m", served.url);
    let waiting = std::thread::spawn(move || send(&agent(), "POST", &url, &[], b"m t=1"));
    let count = |served: &Served| served.request("GET", "/streams/m", &[], "").json()["samples"].as_u64();
    until("it is queued", || (count(&served) == Some(1)).then_some(()));
    let taken = served.taken.clone();
    drop(served);
    assert_eq!(waiting.join().unwrap().status, 202);
    assert_eq!(taken.lock().unwrap().0, ["m t 1"]);
}

#[test]
fn a_stopping_source_takes_nothing() {
    let source = build("");
    let mut partition = source.open(0, None, Arc::new(|| {})).unwrap();
    assert!(matches!(partition.poll().unwrap(), Poll::Idle));
    let url = partition.position().text.split_once(": ").unwrap().0.to_owned();
    assert!(!partition.stop(), "nothing waits");
    let answer = send(&agent(), "POST", &format!("{url}/streams/m"), &[], b"m t=1");
    assert_eq!(answer.status, 503);
    assert!(matches!(partition.poll().unwrap(), Poll::End));
    let address = url.strip_prefix("http://").unwrap().to_owned();
    drop(partition);
    assert!(TcpStream::connect(address).is_err(), "the port is free again");
}

#[test]
fn a_port_that_is_taken_is_an_error() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let yaml = format!("listen: {}", taken.local_addr().unwrap());
    let source = (source::KIND.build)(&Section::from_yaml("plc", &yaml)).unwrap_or_else(|_| panic!());
    let error = source.open(0, None, Arc::new(|| {})).err().unwrap();
    assert!(format!("{error:#}").contains("(`listen`)"), "{error:#}");
}

/// The source behind a real journal.
fn journaled(folder: &std::path::Path) -> Served {
    let settings = Settings {
        folder: folder.to_owned(),
        quota_bytes: 1 << 30,
        full: Full::Block,
        sync_every: Duration::from_millis(1),
        segment_bytes: 4096,
        fence: Arc::new(|| Ok(())),
        whole: false,
    };
    let source: Arc<dyn Source> = build("").into();
    let opened = source.clone();
    let inner = Box::new(move |wake| opened.open(0, None, wake));
    let partition = journal::open(settings, None, inner, Arc::new(|| {}), Watch::default()).unwrap();
    until("the server listens", || {
        partition.position().text.contains("://").then_some(())
    });
    Served::over(Box::new(Shared(source)), Box::new(Behind(partition)))
}

struct Shared(Arc<dyn Source>);

impl Source for Shared {
    fn partitions(&self) -> anyhow::Result<Vec<String>> {
        self.0.partitions()
    }
    fn open(
        &self,
        partition: usize,
        from: Option<&Value>,
        wake: taktline_engine::Wake,
    ) -> anyhow::Result<Box<dyn Partition>> {
        self.0.open(partition, from, wake)
    }
    fn decoder(&self) -> Box<dyn taktline_engine::Decoder> {
        self.0.decoder()
    }
    fn bounded(&self) -> bool {
        false
    }
    fn replayable(&self) -> bool {
        false
    }
}

/// A journal's partition; what it gives first may be of an earlier run.
struct Behind(journal::JournalPartition);

impl Partition for Behind {
    fn poll(&mut self) -> anyhow::Result<Poll> {
        self.0.poll()
    }
    fn stop(&mut self) -> bool {
        self.0.stop()
    }
    fn position(&self) -> taktline_engine::Position {
        self.0.position()
    }
}

#[test]
fn a_key_is_known_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let key = |n: usize| format!("key-{n}");
    let push = |served: &Served, n: usize| {
        served.request(
            "POST",
            "/streams/m",
            &[("idempotency-key", &key(n))],
            format!("m t={n}\nm t=x"),
        )
    };
    let mut before = Vec::new();
    {
        let served = journaled(folder.path());
        for n in 0..50 {
            let answer = push(&served, n);
            assert_eq!(answer.status, 202, "{answer:?}");
            before.push(answer.json());
        }
        until("all", || (served.samples().len() == 50).then_some(()));
    }
    let served = journaled(folder.path());
    for (n, before) in before.iter().enumerate() {
        let answer = push(&served, n);
        assert_eq!((answer.status, &answer.json()), (202, before));
    }
    assert_eq!(push(&served, 50).status, 202);
    until("the last", || {
        (served.samples().last().map(String::as_str) == Some("m t 50")).then_some(())
    });
    assert_eq!(served.samples().len(), 51, "what came again was not added");
}

#[test]
fn https() {
    let folder = tempfile::tempdir().unwrap();
    let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&certificate, certified.cert.pem()).unwrap();
    std::fs::write(&key, certified.signing_key.serialize_pem()).unwrap();
    let served = Served::start(&format!(
        "tls: {{certificate: {}, key: {}}}",
        certificate.display(),
        key.display()
    ));
    assert!(served.url.starts_with("https://"));
    let root = ureq::tls::Certificate::from_pem(certified.cert.pem().as_bytes()).unwrap();
    let trusting = ureq::tls::TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(ureq::tls::RootCerts::new_with_certs(&[root]));
    let agent = ureq::Agent::config_builder()
        .tls_config(trusting.build())
        .build()
        .new_agent();
    // Somebody who never shakes hands holds up nobody.
    let silent = TcpStream::connect(served.url.strip_prefix("https://").unwrap()).unwrap();
    let answer = send(&agent, "POST", &format!("{}/streams/m", served.url), &[], b"m t=1");
    assert_eq!(answer.status, 202);
    drop(silent);
    let wrong = build(&format!(
        "tls: {{certificate: {}, key: {}}}",
        key.display(),
        key.display()
    ));
    let error = wrong.open(0, None, Arc::new(|| {})).err().unwrap();
    assert!(format!("{error:#}").contains("tls.certificate"), "{error:#}");
}

/// Who sends a byte now and then, or nothing, is shut out; the others are served meanwhile.
#[test]
fn a_sender_that_takes_too_long_is_shut_out() {
    let served = Served::start("read_timeout: 300ms");
    let address = served.url.strip_prefix("http://").unwrap().to_owned();
    let ended = |mut stream: TcpStream, what: &str| {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .unwrap_or_else(|e| panic!("{what}: {e}"));
        answer
    };
    let connect = || TcpStream::connect(&address).unwrap();
    let silent = connect();
    let mut half = connect();
    half.write_all(b"POST /streams/m HTTP/1.1\r\nhost: x\r\n").unwrap();
    let mut drop_by_drop = connect();
    let dripping = std::thread::spawn(move || {
        let started = Instant::now();
        drop_by_drop.write_all(b"POST /streams/m HTTP/1.1\r\nx: ").unwrap();
        while drop_by_drop.write_all(b"a").is_ok() {
            assert!(started.elapsed() < PATIENCE, "the server listens for ever");
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let mut half_body = connect();
    half_body
        .write_all(b"POST /streams/m HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nm t=1")
        .unwrap();
    assert_eq!(served.post("/streams/m", "m t=2").status, 202);
    assert_eq!(ended(silent, "a connection that rests"), "");
    ended(half, "half a head");
    dripping.join().unwrap();
    let answer = ended(half_body, "half a body");
    assert!(
        answer.starts_with("HTTP/1.1 408") && answer.contains("`read_timeout`"),
        "{answer}"
    );
    assert_eq!(served.samples(), ["m t 2"]);
}

#[test]
fn decode_says_how_bodies_are_read_and_what_becomes_of_signals() {
    let served = Served::start(
        "decode: {format: csv, columns: [ts, machine, oil, water], time: /ts, unit: s, machine: /machine, \
         only: [oil], signals: {oil: {rename: oil_temperature, factor: 0.1}}}",
    );
    let now = now_ms() / 1000;
    let answer = served.request(
        "POST",
        "/streams/hall",
        &[("content-type", "text/csv"), ("idempotency-key", "k")],
        format!("{now},press-1,215,7\n{now},press-2\nsoon,press-3,1,1\n{now},press-4,220,8\n"),
    );
    assert_eq!(answer.status, 202, "{answer:?}");
    let told = answer.json();
    let counts = [&told["accepted"], &told["refused"], &told["left_out"]];
    assert_eq!(counts, [&json!(2), &json!(2), &json!(2)], "{told}");
    let indices = [&told["reasons"][0]["index"], &told["reasons"][1]["index"]];
    assert_eq!(indices, [&json!(1), &json!(2)]);
    assert_eq!(
        served.samples(),
        ["press-1 oil_temperature 21.5", "press-4 oil_temperature 22"]
    );
    assert_eq!(served.letters().len(), 2);
    // Rows that are left out are no reason to send them again.
    let own = Served::start("decode: {only: [t]}");
    let answer = own.post("/streams/m", "m p=1");
    assert_eq!((answer.status, &answer.json()["left_out"]), (202, &json!(1)));
    assert_eq!(own.post("/streams/m", "m t=1,p=1").json()["accepted"], 1);
    assert_eq!(own.samples(), ["m t 1"]);
    // InfluxDB's senders are told that all is well.
    assert_eq!(own.post("/write?db=x", "m p=1").status, 204);
}

/// Garbage on the socket, half requests and connections that end in the middle cost nothing but themselves.
#[test]
fn broken_requests() {
    let served = Served::start("");
    let address = served.url.strip_prefix("http://").unwrap().to_owned();
    for garbage in [
        &b"\x16\x03\x01\x00\x00"[..],
        b"POST /streams/m HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nm t=1",
        b"POST /streams/m HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"POST /streams/%ff%fe HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nm t=1",
    ] {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.write_all(garbage).unwrap();
        stream.shutdown(std::net::Shutdown::Both).unwrap();
    }
    assert_eq!(served.post("/streams/m", "m t=1").status, 202);
    assert_eq!(served.samples(), ["m t 1"]);
}
