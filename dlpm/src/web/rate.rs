//! How fast the core answers a network process, which may be hostile.

use std::time::{Duration, Instant};

/// Requests that are answered in one [`WINDOW`] of time: more than scrapes can be, and little work if it floods.
const REQUESTS_IN_WINDOW: u32 = 100;
const WINDOW: Duration = Duration::from_millis(200);

/// How fast requests are answered.
#[derive(Debug)]
pub(super) struct Rate {
    window: Instant,
    requests: u32,
}

impl Rate {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            window: now,
            requests: 0,
        }
    }

    /// Counts a request at `now`: how long to wait before the next one is heard.
    pub(super) fn pause(&mut self, now: Instant) -> Duration {
        let elapsed = now.saturating_duration_since(self.window);
        if elapsed >= WINDOW {
            *self = Self::new(now);
        }
        self.requests += 1;
        if self.requests < REQUESTS_IN_WINDOW {
            return Duration::ZERO;
        }
        WINDOW.saturating_sub(elapsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_requests_waits_and_scrapes_do_not() {
        let begun = Instant::now();
        let mut now = begun;
        let mut rate = Rate::new(now);
        for _ in 0..10 * REQUESTS_IN_WINDOW {
            now += rate.pause(now);
        }
        assert!(now - begun >= WINDOW * 9, "{:?}", now - begun);
        let mut now = now + WINDOW;
        for _ in 0..1_000 {
            now += Duration::from_millis(10);
            assert_eq!(rate.pause(now), Duration::ZERO);
        }
    }
}
