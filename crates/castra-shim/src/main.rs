//! `castra-shim`: argv to shim, guard and relay.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let verb = args.next();
    let option = args.next();
    let value = args.next().map(PathBuf::from);
    match (verb.as_ref().and_then(|v| v.to_str()), option.as_ref().and_then(|o| o.to_str()), value) {
        (Some("run"), Some("--dir"), Some(dir)) => castra_shim::run_main(&dir),
        (Some("relay"), Some("--home"), Some(home)) => castra_shim::relay::serve_main(&home),
        (Some("--version"), None, None) => say(&format!("castra-shim {}\n", castra_shim::BUILD)),
        _ => usage(),
    }
}

fn say(text: &str) -> ExitCode {
    use std::io::Write;
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn usage() -> ExitCode {
    use std::io::Write;
    let text = "castra starts this program by itself.\n\
                usage: castra-shim run --dir DIR | relay --home DIR | --version\n";
    let _ = std::io::stderr().write_all(text.as_bytes());
    ExitCode::from(2)
}
