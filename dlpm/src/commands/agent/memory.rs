//! What the agent does to stay small for months.

/// Blocks of this size or more are given back to the kernel when they are freed.
#[cfg(target_env = "gnu")]
const LARGE_BYTES: libc::c_int = 1 << 20;

/// Fixes the border from which the allocator gives blocks back. The one of glibc raises its border to the largest block that
/// was freed, which is the kernel's type information at the start, and keeps twice as much free from then on.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a number of the allocator, which takes its own lock.
    let is_set = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES) } != 0;
    #[cfg(target_env = "gnu")]
    if !is_set {
        log::debug!("the allocator does not let its border be set");
    }
}
