//! The allocator: jemalloc takes fewer cycles than the system's, and gives back what is free.

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// What was freed goes back to the system after a second, by a thread of jemalloc's: a box that was busy once is small
/// again when it is idle.
#[unsafe(export_name = "_rjem_malloc_conf")]
static OPTIONS: &[u8] = b"background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0\0";
