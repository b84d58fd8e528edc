//! Teams on the real CLI, over HTTP: what claude-tmux's manager and claude-node's router were for, without their defects.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod team;

use castra_proto::api::Page;
use castra_proto::session::{ExitCause, Reaped};
use castra_proto::team::{Answer, AnswerState, Answers, Routed};
use castra_proto::{ErrorCode, RunState, Team as Shown};
use castra_testkit::{DEADLINE, Daemon, World, clis, each, wait_until};
use serde_json::{Value, json};
use team::{CASTRA, SCRIPT, Team, brief, spec};

/// Nothing of the world runs but the daemon.
#[track_caller]
fn nobody_is_left(world: &World, daemon: &Daemon<'_>) {
    let left = || world.processes().into_iter().filter(|one| one.pid != daemon.pid()).collect::<Vec<_>>();
    // A shim goes when its last record is acknowledged.
    wait_until("all processes of the team to be gone", || left().is_empty(), DEADLINE);
}

#[test]
fn scenario_2_and_3_each_key_is_a_conversation_of_its_own_and_clear_begins_it_anew() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let team = Team::up(world, daemon, &[("a", ""), ("b", "")]);
        let before = |agent, key| team.ask(agent, "what was said before?", key);
        assert_eq!(team.ask("a", "a plum", Some("x")), "heard: a plum", "{cli}");
        team.ask("a", "a pear", Some("y/é {z}"));
        for (agent, key, plum, pear) in [
            ("a", Some("x"), true, false),
            ("a", Some("y/é {z}"), false, true),
            ("a", None, false, false),
            ("b", Some("x"), false, false),
        ] {
            let said = before(agent, key);
            assert_eq!(
                (said.contains("plum"), said.contains("pear")),
                (plum, pear),
                "{cli}: {key:?}: {said}"
            );
        }
        let old = team.session("a", Some("x"));
        let cleared: Shown = team.post("/clear", &json!({"agent": "a", "key": "x"})).expect(200);
        assert_eq!(cleared.agents["a"].conversations[1].generation, 1, "{cli}");
        assert!(!before("a", Some("x")).contains("plum"), "{cli}");
        assert!(before("a", Some("y/é {z}")).contains("pear"), "{cli}");
        // What was said is kept.
        let (old, new) = (old.show(), team.session("a", Some("x")).show());
        assert_eq!((old.state, old.turns), (RunState::Ended, 2), "{cli}");
        assert_ne!(old.id, new.id, "{cli}");
        let labels = [("agent", "a"), ("key", "x"), ("team", team.id.as_str())];
        assert!(labels.iter().all(|(name, value)| new.spec.labels[*name] == *value), "{:?}", new.spec.labels);

        // A session that somebody has removed is gone, and not in the way of what comes.
        assert_eq!(team.http.delete(&team.session("a", Some("x")).path("?force=true")).status, 204, "{cli}");
        team.ask("a", "a fig", Some("x"));
        let said = before("a", Some("x"));
        assert!(said.contains("fig") && !said.contains("said before"), "{cli}: {said}");
    });
}

#[test]
fn scenario_20_one_fails_and_one_is_slow_and_all_others_have_answered() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let team = Team::up(world, daemon, &[("fails", "YOU FAIL"), ("quick", ""), ("slow", "YOU ARE SLOW")]);
        let answers = team.fanout("-x {message}");
        let expected = [
            ("fails", AnswerState::Failed, "api_error"),
            ("quick", AnswerState::Answered, "heard: -x {message}"),
            ("slow", AnswerState::Answered, "slowly: -x {message}"),
        ];
        let expected = expected.map(|(agent, state, said)| (agent.to_owned(), state, said.to_owned()));
        assert_eq!(answers.state, AnswerState::Failed, "{cli}");
        assert_eq!(brief(&answers.answers), expected, "{cli}: {answers:?}");
        let said = answers.answers[0].error.as_ref().unwrap().detail.as_str();
        assert!(said.contains("scripted"), "{cli}: {said}");

        // It is a turn that failed, not the agent.
        let state = || team.conversation("fails", None).state;
        wait_until("the one that failed to be idle", || state() == Some(RunState::Idle), DEADLINE);
        let chosen: Answers =
            team.post("/fanout?wait=90", &json!({"text": "y", "agents": ["slow", "quick"]})).expect(200);
        let agents: Vec<_> = chosen.answers.iter().map(|answer| answer.agent.as_str()).collect();
        assert_eq!((chosen.state, agents), (AnswerState::Answered, vec!["slow", "quick"]), "{cli}");
        // The answer is there before claude says that it is idle.
        wait_until("the slow one to be idle", || !team.conversation("slow", None).busy, DEADLINE);
        let shown = team.conversation("slow", None);
        assert_eq!(shown.last_output.as_deref(), Some("slowly: y"), "{cli}");
        assert_eq!((shown.turn.n, shown.queued), (2, 0), "{cli}");

        let stopped: Shown = team.post("/stop", &Value::Null).expect(200);
        for agent in stopped.agents.values() {
            let exit = agent.conversations[0].exit.as_ref().expect("an end");
            assert_eq!((exit.cause, exit.reaped), (ExitCause::Stopped, Reaped::Proved), "{cli}");
        }
        nobody_is_left(world, daemon);
        // What it is asked from now on starts it again, where it was.
        assert!(team.ask("quick", "what was said before?", None).contains("-x {message}"), "{cli}");
    });
}

/// Who is at work, since when, and what it did last.
#[test]
fn an_agent_is_busy_from_its_message_to_its_answer_and_says_how_long() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let team = Team::up(world, daemon, &[("a", ""), ("b", "")]);
        assert_eq!(team.ask("a", "one", None), "heard: one", "{cli}");
        let idle = |agent: &str| {
            wait_until("it to be idle", || !team.show().agents[agent].busy, DEADLINE);
            team.conversation(agent, None)
        };
        let before = idle("a");
        let activity = before.last_activity.clone().expect("what it did last");
        assert_eq!((activity.text.as_str(), before.turn.n), ("heard: one", 1), "{cli}");
        assert!(before.turn.duration_s.is_some_and(|took| took > 0.0), "{cli}: {before:?}");

        let late: Answer = team.post("/agents/a/messages", &json!({"text": "late"})).expect(202);
        assert_eq!(late.state, AnswerState::Waiting, "{cli}");
        wait_until("it to be at work", || team.conversation("a", None).turn.n == 2, DEADLINE);
        let shown = team.show();
        let (at_work, other) = (&shown.agents["a"], &shown.agents["b"]);
        assert_eq!((at_work.busy, other.busy), (true, false), "{cli}");
        let during = &at_work.conversations[0];
        assert_eq!((during.busy, during.state), (true, Some(RunState::Running)), "{cli}");
        assert!(during.since > before.since, "{cli}: {during:?}");
        let running = |shown: &castra_proto::team::Conversation| shown.turn.duration_s.expect("a duration");
        let first = running(during);
        wait_until("it to take longer", || running(&team.conversation("a", None)) > first, DEADLINE);

        let after = idle("a");
        assert_eq!((after.turn.n, after.state), (2, Some(RunState::Idle)), "{cli}");
        // The model says nothing for four seconds.
        assert!(running(&after) >= 4.0, "{cli}: {after:?}");
        let last = after.last_activity.expect("what it did last");
        assert!(last.text == "at last: late" && last.at > activity.at, "{cli}: {last:?}");
    });
}

/// Silence is an event and ends nobody: the next message goes on in the same process.
#[test]
fn an_agent_that_says_nothing_for_long_is_idle_and_stays() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let mut spec = spec(world, &[("a", "")]);
        spec["agents"]["a"]["session"]["idle_after_s"] = json!(1);
        let team = Team::of(daemon, &spec);
        team.ask("a", "a plum", None);
        let session = team.session("a", None);
        let claude = session.show().pid;
        let said_so = |events: &[castra_proto::Event]| {
            let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
            let answered = kinds.iter().rposition(|kind| *kind == "result")?;
            kinds[answered..].contains(&"idle").then_some(())
        };
        session.wait_events("it to be said that it is idle", said_so);
        assert!(team.ask("a", "what was said before?", None).contains("a plum"), "{cli}");
        session.wait_events("it to be said again", said_so);
        let shown = session.show();
        assert_eq!((shown.state, shown.pid, shown.turns), (RunState::Idle, claude, 2), "{cli}");
        assert!(claude.is_some() && session.events_of("exit").is_empty(), "{cli}");
    });
}

#[test]
fn an_answer_is_given_on_in_its_wrapping_and_an_error_never_is() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let team = Team::up(world, daemon, &[("fails", "YOU FAIL"), ("a", ""), ("b", "")]);
        let route = |body: Value| team.post("/route?wait=90", &body);
        let routed: Routed = route(
            json!({"from": "a", "text": "a {plum}", "to": "b", "wrap": "{0} {\"said\": \"{message}\"}"}),
        )
        .expect(200);
        let asked = routed.asked.expect("asked").text;
        assert_eq!(asked.as_deref(), Some("heard: a {plum}"), "{cli}");
        let answer = routed.answer.expect("an answer").text;
        assert_eq!(answer.as_deref(), Some("heard: {0} {\"said\": \"heard: a {plum}\"}"), "{cli}");

        // The newest answer; and a text of the caller's own.
        let routed: Routed = route(json!({"from": "a", "to": "b"})).expect(200);
        assert_eq!(routed.asked, None);
        assert_eq!(routed.answer.unwrap().text.as_deref(), Some("heard: heard: a {plum}"), "{cli}");
        let routed: Routed = route(json!({"text": "t", "to": "b", "wrap": "<{message}>"})).expect(200);
        assert_eq!(routed.answer.unwrap().text.as_deref(), Some("heard: <t>"), "{cli}");

        let heard = world.calls().len();
        let routed: Routed = route(json!({"from": "fails", "text": "t", "to": "b"})).expect(200);
        assert_eq!((routed.state, routed.answer), (AnswerState::Failed, None), "{cli}");
        assert_eq!(routed.asked.unwrap().error.unwrap().code, ErrorCode::ApiError, "{cli}");
        let refused = route(json!({"from": "fails", "to": "b"})).problem();
        assert_eq!(refused.code, ErrorCode::ApiError, "{cli}");
        let told: Vec<_> =
            world.calls()[heard..].iter().map(|call| call.last_user.clone().unwrap()).collect();
        assert!(told.iter().all(|text| text == "t"), "{cli}: b was told nothing: {told:?}");
        let refused = route(json!({"from": "b", "to": "a", "key": "new"})).problem();
        assert_eq!(refused.code, ErrorCode::Conflict, "{cli}: {refused:?}");
    });
}

#[test]
fn scenario_15_and_17_each_caller_has_the_answer_to_what_it_asked_also_after_a_timeout() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let team = Team::up(world, daemon, &[("a", "")]);
        let ask = |text: &str, key: &str, wait: u64| {
            let below = format!("/agents/a/messages?wait={wait}");
            team.post_once(&below, key, &json!({ "text": text }))
        };
        let late = ask("late", "k0", 1);
        let waiting: Answer = late.expect(202);
        assert_eq!((waiting.state, waiting.text.as_ref()), (AnswerState::Waiting, None), "{cli}");
        let texts = ["one", "two", "three"];
        std::thread::scope(|scope| {
            let asked = texts.map(|text| {
                let ask = &ask;
                scope.spawn(move || ask(text, text, 90).expect::<Answer>(200).text.unwrap())
            });
            let answers = asked.map(|one| one.join().unwrap());
            assert_eq!(answers, texts.map(|text| format!("heard: {text}")), "{cli}");
        });
        let late: Answer = ask("late", "k0", 90).expect(200);
        assert_eq!(late.text.as_deref(), Some("at last: late"), "{cli}");
        assert_eq!(late.message_id, waiting.message_id, "{cli}: asked for again, it is the same message");
        let refused = ask("other", "k0", 0).problem();
        assert_eq!(refused.code, ErrorCode::IdempotencyMismatch, "{cli}");
        assert_eq!(world.calls().len(), 4, "{cli}: each was said once");
    });
}

#[test]
fn whoever_is_stopped_fails_at_once_and_is_not_started_again_by_what_ran() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let mut spec = spec(world, &[("a", ""), ("b", ""), ("c", "")]);
        spec["lazy"] = true.into();
        spec["flow"] = json!([{"ask": "a", "text": "hang"}, {"fanout": ["b", "c"], "text": "never said"}]);
        let team = Team::of(daemon, &spec);
        assert!(team.sessions().is_empty(), "{cli}: nobody was started yet");
        std::thread::scope(|scope| {
            let run = scope.spawn(|| team.post_once("/run?wait=90", "r", &Value::Null));
            let hangs = || world.calls().iter().any(|call| call.last_user.as_deref() == Some("hang"));
            wait_until("a to hang", hangs, DEADLINE);
            team.post("/stop", &Value::Null).expect::<Shown>(200);
            let run: castra_proto::team::FlowRun = run.join().unwrap().expect(200);
            assert_eq!((run.state, run.steps.len()), (AnswerState::Failed, 1), "{cli}: {run:?}");
            assert_eq!(run.steps[0].answers[0].state, AnswerState::Failed, "{cli}: {run:?}");
        });
        nobody_is_left(world, daemon);
        // Asked for again, it is the same run, which was stopped.
        let again: castra_proto::team::FlowRun =
            team.post_once("/run?wait=90", "r", &Value::Null).expect(200);
        assert_eq!(again.state, AnswerState::Failed, "{cli}: {again:?}");
        assert_eq!(team.sessions().len(), 1, "{cli}");
        nobody_is_left(world, daemon);
        assert_eq!(team.http.delete(&team.path("")).status, 204, "{cli}");
        assert!(team.sessions().is_empty(), "{cli}");
    });
}

#[test]
fn a_daemon_that_is_killed_in_a_fan_out_loses_no_answer_and_says_nothing_twice() {
    for cli in clis() {
        let world = World::new(CASTRA, &cli.path, SCRIPT);
        let mut daemon = world.daemon();
        let team = Team::up(&world, &daemon, &[("a", ""), ("b", "YOU ARE SLOW"), ("c", "")]);
        let fanout = |text: &str| {
            let body = json!({"text": text}).to_string();
            let path = team.path("/fanout?wait=90");
            team.http.try_call("POST".parse().unwrap(), &path, &[("Idempotency-Key", "f")], body.into())
        };
        std::thread::scope(|scope| {
            let cut = scope.spawn(|| fanout("late"));
            wait_until("all to be asked", || world.calls().len() == 3, DEADLINE);
            daemon.kill9();
            assert!(cut.join().unwrap().is_err(), "{cli}: the connection was cut");
        });
        daemon.start_again();
        let answers: Answers = fanout("late").expect("an answer").expect(200);
        let said: Vec<_> =
            answers.answers.iter().map(|answer| answer.text.clone().unwrap_or_default()).collect();
        assert_eq!(said, ["at last: late", "slowly: late", "at last: late"], "{cli}: {answers:?}");
        assert_eq!(world.calls().len(), 3, "{cli}");
    }
}

#[test]
fn one_that_cannot_be_started_leaves_none_running_and_no_team() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let mut spec = spec(world, &[("good", ""), ("bad", "")]);
        spec["name"] = "pair".into();
        spec["agents"]["bad"]["session"]["extra_args"] = json!(["--no-such-option"]);
        let refused = daemon.http().post("/api/v1/teams", &spec).problem();
        assert_eq!(refused.code, ErrorCode::CliStartFailed, "{cli}: {refused:?}");
        assert!(refused.detail.contains("bad: "), "{cli}: {refused:?}");
        nobody_is_left(world, daemon);
        assert_eq!(daemon.http().get("/api/v1/teams/pair").status, 404, "{cli}");
        let sessions: Page<castra_proto::Session> =
            daemon.http().get("/api/v1/sessions?all=true").expect(200);
        assert!(sessions.items.is_empty(), "{cli}");

        let kept: Shown = daemon.http().post("/api/v1/teams?keep=true", &spec).expect(201);
        let states = |agent: &str| kept.agents[agent].conversations[0].state;
        assert_eq!((states("good"), states("bad")), (Some(RunState::Idle), Some(RunState::Ended)), "{cli}");
        assert_eq!(daemon.http().delete("/api/v1/teams/pair").problem().code, ErrorCode::Conflict, "{cli}");
        assert_eq!(daemon.http().delete("/api/v1/teams/pair?force=true").status, 204, "{cli}");
        nobody_is_left(world, daemon);
    });
}

#[test]
fn what_cannot_be_is_refused_in_plain_words() {
    let cli = &clis()[0];
    let world = World::new(CASTRA, &cli.path, SCRIPT);
    let daemon = world.daemon();
    let mut lazy = spec(&world, &[("a", ""), ("b", "")]);
    (lazy["lazy"], lazy["name"]) = (true.into(), "duo".into());
    lazy["agents"]["a"]["session"]["env"]["TOKEN"] = "s3cret-value".into();
    let team = Team::of(&daemon, &lazy);
    assert!(!serde_json::to_string(&team.show()).unwrap().contains("s3cret-value"));
    use ErrorCode::{Conflict, InvalidRequest, NotFound, UnknownField};
    let teams = "/api/v1/teams";
    for (path, body, code, part) in [
        (teams.to_owned(), json!({"agents": {}}), InvalidRequest, "no agents"),
        (teams.to_owned(), json!({"agents": {"x": {}}, "agnets": 1}), UnknownField, "agnets"),
        (teams.to_owned(), json!({"agents": {"x": {"session": {"modle": 1}}}}), UnknownField, "modle"),
        (teams.to_owned(), json!({"name": "duo", "agents": {"x": {}}}), Conflict, "bears the name \"duo\""),
        (team.path("/agents/c/messages"), json!({"text": "x"}), NotFound, "no agent \"c\""),
        (team.path("/agents/a/messages"), json!({"text": " "}), InvalidRequest, "empty"),
        (team.path("/agents/a/messages"), json!({"text": "x", "key": ""}), InvalidRequest, "key"),
        (team.path("/agents/a/messages?wait=3601"), json!({"text": "x"}), InvalidRequest, "3600"),
        (team.path("/fanout"), json!({"text": "x", "agents": ["a", "z"]}), NotFound, "no agent \"z\""),
        (team.path("/fanout"), json!({"text": "x", "agents": ["a", "a"]}), InvalidRequest, "twice"),
        (team.path("/route"), json!({"to": "a"}), InvalidRequest, "nothing to route"),
        (team.path("/route"), json!({"from": "z", "to": "a"}), NotFound, "no agent \"z\""),
        (team.path("/run"), json!({}), InvalidRequest, "no flow"),
        (team.path("/stop"), json!({"agent": "z"}), NotFound, "no agent \"z\""),
        (team.path("/clear"), json!({"agent": "z"}), NotFound, "no agent \"z\""),
        ("/api/v1/teams/none/stop".to_owned(), json!({}), NotFound, "no team \"none\""),
    ] {
        let problem = daemon.http().post(&path, &body).problem();
        assert_eq!(problem.code, code, "{path} {body}: {problem:?}");
        assert!(problem.detail.contains(part), "{path} {body}: {problem:?}");
    }
    // Two that make the same team by the same key make one.
    let once = |spec: &Value| daemon.http().post_with(teams, &[("Idempotency-Key", "k")], spec);
    lazy["name"] = "trio".into();
    let (one, two): (Shown, Shown) = (once(&lazy).expect(201), once(&lazy).expect(201));
    assert_eq!(one.id, two.id);
    lazy["name"] = "four".into();
    assert_eq!(once(&lazy).problem().code, ErrorCode::IdempotencyMismatch);

    // Scopes are those of sessions.
    let token = |args: &[&str]| world.cli(["token", "create"].iter().chain(args)).ok().trim().to_owned();
    let reads = daemon.http_as(&token(&["--scope", "read"]));
    let drives = daemon.http_as(&token(&["--scope", "drive"]));
    assert_eq!(reads.get(&team.path("")).status, 200);
    assert_eq!(reads.post(&team.path("/fanout"), &json!({"text": "x"})).status, 403);
    let tools = json!({"agents": {"x": {"session": {"allowed_tools": ["Bash"]}}}, "lazy": true});
    assert_eq!(drives.post(teams, &tools).problem().code, ErrorCode::Forbidden);
    let folder = json!({"agents": {"x": {"session": {"workdir": "/tmp"}}}, "lazy": true});
    assert_eq!(drives.post(teams, &folder).problem().code, ErrorCode::Forbidden);
    // Whoever drives asks what somebody else was allowed to make.
    let answer: Answer =
        drives.post(&team.path("/agents/a/messages?wait=90"), &json!({"text": "x"})).expect(200);
    assert_eq!(answer.text.as_deref(), Some("heard: x"));
    let bound = answer.session_id.unwrap().to_string();
    let bound = daemon.http_as(&token(&["--scope", "drive", "--session", &bound]));
    assert_eq!((bound.get(teams).status, bound.get(&team.path("")).status), (403, 403));
}
