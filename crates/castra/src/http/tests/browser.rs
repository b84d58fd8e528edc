//! Browsers at the gate: a cookie and a key, or a cookie and a ticket, from our own pages; never less.

use super::gate_tests::{Call, DOORS, MINE, Outcome, TCP, closed};
use crate::http::auth::{Admission, Grant};
use crate::http::tickets::hash;
use castra_proto::api::Scope;
use castra_supervisor::Caller;

/// The secret `SCOPE`, as a browser has it: half in its cookie, half as its key.
fn browser(method: &str, path: &str, secret: &str) -> Call {
    let (cookie, key) = secret.split_at(secret.len() / 2);
    Call::new(TCP, method, path)
        .header("cookie", &format!("castra-7000={cookie}"))
        .header("castra-key", key)
        .header("sec-fetch-site", "same-origin")
}

#[tokio::test]
async fn a_browser_is_who_has_both_halves_and_is_on_our_page() {
    for (method, path, operation) in closed() {
        for scope in Scope::ALL {
            let outcome = browser(&method, &path, scope.as_str()).outcome().await;
            assert_eq!(outcome.passed(), scope >= operation.scope, "{method} {path} {scope:?}: {outcome:?}");
        }
        let own = browser(&method, &path, "admin@mine").outcome().await;
        assert_eq!(own.passed(), operation.bound, "{method} {path}: {own:?}");

        let unknown = Outcome::refused(401, "unauthorized");
        let outcome = browser(&method, &path, "admin").header("castra-key", "in!").outcome().await;
        assert_eq!(outcome, unknown, "{method} {path}");
        let without = |name: &str| {
            let mut call = browser(&method, &path, "admin");
            call.0.headers_mut().remove(name);
            call
        };
        assert_eq!(without("castra-key").outcome().await, unknown, "{method} {path}");
        assert_eq!(without("cookie").outcome().await, unknown, "{method} {path}");
        // Nothing says which page it came from.
        let nowhere = Outcome::refused(403, "forbidden");
        assert_eq!(without("sec-fetch-site").outcome().await, nowhere, "{method} {path}");
        let typed = without("sec-fetch-site").header("sec-fetch-site", "none");
        assert_eq!(typed.outcome().await, nowhere, "{method} {path}");
        for origin in ["null", "http://localhost:5173", "http://127.0.0.1:7001", "http://evil.tld"] {
            let outcome = without("sec-fetch-site").header("origin", origin).outcome().await;
            assert_eq!(outcome, nowhere, "{method} {path} {origin}");
        }
        let ours = without("sec-fetch-site").header("origin", "http://127.0.0.1:7000");
        assert!(ours.outcome().await.passed(), "{method} {path}");
        let other = Call::new(TCP, &method, &path).header("cookie", "castra-7001=ad");
        assert_eq!(other.header("castra-key", "min").outcome().await, unknown, "{method} {path}");
    }
}

#[tokio::test]
async fn a_cookie_alone_opens_a_websocket_only_while_a_ticket_waits_for_it() {
    let ws = "/api/v1/sessions/1234/terminal/ws";
    let upgrade = |cookie: &str| {
        Call::new(TCP, "GET", ws)
            .header("cookie", &format!("castra-7000={cookie}"))
            .header("origin", "http://127.0.0.1:7000")
    };
    let unknown = Outcome::refused(401, "unauthorized");
    assert_eq!(upgrade("one").outcome().await, unknown);
    let issue = |cookie: &str| {
        let caller = Caller { by: "t".into(), scope: Scope::Read };
        let grant =
            Grant { caller, only: None, token: None, expires: None, cookie: Some(hash(cookie)), hook: None };
        DOORS.terminal.issue(Admission { session: MINE, grant })
    };
    let ticket = issue("one");
    assert_eq!(upgrade("one").outcome().await, Outcome::Reached);
    assert_eq!(upgrade("two").outcome().await, unknown);
    // The cookie of a page elsewhere, as a browser would send it along.
    for origin in ["null", "http://localhost:5173", "http://127.0.0.1:7001"] {
        let foreign = upgrade("one").header("origin", origin).outcome().await;
        assert_eq!(foreign, Outcome::refused(403, "forbidden"), "{origin}");
    }
    let mut unsaid = upgrade("one");
    unsaid.0.headers_mut().remove("origin");
    assert_eq!(unsaid.outcome().await, Outcome::refused(403, "forbidden"));
    let elsewhere = upgrade("one").header("host", "evil.tld:7000").outcome().await;
    assert_eq!(elsewhere, Outcome::refused(421, "forbidden"));
    // It is for the WebSocket and nothing else.
    let token = Call::new(TCP, "GET", "/api/v1/sessions/1234/terminal/token")
        .header("cookie", "castra-7000=one")
        .header("sec-fetch-site", "same-origin");
    assert_eq!(token.outcome().await, unknown);
    assert!(DOORS.terminal.redeem(&ticket).is_some());
    assert_eq!(upgrade("one").outcome().await, unknown);
}
