//! The command line of `digrap_bench`.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
