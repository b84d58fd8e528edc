//! What each operation allows, read from the OpenAPI document: nothing undocumented is reachable.

use axum::http::Method;
use castra_proto::api::Scope;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of a JSON body, unless stated otherwise.
pub(super) const JSON_LIMIT: u64 = 1 << 20;
/// Messages may hold images and documents: the Messages API itself takes 32 MB, Base64 included.
pub(super) const MESSAGE_LIMIT: u64 = 80 << 20;
/// An uploaded file.
pub(super) const FILE_LIMIT: u64 = 256 << 20;

/// What a request of one operation must be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Operation {
    pub(super) entry: Entry,
    /// The least scope; an operation that states none is for admins.
    pub(super) scope: Scope,
    /// Whether a token that is bound to a session may use it at all.
    pub(super) bound: bool,
    /// Whether it is what a hook's token is for.
    pub(super) hook: bool,
    pub(super) query: BTreeSet<String>,
    /// Whether other query parameters are passed over: ttyd's client puts its own settings there.
    pub(super) any_query: bool,
    /// The content type of its body.
    pub(super) takes: Takes,
    /// Bytes of its body.
    pub(super) limit: u64,
}

/// What must be shown to get in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// Nothing: files that are the same for everybody, and the exchange of a ticket.
    Open,
    /// A token, or both halves of a browser's.
    Token,
    /// The same; from a browser, which sends no header with a WebSocket, its cookie and a ticket that waits for it.
    Ticket,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    Json,
    Octets,
}

/// The operations by path template and method.
#[derive(Debug, Default)]
pub(super) struct Table(BTreeMap<String, BTreeMap<String, Operation>>);

/// Beyond `/sessions/{id}` itself, what a token that is bound to a session may use: filtered by its session.
const SHARED: [(&str, &str); 4] = [
    ("GET", "/api/v1/sessions"),
    ("GET", "/api/v1/events"),
    ("GET", "/api/v1/openapi.json"),
    ("POST", "/api/v1/sign-in/tickets"),
];

impl Table {
    pub(super) fn of_document(document: &Value) -> Self {
        let paths = document["paths"].as_object().into_iter().flatten();
        Self(paths.map(|(path, item)| (path.clone(), operations(path, item))).collect())
    }

    /// The operation; else the methods that the path has.
    pub(super) fn find(&self, path: &str, method: &Method) -> Result<&Operation, String> {
        let Some(methods) = self.0.get(&*path.replace("{*", "{")) else { return Err(String::new()) };
        let name = if method == Method::HEAD { "GET" } else { method.as_str() };
        methods.get(name).ok_or_else(|| methods.keys().cloned().collect::<Vec<_>>().join(", "))
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str, &Operation)> {
        self.0.iter().flat_map(|(path, methods)| {
            methods.iter().map(move |(method, operation)| (method.as_str(), path.as_str(), operation))
        })
    }
}

fn operations(path: &str, item: &Value) -> BTreeMap<String, Operation> {
    let item = item.as_object().into_iter().flatten();
    item.map(|(method, operation)| {
        let method = method.to_ascii_uppercase();
        let operation = self::operation(&method, path, operation);
        (method, operation)
    })
    .collect()
}

fn operation(method: &str, path: &str, operation: &Value) -> Operation {
    let entry = match &operation["security"][0] {
        Value::Object(open) if open.is_empty() => Entry::Open,
        _ if operation["x-castra-ticket"] == true => Entry::Ticket,
        _ => Entry::Token,
    };
    let least = if entry == Entry::Open { Scope::Read } else { Scope::Admin };
    let scope = operation["security"][0]["token"][0].as_str().and_then(Scope::parse).unwrap_or(least);
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let query = parameters
        .filter(|parameter| parameter["in"] == "query")
        .filter_map(|parameter| parameter["name"].as_str().map(str::to_owned))
        .collect();
    let octets = operation["requestBody"]["content"].get("application/octet-stream").is_some();
    let takes = if octets { Takes::Octets } else { Takes::Json };
    let limit = match takes {
        Takes::Octets => FILE_LIMIT,
        Takes::Json if path.ends_with("/messages") => MESSAGE_LIMIT,
        Takes::Json => JSON_LIMIT,
    };
    // A fork is another session, which such a token could not see.
    let own = path.starts_with("/api/v1/sessions/{id}") && !path.ends_with("/fork");
    let bound = own || entry == Entry::Open || SHARED.contains(&(method, path));
    let any_query = operation["x-castra-any-query"] == true;
    let hook = path.starts_with("/api/v1/tasks/{id}/hook/");
    Operation { entry, scope, bound, hook, query, any_query, takes, limit }
}
