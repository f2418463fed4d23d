//! A web server that takes what a webhook sends, and keeps it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use serde_json::Value;

/// Takes every request until the program ends.
#[derive(Clone, Debug)]
pub struct Hook {
    /// On loopback.
    pub port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
}

/// A request that was answered with 200.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its `Idempotency-Key`.
    pub key: String,
    pub body: Value,
}

impl Hook {
    /// Listens on a free port.
    ///
    /// # Errors
    /// There is none.
    pub fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let hook = Hook {
            port: listener.local_addr()?.port(),
            requests: Arc::default(),
        };
        let server = hook.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = server.clone();
                // A connection ends with the run that made it, often in the middle of a request.
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(&stream);
                    while server.take(&mut reader).is_ok() {}
                });
            }
        });
        Ok(hook)
    }

    /// What was taken so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn take(&self, reader: &mut BufReader<&TcpStream>) -> anyhow::Result<()> {
        let (mut line, mut length, mut key) = (String::new(), 0, String::new());
        loop {
            line.clear();
            anyhow::ensure!(reader.read_line(&mut line)? > 0, "the connection has ended");
            let Some((name, value)) = line.split_once(':') else {
                if line.trim_end().is_empty() {
                    break;
                }
                continue;
            };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse()?,
                "idempotency-key" => key = value.trim().to_owned(),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let body = serde_json::from_slice(&body).context("a request without JSON")?;
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.push(Request { key, body });
        drop(requests);
        let mut stream = *reader.get_ref();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
        Ok(())
    }
}
