//! The Authentication Service of the demo: `obol as` as a process of its own, with a policy.

use core::net::{Ipv4Addr, SocketAddr};
use std::fs;
use std::net::TcpListener;

use super::home::{Home, Process};
use crate::exit::Outcome;
use crate::role::operator::Operator;

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
name = "refund"
audience = "https://api.example/mcp"
risk = "high"
  [[tool.offer]]
  name = "invoices"
  action = ["call"]
  resource = "invoices/*"
  ttl = 60

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

/// Who may use what, and who may say yes to an agent, and to a call.
const POLICIES: &str = r#"
@id("developers")
permit (principal in Obol::Role::"developer", action == Obol::Action::"use", resource)
unless { resource == Obol::Tool::"delete_everything" };

@id("ahead")
permit (principal is Obol::Agent, action == Obol::Action::"useUnattended", resource)
unless { resource.risk == "high" };

@id("operators")
permit (principal in Obol::Role::"operator", action == Obol::Action::"register", resource);

@id("operators-approve-calls")
permit (principal in Obol::Role::"operator", action == Obol::Action::"approveCall", resource);
"#;

/// A running service.
pub(crate) struct Authority {
    pub(crate) operator: Operator,
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
        let operator = Operator::at(home.socket("as-control.sock")?);
        let listen = address.to_string();
        let arguments = ["--listen", &listen, "--policy", "policy", "--http", "off"];
        let process = home.start("as", &arguments, || operator.is_heard())?;
        let pin = home.say(&["as", "key", "--pin", "--origin", &format!("http://{address}")])?;
        Ok(Self { operator, pin, _process: process })
    }
}

/// A port of loopback that nobody listens on at this moment.
fn free_port() -> Outcome<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
