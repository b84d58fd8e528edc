//! A systemd user unit for the daemon. `KillMode=process`: stopping the daemon leaves the sessions alone.

use std::path::{Path, PathBuf};

pub const NAME: &str = "castra.service";

/// `$XDG_CONFIG_HOME/systemd/user/castra.service`.
pub fn path(xdg_config: Option<&str>, home: Option<&str>) -> Option<PathBuf> {
    let folder = match (xdg_config, home) {
        (Some(folder), _) => PathBuf::from(folder),
        (None, Some(home)) => Path::new(home).join(".config"),
        (None, None) => return None,
    };
    Some(folder.join("systemd/user").join(NAME))
}

/// The unit's text. `args` follow `castra up`.
pub fn text(exe: &Path, env: &[(String, String)], args: &[String]) -> String {
    let mut command = quoted(&exe.display().to_string());
    for arg in ["up".to_owned()].iter().chain(args) {
        command.push(' ');
        // Variables are replaced here and not in `Environment=`.
        command.push_str(&quoted(arg).replace('$', "$$"));
    }
    let env: String = env
        .iter()
        .map(|(name, value)| format!("Environment={}\n", quoted(&format!("{name}={value}"))))
        .collect();
    format!(
        "[Unit]\n\
         Description=castra: Claude Code as supervised sessions\n\
         \n\
         [Service]\n\
         ExecStart={command}\n\
         {env}\
         Restart=on-failure\n\
         # Exit 75: another daemon holds the data folder.\n\
         RestartPreventExitStatus=75\n\
         # Sessions outlive the daemon.\n\
         KillMode=process\n\
         \n\
         [Install]\n\
         WantedBy=default.target\n"
    )
}

/// As systemd.syntax(7) reads it: `%` begins a specifier.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '%' => out.push_str("%%"),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_keeps_sessions_and_quotes_what_it_is_given() {
        let env = [("CASTRA_HOME".to_owned(), "/data/50% $x \"a\"".to_owned())];
        let unit = text(Path::new("/opt/my castra"), &env, &["--listen".into(), "127.0.0.1:1".into()]);
        let line = |start: &str| unit.lines().find(|line| line.starts_with(start)).unwrap().to_owned();
        assert_eq!(line("ExecStart="), r#"ExecStart="/opt/my castra" "up" "--listen" "127.0.0.1:1""#);
        assert_eq!(line("Environment="), r#"Environment="CASTRA_HOME=/data/50%% $x \"a\"""#);
        assert_eq!(line("KillMode="), "KillMode=process");
    }
}
