//! A task file, or a team's: TOML, YAML or JSON, read into its spec. Every fault names the file, the line and the field.

use super::FileArgs;
use super::nearest::nearest;
use crate::cli::failure::Failure;
use castra_proto::TaskSpec;
use castra_proto::task::Definition;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// The largest file that is read: what the API takes.
const LARGEST: u64 = 1 << 20;
/// So many known names are listed where none is near.
const FEW: usize = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Toml,
    /// JSON too, which is a part of it.
    Yaml,
    Json,
}

/// The task of the file, with what the flags lay over it. Relative folders of the file are relative to it.
pub(super) fn build(args: FileArgs, cwd: &Path) -> Result<TaskSpec, Failure> {
    let mut spec = task_of_file(&args.file, cwd)?;
    if let Some(workdir) = &args.cwd {
        spec.session.workdir = Some(absolute(cwd, workdir)?);
    }
    if args.name.is_some() {
        spec.name = args.name;
    }
    spec.session.demo |= args.demo;
    spec.values.extend(args.values.into_iter().map(|(key, value)| (key, Value::String(value))));
    Ok(spec)
}

/// What a file of this kind (`task`, `team`) holds, and the folder that it is in.
pub(in crate::cli) fn load<T: DeserializeOwned>(
    file: &Path,
    cwd: &Path,
    kind: &str,
) -> Result<(T, PathBuf), Failure> {
    let (name, text, folder) = read(file, cwd, kind)?;
    Ok((parse(&name, format(file, &text), &text, kind)?, folder))
}

/// The task of the file, as it stands there.
pub(in crate::cli) fn task_of_file(file: &Path, cwd: &Path) -> Result<TaskSpec, Failure> {
    let (mut spec, folder): (TaskSpec, _) = load(file, cwd, "task")?;
    settle(&mut spec, &folder)?;
    Ok(spec)
}

/// The definition of the file; without a name of its own it has the file's.
pub(super) fn definition(file: &Path, cwd: &Path) -> Result<Definition, Failure> {
    let (mut definition, folder): (Definition, _) = load(file, cwd, "task")?;
    settle(&mut definition.task, &folder)?;
    if definition.name.is_none() && file.as_os_str() != "-" {
        definition.name = file.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned);
    }
    Ok(definition)
}

/// The same for the daemon, with what is wrong as one sentence.
pub(crate) fn definition_file(file: &Path) -> Result<Definition, String> {
    definition(file, Path::new("/")).map_err(|failure| {
        let parts: Vec<String> = failure.message.into_iter().chain(failure.hint).collect();
        parts.join("; ")
    })
}

/// Relative folders of the file are relative to it.
fn settle(spec: &mut TaskSpec, folder: &Path) -> Result<(), Failure> {
    if let Some(workdir) = &mut spec.session.workdir {
        *workdir = absolute(folder, Path::new(workdir))?;
    }
    spec.children.iter_mut().try_for_each(|child| settle(child, folder))
}

/// What it is called in messages, its text, and the folder that it is in.
fn read(file: &Path, cwd: &Path, kind: &str) -> Result<(String, String, PathBuf), Failure> {
    let failed = |error: std::io::Error| Failure::usage(format!("cannot read {}: {error}", file.display()));
    let (name, source, folder): (_, Box<dyn std::io::Read>, _) = if file.as_os_str() == "-" {
        ("stdin".to_owned(), Box::new(std::io::stdin()), cwd.to_owned())
    } else {
        let path = cwd.join(file);
        let source = std::fs::File::open(&path).map_err(failed)?;
        (file.display().to_string(), Box::new(source), path.parent().unwrap_or(cwd).to_owned())
    };
    let mut bytes = Vec::new();
    source.take(LARGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LARGEST {
        return Err(Failure::usage(format!("{name} is larger than 1 MiB")));
    }
    let text = String::from_utf8(bytes).map_err(|_| Failure::usage(format!("{name} is not UTF-8")))?;
    if text.trim().is_empty() {
        return Err(Failure::usage(format!("{name} is empty")).hint(format!(
            "`castra {kind} schema` says what a {kind} file has; examples/{kind}s/ has some"
        )));
    }
    Ok((name, text, folder))
}

pub(in crate::cli) fn absolute(folder: &Path, path: &Path) -> Result<String, Failure> {
    let path = folder.join(path);
    // Resolved where it exists: the daemon compares folders, and one has several spellings.
    let path = std::fs::canonicalize(&path).unwrap_or(path);
    path.to_str().map(String::from).ok_or_else(|| Failure::usage(format!("{} is not UTF-8", path.display())))
}

fn format(file: &Path, text: &str) -> Format {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("toml") => Format::Toml,
        Some("yaml" | "yml") => Format::Yaml,
        Some("json") => Format::Json,
        _ if file.as_os_str() == "-" => Format::Yaml,
        _ => sniff(text),
    }
}

/// By its first line that says something.
fn sniff(text: &str) -> Format {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let Some(first) = lines.next() else { return Format::Yaml };
    if first.starts_with('{') {
        return Format::Json;
    }
    let key = first.split('=').next().unwrap_or_default().trim();
    let is_key = |key: &str| !key.is_empty() && !key.contains([':', ' ']);
    let table = first.starts_with('[') && first.ends_with(']');
    if table || (first.contains('=') && is_key(key)) { Format::Toml } else { Format::Yaml }
}

/// What a reader has found wrong.
struct Fault {
    line: Option<u64>,
    /// The field, from the top, with dots.
    path: String,
    message: String,
}

fn parse<T: DeserializeOwned>(name: &str, format: Format, text: &str, kind: &str) -> Result<T, Failure> {
    match format {
        Format::Toml => toml(text),
        Format::Yaml => yaml(text),
        Format::Json => json(text),
    }
    .map_err(|fault| tell(name, fault, kind))
}

fn toml<T: DeserializeOwned>(text: &str) -> Result<T, Fault> {
    let fault = |error: &toml::de::Error, path: String| {
        let line =
            error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() as u64 + 1);
        Fault { line, path, message: error.message().to_owned() }
    };
    let reader = toml::Deserializer::parse(text).map_err(|error| fault(&error, String::new()))?;
    serde_path_to_error::deserialize(reader).map_err(|error| {
        let path = error.path().to_string();
        fault(error.inner(), path)
    })
}

fn json<T: DeserializeOwned>(text: &str) -> Result<T, Fault> {
    let fault = |error: &serde_json::Error, path: String| Fault {
        line: Some(error.line() as u64),
        path,
        message: without_place(&error.to_string()),
    };
    let mut reader = serde_json::Deserializer::from_str(text);
    let spec = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        fault(error.inner(), path)
    })?;
    reader.end().map_err(|error| fault(&error, String::new()))?;
    Ok(spec)
}

fn yaml<T: DeserializeOwned>(text: &str) -> Result<T, Fault> {
    let mut path = String::new();
    let read = serde_saphyr::with_deserializer_from_str(text, |reader| {
        serde_path_to_error::deserialize(reader).map_err(|error| {
            path = error.path().to_string();
            error.into_inner()
        })
    });
    read.map_err(|error| Fault {
        line: error.location().map(|location| location.line()).filter(|line| *line > 0),
        path,
        message: without_place(&error.without_snippet().to_string()),
    })
}

/// The place is told in one way for all formats.
fn without_place(message: &str) -> String {
    let end = message.rfind(" at line ").or_else(|| message.rfind(": line ")).unwrap_or(message.len());
    message[..end].to_owned()
}

fn tell(name: &str, fault: Fault, kind: &str) -> Failure {
    let place = fault.line.map_or_else(|| name.to_owned(), |line| format!("{name}:{line}"));
    if let Some((unknown, known)) = unknown_field(&fault.message) {
        let field = match fault.path.rsplit_once('.') {
            Some((parent, _)) => format!("{parent}.{unknown}"),
            None => unknown.to_owned(),
        };
        let failure = Failure::usage(format!("{place}: unknown field `{field}`"));
        return match nearest(unknown, known.iter().copied()) {
            Some(meant) => failure.hint(format!("is `{meant}` meant?")),
            None if known.len() <= FEW => failure.hint(format!("known here: {}", known.join(", "))),
            None => failure.hint(format!("`castra {kind} schema` has all fields")),
        };
    }
    let field = match fault.path.as_str() {
        "" | "." | "?" => String::new(),
        path => format!("`{}`: ", path.trim_end_matches(".?")),
    };
    Failure::usage(format!("{place}: {field}{}", fault.message))
}

/// As serde says it: the field, and those that it knows.
fn unknown_field(message: &str) -> Option<(&str, Vec<&str>)> {
    let (unknown, rest) = message.strip_prefix("unknown field `")?.split_once('`')?;
    let known = rest.trim_start_matches(", expected one of ").trim_start_matches(", expected ");
    let known = known.split([',', ' ']).map(|name| name.trim_matches('`'));
    Some((unknown, known.filter(|name| !name.is_empty() && *name != "or").collect()))
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
