//! What a resource server needs to decide, read and opened: sessions, templates, the spent set, the audit log. The same for
//! whatever stands in front of it.

use core::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use obol_resource::Gate;
use obol_resource::provision::{Follower, LeasedTable};
use obol_sandbox::Sandbox;
use obol_token::Audience;
use obol_verify::{
    Approvals, CascadeLimits, Clock as _, ResourceHalf, SessionStore, SessionTable, SystemClock, Templates,
    Verifier,
};
use parking_lot::Mutex;

use super::control::Control;
use super::reload::Reloader;
use crate::exit::{Failure, Outcome};
use crate::log_lines;
use crate::role::audit;
use crate::role::followed::Followed;
use crate::role::operator_door::OperatorDoor;
use crate::role::sandbox;
use crate::role::stores;
use crate::role::templates::{self, ServerTemplates};
use crate::sessions::files;
use crate::settings::args::RsArgs;
use crate::settings::config::Config;

/// What was read while everything could be read.
pub(crate) struct Prepared {
    files: Vec<PathBuf>,
    followed: Option<Followed>,
    halves: Vec<ResourceHalf>,
    templates: Arc<ServerTemplates>,
    audience: Audience,
}

/// What decides, and what the operator may do with it.
pub(crate) struct Opened {
    pub(crate) gate: Gate,
    pub(crate) control: Control,
    pub(crate) follower: Option<Follower>,
    pub(crate) reloader: Arc<Reloader>,
}

impl Prepared {
    /// Reads what flags and settings name.
    pub(crate) fn read(args: &RsArgs, config: &Config) -> Outcome<Self> {
        let files = super::sessions(args, config);
        let followed = followed(args, config, &files)?;
        let halves = files::resource_halves(&files)?;
        let templates = Arc::new(ServerTemplates::open(config)?);
        let audience = audience(args.audience.as_ref().or(config.rs.audience.as_ref()), &halves)?;
        Ok(Self { files, followed, halves, templates, audience })
    }

    /// Which resource server this is.
    pub(crate) const fn audience(&self) -> &Audience {
        &self.audience
    }

    /// What is left to the process.
    pub(crate) fn reach(
        &self,
        args: &RsArgs,
        config: &Config,
        listen: Option<SocketAddr>,
        operator: Option<&OperatorDoor>,
    ) -> Outcome<Sandbox> {
        let socket = operator.map(OperatorDoor::path);
        sandbox::of_resource_server(args, config, listen, socket, &self.files)
    }

    /// Opens what is kept.
    pub(crate) fn open(self, args: &RsArgs, config: &Config) -> Outcome<Opened> {
        let Self { files, followed, halves, templates, audience } = self;
        let clock = Arc::new(SystemClock::new());
        let sessions = stores::sessions(args, config, &audience, &clock)?;
        templates::warn_of(&halves, config, max_ttl(config));
        stores::import(&*sessions, &halves, clock.now())?;
        let (table, follower) = under_lease(followed, &audience, &sessions, &clock);
        let approvals = follower.as_ref().map(Follower::approvals);
        let kept_templates = Arc::<ServerTemplates>::clone(&templates);
        let verifier = verifier(args, config, audience, table, kept_templates, approvals, &clock)?;
        let mut gate = Gate::new(verifier).log_lines_dropped(log_lines::dropped());
        let audit = audit::open_for_rs(args, config)?;
        if let Some(log) = &audit {
            gate = gate.audited(Arc::clone(log));
        }
        let reloader = Arc::new(Reloader {
            files,
            sessions: Arc::clone(&sessions),
            templates,
            clock: Arc::clone(&clock),
            reading: Mutex::default(),
        });
        let kept = stores::how_sessions_last(args, config)?;
        let control = Control {
            sessions,
            kept,
            reloader: Arc::clone(&reloader),
            gate: gate.clone(),
            clock,
            audit,
            following: follower.as_ref().map(Follower::following),
        };
        Ok(Opened { gate, control, follower, reloader })
    }
}

/// The service that sessions come from, if they come from one. From somewhere they must come.
fn followed(args: &RsArgs, config: &Config, files: &[PathBuf]) -> Outcome<Option<Followed>> {
    let followed = Followed::find(args, config, files)?;
    let has_store = args.session_store.is_some() || config.rs.session_store.is_some();
    if files.is_empty() && !has_store && followed.is_none() {
        return Err(Failure::usage(
            "--sessions FILE is needed, as `obol session create` makes it; or --authority, after `obol rs join`",
        ));
    }
    Ok(followed)
}

/// What tokens are looked up in, and what follows the service that sessions come from, where they come from one.
fn under_lease(
    followed: Option<Followed>,
    audience: &Audience,
    sessions: &Arc<dyn SessionStore>,
    clock: &Arc<SystemClock>,
) -> (Arc<dyn SessionTable>, Option<Follower>) {
    let kept = Arc::clone(sessions);
    let Some(followed) = followed else { return (kept, None) };
    let lease = followed.lease(clock);
    let table = LeasedTable::new(Arc::clone(sessions), Arc::clone(&lease));
    (Arc::new(table), Some(followed.follower(audience.clone(), kept, lease, clock)))
}

/// What is wrong with the audience, if one is named.
pub(crate) fn check_audience(args: &RsArgs, config: &Config) -> Outcome {
    let named = args.audience.as_ref().or(config.rs.audience.as_ref());
    named.map_or(Ok(()), |named| audience(Some(named), &[]).map(drop))
}

/// The audience that was named, or the one that all sessions agree on.
fn audience(named: Option<&String>, halves: &[ResourceHalf]) -> Outcome<Audience> {
    if let Some(named) = named {
        return Audience::new(named.as_str()).map_err(Failure::usage);
    }
    let mut audiences = halves.iter().map(|half| &half.keys.aud);
    match audiences.next() {
        Some(first) if audiences.all(|other| other == first) => {
            Audience::new(first.as_str()).map_err(Failure::usage)
        }
        None => Err(Failure::usage("no session names this resource server; name it with --audience")),
        _ => Err(Failure::usage(
            "the sessions do not all name one audience; name this server's with --audience",
        )),
    }
}

fn max_ttl(config: &Config) -> u64 {
    config.rs.max_ttl.unwrap_or(CascadeLimits::default().max_ttl)
}

fn verifier(
    args: &RsArgs,
    config: &Config,
    audience: Audience,
    sessions: Arc<dyn SessionTable>,
    templates: Arc<dyn Templates>,
    approvals: Option<Arc<Approvals>>,
    clock: &Arc<SystemClock>,
) -> Outcome<Verifier> {
    let mut limits = CascadeLimits::default();
    limits.clock_skew = config.rs.clock_skew.unwrap_or(limits.clock_skew);
    limits.max_ttl = max_ttl(config);
    let spent = stores::spent_set(args, config, &audience, limits.clock_skew, clock)?;
    let mut builder = Verifier::builder(audience, sessions, spent);
    if let Some(approvals) = approvals {
        builder = builder.approvals(approvals);
    }
    builder
        .clock(Arc::<SystemClock>::clone(clock))
        .templates(templates)
        .limits(limits)
        .policy_epoch(config.rs.policy_epoch.unwrap_or(0))
        .build()
        .map_err(Failure::usage)
}
