//! `taktline`: watches machines that repeat themselves.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    taktline_engine::abort_on_panic();
    taktline::cli::main()
}
