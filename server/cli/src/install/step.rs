//! One step of an installation: what it does, and how it is told.

use core::fmt;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::man;

/// Where units of the machine's own are.
pub(super) const UNITS: &str = "/etc/systemd/system";

/// One step.
#[derive(Debug)]
pub(super) enum Step {
    /// A folder of root's.
    Folder { path: PathBuf, mode: u32 },
    /// A file of root's, new or in place of the one that is there.
    File { path: PathBuf, mode: u32, text: String },
    /// A program, copied.
    Program { from: PathBuf, to: PathBuf },
    /// The manual, a page for each command, in a folder of root's.
    Manual { folder: PathBuf },
    /// A master key, made unless there is one.
    Key { path: PathBuf },
    /// A change to the running machine.
    Run { program: &'static str, arguments: Vec<String>, required: bool },
    /// A file goes away.
    Remove { path: PathBuf },
    /// The program and its manual go away, with the last unit that runs the program.
    RemoveProgram { path: PathBuf, manual: PathBuf },
    /// A folder goes away, if nothing is in it.
    RemoveFolder { path: PathBuf },
    /// A user goes away, if this folder, which held what is the user's, did.
    RemoveUser { name: String, unless: PathBuf },
}

impl Step {
    /// A change to the running machine that must work.
    pub(super) fn run(program: &'static str, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Self::Run { program, arguments, required: true }
    }

    /// What systemd is told to do where there is something to do.
    pub(super) fn try_systemctl(arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Self::Run { program: "systemctl", arguments, required: false }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder { path, mode } => write!(f, "make folder {} ({mode:04o})", path.display()),
            Self::File { path, mode, .. } => write!(f, "write {} ({mode:04o})", path.display()),
            Self::Program { from, to } => write!(f, "copy {} to {} (0755)", from.display(), to.display()),
            Self::Manual { folder } => write!(f, "write manual pages into {} (0644)", folder.display()),
            Self::Key { path } => write!(f, "make master key {} (0600), unless there is one", path.display()),
            Self::Run { program, arguments, .. } => write!(f, "run {program} {}", arguments.join(" ")),
            Self::Remove { path } => write!(f, "remove {}", path.display()),
            Self::RemoveProgram { path, manual } => write!(
                f,
                "remove {} and its manual in {}, unless another unit runs it",
                path.display(),
                manual.display()
            ),
            Self::RemoveFolder { path } => write!(f, "remove folder {}, if it is empty", path.display()),
            Self::RemoveUser { name, .. } => write!(f, "remove user {name}"),
        }
    }
}

/// Where steps are carried out, if at all.
#[derive(Debug)]
pub(super) struct Stage {
    prefix: Option<PathBuf>,
    dry_run: bool,
}

impl Stage {
    pub(super) fn new(prefix: Option<PathBuf>, dry_run: bool) -> Self {
        Self { prefix, dry_run }
    }

    /// The path on this stage.
    fn at(&self, path: &Path) -> PathBuf {
        match &self.prefix {
            Some(prefix) => prefix.join(path.strip_prefix("/").unwrap_or(path)),
            None => path.to_owned(),
        }
    }

    /// Carries it out, or not; what became of it, in a line.
    pub(super) fn carry_out(&self, step: &Step) -> io::Result<String> {
        let is_live = matches!(step, Step::Run { .. } | Step::RemoveUser { .. });
        if self.prefix.is_some() && is_live {
            return Ok(format!("left out, because of --prefix: {step}"));
        }
        if self.dry_run {
            return Ok(format!("would {step}"));
        }
        let note = self.act(step)?;
        Ok(format!("{step}: {note}"))
    }

    fn act(&self, step: &Step) -> io::Result<&'static str> {
        match step {
            Step::Folder { path, mode } => {
                let path = self.at(path);
                fs::create_dir_all(&path)?;
                fs::set_permissions(path, Permissions::from_mode(*mode))?;
            }
            Step::File { path, mode, text } => self.put(path, *mode, text.as_bytes())?,
            Step::Program { from, to } if fs::canonicalize(self.at(to)).ok().as_ref() == Some(from) => {
                return Ok("it is there");
            }
            Step::Program { from, to } => self.put(to, 0o755, &fs::read(from)?)?,
            Step::Manual { folder } => {
                man::pages()
                    .iter()
                    .try_for_each(|page| self.put(&folder.join(&page.name), 0o644, &page.text))?;
            }
            Step::Key { path } => {
                let path = self.at(path);
                let there = path.exists();
                obol_queue::MasterKey::load_or_create(&path).map_err(io::Error::other)?;
                if there {
                    return Ok("it is there");
                }
            }
            Step::Run { program, arguments, required } => return run(program, arguments, *required),
            Step::Remove { path } => return self.remove(path),
            Step::RemoveProgram { .. } if self.has_unit()? => return Ok("STAYS: another unit runs it"),
            Step::RemoveProgram { path, manual } => {
                for page in man::pages() {
                    let _done = self.remove(&manual.join(page.name))?;
                }
                return self.remove(path);
            }
            Step::RemoveFolder { path } => match fs::remove_dir(self.at(path)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok("it was not there"),
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                    return Ok(
                        "STAYS: it holds something that was not installed; look at it, then remove it by hand",
                    );
                }
                removed => removed?,
            },
            Step::RemoveUser { unless, .. } if self.at(unless).exists() => {
                return Ok("STAYS: its folder is still there, and must not become another user's");
            }
            Step::RemoveUser { name, .. } => return run("userdel", core::slice::from_ref(name), false),
        }
        Ok("done")
    }

    fn remove(&self, path: &Path) -> io::Result<&'static str> {
        match fs::remove_file(self.at(path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok("it was not there"),
            removed => removed.map(|()| "done"),
        }
    }

    /// Whether a unit that this program installed is left, of whatever role.
    fn has_unit(&self) -> io::Result<bool> {
        let folder = match fs::read_dir(self.at(Path::new(UNITS))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            folder => folder?,
        };
        let names = folder.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()));
        let names = names.collect::<io::Result<Vec<_>>>()?;
        Ok(names.iter().any(|name| name.starts_with("obol") && name.ends_with(".service")))
    }

    /// Writes a file whole, in place of the one that was there.
    fn put(&self, path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
        let path = self.at(path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut fresh = path.clone().into_os_string();
        fresh.push(".new");
        let _left_over = fs::remove_file(&fresh);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(bytes)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(fresh, path)
    }
}

/// Runs a program of the system's. One that is not required may fail: what it undoes may not have been there.
fn run(program: &str, arguments: &[String], required: bool) -> io::Result<&'static str> {
    let failed =
        |why: String| if required { Err(io::Error::other(why)) } else { Ok("failed, which does no harm") };
    match Command::new(program).args(arguments).output() {
        Ok(output) if output.status.success() => Ok("done"),
        Ok(output) => failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => failed(error.to_string()),
    }
}
