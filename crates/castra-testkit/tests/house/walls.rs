//! What may be said where: clocks, files, SQL, processes, queues, panics, `unsafe`.

use crate::source::{Source, all, shipped};

/// Castra's own crates that ship; testkit and bench may do what a test or a measurement needs.
fn libraries() -> Vec<Source> {
    let mut shipped = shipped();
    let dev = ["crates/castra-bench/", "crates/castra-testkit/"];
    shipped.retain(|source| !dev.iter().any(|dev| source.path.starts_with(dev)));
    assert!(shipped.len() > 20, "only {} files were read", shipped.len());
    shipped
}

fn in_any(path: &str, places: &[&str]) -> bool {
    places.iter().any(|place| match place.strip_suffix('/') {
        Some(folder) => path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')),
        None => path == *place,
    })
}

fn none(wrong: Vec<String>, rule: &str) {
    assert!(wrong.is_empty(), "{rule}:\n  {}", wrong.join("\n  "));
}

/// Parts of a path in `std`, with those of a group: `time::{Duration,Instant}` is `time`, `Duration`, `Instant`.
fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|part| !part.is_empty())
}

/// The same input gives the same events, so that a replay after a crash changes nothing (design §3).
#[test]
fn what_is_pure_has_no_clock_and_no_io() {
    let modules = ["fs", "net", "process", "thread", "env", "os", "io"];
    let mut wrong = Vec::new();
    for source in libraries() {
        // `castra-proto` makes ids, and so has the clock of UUIDv7; nothing else.
        if !in_any(&source.path, &["crates/castra-claude/src/", "crates/castra-proto/src/"]) {
            continue;
        }
        for (at, path) in source.std_paths() {
            let outside = parts(&path).next().is_some_and(|module| modules.contains(&module));
            if outside || parts(&path).any(|part| matches!(part, "SystemTime" | "Instant")) {
                wrong.push(format!("{} names std::{path}", source.at(at)));
            }
        }
        for word in ["tokio", "SystemTime", "Instant", "rustix", "libc", "async"] {
            wrong.extend(source.words(word).map(|at| format!("{} says {word}", source.at(at))));
        }
        let is_claude = source.path.starts_with("crates/castra-claude/");
        for phrase in ["now_v7", "new_v4", "Timestamp::now"] {
            let found = source.words(phrase.rsplit("::").next().unwrap_or(phrase));
            wrong.extend(
                found
                    .filter(|_| is_claude && !phrase.contains("::"))
                    .map(|at| format!("{} says {phrase}", source.at(at))),
            );
        }
    }
    none(wrong, "pure crates name no clock, no chance and no I/O");
}

/// Bytes only: whoever parses in the shim would have to be right for two releases.
#[test]
fn the_shim_knows_bytes() {
    let mut wrong = Vec::new();
    for source in libraries() {
        if !source.path.starts_with("crates/castra-shim/src/") {
            continue;
        }
        for word in ["tokio", "TcpStream", "TcpListener", "UdpSocket"] {
            wrong.extend(source.words(word).map(|at| format!("{} says {word}", source.at(at))));
        }
        for (at, text) in &source.strings {
            for word in ["control_request", "stream_event", "session_state", "permission_"] {
                if text.contains(word) {
                    wrong.push(format!("{} knows claude's {word:?}", source.at(*at)));
                }
            }
        }
    }
    none(wrong, "castra-shim has no runtime, no network, and no idea of what claude says");
}

#[test]
fn sql_is_in_the_store_only() {
    let verbs = ["SELECT ", "INSERT ", "UPDATE ", "DELETE FROM ", "CREATE TABLE", "PRAGMA ", "WITH "];
    let (mut wrong, mut statements) = (Vec::new(), 0);
    for source in libraries() {
        let is_store = source.path.starts_with("crates/castra-store/src/");
        for (at, text) in &source.strings {
            let text = text.trim_start();
            if verbs.iter().any(|verb| text.starts_with(verb)) {
                statements += 1;
                if !is_store {
                    wrong.push(format!("{}: {:?}", source.at(*at), text.lines().next().unwrap_or("")));
                }
            }
        }
        let words =
            ["sqlx", "rusqlite"].into_iter().flat_map(|word| source.words(word).map(move |at| (word, at)));
        wrong.extend(words.filter(|_| !is_store).map(|(word, at)| format!("{} says {word}", source.at(at))));
    }
    assert!(statements > 10, "only {statements} statements were found: does this test still see them?");
    none(wrong, "SQL is written in castra-store alone");
}

/// Where processes are started, their environment, their end and their secrets can be looked after.
#[test]
fn processes_are_started_in_three_places() {
    let places = [
        "crates/castra-shim/src/",
        "crates/castra-supervisor/src/host/",
        "crates/castra/src/exec.rs",
        "crates/castra/src/exec/",
    ];
    let (mut wrong, mut found) = (Vec::new(), 0);
    for source in libraries() {
        let mut sites = Vec::new();
        for phrase in ["process::Command", "tokio::process", "Command::new", "Command::from"] {
            sites.extend(source.phrases(phrase));
        }
        for word in ["execve", "execvp", "posix_spawn", "fork", "CommandExt"] {
            // `fork` is a verb of castra's; a system call is called.
            sites.extend(
                source.words(word).filter(|at| word != "fork" || source.code[..*at].ends_with("libc::")),
            );
        }
        found += sites.len();
        if !in_any(&source.path, &places) {
            wrong.extend(sites.into_iter().map(|at| source.at(at)));
        }
    }
    assert!(found > 3, "only {found} places were found: does this test still see them?");
    none(wrong, "processes are started in castra-shim, supervisor/host and castra's exec module");
}

/// A queue without a bound is memory that somebody else decides about.
#[test]
fn every_queue_has_a_bound() {
    let mut wrong = Vec::new();
    for source in all() {
        if !source.path.contains("/src/") {
            continue;
        }
        for word in
            ["unbounded", "unbounded_channel", "UnboundedSender", "UnboundedReceiver", "unbounded_send"]
        {
            wrong.extend(source.words(word).map(|at| format!("{}: {word}", source.at(at))));
        }
        for phrase in ["mpsc::channel()", "mpsc::channel::"] {
            wrong.extend(source.phrases(phrase).into_iter().map(|at| format!("{}: {phrase}", source.at(at))));
        }
        for (at, path) in source.std_paths() {
            let mut parts = parts(&path).skip_while(|part| *part != "mpsc");
            if parts.next().is_some() && parts.any(|part| part == "channel" || part == "Sender") {
                wrong.push(format!("{}: std::{path}", source.at(at)));
            }
        }
    }
    none(wrong, "no unbounded channel");
}

/// Broadcasts lose what a slow reader has not read. Heads are numbers; the store is what is read.
#[test]
fn no_broadcast_carries_the_truth() {
    let mut wrong = Vec::new();
    for source in libraries() {
        for phrase in ["sync::broadcast", "broadcast::channel"] {
            wrong.extend(source.phrases(phrase).into_iter().map(|at| source.at(at)));
        }
    }
    none(wrong, "no broadcast channel");
}

/// Clippy denies the same; an `#[allow]` would get by it, and this not.
#[test]
fn libraries_do_not_panic_or_print() {
    // A parser's own `expect` is called with what it expects, and no string.
    let mut wrong = Vec::new();
    for source in libraries() {
        for phrase in [
            ".unwrap()",
            ".unwrap_err()",
            "println!",
            "eprintln!",
            "print!",
            "eprint!",
            "todo!",
            "dbg!",
            "unimplemented!",
        ] {
            wrong.extend(source.phrases(phrase).into_iter().map(|at| format!("{}: {phrase}", source.at(at))));
        }
        for at in source.phrases(".expect(") {
            let argument = at + source.text[at..].find('(').map_or(0, |open| open + 1);
            let argument =
                argument + (source.text[argument..].len() - source.text[argument..].trim_start().len());
            if source.strings.iter().any(|(string, _)| *string == argument) {
                wrong.push(format!("{}: .expect(…)", source.at(at)));
            }
        }
        for lint in
            ["clippy::unwrap_used", "clippy::expect_used", "clippy::print_stdout", "clippy::print_stderr"]
        {
            wrong.extend(source.phrases(lint).into_iter().map(|at| format!("{}: {lint}", source.at(at))));
        }
    }
    none(wrong, "no unwrap, expect, print or todo outside tests");
}

#[test]
fn unsafe_is_in_one_module() {
    const SYS: &str = "crates/castra-shim/src/sys.rs";
    let all = all();
    let mut wrong = Vec::new();
    for source in all.iter().filter(|source| source.path != SYS) {
        wrong.extend(source.words("unsafe").map(|at| source.at(at)));
        // The one module is let through by whoever declares it, for that module alone.
        for at in source.phrases("allow(unsafe_code)") {
            let behind = source.code[at..].split_once(']').map_or("", |(_, behind)| behind);
            if !(source.path == "crates/castra-shim/src/lib.rs"
                && behind.trim_start().starts_with("mod sys;"))
            {
                wrong.push(format!("{}: allow(unsafe_code)", source.at(at)));
            }
        }
    }
    none(wrong, "`unsafe` is in castra-shim's sys.rs alone");
    assert!(all.iter().any(|source| source.path == SYS), "{SYS} is gone");
}
