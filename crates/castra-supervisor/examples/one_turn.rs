//! One prompt to its answer: the real CLI, a scripted model, no account.

#![allow(clippy::print_stdout)]

mod demo;

use castra_supervisor::Supervisor;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let home = tempfile::tempdir()?;
    let supervisor = Supervisor::open(demo::demo_config(home.path()).await?).await?;

    let session = supervisor.start(demo::demo_spec()).await?;
    // An `Ok` is a turn that truly succeeded; everything else is an error with a code and its reason.
    let answer = session.ask("remember that doors have two sides").await?;
    println!("{}", answer.text);

    session.close().await?;
    supervisor.close().await;
    Ok(())
}
