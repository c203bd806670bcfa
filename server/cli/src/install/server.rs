//! What the installation of an Authentication Service, of a resource server or of a gateway consists of: a user, a key, and a unit.
//! systemd makes the folders, and before the start of a gateway those that its operator puts APIs into, and agents come through.

use std::path::{Path, PathBuf};

use super::layout::{PROGRAM, Service, is_strange, named};
use super::step::{Step, UNITS};
use crate::exit::{Failure, Outcome};
use crate::man;
use crate::output::quote;

const AS_UNIT: &str = include_str!("../../../authority/systemd/obol-as.service");
const GATEWAY_UNIT: &str = include_str!("../../../gateway/systemd/obol-gateway.service");
const RS_UNIT: &str = include_str!("../../../resource/systemd/obol-rs.service");

/// Which of them it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Authority,
    Resource,
    Gateway,
}

impl Kind {
    /// The first part of every name.
    fn first(self) -> &'static str {
        match self {
            Self::Authority => "obol-as",
            Self::Resource => "obol-rs",
            Self::Gateway => "obol-gateway",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Authority => "Obol Authentication Service",
            Self::Resource => "Obol resource server",
            Self::Gateway => "Obol gateway",
        }
    }

    /// The key that root alone reads, and systemd hands to the daemon.
    fn key(self) -> &'static str {
        match self {
            Self::Authority => "master.key",
            Self::Resource | Self::Gateway => "identity.key",
        }
    }

    /// What the daemon keeps in its state folder, and leaves in that of its socket.
    fn leaves(self) -> (&'static [&'static str], [&'static str; 2]) {
        match self {
            Self::Authority => (
                &["authority.redb", "as-identity.key", "as-audit.key", "as-audit.key.audit"],
                ["as-control.sock", "as-control.sock.lock"],
            ),
            Self::Resource | Self::Gateway => (
                &["spent.redb", "rs-audit.key", "rs-audit.key.audit"],
                ["rs-control.sock", "rs-control.sock.lock"],
            ),
        }
    }
}

/// Names and places of one server.
#[derive(Debug)]
pub(super) struct Server {
    kind: Kind,
    name: String,
}

/// What the unit of a resource server, or of a gateway, says: its audience, and where its sessions come from.
#[derive(Debug)]
pub(super) struct Follows<'a> {
    pub(super) audience: &'a str,
    pub(super) service: &'a Service,
}

impl<'a> Follows<'a> {
    pub(super) fn new(audience: &'a str, service: &'a Service) -> Outcome<Self> {
        if audience.is_empty() || is_strange(audience) {
            return Err(Failure::usage(format_args!(
                "--audience {audience:?}: a unit cannot hold blanks, quotes, % and \\"
            )));
        }
        Ok(Self { audience, service })
    }
}

impl Server {
    pub(super) fn new(kind: Kind, own: Option<&str>) -> Outcome<Self> {
        Ok(Self { kind, name: named(kind.first(), own)? })
    }

    fn at(&self, folder: &str, file: &str) -> PathBuf {
        Path::new(folder).join(&self.name).join(file)
    }

    fn unit(&self) -> String {
        format!("{}.service", self.name)
    }

    fn unit_file(&self) -> PathBuf {
        Path::new(UNITS).join(self.unit())
    }

    fn folders_file(&self) -> PathBuf {
        Path::new("/etc/tmpfiles.d").join(format!("{}.conf", self.name))
    }

    fn users_file(&self) -> PathBuf {
        Path::new("/etc/sysusers.d").join(format!("{}.conf", self.name))
    }

    fn fill(&self, follows: Option<&Follows<'_>>) -> String {
        let template = match self.kind {
            Kind::Authority => AS_UNIT,
            Kind::Resource => RS_UNIT,
            Kind::Gateway => GATEWAY_UNIT,
        };
        let text = follows.map_or_else(
            || template.to_owned(),
            |follows| follows.service.fill(template, "RS").replace("@AUDIENCE@", follows.audience),
        );
        text.replace("@NAME@", &self.name).replace("@PROGRAM@", PROGRAM).replace(
            "# A template: `obol install` replaces the names between @ signs.",
            "# Made by `obol install`.",
        )
    }

    /// The folder of a gateway's socket for agents, beside that of its operator.
    fn agents(&self) -> PathBuf {
        PathBuf::from(format!("/run/{}-agents", self.name))
    }

    /// Makes the folders that the gateway's operator puts APIs into, and the one that agents of this machine come through.
    fn folders(&self) -> Option<[Step; 2]> {
        let file = self.folders_file();
        let text = format!(
            "# Made by `obol install`.\nd /var/lib/{0} 0700 {0} {0} -\nd /var/lib/{0}/apis 0700 {0} {0} -\nd {1} 0711 {0} {0} -\n",
            self.name,
            self.agents().display()
        );
        let create = Step::run("systemd-tmpfiles", &["--create", &file.display().to_string()]);
        (self.kind == Kind::Gateway).then_some([Step::File { path: file, mode: 0o644, text }, create])
    }

    /// The steps of an installation. Who follows is not started: it has to join first.
    pub(super) fn install(&self, follows: Option<&Follows<'_>>, program: &Path) -> Vec<Step> {
        let (users, unit) = (self.users_file(), self.unit());
        let user = format!(
            "# Made by `obol install`.\nu {} - \"{}\" /var/lib/{}\n",
            self.name,
            self.kind.title(),
            self.name
        );
        let again = match self.kind {
            Kind::Authority => Step::run("systemctl", &["restart", &unit]),
            Kind::Resource | Kind::Gateway => Step::try_systemctl(&["try-restart", &unit]),
        };
        let mut steps = vec![
            Step::Program { from: program.to_owned(), to: PROGRAM.into() },
            Step::Manual { folder: man::FOLDER.into() },
            Step::File { path: users.clone(), mode: 0o644, text: user },
            Step::run("systemd-sysusers", &[&users.display().to_string()]),
        ];
        steps.extend(self.folders().into_iter().flatten());
        steps.extend([
            Step::Folder { path: self.at("/etc", ""), mode: 0o755 },
            Step::Key { path: self.at("/etc", self.kind.key()) },
            Step::File { path: self.unit_file(), mode: 0o644, text: self.fill(follows) },
            Step::run("systemctl", &["daemon-reload"]),
            Step::run("systemctl", &["enable", &unit]),
            again,
        ]);
        steps
    }

    /// The steps that take an installation away. What nobody installed stays.
    pub(super) fn uninstall(&self) -> Vec<Step> {
        let (state, sockets) = self.kind.leaves();
        let files =
            [self.unit_file(), self.users_file(), self.folders_file(), self.at("/etc", self.kind.key())]
                .into_iter()
                .chain(state.iter().map(|name| self.at("/var/lib", name)))
                .chain(sockets.iter().map(|name| self.at("/run", name)));
        let is_gateway = self.kind == Kind::Gateway;
        let doors = ["gateway.sock", "gateway.sock.lock"].into_iter().filter(|_| is_gateway);
        let files = files.chain(doors.map(|name| self.agents().join(name)));
        let mut steps = vec![Step::try_systemctl(&["disable", "--now", &self.unit()])];
        steps.extend(files.map(|path| Step::Remove { path }));
        steps.push(Step::RemoveProgram { path: PROGRAM.into(), manual: man::FOLDER.into() });
        let below = is_gateway.then(|| [self.at("/var/lib", "apis"), self.agents()]);
        let folders = ["/run", "/var/lib", "/var/log", "/etc"].map(|folder| self.at(folder, ""));
        steps.extend(below.into_iter().flatten().chain(folders).map(|path| Step::RemoveFolder { path }));
        steps.push(Step::try_systemctl(&["daemon-reload"]));
        steps.push(Step::RemoveUser { name: self.name.clone(), unless: self.at("/var/lib", "") });
        steps
    }

    /// How a gateway gets its first API.
    fn add_an_api(&self) -> String {
        let state = |file| self.at("/var/lib", file).display().to_string();
        if self.kind != Kind::Gateway {
            return String::new();
        }
        format!(
            "It needs an API, for example from the recipe for GitHub:\n  sudo -u {} obol gateway add github --apis {} --gateway-key {} \
             --credential-file - <token.txt\n",
            self.name,
            state("apis"),
            state("gateway.key")
        )
    }

    /// What is left to do for whoever installed.
    pub(super) fn next(&self, follows: Option<&Follows<'_>>) -> String {
        let settings = self.at("/etc", "settings.conf");
        let key = self.at("/etc", self.kind.key());
        let socket = |name| format!("unix://{}", self.at("/run", name).display());
        match follows {
            None => format!(
                "\nAddress, origin, certificate and policy (OBOL_AS__LISTEN=… and so on) are set in {}; then\n  \
                 sudo systemctl restart {}\nIts operator is root:\n  sudo obol approve CODE --as-control-socket {}",
                settings.display(),
                self.unit(),
                socket("as-control.sock")
            ),
            Some(Follows { audience, service }) => format!(
                "\nIt must join once, with a code that `obol rs invite {}` prints at the service:\n  \
                 sudo obol rs join --authority '{}' --rs-identity-key {}{} CODE\n{}  sudo systemctl start {}\nOther settings \
                 ({}) are in {}. Its operator is root:\n  sudo obol rs status --rs-control-socket {}",
                quote(audience),
                service.pin,
                key.display(),
                service.ca_file.as_ref().map_or_else(String::new, |file| format!(
                    " --rs-ca-file {}",
                    quote(&file.display().to_string())
                )),
                self.add_an_api(),
                self.unit(),
                match self.kind {
                    Kind::Gateway => "OBOL_GATEWAY_FLAGS=--tls-cert … and so on",
                    _ => "OBOL_RS__LISTEN=… and so on",
                },
                settings.display(),
                socket("rs-control.sock")
            ),
        }
    }
}
