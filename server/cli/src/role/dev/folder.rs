//! The folder that everything of `obol dev` is in, and what is written into it at the first start.

use core::fmt::Write as _;
use core::net::{Ipv4Addr, SocketAddr};
use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use obol_ipc::Endpoint;
use obol_ipc::names::ToolName;
use obol_secret::file::create_folder;

use crate::exit::{Failure, Outcome};

/// The resource server's port, unless it is taken.
const RS_PORT: u16 = 8700;
/// The Authentication Service's.
const AS_PORT: u16 = 8701;
/// Life of a token, in seconds.
const TTL_SECS: u64 = 60;
/// The tools of a new folder, if none are named.
const TOOLS: [&str; 2] = ["search", "pay"];
/// Where it stands which tools there are.
const CATALOGUE: &str = "policy/catalogue.toml";

/// Who may use what, and who may say yes to an agent, and to a call.
const POLICIES: &str = r#"// Who may use what. After a change, run: obol policy activate policy
@id("developers")
permit (principal in Obol::Role::"developer", action == Obol::Action::"use", resource);

// Without such a permit nothing is minted ahead.
@id("ahead")
permit (principal is Obol::Agent, action == Obol::Action::"useUnattended", resource);

@id("operators")
permit (principal in Obol::Role::"operator", action == Obol::Action::"register", resource);

// If `ahead` denies a tool, a human must approve each call of it: obol approvals, obol approve.
@id("operators-approve-calls")
permit (principal in Obol::Role::"operator", action == Obol::Action::"approveCall", resource);
"#;

pub(super) struct DevFolder {
    folder: PathBuf,
    /// Removes the folder at the end.
    temporary: Option<tempfile::TempDir>,
}

impl DevFolder {
    pub(super) fn open(named: Option<&Path>) -> Outcome<Self> {
        let Some(named) = named else {
            let closed = fs::Permissions::from_mode(0o700);
            let folder = tempfile::Builder::new().prefix("obol-dev-").permissions(closed).tempdir()?;
            return Ok(Self { folder: folder.path().to_owned(), temporary: Some(folder) });
        };
        create_folder(named)
            .map_err(std::io::Error::from)
            .and_then(|()| fs::canonicalize(named))
            .map(|folder| Self { folder, temporary: None })
            .map_err(|error| {
                Failure::usage(format_args!("cannot use the folder {}: {error}", named.display()))
            })
    }

    pub(super) fn path(&self) -> &Path {
        &self.folder
    }

    /// The folder, if it is gone at the end.
    pub(super) fn temporary(&self) -> Option<&Path> {
        self.temporary.as_ref().map(tempfile::TempDir::path)
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(super) fn socket(&self, name: &str) -> Outcome<Endpoint> {
        Endpoint::at(self.file(name)).map_err(Failure::usage)
    }

    /// Where the resource server listens, who it is to tokens, and where the Authentication Service listens. Who agents and
    /// servers are known to stays as it was at the first start.
    pub(super) fn addresses(&self, named: Option<SocketAddr>) -> Outcome<Addresses> {
        let listen = match named {
            Some(named) if !named.ip().is_loopback() => {
                return Err(Failure::usage(format_args!(
                    "{named} is not a loopback address, and `obol dev` listens only on loopback; use `obol rs` for other addresses"
                )));
            }
            Some(named) if named.port() != 0 => named,
            Some(named) => free(named)?,
            None => free_at(RS_PORT)?,
        };
        let audience = self.remembered("audience", || Ok(format!("http://{listen}")))?;
        let service = self.remembered("authority", || Ok(free_at(AS_PORT)?.to_string()))?;
        Ok(Addresses { listen, audience, service })
    }

    /// What a file says; at the first start, what it is to say.
    fn remembered(&self, name: &str, first: impl FnOnce() -> Outcome<String>) -> Outcome<String> {
        match fs::read_to_string(self.file(name)) {
            Ok(text) => Ok(text.trim().to_owned()),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let text = first()?;
                fs::write(self.file(name), &text)?;
                Ok(text)
            }
            Err(error) => Err(Failure::usage(format_args!("{}: {error}", self.file(name).display()))),
        }
    }

    /// Writes the policy of a new folder; of another, the policy is what is in force there. A tool that it grants.
    pub(super) fn policy(&self, tools: &[String], audience: &str) -> Outcome<String> {
        let catalogue = self.file(CATALOGUE);
        if catalogue.exists() {
            if !tools.is_empty() {
                return Err(Failure::usage(format_args!(
                    "the tools of this folder are listed in {}; change them there, then run `obol policy activate {}`",
                    catalogue.display(),
                    self.file("policy").display()
                )));
            }
            return first_tool(&fs::read_to_string(catalogue)?);
        }
        let usual = TOOLS.map(str::to_owned);
        let tools = if tools.is_empty() { &usual[..] } else { tools };
        let mut text = String::from("org = \"dev\"\n");
        for tool in tools {
            let tool = ToolName::new(tool.as_str()).map_err(Failure::usage)?;
            let tool = tool.as_str();
            let _always = write!(
                text,
                "\n[[tool]]\nname = \"{tool}\"\naudience = \"{audience}\"\nrisk = \"low\"\n  [[tool.offer]]\n  \
                 name = \"all\"\n  action = [\"call\"]\n  resource = \"**\"\n  ttl = {TTL_SECS}\n"
            );
        }
        create_folder(&self.file("policy"))?;
        fs::write(self.file("policy/policies.cedar"), POLICIES)?;
        // Last: where it is, the rest is.
        fs::write(catalogue, text)?;
        Ok(tools.first().cloned().unwrap_or_default())
    }
}

/// The first tool that a catalogue names.
fn first_tool(catalogue: &str) -> Outcome<String> {
    let read: toml::Table = catalogue
        .parse()
        .map_err(|error| Failure::usage(format_args!("{CATALOGUE} cannot be read: {error}")))?;
    let first = read.get("tool").and_then(|tools| tools.get(0)).and_then(|tool| tool.get("name"));
    let named = first.and_then(toml::Value::as_str);
    named.map(str::to_owned).ok_or_else(|| Failure::usage(format_args!("{CATALOGUE} names no tool")))
}

/// Who listens where.
pub(super) struct Addresses {
    pub(super) listen: SocketAddr,
    pub(super) audience: String,
    /// The Authentication Service's, as a text.
    pub(super) service: String,
}

/// This port of loopback, or another if it is taken.
fn free_at(port: u16) -> Outcome<SocketAddr> {
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    free(at(port)).or_else(|_taken| free(at(0)))
}

/// A port that nobody listens on at this moment.
fn free(address: SocketAddr) -> Outcome<SocketAddr> {
    let listener = TcpListener::bind(address)
        .map_err(|error| Failure::unavailable(format_args!("cannot listen on {address}: {error}")))?;
    Ok(listener.local_addr()?)
}
