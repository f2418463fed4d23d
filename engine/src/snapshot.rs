//! What a key gives to a checkpoint, and gets back from it.

use anyhow::Context;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// One key's state, to be filled at a checkpoint.
///
/// State has two parts. The *head* is small and replaced each time. The *tail* only grows: what is appended is kept with
/// what earlier checkpoints appended, so a long buffer is written once and not at every checkpoint.
#[derive(Debug, Default)]
pub struct Snapshot {
    head: Vec<u8>,
    tail: Vec<u8>,
    whole: bool,
    restart: bool,
}

impl Snapshot {
    /// `whole` asks for everything, as if no checkpoint had been before.
    pub fn new(whole: bool) -> Self {
        Snapshot {
            whole,
            restart: whole,
            ..Snapshot::default()
        }
    }

    /// True when the tail must hold everything: nothing that was appended before is kept.
    pub fn whole(&self) -> bool {
        self.whole
    }

    /// Sets the head.
    ///
    /// # Errors
    /// The value can't be encoded.
    pub fn head(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        self.head = postcard::to_allocvec(value).context("state")?;
        Ok(())
    }

    /// Appends to the tail.
    ///
    /// # Errors
    /// The value can't be encoded.
    pub fn append(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        let tail = std::mem::take(&mut self.tail);
        self.tail = postcard::to_extend(value, tail).context("state")?;
        Ok(())
    }

    /// Forgets what was appended so far, here and at earlier checkpoints.
    pub fn restart(&mut self) {
        self.restart = true;
        self.tail.clear();
    }

    pub(crate) fn is_restart(&self) -> bool {
        self.restart
    }

    pub(crate) fn parts(&self) -> (&[u8], &[u8]) {
        (&self.head, &self.tail)
    }

    /// This snapshot as it would be given back after a crash; `before` is what was kept until now. For tests of operators.
    #[must_use]
    pub fn saved(self, before: Option<Saved>) -> Saved {
        let mut tail = before
            .map(|saved| saved.tail)
            .filter(|_| !self.restart)
            .unwrap_or_default();
        tail.extend_from_slice(&self.tail);
        Saved { head: self.head, tail }
    }
}

/// One key's state as a checkpoint kept it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    pub(crate) head: Vec<u8>,
    pub(crate) tail: Vec<u8>,
}

impl Saved {
    /// The newest head.
    ///
    /// # Errors
    /// It was not written by this kind of state.
    pub fn head<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        postcard::from_bytes(&self.head).context("state that can't be read")
    }

    /// All that was appended since the last restart, in order.
    ///
    /// # Errors
    /// It was not written by this kind of state.
    pub fn appended<T: DeserializeOwned>(&self) -> anyhow::Result<Vec<T>> {
        let (mut rest, mut values) = (self.tail.as_slice(), Vec::new());
        while !rest.is_empty() {
            let (value, left) = postcard::take_from_bytes(rest).context("state that can't be read")?;
            values.push(value);
            rest = left;
        }
        Ok(values)
    }
}
