//! The process's heap: what a start or a commit has used for a moment goes back to the system.
//!
//! Owns the allocator's settings. A configuration of 10,000 rules passes through three times the memory that stays:
//! document, syntax tree, entries of tables. glibc keeps what was freed for the next time, below whatever is still in use
//! (`malloc_trim(3)`), and after the first large block that is freed it takes ever larger ones from the same heap
//! (`M_MMAP_THRESHOLD`, `mallopt(3)`). A daemon that commits once a day has no next time worth waiting for. Does nothing with
//! another C library.

/// Blocks of this size or more have pages of their own, which go when they are freed: glibc's own first value, which is no
/// longer moved once it is set.
#[cfg(target_env = "gnu")]
const LARGE_BYTES: libc::c_int = 128 << 10;
/// Heaps that threads share. Each keeps what it is given; what runs beside each other here allocates little.
#[cfg(target_env = "gnu")]
const HEAPS: libc::c_int = 2;

/// Sets the allocator up. To be called before there are threads.
pub fn configure() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [(libc::M_MMAP_THRESHOLD, LARGE_BYTES), (libc::M_ARENA_MAX, HEAPS)] {
        // SAFETY: two numbers; it takes the allocator's lock itself.
        #[expect(unsafe_code, reason = "the allocator has no other door")]
        let set = unsafe { libc::mallopt(parameter, value) };
        debug_assert_eq!(set, 1, "glibc knows the parameter");
    }
}

/// Gives back what is free: milliseconds, after what has used much for a moment.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: a number; it takes the locks of the heaps itself, one by one, and moves nothing that is in use.
    #[expect(unsafe_code, reason = "the allocator has no other door")]
    unsafe {
        libc::malloc_trim(0);
    }
}
