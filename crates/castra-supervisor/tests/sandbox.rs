//! The walls, attacked: rows 10-14 and 16 of the attack matrix, with the real bubblewrap of this machine.
//!
//! Every attack is shown to work without the wall that stops it, wherever that can be done safely here.

// Helpers of tests, which clippy does not know for tests.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "sandbox/bed.rs"]
mod bed;
mod common;
#[path = "sandbox/model.rs"]
mod model;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};

use bed::{Bed, Bystander, DEADLINE, SECRET, Sweep, bare, marked, text, wait_until};
use castra_supervisor::host::LocalHost;
use castra_supervisor::sandbox::{Bwrap, Paths, SandboxProbe, Sandboxing, wrap};
use common::Machine;
use serde_json::{Value, json};

/// Connects to `$1`; what an agent can do with any interpreter.
const DIAL: &str =
    "exec perl -MIO::Socket::UNIX -e 'exit(IO::Socket::UNIX->new(Peer => $ARGV[0]) ? 0 : 1)' \"$1\"";

#[test]
fn attack_10_the_daemons_and_the_shims_sockets() {
    let bed = Bed::new();
    for (path, _listener) in &bed.sockets {
        let path = text(path);
        let outside = bare(&["/bin/sh", "-c", DIAL, "sh", &path].map(str::to_owned), "/").status().unwrap();
        assert!(outside.success(), "{path} must answer outside");
        assert!(!bed.sh(DIAL, &[&path]).status.success(), "{path} answers inside");
        assert!(!bed.sh("[ -e \"$1\" ]", &[&path]).status.success(), "{path} is there inside");
    }
}

#[test]
fn attack_11_reads_other_homes_and_castras_files() {
    let bed = Bed::new();
    for path in bed.secrets() {
        assert_eq!(fs::read_to_string(&path).unwrap(), SECRET, "{path} must be readable outside");
        let output = bed.sh("LC_ALL=C cat \"$1\"", &[&path]);
        assert!(!output.status.success(), "{path}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("No such file"), "{path}: {output:?}");
    }
    // Not by another name either: nothing of it is anywhere that such things are kept.
    let grep = "grep -rIl -e \"$1\" \"$2\" /etc /home /run /var/lib 2> /dev/null || :";
    assert_eq!(bed.says(grep, &[SECRET, &text(bed.base())]), "");
}

#[test]
fn attack_11_lists_what_is_there() {
    let bed = Bed::new();
    let list = |dir: &str| bed.says("ls -A \"$1\"", &[dir]);
    assert_eq!(list(&bed.paths.castra_home), "claude\nsessions\n");
    assert_eq!(list(&bed.castra("sessions")), "own\n");
    assert_eq!(list(&bed.castra("sessions/own")), "home\nwork\n");
    assert_eq!(list(bed.paths.user_home.as_deref().unwrap()), ".local\n");
    assert_eq!(
        bed.says("ls -Ad /etc/shadow /etc/ssh /etc/sudoers /root/.* /run/* 2>/dev/null || :", &[]),
        ""
    );
}

#[test]
fn attack_11_writes_outside() {
    let bed = Bed::new();
    let user = bed.paths.user_home.clone().unwrap();
    for dir in [
        "/",
        "/usr",
        "/etc",
        "/opt",
        "/run",
        "/var",
        "/home",
        &user,
        &bed.paths.castra_home,
        &bed.castra("claude/1.2.3"),
    ] {
        let output = bed.sh("mkdir -p \"$1\" && : > \"$1/written\"", &[dir]);
        assert!(!output.status.success(), "wrote in {dir}");
    }
    for path in bed.secrets() {
        bed.sh("mkdir -p \"$(dirname \"$1\")\" && echo changed > \"$1\"", &[&path]);
        assert_eq!(fs::read_to_string(&path).unwrap(), SECRET, "{path}");
    }
    // Every mount, as the kernel tells it: writable are these and no others.
    let mounts = bed.says("cat /proc/self/mountinfo", &[]);
    let mut writable: Vec<&str> = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .filter(|fields| fields[5].split(',').any(|option| option == "rw"))
        .map(|fields| fields[4])
        .filter(|path| !path.starts_with("/dev/"))
        .collect();
    writable.sort_unstable();
    let mut want = vec!["/dev", "/proc", "/tmp", "/var/tmp", &bed.paths.work, &bed.paths.home];
    want.sort_unstable();
    assert_eq!(writable, want);
    bed.says("echo mine > \"$HOME/file\" && echo mine > file", &[]);
    assert_eq!(fs::read_to_string(format!("{}/file", bed.paths.work)).unwrap(), "mine\n");
    assert_eq!(fs::read_to_string(format!("{}/file", bed.paths.home)).unwrap(), "mine\n");
}

#[test]
fn attack_11_swaps_the_cli() {
    let bed = Bed::new();
    let claude = bed.paths.claude.clone();
    let before = fs::read(&claude).unwrap();
    assert_eq!(bed.says("exec \"$1\" --version", &[&claude]), "1.2.3 (Claude Code)\n");
    for swap in [
        "echo evil >> \"$1\"",
        "rm -f \"$1\"",
        "mv \"$1\" \"$1.old\"",
        "chmod 0777 \"$1\"",
        "mv \"${1%/*}\" \"${1%/*}.old\"",
    ] {
        assert!(!bed.sh(swap, &[&claude]).status.success(), "{swap}");
    }
    assert_eq!(fs::read(&claude).unwrap(), before);

    // Also where the HOME that holds it is open.
    let mut bed = bed;
    let user = bed.paths.user_home.clone().unwrap();
    bed.paths = Paths { home: user.clone(), claude: format!("{user}/.local/claude"), ..bed.paths };
    fs::copy(&claude, &bed.paths.claude).unwrap();
    let claude = bed.paths.claude.clone();
    assert!(!bed.sh("echo evil >> \"$1\" || rm -f \"$1\"", &[&claude]).status.success());
    assert_eq!(fs::read(&claude).unwrap(), before);
}

#[test]
fn attack_11_puts_a_link_where_a_folder_was() {
    let mut bed = Bed::new();
    let project = text(bed.base().join("project"));
    fs::create_dir(&project).unwrap();
    let user = bed.paths.user_home.clone().unwrap();
    // What an earlier run of the agent left in its folder, for castra to mount.
    symlink(format!("{user}/.ssh"), format!("{project}/sub")).unwrap();
    bed.paths.workdir = Some(project.clone());
    bed.paths.add_dirs = vec![format!("{project}/sub")];
    assert_eq!(bed.says("pwd; ls -d sub", &[]), format!("{project}\nsub\n"));
    assert!(!bed.sh("cat sub/id_ed25519", &[]).status.success());
}

#[test]
fn attack_12_reads_environments_and_arguments() {
    let bed = Bed::new();
    let mark = format!("CASTRA_BYSTANDER={}", uuid::Uuid::new_v4());
    let (name, value) = mark.split_once('=').unwrap();
    let daemon = Bystander::new(name, value);
    // From the spawn to the exec it still has this process's environment.
    wait_until("its environment is readable outside", || marked(&mark).contains(&daemon.pid()));
    let inside = bed.says(
        "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline | tr '\\0' '\\n'; echo; ls -d /proc/[0-9]*",
        &[],
    );
    assert!(inside.contains("PATH="), "{inside}");
    assert!(!inside.contains(value), "{inside}");
    let pids: Vec<i32> =
        inside.lines().filter_map(|line| line.strip_prefix("/proc/")?.parse().ok()).collect();
    assert!(!pids.is_empty() && pids.iter().all(|pid| *pid < 10), "processes of the machine: {pids:?}");
    // What root could do to the whole machine through /proc.
    for file in ["/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger"] {
        assert!(!bed.sh(": >> \"$1\"", &[file]).status.success(), "{file}");
    }
    let status = bed.says("grep -E '^(CapEff|CapPrm|NoNewPrivs)' /proc/self/status", &[]);
    let caps = if bed.bwrap.root { "000000000000000b" } else { "0000000000000000" };
    let want: String = ["CapPrm", "CapEff"].map(|set| format!("{set}:\t{caps}\n")).concat();
    assert_eq!(status, format!("{want}NoNewPrivs:\t1\n"));
}

/// Writes a line into the stdin and stdout of its parent, as a Bash tool would of claude's.
const FORGE: &str = "sh -c 'echo forged > /proc/$PPID/fd/1; echo forged > /proc/$PPID/fd/0' 2> /dev/null; read line; echo \"got $line\"";

#[test]
fn attack_13_forges_events_and_answers() {
    let bed = Bed::new();
    let through = |stdin: OwnedFd, stdout: OwnedFd| {
        let mut command = bed.command(&["/bin/sh", "-c", FORGE]);
        command.stdin(stdin).stdout(stdout).spawn().unwrap()
    };
    let (mut near_in, far_in) = UnixStream::pair().unwrap();
    let (mut near_out, far_out) = UnixStream::pair().unwrap();
    near_out.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut child = through(far_in.into(), far_out.into());
    near_in.write_all(b"true\n").unwrap();
    let mut said = String::new();
    near_out.read_to_string(&mut said).unwrap();
    child.wait().unwrap();
    assert_eq!(said, "got true\n", "socketpairs cannot be forged");

    // The same with pipes: it does work, so the attack is a real one.
    let (in_reader, mut in_writer) = std::io::pipe().unwrap();
    let (mut out_reader, out_writer) = std::io::pipe().unwrap();
    let mut child = through(in_reader.into(), out_writer.into());
    in_writer.write_all(b"true\n").unwrap();
    drop(in_writer);
    let mut said = String::new();
    out_reader.read_to_string(&mut said).unwrap();
    child.wait().unwrap();
    assert!(said.starts_with("forged\n"), "{said}");
}

#[test]
fn attack_14_truncates_the_log_and_kills_the_shim() {
    let bed = Bed::new();
    let log = bed.castra("sessions/own/runs/1/log/00000001.seg");
    let mut shim = Bystander::new("CASTRA_TEST", "shim");
    let pid = shim.pid().to_string();
    bed.sh("mkdir -p \"${1%/*}\"; echo > \"$1\"; rm -rf \"${1%/log/*}\"", &[&log]);
    assert_eq!(fs::read_to_string(&log).unwrap(), SECRET);
    let output = bed.sh("LC_ALL=C kill -KILL \"$1\"", &[&pid]);
    assert!(!output.status.success() && shim.lives(), "{output:?}");
}

#[test]
fn its_namespaces_are_its_own_but_for_the_network() {
    let bed = Bed::new();
    for (kind, own) in [("pid", true), ("ipc", true), ("mnt", true), ("net", false)] {
        let outside = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        let inside = bed.says("readlink /proc/self/ns/$1", &[kind]);
        assert_eq!(inside.trim() != text(outside), own, "{kind}");
    }
}

#[test]
fn attack_16_sockets_of_other_programs() {
    let bed = Bed::new();
    // As an ssh agent makes it.
    let agent = tempfile::Builder::new().prefix("ssh-").tempdir_in("/tmp").unwrap();
    let path = agent.path().join("agent.1");
    let _listener = UnixListener::bind(&path).unwrap();
    assert!(!bed.sh("[ -e \"$1\" ]", &[&text(&path)]).status.success());
    let found =
        bed.says("find / -xdev -maxdepth 4 -type s -not -path '/proc/*' 2> /dev/null; find /tmp /var -maxdepth 4 -type s", &[]);
    assert_eq!(found, "");
}

#[test]
fn tmp_is_its_own() {
    let bed = Bed::new();
    let outside = tempfile::NamedTempFile::new_in("/tmp").unwrap();
    let name = format!("castra-test-{}", uuid::Uuid::new_v4());
    let script = "[ ! -e \"$1\" ] && echo x > /tmp/$2 && echo x > /var/tmp/$2 && ls -A /tmp";
    // The bed's own folders lie in /tmp here; of it they are all that shows.
    let bed_name = bed.base().file_name().unwrap().to_str().unwrap().to_owned();
    let mut listed: Vec<String> =
        bed.says(script, &[&text(outside.path()), &name]).lines().map(str::to_owned).collect();
    listed.sort();
    let mut want = vec![bed_name, name.clone()];
    want.sort();
    assert_eq!(listed, want);
    assert!(!fs::exists(format!("/tmp/{name}")).unwrap() && !fs::exists(format!("/var/tmp/{name}")).unwrap());
}

#[test]
fn the_network_is_there() {
    let bed = Bed::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let dial = "exec perl -MIO::Socket::INET -e 'my $s = IO::Socket::INET->new(\"127.0.0.1:$ARGV[0]\") or exit 1; print $s \"hello\"' \"$1\"";
    bed.says(dial, &[&port]);
    let mut said = String::new();
    listener.accept().unwrap().0.read_to_string(&mut said).unwrap();
    assert_eq!(said, "hello");
}

#[test]
fn the_users_home_opened_shows_no_castra() {
    let mut bed = Bed::new();
    let user = bed.paths.user_home.clone().unwrap();
    bed.paths.home = user.clone();
    assert_eq!(bed.says("cat \"$HOME/.ssh/id_ed25519\" && echo mine > \"$HOME/file\"", &[]), SECRET);
    assert_eq!(fs::read_to_string(format!("{user}/file")).unwrap(), "mine\n");
    assert_eq!(bed.says("ls -A \"$1\"", &[&bed.paths.castra_home]), "claude\nsessions\n");
    for path in ["key", "castra.db", "sessions/other/home/.claude.json"] {
        assert!(!bed.sh("cat \"$1\"", &[&bed.castra(path)]).status.success(), "{path}");
    }
    let other = text(bed.base().join("users/v"));
    assert!(!bed.sh("[ -e \"$1\" ]", &[&other]).status.success());
    assert!(!bed.sh(": > \"$1/written\"", &[&bed.paths.castra_home]).status.success());
    bed.says("echo mine > file", &[]);
    assert_eq!(fs::read_to_string(format!("{}/file", bed.paths.work)).unwrap(), "mine\n");
}

/// Children that left the session and the process group, and ignore what can be ignored.
const TREE: &str = "trap '' TERM HUP INT; setsid sh -c 'setsid sleep 600 & setsid sleep 600' & nohup sleep 600 > /dev/null 2>&1 & echo up; wait";

fn tree(bed: &Bed, mark: &str, through: &[&str]) -> std::process::Child {
    let argv = ["/bin/sh", "-c", TREE].map(str::to_owned);
    let wrapped = wrap(&argv, &bed.bwrap, &bed.paths).unwrap();
    let argv: Vec<String> = through.iter().map(|a| (*a).to_owned()).chain(wrapped).collect();
    let (name, value) = mark.split_once('=').unwrap();
    let mut child =
        bare(&argv, "/").env(name, value).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut up = [0; 3];
    child.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
    wait_until("the tree is up", || marked(mark).len() >= 6);
    child
}

#[test]
fn killing_bwrap_empties_the_namespace() {
    let bed = Bed::new();
    let mark = format!("CASTRA_TEST_TREE={}", uuid::Uuid::new_v4());
    let _sweep = Sweep(mark.clone());
    let mut child = tree(&bed, &mark, &[]);
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("nothing of the tree is left", || marked(&mark).is_empty());
}

#[test]
fn the_death_of_its_parent_empties_the_namespace() {
    let bed = Bed::new();
    let mark = format!("CASTRA_TEST_TREE={}", uuid::Uuid::new_v4());
    // The shell stays as bwrap's parent, as a shim does.
    let _sweep = Sweep(mark.clone());
    let mut child = tree(&bed, &mark, &["/bin/sh", "-c", "\"$@\"; :", "sh"]);
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("nothing of the tree is left", || marked(&mark).is_empty());
}

#[test]
fn it_holds_in_a_user_namespace_and_for_an_ordinary_user() {
    let mut bed = Bed::new();
    if !bed.bwrap.root {
        return; // Then every other test here has shown it.
    }
    let attack = "cat \"$1\" \"$2\" 2> /dev/null; echo x > /usr/written; echo x > file && echo x > ~/file && echo x > /tmp/x && echo works";
    let secrets = bed.secrets();
    bed.bwrap = Bwrap { userns: true, ..bed.bwrap };
    assert_eq!(bed.says(attack, &[&secrets[0], &secrets[4]]), "works\n");

    bed.bwrap = Bwrap { root: false, userns: false, ..bed.bwrap };
    let owned = Command::new("chown").args(["-R", "12345:12345"]).arg(bed.base()).status().unwrap();
    assert!(owned.success());
    let argv = ["/bin/sh", "-c", attack, "sh", &secrets[0], &secrets[4]].map(str::to_owned);
    let wrapped = wrap(&argv, &bed.bwrap, &bed.paths).unwrap();
    let user = ["/usr/bin/setpriv", "--reuid=12345", "--regid=12345", "--clear-groups"].map(str::to_owned);
    let output = bare(&[&user[..], &wrapped].concat(), &bed.paths.home).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "works\n", "{output:?}");
}

#[tokio::test]
async fn a_bubblewrap_that_does_not_hold_is_none() {
    let temp = tempfile::tempdir().unwrap();
    let probe = |program: Option<String>| {
        let told = move |probe: &mut castra_proto::shim::relay::Probe| match &program {
            Some(program) => drop(probe.programs.insert("bwrap".into(), program.clone())),
            None => drop(probe.programs.remove("bwrap")),
        };
        let local = LocalHost::new(temp.path().join("castra")).unwrap();
        async move { Sandboxing::default().probe(&Machine { local, told: Box::new(told) }).await.unwrap().clone() }
    };
    let fake = |name: &str, body: &str| {
        let path = temp.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        Some(text(path))
    };
    let none = |reason: &str| SandboxProbe::None { reason: reason.into() };
    assert_eq!(probe(None).await, none("bubblewrap is not installed"));
    let gone = probe(Some("/nowhere/bwrap".into())).await;
    assert_eq!(
        gone,
        none("the probe could not be made: exec /nowhere/bwrap: No such file or directory (os error 2)")
    );
    let denied = fake("denied", "echo 'bwrap: setting up uid map: Permission denied' >&2; exit 1");
    assert_eq!(
        probe(denied).await,
        none("bubblewrap does not start here: bwrap: setting up uid map: Permission denied")
    );
    // Only runs the command, as a bwrap would that is switched off.
    let open = "while [ \"$1\" != -- ]; do shift; done; shift; cd \"${0%/*}/castra/sandbox-probe/work\"; ";
    let SandboxProbe::None { reason } = probe(fake("open", &format!("{open} exec \"$@\""))).await else {
        panic!()
    };
    for fault in
        ["writes outside its folders", "shares /tmp", "shares the process table", "reads castra's files"]
    {
        assert!(reason.contains(fault), "{reason}");
    }
    // Says that all is well, and is looked at from outside.
    let liar = fake("liar", &format!("{open} exec \"$@\" | grep -e namespace -e works"));
    let SandboxProbe::None { reason } = probe(liar).await else { panic!() };
    assert!(reason.contains("writes outside its folders, shares /tmp"), "{reason}");
    assert_eq!(fs::read_dir(temp.path().join("castra")).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn the_real_cli_says_its_version() {
    for claude in model::real_clis() {
        let mut bed = Bed::new();
        bed.paths.claude.clone_from(&claude);
        let said = bed.says("exec \"$1\" --version", &[&claude]);
        assert!(said.ends_with(" (Claude Code)\n"), "{claude}: {said}");
    }
}

#[test]
fn a_real_turn_with_a_tool() {
    for claude in model::real_clis() {
        let mut bed = Bed::new();
        bed.paths.claude.clone_from(&claude);
        // The tool tries both what it may and what it may not.
        let tool = format!("echo from-the-tool > out; cat {} || echo hidden", bed.castra("key"));
        let model = model::serve(&tool);
        let flags = "-p --input-format stream-json --output-format stream-json --verbose --allowedTools Bash";
        let argv: Vec<&str> = std::iter::once(claude.as_str()).chain(flags.split(' ')).collect();
        let config = format!("{}/.claude", bed.paths.home);
        let mut command = bed.command(&argv);
        for (name, value) in [
            ("ANTHROPIC_BASE_URL", model.as_str()),
            ("ANTHROPIC_API_KEY", "sk-ant-made-up"),
            ("CLAUDE_CONFIG_DIR", &config),
            ("DISABLE_AUTOUPDATER", "1"),
            ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
        ] {
            command.env(name, value);
        }
        let (near, far) = UnixStream::pair().unwrap();
        let mut child = command.stdin(Stdio::piped()).stdout(OwnedFd::from(far)).spawn().unwrap();
        drop(command);
        near.set_read_timeout(Some(DEADLINE)).unwrap();
        let message = json!({"type": "user", "message": {"role": "user", "content": "go"}});
        let mut stdin = child.stdin.take().unwrap();
        writeln!(stdin, "{message}").unwrap();

        let mut events = Vec::new();
        for line in BufReader::new(near).lines() {
            let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
            let last = event["type"] == "result";
            events.push(event);
            if last {
                break;
            }
        }
        drop(stdin);
        assert!(child.wait().unwrap().success());
        let result = events.last().unwrap();
        assert_eq!(
            (&result["subtype"], &result["result"]),
            (&json!("success"), &json!("done")),
            "{claude}: {result}"
        );
        let of_tool = events.iter().find(|event| event["type"] == "user").unwrap();
        let said = of_tool["message"]["content"][0]["content"].as_str().unwrap();
        assert!(said.contains("No such file") && said.ends_with("hidden"), "{said}");
        assert_eq!(fs::read_to_string(format!("{}/out", bed.paths.work)).unwrap(), "from-the-tool\n");
    }
}
