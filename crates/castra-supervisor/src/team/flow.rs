//! A flow: what its steps ask, and what becomes of their answers. Pure.

use super::template::{MESSAGE, Values, fill, names};
use castra_proto::TeamSpec;
use castra_proto::team::{Answer, AnswerState, Need, Step};
use std::collections::BTreeSet;

/// Steps of one flow.
const MOST: usize = 100;

/// Why a flow cannot be run.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("the flow has more than {MOST} steps")]
    TooLong,
    #[error("step {0} must have exactly one of `ask`, `route` and `fanout`")]
    Kind(usize),
    #[error("step {step} needs `{field}`")]
    Missing { step: usize, field: &'static str },
    #[error("step {step} has `{field}`, which says nothing there")]
    Idle { step: usize, field: &'static str },
    #[error("step {step}: the team has no agent {agent:?}")]
    NoAgent { step: usize, agent: String },
    #[error("step {step} names agent {agent:?} twice")]
    Twice { step: usize, agent: String },
    #[error("step {step}: no earlier step is `as: {name}`")]
    NoAnswer { step: usize, name: String },
    #[error("step {step}: `as: {name}` is taken, or no name of letters, digits, `_` and `-`")]
    Name { step: usize, name: String },
    #[error("step {0}: a key has 1 to 255 bytes and no control characters")]
    Key(usize),
}

/// Refuses a flow that could not be run to its end.
pub(crate) fn check(spec: &TeamSpec) -> Result<(), Fault> {
    if spec.flow.len() > MOST {
        return Err(Fault::TooLong);
    }
    let mut known = BTreeSet::from([MESSAGE.to_owned()]);
    for (step, at) in spec.flow.iter().zip(1..) {
        check_step(spec, step, at, &known)?;
        if let Some(name) = &step.as_ {
            let good =
                !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
            if !good || !known.insert(name.clone()) {
                return Err(Fault::Name { step: at, name: name.clone() });
            }
        }
    }
    Ok(())
}

fn check_step(spec: &TeamSpec, step: &Step, at: usize, known: &BTreeSet<String>) -> Result<(), Fault> {
    let kinds = [step.ask.is_some(), step.route.is_some(), !step.fanout.is_empty()];
    if kinds.iter().filter(|is| **is).count() != 1 {
        return Err(Fault::Kind(at));
    }
    let fields =
        [("text", step.text.is_some()), ("from", step.from.is_some()), ("wrap", step.wrap.is_some())];
    let (needed, idle) = if step.route.is_some() { ("from", "text") } else { ("text", "from") };
    for (field, there) in fields {
        if field == needed && !there {
            return Err(Fault::Missing { step: at, field });
        }
        if there && (field == idle || (field == "wrap" && step.route.is_none())) {
            return Err(Fault::Idle { step: at, field });
        }
    }
    if step.need == Need::Any && step.fanout.is_empty() {
        return Err(Fault::Idle { step: at, field: "need" });
    }
    if let Some(name) = &step.from
        && (name == MESSAGE || !known.contains(name))
    {
        return Err(Fault::NoAnswer { step: at, name: name.clone() });
    }
    let mut seen = BTreeSet::new();
    for agent in agents(step) {
        if !spec.agents.contains_key(agent) {
            return Err(Fault::NoAgent { step: at, agent: agent.to_owned() });
        }
        if !seen.insert(agent) {
            return Err(Fault::Twice { step: at, agent: agent.to_owned() });
        }
    }
    if super::spec::conversation(step.key.as_deref()).is_err() {
        return Err(Fault::Key(at));
    }
    Ok(())
}

/// Whoever is asked in a step.
pub(crate) fn agents(step: &Step) -> impl Iterator<Item = &str> {
    step.ask.iter().chain(&step.route).chain(&step.fanout).map(String::as_str)
}

/// Whether the flow has a place for what it is run with.
pub(crate) fn takes_message(flow: &[Step]) -> bool {
    flow.iter().any(|step| step.text.as_ref().is_some_and(|text| names(text, MESSAGE)))
}

/// What is said in a step.
pub(crate) fn text(step: &Step, values: &Values) -> String {
    let Some(from) = &step.from else { return fill(step.text.as_deref().unwrap_or_default(), values) };
    let answer = values.get(from).cloned().unwrap_or_default();
    let Some(wrap) = &step.wrap else { return answer };
    let mut values = values.clone();
    values.insert(MESSAGE.to_owned(), answer);
    fill(wrap, &values)
}

/// Of all answers together.
pub(crate) fn state(need: Need, answers: &[Answer]) -> AnswerState {
    let any = |state| answers.iter().any(|answer| answer.state == state);
    if any(AnswerState::Waiting) {
        AnswerState::Waiting
    } else if any(AnswerState::Failed) && !(need == Need::Any && any(AnswerState::Answered)) {
        AnswerState::Failed
    } else {
        AnswerState::Answered
    }
}

/// What later steps may name.
pub(crate) fn keep(step: &Step, answers: &[Answer], values: &mut Values) {
    let Some(name) = &step.as_ else { return };
    let said = || answers.iter().filter_map(|answer| Some((answer.agent.as_str(), answer.text.as_deref()?)));
    if step.fanout.is_empty() {
        values.extend(said().map(|(_, text)| (name.clone(), text.to_owned())));
        return;
    }
    let all: Vec<String> = said().map(|(agent, text)| format!("{agent}:\n{text}")).collect();
    values.extend(said().map(|(agent, text)| (format!("{name}.{agent}"), text.to_owned())));
    values.insert(name.clone(), all.join("\n\n"));
}

#[cfg(test)]
#[path = "flow_tests.rs"]
mod tests;
