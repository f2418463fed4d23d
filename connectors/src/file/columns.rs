//! Which column is what: the settings applied to one file's header.

use taktline_engine::config::Problem;

use super::config::{Layout, Machine, Settings, TimeSource};
use super::time::Unit;

/// What the columns of one file mean. Columns are indices into the header.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Columns {
    /// Fields of a line.
    pub fields: usize,
    pub machine: MachineFrom,
    pub time: TimeFrom,
    pub shape: Shape,
}

/// Where the machine stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum MachineFrom {
    Column(usize),
    Fixed(String),
}

/// Where the time stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum TimeFrom {
    Column(usize, Unit),
    Index { start: i64, rate: f64 },
}

impl TimeFrom {
    /// Time of the row with this index, for times that are counted.
    pub fn of_index(start: i64, rate: f64, row: u64) -> i64 {
        start.saturating_add((row as f64 * 1e6 / rate).round() as i64)
    }
}

/// Long or wide.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shape {
    Long {
        signal: usize,
        value: Option<usize>,
        text: Option<usize>,
    },
    Wide(Vec<WideColumn>),
}

/// A signal of a wide file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct WideColumn {
    pub index: usize,
    /// The signal's name: the header's, without blanks around it.
    pub name: String,
    pub sort: Sort,
}

/// How a column's cells are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    Number,
    Text,
}

/// Applies the settings to a header. `sort_of` says how a column's cells look; `None` for types that can't be kept.
///
/// # Errors
/// A column is missing; the message says which and what is there.
pub(super) fn resolve(
    settings: &Settings,
    header: &[String],
    stem: &str,
    sort_of: impl Fn(usize) -> Option<Sort>,
) -> anyhow::Result<Columns> {
    let machine = match &settings.machine {
        Some(Machine::Column(name)) => MachineFrom::Column(find(header, name)?),
        Some(Machine::Constant(name)) => MachineFrom::Fixed(name.trim().to_owned()),
        Some(Machine::FileName(_)) => MachineFrom::Fixed(stem.to_owned()),
        None => match find(header, taktline_engine::table::KEY) {
            Ok(column) => MachineFrom::Column(column),
            Err(_) => MachineFrom::Fixed(stem.to_owned()),
        },
    };
    let time = match &settings.time {
        TimeSource::Column { name, unit } => TimeFrom::Column(find(header, name)?, *unit),
        TimeSource::Index { start, rate } => TimeFrom::Index {
            start: *start,
            rate: *rate,
        },
    };
    let long = match settings.layout {
        Some(layout) => layout == Layout::Long,
        None => settings.signals.is_none() && find(header, "signal").is_ok() && find(header, "value").is_ok(),
    };
    let shape = if long {
        long_shape(settings, header)?
    } else {
        wide(settings, header, &machine, &time, sort_of)?
    };
    Ok(Columns {
        fields: header.len(),
        machine,
        time,
        shape,
    })
}

fn long_shape(settings: &Settings, header: &[String]) -> anyhow::Result<Shape> {
    let signal = find(header, settings.signal.as_deref().unwrap_or("signal"))?;
    let text = settings.text.first().map(|name| find(header, name)).transpose()?;
    let value = match &settings.value {
        Some(name) => Some(find(header, name)?),
        // A file of markers only has no values.
        None if text.is_some() => find(header, "value").ok(),
        None => Some(find(header, "value")?),
    };
    Ok(Shape::Long { signal, value, text })
}

fn wide(
    settings: &Settings,
    header: &[String],
    machine: &MachineFrom,
    time: &TimeFrom,
    sort_of: impl Fn(usize) -> Option<Sort>,
) -> anyhow::Result<Shape> {
    let texts = settings
        .text
        .iter()
        .map(|name| find(header, name))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let taken = |index: usize| {
        matches!(machine, MachineFrom::Column(column) if *column == index)
            || matches!(time, TimeFrom::Column(column, _) if *column == index)
    };
    let indices = match &settings.signals {
        Some(names) => {
            let mut indices = names
                .iter()
                .map(|name| find(header, name))
                .collect::<anyhow::Result<Vec<_>>>()?;
            indices.extend(
                texts
                    .iter()
                    .filter(|index| !indices.contains(index))
                    .copied()
                    .collect::<Vec<_>>(),
            );
            indices
        }
        None => (0..header.len())
            .filter(|index| !taken(*index) && !header[*index].trim().is_empty())
            .collect(),
    };
    let mut columns: Vec<WideColumn> = Vec::with_capacity(indices.len());
    for index in indices {
        let name = header[index].trim().to_owned();
        let sort = if texts.contains(&index) {
            Some(Sort::Text)
        } else {
            sort_of(index)
        };
        let twice = columns.iter().any(|column| column.name == name);
        match sort {
            Some(sort) if !twice => columns.push(WideColumn { index, name, sort }),
            _ if settings.signals.is_some() && !twice => {
                anyhow::bail!("column `{name}` holds neither numbers nor texts")
            }
            _ => tracing::warn!(
                column = name,
                index,
                "column is not read: its name came before or its type has no samples"
            ),
        }
    }
    anyhow::ensure!(
        !columns.is_empty(),
        "no column is left for signals; the columns are {}",
        listed(header)
    );
    Ok(Shape::Wide(columns))
}

/// The column of this name: exactly, else without regard to blanks around it.
pub(super) fn find(header: &[String], name: &str) -> anyhow::Result<usize> {
    let exact = header.iter().position(|column| column == name);
    let found = exact.or_else(|| header.iter().position(|column| column.trim() == name.trim()));
    found.ok_or_else(|| {
        let known = header
            .iter()
            .map(|column| column.trim())
            .filter(|column| !column.is_empty());
        let hint = Problem::at("", "")
            .did_you_mean(name, known)
            .hint
            .unwrap_or_else(|| "there are no columns".into());
        anyhow::anyhow!("no column `{name}`; {hint}")
    })
}

fn listed(header: &[String]) -> String {
    header
        .iter()
        .map(|column| format!("`{}`", column.trim()))
        .collect::<Vec<_>>()
        .join(", ")
}
