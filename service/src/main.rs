//! The `quarr` binary.

use std::process::ExitCode;

use service::cli::{parse, run};

/// Gives memory back soon: that of the system keeps what many threads have freed.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay`, whose constant the bindings leave out.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// How long freed memory stays, in milliseconds. The default of a second keeps as much again as a busy
/// server may use.
const PURGE_DELAY_MS: std::ffi::c_long = 1;

/// Has the allocator keep little of what was freed.
#[expect(unsafe_code, reason = "the bindings are C's")]
fn keep_little_memory() {
    // SAFETY: sets one number, before other threads are started.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, PURGE_DELAY_MS) };
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
