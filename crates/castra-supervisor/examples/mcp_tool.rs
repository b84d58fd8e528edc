//! A tool of one's own, from an MCP server over stdio, called by claude with our permission.
//! `mcp_tool SERVER SCRIPT`: examples/tape_measure.py, and what the model is to say (examples/mcp-tool.toml).

#![allow(clippy::print_stdout)]

mod demo;

use castra_proto::permission::PermissionAnswer;
use castra_proto::spec::SessionSpec;
use castra_supervisor::{Config, Supervisor};
use serde_json::json;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(server), Some(script)) = (arguments.next(), arguments.next()) else {
        return Err("usage: mcp_tool SERVER SCRIPT".into());
    };
    let home = tempfile::tempdir()?;
    let mut config = Config::new(home.path());
    config.inherited = std::env::vars().collect();
    demo::scripted_model(&mut config, castra_model::Script::parse(&std::fs::read_to_string(script)?)?)
        .await?;
    let supervisor = Supervisor::open(config).await?;

    // In the folder that claude works in, because a sandbox hides most others.
    let folder = tempfile::tempdir()?;
    std::fs::copy(server, folder.path().join("tape_measure.py"))?;
    let mut spec = SessionSpec { workdir: folder.path().to_str().map(str::to_owned), ..demo::demo_spec() };
    spec.mcp_servers.insert("tape".into(), json!({"command": "python3", "args": ["tape_measure.py"]}));
    let session = supervisor.start(spec).await?;

    let approver = session
        // `None` leaves a request to somebody else; here nobody else is there, and nothing else is asked.
        .on_permission(|request| async move {
            (request.tool == "mcp__tape__measure").then(PermissionAnswer::allow)
        })
        .await?;
    println!("{}", session.ask("how long is \"nothing said is lost\"?").await?.text);

    drop(approver);
    session.close().await?;
    supervisor.close().await;
    Ok(())
}
