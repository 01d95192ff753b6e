//! A Rust allocation that the address-space limit refuses ends the child with an exit status of its own.
//!
//! Without this, the standard library aborts, and the parent could not tell lack of memory from a failed assertion.
//! C libraries are told by a null pointer as ever; the work reports theirs as
//! [`RefusalReason::Memory`](super::protocol::RefusalReason::Memory).

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, Ordering};

/// Exit status of a child that was refused memory.
pub(super) const OUT_OF_MEMORY_STATUS: i32 = 77;

static ARMED: AtomicBool = AtomicBool::new(false);

/// From now on a refused allocation ends this process. For the child only; the worker itself stays unarmed.
pub(super) fn arm() {
    ARMED.store(true, Ordering::Relaxed);
}

struct Watched;

#[global_allocator]
static ALLOCATOR: Watched = Watched;

fn checked(pointer: *mut u8) -> *mut u8 {
    if pointer.is_null() && ARMED.load(Ordering::Relaxed) {
        // SAFETY: `_exit` takes no lock, allocates nothing and does not return.
        unsafe { libc::_exit(OUT_OF_MEMORY_STATUS) }
    }
    pointer
}

// SAFETY: every call goes to the system allocator with the same arguments, and its answer is passed on unchanged.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is the system allocator's.
        checked(unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is the system allocator's.
        checked(unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's contract is the system allocator's.
        checked(unsafe { System.realloc(pointer, layout, new_size) })
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.dealloc(pointer, layout) }
    }
}
