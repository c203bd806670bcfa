//! What an installation consists of: a user, folders, keys, and units that name the agents' users. The authenticator's unit
//! is there only if an Authentication Service was named.

use std::path::{Path, PathBuf};

use obol_sidecar::{Access, AgentUsers};
use obol_uplink::Pinned;

use super::step::{Step, UNITS};
use crate::exit::{Failure, Outcome};
use crate::man;

const SERVICE: &str = include_str!("../../../sidecar/systemd/obol-tqs.service");
const SOCKET: &str = include_str!("../../../sidecar/systemd/obol-tqs.socket");
const AUTHENTICATOR: &str = include_str!("../../../authenticator/systemd/obol-authenticator.service");
pub(super) const PROGRAM: &str = "/usr/local/bin/obol";
/// The user, and the first part of every other name.
pub(super) const NAME: &str = "obol";
/// The longest name of a user on Linux, in bytes.
const MAX_NAME_BYTES: usize = 31;
/// A user that no user has: what is installed is checked for a sidecar whose user does not exist yet.
const NOBODY_YET: u32 = u32::MAX;
/// What the daemons keep in their state folder. What else is there was put there by somebody.
const STATE: [&str; 9] = [
    "tokens.redb",
    "tokens.redb.keys",
    "tokens.redb.audit",
    "master.key",
    "authenticator/agent.identity",
    "authenticator/agent.identity.lock",
    "authenticator/identity.key",
    "authenticator/audit.key",
    "authenticator/audit.key.audit",
];
/// What the daemons leave in the folder of their sockets.
const SOCKETS: [&str; 11] = [
    "agent.sock",
    "control.sock",
    "http.sock",
    "control.sock.lock",
    "http.sock.lock",
    "auth.sock",
    "auth.sock.lock",
    "auth-http.sock",
    "auth-http.sock.lock",
    "auth-control.sock",
    "auth-control.sock.lock",
];
/// Whom the daemons serve: both units read it, so that both say the same.
const AGENTS: &str = "agents.conf";
/// Keys that only root reads, and systemd hands to the daemons.
const MASTER_KEY: &str = "master.key";
const IDENTITY_KEY: &str = "identity.key";

/// The Authentication Service that the authenticator speaks to.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) pin: Pinned,
    pub(super) ca_file: Option<PathBuf>,
}

impl Service {
    /// Both end up in lines of a unit, which has its own meanings for some characters.
    pub(super) fn new(pin: &str, ca_file: Option<&Path>) -> Outcome<Self> {
        let wrong = |error: &dyn core::fmt::Display| Failure::usage(format_args!("--as {pin:?}: {error}"));
        let parsed = Pinned::parse(pin).map_err(|error| wrong(&error))?;
        if is_strange(pin) {
            return Err(wrong(&"a unit cannot hold blanks, quotes, % and \\"));
        }
        if let Some(file) = ca_file {
            let fits = file.is_absolute() && file.to_str().is_some_and(|text| !is_strange(text));
            if !fits {
                return Err(Failure::usage(format_args!(
                    "--ca-file {}: give an absolute path without blanks, quotes, % and \\",
                    file.display()
                )));
            }
            obol_secret::file::open_public(file)
                .map_err(|error| Failure::usage(format_args!("--ca-file {}: {error}", file.display())))?;
        }
        Ok(Self { pin: parsed, ca_file: ca_file.map(Path::to_owned) })
    }

    /// Fills in what a unit says of it; `section` is that of the role's settings.
    pub(super) fn fill(&self, template: &str, section: &str) -> String {
        let ca_file = self.ca_file.as_ref().map_or_else(String::new, |file| {
            format!("Environment=OBOL_{section}__CA_FILE={}\n", file.display())
        });
        template.replace("@SERVICE@", &self.pin.to_string()).replace("@CA_FILE@\n", &ca_file)
    }
}

/// Whether a text would mean something else in a line of a unit.
pub(super) fn is_strange(text: &str) -> bool {
    text.contains(['%', '"', '\\', '\'']) || text.contains(|c: char| c.is_whitespace() || c.is_control())
}

/// What user, units and folders are called: `first`, or `first-own`.
pub(super) fn named(first: &str, own: Option<&str>) -> Outcome<String> {
    let Some(own) = own else { return Ok(first.to_owned()) };
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let name = format!("{first}-{own}");
    if own.is_empty() || name.len() > MAX_NAME_BYTES || !own.chars().all(plain) {
        return Err(Failure::usage(format_args!(
            "--name is 1 to {} lower-case letters, digits and hyphens, not {own:?}",
            MAX_NAME_BYTES - first.len() - 1
        )));
    }
    Ok(name)
}

/// Names and places of one sidecar.
#[derive(Debug)]
pub(super) struct Layout {
    name: String,
}

impl Layout {
    /// Of the machine's one sidecar, or of one more with a name of its own.
    pub(super) fn new(name: Option<&str>) -> Outcome<Self> {
        // Those are the other roles'.
        if let Some(own) =
            name.filter(|own| ["as", "rs", "gateway"].iter().any(|role| own.split('-').next() == Some(role)))
        {
            return Err(Failure::usage(format_args!(
                "--name {own}: a sidecar's name does not begin with as, rs or gateway"
            )));
        }
        Ok(Self { name: named(NAME, name)? })
    }

    /// The agents' users, who must exist.
    pub(super) fn agents(&self, names: &[String]) -> Outcome<AgentUsers> {
        if names.contains(&self.name) {
            return Err(Failure::usage(format_args!(
                "--agent-user {}: that is the sidecar's own user, and an agent must be another",
                self.name
            )));
        }
        // They end up between commas, in a line of a unit.
        if let Some(name) = names
            .iter()
            .find(|name| name.contains([',', '%', '"', '\\']) || name.contains(char::is_whitespace))
        {
            return Err(Failure::usage(format_args!("--agent-user {name:?} is not a user's name")));
        }
        AgentUsers::named(names, NOBODY_YET)
            .map_err(|error| Failure::usage(format_args!("--agent-user: {error}")))
    }

    fn at(&self, folder: &str, file: &str) -> PathBuf {
        Path::new(folder).join(&self.name).join(file)
    }

    /// The names of the units: of the sidecar's socket, of its service, and of the authenticator's.
    fn units(&self) -> [String; 3] {
        ["tqs.socket", "tqs.service", "authenticator.service"].map(|unit| format!("{}-{unit}", self.name))
    }

    fn unit_file(unit: &str) -> PathBuf {
        Path::new(UNITS).join(unit)
    }

    fn users_file(&self) -> PathBuf {
        Path::new("/etc/sysusers.d").join(format!("{}.conf", self.name))
    }

    fn folders_file(&self) -> PathBuf {
        Path::new("/etc/tmpfiles.d").join(format!("{}.conf", self.name))
    }

    /// A template with what stands between @ signs filled in.
    fn fill(&self, template: &str, agents: &AgentUsers) -> String {
        let modes = Access::Agents(agents.clone()).modes();
        let group = modes.group.map_or_else(|| self.name.clone(), |group| group.to_string());
        template
            .replace("@NAME@", &self.name)
            .replace("@PROGRAM@", PROGRAM)
            .replace("@AGENT_USERS@", &agents.names().join(","))
            .replace("@SOCKET_GROUP@", &group)
            .replace("@SOCKET_MODE@", &format!("{:04o}", modes.socket))
            .replace("@FOLDER_MODE@", &format!("{:04o}", modes.folder))
            .replace(
                "# A template: `obol install` replaces the names between @ signs.",
                "# Made by `obol install`.",
            )
    }

    /// The steps of an installation. Doing them again, with other agents too, puts things as they should be; an authenticator
    /// that is there stays, unless another service is named for it.
    pub(super) fn install(
        &self,
        agents: &AgentUsers,
        service: Option<&Service>,
        program: &Path,
    ) -> Vec<Step> {
        let file = |path, text: &str| Step::File { path, mode: 0o644, text: self.fill(text, agents) };
        let [socket, tqs, authenticator] = &self.units();
        let mut steps = vec![
            Step::Program { from: program.to_owned(), to: PROGRAM.into() },
            Step::Manual { folder: man::FOLDER.into() },
            file(
                self.users_file(),
                "# Made by `obol install`.\nu @NAME@ - \"Obol Token Queue Service\" /var/lib/@NAME@\n",
            ),
            Step::run("systemd-sysusers", &[&self.users_file().display().to_string()]),
            file(
                self.folders_file(),
                "# Made by `obol install`.\nd /run/@NAME@ @FOLDER_MODE@ @NAME@ @SOCKET_GROUP@ -\n",
            ),
            Step::run("systemd-tmpfiles", &["--create", &self.folders_file().display().to_string()]),
            Step::Folder { path: self.at("/etc", ""), mode: 0o755 },
            file(self.at("/etc", AGENTS), "# Made by `obol install`.\nOBOL_TQS__AGENT_USERS=@AGENT_USERS@\n"),
            Step::Key { path: self.at("/etc", MASTER_KEY) },
            file(Self::unit_file(socket), SOCKET),
            file(Self::unit_file(tqs), SERVICE),
        ];
        let mut units = vec![socket.as_str(), tqs];
        if let Some(service) = service {
            steps.push(Step::Key { path: self.at("/etc", IDENTITY_KEY) });
            steps.push(file(Self::unit_file(authenticator), &service.fill(AUTHENTICATOR, "AUTHENTICATOR")));
            units.push(authenticator);
        }
        steps.push(Step::run("systemctl", &["daemon-reload"]));
        steps.extend(
            ["enable", "restart"].map(|verb| Step::run("systemctl", &[&[verb], &units[..]].concat())),
        );
        if service.is_none() {
            steps.push(Step::try_systemctl(&["try-restart", authenticator]));
        }
        steps
    }

    /// The steps that take an installation away. What nobody installed stays, and so does the user whose files it is.
    pub(super) fn uninstall(&self) -> Vec<Step> {
        // One at a time: where one was never installed, the others are still to be stopped.
        let mut steps: Vec<_> =
            self.units().iter().rev().map(|unit| Step::try_systemctl(&["disable", "--now", unit])).collect();
        let mut files: Vec<_> = self.units().iter().map(|unit| Self::unit_file(unit)).collect();
        files.extend([self.folders_file(), self.users_file()]);
        files.extend(SOCKETS.map(|name| self.at("/run", name)));
        files.extend(STATE.map(|name| self.at("/var/lib", name)));
        files.extend([AGENTS, MASTER_KEY, IDENTITY_KEY].map(|name| self.at("/etc", name)));
        steps.extend(files.into_iter().map(|path| Step::Remove { path }));
        steps.push(Step::RemoveProgram { path: PROGRAM.into(), manual: man::FOLDER.into() });
        let folders = [("/run", ""), ("/var/lib", "authenticator"), ("/var/lib", ""), ("/etc", "")];
        let folders = folders.map(|(folder, below)| self.at(folder, below));
        steps.extend(folders.map(|path| Step::RemoveFolder { path }));
        steps.push(Step::try_systemctl(&["daemon-reload"]));
        steps.push(Step::RemoveUser { name: self.name.clone(), unless: self.at("/var/lib", "") });
        steps
    }

    /// What is left to do for whoever installed.
    pub(super) fn next(&self, agents: &AgentUsers, service: Option<&Service>) -> String {
        let socket = |name| self.at("/run", name).display().to_string();
        let named = self.name != NAME;
        let agent = if named {
            format!(" with OBOL_ENDPOINT_SOCKET=unix://{}", socket("agent.sock"))
        } else {
            String::new()
        };
        let control =
            if named { format!(" --control-socket {}", socket("control.sock")) } else { String::new() };
        let draw = format!("\nAgents ({}) draw{agent}:  obol dequeue TOOL", agents.names().join(", "));
        match service {
            None => format!(
                "{draw}\nThe operator gives it a session:  sudo obol session provision{control} agent-session.json"
            ),
            Some(service) => format!(
                "{draw}\nOne of them asks once{agent}:  obol register\nA human approves it, at {}:  obol approve CODE",
                service.pin.origin()
            ),
        }
    }
}
