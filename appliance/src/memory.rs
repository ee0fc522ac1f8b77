//! The allocator: jemalloc takes fewer cycles than the system's, and gives back what is free.

use std::alloc::{GlobalAlloc, Layout};

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Ready = Ready;

/// What was freed goes back to the system after a second, by a thread of jemalloc's: a box that was busy once is small
/// again when it is idle.
#[unsafe(export_name = "_rjem_malloc_conf")]
static OPTIONS: &[u8] = b"background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0\0";

/// Length of the buffers that fuser's threads read requests into, each once, as long as they live.
const REQUEST_BUFFER_BYTES: usize = (16 << 20) + 4096;
/// What comes into them at most: a WRITE of the kernel's largest size, and its head.
const REQUEST_BYTES: usize = (1 << 20) + 4096;
const PAGE_BYTES: usize = 4096;

/// jemalloc, but that memory for the kernel's requests is there from the beginning. Were it made only as a request is put into
/// it, the kernel would have to make it at that moment; and of a process that is being killed it makes none, but answers
/// that request with EIO. So a mount would not outlive a `kill -9` that hits the first large write of a process.
struct Ready;

// SAFETY: all is jemalloc's doing; what is written here is within what it has just given, and zero as it was.
unsafe impl GlobalAlloc for Ready {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        unsafe { Jemalloc.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { Jemalloc.dealloc(memory, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        let memory = unsafe { Jemalloc.alloc_zeroed(layout) };
        if layout.size() == REQUEST_BUFFER_BYTES && !memory.is_null() {
            for offset in (0..REQUEST_BYTES).step_by(PAGE_BYTES) {
                // SAFETY: it is as long as that. Volatile, for it is written for what writing does.
                unsafe { memory.add(offset).write_volatile(0) };
            }
        }
        memory
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: as the caller promises.
        unsafe { Jemalloc.realloc(memory, layout, new_size) }
    }
}
