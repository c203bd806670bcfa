//! The tool catalogue: for each tool at each audience its offers, most powerful first.
//!
//! ```toml
//! org = "example"
//!
//! [[tool]]
//! name = "query_database"
//! audience = "https://analytics.example"
//! sets = ["db"]
//! risk = "medium"
//! routes = [{ method = "GET", path = "/v1/query/**" }]
//!   [[tool.offer]]
//!   name = "full"
//!   action = ["read", "write"]
//!   resource = "**"
//!   [[tool.offer]]
//!   name = "billing-read"
//!   action = "read"
//!   resource = "billing/**"
//!   constraints = { max_rows = 1000 }
//! ```
//!
//! An offer is a [`Grant`] field for field; tool and audience are the tool's. Its trust level is 2: a higher one takes a
//! human's yes to the call.

mod read;

use core::fmt;
use std::collections::BTreeSet;
use std::sync::Arc;

use obol_session::Grant;
use serde::{Deserialize, Serialize};

/// The trust level of what an offer grants.
pub(crate) const TRUST_LEVEL: u64 = 2;

/// All tools, checked. In the order of the text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Catalogue {
    org: Option<String>,
    tools: Vec<Tool>,
}

impl Catalogue {
    /// Whose tools these are, where the catalogue says.
    pub fn org(&self) -> Option<&str> {
        self.org.as_deref()
    }

    /// The tools. None is there twice for one audience.
    pub fn tools(&self) -> &[Tool] {
        &self.tools
    }

    /// A tool at an audience.
    pub fn tool(&self, name: &str, audience: &str) -> Option<&Tool> {
        self.tools.iter().find(|tool| &*tool.name == name && &*tool.audience == audience)
    }
}

/// A tool at an audience.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tool {
    /// Its name in tokens.
    pub name: Arc<str>,
    /// The resource server it is at.
    pub audience: Arc<str>,
    /// What it does, for the people who approve.
    pub description: Option<String>,
    /// The sets it is in, by which policies speak of many tools at once.
    pub sets: BTreeSet<String>,
    /// What can go wrong with it.
    pub risk: Risk,
    /// The requests that are calls of it, for whoever sends them.
    pub routes: Vec<Route>,
    /// Ways of using it, at least one, most powerful first. No two have the same name.
    pub offers: Vec<Offer>,
}

/// How much can go wrong with a tool.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Risk {
    /// It reads what many may read.
    Low,
    /// In between.
    Medium,
    /// It moves money, deletes, or reaches people.
    High,
}

impl Risk {
    /// As policies know it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

impl fmt::Display for Risk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Requests that are calls of a tool.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// The origin, and a path that all of them lie under; absent: the audience, where that is a URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The method, in capitals; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The path, as a pattern of segments: `*` is one, `**` any number.
    pub path: String,
    /// The gateway that the request is sent to instead, as an origin with a path in front.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
}

/// A way of using a tool.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offer {
    /// Its name, by which cases and people know it.
    pub name: Arc<str>,
    /// What an agent gets that is allowed it.
    pub grant: Arc<Grant>,
}
