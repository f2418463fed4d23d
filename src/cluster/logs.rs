//! `taktline cluster logs`: the end of each process's log, and what comes after it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use super::supervise::output;

/// Between two looks at the files.
const LOOK: Duration = Duration::from_millis(200);

/// Writes the last `lines` of the logs; those of several processes with the process before each line. With `follow`, goes on until
/// nobody reads.
///
/// # Errors
/// No logs, or they can't be read.
pub fn show(
    folder: &Path,
    process: Option<usize>,
    lines: usize,
    follow: bool,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let processes = match process {
        Some(process) => vec![process],
        None => with_logs(folder)?,
    };
    anyhow::ensure!(!processes.is_empty(), "no logs in {}", folder.join("logs").display());
    let several = processes.len() > 1;
    let mut tails = Vec::new();
    for process in processes {
        let prefix = if several {
            format!("process {process} | ")
        } else {
            String::new()
        };
        let (tail, text) = Tail::open(output::log_file(folder, process))?;
        for line in last(&text, lines) {
            writeln!(out, "{prefix}{line}")?;
        }
        tails.push((prefix, tail));
    }
    out.flush()?;
    if !follow {
        return Ok(());
    }
    loop {
        std::thread::sleep(LOOK);
        for (prefix, tail) in &mut tails {
            for line in tail.more()? {
                writeln!(out, "{prefix}{line}")?;
            }
        }
        out.flush()?;
    }
}

/// The last lines of one file; none when there is no such file.
///
/// # Errors
/// When it can't be read.
pub fn last_lines(file: &Path, lines: usize) -> anyhow::Result<Vec<String>> {
    if !file.try_exists()? {
        return Ok(Vec::new());
    }
    let (_, text) = Tail::open(file.to_owned())?;
    Ok(last(&text, lines).map(str::to_owned).collect())
}

fn last(text: &str, lines: usize) -> impl Iterator<Item = &str> {
    text.lines().skip(text.lines().count().saturating_sub(lines))
}

fn with_logs(folder: &Path) -> anyhow::Result<Vec<usize>> {
    let logs = folder.join("logs");
    let entries = match std::fs::read_dir(&logs) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| logs.display().to_string())?,
    };
    let mut processes = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let process: Option<usize> = name
            .to_str()
            .and_then(|name| name.strip_prefix("process-")?.strip_suffix(".log")?.parse().ok());
        processes.extend(process);
    }
    processes.sort_unstable();
    Ok(processes)
}

/// Reads on in a file that may be replaced by a new one.
struct Tail {
    path: PathBuf,
    file: File,
    /// A line whose end has not come yet.
    open: Vec<u8>,
}

impl Tail {
    /// Gives the text that is there too, with the old log's before it.
    fn open(path: PathBuf) -> anyhow::Result<(Self, String)> {
        let named = || path.display().to_string();
        let mut text = match std::fs::read(output::old(&path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            text => text.with_context(named)?,
        };
        let mut file = File::open(&path).with_context(named)?;
        file.read_to_end(&mut text).with_context(named)?;
        Ok((
            Self {
                path,
                file,
                open: Vec::new(),
            },
            String::from_utf8_lossy(&text).into_owned(),
        ))
    }

    /// The lines that were ended since.
    fn more(&mut self) -> anyhow::Result<Vec<String>> {
        let named = || self.path.display().to_string();
        self.file.read_to_end(&mut self.open).with_context(named)?;
        let now = match std::fs::metadata(&self.path) {
            // Between the old file and the new one.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            now => Some(now.with_context(named)?.ino()),
        };
        if now.is_some_and(|now| self.file.metadata().is_ok_and(|own| own.ino() != now)) {
            // What was written between the read and the change of files.
            self.file.read_to_end(&mut self.open).with_context(named)?;
            self.file = File::open(&self.path).with_context(named)?;
            self.file.read_to_end(&mut self.open).with_context(named)?;
        }
        let whole = self.open.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let rest = self.open.split_off(whole);
        let text = std::mem::replace(&mut self.open, rest);
        Ok(String::from_utf8_lossy(&text).lines().map(str::to_owned).collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn shown(folder: &Path, process: Option<usize>, lines: usize) -> String {
        let mut out = Vec::new();
        show(folder, process, lines, false, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_last_lines_of_each_also_from_the_old_log() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("logs")).unwrap();
        std::fs::write(output::log_file(dir.path(), 0), "c\nd\n").unwrap();
        std::fs::write(output::old(&output::log_file(dir.path(), 0)), "a\nb\n").unwrap();
        std::fs::write(output::log_file(dir.path(), 10), "x\ny").unwrap();
        assert_eq!(shown(dir.path(), Some(0), 3), "b\nc\nd\n");
        assert_eq!(shown(dir.path(), None, 1), "process 0 | d\nprocess 10 | y\n");
    }

    #[test]
    fn no_logs_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let error = show(dir.path(), None, 1, false, &mut Vec::new())
            .unwrap_err()
            .to_string();
        assert!(error.contains("no logs"), "{error}");
        assert!(show(dir.path(), Some(3), 1, false, &mut Vec::new()).is_err());
    }

    #[test]
    fn following_goes_on_in_the_new_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("process-0.log");
        std::fs::write(&file, "a\n").unwrap();
        let (mut tail, text) = Tail::open(file.clone()).unwrap();
        assert_eq!(text, "a\n");
        let mut writer = File::options().append(true).open(&file).unwrap();
        writer.write_all(b"b\nhal").unwrap();
        assert_eq!(tail.more().unwrap(), ["b"]);
        writer.write_all(b"f\nlast\n").unwrap();
        std::fs::rename(&file, output::old(&file)).unwrap();
        assert_eq!(tail.more().unwrap(), ["half", "last"]);
        std::fs::write(&file, "new\n").unwrap();
        assert_eq!(tail.more().unwrap(), ["new"]);
        assert_eq!(tail.more().unwrap(), Vec::<String>::new());
    }
}
