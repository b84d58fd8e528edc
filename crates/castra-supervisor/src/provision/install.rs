//! Fetching a claude into castra's cache: by npm, or by the vendor's script. One at a time.

use std::collections::BTreeMap;

use bytes::Bytes;
use castra_proto::shim::relay::{EntryKind, Exec, ExecEnd, Probe};
use castra_proto::{ErrorCode, Problem};
use tokio::sync::{Mutex, MutexGuard, watch};
use uuid::Uuid;

use super::check::{DEFAULT_PATH, ended, is_version};
use super::{Cli, Provision, Source, printable, unreachable};
use crate::host::{Host, Line, Progress};
use crate::{Error, Result};

/// The download is about 100 MB.
const TIMEOUT_MS: u64 = 20 * 60_000;
/// Of a download that is under way. What a crash left is removed by the next one.
const TEMP: &str = ".new-";
const PACKAGE: &str = "@anthropic-ai/claude-code";
const SCRIPT: &str = "https://claude.ai/install.sh";

/// What npm and curl are given of the environment, in either case of letters.
const PASSED: &[&str] = &[
    "all_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "lang",
    "lc_all",
    "node_extra_ca_certs",
    "ssl_cert_file",
    "ssl_cert_dir",
    "curl_ca_bundle",
];

/// At most one installation; those that came while it ran share its outcome.
#[derive(Debug)]
pub(super) struct Flight {
    one: Mutex<Option<Result<Cli, Problem>>>,
    /// How many have ended.
    ended: watch::Sender<u64>,
}

impl Default for Flight {
    fn default() -> Self {
        Self { one: Mutex::default(), ended: watch::Sender::new(0) }
    }
}

impl Flight {
    pub(super) async fn lock(&self) -> MutexGuard<'_, Option<Result<Cli, Problem>>> {
        self.one.lock().await
    }
}

impl Provision {
    /// Installs a version, or the newest, into the cache. Errors: `cli_not_found` with npm's own words.
    pub async fn install(
        &self,
        host: &dyn Host,
        version: Option<&str>,
        progress: Option<Progress>,
    ) -> Result<Cli> {
        let machine = self.machine(host).await?;
        let _flight = self.flight.lock().await;
        self.fetch(host, machine, version, &Say(progress)).await
    }

    /// The installation that a start needs. Many starts make one, and have one outcome: also the failed ones.
    pub(super) async fn install_once(
        &self,
        host: &dyn Host,
        machine: &Probe,
        progress: Option<Progress>,
    ) -> Result<Cli> {
        let before = *self.flight.ended.borrow();
        let say = Say(progress);
        let mut last = match self.flight.one.try_lock() {
            Ok(last) => last,
            Err(_) => {
                say.line("waiting for the installation of Claude Code that is under way");
                self.flight.lock().await
            }
        };
        if *self.flight.ended.borrow() != before
            && let Some(outcome) = &*last
        {
            return outcome.clone().map_err(Error::Refused);
        }
        // `castra claude install` may have been faster than this start.
        if let Some(cli) = self.existing(host, machine, &mut Vec::new()).await? {
            return Ok(cli);
        }
        let outcome = self.fetch(host, machine, self.config.version.as_deref(), &say).await;
        *last = Some(outcome.as_ref().map(Clone::clone).map_err(Error::problem));
        self.flight.ended.send_modify(|ended| *ended += 1);
        outcome
    }

    async fn fetch(&self, host: &dyn Host, machine: &Probe, version: Option<&str>, say: &Say) -> Result<Cli> {
        // A tag of npm's (`latest`, `stable`) is a word; nothing else gets near a command line.
        let is_tag =
            |text: &str| text.bytes().all(|b| b.is_ascii_lowercase()) && (1..32).contains(&text.len());
        if let Some(version) = version.filter(|v| !is_version(v) && !is_tag(v)) {
            let problem =
                Problem::new(ErrorCode::InvalidRequest, format!("{version:?} is no version of Claude Code"));
            return Err(Error::Refused(problem.hint("give three numbers, such as 2.1.197, or `latest`")));
        }
        self.home(host, machine).await?;
        for left in host.files().list(self.at("")).await.map_err(unreachable)? {
            if left.name.starts_with(TEMP) {
                host.files().remove(self.at(&left.name)).await.map_err(unreachable)?;
            }
        }
        let temp = format!("{TEMP}{}", Uuid::new_v4().simple());
        host.files().mkdir(self.at(&temp), 0o700).await.map_err(unreachable)?;
        let fetched = self.fetch_into(host, machine, version, &temp, say).await;
        let removed = host.files().remove(self.at(&temp)).await.map_err(unreachable);
        let cli = fetched?;
        removed?;
        say.line(&format!("installed Claude Code {} in {}", cli.version, cli.path));
        Ok(cli)
    }

    async fn fetch_into(
        &self,
        host: &dyn Host,
        machine: &Probe,
        version: Option<&str>,
        temp: &str,
        say: &Say,
    ) -> Result<Cli> {
        let what = version.map_or_else(|| "Claude Code".to_owned(), |v| format!("Claude Code {v}"));
        let found = if let Some(npm) = self.program(host, machine, "npm").await? {
            say.line(&format!("installing {what} with npm"));
            self.by_npm(host, machine, &npm, version, temp, say).await?
        } else if let Some(curl) = self.program(host, machine, "curl").await? {
            say.line(&format!("installing {what} with the vendor's script"));
            self.by_script(host, machine, &curl, version, temp, say).await?
        } else {
            return Err(failed(
                "Claude Code is not here, and neither npm nor curl is there to install it".to_owned(),
            ));
        };
        // npm keeps the mode of the archive; the script's may be the umask's.
        let path = format!("{}/{found}", self.dir(machine));
        run(self.exec(host, machine, &["chmod", "0755", "--", &path], TIMEOUT_MS).await?, "chmod")?;
        let cli = match self.check(host, machine, &path, Source::Cache).await? {
            Some(Ok(cli)) => cli,
            Some(Err(fault)) => return Err(failed(format!("what was installed cannot be used: {fault}"))),
            None => return Err(failed(format!("nothing was installed as {path}"))),
        };
        if let Some(wanted) = version.filter(|v| is_version(v) && *v != cli.version) {
            return Err(failed(format!("version {} was delivered instead of {wanted}", cli.version)));
        }
        host.files().mkdir(self.at(&cli.version), 0o755).await.map_err(unreachable)?;
        let place = format!("{}/claude", cli.version);
        host.files().rename(self.at(&found), self.at(&place), true).await.map_err(unreachable)?;
        let path = format!("{}/{place}", self.dir(machine));
        match self.check(host, machine, &path, Source::Cache).await? {
            Some(Ok(cli)) => Ok(cli),
            Some(Err(fault)) => Err(failed(fault)),
            None => Err(failed(format!("{path} has vanished"))),
        }
    }

    /// Returns the program's place below the folder of the versions.
    async fn by_npm(
        &self,
        host: &dyn Host,
        machine: &Probe,
        npm: &str,
        version: Option<&str>,
        temp: &str,
        say: &Say,
    ) -> Result<String> {
        let dir = format!("{}/{temp}", self.dir(machine));
        let package = version.map_or_else(|| PACKAGE.to_owned(), |version| format!("{PACKAGE}@{version}"));
        // No script of the package runs: its program lies ready in the package of the platform, which a
        // user's `omit=optional` would leave out, and a user's `global=true` put elsewhere.
        let argv = [
            npm,
            "install",
            "--prefix",
            &dir,
            "--ignore-scripts",
            "--include=optional",
            "--no-global",
            "--no-audit",
            "--no-fund",
            "--no-save",
            "--loglevel=http",
            &package,
        ];
        let mut env = self.passed(&dir);
        for (name, value) in self.inherited.iter().filter(|(name, _)| starts_with(name, "npm_config_")) {
            env.insert(name.clone(), value.clone());
        }
        let has =
            |env: &BTreeMap<_, _>, key: &str| env.keys().any(|name: &String| name.eq_ignore_ascii_case(key));
        let rc = format!("{}/.npmrc", machine.user_home);
        if !has(&env, "npm_config_userconfig") && super::look(host, &rc).await?.is_some() {
            env.insert("npm_config_userconfig".to_owned(), rc);
        }
        if !has(&env, "npm_config_cache") {
            env.insert("npm_config_cache".to_owned(), format!("{dir}/.npm"));
        }
        env.insert("npm_config_update_notifier".to_owned(), "false".to_owned());
        run(self.long(host, &argv, env, &dir, say).await?, "npm")?;

        let scope = format!("{temp}/node_modules/@anthropic-ai");
        let packages = host.files().list(self.at(&scope)).await.map_err(unreachable)?;
        let mut found = Vec::new();
        for package in packages.iter().filter(|package| package.name.starts_with("claude-code-linux-")) {
            let program = format!("{scope}/{}/claude", package.name);
            if matches!(host.files().stat(self.at(&program)).await, Ok(Some(file)) if file.kind == EntryKind::File)
            {
                found.push(program);
            }
        }
        found.into_iter().next().ok_or_else(|| {
            failed(format!("{package} has no program for {} Linux; name a newer version", machine.arch))
        })
    }

    async fn by_script(
        &self,
        host: &dyn Host,
        machine: &Probe,
        curl: &str,
        version: Option<&str>,
        temp: &str,
        say: &Say,
    ) -> Result<String> {
        let dir = format!("{}/{temp}", self.dir(machine));
        let script = format!("{dir}/install.sh");
        let argv = [
            curl,
            "--fail",
            "--silent",
            "--show-error",
            "--location",
            "--proto",
            "=https",
            "-o",
            &script,
            SCRIPT,
        ];
        run(self.long(host, &argv, self.passed(&dir), &dir, say).await?, "curl")?;
        let mut argv = vec!["bash", script.as_str()];
        argv.extend(version);
        // HOME is the temporary folder: the script installs below it, and the user's own stays as it is.
        run(self.long(host, &argv, self.passed(&dir), &dir, say).await?, "the vendor's script")?;
        let end = run(
            self.exec(
                host,
                machine,
                &["readlink", "-f", "--", &format!("{dir}/.local/bin/claude")],
                TIMEOUT_MS,
            )
            .await?,
            "readlink",
        )?;
        // The folder of the versions may lie behind a link; from the temporary name on it is the same.
        let real = end.stdout.trim_end_matches('\n');
        let found = real.find(&format!("/{temp}/")).map(|at| real[at + 1..].to_owned());
        found.ok_or_else(|| failed("the vendor's script installed nothing".to_owned()))
    }

    /// The environment of a download.
    fn passed(&self, home: &str) -> BTreeMap<String, String> {
        let allowed = |name: &&String| PASSED.iter().any(|passed| name.eq_ignore_ascii_case(passed));
        let mut env: BTreeMap<_, _> =
            self.inherited.iter().filter(|(name, _)| allowed(name)).map(owned).collect();
        let path = self.inherited.get("PATH").map_or(DEFAULT_PATH, String::as_str);
        env.insert("PATH".to_owned(), path.to_owned());
        env.insert("HOME".to_owned(), home.to_owned());
        env
    }

    async fn long(
        &self,
        host: &dyn Host,
        argv: &[&str],
        env: BTreeMap<String, String>,
        cwd: &str,
        say: &Say,
    ) -> Result<Result<ExecEnd, String>> {
        let argv = argv.iter().map(|a| (*a).to_owned()).collect();
        let exec = Exec { argv, env, cwd: cwd.to_owned(), timeout_ms: TIMEOUT_MS };
        ended(host.exec(exec, Bytes::new(), say.0.clone()).await)
    }

    /// A program in PATH.
    async fn program(&self, host: &dyn Host, machine: &Probe, name: &str) -> Result<Option<String>> {
        let argv = ["/bin/sh", "-c", "command -v -- \"$1\"", "sh", name];
        match self.exec(host, machine, &argv, TIMEOUT_MS).await? {
            Ok(end) if end.code == Some(0) => {
                Ok(Some(end.stdout.trim().to_owned()).filter(|path| path.starts_with('/')))
            }
            _ => Ok(None),
        }
    }
}

fn owned((name, value): (&String, &String)) -> (String, String) {
    (name.clone(), value.clone())
}

fn starts_with(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// A program of the installation must end well.
fn run(end: Result<ExecEnd, String>, what: &str) -> Result<ExecEnd> {
    let end = end.map_err(|why| failed(format!("{what} cannot be started: {why}")))?;
    if end.timed_out {
        return Err(failed(format!("{what} did not end within {} minutes", TIMEOUT_MS / 60_000)));
    }
    if end.code == Some(0) {
        return Ok(end);
    }
    // npm's own words, without its progress and the advice about its log, which is gone by then.
    let telling = |line: &&str| {
        !line.trim().is_empty() && !line.starts_with("npm http") && !line.contains("debug-0.log")
    };
    let lines: Vec<String> =
        end.stderr.lines().chain(end.stdout.lines()).filter(telling).map(printable).collect();
    let last = lines.iter().take(4).map(String::as_str).collect::<Vec<_>>().join("; ");
    Err(failed(format!("{what} failed (exit {:?}): {last}", end.code.or(end.signal))))
}

fn failed(detail: String) -> Error {
    Error::Refused(Problem::new(ErrorCode::CliNotFound, detail).hint(
        "install Claude Code yourself (`npm install -g @anthropic-ai/claude-code`, or \
         `curl -fsSL https://claude.ai/install.sh | bash`), or name an executable by `path` under [claude] in \
         castra.toml",
    ))
}

/// Where progress goes, castra's own lines with it.
struct Say(Option<Progress>);

impl Say {
    fn line(&self, text: &str) {
        if let Some(progress) = &self.0 {
            progress(Line { stderr: true, text: Bytes::copy_from_slice(text.as_bytes()) });
        }
    }
}
