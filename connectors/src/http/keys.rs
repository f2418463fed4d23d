//! Idempotency keys: a request that comes again is answered again, and adds nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::fault::Answer;

/// The window: the last keys, by number and by bytes.
pub(super) const KEY_LIMIT: usize = 65_536;
const BYTE_LIMIT: usize = 16 << 20;

/// A request with a key, as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Request {
    /// The stream and the sender's key.
    pub key: String,
    /// SHA-256 of the body, in hexadecimal.
    pub body: String,
    pub answer: Answer,
}

/// The requests that came last.
#[derive(Default)]
pub(super) struct Keys {
    window: Mutex<Window>,
}

#[derive(Default)]
struct Window {
    known: HashMap<String, Known>,
    /// Oldest first; may name some that were forgotten.
    order: VecDeque<(u64, String)>,
    next: u64,
    bytes: usize,
}

struct Known {
    number: u64,
    bytes: usize,
    request: Arc<Request>,
    safe: watch::Receiver<bool>,
}

/// What is known of a key.
pub(super) enum Begun {
    /// Nothing: go on with this ticket.
    New(Ticket),
    /// It came before: this is the answer, once it is safe.
    Again(Arc<Request>, watch::Receiver<bool>),
    /// It came before with another body.
    Other,
}

impl Keys {
    fn lock(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a request has come.
    pub(super) fn begin(self: &Arc<Self>, request: &Arc<Request>) -> Begun {
        let mut window = self.lock();
        match window.known.get(&request.key) {
            Some(known) if known.request.body != request.body => Begun::Other,
            Some(known) => Begun::Again(known.request.clone(), known.safe.clone()),
            None => {
                let (safe, receiver) = watch::channel(false);
                let number = window.add(request.clone(), receiver);
                Begun::New(Ticket {
                    safe,
                    key: Some((self.clone(), request.key.clone(), number)),
                })
            }
        }
    }

    /// Notes a request that an earlier run took.
    pub(super) fn recall(&self, request: Request) {
        let (_, safe) = watch::channel(true);
        let mut window = self.lock();
        window.forget(&request.key, None);
        window.add(Arc::new(request), safe);
    }
}

impl Window {
    fn add(&mut self, request: Arc<Request>, safe: watch::Receiver<bool>) -> u64 {
        let number = self.next;
        self.next += 1;
        let reasons: usize = request
            .answer
            .reasons
            .iter()
            .map(|reason| reason.reason.len() + 64)
            .sum();
        let bytes = 3 * request.key.len() + request.body.len() + reasons + 256;
        self.bytes += bytes;
        self.order.push_back((number, request.key.clone()));
        let key = request.key.clone();
        let known = Known {
            number,
            bytes,
            request,
            safe,
        };
        self.known.insert(key, known);
        while self.known.len() > KEY_LIMIT || self.bytes > BYTE_LIMIT || self.order.len() > 2 * KEY_LIMIT {
            let Some((number, key)) = self.order.pop_front() else {
                break;
            };
            self.forget(&key, Some(number));
        }
        number
    }

    fn forget(&mut self, key: &str, number: Option<u64>) {
        if let Some(known) = self.known.get(key)
            && number.is_none_or(|number| known.number == number)
        {
            self.bytes -= known.bytes;
            self.known.remove(key);
        }
    }
}

/// A request on its way to the journal. Dropping it before it is safe forgets its key, so that it can be made again.
pub(super) struct Ticket {
    safe: watch::Sender<bool>,
    key: Option<(Arc<Keys>, String, u64)>,
}

impl Ticket {
    /// For a request without a key.
    pub(super) fn new() -> Self {
        Ticket {
            safe: watch::Sender::new(false),
            key: None,
        }
    }

    /// Turns true when the rows are safe; ends without that when they are lost.
    pub(super) fn watch(&self) -> watch::Receiver<bool> {
        self.safe.subscribe()
    }

    /// The rows are safe.
    pub(super) fn settle(mut self) {
        self.key = None;
        self.safe.send_replace(true);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some((keys, key, number)) = self.key.take() {
            keys.lock().forget(&key, Some(number));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn request(key: &str, body: &str) -> Arc<Request> {
        Arc::new(Request {
            key: key.into(),
            body: body.into(),
            answer: Answer {
                accepted: 1,
                ..Answer::default()
            },
        })
    }

    fn begin(keys: &Arc<Keys>, key: &str, body: &str) -> (&'static str, Option<Ticket>) {
        match keys.begin(&request(key, body)) {
            Begun::New(ticket) => ("new", Some(ticket)),
            Begun::Again(_, safe) => (if *safe.borrow() { "again" } else { "on its way" }, None),
            Begun::Other => ("other", None),
        }
    }

    #[test]
    fn a_key_is_known_until_its_rows_are_lost() {
        let keys = Arc::new(Keys::default());
        let (is, ticket) = begin(&keys, "a", "1");
        assert_eq!(is, "new");
        assert_eq!(begin(&keys, "a", "1").0, "on its way");
        assert_eq!(begin(&keys, "a", "2").0, "other");
        drop(ticket);
        let (is, ticket) = begin(&keys, "a", "2");
        assert_eq!(is, "new");
        ticket.unwrap().settle();
        assert_eq!(begin(&keys, "a", "2").0, "again");
        assert_eq!(begin(&keys, "a", "1").0, "other");
    }

    #[test]
    fn an_earlier_run_is_recalled_and_the_window_is_bounded() {
        let keys = Arc::new(Keys::default());
        for n in 0..KEY_LIMIT + 5 {
            let again = (*request(&n.to_string(), "1")).clone();
            keys.recall(again.clone());
            keys.recall(again);
        }
        assert_eq!(begin(&keys, "65540", "1").0, "again");
        assert_eq!(begin(&keys, "0", "1").0, "new");
        assert!(keys.lock().known.len() <= KEY_LIMIT && keys.lock().bytes <= BYTE_LIMIT);
    }
}
