//! What an installation consists of: a user, folders, a key, and two units that name the agents' users.

use std::path::{Path, PathBuf};

use obol_sidecar::{Access, AgentUsers};

use super::step::Step;
use crate::exit::{Failure, Outcome};
use crate::man;

const SERVICE: &str = include_str!("../../../sidecar/systemd/obol-tqs.service");
const SOCKET: &str = include_str!("../../../sidecar/systemd/obol-tqs.socket");
const PROGRAM: &str = "/usr/local/bin/obol";
/// The user, and the first part of every other name.
const NAME: &str = "obol";
/// The longest name of a user on Linux, in bytes.
const MAX_NAME_BYTES: usize = 31;
/// A user that no user has: what is installed is checked for a sidecar whose user does not exist yet.
const NOBODY_YET: u32 = u32::MAX;
/// What the daemon keeps in its state folder. What else is there was put there by somebody.
const STATE: [&str; 4] = ["tokens.redb", "tokens.redb.keys", "tokens.redb.audit", "master.key"];
/// What the daemon leaves in the folder of its sockets.
const SOCKETS: [&str; 5] = ["agent.sock", "control.sock", "http.sock", "control.sock.lock", "http.sock.lock"];

/// Names and places of one sidecar.
#[derive(Debug)]
pub(super) struct Layout {
    name: String,
}

impl Layout {
    /// Of the machine's one sidecar, or of one more with a name of its own.
    pub(super) fn new(name: Option<&str>) -> Outcome<Self> {
        let Some(own) = name else { return Ok(Self { name: NAME.to_owned() }) };
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let name = format!("{NAME}-{own}");
        if own.is_empty() || name.len() > MAX_NAME_BYTES || !own.chars().all(plain) {
            return Err(Failure::usage(format_args!(
                "a sidecar's name is 1 to {} lower-case letters, digits and hyphens, not {own:?}",
                MAX_NAME_BYTES - NAME.len() - 1
            )));
        }
        Ok(Self { name })
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

    fn unit(&self, kind: &str) -> String {
        format!("{}-tqs.{kind}", self.name)
    }

    fn unit_file(&self, kind: &str) -> PathBuf {
        Path::new("/etc/systemd/system").join(self.unit(kind))
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
                "# A template: `obol install` fills in what stands between @ signs.",
                "# Made by `obol install`.",
            )
    }

    /// The steps of an installation. Doing them again, with other agents too, puts things as they should be.
    pub(super) fn install(&self, agents: &AgentUsers, program: &Path) -> Vec<Step> {
        let file = |path, text: &str| Step::File { path, mode: 0o644, text: self.fill(text, agents) };
        let run = |program, arguments: &[&str]| Step::Run {
            program,
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            required: true,
        };
        let (socket, service) = (self.unit("socket"), self.unit("service"));
        vec![
            Step::Program { from: program.to_owned(), to: PROGRAM.into() },
            Step::Manual { folder: man::FOLDER.into() },
            file(
                self.users_file(),
                "# Made by `obol install`.\nu @NAME@ - \"Obol Token Queue Service\" /var/lib/@NAME@\n",
            ),
            run("systemd-sysusers", &[&self.users_file().display().to_string()]),
            file(
                self.folders_file(),
                "# Made by `obol install`.\nd /run/@NAME@ @FOLDER_MODE@ @NAME@ @SOCKET_GROUP@ -\n",
            ),
            run("systemd-tmpfiles", &["--create", &self.folders_file().display().to_string()]),
            Step::Folder { path: self.at("/etc", ""), mode: 0o755 },
            Step::Key { path: self.at("/etc", "master.key") },
            file(self.unit_file("socket"), SOCKET),
            file(self.unit_file("service"), SERVICE),
            run("systemctl", &["daemon-reload"]),
            run("systemctl", &["enable", &socket, &service]),
            run("systemctl", &["restart", &socket, &service]),
        ]
    }

    /// The steps that take an installation away. What nobody installed stays, and so does the user whose files it is.
    pub(super) fn uninstall(&self) -> Vec<Step> {
        let run = |arguments: Vec<String>, required| Step::Run { program: "systemctl", arguments, required };
        let (socket, service) = (self.unit("socket"), self.unit("service"));
        let mut steps = vec![run(["disable", "--now", &socket, &service].map(str::to_owned).to_vec(), false)];
        let mut files = vec![self.unit_file("service"), self.unit_file("socket")];
        files.extend([self.folders_file(), self.users_file()]);
        files.extend(SOCKETS.map(|name| self.at("/run", name)));
        files.extend(STATE.map(|name| self.at("/var/lib", name)));
        files.push(self.at("/etc", "master.key"));
        if self.name == NAME {
            files.push(PROGRAM.into());
        }
        steps.extend(files.into_iter().map(|path| Step::Remove { path }));
        if self.name == NAME {
            steps.push(Step::RemoveManual { folder: man::FOLDER.into() });
        }
        let folders = ["/run", "/var/lib", "/etc"].map(|folder| self.at(folder, ""));
        steps.extend(folders.map(|path| Step::RemoveFolder { path }));
        steps.push(run(vec!["daemon-reload".to_owned()], false));
        steps.push(Step::RemoveUser { name: self.name.clone(), unless: self.at("/var/lib", "") });
        steps
    }

    /// What is left to do for whoever installed.
    pub(super) fn next(&self, agents: &AgentUsers) -> String {
        let socket = |name| self.at("/run", name).display().to_string();
        let named = self.name != NAME;
        let agent = if named {
            format!(" with OBOL_ENDPOINT_SOCKET=unix://{}", socket("agent.sock"))
        } else {
            String::new()
        };
        let control =
            if named { format!(" --control-socket {}", socket("control.sock")) } else { String::new() };
        format!(
            "\nAgents ({}) draw{agent}:  obol dequeue TOOL\nThe operator gives it a session:  sudo obol session provision{control} agent-session.json",
            agents.names().join(", ")
        )
    }
}
