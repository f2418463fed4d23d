//! A real Kafka broker for tests: one process, KRaft, on free ports of loopback. Needs nothing of the crate, so that others can use
//! this file too. The jars come from `.ci/kafka`, Java from the system.
#![allow(
    dead_code,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    missing_docs
)] // who includes it uses a part

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long a broker may take to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// Who may sign in at [`Broker::sasl`].
pub const USER: &str = "alice";
pub const PASSWORD: &str = "alice-secret";

/// A broker. It ends with this value, and with the process that has it, however that ends.
pub struct Broker {
    dir: tempfile::TempDir,
    ports: Ports,
    running: Option<Running>,
    /// Nobody will drop this value: its folder is removed by who ends the broker.
    shared: bool,
}

#[derive(Clone, Copy)]
struct Ports {
    plain: u16,
    controller: u16,
    sasl: u16,
    tls: Option<u16>,
}

struct Running {
    shell: Child,
    /// While it is open the broker lives.
    life: Option<ChildStdin>,
    pid: String,
}

/// What a broker shows at its TLS port, and whom it trusts there: PEM files.
pub struct Tls {
    /// Certificate and private key (PKCS 8), one behind the other.
    pub own: PathBuf,
    /// Who may have signed the client's certificate; it must have one.
    pub clients: Option<PathBuf>,
}

impl Broker {
    /// A broker that takes everybody at [`Broker::address`] and [`USER`] at [`Broker::sasl`]. None where servers are to be skipped.
    pub fn start() -> Option<Self> {
        Broker::with(None, "")
    }

    /// One for a static, which is never dropped.
    fn start_shared() -> Option<Self> {
        Broker::made(None, "", true)
    }

    /// One with more settings, and a TLS port.
    pub fn with(tls: Option<&Tls>, settings: &str) -> Option<Self> {
        Broker::made(tls, settings, false)
    }

    fn made(tls: Option<&Tls>, settings: &str, shared: bool) -> Option<Self> {
        if skipped() {
            return None;
        }
        let dir = tempfile::tempdir().expect("a folder for the broker");
        let ports = Ports {
            plain: free_port(),
            controller: free_port(),
            sasl: free_port(),
            tls: tls.map(|_| free_port()),
        };
        let properties = dir.path().join("server.properties");
        fs::write(&properties, configured(dir.path(), ports, tls, settings)).expect("the broker's settings");
        let mut format = java();
        format.args([
            "kafka.tools.StorageTool",
            "format",
            "-t",
            "MkU3OEVBNTcwNTJENDM2Qg",
            "-c",
        ]);
        format.arg(&properties);
        for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
            format.args(["--add-scram", &format!("{mechanism}=[name={USER},password={PASSWORD}]")]);
        }
        let formatted = format
            .output()
            .expect("java is missing: sudo apt-get install -y default-jre-headless");
        assert!(
            formatted.status.success(),
            "the broker's storage: {}",
            String::from_utf8_lossy(&formatted.stdout)
        );
        let mut broker = Broker {
            dir,
            ports,
            running: None,
            shared,
        };
        broker.restart();
        Some(broker)
    }

    /// Where it takes everybody.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.plain)
    }

    /// Where it wants a sign-in.
    pub fn sasl(&self) -> String {
        format!("127.0.0.1:{}", self.ports.sasl)
    }

    /// Where it speaks TLS.
    pub fn tls(&self) -> String {
        format!("localhost:{}", self.ports.tls.expect("a TLS port"))
    }

    /// Ends it as `kill -9` would.
    pub fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            drop(running.life.take());
            let _ = running.shell.wait();
        }
    }

    /// Ends it in good order.
    pub fn stop(&mut self) {
        if let Some(running) = &self.running {
            let _ = Command::new("kill").args(["-TERM", &running.pid]).status();
            let start = Instant::now();
            while Path::new("/proc").join(&running.pid).exists() && start.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_millis(20)); // between two looks
            }
        }
        self.kill();
    }

    /// Starts it where it was, and returns when it listens.
    pub fn restart(&mut self) {
        assert!(self.running.is_none(), "the broker runs");
        let (log, pid_file) = (self.dir.path().join("broker.log"), self.dir.path().join("pid"));
        let output = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .expect("the broker's log");
        let _ = fs::remove_file(&pid_file);
        let mut command = Command::new("sh");
        // The pipe to this shell closes when the test's process ends, and then the broker ends.
        let script = r#"pid=$1 gone=$2; shift 2; "$@" </dev/null & echo $! >"$pid"; cat >/dev/null
            kill -9 $! 2>/dev/null; wait; [ -z "$gone" ] || rm -rf "$gone""#;
        command.args(["-c", script, "broker"]).arg(&pid_file);
        command.arg(if self.shared { self.dir.path() } else { Path::new("") });
        let java = java();
        command.arg(java.get_program()).args(java.get_args());
        command
            .arg("kafka.Kafka")
            .arg(self.dir.path().join("server.properties"));
        command
            .stdin(Stdio::piped())
            .stdout(output.try_clone().expect("the log"))
            .stderr(output);
        let mut shell = command.spawn().expect("a shell");
        let life = shell.stdin.take();
        let start = Instant::now();
        let waiting = |what: &str| {
            assert!(start.elapsed() < PATIENCE, "the broker {what}: {}", tail(&log));
            std::thread::sleep(Duration::from_millis(20)); // between two looks
        };
        let pid = loop {
            match fs::read_to_string(&pid_file) {
                Ok(pid) if pid.ends_with('\n') => break pid.trim().to_owned(),
                _ => waiting("does not start"),
            }
        };
        let alive = Path::new("/proc").join(&pid);
        self.running = Some(Running { shell, life, pid });
        let ports = [Some(self.ports.plain), Some(self.ports.sasl), self.ports.tls];
        for port in ports.into_iter().flatten() {
            while TcpStream::connect(("127.0.0.1", port)).is_err() {
                assert!(alive.exists(), "the broker has ended: {}", tail(&log));
                waiting("does not listen");
            }
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The address of a broker that all tests of a process share, each with topics of its own; that of `KAFKA_BROKERS` if it is set. None
/// where servers are to be skipped.
pub fn shared() -> Option<String> {
    static SHARED: OnceLock<Option<Broker>> = OnceLock::new();
    if let Ok(brokers) = std::env::var("KAFKA_BROKERS") {
        return Some(brokers);
    }
    SHARED.get_or_init(Broker::start_shared).as_ref().map(Broker::address)
}

fn skipped() -> bool {
    let skipped = std::env::var_os("TAKTLINE_SKIP_SERVERS").is_some_and(|value| value == "1");
    if skipped {
        eprintln!("skipped: TAKTLINE_SKIP_SERVERS=1");
    }
    skipped
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// Java with the broker's jars.
fn java() -> Command {
    static JARS: OnceLock<String> = OnceLock::new();
    let jars = JARS.get_or_init(|| {
        // The crate of who includes this file is the repository's root or beside it.
        let roots = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
        let mut scripts = roots.map(|root| root.join(".ci/kafka"));
        let script = scripts.find(|script| script.exists()).expect(".ci/kafka");
        let output = Command::new(&script).output().expect(".ci/kafka");
        assert!(
            output.status.success(),
            "{} (or set TAKTLINE_SKIP_SERVERS=1, or KAFKA_BROKERS=host:port)",
            String::from_utf8_lossy(&output.stderr)
        );
        format!("{}/*", String::from_utf8_lossy(&output.stdout).trim())
    });
    let mut command = Command::new("java");
    command.args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
    command.args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", jars]);
    command
}

fn configured(dir: &Path, ports: Ports, tls: Option<&Tls>, settings: &str) -> String {
    let Ports {
        plain,
        controller,
        sasl,
        ..
    } = ports;
    let (mut listeners, mut advertised) = (String::new(), String::new());
    let mut secured = String::new();
    if let (Some(tls), Some(port)) = (tls, ports.tls) {
        listeners = format!(",SSL://127.0.0.1:{port}");
        advertised = format!(",SSL://localhost:{port}");
        let own = tls.own.display();
        secured = format!("ssl.keystore.type=PEM\nssl.keystore.location={own}\n");
        if let Some(clients) = &tls.clients {
            let clients = clients.display();
            secured +=
                &format!("ssl.client.auth=required\nssl.truststore.type=PEM\nssl.truststore.location={clients}\n");
        }
    }
    let scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
    format!(
        "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
         listeners=PLAINTEXT://127.0.0.1:{plain},CONTROLLER://127.0.0.1:{controller},SASL_PLAINTEXT://127.0.0.1:{sasl}{listeners}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{plain},SASL_PLAINTEXT://127.0.0.1:{sasl}{advertised}\n\
         controller.listener.names=CONTROLLER\ninter.broker.listener.name=PLAINTEXT\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,SSL:SSL\n\
         sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512\n\
         listener.name.sasl_plaintext.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}=\"{PASSWORD}\";\n\
         listener.name.sasl_plaintext.scram-sha-256.sasl.jaas.config={scram}\n\
         listener.name.sasl_plaintext.scram-sha-512.sasl.jaas.config={scram}\n\
         log.dirs={}\noffsets.topic.replication.factor=1\noffsets.topic.num.partitions=1\n\
         transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\ntransaction.state.log.num.partitions=1\n\
         group.initial.rebalance.delay.ms=0\nauto.create.topics.enable=false\nnum.network.threads=2\nnum.io.threads=4\n\
         {secured}{settings}\n",
        dir.join("data").display()
    )
}

/// The end of a file, for messages.
fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
