//! A scripted Anthropic Messages API on loopback: what `--demo` talks to, and tests without an account.
//! Owns the wire format of the API and the script format; refuses every address but loopback, and knows
//! nothing of castra.
//!
//! ```
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use castra_model::{Model, Script};
//!
//! let script = Script::parse(
//!     r#"
//!     [[rule]]
//!     when.last_user.contains = "hello"
//!     reply.text = "Hello! You said: {{last_user}}"
//!     "#,
//! )?;
//! let model = Model::start(script, ([127, 0, 0, 1], 0).into()).await?;
//! println!("ANTHROPIC_BASE_URL={}", model.base_url());
//! // … run `claude` …
//! for request in model.requests() {
//!     println!("{} {} {:?}", request.method, request.path, request.last_user);
//! }
//! model.shutdown().await;
//! # Ok(())
//! # }
//! # tokio::runtime::Runtime::new().unwrap().block_on(example()).unwrap();
//! ```

mod body;
mod format;
mod frames;
mod log;
mod matching;
mod message;
mod reply;
mod request;
mod routes;
mod script;
mod server;
mod side;
mod template;
mod wire;

pub use log::{KEPT, KEPT_BYTES, RequestLog};
pub use request::ToolResult;
pub use script::{Problem, Script, ScriptError};
pub use server::{Model, StartError};
pub use template::TemplateError;
