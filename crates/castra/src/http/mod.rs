//! The HTTP surface of the daemon: routes, auth, streams, and the document of all of it. Refuses rules.
//!
//! `gate` decides whether a request gets in, `routes` call the supervisor, `server` owns connections. What an
//! operation allows is read from the OpenAPI document that the routes make, so the two cannot differ.

mod api;
mod assets;
mod auth;
mod body;
mod browser;
mod document;
mod errors_page;
mod fuzz;
mod gate;
mod listen;
mod origin;
mod query;
mod refusal;
mod routes;
mod seats;
mod server;
mod sse;
mod standing;
mod streams;
mod table;
mod tickets;
mod tty;

pub use auth::Auth;
pub use document::document;
pub use errors_page::errors_markdown;
pub use fuzz::fuzz_http;
pub use listen::{ListenError, Listeners, SOCKET, bind_tcp, bind_unix};
pub use origin::UNIX_HOST;
pub use tty::fuzz_tty;

use api::{Api, Doors};
use axum::Router;
use axum::extract::FromRef;
use axum::middleware::from_fn_with_state;
use body::Intake;
use castra_supervisor::Supervisor;
use gate::Gate;
use standing::Standing;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use table::Table;

/// Serves the API until `shutdown` or `POST /shutdown`. Short answers that are under way are finished, streams
/// end; sessions live on, and closing the supervisor is the caller's.
///
/// # Errors
/// When a listener is broken for good. Being out of descriptors or memory is waited out.
pub async fn serve(
    supervisor: Supervisor,
    listeners: Listeners,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let standing = Standing::new();
    let auth: Arc<dyn Auth> = Arc::new(supervisor.clone());
    let doors = Doors::new();
    let api = Api { supervisor, standing: standing.clone(), doors: doors.clone() };
    let router = router(api, auth.clone(), doors);
    let mut serving = pin!(server::run(router, auth, listeners, standing.clone()));
    tokio::select! {
        served = &mut serving => return served,
        () = shutdown => standing.stop(),
    }
    serving.await
}

/// All routes behind the gate; nothing else is reachable.
fn router<S: Clone + Send + Sync + 'static>(state: S, auth: Arc<dyn Auth>, doors: Doors) -> Router
where
    Api: FromRef<S>,
{
    let (router, _) = routes::all::<S>().split_for_parts();
    let gate =
        Gate { auth, table: Table::of_document(document()), intake: Intake::new(), tickets: doors.terminal };
    router.with_state(state).layer(from_fn_with_state(Arc::new(gate), gate::gate))
}

#[cfg(test)]
#[path = "tests/gate.rs"]
mod gate_tests;

#[cfg(test)]
#[path = "tests/browser.rs"]
mod browser_tests;
