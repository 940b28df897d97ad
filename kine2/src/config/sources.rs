//! Where settings come from: flags, the environment, files, defaults, in this order.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::keys::{KEYS, Key, find};

/// The file that is read when it is there.
pub(crate) const DEFAULT_FILE: &str = "/etc/kine2/config.yaml";

/// A value and who gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) values: Vec<String>,
    pub(crate) source: Source,
}

/// Who gave a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Default,
    File { path: PathBuf, line: usize },
    Env(String),
    Flag,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Env(name) => f.write_str(name),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// All settings with their sources.
pub(crate) type Settings = BTreeMap<&'static str, Given>;

/// Reads every source. `flags` are those that were given.
///
/// # Errors
/// If a file does not parse, or names a key there is not; the error says file and line.
pub(crate) fn gather(
    file: Option<&Path>,
    env: impl Fn(&str) -> Option<OsString>,
    flags: Vec<(&'static str, Vec<String>)>,
) -> anyhow::Result<Settings> {
    let mut settings: Settings = KEYS
        .iter()
        .map(|key| {
            let values = split(key, key.default);
            (
                key.name,
                Given {
                    values,
                    source: Source::Default,
                },
            )
        })
        .collect();
    read_files(file, &mut settings)?;
    for key in KEYS {
        let name = key.env_name();
        if let Some(value) = env(&name) {
            let value = value
                .into_string()
                .ok()
                .with_context(|| format!("{name} is not text"))?;
            let values = split(key, &value);
            settings.insert(
                key.name,
                Given {
                    values,
                    source: Source::Env(name),
                },
            );
        }
    }
    for (name, values) in flags {
        let key = find(name).expect("flags are made from the table");
        let values = values.iter().flat_map(|value| split(key, value)).collect();
        settings.insert(
            key.name,
            Given {
                values,
                source: Source::Flag,
            },
        );
    }
    Ok(settings)
}

/// The file, and what lies in the directory `FILE.d` in order of names; the last wins.
fn read_files(file: Option<&Path>, settings: &mut Settings) -> anyhow::Result<()> {
    let path = file.unwrap_or_else(|| Path::new(DEFAULT_FILE));
    match fs::read_to_string(path) {
        Ok(text) => read_text(path, &text, settings)?,
        Err(error) if error.kind() == ErrorKind::NotFound && file.is_none() => {}
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    }
    let mut dir = path.as_os_str().to_owned();
    dir.push(".d");
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("read {}", dir.display())),
    };
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(
            entry
                .with_context(|| format!("read {}", dir.display()))?
                .path(),
        );
    }
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "yaml"));
    paths.sort();
    for path in paths {
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        read_text(&path, &text, settings)?;
    }
    Ok(())
}

/// Reads one file's text.
///
/// # Errors
/// If it is not a map of known keys to values or lists of values.
pub(crate) fn read_text(path: &Path, text: &str, settings: &mut Settings) -> anyhow::Result<()> {
    let path_shown = path.display();
    if text
        .lines()
        .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
    {
        return Ok(());
    }
    let form = || format!("{path_shown}: expected lines of the form `key: value`");
    let document = marked_yaml::parse_yaml(0, text).with_context(form)?;
    let map = document.as_mapping().with_context(form)?;
    for (name, value) in map.iter() {
        let line = name.span().start().map_or(0, marked_yaml::Marker::line);
        let Some(key) = find(name.as_str()) else {
            let known: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
            bail!(
                "{path_shown}:{line}: there is no key `{}`; known keys are {}",
                name.as_str(),
                known.join(", ")
            );
        };
        let refuse = || format!("{path_shown}:{line}: {} takes {}", key.name, key.accepts);
        let values = if let Some(scalar) = value.as_scalar() {
            split(key, scalar.as_str())
        } else if let Some(items) = value.as_sequence().filter(|_| key.is_list) {
            let text = |item: &marked_yaml::Node| Some(item.as_scalar()?.as_str().to_owned());
            items
                .iter()
                .map(text)
                .collect::<Option<Vec<_>>>()
                .with_context(refuse)?
        } else {
            bail!(refuse());
        };
        let source = Source::File {
            path: path.to_owned(),
            line,
        };
        settings.insert(key.name, Given { values, source });
    }
    Ok(())
}

/// Lists are separated by commas.
fn split(key: &Key, value: &str) -> Vec<String> {
    if key.is_list {
        let parts = value
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty());
        return parts.map(str::to_owned).collect();
    }
    if value.is_empty() {
        Vec::new()
    } else {
        vec![value.to_owned()]
    }
}
