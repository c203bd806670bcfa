//! The Authentication Service of the demo and its operator: `obol as` as a process of its own, with a policy.

use core::net::{Ipv4Addr, SocketAddr};
use std::fs;
use std::net::TcpListener;

use obol_client::AsControlClient;
use obol_ipc::as_control::{
    ApproveParams, DisableParams, DisableResult, DisableScope, InviteServerParams, RegistrationParams,
    RegistrationResult,
};
use obol_ipc::names::{Audience, Label, Reason};

use super::home::{Home, Process, options};
use crate::exit::{Failure, Outcome};

/// The tools that there are, and in which form they can be granted.
const CATALOGUE: &str = r#"
org = "example"

[[tool]]
name = "search"
audience = "https://api.example/mcp"
risk = "low"
  [[tool.offer]]
  name = "documents"
  action = ["call"]
  resource = "docs/**"
  ttl = 60

[[tool]]
name = "pay"
audience = "https://api.example/mcp"
risk = "low"
  [[tool.offer]]
  name = "invoices"
  action = ["call"]
  resource = "invoices/*"
  ttl = 60

[[tool]]
name = "brief"
audience = "https://api.example/mcp"
risk = "low"
  [[tool.offer]]
  name = "a-second"
  action = ["call"]
  resource = "**"
  ttl = 1

[[tool]]
name = "delete_everything"
audience = "https://api.example/mcp"
risk = "low"
  [[tool.offer]]
  name = "all"
  action = ["call"]
  resource = "**"
  ttl = 60
"#;

/// Who may use what, and who may say yes to an agent.
const POLICIES: &str = r#"
@id("developers")
permit (principal in Obol::Role::"developer", action == Obol::Action::"use", resource)
unless { resource == Obol::Tool::"delete_everything" };

@id("ahead")
permit (principal is Obol::Agent, action == Obol::Action::"useUnattended", resource);

@id("operators")
permit (principal in Obol::Role::"operator", action == Obol::Action::"register", resource);
"#;

/// A running service.
pub(crate) struct Authority {
    control: obol_ipc::Endpoint,
    /// Its address and key, as agents and resource servers pin them.
    pub(crate) pin: String,
    _process: Process,
}

impl Authority {
    pub(crate) fn start(home: &Home) -> Outcome<Self> {
        let folder = home.path().join("policy");
        fs::create_dir(&folder)?;
        fs::write(folder.join("catalogue.toml"), CATALOGUE)?;
        fs::write(folder.join("policies.cedar"), POLICIES)?;
        let address = free_port()?;
        let control = home.socket("as-control.sock")?;
        let listen = address.to_string();
        let arguments = ["--listen", &listen, "--policy", "policy", "--http", "off"];
        let process = home.start("as", &arguments, || connect(&control).is_ok())?;
        let pin = home.say(&["as", "key", "--pin", "--origin", &format!("http://{address}")])?;
        Ok(Self { control, pin, _process: process })
    }

    fn operator(&self) -> Outcome<AsControlClient> {
        connect(&self.control)
    }

    /// A code with which one copy of a resource server joins.
    pub(crate) fn invite_server(&self, audience: &str) -> Outcome<String> {
        let audience = Audience::new(audience).map_err(Failure::other)?;
        let made =
            self.operator()?.invite_server(InviteServerParams { audience, suites: (1..=4).collect() })?;
        Ok(made.ticket.expose().to_owned())
    }

    /// What a human sees who types a code.
    pub(crate) fn review(&self, code: &str) -> Outcome<RegistrationResult> {
        let params = RegistrationParams { code: label(code)?, roles: None, lifetime_seconds: None };
        Ok(self.operator()?.registration(params)?)
    }

    /// The human's yes to what was seen.
    pub(crate) fn approve(&self, code: &str, seen: &RegistrationResult) -> Outcome {
        let roles = seen.roles.iter().map(|role| label(role)).collect::<Outcome<_>>()?;
        let registration_id = label(&seen.registration.registration_id)?;
        let params = ApproveParams { code: label(code)?, registration_id, roles, lifetime_seconds: None };
        self.operator()?.approve(params)?;
        Ok(())
    }

    /// Ends an agent: nothing is granted any more, its sessions end, and whoever follows hears of it.
    pub(crate) fn disable(&self, agent: &str) -> Outcome<DisableResult> {
        let scope = DisableScope::Agent(label(agent)?);
        let reason = Reason::new("demo: the agent was hijacked").map_err(Failure::other)?;
        Ok(self.operator()?.disable(DisableParams { scope, reason })?)
    }
}

fn connect(control: &obol_ipc::Endpoint) -> Outcome<AsControlClient> {
    Ok(AsControlClient::connect(control.clone(), options()?)?)
}

fn label(text: &str) -> Outcome<Label> {
    Label::new(text).map_err(Failure::other)
}

/// A port of loopback that nobody listens on at this moment.
fn free_port() -> Outcome<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
