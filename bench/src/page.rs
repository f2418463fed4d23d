//! A result page of several sections, of which each can be measured anew without the others.

use std::path::Path;
use std::process::Command;

use anyhow::Context;

/// One section: what was measured, how, and the figures.
pub struct Section {
    /// Its heading.
    pub title: &'static str,
    /// What was done, in sentences.
    pub note: String,
    /// Names of the columns.
    pub columns: Vec<&'static str>,
    /// The figures.
    pub rows: Vec<Vec<String>>,
}

impl Section {
    fn text(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let heads: Vec<String> = self.columns.iter().map(|name| (*name).to_owned()).collect();
        let rules = vec!["---".to_owned(); heads.len()];
        let rows: String = self.rows.iter().map(|row| line(row)).collect();
        format!("{}\n\n{}{}{rows}", self.note.trim(), line(&heads), line(&rules))
    }
}

/// Prints a section and puts it into the page at `path`, in place of the one of the same title.
pub fn put(path: &Path, head: &str, section: &Section) -> anyhow::Result<()> {
    println!("## {}\n\n{}", section.title, section.text());
    let before = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).context(path.display().to_string()),
    };
    let title = format!("{}\n", section.title);
    let mut parts: Vec<String> = before.split("\n## ").skip(1).map(str::to_owned).collect();
    let text = format!("{title}\n{}", section.text());
    match parts.iter_mut().find(|part| part.starts_with(&title)) {
        Some(part) => *part = text,
        None => parts.push(text),
    }
    let mut page = format!("{}\n", head.trim());
    for part in &parts {
        page.push_str(&format!("\n## {}\n", part.trim()));
    }
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    std::fs::write(path, page).with_context(|| path.display().to_string())
}

/// The version of the binary, and the machine.
pub fn machine(taktline: &Path) -> anyhow::Result<String> {
    let version = Command::new(taktline)
        .arg("--version")
        .output()
        .with_context(|| taktline.display().to_string())?;
    let cpu = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or("unknown");
    Ok(format!(
        "{}; {} cores of {}",
        String::from_utf8_lossy(&version.stdout).trim(),
        std::thread::available_parallelism()?,
        model.trim_start_matches(['\t', ':', ' ']),
    ))
}

/// How busy the machine was before: what else ran makes figures worse.
pub fn load() -> anyhow::Result<String> {
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let minute = load.split(' ').next().unwrap_or("unknown");
    Ok(format!("Load of the machine before (1 min): {minute}."))
}

/// The middle of some figures.
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// All runs, in the order in which they ran.
pub fn runs(figures: &[f64], decimals: usize) -> String {
    let texts: Vec<String> = figures.iter().map(|figure| format!("{figure:.decimals$}")).collect();
    texts.join(" ")
}
