//! placeholder
pub fn serve_main(_home: &std::path::Path) -> std::process::ExitCode { std::process::ExitCode::FAILURE }
