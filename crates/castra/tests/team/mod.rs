//! What the tests of teams share: agents that fail, are slow, hang or remember, by what they are told they are.
#![allow(dead_code, reason = "each test program uses a part")]

use castra_proto::Team as Shown;
use castra_proto::team::{Answer, AnswerState, Answers, Conversation};
use castra_testkit::{DEADLINE, Daemon, Http, Reply, Session, World};
use serde_json::{Value, json};

pub(crate) const CASTRA: &str = env!("CARGO_BIN_EXE_castra");

pub(crate) const SCRIPT: &str = r#"
[[rule]]
name = "memory"
when.last_user.contains = "what was said before"
reply.text = "before: {{user_texts}}"
[[rule]]
name = "fail"
when.system_contains = "YOU FAIL"
reply.error = { status = 400, message = "scripted" }
[[rule]]
name = "slow"
when.system_contains = "YOU ARE SLOW"
reply.text = "slowly: {{last_user}}"
reply.start_delay_ms = 3000
[[rule]]
name = "hang"
when.last_user.contains = "hang"
reply.text = "I will be silent"
reply.stall = { after_chars = 5, forever = true }
[[rule]]
name = "late"
when.last_user.contains = "late"
reply.text = "at last: {{last_user}}"
reply.start_delay_ms = 4000
[[rule]]
name = "else"
reply.text = "heard: {{last_user}}"
"#;

/// A team, as an API client has it.
pub(crate) struct Team {
    pub(crate) http: Http,
    pub(crate) id: String,
}

/// Agents that talk to the world's model: by name, what they are told they are.
pub(crate) fn spec(world: &World, agents: &[(&str, &str)]) -> Value {
    let mut spec = json!({"agents": {}});
    for (name, are) in agents {
        let fields = if are.is_empty() { json!({}) } else { json!({"append_system_prompt": are}) };
        spec["agents"][*name] = json!({"session": world.spec(fields)});
    }
    spec
}

impl Team {
    #[track_caller]
    pub(crate) fn up(world: &World, daemon: &Daemon<'_>, agents: &[(&str, &str)]) -> Self {
        Self::of(daemon, &spec(world, agents))
    }

    #[track_caller]
    pub(crate) fn of(daemon: &Daemon<'_>, spec: &Value) -> Self {
        let http = daemon.http();
        let shown: Shown = http.post("/api/v1/teams", spec).expect(201);
        Self { http, id: shown.id.to_string() }
    }

    pub(crate) fn path(&self, below: &str) -> String {
        format!("/api/v1/teams/{}{below}", self.id)
    }

    #[track_caller]
    pub(crate) fn show(&self) -> Shown {
        self.http.get(&self.path("")).expect(200)
    }

    pub(crate) fn post(&self, below: &str, body: &Value) -> Reply {
        self.http.post(&self.path(below), body)
    }

    pub(crate) fn post_once(&self, below: &str, key: &str, body: &Value) -> Reply {
        self.http.post_with(&self.path(below), &[("Idempotency-Key", key)], body)
    }

    /// The answer of an agent in a conversation.
    #[track_caller]
    pub(crate) fn ask(&self, agent: &str, text: &str, key: Option<&str>) -> String {
        let below = format!("/agents/{agent}/messages?wait={}", DEADLINE.as_secs());
        let answer: Answer = self.post(&below, &json!({"text": text, "key": key})).expect(200);
        assert_eq!(answer.state, AnswerState::Answered, "{answer:?}");
        answer.text.expect("an answer")
    }

    #[track_caller]
    pub(crate) fn fanout(&self, text: &str) -> Answers {
        let below = format!("/fanout?wait={}", DEADLINE.as_secs());
        self.post(&below, &json!({"text": text})).expect(200)
    }

    /// A conversation of an agent.
    #[track_caller]
    pub(crate) fn conversation(&self, agent: &str, key: Option<&str>) -> Conversation {
        let shown = self.show();
        let all = &shown.agents[agent].conversations;
        all.iter().find(|one| one.key.as_deref() == key).unwrap_or_else(|| panic!("{all:?}")).clone()
    }

    #[track_caller]
    pub(crate) fn session(&self, agent: &str, key: Option<&str>) -> Session {
        let id = self.conversation(agent, key).session_id.expect("a session");
        Session::of(self.http.clone(), id.to_string())
    }

    /// All its sessions, also those of conversations that were cleared.
    #[track_caller]
    pub(crate) fn sessions(&self) -> Vec<castra_proto::Session> {
        let page: castra_proto::api::Page<castra_proto::Session> =
            self.http.get("/api/v1/sessions?all=true&limit=500").expect(200);
        page.items
    }
}

/// State and text, or code of the error, of each.
pub(crate) fn brief(answers: &[Answer]) -> Vec<(String, AnswerState, String)> {
    let said = |answer: &Answer| match (&answer.text, &answer.error) {
        (Some(text), None) => text.clone(),
        (None, Some(error)) => error.code.as_str().to_owned(),
        (None, None) => String::new(),
        (Some(_), Some(_)) => panic!("both: {answer:?}"),
    };
    answers.iter().map(|answer| (answer.agent.clone(), answer.state, said(answer))).collect()
}
