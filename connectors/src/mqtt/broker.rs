//! A broker inside the process, on loopback and a free port, and a publisher for it. For the demo and for tests.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::thread::JoinHandle;

use anyhow::Context;
use mqtt5::broker::{BrokerConfig, BrokerShutdownHandle, MqttBroker};

use super::endpoint::{Endpoint, SignIn};
use super::sink::Outbox;

/// A broker that lives as long as this value. Keeps nothing on disk and lets anybody in, on loopback only.
pub struct EmbeddedBroker {
    url: String,
    shutdown: BrokerShutdownHandle,
    thread: Option<JoinHandle<()>>,
}

impl EmbeddedBroker {
    /// Starts a broker and returns when it accepts connections.
    ///
    /// # Errors
    /// No port is free, or no thread can be started.
    pub fn start() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (ready, started) = mpsc::channel();
        let thread = std::thread::Builder::new().name("mqtt broker".into()).spawn(move || {
            // Its log would drown ours; what matters shows at its clients.
            tracing::subscriber::with_default(tracing::subscriber::NoSubscriber::default(), || {
                runtime.block_on(serve(&ready));
            });
        })?;
        let (address, shutdown) = started.recv().context("the embedded MQTT broker ended at once")??;
        Ok(EmbeddedBroker {
            url: format!("mqtt://{address}"),
            shutdown,
            thread: Some(thread),
        })
    }

    /// Its address: `mqtt://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for EmbeddedBroker {
    fn drop(&mut self) {
        self.shutdown.shutdown();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

type Started = anyhow::Result<(SocketAddr, BrokerShutdownHandle)>;

async fn serve(ready: &mpsc::Sender<Started>) {
    let mut config = BrokerConfig::default()
        .with_bind_address(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .with_sys_topics_enabled(false)
        .with_client_channel_capacity(65_536);
    config.auth_config.allow_anonymous = true;
    config.storage_config.enable_persistence = false;
    let broker = MqttBroker::with_config(config)
        .await
        .context("starting the embedded MQTT broker");
    let mut broker = match broker {
        Ok(broker) => broker,
        Err(error) => return drop(ready.send(Err(error))),
    };
    // The listener is bound: a client that comes before `run` waits in its queue.
    let address = broker.local_addr().context("the embedded MQTT broker has no address");
    let _ = ready.send(address.map(|address| (address, broker.shutdown_handle())));
    let _ = broker.run().await;
}

/// Publishes messages, and blocks while too many are on their way.
pub struct Publisher(Outbox);

impl Publisher {
    /// Starts to connect to `mqtt://host:port`; the first [`Publisher::flush`] waits for the broker. Each message is delivered at least
    /// once (QoS 1).
    ///
    /// # Errors
    /// The address can't be read, or no thread can be started.
    pub fn connect(url: &str) -> anyhow::Result<Self> {
        Publisher::with_qos(url, 1)
    }

    /// The same with another delivery: 0 at most once, 2 exactly once.
    ///
    /// # Errors
    /// As for [`Publisher::connect`].
    pub fn with_qos(url: &str, qos: u8) -> anyhow::Result<Self> {
        let endpoint = Endpoint::new(url, SignIn::default()).map_err(|problems| {
            let messages: Vec<String> = problems.into_iter().map(|problem| problem.message).collect();
            anyhow::anyhow!(messages.join("; "))
        })?;
        Ok(Publisher(Outbox::start("publisher", &endpoint, qos, false)?))
    }

    /// Sends a message.
    ///
    /// # Errors
    /// The broker refused a message, or the topic is none.
    pub fn publish(&mut self, topic: &str, payload: &[u8]) -> anyhow::Result<()> {
        self.0.send(topic, payload)
    }

    /// Blocks until the broker has acknowledged everything.
    ///
    /// # Errors
    /// The broker refused a message.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        self.0.flush()
    }
}
