//! The program's allocator: mimalloc, told to keep freed memory for a while.
//!
//! Training frees the activations of a step and asks for as many in the next one. By default mimalloc gives memory back
//! to the system after a second, which then clears its pages anew for every step: a tenth of a U-Net's time.

// One call of mimalloc's C interface, which sets a number before any other thread runs.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_long};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of `mimalloc.h`; the same in its versions 2 and 3.
const PURGE_DELAY: c_int = 15;
/// For how long freed memory is kept.
const MILLISECONDS: c_long = 30_000;

unsafe extern "C" {
    fn mi_option_set(option: c_int, value: c_long);
}

/// Keeps freed memory for half a minute, unless the environment's `MIMALLOC_PURGE_DELAY` says otherwise.
pub fn keep_freed_memory() {
    if std::env::var_os("MIMALLOC_PURGE_DELAY").is_none() {
        // SAFETY: the library is linked for the allocator above; the call takes two numbers and stores one.
        unsafe { mi_option_set(PURGE_DELAY, MILLISECONDS) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C" {
        fn mi_option_get(option: c_int) -> c_long;
    }

    /// The option's number is that of the linked version: its value is the documented one until it is set.
    #[test]
    fn the_option_is_the_purge_delay() {
        // SAFETY: as above.
        let read = || unsafe { mi_option_get(PURGE_DELAY) };
        assert!([10, 1000].contains(&read()), "{}", read());
        keep_freed_memory();
        assert_eq!(read(), MILLISECONDS);
    }
}
