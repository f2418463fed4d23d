//! A Mosquitto on a free port, for one measurement.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::running::free_port;

/// Ends with this value.
pub struct Broker {
    port: u16,
    child: Child,
}

impl Broker {
    /// Starts one that queues without limit, and gives a subscriber as much as that allows.
    ///
    /// # Errors
    /// It isn't installed, or doesn't listen.
    pub fn start(work: &Path) -> anyhow::Result<Self> {
        let port = free_port()?;
        let config = work.join("mosquitto.conf");
        std::fs::write(
            &config,
            format!(
                "listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nset_tcp_nodelay true\n\
                 max_inflight_messages 20000\nmax_queued_messages 0\n"
            ),
        )?;
        // Debian's place for it is not on everybody's PATH.
        let debian = Path::new("/usr/sbin/mosquitto");
        let program = if debian.exists() {
            debian
        } else {
            Path::new("mosquitto")
        };
        let child = Command::new(program)
            .arg("-c")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("mosquitto is missing: apt-get install mosquitto")?;
        let broker = Broker { port, child };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            ensure!(
                begun.elapsed() < Duration::from_secs(10),
                "mosquitto does not listen on {port}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(broker)
    }

    /// On loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// For a pipeline file.
    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}
