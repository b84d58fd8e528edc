//! Tables, and transcripts that the real CLI wrote.

use super::*;
use serde_json::json;
use uuid::Uuid;

macro_rules! recorded {
    ($version:literal, $name:literal) => {
        include_bytes!(concat!("../../corpus/", $version, "/transcripts/", $name, ".jsonl")).as_slice()
    };
}

/// The uuid that corpus/record.py gives the message of this name.
fn uid(name: &str) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_DNS, name.as_bytes())
}

fn lines(records: &[Value]) -> Vec<u8> {
    records.iter().flat_map(|record| format!("{record}\n").into_bytes()).collect()
}

#[test]
fn keys_are_the_cli_s_own() {
    for (path, key) in [
        ("/", "-"),
        ("/tmp/a b_c.d", "-tmp-a-b-c-d"),
        ("/tmp/grüße", "-tmp-gr--e"),
        ("/tmp/😀", "-tmp---"),
        ("/A9", "-A9"),
    ] {
        assert_eq!(project_key(path), key, "{path}");
    }
    let at_the_limit = format!("/{}", "x".repeat(199));
    assert_eq!(project_key(&at_the_limit), format!("-{}", "x".repeat(199)));
    // As both versions named the folder of this one.
    let long = format!("/tmp/wr2/{}{}", "Ünï_😀.".repeat(12), "y".repeat(120));
    let key = format!("-tmp-wr2--n-----{}{}-4xhav5", "-n-----".repeat(11), "y".repeat(107));
    assert_eq!(project_key(&long), key);
    assert_ne!(project_key(&format!("/{}", "x".repeat(200))), project_key(&format!("/{}", "x".repeat(201))));
}

#[test]
fn a_message_is_found_in_records_and_in_attachments() {
    for (transcript, message, found) in [
        (recorded!("2.1.197", "joined"), "joined_1", Some(Found::User)),
        (recorded!("2.1.197", "joined"), "joined_2", Some(Found::Attachment)),
        (recorded!("2.1.329", "joined"), "joined_1", Some(Found::User)),
        (recorded!("2.1.329", "joined"), "joined_2", Some(Found::Attachment)),
        (recorded!("2.1.197", "joined"), "queued_1", None),
        // Of a merge claude keeps the last uuid only.
        (recorded!("2.1.197", "queued"), "queued_2", None),
        (recorded!("2.1.197", "queued"), "queued_3", Some(Found::User)),
        (recorded!("2.1.197", "queued"), "queued_4", None),
    ] {
        assert_eq!(find_uuid(transcript, uid(message)), found, "{message}");
    }
}

#[test]
fn what_became_of_a_message() {
    let answered = Some(Cutoff { answered: true, tool_in_flight: false });
    let cut = Some(Cutoff { answered: false, tool_in_flight: false });
    let in_tool = Some(Cutoff { answered: false, tool_in_flight: true });
    for (transcript, message, fate) in [
        (recorded!("2.1.197", "joined"), "joined_1", answered),
        (recorded!("2.1.197", "joined"), "joined_2", answered),
        (recorded!("2.1.329", "joined"), "joined_2", answered),
        (recorded!("2.1.197", "parallel"), "parallel", answered),
        (recorded!("2.1.329", "parallel"), "parallel", answered),
        (recorded!("2.1.197", "killed_in_stream"), "killed_in_stream", cut),
        (recorded!("2.1.329", "killed_in_stream"), "killed_in_stream", cut),
        (recorded!("2.1.197", "killed_in_tool"), "killed_in_tool", in_tool),
        (recorded!("2.1.329", "killed_in_tool"), "killed_in_tool", in_tool),
        (recorded!("2.1.197", "interrupt_stream"), "interrupt_stream", answered),
        (recorded!("2.1.197", "interrupt_stream"), "interrupt_stream_2", answered),
        (recorded!("2.1.197", "error_400"), "error_400", answered),
        (recorded!("2.1.197", "joined"), "unknown", None),
    ] {
        assert_eq!(cutoff(transcript, uid(message)), fate, "{message}");
    }
}

#[test]
fn a_turn_that_the_next_prompt_follows_is_judged_by_itself() {
    let (first, second) = (uid("a"), uid("b"));
    let call = json!([{"type": "tool_use", "id": "t", "name": "Bash", "input": {}}]);
    let transcript = lines(&[
        json!({"type": "user", "uuid": first, "message": {"content": "do it"}}),
        json!({"type": "assistant", "uuid": "c", "message": {"content": call, "stop_reason": "tool_use"}}),
        json!({"type": "user", "uuid": second, "message": {"content": "go on"}}),
        json!({"type": "assistant", "message": {"model": "<synthetic>", "stop_reason": "stop_sequence",
               "content": [{"type": "text", "text": "No response requested."}]}}),
    ]);
    assert_eq!(cutoff(&transcript, first), Some(Cutoff { answered: false, tool_in_flight: true }));
    assert_eq!(cutoff(&transcript, second), Some(Cutoff { answered: false, tool_in_flight: false }));
}

#[test]
fn previews_show_what_people_said() {
    let seen = preview(recorded!("2.1.197", "controls"));
    assert_eq!(
        seen,
        Preview {
            session_id: seen.session_id.clone(),
            title: Some("renamed".into()),
            cwd: Some("/tmp/castra-corpus/2.1.197/controls/work".into()),
            first_input: Some("hello".into()),
            last_input: Some("hello".into()),
            last_output: Some("A title.".into()),
        }
    );
    let slash = preview(recorded!("2.1.197", "slash"));
    assert_eq!(
        (slash.first_input, slash.last_output),
        (None, None),
        "commands are no input, their output no answer"
    );
    let subagent = preview(recorded!("2.1.197", "subagent"));
    assert_eq!(subagent.last_output.as_deref(), Some("The agent looked around."));
    assert_eq!(preview(b"not json\n\0\xff\n[1]\n{}"), Preview::default());
}

#[test]
fn what_claude_itself_says_as_the_user_is_no_input() {
    let user = |fields: Value| {
        let mut record = json!({"type": "user", "message": {"content": "hello"}});
        record.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        record
    };
    let content = |content: Value| user(json!({"message": {"content": content}}));
    for (record, said) in [
        (user(json!({})), Some("hello")),
        (
            content(json!([{"type": "text", "text": "a"}, {"type": "text", "text": "<system-reminder>x"}])),
            Some("a"),
        ),
        (content(json!([{"type": "image", "source": {}}])), Some("")),
        (user(json!({"isMeta": true})), None),
        (user(json!({"isSidechain": true})), None),
        (user(json!({"isCompactSummary": true})), None),
        (content(json!([{"type": "tool_result", "tool_use_id": "t"}])), None),
        (content(json!("<local-command-stdout>x</local-command-stdout>")), None),
        (content(json!("<command-name>/clear</command-name>")), None),
        (content(json!("[Request interrupted by user]")), None),
        (content(json!("  ")), None),
        (json!({"type": "assistant", "message": {"content": "hello"}}), None),
    ] {
        assert_eq!(prompt(&record).as_deref(), said, "{record}");
    }
}

fn said(entries: &[Entry]) -> Vec<(&'static str, Value)> {
    let message =
        |entry: &Entry| serde_json::from_slice::<Value>(&entry.line).unwrap()["message"]["content"].clone();
    entries.iter().map(|entry| (entry.kind, message(entry))).collect()
}

#[test]
fn results_of_parallel_calls_hang_beside_the_way_and_are_kept() {
    for transcript in [recorded!("2.1.197", "parallel"), recorded!("2.1.329", "parallel")] {
        let kinds: Vec<(&str, Value)> = said(&imported(transcript))
            .into_iter()
            .map(|(kind, content)| (kind, content[0]["type"].clone()))
            .collect();
        let [text, call, result] = ["text", "tool_use", "tool_result"].map(Value::from);
        assert_eq!(
            kinds,
            [
                ("user", Value::Null),
                ("assistant", text.clone()),
                ("assistant", call.clone()),
                ("assistant", call),
                ("user", result.clone()),
                ("user", result),
                ("assistant", text),
            ]
        );
    }
}

#[test]
fn an_imported_conversation_names_messages_by_their_own_uuids() {
    let entries = imported(recorded!("2.1.329", "joined"));
    let uuids: Vec<Option<Uuid>> =
        entries.iter().filter(|entry| entry.kind == "user").map(|entry| entry.uuid).collect();
    assert_eq!((uuids[0], uuids.last().copied().flatten()), (Some(uid("joined_1")), Some(uid("joined_2"))));
}

#[test]
fn a_branch_that_was_left_is_no_part_of_the_conversation() {
    let record = |kind: &str, uuid: &str, parent: Option<&str>, text: &str| json!({"type": kind, "uuid": uuid, "parentUuid": parent, "message": {"content": [{"type": "text", "text": text}]}});
    let transcript = lines(&[
        record("user", "1", None, "a"),
        record("assistant", "2", Some("1"), "b"),
        record("user", "3", Some("2"), "left"),
        record("user", "4", Some("2"), "taken"),
        json!({"type": "system", "subtype": "compact_boundary", "uuid": "5", "parentUuid": null, "logicalParentUuid": "4"}),
        record("assistant", "6", Some("5"), "c"),
        json!({"type": "last-prompt", "leafUuid": "6"}),
    ]);
    let texts: Vec<Value> =
        said(&imported(&transcript)).into_iter().map(|(_, content)| content[0]["text"].clone()).collect();
    assert_eq!(texts, ["a", "b", "taken", "c"]);
    let circle = lines(&[record("user", "1", Some("2"), "a"), record("assistant", "2", Some("1"), "b")]);
    assert_eq!(conversation(&circle).len(), 2);
}

#[test]
fn a_written_transcript_reads_back_as_it_was_meant() {
    let session = Uuid::from_u128(7);
    let text = |text: &str| json!({"type": "text", "text": text});
    let messages = [
        Spoken::User(vec![text("hello")]),
        Spoken::Assistant(vec![json!({"type": "thinking", "thinking": "hm"}), text("hi"), text(" ")]),
        Spoken::Assistant(vec![json!({"type": "thinking", "thinking": "nothing else"})]),
        Spoken::User(vec![text("bye")]),
    ];
    let bytes = write(session, "/w", "claude-sonnet-5", "2026-11-21T07:00:00.000Z", &messages);
    assert_eq!(bytes.last(), Some(&b'\n'));
    let chain = conversation(&bytes);
    let parents: Vec<&Value> = chain.iter().map(|record| &record["parentUuid"]).collect();
    assert_eq!(parents, [&Value::Null, &chain[0]["uuid"], &chain[1]["uuid"]]);
    assert_eq!(
        chain[1]["message"],
        json!({"role": "assistant", "model": "claude-sonnet-5", "content": [text("hi")]})
    );
    assert_eq!(preview(&bytes).last_input.as_deref(), Some("bye"));
    assert_eq!(bytes, write(session, "/w", "claude-sonnet-5", "2026-11-21T07:00:00.000Z", &messages));
}
