//! `castra-bench`: what castra costs, each figure as a ratio within one run. Refuses figures without a goal or a
//! floor beside them. Progress on stderr, the table (Markdown) on stdout.
// A tool for people: it talks to a terminal.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod flood;
mod ingest;
mod large;
mod memory;
mod proc;
mod real;
mod report;
mod rig;
mod socket;
mod terminal;
mod ttyd;
mod turn;
mod venv;
mod wire;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use report::{Row, progress, table};
use rig::Programs;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(about = "What castra costs, as ratios within one run")]
enum Command {
    /// Measures what is named, or everything.
    #[command(name = "run", alias = "all")]
    Run {
        #[arg(value_enum)]
        figures: Vec<Figure>,
    },
    /// One subject of `ingest`, in a process of its own.
    #[command(hide = true)]
    Subject { subject: ingest::Subject, fake: PathBuf, prompt: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Figure {
    /// CPU for each line, beside a floor and the Python SDK.
    Ingest,
    /// The whole path under floods; a hundred viewers.
    Path,
    /// A turn over HTTP beside the fake and two syncs; syncs by strace.
    Turn,
    /// One and 200 idle sessions; back after `kill -9` of the daemon.
    Memory,
    /// Lines of 10 and 64 MB, 1 GB in all, a viewer that stalls.
    Large,
    /// A terminal through the WebSocket beside a bare PTY; a key's echo, a viewer that stalls, silence.
    Terminal,
    /// 30 sessions of the real CLI, the first that CASTRA_TEST_CLAUDE names.
    Real,
}

impl Figure {
    fn measure(self, programs: &Programs) -> Result<Vec<Row>> {
        match self {
            Self::Ingest => ingest::run(programs),
            Self::Path => flood::run(programs),
            Self::Turn => turn::run(programs),
            Self::Memory => memory::run(programs),
            Self::Large => large::run(programs),
            Self::Terminal => terminal::run(programs),
            Self::Real => real::run(programs),
        }
    }
}

fn main() -> ExitCode {
    match Command::parse() {
        Command::Subject { subject, fake, prompt } => said(ingest::subject(subject, &fake, &prompt)),
        Command::Run { figures } => {
            let all = figures.is_empty();
            let figures = if all { Figure::value_variants().to_vec() } else { figures };
            measure(&figures)
        }
    }
}

fn said(done: Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress(&format!("castra-bench: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// One that fails leaves the others standing.
fn measure(figures: &[Figure]) -> ExitCode {
    let programs = match Programs::find() {
        Ok(programs) => programs,
        Err(error) => return said(Err(error)),
    };
    let (mut rows, mut code) = (Vec::new(), ExitCode::SUCCESS);
    for figure in figures {
        progress(&format!("== {figure:?}"));
        match figure.measure(&programs) {
            Ok(more) => rows.extend(more),
            Err(error) => code = said(Err(error.context(format!("{figure:?}")))),
        }
    }
    print!("{}", table(&rows));
    code
}
