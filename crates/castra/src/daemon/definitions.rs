//! Definitions of tasks in files: `$CASTRA_HOME/tasks/` and the folders of `[tasks] definitions`. A file is read again
//! when it has changed; refuses to watch: whoever asks is given what is there then.

use crate::cli::definition_file;
use crate::config::Settings;
use castra_proto::task::{Definition, DefinitionFault};
use castra_supervisor::{DefinitionFiles, ReadDefinitions};
use std::collections::HashMap;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Files that are looked at in one folder.
const MOST: usize = 1000;

/// By what a change of a file is seen: its time, its size, and which file it is.
type Version = (i64, i64, u64, u64);
/// A definition, or why the file is none.
type Read = Result<Definition, String>;

pub(super) struct Folders {
    /// castra's own first, which need not be there.
    folders: Vec<PathBuf>,
    /// What was read; held while the folders are looked at, by a thread that may block.
    read: Mutex<HashMap<PathBuf, (Version, Read)>>,
}

impl Folders {
    pub(super) fn of(settings: &Settings) -> Self {
        let named = settings.text("tasks.definitions").unwrap_or_default();
        let named = named.split(':').filter(|dir| !dir.is_empty()).map(PathBuf::from);
        Self::new(std::iter::once(settings.home.join("tasks")).chain(named).collect())
    }

    fn new(folders: Vec<PathBuf>) -> Self {
        Self { folders, read: Mutex::default() }
    }
}

impl DefinitionFiles for Folders {
    fn read(&self) -> ReadDefinitions {
        let mut held = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *held);
        let mut all = ReadDefinitions::default();
        for (i, folder) in self.folders.iter().enumerate() {
            let files = match files(folder) {
                Ok(files) => files,
                Err(error) if i == 0 && error.kind() == ErrorKind::NotFound => continue,
                Err(error) => {
                    let problem = format!("the folder cannot be read: {error}");
                    all.faults.push(DefinitionFault { file: folder.display().to_string(), problem });
                    continue;
                }
            };
            for (file, version) in files {
                let known = before.remove(&file).filter(|(of, _)| *of == version);
                let (_, read) = &*held
                    .entry(file.clone())
                    .insert_entry(known.unwrap_or_else(|| (version, definition_file(&file))))
                    .into_mut();
                let name = file.display().to_string();
                match read {
                    Ok(definition) => all.found.push((name, definition.clone())),
                    Err(problem) => all.faults.push(DefinitionFault { file: name, problem: problem.clone() }),
                }
            }
        }
        all
    }
}

/// Those that may be definitions, in order of their names.
fn files(folder: &Path) -> std::io::Result<Vec<(PathBuf, Version)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)?.take(MOST) {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let kind = path.extension().and_then(|extension| extension.to_str());
        if name.starts_with('.') || !matches!(kind, Some("toml" | "yaml" | "yml" | "json")) {
            continue;
        }
        // One that went away meanwhile is not there.
        if let Ok(meta) = std::fs::metadata(&path)
            && meta.is_file()
        {
            found.push((path, (meta.mtime(), meta.mtime_nsec(), meta.size(), meta.ino())));
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_is_read_again_and_what_is_wrong_is_told() {
        let home = tempfile::tempdir().unwrap();
        let (own, named) = (home.path().join("tasks"), home.path().join("named"));
        let folders = Folders::new(vec![own.clone(), named.clone()]);
        let names = |read: &ReadDefinitions| -> Vec<String> {
            read.found.iter().map(|(_, one)| one.name.clone().unwrap()).collect()
        };
        // castra's own folder need not be there, one that somebody named does.
        let read = folders.read();
        assert_eq!((names(&read), read.faults.len()), (vec![], 1));
        std::fs::create_dir(&own).unwrap();
        std::fs::create_dir(&named).unwrap();
        let write = |path: PathBuf, text: &str| std::fs::write(path, text).unwrap();
        write(own.join("report.yaml"), "task: {instructions: x}\n");
        write(named.join("other.toml"), "name = 'second'\n[task]\ninstructions = 'y'\n");
        write(named.join("notes.txt"), "not a definition");
        write(named.join(".report.yaml.swp.yaml"), "half a fi");
        let read = folders.read();
        assert_eq!((names(&read), read.faults), (vec!["report".into(), "second".into()], vec![]));

        write(own.join("report.yaml"), "name: renamed\ntask: {instructions: longer}\n");
        write(named.join("other.toml"), "nmae = 'second'\n");
        let read = folders.read();
        assert_eq!(names(&read), ["renamed"]);
        assert!(read.faults[0].problem.contains("unknown field `nmae`"), "{:?}", read.faults);
        std::fs::remove_file(own.join("report.yaml")).unwrap();
        assert_eq!(names(&folders.read()), Vec::<String>::new());
    }
}
