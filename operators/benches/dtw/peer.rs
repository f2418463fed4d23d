//! dtaidistance (PyPI) in a virtual environment below the target folder, asked job by job.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

pub struct Peer {
    process: Child,
    jobs: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    folder: PathBuf,
}

/// What a job took, and a number that must come out alike on both sides.
pub struct Answer {
    pub seconds: f64,
    pub sum: f64,
}

impl Peer {
    /// Installs it where it isn't yet; `Err` says why there is none.
    pub fn start(target: &Path) -> Result<Self, String> {
        let folder = target.join("peer");
        let python = folder.join("venv/bin/python");
        if !python.exists() {
            run(Command::new("python3").args(["-m", "venv"]).arg(folder.join("venv")))?;
        }
        if run(Command::new(&python).args(["-c", "import dtaidistance, numpy"])).is_err() {
            run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "dtaidistance", "numpy"]))?;
        }
        let mut process = Command::new(&python)
            .args(["-c", include_str!("peer.py")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("{}: {e}", python.display()))?;
        let (jobs, answers) = (process.stdin.take(), process.stdout.take());
        let mut answers = BufReader::new(answers.ok_or("no standard output")?);
        let mut line = String::new();
        answers.read_line(&mut line).map_err(|e| e.to_string())?;
        if line.trim() != "ready" {
            return Err("dtaidistance can't be imported".to_owned());
        }
        Ok(Peer {
            process,
            jobs,
            answers,
            folder,
        })
    }

    /// Has a job done on these series of one length.
    pub fn ask(&mut self, job: &str, series: &[Vec<f64>], window: usize, queries: usize) -> Result<Answer, String> {
        let path = self.folder.join("series.f64");
        let bytes: Vec<u8> = series.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
        std::fs::write(&path, bytes).map_err(|e| e.to_string())?;
        let jobs = self.jobs.as_mut().ok_or("no standard input")?;
        let length = series.first().map_or(0, Vec::len);
        writeln!(jobs, "{job} {} {length} {window} {queries}", path.display()).map_err(|e| e.to_string())?;
        let mut line = String::new();
        self.answers.read_line(&mut line).map_err(|e| e.to_string())?;
        let numbers: Vec<f64> = line.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        match numbers[..] {
            [seconds, sum] => Ok(Answer { seconds, sum }),
            _ => Err(format!("it answered {line:?}")),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It ends with its input.
        self.jobs = None;
        let _ = self.process.wait();
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "{command:?}: {}",
        text.lines().last().unwrap_or("it ended with an error")
    ))
}
