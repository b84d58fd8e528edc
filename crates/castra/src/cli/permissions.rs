//! `castra permissions`, `approve`, `deny`: answers to what a session waits for.

use super::Ctx;
use super::ask;
use super::failure::Failure;
use super::sessions::{OneArg, ago, now};
use super::spec::json_or_file;
use crate::client::Client;
use castra_proto::permission::{PermissionAnswer, PermissionKind, PermissionRequest, PermissionState};
use clap::Args;
use serde_json::{Value, json};

#[derive(Args, Debug)]
pub(super) struct ApproveArgs {
    /// Session: id, unique prefix, or name
    id: String,
    /// The request; may be left out when only one waits
    request: Option<String>,
    /// Run this input instead
    #[arg(long, value_name = "JSON|@FILE")]
    input: Option<String>,
    /// Apply claude's own suggestion, so that this session does not ask again
    #[arg(long)]
    remember: bool,
    /// Answer a question: QUESTION=ANSWER, or just ANSWER when there is one; repeatable
    #[arg(long, value_name = "Q=A", conflicts_with = "input")]
    answer: Vec<String>,
    /// Only if the input is still this one (its hash, from `castra permissions --json`)
    #[arg(long, value_name = "HASH")]
    input_hash: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct DenyArgs {
    /// Session: id, unique prefix, or name
    id: String,
    /// The request; may be left out when only one waits
    request: Option<String>,
    /// Why not, for claude to read
    #[arg(short, long, default_value = ask::REFUSED)]
    message: String,
    /// End the turn as well
    #[arg(long)]
    interrupt: bool,
}

pub(super) async fn list(args: OneArg, ctx: Ctx) -> Result<(), Failure> {
    let requests = ctx.client().await?.permissions(&args.id).await?;
    if ctx.out.json {
        return ctx.out.json(&json!({ "items": requests, "next": null }));
    }
    if requests.is_empty() {
        ctx.out.note("nothing waits for an answer");
    }
    for request in &requests {
        let waiting = match request.state {
            PermissionState::Pending => format!("waiting for {}", ago(now().seconds_since(request.since))),
            _ => "decided".into(),
        };
        ctx.out.line(&format!("{} ({waiting})", request.request_id))?;
        for (_, line) in ask::show(request) {
            ctx.out.line(&format!("  {line}"))?;
        }
    }
    Ok(())
}

/// The request that is meant: named by id or a unique prefix of it, or the only one.
async fn find(client: &Client, id: &str, request: Option<&str>) -> Result<PermissionRequest, Failure> {
    let pending = client.permissions(id).await?;
    let mut found: Vec<PermissionRequest> = pending
        .into_iter()
        .filter(|candidate| match request {
            Some(request) => candidate.request_id.starts_with(request),
            None => candidate.state == PermissionState::Pending,
        })
        .collect();
    if let Some(exact) = request.and_then(|id| found.iter().position(|found| found.request_id == id)) {
        return Ok(found.swap_remove(exact));
    }
    match (found.pop(), found.len(), request) {
        (Some(only), 0, _) => Ok(only),
        (Some(_), _, Some(request)) => Err(Failure::usage(format!("`{request}` fits several requests"))),
        (Some(_), more, None) => Err(Failure::usage(format!("{} requests wait: say which", more + 1))),
        (None, _, Some(request)) => Err(Failure::new(format!("no request `{request}` waits for an answer"))),
        (None, _, None) => Err(Failure::new("nothing waits for an answer")),
    }
    .map_err(|failure: Failure| failure.hint(format!("`castra permissions {id}` lists them")))
}

pub(super) async fn approve(args: ApproveArgs, ctx: Ctx) -> Result<(), Failure> {
    let client = ctx.client().await?;
    let request = find(&client, &args.id, args.request.as_deref()).await?;
    let mut answer = PermissionAnswer { remember: args.remember, ..ask::allow(&request) };
    if let Some(hash) = args.input_hash {
        answer.input_hash = Some(hash);
    }
    if let Some(input) = &args.input {
        answer.updated_input = Some(json_or_file("--input", input, &std::env::current_dir()?)?);
    } else if request.kind == PermissionKind::Question {
        answer.updated_input = Some(question(&request.input, &args.answer)?);
    } else if !args.answer.is_empty() {
        return Err(Failure::usage("--answer is for questions; this one asks for permission"));
    }
    if args.remember {
        for rule in ask::rules(&request.suggestions) {
            ctx.out.note(&format!("from now on: {rule}"));
        }
    }
    decide(&client, &args.id, &request, &answer, "allowed", &ctx).await
}

pub(super) async fn deny(args: DenyArgs, ctx: Ctx) -> Result<(), Failure> {
    let client = ctx.client().await?;
    let request = find(&client, &args.id, args.request.as_deref()).await?;
    let answer = PermissionAnswer { interrupt: args.interrupt, ..ask::deny(&request, &args.message) };
    decide(&client, &args.id, &request, &answer, "denied", &ctx).await
}

async fn decide(
    client: &Client,
    id: &str,
    request: &PermissionRequest,
    answer: &PermissionAnswer,
    verb: &str,
    ctx: &Ctx,
) -> Result<(), Failure> {
    let decided = client.answer_permission(id, &request.request_id, answer).await?;
    ctx.out.either(&decided, || format!("{verb} {} {}", decided.tool, decided.request_id))
}

/// `Q=A` by the question's text, or its beginning; a bare answer goes to the question of the same place.
fn question(input: &Value, given: &[String]) -> Result<Value, Failure> {
    let questions: Vec<&str> = input["questions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|question| question["question"].as_str().unwrap_or_default())
        .collect();
    let mut found: Vec<Option<String>> = vec![None; questions.len()];
    for (n, text) in given.iter().enumerate() {
        let named = text.split_once('=').and_then(|(name, answer)| {
            let at = questions.iter().position(|question| !name.is_empty() && question.starts_with(name))?;
            Some((at, answer.to_owned()))
        });
        let (at, answer) = named.unwrap_or((n, text.clone()));
        match found.get_mut(at) {
            Some(place) => *place = Some(answer),
            None => return Err(Failure::usage(format!("there is no question for the answer `{text}`"))),
        }
    }
    match found.iter().position(Option::is_none) {
        Some(missing) => Err(Failure::usage(format!("no answer to `{}`", questions[missing]))
            .hint("castra approve ID --answer 'QUESTION=ANSWER'")),
        None => Ok(ask::answers(input, |n| found.get(n).cloned().flatten())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_find_their_questions() {
        let input = json!({"questions":[
            {"question":"Which colour?","options":[{"label":"red"},{"label":"blue"}]},
            {"question":"How many?","options":[]},
        ]});
        let table: &[(&[&str], Result<Value, &str>)] = &[
            (&["2", "five"], Ok(json!({"Which colour?":"blue","How many?":"five"}))),
            (&["How many?=5", "Which=red"], Ok(json!({"Which colour?":"red","How many?":"5"}))),
            (&["a=b", "c"], Ok(json!({"Which colour?":"a=b","How many?":"c"}))),
            (&["red"], Err("no answer to `How many?`")),
            (&["a", "b", "c"], Err("there is no question for the answer `c`")),
        ];
        for (given, expected) in table {
            let given: Vec<String> = given.iter().map(|text| (*text).into()).collect();
            let answers = question(&input, &given).map(|updated| updated["answers"].clone());
            let answers = answers.map_err(|failure| failure.message.unwrap_or_default());
            assert_eq!(answers, expected.clone().map_err(String::from), "{given:?}");
        }
    }
}
