//! What is said to teams: to one agent, from one to another, to several side by side, and step by step.

use super::{Caller, Supervisor};
use crate::team::flow;
use crate::team::held::Held;
use crate::team::spec::{conversation, named};
use crate::team::talk::{Said, Talk};
use crate::team::template::{MESSAGE, Values, wrapped};
use crate::{Error, Result};
use castra_proto::api::SendMessage;
use castra_proto::team::{
    Answer, AnswerState, Answers, AskAgent, Fanout, FlowRun, Need, RouteAnswer, Routed, RunFlow, StepRun,
};
use castra_proto::{ErrorCode, TeamId};
use std::time::Duration;

impl Supervisor {
    /// Says something to one agent, which is started where it does not run, and waits at most so long for the result of
    /// the turn in which it was delivered. With `key` (Idempotency-Key) a retry is the same message, and gets its answer.
    ///
    /// Errors: `not_found` for another agent, and whatever keeps the message from being accepted. A turn that fails is
    /// an [`Answer`].
    pub async fn ask_agent(
        &self,
        id: TeamId,
        agent: &str,
        ask: AskAgent,
        key: Option<&str>,
        wait: Duration,
        caller: &Caller,
    ) -> Result<Answer> {
        Held::load(&self.engine, id).await?.agent(agent)?;
        let talk = Talk::new(self, id, caller, key, wait);
        let message = SendMessage {
            text: Some(ask.text),
            context: ask.context,
            if_busy: ask.if_busy,
            ..SendMessage::default()
        };
        let said =
            Said { agent: agent.to_owned(), key: ask.key, message, idempotency: key.map(str::to_owned) };
        let sent = talk.send(&said).await?;
        Ok(talk.answer(agent, said.key.as_deref(), sent).await)
    }

    /// Gives one agent's answer to another. What is no answer is not given on.
    ///
    /// Errors: `invalid_request` for what is no route, `not_found` for another agent, `conflict` where there is no
    /// answer yet to give on, and the error of a turn that failed.
    pub async fn route(
        &self,
        id: TeamId,
        route: &RouteAnswer,
        key: Option<&str>,
        wait: Duration,
        caller: &Caller,
    ) -> Result<Routed> {
        let team = Held::load(&self.engine, id).await?;
        team.agent(&route.to)?;
        let talk = Talk::new(self, id, caller, key, wait);
        let said = |agent: &str, part: &str, text: String| Said {
            agent: agent.to_owned(),
            key: route.key.clone(),
            message: text.into(),
            idempotency: key.map(|key| format!("team:route:{part}:{key}")),
        };
        let mut routed = Routed { state: AnswerState::Waiting, asked: None, answer: None };
        let message = match (&route.from, &route.text) {
            (None, None) => {
                return Err(Error::with_hint(
                    ErrorCode::InvalidRequest,
                    "there is nothing to route",
                    "give `text`, or `from` for that agent's answer, or both to ask it first",
                ));
            }
            (None, Some(text)) => text.clone(),
            (Some(from), text) => {
                team.agent(from)?;
                match text {
                    Some(text) => {
                        let asked = talk.ask(&said(from, "asked", text.clone())).await;
                        routed.state = asked.state;
                        let text = asked.text.clone();
                        routed.asked = Some(asked);
                        match text {
                            Some(text) => text,
                            None => return Ok(routed),
                        }
                    }
                    None => {
                        // Given on once: what the agent has answered since is another message.
                        if let Some(sent) = talk.known(&said(&route.to, "to", String::new())).await? {
                            let answer = talk.answer(&route.to, route.key.as_deref(), sent).await;
                            return Ok(Routed { state: answer.state, asked: None, answer: Some(answer) });
                        }
                        self.newest_answer(&team, from, route.key.as_deref()).await?
                    }
                }
            }
        };
        let text = wrapped(route.wrap.as_deref(), &message);
        let answer = talk.ask(&said(&route.to, "to", text)).await;
        Ok(Routed { state: answer.state, answer: Some(answer), ..routed })
    }

    async fn newest_answer(&self, team: &Held, agent: &str, key: Option<&str>) -> Result<String> {
        let session = team.session(agent, conversation(key)?);
        let result = match session {
            Some(session) => self.newest_result(session).await?,
            None => None,
        };
        match result {
            Some(result) if result.ok => Ok(result.text),
            Some(result) => Err(Error::Turn(Box::new(result))),
            None => Err(Error::with_hint(
                ErrorCode::Conflict,
                format!("agent {agent:?} has not answered anything yet"),
                "give `text` too, and it is asked first",
            )),
        }
    }

    /// Says the same to several agents, side by side. Each has its answer or its error; none waits for another.
    ///
    /// Errors: `not_found` for another agent, before anything is said.
    pub async fn fan_out(
        &self,
        id: TeamId,
        fanout: &Fanout,
        key: Option<&str>,
        wait: Duration,
        caller: &Caller,
    ) -> Result<Answers> {
        let team = Held::load(&self.engine, id).await?;
        named(&team.spec, fanout.agents.iter().map(String::as_str))?;
        conversation(fanout.key.as_deref())?;
        let agents = match fanout.agents.is_empty() {
            true => team.spec.agents.into_keys().collect(),
            false => fanout.agents.clone(),
        };
        let talk = Talk::new(self, id, caller, key, wait);
        let answers = talk.ask_all(agents.into_iter().map(|agent| Said {
            agent,
            key: fanout.key.clone(),
            message: fanout.text.as_str().into(),
            idempotency: key.map(|key| format!("team:fanout:{key}")),
        }));
        let answers = answers.await;
        Ok(Answers { state: flow::state(Need::All, &answers), answers })
    }

    /// Runs the team's flow from its first step; returns when it is over, when more than `seen` steps are, or after
    /// `wait`. It goes on while somebody waits for it: asked for again with its `key` (Idempotency-Key), it says nothing
    /// twice and goes on where it was.
    ///
    /// Errors: `invalid_request` for a team without a flow, and for a flow that needs a message and has none.
    pub async fn run_flow(
        &self,
        id: TeamId,
        run: &RunFlow,
        key: Option<&str>,
        seen: usize,
        wait: Duration,
        caller: &Caller,
    ) -> Result<FlowRun> {
        let team = Held::load(&self.engine, id).await?;
        let flow = &team.spec.flow;
        conversation(run.key.as_deref())?;
        let refuse =
            |detail: &str, hint: &str| Err(Error::with_hint(ErrorCode::InvalidRequest, detail, hint));
        if flow.is_empty() {
            return refuse("the team has no flow", "name its steps under `flow`");
        }
        if run.message.is_none() && flow::takes_message(flow) {
            return refuse("the flow has a place for a message, and there is none", "give `message`");
        }
        let talk = Talk::new(self, id, caller, key, wait);
        let mut values: Values = run.message.iter().map(|text| (MESSAGE.to_owned(), text.clone())).collect();
        let of = u32::try_from(flow.len()).unwrap_or(u32::MAX);
        let mut done = FlowRun { state: AnswerState::Waiting, steps: Vec::new(), of };
        for (step, n) in flow.iter().zip(1_u32..) {
            let text = flow::text(step, &values);
            let answers = talk.ask_all(flow::agents(step).map(|agent| Said {
                agent: agent.to_owned(),
                key: step.key.clone().or_else(|| run.key.clone()),
                message: text.as_str().into(),
                idempotency: key.map(|key| format!("team:flow:{n}:{key}")),
            }));
            let answers = answers.await;
            let state = flow::state(step.need, &answers);
            flow::keep(step, &answers, &mut values);
            done.steps.push(StepRun { n, as_: step.as_.clone(), state, answers });
            if state != AnswerState::Answered {
                done.state = state;
                return Ok(done);
            }
            if n < of && done.steps.len() > seen {
                return Ok(done);
            }
        }
        done.state = AnswerState::Answered;
        Ok(done)
    }
}
