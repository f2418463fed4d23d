//! The parts of a pipeline file about what survives a crash and what it may cost: `checkpoint`, `journal`, `keys`, `memory`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::config::{Interval, Problem, Section, Size};
use crate::journal::{self, Full};

/// How often the state is kept.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckpointConfig {
    /// Time between two checkpoints. Sinks show rows at checkpoints, so history is at most this old.
    #[serde(default = "default_every")]
    every: Interval,
}

fn default_every() -> Interval {
    Interval::from_micros(5_000_000)
}

/// How sources that can't give anything twice (MQTT, HTTP, the simulator) are made so.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct JournalConfig {
    /// Most that the journal of a source may take on disk.
    #[serde(default = "default_quota")]
    quota: Size,
    /// What gives way when the quota is reached.
    #[serde(default)]
    full: WhenFull,
    /// With `full: sample`: of so many batches one is kept.
    #[serde(default = "default_keep_one_in")]
    #[schemars(range(min = 2, max = 1_000_000))]
    keep_one_in: u32,
    /// How long messages are gathered before they are made durable, and then acknowledged, together.
    #[serde(default = "default_sync_every")]
    sync_every: Interval,
}

/// What gives way when a journal has reached its quota.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum WhenFull {
    /// The source waits: messages stay with the broker.
    #[default]
    Block,
    /// The oldest that nobody has read.
    DropOldest,
    /// What comes.
    DropNewest,
    /// Most of what comes; see `keep_one_in`.
    Sample,
}

fn default_quota() -> Size {
    Size::from_bytes(1 << 30)
}

fn default_keep_one_in() -> u32 {
    10
}

fn default_sync_every() -> Interval {
    Interval::from_micros(10_000)
}

/// How long keys are remembered.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct KeysConfig {
    /// A machine that a live source has not heard of for so long ends as at the end of the input, and is forgotten with all
    /// that was learned about it. Never, if not given.
    forget_after: Option<Interval>,
}

/// How much memory the run may take.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MemoryConfig {
    /// Resident memory of each process. Near it sources wait for what is on its way; when what the steps remember alone is more, the
    /// run takes a last checkpoint and ends with an error. No limit, if not given.
    limit: Option<Size>,
}

/// The settings of all four.
pub(super) struct Durability {
    pub checkpoint_every: Duration,
    pub journal: journal::Settings,
    pub forget_after: Option<Duration>,
    pub memory_limit_bytes: Option<u64>,
}

/// The sections of the file, where it has them.
#[derive(Default)]
pub(super) struct Sections {
    pub checkpoint: Option<Section>,
    pub journal: Option<Section>,
    pub keys: Option<Section>,
    pub memory: Option<Section>,
}

/// A part of the file and what is wrong with it.
type Part = Result<Durability, Vec<(&'static str, Problem)>>;

impl Durability {
    pub fn of(sections: &Sections) -> Part {
        let mut problems = Vec::new();
        let checkpoint: CheckpointConfig = parse(sections.checkpoint.as_ref(), "checkpoint", &mut problems);
        let journal: JournalConfig = parse(sections.journal.as_ref(), "journal", &mut problems);
        let keys: KeysConfig = parse(sections.keys.as_ref(), "keys", &mut problems);
        let memory: MemoryConfig = parse(sections.memory.as_ref(), "memory", &mut problems);
        let mut least = |part, key: &str, given: i64, least: i64, why: &str| {
            if given < least {
                problems.push((part, Problem::at(key, why)));
            }
        };
        least(
            "checkpoint",
            "every",
            checkpoint.every.micros(),
            20_000,
            "must be at least 20ms",
        );
        least(
            "journal",
            "sync_every",
            journal.sync_every.micros(),
            1_000,
            "must be at least 1ms",
        );
        least(
            "journal",
            "quota",
            journal.quota.bytes() as i64,
            16 << 20,
            "must be at least 16MiB",
        );
        least(
            "journal",
            "keep_one_in",
            journal.keep_one_in.into(),
            2,
            "must be at least 2",
        );
        let forget_us = keys.forget_after.map_or(i64::MAX, Interval::micros);
        least("keys", "forget_after", forget_us, 1_000_000, "must be at least 1s");
        let limit = memory.limit.map_or(i64::MAX, |limit| limit.bytes() as i64);
        least("memory", "limit", limit, 64 << 20, "must be at least 64MiB");
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self::from_parts(&checkpoint, &journal, &keys, &memory))
    }

    fn from_parts(
        checkpoint: &CheckpointConfig,
        journal: &JournalConfig,
        keys: &KeysConfig,
        memory: &MemoryConfig,
    ) -> Self {
        let length = |interval: Interval| Duration::from_micros(interval.micros().unsigned_abs());
        Durability {
            checkpoint_every: length(checkpoint.every),
            forget_after: keys.forget_after.map(length),
            memory_limit_bytes: memory.limit.map(|limit| limit.bytes()),
            journal: journal::Settings {
                folder: PathBuf::new(),
                quota_bytes: journal.quota.bytes(),
                full: match journal.full {
                    WhenFull::Block => Full::Block,
                    WhenFull::DropOldest => Full::DropOldest,
                    WhenFull::DropNewest => Full::DropNewest,
                    WhenFull::Sample => Full::Sample {
                        keep_one_in: journal.keep_one_in,
                    },
                },
                sync_every: length(journal.sync_every),
                segment_bytes: 64 << 20,
                fence: Arc::new(|| Ok(())),
                whole: false,
            },
        }
    }
}

impl Default for Durability {
    fn default() -> Self {
        Self::from_parts(
            &CheckpointConfig::default(),
            &JournalConfig::default(),
            &KeysConfig::default(),
            &MemoryConfig::default(),
        )
    }
}

fn parse<T: DeserializeOwned + Default>(
    section: Option<&Section>,
    part: &'static str,
    problems: &mut Vec<(&'static str, Problem)>,
) -> T {
    let parsed = section.map_or_else(|| Ok(T::default()), Section::parse);
    parsed.unwrap_or_else(|found| {
        problems.extend(found.into_iter().map(|problem| (part, problem)));
        T::default()
    })
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        CheckpointConfig { every: default_every() }
    }
}

impl Default for JournalConfig {
    fn default() -> Self {
        JournalConfig {
            quota: default_quota(),
            full: WhenFull::default(),
            keep_one_in: default_keep_one_in(),
            sync_every: default_sync_every(),
        }
    }
}
