//! The C shim between kine2 and its disk: built once, then told by the environment what to do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, bail, ensure};

use crate::server::Launch;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/shim/shim.c");

/// The shared object.
///
/// # Errors
/// If there is no C compiler.
pub fn library() -> anyhow::Result<&'static Path> {
    static PATH: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match PATH.get_or_init(|| build().map_err(|error| format!("{error:#}"))) {
        Ok(path) => Ok(path),
        Err(error) => bail!("{error}"),
    }
}

fn build() -> anyhow::Result<PathBuf> {
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let own = std::env::current_exe()?;
    let dir = own.parent().context("where this program lies")?;
    let path = dir.join("kine2-crash-shim.so");
    // Several tests may build it at once: each gives its own the name in one step.
    let draft = dir.join(format!("kine2-crash-shim.{}.so", std::process::id()));
    let output = Command::new(&compiler)
        .args(["-O2", "-shared", "-fPIC", "-Wall", "-Wextra", "-o"])
        .arg(&draft)
        .args([SOURCE, "-ldl", "-lpthread"])
        .output()
        .with_context(|| {
            format!(
                "there is no C compiler: {} does not run; install one (Debian: apt install gcc \
                 libc6-dev) or name it in CC",
                compiler.display()
            )
        })?;
    ensure!(
        output.status.success(),
        "{} does not build {SOURCE}:\n{}",
        compiler.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    fs::rename(&draft, &path)?;
    Ok(path)
}

/// The shim's files for one data directory, all below the directory that holds it.
#[derive(Clone, Debug)]
pub struct Shim {
    /// What is watched; the data directory lies in it, so that its own name counts.
    pub root: PathBuf,
    /// The undo log.
    pub undo: PathBuf,
    /// Deleted files.
    pub graves: PathBuf,
    /// One line for each rule that has hit.
    pub calls: PathBuf,
    /// Rules count once this is there.
    pub arm: PathBuf,
}

impl Shim {
    /// For a data directory `base/disk/data`.
    ///
    /// # Errors
    /// If the directories cannot be made.
    pub fn below(base: &Path) -> anyhow::Result<Self> {
        let shim = Self {
            root: base.join("disk"),
            undo: base.join("undo"),
            graves: base.join("graves"),
            calls: base.join("calls"),
            arm: base.join("arm"),
        };
        fs::create_dir_all(&shim.root)?;
        fs::create_dir_all(&shim.graves)?;
        Ok(shim)
    }

    /// Has a start of kine2 run on it, with an undo log.
    ///
    /// # Errors
    /// If the shim cannot be built.
    pub fn record(&self, launch: Launch) -> anyhow::Result<Launch> {
        Ok(self
            .load(launch)?
            .env("CRASH_UNDO", path_text(&self.undo)?)
            .env("CRASH_GRAVES", path_text(&self.graves)?))
    }

    /// Has a start of kine2 run on it, with faults that count from [`arm`](Self::arm) on.
    ///
    /// # Errors
    /// If the shim cannot be built.
    pub fn fail(&self, launch: Launch, rules: &str) -> anyhow::Result<Launch> {
        let _ = fs::remove_file(&self.calls);
        let _ = fs::remove_file(&self.arm);
        Ok(self
            .load(launch)?
            .env("CRASH_FAULTS", rules)
            .env("CRASH_ARM", path_text(&self.arm)?)
            .env("CRASH_CALLS", path_text(&self.calls)?))
    }

    /// From now on the rules count.
    ///
    /// # Errors
    /// If the file that says so cannot be made.
    pub fn arm(&self) -> anyhow::Result<()> {
        Ok(fs::write(&self.arm, "")?)
    }

    fn load(&self, mut launch: Launch) -> anyhow::Result<Launch> {
        launch.data_dir = self.root.join("data");
        Ok(launch
            .env("LD_PRELOAD", path_text(library()?)?)
            .env("CRASH_ROOT", path_text(&self.root)?))
    }

    /// Has a rule hit a call?
    #[must_use]
    pub fn has_hit(&self) -> bool {
        fs::metadata(&self.calls).is_ok_and(|metadata| metadata.len() > 0)
    }

    /// All that is there now is durable: forget what was before.
    ///
    /// # Errors
    /// If the files cannot be removed.
    pub fn forget(&self) -> anyhow::Result<()> {
        fs::remove_file(&self.undo)?;
        fs::remove_dir_all(&self.graves)?;
        fs::create_dir(&self.graves)?;
        Ok(())
    }
}

fn path_text(path: &Path) -> anyhow::Result<String> {
    let text = path.to_str();
    Ok(text
        .with_context(|| format!("{} is not UTF-8", path.display()))?
        .to_owned())
}
