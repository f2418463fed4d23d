//! The first message on a link and its answer: is this the process that is waited for, and of the same run?

use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::link::Link;

/// Goes up by one whenever the greeting or the relay's frames change.
const PROTOCOL: u32 = 1;

/// What the side that dialled says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The pipeline and its file's text.
    pub cluster: String,
    /// Of taktline.
    pub version: String,
    /// How many processes it takes part with.
    pub processes: usize,
    /// Workers in each process; timely wants the same in all.
    pub threads: usize,
    /// Its own index.
    pub process: usize,
    /// Whom it means to talk to.
    pub to: usize,
}

/// What the side that was dialled says to it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// You are in.
    Welcome {
        /// What process 0 says to all before they start; null from the others.
        facts: Value,
    },
    /// You are not.
    Refused {
        /// Why, for the log of the other.
        reason: String,
        /// Trying again is of no use.
        for_good: bool,
    },
}

/// Judges what came in against what this process (`own.process`) would say of itself. Gives the reason to refuse it.
pub fn refusal(own: &Hello, theirs: &Hello) -> Option<String> {
    let from = theirs.process;
    if theirs.version != own.version {
        return Some(format!(
            "process {from} is taktline {}, process {} is {}",
            theirs.version, own.process, own.version
        ));
    }
    if theirs.cluster != own.cluster {
        return Some(format!(
            "process {from} runs `{}`, process {} runs `{}`: give all the same pipeline file",
            theirs.cluster, own.process, own.cluster
        ));
    }
    if theirs.processes != own.processes {
        return Some(format!(
            "process {from} was told of {} processes, process {} of {}",
            theirs.processes, own.process, own.processes
        ));
    }
    if theirs.threads != own.threads {
        return Some(format!(
            "process {from} has {} workers, process {} has {}: give all the same --workers",
            theirs.threads, own.process, own.threads
        ));
    }
    if theirs.to != own.process {
        return Some(format!(
            "process {from} looks for process {}, this is process {}: give all the same hosts",
            theirs.to, own.process
        ));
    }
    if !(own.process < from && from < own.processes) {
        return Some(format!(
            "process {from} of {} never dials process {}",
            own.processes, own.process
        ));
    }
    None
}

/// The most bytes that are read of a side that has not shown who it is.
const HELLO_BYTES: usize = 64 << 10;
/// Facts may list files of a checkpoint.
const ANSWER_BYTES: usize = 64 << 20;

/// Says hello.
pub async fn say(link: &mut Link, hello: &Hello) -> io::Result<()> {
    send(link, hello).await
}

/// Hears a hello.
pub async fn hear(link: &mut Link) -> io::Result<Hello> {
    receive(link, HELLO_BYTES).await
}

/// Answers a hello.
pub async fn answer(link: &mut Link, answer: &Answer) -> io::Result<()> {
    send(link, answer).await
}

/// Waits for the answer.
pub async fn answered(link: &mut Link) -> io::Result<Answer> {
    receive(link, ANSWER_BYTES).await
}

/// Protocol, length, JSON.
async fn send(link: &mut Link, message: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    let length = u32::try_from(text.len()).map_err(io::Error::other)?;
    let mut bytes = Vec::with_capacity(12 + text.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&PROTOCOL.to_be_bytes());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&text);
    link.write_all(&bytes).await?;
    link.flush().await
}

const MAGIC: &[u8; 4] = b"takt";

async fn receive<T: DeserializeOwned>(link: &mut Link, most: usize) -> io::Result<T> {
    let mut magic = [0; 4];
    link.read_exact(&mut magic).await?;
    if &magic != MAGIC {
        return Err(io::Error::other(format!("`{}` is no greeting", magic.escape_ascii())));
    }
    let protocol = link.read_u32().await?;
    if protocol != PROTOCOL {
        return Err(io::Error::other(format!(
            "protocol {protocol}, where {PROTOCOL} is spoken"
        )));
    }
    let length = link.read_u32().await? as usize;
    if length > most {
        return Err(io::Error::other(format!(
            "a greeting of {length} bytes, where {most} are the most"
        )));
    }
    let mut text = vec![0; length];
    link.read_exact(&mut text).await?;
    serde_json::from_slice(&text).map_err(|error| io::Error::other(format!("a greeting that can't be read: {error}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn each_difference_is_refused_and_named() {
        let own = Hello {
            cluster: "press 1".into(),
            version: "0.1.0".into(),
            processes: 3,
            threads: 2,
            process: 1,
            to: 0,
        };
        let good = Hello {
            process: 2,
            to: 1,
            ..own.clone()
        };
        assert_eq!(refusal(&own, &good), None);
        for (theirs, named) in [
            (
                Hello {
                    version: "0.2.0".into(),
                    ..good.clone()
                },
                "taktline 0.2.0",
            ),
            (
                Hello {
                    cluster: "press 2".into(),
                    ..good.clone()
                },
                "`press 2`",
            ),
            (
                Hello {
                    processes: 4,
                    ..good.clone()
                },
                "4 processes",
            ),
            (
                Hello {
                    threads: 8,
                    ..good.clone()
                },
                "8 workers",
            ),
            (Hello { to: 0, ..good.clone() }, "process 0"),
            (
                Hello {
                    process: 3,
                    ..good.clone()
                },
                "process 3",
            ),
            (
                Hello {
                    process: 0,
                    ..good.clone()
                },
                "never dials",
            ),
            (
                Hello {
                    process: 1,
                    ..good.clone()
                },
                "never dials",
            ),
        ] {
            let reason = refusal(&own, &theirs).unwrap();
            assert!(reason.contains(named), "{reason}");
        }
    }
}
