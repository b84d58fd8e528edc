//! Layers, provenance and refusals of the settings, as tables.

use super::*;

fn inputs(env: &[(&str, &str)], flags: &[FlagValue]) -> Inputs {
    let mut all: BTreeMap<String, String> =
        env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    all.entry("HOME".into()).or_insert_with(|| "/home/u".into());
    Inputs { env: all, cwd: "/where".into(), config: None, flags: flags.to_vec() }
}

fn with_file(text: &str, env: &[(&str, &str)], flags: &[FlagValue]) -> (PathBuf, Result<Settings, Error>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("castra.toml");
    std::fs::write(&path, text).unwrap();
    let mut inputs = inputs(env, flags);
    inputs.config = Some(path.clone());
    (path, Settings::resolve(inputs))
}

fn setting(settings: &Settings, key: &str) -> (Value, Source) {
    let found = settings.all.iter().find(|setting| setting.key == key).unwrap();
    (found.value.clone(), found.source.clone())
}

#[test]
fn a_later_layer_wins_and_is_named() {
    let file = "listen = \"127.0.0.1:1\"\n";
    let env = [("CASTRA_LISTEN", "127.0.0.1:2")];
    let flag = [("listen", "--listen", "127.0.0.1:3".to_owned())];

    let settings = Settings::resolve(inputs(&[], &[])).unwrap();
    assert_eq!(setting(&settings, "listen"), (Value::Null, Source::Default));
    let (path, settings) = with_file(file, &[], &[]);
    assert_eq!(setting(&settings.unwrap(), "listen"), (json!("127.0.0.1:1"), Source::File(path)));
    let (_, settings) = with_file(file, &env, &[]);
    assert_eq!(
        setting(&settings.unwrap(), "listen"),
        (json!("127.0.0.1:2"), Source::Env("CASTRA_LISTEN".into()))
    );
    let (_, settings) = with_file(file, &env, &flag);
    assert_eq!(setting(&settings.unwrap(), "listen"), (json!("127.0.0.1:3"), Source::Flag("--listen")));
}

#[test]
fn every_section_reaches_the_supervisor() {
    let (_, settings) = with_file(
        r#"
        home = "/data"
        starts = 3
        workdirs = ["/srv/a", "~/b"]
        [claude]
        path = "~/bin/claude"
        version = "2.1.197"
        install = "never"
        install_dir = "/opt/claude"
        allow_root_bypass = true
        [retention]
        max_age = "7d"
        max_sessions = 20
        max_bytes = "10GB"
        [tasks]
        running = 5
        hosts = ["local 4"]
        labels = ["team=blue 2", "user 1"]
        [log]
        format = "json"
        level = "debug"
        "#,
        &[],
        &[],
    );
    let settings = settings.unwrap();
    let config = settings.supervisor();
    assert_eq!(
        config.claude,
        ClaudeConfig {
            path: Some("/home/u/bin/claude".into()),
            version: Some("2.1.197".into()),
            install: Install::Never,
            install_dir: Some("/opt/claude".into()),
            allow_root_bypass: true,
        }
    );
    assert_eq!(
        config.retention,
        Retention { max_age_s: Some(604_800), max_sessions: Some(20), max_bytes: Some(10_000_000_000) }
    );
    let labels = [("team=blue".to_owned(), 2), ("user".to_owned(), 1)].into();
    let hosts = [("local".to_owned(), 4)].into();
    assert_eq!(config.tasks, castra_supervisor::TaskLimits { running: Some(5), hosts, labels });
    assert_eq!((config.home, config.starts), (PathBuf::from("/data"), Some(3)));
    assert_eq!(config.user_home, Some("/home/u".into()));
    assert_eq!(config.workdirs, [PathBuf::from("/srv/a"), PathBuf::from("/home/u/b")]);
    assert!(settings.log_is_json());
    assert_eq!(settings.log_level(), "debug");
}

#[test]
fn what_does_not_fit_is_refused_by_key_and_place() {
    let table: &[(&str, &str)] = &[
        ("lisen = 1", "unknown key `lisen`"),
        ("[claude]\nparth = \"/x\"", "unknown key `claude.parth`"),
        ("[cloud]\npath = \"/x\"", "unknown key `cloud`"),
        ("starts = \"many\"", "`starts` must be a whole number, not `many`"),
        ("starts = -1", "`starts` must be a whole number, not `-1`"),
        ("home = \"data\"", "`home` must be an absolute path, not `data`"),
        ("listen = \"8080\"", "`listen` must be an address and port such as 127.0.0.1:8080, not `8080`"),
        ("[log]\nformat = \"xml\"", "`log.format` must be one of text, json, not `xml`"),
        ("[retention]\nmax_age = \"soon\"", "`retention.max_age` must be seconds"),
        ("[tasks]\nlabels = [\"team\"]", "`tasks.labels` must be labels, each with a space and a number"),
        ("[tasks]\nhosts = [\"box 3\"]", "`tasks.hosts` must be local, each with a space and a number"),
        ("[tasks]\nhosts = \"local\"", "`tasks.hosts` must be local, each with a space and a number"),
        ("listen = [", "is not valid TOML"),
    ];
    for (text, expected) in table {
        let (path, settings) = with_file(text, &[], &[]);
        let message = settings.unwrap_err().to_string();
        assert!(message.contains(expected), "{text}: {message}");
        assert!(message.contains(path.to_str().unwrap()), "{message}");
    }
}

#[test]
fn the_environment_is_named_when_it_is_wrong() {
    let error = Settings::resolve(inputs(&[("CASTRA_STARTS", "x")], &[])).unwrap_err();
    assert_eq!(error.to_string(), "CASTRA_STARTS: `starts` must be a whole number, not `x`");
}

#[test]
fn a_named_file_must_exist_and_the_default_one_need_not() {
    assert!(Settings::resolve(inputs(&[], &[])).unwrap().file.is_none());
    let missing = inputs(&[("CASTRA_CONFIG", "nowhere.toml")], &[]);
    assert_eq!(Settings::resolve(missing).unwrap_err().to_string(), "cannot read /where/nowhere.toml");
}

#[test]
fn the_data_folder_follows_xdg() {
    let home = |env: &[(&str, &str)]| Settings::resolve(inputs(env, &[])).unwrap().home;
    assert_eq!(home(&[]), PathBuf::from("/home/u/.local/share/castra"));
    assert_eq!(home(&[("XDG_DATA_HOME", "/xdg")]), PathBuf::from("/xdg/castra"));
    assert_eq!(home(&[("CASTRA_HOME", "here")]), PathBuf::from("/where/here"));
    assert_eq!(home(&[("CASTRA_HOME", "")]), PathBuf::from("/home/u/.local/share/castra"));
    let nothing = Inputs { env: BTreeMap::new(), ..inputs(&[], &[]) };
    assert!(matches!(Settings::resolve(nothing), Err(Error::NoHome)));
}

#[test]
fn a_daemon_in_another_folder_arrives_at_the_same_settings() {
    let env = [("CASTRA_HOME", "data"), ("CASTRA_CLAUDE_PATH", "bin/claude")];
    let here = Settings::resolve(inputs(&env, &[("starts", "--starts", "2".into())])).unwrap();
    let told = here.absolute_env();
    let mut there = inputs(&[], &[]);
    there.cwd = "/elsewhere".into();
    there.env.extend(told);
    let there = Settings::resolve(there).unwrap();
    let values = |settings: &Settings| settings.all.iter().map(|s| s.value.clone()).collect::<Vec<_>>();
    assert_eq!(values(&here), values(&there));
}

#[test]
fn units() {
    let table: &[(&str, Option<u64>, Option<u64>)] = &[
        ("90", Some(90), Some(90)),
        ("5m", Some(300), None),
        ("2h", Some(7200), None),
        ("7d", Some(604_800), None),
        ("64KiB", None, Some(65_536)),
        ("10 GB", None, Some(10_000_000_000)),
        ("", None, None),
        ("-1", None, None),
        ("99999999999999999d", None, None),
    ];
    for (text, as_seconds, as_bytes) in table {
        assert_eq!((seconds(text), bytes(text)), (*as_seconds, *as_bytes), "{text}");
    }
}
