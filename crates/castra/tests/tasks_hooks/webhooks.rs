//! Webhooks: signed, and told again when their other end was away, fails for a while, or fails for good.

use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};

#[test]
fn a_webhook_is_signed_and_its_answer_is_the_agents_revision() {
    each(CASTRA, SCRIPT, |cli, _, daemon| {
        let endpoint = Endpoint::new(|asked| match asked.body["deliverable"]["text"].as_str() {
            Some("long\n") => (200, "shorter".into()),
            _ => (204, String::new()),
        });
        let hooks = json!([
            webhook("deliverable", &endpoint),
            with(webhook("state", &endpoint), "states", json!(["running", "done"])),
            webhook("after", &endpoint)
        ]);
        let run = "echo long > deliverables/a; echo DELIVERABLE: deliverables/a >> optio.log; \
                   until [ -e go1 ]; do sleep 0.1; done; echo short > deliverables/a; \
                   echo DELIVERABLE: deliverables/a >> optio.log; until [ -e go2 ]; do sleep 0.1; done; \
                   echo DONE >> optio.log";
        let task = daemon.task(hooked(run, hooks));
        for n in 1..=2 {
            wait_until("a reply", || replies(&task).len() == n, DEADLINE);
            std::fs::write(work(&task).join(format!("go{n}")), "").unwrap();
        }
        let shown = task.wait();
        assert_eq!(shown.state, TaskState::Done, "{cli}: {:?}", task.log());
        let told: Vec<String> =
            replies(&task).iter().map(|text| text.split_once(": ").unwrap().1.to_owned()).collect();
        assert!(
            told.len() == 2
                && told[0].ends_with("hand it over again: shorter")
                && told[1].ends_with("accepted."),
            "{cli}: {told:?}"
        );
        wait_until("all five", || endpoint.asked().len() == 5, DEADLINE);
        let of = |on: HookPoint| -> Vec<_> {
            endpoint.asked().into_iter().filter(|asked| asked.body["on"] == json!(on)).collect()
        };
        let to: Vec<_> =
            of(HookPoint::State).iter().map(|asked| asked.body["event"]["data"]["to"].clone()).collect();
        assert_eq!(
            (to, of(HookPoint::Deliverable).len(), of(HookPoint::After).len()),
            (vec![json!("running"), json!("done")], 2, 1),
            "{cli}"
        );
        for asked in endpoint.asked() {
            assert!(asked.is_signed("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), "{cli}: {asked:?}");
            assert_eq!(
                (asked.header("x-team"), asked.header("webhook-id")),
                ("blue", asked.body["id"].as_str().unwrap()),
                "{cli}"
            );
        }
        let ids: std::collections::BTreeSet<_> =
            endpoint.asked().iter().map(|asked| asked.header("webhook-id").to_owned()).collect();
        assert_eq!(ids.len(), 5, "{cli}: each has its own");
        // Nothing secret is shown.
        let text = task.http.get(&task.path("")).text();
        assert!(
            !text.contains("whsec_") && !text.contains("blue") && text.contains("\"secret\":\"***\""),
            "{cli}: {text}"
        );
    });
}

/// The daemon is killed while the endpoint is down: whoever comes next tells it.
#[test]
fn an_endpoint_that_was_down_is_told_later_also_by_another_daemon() {
    each(CASTRA, SCRIPT, |cli, _, daemon| {
        let mut endpoint = Endpoint::new(|_| (200, String::new()));
        endpoint.down();
        let mut spec = hooked("echo DONE >> optio.log", json!([webhook("after", &endpoint)]));
        // Also of a task that is to go when it is over.
        spec["ephemeral"] = json!(true);
        let task = daemon.task(spec);
        wait_until("the task to be over", || task.show().state.is_final(), DEADLINE);
        daemon.kill9();
        endpoint.up();
        daemon.start_again();
        wait_until("the hook to be told", || endpoint.asked().len() == 1, DEADLINE);
        let asked = &endpoint.asked()[0];
        assert_eq!(
            (&asked.body["task"]["id"], &asked.body["event"]["data"]["to"]),
            (&json!(task.id), &json!("done")),
            "{cli}"
        );
        let http = daemon.http();
        wait_until("the task to be gone", || http.get(&task.path("")).status == 404, DEADLINE);
        assert_eq!(endpoint.asked().len(), 1, "{cli}: once");
    });
}

/// Answers `first` so many times, and then 200.
fn failing(first: u16, times: usize) -> Endpoint {
    let asked = AtomicUsize::new(0);
    Endpoint::new(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        n if n < times => (first, String::new()),
        _ => (200, String::new()),
    })
}

fn ids(endpoint: &Endpoint) -> Vec<String> {
    endpoint.asked().iter().map(|asked| asked.header("webhook-id").to_owned()).collect()
}

#[test]
fn the_same_daemon_tells_a_webhook_again_until_it_was_heard() {
    let cli = castra_testkit::clis().remove(0);
    let world = World::new(CASTRA, &cli.path, SCRIPT);
    let daemon = world.daemon();
    let (broken, mut away) = (failing(503, 1), failing(0, 0));
    away.down();
    let done = |endpoint: &Endpoint| with(webhook("state", endpoint), "states", json!(["done"]));
    let task = daemon.task(hooked("echo DONE >> optio.log", json!([done(&broken), done(&away)])));
    assert_eq!(task.wait().state, TaskState::Done, "{:?}", task.log());
    wait_until("the first try at the one that is broken", || ids(&broken).len() == 1, DEADLINE);
    let log = world.home().join("log/castra.log");
    let warned = || std::fs::read_to_string(&log).unwrap().matches("a hook was not told").count();
    wait_until("both to have failed once", || warned() >= 2, DEADLINE);
    away.up();
    wait_until("both to be told", || ids(&broken).len() == 2 && ids(&away).len() == 1, DEADLINE);
    let again = ids(&broken);
    assert_eq!(again[0], again[1], "it is the same message");
    assert!(broken.asked().iter().all(|asked| asked.is_signed("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")));
    assert_eq!(task.show().state, TaskState::Done, "it is no business of the outcome");
}

#[test]
fn a_webhook_that_never_answers_well_is_given_up_and_the_task_keeps_its_outcome() {
    let cli = castra_testkit::clis().remove(0);
    let world = World::new(CASTRA, &cli.path, SCRIPT);
    let daemon = world.daemon();
    let endpoint = failing(500, usize::MAX);
    let hook = with(with(webhook("state", &endpoint), "states", json!(["done"])), "retries", json!(1));
    let task = daemon.task(hooked("echo DONE >> optio.log", json!([hook])));
    assert_eq!(task.wait().state, TaskState::Done, "{:?}", task.log());
    wait_until("it to be given up", || !hook_lines(&task).is_empty(), DEADLINE);
    let said = "state failed: given up after 2 tries: it answered 500".to_owned();
    assert_eq!(hook_lines(&task), [(Level::Warning, said)]);
    let again = ids(&endpoint);
    assert!(again.len() == 2 && again[0] == again[1], "{again:?}");
    assert_eq!(task.show().state, TaskState::Done);
}

/// Where the task waits for it, it is tried again at once, as often as it says.
#[test]
fn a_webhook_that_is_waited_for_is_tried_again_before_its_rule_counts() {
    let cli = castra_testkit::clis().remove(0);
    let world = World::new(CASTRA, &cli.path, SCRIPT);
    let daemon = world.daemon();
    let run = "echo x > deliverables/a; echo DELIVERABLE: deliverables/a >> optio.log; sleep 300";
    let waited = |endpoint: &Endpoint| with(webhook("deliverable", endpoint), "retries", json!(1));
    let heals = failing(500, 1);
    let task = daemon.task(hooked(run, json!([waited(&heals)])));
    wait_until("an answer", || !replies(&task).is_empty(), DEADLINE);
    assert!(replies(&task)[0].ends_with("accepted."), "{:?}", replies(&task));
    let again = ids(&heals);
    assert!(again.len() == 2 && again[0] == again[1], "{again:?}");
    task.cancel();
    task.wait();

    let broken = failing(500, usize::MAX);
    let task = daemon.task(hooked(run, json!([with(waited(&broken), "on_error", json!("fail"))])));
    let reason = task.wait().reason.expect("a reason");
    assert_eq!(
        (reason.code, reason.message.as_str(), ids(&broken).len()),
        (ReasonCode::Hook, "a hook failed: it answered 500", 2),
        "{:?}",
        task.log()
    );
}
