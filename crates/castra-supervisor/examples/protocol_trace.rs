//! Everything that one turn was made of: castra's own events and claude's messages, in the order in which they are
//! stored, with history and live on one path.

#![allow(clippy::print_stdout)]

mod demo;

use castra_supervisor::Supervisor;
use castra_supervisor::message::Message;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let home = tempfile::tempdir()?;
    let supervisor = Supervisor::open(demo::demo_config(home.path()).await?).await?;
    let session = supervisor.start(demo::demo_spec()).await?;
    session.send("hello").await?;

    let mut events = session.events(0).await?;
    while let Some(event) = events.next().await.transpose()? {
        let line = event.data.get();
        // A view of claude's lines; castra's own events are documented with their kinds.
        let view = Message::parse(line.as_bytes());
        let subtype = view.as_ref().and_then(Message::subtype).unwrap_or_default();
        println!("{:3} {:18} {subtype:22} {} bytes", event.seq, event.kind.as_str(), line.len());
        if view.is_some_and(|view| view.is_result()) {
            break;
        }
    }

    session.close().await?;
    supervisor.close().await;
    Ok(())
}
