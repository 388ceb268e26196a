//! The `quarr` binary.

use std::process::ExitCode;

use service::cli::{parse, run};

/// Gives memory back soon: that of the system keeps what many threads have freed.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` and `mi_option_arena_purge_mult`, whose constants the bindings leave out.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
const ARENA_PURGE_MULTIPLIER: libmimalloc_sys::mi_option_t = 24;

/// How long freed memory stays, in milliseconds. The default of a second keeps as much again as a busy
/// server may use.
const PURGE_DELAY_MS: std::ffi::c_long = 1;
/// Large pieces stay this many times longer: buffers of chunks and shards are taken again at once, and
/// having the system clear their pages each time takes a sixth of the time of an import.
const LARGE_PIECES_STAY: std::ffi::c_long = 100;

/// Has the allocator keep little of what was freed.
#[expect(unsafe_code, reason = "the bindings are C's")]
fn keep_little_memory() {
    // SAFETY: sets two numbers, before other threads are started.
    unsafe {
        libmimalloc_sys::mi_option_set(PURGE_DELAY, PURGE_DELAY_MS);
        libmimalloc_sys::mi_option_set(ARENA_PURGE_MULTIPLIER, LARGE_PIECES_STAY);
    }
}

fn main() -> ExitCode {
    keep_little_memory();
    if let Some(code) = service::cli::serve_reader() {
        return code;
    }
    let cli = match parse() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start threads");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(run(cli))
}
