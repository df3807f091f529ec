//! `dlpm-burn MS`: uses so much CPU time, and then sleeps until it is killed.
//!
//! What tenants of the node of `cargo xtask node` do, so that their CPU time stands still when it is compared.
#![expect(clippy::unwrap_used, reason = "a load that cannot work fails its test by dying")]

use std::{hint, thread, time::Duration};

use rustix::time::{ClockId, clock_gettime};

fn main() {
    let wanted_ms: i64 = std::env::args().nth(1).unwrap().parse().unwrap();
    let used_ms = || {
        let used = clock_gettime(ClockId::ProcessCPUTime);
        used.tv_sec * 1000 + used.tv_nsec / 1_000_000
    };
    // What this process used before it became this program counts for the cgroup in which that was: `systemd-run --scope`
    // makes the scope, and only then becomes its command.
    let before_ms = used_ms();
    while used_ms() - before_ms < wanted_ms {
        for _ in 0..10_000 {
            hint::spin_loop();
        }
    }
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}
