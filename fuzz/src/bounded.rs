//! An allocator that refuses to hand out much memory at once: a size from a document that was never
//! checked shows as an abort, as it would not on a machine that overcommits.

use std::alloc::{GlobalAlloc, Layout, System};

/// Most bytes a decoder may ask for at once: several times what the largest bound of a document
/// permits, and little beside what an unchecked length asks for.
pub const MAX_BYTES: usize = 512 << 20;

struct Bounded;

#[global_allocator]
static ALLOCATOR: Bounded = Bounded;

fn check(bytes: usize) {
    if bytes > MAX_BYTES {
        // Whoever caught a panic would go on: `try_reserve` does so with a null pointer.
        eprintln!("an allocation of {bytes} bytes, the most is {MAX_BYTES}");
        std::process::abort();
    }
}

// SAFETY: every call is the system's own, with the same arguments; `check` allocates nothing.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        check(bytes);
        // SAFETY: as in `alloc`.
        unsafe { System.realloc(pointer, layout, bytes) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as in `alloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}
