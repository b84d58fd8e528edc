//! `castra token`: make, list and revoke API tokens.

use super::Ctx;
use super::escape::one_line;
use super::failure::Failure;
use castra_proto::api::{CreateToken, Scope, Token};
use clap::Subcommand;
use serde_json::json;

#[derive(Subcommand, Debug)]
pub(super) enum TokenCommand {
    /// Make a token and print it; it is shown this once
    Create {
        /// read, drive, approve or admin; each contains the ones before it
        #[arg(long, value_parser = scope)]
        scope: Scope,
        #[arg(long)]
        name: Option<String>,
        /// It may see and drive this session only
        #[arg(long, value_name = "ID")]
        session: Option<String>,
        /// Until it expires, e.g. 12h, 30d; unset: never
        #[arg(long, value_name = "DURATION", value_parser = super::spec::duration)]
        ttl: Option<u64>,
    },
    /// List tokens, without their secrets
    #[command(alias = "ls")]
    List,
    /// Revoke tokens
    Rm {
        #[arg(required = true, value_name = "TOKEN-ID")]
        ids: Vec<String>,
    },
}

fn scope(text: &str) -> Result<Scope, &'static str> {
    Scope::parse(text).ok_or("read, drive, approve or admin")
}

pub(super) async fn tokens(command: TokenCommand, ctx: Ctx) -> Result<(), Failure> {
    let client = ctx.client().await?;
    match command {
        TokenCommand::Create { scope, name, session, ttl } => {
            let session_id = match session {
                Some(session) => Some(client.show(&session).await?.id),
                None => None,
            };
            let created = client.create_token(&CreateToken { scope, name, session_id, ttl_s: ttl }).await?;
            ctx.out.either(&created, || created.token.clone())
        }
        TokenCommand::List => {
            let found = client.tokens().await?;
            if ctx.out.json {
                return ctx.out.json(&json!({ "items": found, "next": null }));
            }
            let rows: Vec<Vec<String>> = found
                .into_iter()
                .filter_map(|token| serde_json::from_value::<Token>(token).ok())
                .map(|token| {
                    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
                    vec![
                        token.id.to_string(),
                        one_line(&or_dash(token.name), 30),
                        token.scope.as_str().into(),
                        or_dash(token.session_id.map(|id| id.to_string())),
                        or_dash(token.expires_at.map(|at| at.to_string())),
                    ]
                })
                .collect();
            ctx.out.table(&["ID", "NAME", "SCOPE", "SESSION", "EXPIRES"], &rows)
        }
        TokenCommand::Rm { ids } => {
            for id in ids {
                client.delete_token(&id).await?;
                ctx.out.either(&json!({ "removed": id }), || id.clone())?;
            }
            Ok(())
        }
    }
}
