//! How many requests a client may make.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// The most clients that are remembered. Those that have been silent are forgotten first.
const CLIENT_LIMIT: usize = 10_000;

/// A bucket for each client, filled at an even rate, emptied by requests.
pub(super) struct Rates {
    per_sec: Option<f64>,
    buckets: Mutex<HashMap<IpAddr, Bucket>>,
}

struct Bucket {
    left: f64,
    at: Instant,
}

impl Rates {
    /// None: as many as they like.
    pub(super) fn new(per_sec: Option<f64>) -> Self {
        Rates {
            per_sec,
            buckets: Mutex::default(),
        }
    }

    /// Counts a request; an error says in how many seconds the client may come again.
    pub(super) fn take(&self, client: IpAddr, now: Instant) -> Result<(), u64> {
        let Some(per_sec) = self.per_sec else { return Ok(()) };
        let room = per_sec.max(1.0);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let filled = |bucket: &Bucket| {
            let since = now.saturating_duration_since(bucket.at).as_secs_f64();
            (bucket.left + since * per_sec).min(room)
        };
        if buckets.len() >= CLIENT_LIMIT && !buckets.contains_key(&client) {
            buckets.retain(|_, bucket| filled(bucket) < room);
            if buckets.len() >= CLIENT_LIMIT {
                return Err(1);
            }
        }
        let bucket = buckets.entry(client).or_insert(Bucket { left: room, at: now });
        let left = filled(bucket);
        (bucket.left, bucket.at) = (left, now);
        if left < 1.0 {
            return Err(((1.0 - left) / per_sec).ceil() as u64);
        }
        bucket.left -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_client_has_its_own() {
        let rates = Rates::new(Some(2.0));
        let (one, other) = ([127, 0, 0, 1].into(), [127, 0, 0, 2].into());
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(rates.take(one, at(0)), Ok(()));
        assert_eq!(rates.take(one, at(0)), Ok(()));
        assert_eq!(rates.take(one, at(0)), Err(1));
        assert_eq!(rates.take(other, at(0)), Ok(()));
        assert_eq!(rates.take(one, at(500)), Ok(()));
        assert_eq!(rates.take(one, at(500)), Err(1));
        let slow = Rates::new(Some(0.1));
        assert_eq!(slow.take(one, at(0)), Ok(()));
        assert_eq!(slow.take(one, at(0)), Err(10));
        let open = Rates::new(None);
        assert!((0..10_000).all(|_| open.take(one, at(0)).is_ok()));
    }

    #[test]
    fn silent_clients_are_forgotten() {
        let rates = Rates::new(Some(1.0));
        let start = Instant::now();
        let client = |n: u32| IpAddr::from(n.to_be_bytes());
        for n in 0..CLIENT_LIMIT as u32 {
            rates.take(client(n), start).unwrap();
        }
        assert_eq!(rates.take(client(1 << 20), start), Err(1));
        assert_eq!(rates.take(client(1 << 20), start + Duration::from_secs(2)), Ok(()));
    }
}
