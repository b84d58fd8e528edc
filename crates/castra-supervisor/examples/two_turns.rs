//! Two turns of one conversation, with an end of everything between them: the session outlives claude, and the
//! supervisor too.

#![allow(clippy::print_stdout)]

mod demo;

use castra_supervisor::Supervisor;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let home = tempfile::tempdir()?;
    let config = demo::demo_config(home.path()).await?;
    let spec = castra_proto::SessionSpec { name: Some("doors".into()), ..demo::demo_spec() };

    let supervisor = Supervisor::open(config.clone()).await?;
    let session = supervisor.start(spec).await?;
    println!("{}", session.ask("remember that doors have two sides").await?.text);
    // Ends claude. To close only the supervisor would leave it running, and the next one would find it so.
    session.close().await?;
    supervisor.close().await;
    // The data folder is free again when the last handle is gone.
    drop((session, supervisor));

    let supervisor = Supervisor::open(config).await?;
    let session = supervisor.session("doors").await?;
    session.resume().await?;
    println!("{}", session.ask("what did I ask you before?").await?.text);

    session.close().await?;
    supervisor.close().await;
    Ok(())
}
