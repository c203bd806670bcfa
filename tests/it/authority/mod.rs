//! `obol as` and its operator's commands as processes, with agents that speak to it by the library of their side.

mod assertion_file;
pub(crate) mod attested;
mod captured;
mod events;
mod follower_kills;
mod hostile;
mod hostile_stream;
mod independent;
mod kills;
mod lease;
mod memory;
mod policy;
pub(crate) mod private_ca;
mod put_back;
mod set_attacks;
mod settings;
mod shared;
mod starts;
mod story;
mod stream;
mod users;
mod withheld;

use std::path::Path;

use obol_authenticator::{Authenticator, Identity, Registered, Session, Wishes};
use obol_uplink::{AuthError, Pinned, UplinkOptions};
use obol_world::authority::AsProcess;
use obol_world::now;
use tokio::runtime::Runtime;

/// An agent, with a runtime to wait in.
pub(crate) struct Agent {
    pub(crate) authenticator: Authenticator,
    runtime: Runtime,
    wishes: Wishes,
}

impl Agent {
    /// One that knows the service, with an identity of its own in `home`, and wishes for the role `dev`.
    pub(crate) fn new(service: &AsProcess, home: &Path, name: &str) -> Self {
        Self::pinned(&service.pin(), home, name)
    }

    /// The same, that knows the service by this.
    pub(crate) fn pinned(pin: &str, home: &Path, name: &str) -> Self {
        let identity = Identity::open_or_create(
            &home.join(format!("{name}.identity")),
            &home.join(format!("{name}.identity.key")),
        );
        let service = Pinned::parse(pin).unwrap();
        let wishes = Wishes {
            name: name.to_owned(),
            class: "coding".to_owned(),
            roles: vec!["dev".to_owned()],
            tools: vec!["search".to_owned()],
            host: "box".to_owned(),
            user: "anna".to_owned(),
            software: "test/1".to_owned(),
        };
        Self {
            authenticator: Authenticator::new(service, identity.unwrap(), &UplinkOptions::new()).unwrap(),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
            wishes,
        }
    }

    pub(crate) fn with_roles(mut self, roles: &[&str]) -> Self {
        self.wishes.roles = roles.iter().map(ToString::to_string).collect();
        self
    }

    /// Asks to be registered: the code, and the key's words.
    pub(crate) fn register(&mut self) -> (String, String) {
        match self.try_register(None).unwrap() {
            Registered::Waits { code, words, .. } => (code, words),
            Registered::Active { agent_id } => panic!("nobody was asked about {agent_id}"),
        }
    }

    pub(crate) fn try_register(&mut self, ticket: Option<&str>) -> Result<Registered, AuthError> {
        self.runtime.block_on(self.authenticator.register(&self.wishes, ticket, now()))
    }

    /// Registers, and is approved; gives its id.
    pub(crate) fn approved(service: &AsProcess, home: &Path, name: &str) -> (Self, String) {
        let mut agent = Self::new(service, home, name);
        let (code, _) = agent.register();
        let approved = service.told(&["approve", &code, "--yes"]);
        (agent, approved["agentId"].as_str().unwrap().to_owned())
    }

    pub(crate) fn open(&mut self) -> Result<Session, AuthError> {
        self.runtime.block_on(self.authenticator.authenticate(None, now()))
    }

    /// The code that it is refused with.
    pub(crate) fn refused(&mut self) -> String {
        match self.open() {
            Err(error) => error.code().to_owned(),
            Ok(session) => panic!("it has a session: {:?}", session.half),
        }
    }
}

/// The tools that a session grants.
pub(crate) fn tools(session: &Session) -> Vec<&str> {
    session.half.grants.iter().map(|grant| grant.tool.as_str()).collect()
}
