//! What a child writes, in a file that never grows beyond a bound.

use std::fs::File;
use std::io::{self, PipeReader, Read, Write};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

/// A log of this size becomes the old one, of which there is one.
pub const LOG_BYTES: u64 = 16 << 20;

/// A line that is longer may be cut in two.
const LINE_BYTES: u64 = 64 << 10;

/// Where the logs of a cluster are.
#[must_use]
pub fn logs(folder: &Path) -> PathBuf {
    folder.join("logs")
}

/// The log of one process.
#[must_use]
pub fn log_file(folder: &Path, process: usize) -> PathBuf {
    logs(folder).join(format!("process-{process}.log"))
}

/// Where a log goes when it is full.
#[must_use]
pub fn old(file: &Path) -> PathBuf {
    file.with_extension("log.1")
}

/// Writes what comes out of `pipe` to the end of `file` until the pipe ends, on a thread of its own.
pub fn keep(mut pipe: PipeReader, file: PathBuf, most: u64) -> io::Result<JoinHandle<()>> {
    let mut log = Log::open(file, most)?;
    std::thread::Builder::new().name("log".into()).spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        let mut well = true;
        loop {
            let n = match pipe.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::warn!("{}: its process can't be heard: {error}", log.path.display());
                    break;
                }
            };
            // A full disk costs lines; a pipe that nobody reads would stop the process.
            let written = log.write(&buffer[..n]);
            if let (true, Err(error)) = (well, &written) {
                tracing::warn!("{}: lines are lost: {error}", log.path.display());
            }
            well = written.is_ok();
        }
    })
}

struct Log {
    path: PathBuf,
    file: File,
    bytes: u64,
    most: u64,
}

impl Log {
    fn open(path: PathBuf, most: u64) -> io::Result<Self> {
        let file = File::options().create(true).append(true).open(&path)?;
        let bytes = file.metadata()?.len();
        Ok(Self {
            path,
            file,
            bytes,
            most,
        })
    }

    /// Starts anew between two lines, when there is a line's end to be found.
    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        if self.bytes + (text.len() as u64) <= self.most {
            return self.append(text);
        }
        let cut = match text.iter().position(|byte| *byte == b'\n') {
            Some(at) => at + 1,
            None if self.bytes < self.most + LINE_BYTES => return self.append(text),
            None => 0,
        };
        self.append(&text[..cut])?;
        std::fs::rename(&self.path, old(&self.path))?;
        *self = Self::open(self.path.clone(), self.most)?;
        self.append(&text[cut..])
    }

    fn append(&mut self, text: &[u8]) -> io::Result<()> {
        self.file.write_all(text)?;
        self.bytes += text.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn one_old_log_is_kept_and_lines_stay_whole() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("process-0.log");
        let (reader, mut writer) = io::pipe().unwrap();
        let thread = keep(reader, file.clone(), 1000).unwrap();
        for i in 0..1000 {
            writeln!(writer, "line {i}").unwrap();
        }
        drop(writer);
        thread.join().unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        let before = std::fs::read_to_string(old(&file)).unwrap();
        let all = format!("{before}{text}");
        let lines: Vec<_> = all.lines().collect();
        let first = 1000 - lines.len();
        for (i, line) in lines.iter().enumerate() {
            assert_eq!(*line, format!("line {}", first + i));
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_second_start_goes_on_where_the_first_ended() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("process-0.log");
        for text in ["one\n", "two\n"] {
            let (reader, mut writer) = io::pipe().unwrap();
            let thread = keep(reader, file.clone(), 1000).unwrap();
            writer.write_all(text.as_bytes()).unwrap();
            drop(writer);
            thread.join().unwrap();
        }
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "one\ntwo\n");
    }
}
