//! A mail server that takes every mail, and keeps it.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

/// Takes every mail until the program ends.
#[derive(Clone, Debug)]
pub struct MailServer {
    /// On loopback.
    pub port: u16,
    mails: Arc<Mutex<Vec<String>>>,
}

impl MailServer {
    /// Listens on a free port.
    ///
    /// # Errors
    /// There is none.
    pub fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let server = MailServer {
            port: listener.local_addr()?.port(),
            mails: Arc::default(),
        };
        let shared = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = shared.clone();
                // A connection ends with the run that made it, often in the middle of a mail.
                std::thread::spawn(move || _ = server.talk(&stream));
            }
        });
        Ok(server)
    }

    /// The mails that were taken so far, with their headers.
    pub fn mails(&self) -> Vec<String> {
        self.mails.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn talk(&self, mut stream: &TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream).lines();
        stream.write_all(b"220 torture\r\n")?;
        while let Some(line) = lines.next().transpose()? {
            let answer = match line.get(..4).unwrap_or_default().to_ascii_uppercase().as_str() {
                "DATA" => {
                    stream.write_all(b"354 go on\r\n")?;
                    let mut mail = String::new();
                    loop {
                        match lines.next().transpose()? {
                            Some(line) if line == "." => break,
                            Some(line) => mail.extend([line.strip_prefix('.').unwrap_or(&line), "\n"]),
                            None => return Ok(()), // cut off: not taken
                        }
                    }
                    self.mails.lock().unwrap_or_else(PoisonError::into_inner).push(mail);
                    "250 taken"
                }
                "QUIT" => {
                    stream.write_all(b"221 bye\r\n")?;
                    return Ok(());
                }
                _ => "250 yes",
            };
            stream.write_all(format!("{answer}\r\n").as_bytes())?;
        }
        Ok(())
    }
}
