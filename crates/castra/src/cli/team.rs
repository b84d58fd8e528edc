//! `castra team`: its verbs, and what becomes of a team as a whole. What is said to one is in `talk`, a flow in `run`.

mod run;
mod show;
mod talk;

use super::Ctx;
use super::failure::Failure;
use super::task::file;
use crate::client::Client;
use castra_proto::team::{ClearTeam, StopTeam};
use castra_proto::{Team, TeamSpec};
use clap::{Args, Subcommand};
use serde_json::json;
use std::path::{Path, PathBuf};
use uuid::Uuid;

#[derive(Subcommand, Debug)]
pub(super) enum TeamCommand {
    /// Make a team of a file and start its agents; print the team's id
    Up(UpArgs),
    /// Say something to an agent, without waiting for its answer
    Send(talk::SendArgs),
    /// Ask an agent, and print its answer
    Ask(talk::AskArgs),
    /// Give an agent's answer, or a text, to another agent, and print that one's answer
    Route(talk::RouteArgs),
    /// Ask several agents the same, side by side
    Fanout(talk::FanoutArgs),
    /// Run the flow of a team, or of a file whose team is made for it and removed afterwards
    Run(run::RunArgs),
    /// What each agent does, and has said last
    Status(StatusArgs),
    /// Print the id of an agent's session, for `castra attach`, `logs` and all others
    Session(SessionArgs),
    /// Begin conversations anew: the next message is the first that is said
    Clear(ClearArgs),
    /// Stop an agent, or all: none of their processes is left
    Stop(StopArgs),
    /// List teams
    List,
    /// Remove teams and all their sessions
    Rm(RmArgs),
    /// Print the JSON Schema of a team file
    Schema,
}

/// Which team.
#[derive(Args, Debug)]
pub(super) struct Of {
    /// The team: id, unique prefix, or name. The only one that there is when unset
    #[arg(long, value_name = "TEAM")]
    team: Option<String>,
}

impl Of {
    async fn find(&self, client: &Client) -> Result<String, Failure> {
        match &self.team {
            Some(team) => Ok(team.clone()),
            None => the_only_one(client).await,
        }
    }
}

async fn the_only_one(client: &Client) -> Result<String, Failure> {
    let teams = client.teams().await?;
    match teams.as_slice() {
        [team] => Ok(team.id.to_string()),
        [] => Err(Failure::usage("there is no team").hint("`castra team up FILE` makes one")),
        several => {
            let names: Vec<String> = several.iter().map(show::name).collect();
            let failure = Failure::usage(format!("there are {} teams", several.len()));
            Err(failure.hint(format!("say which with --team: {}", names.join(", "))))
        }
    }
}

/// A team file, and what is laid over it.
#[derive(Args, Debug)]
pub(super) struct Laid {
    /// A name, usable wherever an id is
    #[arg(long)]
    name: Option<String>,
    /// The real CLI against a scripted model: no account, no cost
    #[arg(long)]
    demo: bool,
}

#[derive(Args, Debug)]
pub(super) struct UpArgs {
    /// The team: TOML, YAML or JSON; `-` reads YAML or JSON from stdin
    file: PathBuf,
    #[command(flatten)]
    laid: Laid,
    /// Keep what could be started when an agent could not
    #[arg(long)]
    keep: bool,
}

#[derive(Args, Debug)]
pub(super) struct StatusArgs {
    /// Team: id, unique prefix, or name. The only one that there is when unset
    team: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct SessionArgs {
    agent: String,
    /// The conversation
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    #[command(flatten)]
    of: Of,
}

#[derive(Args, Debug)]
pub(super) struct ClearArgs {
    /// Only with this agent
    agent: Option<String>,
    /// Of this conversation, instead of the one without a key
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    #[command(flatten)]
    of: Of,
}

#[derive(Args, Debug)]
pub(super) struct StopArgs {
    agent: Option<String>,
    /// All agents of the team
    #[arg(long, conflicts_with = "agent")]
    all: bool,
    #[command(flatten)]
    of: Of,
}

#[derive(Args, Debug)]
pub(super) struct RmArgs {
    /// Teams: ids, unique prefixes, or names
    #[arg(required = true, value_name = "TEAM")]
    teams: Vec<String>,
    /// Stop them first
    #[arg(long)]
    force: bool,
}

/// The team of the file, with what the flags lay over it. Relative folders of the file are relative to it.
fn build(path: &Path, laid: Laid, cwd: &Path) -> Result<TeamSpec, Failure> {
    let (mut spec, folder): (TeamSpec, _) = file::load(path, cwd, "team")?;
    if laid.name.is_some() {
        spec.name = laid.name;
    }
    for agent in spec.agents.values_mut() {
        let session = &mut agent.session;
        session.workdir =
            session.workdir.take().map(|workdir| file::absolute(&folder, Path::new(&workdir))).transpose()?;
        session.demo |= laid.demo;
    }
    Ok(spec)
}

pub(super) async fn team(command: TeamCommand, ctx: Ctx) -> Result<(), Failure> {
    match command {
        TeamCommand::Up(args) => up(args, ctx).await,
        TeamCommand::Send(args) => talk::send(args, ctx).await,
        TeamCommand::Ask(args) => talk::ask(args, ctx).await,
        TeamCommand::Route(args) => talk::route(args, ctx).await,
        TeamCommand::Fanout(args) => talk::fanout(args, ctx).await,
        TeamCommand::Run(args) => run::run(args, ctx).await,
        TeamCommand::Status(args) => {
            let client = ctx.client().await?;
            let team = match args.team {
                Some(team) => team,
                None => the_only_one(&client).await?,
            };
            show::status(&client.team(&team).await?, &ctx.out)
        }
        TeamCommand::Session(args) => session(args, ctx).await,
        TeamCommand::Clear(args) => {
            let client = ctx.client().await?;
            let request = ClearTeam { agent: args.agent, key: args.key };
            let team = client.clear_team(&args.of.find(&client).await?, &request).await?;
            said(&team, &ctx)
        }
        TeamCommand::Stop(args) => {
            if args.agent.is_none() && !args.all {
                return Err(Failure::usage("which agent?").hint("name one, or say --all"));
            }
            let client = ctx.client().await?;
            let request = StopTeam { agent: args.agent };
            let team = client.stop_team(&args.of.find(&client).await?, &request).await?;
            said(&team, &ctx)
        }
        TeamCommand::List => show::list(&ctx.client().await?.teams().await?, &ctx.out),
        TeamCommand::Rm(args) => {
            let client = ctx.client().await?;
            for team in &args.teams {
                client.remove_team(team, args.force).await?;
                ctx.out.either(&json!({ "removed": team }), || team.clone())?;
            }
            Ok(())
        }
        TeamCommand::Schema => Ok(()),
    }
}

fn said(team: &Team, ctx: &Ctx) -> Result<(), Failure> {
    ctx.out.either(team, || team.id.to_string())
}

async fn up(args: UpArgs, ctx: Ctx) -> Result<(), Failure> {
    let spec = build(&args.file, args.laid, &std::env::current_dir()?)?;
    let team = ctx.client().await?.create_team(&spec, args.keep, &Uuid::new_v4().to_string()).await?;
    said(&team, &ctx)?;
    let first = team.agents.keys().next();
    if let (false, Some(agent)) = (ctx.out.json, first) {
        ctx.out.hint(&format!("castra team ask {agent} TEXT --team {}", show::name(&team)));
    }
    Ok(())
}

async fn session(args: SessionArgs, ctx: Ctx) -> Result<(), Failure> {
    let client = ctx.client().await?;
    let team = client.team(&args.of.find(&client).await?).await?;
    let Some(agent) = team.agents.get(&args.agent) else {
        let known: Vec<&str> = team.agents.keys().map(String::as_str).collect();
        let failure = Failure::new(format!("the team has no agent {:?}", args.agent));
        return Err(failure.hint(format!("it has {}", known.join(", "))));
    };
    let found = agent.conversations.iter().find(|one| one.key == args.key);
    match found.and_then(|one| one.session_id) {
        Some(id) => ctx.out.either(&json!({ "session_id": id }), || id.to_string()),
        None => Err(Failure::new(format!("agent {:?} has no such conversation", args.agent))
            .hint("the first message to it begins it")),
    }
}
