//! `castra completions`, `man` and `errors`: pages made from the code itself.

use super::Cli;
use super::failure::Failure;
use super::out::Out;
use castra_proto::ErrorCode;
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use serde_json::{Value, json};

#[derive(Args, Debug)]
pub(super) struct CompletionsArgs {
    shell: Shell,
}

pub(super) fn completions(args: &CompletionsArgs, out: &Out) -> Result<(), Failure> {
    let mut page = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "castra", &mut page);
    raw(&page, out)
}

/// The program and all its verbs, one after the other.
pub(super) fn man(out: &Out) -> Result<(), Failure> {
    let mut page = Vec::new();
    let mut command = Cli::command();
    command.build();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        clap_mangen::Man::new(verb.clone()).render(&mut page)?;
    }
    raw(&page, out)
}

/// The pages are ours: nothing in them is untrusted.
fn raw(page: &[u8], out: &Out) -> Result<(), Failure> {
    out.text(&String::from_utf8_lossy(page))
}

pub(super) fn errors(out: &Out) -> Result<(), Failure> {
    if out.json {
        let all: Vec<Value> = ErrorCode::ALL
            .iter()
            .map(|code| {
                json!({
                    "code": code, "status": code.status(), "exit": code.exit_code(), "meaning": code.meaning(),
                })
            })
            .collect();
        return out.json(&json!({ "items": all }));
    }
    let rows: Vec<Vec<String>> = ErrorCode::ALL
        .iter()
        .map(|code| {
            vec![
                code.to_string(),
                code.status().to_string(),
                code.exit_code().to_string(),
                code.meaning().to_owned(),
            ]
        })
        .collect();
    out.table(&["CODE", "HTTP", "EXIT", "MEANING"], &rows)
}
