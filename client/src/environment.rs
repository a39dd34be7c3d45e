//! The client's seam to the world: wall clock and chance. Nothing else in this crate reads
//! a wall clock or draws a random number.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quorate_types::{ClientId, Timestamp};

/// The local wall clock. A clock before 1970 reads as 0, which is merely a bad stamp.
pub(crate) fn wall_clock() -> Timestamp {
    Timestamp::ZERO.saturating_add(since_epoch())
}

/// A client id that no other client has drawn, nearly surely. Never 0, which means "none".
pub(crate) fn draw_client_id() -> ClientId {
    ClientId(draw().max(1))
}

/// A duration drawn evenly between half of `longest` and `longest`, so that clients that
/// failed together do not come back together.
pub(crate) fn jittered(longest: Duration) -> Duration {
    let half = longest / 2;
    let span_nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).max(1);
    half + Duration::from_nanos(draw() % span_nanos)
}

/// 64 bits of chance. `RandomState` is seeded by the operating system and differs in each
/// instance; the counter tells apart draws that share a seed.
fn draw() -> u64 {
    static DRAWS: AtomicU64 = AtomicU64::new(0);
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u64(DRAWS.fetch_add(1, Ordering::Relaxed));
    hasher.write_u128(since_epoch().as_nanos());
    hasher.finish()
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the client's own seam: it does not run on a node"
)]
fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_ids_differ_and_are_never_zero() {
        let drawn: std::collections::HashSet<_> = (0..1000).map(|_| draw_client_id()).collect();
        assert_eq!(drawn.len(), 1000);
        assert!(!drawn.contains(&ClientId(0)));
    }

    #[test]
    fn jitter_stays_between_half_and_whole() {
        let longest = Duration::from_millis(10);
        for _ in 0..1000 {
            let drawn = jittered(longest);
            assert!(drawn >= longest / 2, "{drawn:?}");
            assert!(drawn <= longest, "{drawn:?}");
        }
    }
}
