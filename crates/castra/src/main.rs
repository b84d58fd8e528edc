//! The one binary: hands argv to `castra::cli` and its exit code to the system.

fn main() -> std::process::ExitCode {
    castra::cli::main()
}
