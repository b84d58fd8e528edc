//! claude asks before it uses a tool, and this program decides: writing is allowed, running commands is not.

#![allow(clippy::print_stdout)]

mod demo;

use castra_proto::permission::PermissionAnswer;
use castra_supervisor::Supervisor;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let home = tempfile::tempdir()?;
    let supervisor = Supervisor::open(demo::demo_config(home.path()).await?).await?;
    let session = supervisor.start(demo::demo_spec()).await?;

    // Each request is decided in a task of its own: it may take its time, or ask somebody.
    let approver = session
        .on_permission(|request| async move {
            println!("claude wants to use {}", request.tool);
            match request.tool.as_str() {
                "Write" => PermissionAnswer::allow(),
                tool => PermissionAnswer::deny(format!("{tool} is not allowed here")),
            }
        })
        .await?;

    session.ask("write a haiku to haiku.txt").await?;
    let folder = session.show().await?.cwd.ok_or("the session has no folder")?;
    print!("{}", std::fs::read_to_string(std::path::Path::new(&folder).join("haiku.txt"))?);

    println!("{}", session.ask("run: touch other.txt").await?.text);

    drop(approver);
    session.close().await?;
    supervisor.close().await;
    Ok(())
}
