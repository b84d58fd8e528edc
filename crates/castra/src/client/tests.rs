//! The client against a server that cuts connections where it hurts.

use super::*;
use castra_proto::api::SendMessage;
use std::sync::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;

/// Answers each connection with the next of these texts and then closes it, whatever was asked.
struct Server {
    home: tempfile::TempDir,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(answers: Vec<String>) -> Self {
        Self::start_slow(answers, Duration::ZERO)
    }

    /// Each answer takes so long.
    fn start_slow(answers: Vec<String>, delay: Duration) -> Self {
        let home = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(home.path().join("castra.sock")).unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let request = read_request(&mut stream).await;
                seen.lock().unwrap().push(request);
                tokio::time::sleep(delay).await;
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Self { home, requests }
    }

    /// With a recovery that has nothing to do: this server is always there.
    fn client(&self) -> Client {
        let client = Client::new(Target::Home(self.home.path().into()));
        client.with_recovery(Arc::new(|| Box::pin(async { Ok(()) })))
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

async fn read_request(stream: &mut tokio::net::UnixStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let n = stream.read(&mut buffer).await.unwrap();
        bytes.extend_from_slice(&buffer[..n]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            assert_ne!(n, 0, "a request that breaks off: {text}");
            continue;
        };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse().unwrap());
        if body.len() >= length {
            return text;
        }
    }
}

fn event(seq: u64) -> String {
    let data = format!(
        r#"{{"seq":{seq},"at":"2026-11-21T07:30:45.000100Z","session_id":"01928f6e-7b5a-7000-8000-000000000001","run":1,"turn":1,"kind":"assistant","data":{{"n":{seq}}}}}"#
    );
    format!("id: {seq}\ndata: {data}\n\n")
}

fn stream(frames: &str) -> String {
    let chunk = format!("{:x}\r\n{frames}\r\n", frames.len());
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n{chunk}")
}

fn json(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

const GONE: &str =
    r#"{"title":"t","status":404,"code":"session_not_found","detail":"there is no session `x`"}"#;
const ACCEPTED: &str = r#"{"message_id":"01928f6e-7b5a-7000-8000-000000000002","seq":7}"#;

#[tokio::test]
async fn a_stream_that_is_cut_goes_on_behind_its_last_event() {
    let half = event(3);
    let server = Server::start(vec![
        stream(&format!(": hi\n\n{}{}{}", event(1), event(2), &half[..half.len() / 2])),
        stream(&format!(
            "{}{}event: partial\ndata: {{\"message\":\"m\",\"block\":0,\"kind\":\"text\",\"offset\":0,\"text\":\"a\"}}\n\n",
            event(2),
            event(3)
        )),
        stream(""),
        json("404 Not Found", GONE),
    ]);
    let mut follow = server.client().follow("x", 0);
    let mut seen = Vec::new();
    while let Some(item) = follow.next().await.unwrap() {
        seen.push(match item {
            Item::Event(event) => format!("{} {}", event.seq, event.data.get()),
            Item::Partial(partial) => partial.text,
            Item::Reconnected => "again".into(),
        });
    }
    assert_eq!(seen, ["1 {\"n\":1}", "2 {\"n\":2}", "again", "3 {\"n\":3}", "a", "again"]);
    // A number first, since a person may have given it; then ids as the stream gives them.
    let asked: Vec<String> = server
        .requests()
        .iter()
        .map(|request| {
            let id = request.lines().find(|line| line.starts_with("last-event-id"));
            id.or(request.lines().next()).unwrap().to_owned()
        })
        .collect();
    let first = "GET /api/v1/sessions/x/events?after=0 HTTP/1.1";
    assert_eq!(asked, [first, "last-event-id: 2", "last-event-id: 3", "last-event-id: 3"]);
}

#[tokio::test]
async fn whoever_waits_impatiently_connects_once_all_the_same() {
    let server = Server::start_slow(vec![stream(&event(1))], Duration::from_millis(200));
    let mut follow = server.client().follow("x", 0);
    let item = loop {
        // As in a `select!` beside a fast ticker.
        if let Ok(item) = tokio::time::timeout(Duration::from_millis(5), follow.next()).await {
            break item.unwrap().unwrap();
        }
    };
    assert!(matches!(item, Item::Event(event) if event.seq == 1));
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_stream_that_was_never_there_is_an_error() {
    let server = Server::start(vec![json("404 Not Found", GONE)]);
    let error = server.client().follow("x", 0).next().await.unwrap_err();
    assert_eq!(error.problem().unwrap().code, castra_proto::ErrorCode::SessionNotFound);
}

#[tokio::test]
async fn a_problem_in_the_stream_ends_it_in_its_own_words() {
    let problem = format!("event: problem\ndata: {GONE}\n\n");
    let server = Server::start(vec![stream(&format!("{}{problem}", event(1)))]);
    let mut follow = server.client().follow("x", 0);
    let error = loop {
        match follow.next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended without a word"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.to_string(), "there is no session `x` (session_not_found)");
}

#[tokio::test]
async fn a_message_is_sent_again_with_its_key_and_is_one_message() {
    // The first answer is lost after the daemon had read the message.
    let server = Server::start(vec![String::new(), json("202 Accepted", ACCEPTED)]);
    let message = SendMessage { text: Some("hello".into()), ..Default::default() };
    let accepted = server.client().send("x", &message, "the-key").await.unwrap();
    assert_eq!(accepted.seq, 7);
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0], requests[1]);
    assert!(requests[0].contains("idempotency-key: the-key"), "{}", requests[0]);
}

#[tokio::test]
async fn a_command_without_a_key_is_never_repeated() {
    let server = Server::start(vec![String::new(), json("200 OK", "{}")]);
    let error = server.client().act("x", "interrupt").await.unwrap_err();
    assert!(matches!(error, Error::Lost { .. }), "{error:?}");
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_socket_is_found_beyond_what_an_address_can_hold() {
    let root = tempfile::tempdir().unwrap();
    let long = root.path().join("a".repeat(100)).join("b".repeat(100));
    std::fs::create_dir_all(&long).unwrap();
    let folder = std::fs::File::open(&long).unwrap();
    let listener = UnixListener::bind(format!("/proc/self/fd/{}/castra.sock", folder.as_raw_fd())).unwrap();
    let (client, server) = tokio::join!(connect_unix(&long), listener.accept());
    assert!(client.is_ok() && server.is_ok());
    drop(listener);
    let error = Client::new(Target::Home(long)).health().await.unwrap_err();
    assert!(matches!(error, Error::NotRunning { .. }), "{error:?}");
}

#[test]
fn urls() {
    let table: &[(&str, Option<&str>)] = &[
        ("http://127.0.0.1:8080", Some("127.0.0.1:8080")),
        ("http://castra.lan/", Some("castra.lan:80")),
        ("http://[::1]:7", Some("[::1]:7")),
        ("https://castra.lan", None),
        ("http://", None),
        ("http://user@host:1", None),
        ("http://host:1/path", None),
        ("127.0.0.1:8080", None),
    ];
    for (url, expected) in table {
        let expected = expected.map(|authority| Target::Url(authority.into()));
        assert_eq!(Target::url(url).ok(), expected, "{url}");
    }
}

#[test]
fn what_goes_into_a_path_stays_one_segment() {
    assert_eq!(escape("a b/../c?d=é"), "a%20b%2F..%2Fc%3Fd%3D%C3%A9");
}
