//! README's commands do what README says: its `sh` blocks in order, in one shell, as a newcomer would type them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use castra_testkit::{World, clis};
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

const CASTRA: &str = env!("CARGO_BIN_EXE_castra");

/// The fences that README may have, and why those beside `sh` are not run.
const NOT_RUN: &[(&str, &str)] = &[
    ("sh build", "builds castra, and runs these tests"),
    ("sh terminal", "needs a person at a terminal"),
    ("sh account", "needs an account, and costs money"),
    ("text", "no commands"),
    ("rust", "run by the documentation tests of castra-supervisor"),
];

struct Block {
    /// Of its first command.
    line: usize,
    text: String,
}

/// The `sh` blocks, and the number of others.
fn blocks(page: &str) -> (Vec<Block>, usize) {
    let (mut run, mut others, mut open) = (Vec::new(), 0, None::<(String, Block)>);
    for (n, line) in page.lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(""), Some(_)) => {
                let (fence, block) = open.take().unwrap();
                match fence.as_str() {
                    "sh" => run.push(block),
                    fence => {
                        let known = NOT_RUN.iter().any(|(name, _)| *name == fence);
                        assert!(
                            known,
                            "README.md:{n}: a block `{fence}`: mark it `sh`, or say here why it is not run"
                        );
                        others += 1;
                    }
                }
            }
            (Some(fence), None) => open = Some((fence.into(), Block { line: n + 2, text: String::new() })),
            (_, Some((_, block))) => writeln!(block.text, "{line}").unwrap(),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "README.md ends within a block");
    (run, others)
}

#[test]
fn what_readme_shows_can_be_typed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let (blocks, others) = blocks(&std::fs::read_to_string(path).unwrap());
    assert!(blocks.len() >= 8 && others >= 3, "{} blocks run, {others} others", blocks.len());
    let cli = clis().remove(0);
    let world = World::new(CASTRA, &cli.path, "[[rule]]\nreply.text = 'README does not use this'");

    // A pipe's middle may fail unseen in a README; nothing else may.
    let mut script = String::from("set -eu\n");
    for block in &blocks {
        // Where it stands when it fails.
        writeln!(script, "echo '== README.md:{}' >&2\n{}", block.line, block.text).unwrap();
    }
    let bin = Path::new(CASTRA).parent().unwrap();
    let said = std::fs::File::create(world.root().join("said")).unwrap();
    let mut command = Command::new("timeout");
    // A process that a block leaves in the background must not keep this test waiting: output goes to a file.
    let status = command
        .args(["--kill-after=5", "240", "bash", "-c", &script])
        .current_dir(world.folder())
        .env_clear()
        .env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", bin.display()))
        .env("LANG", "C.UTF-8")
        .env("HOME", world.user_home())
        .env("CASTRA_HOME", world.home())
        .env("CASTRA_CLAUDE_PATH", &cli.path)
        .stdin(Stdio::null())
        .stdout(said.try_clone().unwrap())
        .stderr(said)
        .status()
        .unwrap();
    let said = std::fs::read_to_string(world.root().join("said")).unwrap();
    assert!(status.success(), "{status}\n{said}");

    // What the prose around the blocks promises.
    for promised in [
        "Hello! I am the scripted model of castra's demo.",
        "counter",
        "Write wants to run",
        "nothing said is lost.",
        "the report about doors is written",
        "wrote report.md",
        "- count to 30 slowly",
        "I will remember: the fork",
        "\"Hello! I am the scripted model",
        "Deployed, as far as a script can tell.",
    ] {
        assert!(said.contains(promised), "README's commands never say {promised:?}:\n{said}");
    }
}
