//! How turns end on the real TUI: cut off by the token limit, refused, failed after retries, with helpers in the
//! background, with prompts that somebody typed into them. Each has one result, and the next prompt is taken.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod terminal;

use castra_proto::api::{Message, MessageState, TurnResult};
use castra_proto::{ErrorCode, RunState};
use castra_testkit::{Cli, DEADLINE, Session, World, each, wait_until};
use serde_json::{Value, json};
use terminal::{CASTRA, data_of, terminal, type_keys, work};

const SCRIPT: &str = r#"
[[rule]]
name = "instead"
when.last_user.contains = "instead"
reply.text = "You said: {{last_user}}"
[[rule]]
name = "cut short"
when.last_user.contains = "run out of tokens"
when.times = 1
reply.text = "This is the first half"
reply.stop_reason = "max_tokens"
[[rule]]
name = "rest"
when.last_user.regex = '(?i)token limit|run out of tokens'
reply.text = "and this the second"
[[rule]]
name = "refusal"
when.last_user.contains = "refuse this"
reply.text = "I can not"
reply.stop_reason = "refusal"
[[rule]]
name = "error"
when.last_user.contains = "fail with 400"
reply.error = { status = 400, message = "scripted" }
[[rule]]
name = "busy"
when.last_user.contains = "overloaded twice"
when.first_attempts = 2
reply.error = { status = 529, message = "Overloaded" }
[[rule]]
name = "never"
when.last_user.contains = "overloaded always"
reply.error = { status = 529, message = "Overloaded" }
[[rule]]
name = "inside"
when.last_user.contains = "look around inside"
when.tool_result = {}
reply.text = "I looked around."
[[rule]]
name = "agent works"
when.last_user.contains = "look around inside"
reply.blocks = [{ tool_use = { name = "Bash", input = { command = "echo inside", description = "Say it" } } }]
[[rule]]
name = "background"
when.last_user.contains = "in the background"
reply.blocks = [{ tool_use = { name = "Bash", input = { command = "until [ -e go ]; do sleep 0.1; done; echo from behind", description = "Wait", run_in_background = true } } }]
[[rule]]
name = "agent"
when.last_user.contains = "use an agent"
when.offers_tool = "Agent"
reply.blocks = [
    { tool_use = { name = "Agent", input = { description = "look", prompt = "look around inside", subagent_type = "general-purpose" } } },
]
[[rule]]
name = "wait"
when.last_user.contains = "wait for it"
reply.blocks = [{ tool_use = { name = "Bash", input = { command = "touch waiting; until [ -e go ]; do sleep 0.1; done; echo gone", description = "Wait" } } }]
[[rule]]
name = "back"
when.tool_result = {}
reply.text = "It is done: {{tool_result:60}}"
[[rule]]
name = "echo"
reply.text = "You said: {{last_user}}"
"#;

/// Of both CLIs the older one.
fn is_old(cli: &Cli) -> bool {
    cli.version == "2.1.197"
}

/// The result of a turn that is over, well or not.
#[track_caller]
fn result_of(session: &Session, text: &str) -> TurnResult {
    let sent = session.send(text);
    let path = session.path(&format!("/messages/{}?wait={}", sent.message_id, DEADLINE.as_secs()));
    let message: Message = session.http.get(&path).json();
    // Where it is not over, the screen says why.
    let shown = || (session.show().state, terminal::screen(session).rows.join("\n"));
    assert_eq!(message.state, MessageState::Answered, "{text}: {message:?} {:?}", shown());
    message.result.unwrap_or_else(|| panic!("{text}: answered without a result"))
}

/// Of each turn: what was said last, whether it failed, and what began it.
fn results(session: &Session) -> Vec<(String, bool, Value)> {
    let told = data_of(session, "result");
    let text = |result: &Value| result["result"].as_str().unwrap_or_default().to_owned();
    let failed = |result: &Value| result["is_error"].as_bool().unwrap();
    told.iter().map(|result| (text(result), failed(result), result["origin"]["kind"].clone())).collect()
}

/// What the model was asked since `before`: the rules that answered.
fn asked(world: &World, before: usize) -> Vec<String> {
    world.calls()[before..].iter().map(|call| call.rule.clone().unwrap_or_default()).collect()
}

#[test]
fn errors_refusals_and_limits_are_one_result_each_and_the_next_prompt_is_taken() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let session = terminal(daemon, json!({"env": {"CLAUDE_CODE_MAX_RETRIES": "3"}}));
        let table: [(&str, bool, &str, &[&str]); 5] = [
            ("run out of tokens", true, "and this the second", &["cut short", "rest"]),
            ("refuse this", false, "API Error: ", &["refusal"]),
            ("fail with 400", false, "API Error: 400 scripted", &["error"]),
            ("overloaded twice", true, "You said: overloaded twice", &["busy", "busy", "echo"]),
            ("overloaded always", false, "API Error: Repeated 529", &["never", "never", "never"]),
        ];
        let mut expected = Vec::new();
        for (text, ok, said, rules) in table {
            let before = world.calls().len();
            let result = result_of(&session, text);
            let mut heard = asked(world, before);
            let (mut ok, mut said, mut rules) = (ok, said, rules.to_vec());
            if !is_old(cli) && text == "refuse this" {
                // It is asked once more, in the same turn.
                (ok, said, rules) =
                    (true, "You said: Your response above was stopped", vec!["refusal", "echo"]);
            }
            // The newer one asks again, several times, whatever was wrong.
            heard.dedup_by(|next, one| !is_old(cli) && next == "error" && one == "error");
            assert_eq!(heard, rules, "{cli}: {text}");
            assert!(result.ok == ok && result.text.starts_with(said), "{cli}: {text}: {result:?}");
            assert_eq!(result.error.is_some(), !ok, "{cli}: {text}: {result:?}");
            expected.push((result.text, !ok, Value::Null));
            assert_eq!(session.wait_idle().turns, u32::try_from(expected.len()).unwrap(), "{cli}: {text}");
        }
        // 2.1.329 now shows a hint in its composer, which is no text.
        assert_eq!(session.ask("and now?"), "You said: and now?", "{cli}");
        expected.push(("You said: and now?".to_owned(), false, Value::Null));
        assert_eq!(results(&session), expected, "{cli}");
        let status: Vec<Value> =
            data_of(&session, "result").iter().map(|result| result["api_error_status"].clone()).collect();
        assert_eq!(status[2], 400, "{cli}: {status:?}");
    });
}

#[test]
fn what_goes_on_in_the_background_begins_a_turn_of_its_own() {
    each(CASTRA, SCRIPT, |cli, _, daemon| {
        let session = terminal(daemon, json!({"allowed_tools": ["Bash"]}));
        let begun = result_of(&session, "in the background");
        assert!(begun.ok && begun.text.contains("running in background"), "{cli}: {begun:?}");
        // A shell that still runs is no turn: the session is idle, and takes the next message.
        assert_eq!(result_of(&session, "still?").text, "You said: still?", "{cli}");
        assert_eq!(session.wait_idle().turns, 2, "{cli}");
        std::fs::write(work(&session).join("go"), "").unwrap();
        wait_until("the turn that its end begins", || session.show().turns == 3, DEADLINE);
        assert_eq!(session.wait_idle().pending, [], "{cli}");

        let agent = result_of(&session, "use an agent");
        assert!(agent.ok, "{cli}: {agent:?}");
        // The newer one has its agents in the background as well.
        let turns = if is_old(cli) { 4 } else { 5 };
        wait_until("the agent's end", || session.show().turns == turns, DEADLINE);
        let said = data_of(&session, "assistant");
        let by_agents: Vec<&Value> = said.iter().filter(|said| said["isSidechain"] == true).collect();
        assert!(!by_agents.is_empty(), "{cli}: what the agent says is said: {said:#?}");
        assert_eq!(session.ask("and now?"), "You said: and now?", "{cli}");
        session.wait_idle();
        let told = results(&session);
        let notified: Vec<usize> = (0..told.len()).filter(|at| told[*at].2 == "task-notification").collect();
        assert_eq!(notified, if is_old(cli) { vec![2] } else { vec![2, 4] }, "{cli}: {told:?}");
        assert!(told.iter().all(|(_, failed, _)| !failed), "{cli}: {told:?}");
        assert_eq!(told.len(), turns as usize + 1, "{cli}: {told:?}");
    });
}

/// A person's prompts are queued by claude itself.
#[test]
fn prompts_that_a_person_types_into_a_turn_leave_the_messages_their_results() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let session = terminal(daemon, json!({"allowed_tools": ["Bash"]}));
        let message = session.send("wait for it");
        wait_until("the tool", || work(&session).join("waiting").exists(), DEADLINE);
        let next = session.send("after it");
        for key in "typed".chars() {
            type_keys(&session, &[&key.to_string()]);
        }
        let shows = |text: &str| terminal::screen(&session).rows.iter().any(|row| row.starts_with(text));
        wait_until("a person's text", || shows("❯\u{a0}typed"), DEADLINE);
        type_keys(&session, &["Enter"]);
        wait_until("it to be queued", || !shows("❯\u{a0}typed"), DEADLINE);
        std::fs::write(work(&session).join("go"), "").unwrap();
        let first = session.answer_to(&message).result.expect("a result");
        assert!(first.ok, "{cli}: {first:?}");
        assert_eq!(session.answer_to(&next).result.expect("a result").text, "You said: after it", "{cli}");
        let heard = world.heard();
        assert_eq!(heard.iter().filter(|text| text.contains("typed")).count(), 1, "{cli}: {heard:?}");
        let shown = session.wait_idle();
        assert_eq!(results(&session).len(), shown.turns as usize, "{cli}");
        assert_eq!(session.ask("and now?"), "You said: and now?", "{cli}");
    });
}

/// Enter in a turn might answer a dialog that has just come.
#[test]
fn a_turn_on_a_terminal_cannot_be_joined() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let session = terminal(daemon, json!({"allowed_tools": ["Bash"]}));
        let message = session.send("wait for it");
        wait_until("the tool", || work(&session).join("waiting").exists(), DEADLINE);
        let refused = session.try_send(&json!({"text": "by the way", "if_busy": "steer"})).problem();
        assert_eq!((refused.status, refused.code), (400, ErrorCode::InvalidRequest), "{cli}");
        assert!(refused.detail.contains("cannot be joined"), "{cli}: {refused:?}");
        assert!(refused.hint.is_some_and(|hint| hint.contains("interrupt")), "{cli}");
        let refused = session.try_send(&json!({"text": "x", "if_busy": "reject"})).problem();
        assert_eq!(refused.code, ErrorCode::SessionBusy, "{cli}");
        let instead = session.try_send(&json!({"text": "instead", "if_busy": "interrupt"})).expect(202);
        assert_eq!(session.answer_to(&message).state, MessageState::Interrupted, "{cli}");
        let instead = session.answer_to(&instead).result.expect("a result");
        assert_eq!((instead.text.as_str(), instead.ok), ("You said: instead", true), "{cli}");
        assert_eq!(session.wait_state(RunState::Idle).queued, 0, "{cli}");
        assert_eq!(world.calls().len(), 2, "{cli}");
    });
}
