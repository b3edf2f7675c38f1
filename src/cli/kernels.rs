//! Starts the program again where the linear algebra library has chosen slow kernels.

use std::env;
use std::os::unix::process::CommandExt;
use std::process::Command;

use digrap_bench::error::Result;
use digrap_bench::shift::blas;

/// Read by OpenBLAS when it is loaded, before `main`.
const CHOICE: &str = "OPENBLAS_CORETYPE";

/// Replaces this process by one with the same arguments and faster kernels, where the library does not know this
/// processor and nobody has chosen kernels. To be called before a verb does anything.
pub fn choose() -> Result<()> {
    let Some(kernels) = blas()?.faster_kernels().filter(|_| env::var_os(CHOICE).is_none()) else { return Ok(()) };
    let Ok(program) = env::current_exe() else { return Ok(()) };
    let mut arguments = env::args_os();
    let mut command = Command::new(program);
    command.arg0(arguments.next().unwrap_or_default()).args(arguments).env(CHOICE, kernels);
    // It returns only where it fails, and then the slow kernels compute the same.
    let _ = command.exec();
    Ok(())
}
