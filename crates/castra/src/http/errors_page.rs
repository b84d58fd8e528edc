//! docs/errors.md, written from the table of codes.

use castra_proto::ErrorCode;
use std::fmt::Write;

/// The text of docs/errors.md.
pub fn errors_markdown() -> String {
    let mut page = String::from(
        "# Errors\n\n\
         Every error leaves as `application/problem+json` (RFC 9457) with a `code` of this closed list, a `detail` that\n\
         says what happened this time, and a `hint` where there is a next step. The command line prints the last two\n\
         and ends with the exit code. In Rust the code is `castra_proto::ErrorCode`.\n\n\
         This page is generated from that enum; a test holds them together (`UPDATE=1 cargo test -p castra --lib\n\
         http::` writes it again).\n\n\
         | code | HTTP | exit | Rust | meaning |\n|---|---|---|---|---|\n",
    );
    for code in ErrorCode::ALL {
        // Into a string; cannot fail.
        let _ = writeln!(
            page,
            "| `{code}` | {} | {} | `ErrorCode::{code:?}` | {} |",
            code.status(),
            code.exit_code(),
            code.meaning()
        );
    }
    page.push_str(
        "\nThree answers have an HTTP status of their own: 405 (`invalid_request`: the route has no such method, `Allow`\n\
         lists what it has), 415 (`invalid_request`: the body's content type) and 421 (`forbidden`: the Host is not this\n\
         daemon's). 401 carries `WWW-Authenticate: Bearer`, 429 `Retry-After`.\n",
    );
    page
}
