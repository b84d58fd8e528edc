//! Messages that castra sent, and what the state file alone tells.

use super::*;

#[test]
fn a_message_is_known_by_its_text() {
    let joined = with(
        link(2, 1),
        json!({"type": "attachment",
        "attachment": {"type": "queued_command", "prompt": "a  note ", "commandMode": "prompt"}}),
    );
    let task = with(
        user(5, 4, "<task-notification>x</task-notification>"),
        json!({"origin": {"kind": "task-notification"}}),
    );
    let log = Log::run(&[lines(&[user(1, 0, " /clear"), joined, text(3, 2, "m", "a"), over(4, 3), task])]);
    let mine = id(500);
    let sent = [(id(400), "other"), (mine, "/clear"), (id(600), "a  note")];
    let delivered: Vec<(String, Option<usize>)> = log
        .told
        .iter()
        .filter(|told| told.prompt.is_some())
        .map(|told| {
            let (line, index) = told.clone().delivered(&sent);
            assert_eq!(matches!(line.fact, Fact::UserReplay { .. }), index.is_some());
            (name(told), index)
        })
        .collect();
    assert_eq!(
        delivered,
        [("user 1".into(), Some(1)), ("attachment 2".into(), Some(2)), ("user 5".into(), None)]
    );
}

#[test]
fn a_dialog_of_claude_s_own_is_no_turn() {
    let mut log = Log::new(Tail::new());
    let waiting =
        State { status: Some(Status::Waiting), waiting_for: Some("dialog open".into()), ..State::default() };
    log.tail.state(1, 1, &waiting, &mut log.told);
    assert_eq!(log.tail.waiting_for(), Some("dialog open"));
    log.tail.state(2, 2, &State { status: Some(Status::Idle), ..State::default() }, &mut log.told);
    assert_eq!(log.names(), ["requires_action", "idle"]);
    assert_eq!((log.tail.waiting_for(), log.tail.hold()), (None, None));
    assert_eq!(log.told[0].line.fact, Fact::SessionState(SessionState::RequiresAction));
}

#[test]
fn a_turn_that_was_taken_back_is_over_when_the_screen_says_so() {
    let mut log = Log::run(&[Step::Status(Status::Busy)]);
    log.tail.taken_back(1, log.at, &mut log.told);
    assert_eq!(log.names(), ["running"], "claude is busy");
    log.step(&Step::Status(Status::Idle));
    log.step(&Step::Later(PATIENCE - 1));
    assert_eq!(log.names(), ["running"], "its records may be late");
    log.tail.taken_back(3, log.at, &mut log.told);
    assert_eq!(log.names(), ["running", "idle"]);
    assert_eq!((log.tail.hold(), log.tail.due()), (None, None));
    log.tail.taken_back(4, log.at, &mut log.told);
    assert_eq!(log.names(), ["running", "idle"]);
}

#[test]
fn a_turn_is_not_given_up_while_claude_works() {
    let mut log =
        Log::run(&[Step::Status(Status::Busy), lines(&[user(1, 0, "x")]), Step::Later(3600 * SECOND)]);
    assert_eq!((log.names(), log.tail.due()), (vec!["running".to_owned(), "user 1".to_owned()], None));
    log.step(&Step::Status(Status::Waiting));
    log.step(&Step::Later(3600 * SECOND));
    assert_eq!(log.names()[2..], ["requires_action"]);
    log.step(&Step::Status(Status::Busy));
    log.step(&Step::Status(Status::Idle));
    assert_eq!(log.tail.due(), Some(log.at + PATIENCE));
    log.step(&Step::Status(Status::Busy));
    assert_eq!(log.tail.due(), None);
    assert_eq!(log.tail.hold(), Some(1));
}
