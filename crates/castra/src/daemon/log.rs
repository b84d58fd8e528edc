//! The daemon's log: text or JSON; to stderr in front, to `$CASTRA_HOME/log/castra.log` behind.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Bytes after which a new file is begun.
const SIZE: u64 = 10 << 20;
/// Older files that are kept, as castra.log.1 (newest) and so on.
const KEPT: u32 = 4;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("`{level}` is not a log level or filter")]
    Level { level: String },
    #[error("cannot open {path}")]
    Open { path: PathBuf, source: std::io::Error },
}

/// `verbose`: how often `-v` was given; it wins over the level.
pub fn init(level: &str, verbose: u8, json: bool, file: Option<&Path>) -> Result<(), Error> {
    let level = match verbose {
        0 => level,
        1 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_new(level).map_err(|_| Error::Level { level: level.into() })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
    // A second call, in a test, keeps the first subscriber.
    let _ = match file {
        Some(path) => {
            let log = RotatingLog::open(path, SIZE, KEPT)
                .map_err(|source| Error::Open { path: path.into(), source })?;
            if json {
                builder.json().with_writer(log).try_init()
            } else {
                builder.with_writer(log).try_init()
            }
        }
        None if json => builder.json().with_writer(std::io::stderr).try_init(),
        None => builder.with_writer(std::io::stderr).try_init(),
    };
    Ok(())
}

/// A file that is renamed away when it is full. Whole lines only: the subscriber writes one at a time.
pub struct RotatingLog {
    path: PathBuf,
    limit: u64,
    kept: u32,
    /// Held while a line is written; nothing is awaited under it.
    open: Mutex<(File, u64)>,
}

impl RotatingLog {
    pub fn open(path: &Path, limit: u64, kept: u32) -> std::io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        Ok(Self { path: path.into(), limit, kept, open: Mutex::new(append(path)?) })
    }

    fn older(&self, n: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{n}"));
        name.into()
    }

    fn rotate(&self) -> std::io::Result<(File, u64)> {
        for n in (1..self.kept).rev() {
            let _ = std::fs::rename(self.older(n), self.older(n + 1));
        }
        std::fs::rename(&self.path, self.older(1))?;
        append(&self.path)
    }

    fn write_line(&self, line: &[u8]) -> std::io::Result<()> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.1 > 0 && open.1 + line.len() as u64 > self.limit {
            // A log that cannot be rotated grows on; losing lines would be worse.
            if let Ok(fresh) = self.rotate() {
                *open = fresh;
            }
        }
        open.1 += line.len() as u64;
        open.0.write_all(line)
    }
}

fn append(path: &Path) -> std::io::Result<(File, u64)> {
    let file = std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

/// One line's way into the log.
pub struct Line<'a>(&'a RotatingLog);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.write_line(line).map(|()| line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for RotatingLog {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_becomes_an_older_one_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log/castra.log");
        let log = RotatingLog::open(&path, 8, 2).unwrap();
        for line in ["one..\n", "two..\n", "three\n", "four.\n"] {
            log.write_line(line.as_bytes()).unwrap();
        }
        let read = |name: &str| std::fs::read_to_string(folder.path().join("log").join(name)).ok();
        assert_eq!(
            [read("castra.log"), read("castra.log.1"), read("castra.log.2"), read("castra.log.3")],
            [Some("four.\n".into()), Some("three\n".into()), Some("two..\n".into()), None]
        );
        drop(log);
        let again = RotatingLog::open(&path, 8, 2).unwrap();
        again.write_line(b"five.\n").unwrap();
        assert_eq!(read("castra.log.1"), Some("four.\n".into()), "the size counts what was there");
    }

    #[test]
    fn a_wrong_level_is_named() {
        let error = init("castra=loud", 0, false, None).unwrap_err();
        assert_eq!(error.to_string(), "`castra=loud` is not a log level or filter");
    }
}
