//! Files of a session over the API: inside `work/`, following no links, regular ones only; each refusal with its
//! code, and downloads that no browser runs.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use castra_proto::ErrorCode;
use castra_testkit::{Daemon, Reply, Session, World, fake_claude};
use hyper::Method;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

const CASTRA: &str = env!("CARGO_BIN_EXE_castra");
const SCRIPT: &str = "[[rule]]\nreply.text = \"never asked\"\n";
const SECRET: &str = "not the agent's to read";

fn world() -> World {
    World::new(CASTRA, fake_claude(), SCRIPT)
}

fn idle(daemon: &Daemon<'_>, fields: Value) -> (Session, PathBuf) {
    let session = daemon.session(fields);
    let work = PathBuf::from(session.wait_idle().cwd.expect("a folder"));
    (session, work)
}

/// `path` as it stands in a URL.
fn encoded(path: &str) -> String {
    path.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'/' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

fn read(session: &Session, path: &str) -> Reply {
    session.http.get(&session.path(&format!("/files?path={}", encoded(path))))
}

fn write(session: &Session, path: &str, text: &str) -> Reply {
    let headers = [("content-type", "application/octet-stream")];
    let path = session.path(&format!("/files?path={}", encoded(path)));
    session.http.call(Method::POST, &path, &headers, text.to_owned().into())
}

/// Everything that an agent could leave in its folder to lead others astray.
fn litter(work: &Path, outside: &Path) {
    fs::write(outside.join("secret"), SECRET).unwrap();
    fs::create_dir_all(work.join("folder/inner")).unwrap();
    fs::write(work.join("file"), "mine").unwrap();
    symlink(outside.join("secret"), work.join("link")).unwrap();
    symlink("../../../../../../../etc/passwd", work.join("climbing-link")).unwrap();
    symlink(outside, work.join("folder-link")).unwrap();
    symlink("/proc/self", work.join("proc-link")).unwrap();
    symlink(outside.join("to-be-made"), work.join("dangling-link")).unwrap();
    mknodat(CWD, work.join("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    drop(std::os::unix::net::UnixListener::bind(work.join("socket")).unwrap());
    // Only root can make one.
    if rustix::process::geteuid().is_root() {
        mknodat(CWD, work.join("device"), FileType::CharacterDevice, Mode::RWXU, rustix::fs::makedev(1, 3))
            .unwrap();
    }
}

fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn refuses_to_lead_outside(session: &Session, work: &Path, outside: &Path) {
    let bad = ErrorCode::InvalidRequest;
    let reading: &[(&str, ErrorCode)] = &[
        ("../secret", bad),
        ("folder/../../secret", bad),
        ("..", bad),
        ("/etc/passwd", bad),
        ("//etc/passwd", bad),
        ("./file", bad),
        ("folder//inner", bad),
        ("file\0", bad),
        ("link", bad),
        ("climbing-link", bad),
        ("folder-link/secret", bad),
        ("folder-link/", bad),
        ("proc-link/environ", bad),
        ("dangling-link", bad),
        ("fifo", bad),
        ("device", bad),
        ("socket", bad),
        ("file/", bad),
        ("file/x", bad),
        ("nothing", ErrorCode::NotFound),
        ("nothing/at/all", ErrorCode::NotFound),
    ];
    for (path, code) in reading {
        if *path == "device" && !is_there(&work.join("device")) {
            continue;
        }
        let reply = read(session, path);
        assert!(!reply.text().contains(SECRET), "{path:?}");
        let problem = reply.problem();
        assert_eq!(problem.code, *code, "reading {path:?}: {problem:?}");
    }
    let writing = [
        "../written",
        "folder/../../written",
        "/tmp/written",
        "a\0b",
        "",
        ".",
        "..",
        "folder-link/written",
        "proc-link/x",
        "folder",
        "folder/",
        "file/x",
    ];
    for path in writing {
        let problem = write(session, path, "x").problem();
        assert_eq!(problem.code, bad, "writing {path:?}: {problem:?}");
    }
    // A link, a FIFO or a device is replaced by a file, and what it led to is not touched.
    for path in ["link", "dangling-link", "climbing-link", "fifo", "device"] {
        assert_eq!(write(session, path, "new").status, 201, "{path}");
        assert_eq!(read(session, path).text(), "new", "{path}");
        assert!(work.join(path).symlink_metadata().unwrap().is_file(), "{path}");
    }
    assert_eq!(fs::read_to_string(outside.join("secret")).unwrap(), SECRET);
    assert!(!is_there(&outside.join("to-be-made")) && !is_there(&outside.join("written")));
    assert!(!is_there(Path::new("/tmp/written")));
    assert_eq!(fs::read_to_string(work.join("file")).unwrap(), "mine");
}

#[test]
fn nothing_outside_the_folder_is_read_or_written() {
    let world = world();
    let daemon = world.daemon();
    let (session, work) = idle(&daemon, json!({}));
    let outside = world.root().join("outside");
    fs::create_dir(&outside).unwrap();
    litter(&work, &outside);
    refuses_to_lead_outside(&session, &work, &outside);
}

#[test]
fn nothing_outside_a_callers_folder_is_read_or_written() {
    let world = world();
    let daemon = world.daemon();
    let folder = fs::canonicalize(world.folder()).unwrap();
    let (session, work) = idle(&daemon, json!({"workdir": folder}));
    assert_eq!(work, folder);
    let outside = world.root().join("outside");
    fs::create_dir(&outside).unwrap();
    litter(&work, &outside);
    refuses_to_lead_outside(&session, &work, &outside);
}

#[test]
fn a_folder_that_became_a_link_is_not_followed() {
    let world = world();
    let daemon = world.daemon();
    let outside = world.root().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), SECRET).unwrap();
    let swap = |path: &Path| {
        fs::rename(path, path.with_extension("away")).unwrap();
        symlink(&outside, path).unwrap();
    };
    let named = world.root().join("named");
    fs::create_dir(&named).unwrap();
    for fields in [json!({}), json!({"workdir": fs::canonicalize(&named).unwrap()})] {
        let (session, work) = idle(&daemon, fields.clone());
        assert_eq!(write(&session, "file", "mine").status, 201);
        swap(&work);
        for reply in [read(&session, "secret"), read(&session, ""), write(&session, "secret", "x")] {
            assert!(!reply.text().contains(SECRET), "{fields}");
            assert_eq!(reply.problem().code, ErrorCode::InvalidRequest, "{fields}");
        }
        assert_eq!(fs::read_to_string(outside.join("secret")).unwrap(), SECRET, "{fields}");
        // Neither does a later run work there.
        session.act("stop");
        if fields["workdir"].is_string() {
            session.http.post(&session.path("/resume"), &Value::Null);
            let ended = session.wait_events("a refusal", |events| {
                let exit = events.iter().rfind(|event| event.kind.as_str() == "exit" && event.run == 2)?;
                Some(exit.data.get().to_owned())
            });
            assert!(ended.contains("leads elsewhere"), "{ended}");
        }
    }
    for own in [world.home(), world.home().join("sessions")] {
        for fields in
            [json!({"workdir": own}), json!({"add_dirs": [own]}), json!({"workdir": own, "sandbox": "off"})]
        {
            let problem = daemon.http().post("/api/v1/sessions", &world.spec(fields.clone())).problem();
            assert_eq!(problem.code, ErrorCode::InvalidRequest, "{fields}: {problem:?}");
            assert!(problem.detail.contains("castra's own"), "{fields}: {problem:?}");
        }
    }
}

#[test]
fn downloads_are_attachments_that_no_browser_runs() {
    let world = world();
    let daemon = world.daemon();
    let (session, _) = idle(&daemon, json!({}));
    for (name, shown) in [
        ("page.html", "attachment; filename=\"page.html\"; filename*=UTF-8''page.html"),
        ("a/b/x.svg", "attachment; filename=\"x.svg\"; filename*=UTF-8''x.svg"),
        ("\"; a=\r\nx.js", "attachment; filename=\"__ a___x.js\"; filename*=UTF-8''%22%3B%20a%3D%0D%0Ax.js"),
    ] {
        assert_eq!(write(&session, name, "<script>alert(1)</script>").status, 201, "{name:?}");
        let reply = read(&session, name);
        assert_eq!((reply.status, reply.text().as_str()), (200, "<script>alert(1)</script>"), "{name:?}");
        let header = |name: &str| reply.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        for (name, value) in [
            ("content-disposition", shown),
            ("content-type", "application/octet-stream"),
            ("x-content-type-options", "nosniff"),
            ("content-security-policy", "default-src 'none'; frame-ancestors 'none'; sandbox"),
            ("cross-origin-resource-policy", "same-origin"),
            ("cache-control", "no-store"),
            ("referrer-policy", "no-referrer"),
        ] {
            assert_eq!(header(name).as_deref(), Some(value), "{name}");
        }
        assert_eq!(header("access-control-allow-origin"), None);
    }
    let listed: Value = read(&session, "").expect(200);
    let kinds: Vec<(&str, &str)> = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry["name"].as_str().unwrap(), entry["kind"].as_str().unwrap()))
        .collect();
    assert_eq!(kinds, [("\"; a=\r\nx.js", "file"), ("a", "dir"), ("page.html", "file")]);
}
