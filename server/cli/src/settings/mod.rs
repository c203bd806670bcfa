//! What can be set, in one list: the type of each setting, what it means, its range, and what holds where it is not set.
//!
//! Everything that is said about settings is made from this list: the [`Config`](crate::settings::config::Config) that programs
//! read, `obol config check`, and the sample that `obol config sample` prints.

mod agent_users;
pub(crate) mod args;
pub(crate) mod config;
pub(crate) mod log_level;
pub(crate) mod paths;
pub(crate) mod shown;

use core::net::SocketAddr;
use core::ops::RangeInclusive;
use std::path::PathBuf;

use serde::Deserialize;
use toml::Value;

use self::shown::shown;
use crate::settings::agent_users::AgentUserNames;
use crate::settings::args::{LogFormat, LogLevel};
use crate::settings::paths::Paths;

/// The word that stands for memory where a file's name could stand. A file of this name is written `./memory`.
pub(crate) const MEMORY: &str = "memory";
/// The word that stands for no policy where a file's name could stand. A file of this name is written `./any`.
pub(crate) const ANY: &str = "any";

/// Settings that were renamed: section, old key, new key. The old one is taken for one release, with a warning.
pub(crate) const RENAMED: [(&str, &str, &str); 1] = [("tqs", "audit", "audit_log")];

/// How a setting is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A path, which is never relative to the current folder; or a word or an address in its place.
    Path,
    /// Paths, likewise: one, or a list; in a variable, several between commas.
    Paths,
    /// Text, whatever it looks like.
    Text,
    /// Anything else: a number or a truth value.
    Scalar,
}

/// The kind follows from the type.
pub(crate) trait Typed {
    const KIND: Kind;
}

macro_rules! typed {
    ($($kind:ident: $($type:ty),+;)+) => {$($(impl Typed for $type { const KIND: Kind = Kind::$kind; })+)+};
}

typed! {
    Path: PathBuf;
    Paths: Paths;
    Text: String, SocketAddr, LogLevel, LogFormat, AgentUserNames, obol_atp::jwt::Algorithm;
    Scalar: u16, u32, u64, usize, bool, Vec<String>;
}

/// What holds where a setting is not set.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Usual {
    /// This value.
    Value(Value),
    /// A file of this name in the state folder.
    InState(&'static str),
    /// What the words say; and a value as an example.
    Otherwise(&'static str, Value),
}

fn value(value: impl Into<Value>) -> Usual {
    Usual::Value(value.into())
}

fn count(value: impl TryInto<i64>) -> Usual {
    Usual::Value(Value::Integer(value.try_into().unwrap_or(i64::MAX)))
}

fn otherwise(words: &'static str, example: impl Into<Value>) -> Usual {
    Usual::Otherwise(words, example.into())
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) section: &'static str,
    pub(crate) key: &'static str,
    /// What it means, in one or two sentences.
    pub(crate) about: &'static [&'static str],
    pub(crate) kind: Kind,
    /// What a number may be, where its type allows more.
    pub(crate) range: Option<&'static RangeInclusive<i64>>,
    pub(crate) usual: fn() -> Usual,
}

impl Setting {
    /// `section.key`
    pub(crate) fn name(&self) -> String {
        format!("{}.{}", self.section, self.key)
    }

    /// The word that may stand in place of a path; where it means memory, so may an address.
    pub(crate) fn word(&self) -> Option<&'static str> {
        match (self.section, self.key) {
            ("rs", "spent" | "session_store") | ("atp_serve", "spent" | "store") => Some(MEMORY),
            ("rs", "templates") => Some(ANY),
            _ => None,
        }
    }

    /// Whether a value is in the range.
    pub(crate) fn check(&self, value: &Value) -> Result<(), String> {
        match (self.range, value) {
            (Some(range), Value::Integer(number)) if !range.contains(number) => {
                Err(format!("must be {} to {}", range.start(), range.end()))
            }
            _ => Ok(()),
        }
    }
}

/// All of them, in the order in which they are shown.
pub(crate) fn all() -> impl Iterator<Item = &'static Setting> {
    Log::SETTINGS
        .iter()
        .chain(Tqs::SETTINGS)
        .chain(Authenticator::SETTINGS)
        .chain(Rs::SETTINGS)
        .chain(As::SETTINGS)
        .chain(AtpServe::SETTINGS)
        .chain(Atp::SETTINGS)
}

/// Sections of settings: a struct for each, whose fields are all optional, and the list.
macro_rules! settings {
    ($(
        $(#[doc = $about_section:literal])+
        $struct:ident $section:literal {
            $( $(#[doc = $about:literal])+ $key:ident: $type:ty = $usual:expr $(=> $low:literal..=$high:literal)?; )+
        }
    )+) => {$(
        $(#[doc = $about_section])+
        #[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
        #[serde(deny_unknown_fields, default)]
        pub(crate) struct $struct {
            $( $(#[doc = $about])+ pub(crate) $key: Option<$type>, )+
        }

        impl $struct {
            const SETTINGS: &[Setting] = &[$(
                Setting {
                    section: $section,
                    key: stringify!($key),
                    about: &[$($about),+],
                    kind: <$type as Typed>::KIND,
                    range: settings!(@range $($low..=$high)?),
                    usual: || $usual,
                },
            )+];
        }
    )+};
    (@range) => { None };
    (@range $low:literal..=$high:literal) => { Some(&($low..=$high)) };
}

fn limits() -> obol_sidecar::PeerLimits {
    obol_sidecar::PeerLimits::default()
}

fn rules() -> obol_verify::CascadeLimits {
    obol_verify::CascadeLimits::default()
}

settings! {
    /// The log on standard error.
    Log "log" {
        /// How much to log: off, error, warn, info, debug or trace.
        level: LogLevel = otherwise("info for the servers, warn for the rest", "info");
        /// Lines for people (text) or JSON for programs (json).
        format: LogFormat = value("text");
    }

    /// The Token Queue Service.
    Tqs "tqs" {
        /// The token store. Its key file is beside it.
        store: PathBuf = Usual::InState("tokens.redb");
        /// The master key's file; created if it does not exist.
        master_key: PathBuf = Usual::InState("master.key");
        /// Sessions to provision: files, or folders of which every *.json is read. Read again on SIGHUP.
        sessions: Paths = otherwise("none", vec!["/etc/obol/sessions"]);
        /// Tokens in a batch under little load.
        batch: u16 = value(10) => 1..=65_535;
        /// The most tokens in memory for one tool.
        max_ready: usize = value(256) => 1..=1_000_000;
        /// The most tokens for one tool in all.
        max_depth: usize = value(10_000) => 1..=10_000_000;
        /// The least life of a token handed out, in seconds.
        min_life: u64 = value(5) => 0..=3_600;
        /// The users that agents run as, if they differ from the sidecar's own: numbers, names, "@group".
        agent_users: AgentUserNames = otherwise("none: agents and sidecar run as one user", vec!["alice", "@agents"]);
        /// The audit log's file. Every token handed out is in it.
        audit_log: PathBuf = otherwise("none is written", "/var/log/obol/audit.jsonl");
        /// The size at which an audit log file is closed and the next one started, in bytes.
        audit_file_bytes: u64 = value(67_108_864) => 4_096..=1_099_511_627_776;
        /// The most connections on the agent's socket at once.
        connections: usize = count(limits().connections) => 1..=1_000_000;
        /// Requests per second on one connection; 0 for no limit.
        connection_rate: u32 = value(i64::from(limits().connection_rate));
        /// Requests per second on all connections of one user; 0 for no limit.
        user_rate: u32 = value(i64::from(limits().user_rate));
        /// When all connections are in use, one that was silent for this many seconds is closed to make room.
        idle: u64 = count(limits().idle.as_secs()) => 0..=86_400;
        /// Where /livez, /readyz and /metrics are served: a loopback address, unix:///path, or off.
        http: String = otherwise("http.sock beside the agent's socket", "127.0.0.1:9466");
        /// The name under which the kernel's keyring holds the master key.
        keychain: String = otherwise("none", "obol:master-key");
        /// Whether the process gives up the rights that it does not need, with Landlock and seccomp.
        sandbox: bool = value(true);
    }

    /// The authenticator, beside an agent.
    Authenticator "authenticator" {
        /// The Authentication Service and its key, as obol as prints them; or only its address, with the key in pin_file.
        url: String = otherwise("none: obol authenticator needs --url", "https://as.example#KEY");
        /// The file that holds the service's key, or its address and key.
        pin_file: PathBuf = otherwise("none", "/etc/obol/as.pin");
        /// The only certificate authorities to trust.
        ca_file: PathBuf = otherwise("the system's", "/etc/obol/ca.pem");
        /// The file with the agent's identity; created if it does not exist.
        identity: PathBuf = Usual::InState("authenticator/agent.identity");
        /// The file with the key that the identity is sealed under; created if it does not exist.
        identity_key: PathBuf = Usual::InState("authenticator/identity.key");
        /// The name under which the kernel's keyring holds that key.
        keychain: String = otherwise("none", "obol:identity-key");
        /// The agent's name, as humans see it. If it is set here, the agent cannot change it.
        name: String = otherwise("what the agent says", "builder");
        /// The agent's class.
        class: String = otherwise("what the agent says, or agent", "coding");
        /// Roles that the agent asks for.
        roles: Vec<String> = otherwise("what the agent says", vec!["dev"]);
        /// Tools that the agent asks for.
        tools: Vec<String> = otherwise("what the agent says", vec!["search"]);
        /// The weakest suite to accept, whatever the service says: 4 is the strongest, then 2 and 3, then 1.
        min_suite: u16 = value(1) => 1..=4;
        /// Days after which the identity key is replaced; 0 for never.
        rotate_days: u64 = value(90) => 0..=3_650;
        /// The audit log's file. Every registration and every session is in it.
        audit_log: PathBuf = otherwise("none is written", "/var/log/obol/authenticator-audit.jsonl");
        /// The file with the key that seals the audit log; created if it does not exist.
        audit_key: PathBuf = Usual::InState("authenticator/audit.key");
        /// The size at which an audit log file is closed and the next one started, in bytes.
        audit_file_bytes: u64 = value(67_108_864) => 4_096..=1_099_511_627_776;
        /// Where /livez, /readyz and /metrics are served: a loopback address, unix:///path, or off.
        http: String = otherwise("auth-http.sock beside the agent's socket", "127.0.0.1:9467");
        /// Whether the process gives up the rights that it does not need, with Landlock and seccomp.
        sandbox: bool = value(true);
    }

    /// A resource server.
    Rs "rs" {
        /// The address to listen on.
        listen: SocketAddr = value("127.0.0.1:8700");
        /// This server's identifier: the audience of its tokens.
        audience: String = otherwise("the one that all sessions name", "https://api.example");
        /// The Authentication Service that sessions come from, and its key; or only its address, with the key in pin_file.
        authority: String = otherwise("none: sessions come from files", "https://as.example#KEY");
        /// The file that holds the service's key, or its address and key.
        pin_file: PathBuf = otherwise("none", "/etc/obol/as.pin");
        /// The only certificate authorities to trust for the service.
        ca_file: PathBuf = otherwise("the system's", "/etc/obol/ca.pem");
        /// The file with the identity key with which this copy joins; created if it does not exist.
        identity_key: PathBuf = Usual::InState("rs-identity.key");
        /// How long tokens are accepted while the service does not answer, in seconds.
        lease: u64 = value(300) => 30..=900;
        /// Session files, or folders of which every *.json is read. Read again on SIGHUP. Not together with authority.
        sessions: Paths = otherwise("none: obol rs needs --sessions, session_store or authority", vec!["/etc/obol/rs-sessions.json"]);
        /// Where sessions are kept in addition to those files: memory (not at all), a file, or the address of a Redis or Valkey.
        session_store: PathBuf = value("memory");
        /// The file with the key that seals stored sessions; created if it does not exist.
        session_key: PathBuf = Usual::InState("session.key");
        /// Where spent tokens are kept: a file, memory, or the address of a Redis or Valkey.
        spent: PathBuf = Usual::InState("spent.redb");
        /// The socket where other programs spend their own identifiers once, with POST /v1/spend.
        spend_socket: PathBuf = otherwise("none", "/run/obol-spend/spend.sock");
        /// The users who may do so besides the server's own and root: numbers, names, groups as "@name".
        spend_users: AgentUserNames = otherwise("none", vec!["@apis"]);
        /// The file that holds the Redis user's password.
        redis_password_file: PathBuf = otherwise("none", "/etc/obol/redis.password");
        /// A part of every key in Redis, obol:NAMESPACE:. The same on all servers of one audience, and on no other server.
        redis_namespace: String = otherwise("made from the audience", "api-example");
        /// How many replicas of Redis must have a mark before a token is accepted.
        redis_wait_replicas: u32 = value(0) => 0..=64;
        /// How far this machine's clock and that of Redis may differ, in seconds.
        redis_clock_difference: u64 = count(obol_verify_redis::MAX_CLOCK_DIFFERENCE_SECS) => 1..=60;
        /// Assume that maxmemory-policy is noeviction, if Redis does not report it.
        redis_assume_noeviction: bool = value(false);
        /// How far clocks may differ, in seconds. The same on all servers that share a Redis.
        clock_skew: u64 = count(rules().clock_skew) => 0..=600;
        /// The longest life that a token may have, in seconds.
        max_ttl: u64 = count(rules().max_ttl) => 1..=3_600;
        /// The audit log's file. Every accepted token is in it.
        audit_log: PathBuf = otherwise("none is written", "/var/log/obol/rs-audit.jsonl");
        /// The file with the key that seals the audit log; created if it does not exist.
        audit_key: PathBuf = Usual::InState("rs-audit.key");
        /// The size at which an audit log file is closed and the next one started, in bytes.
        audit_file_bytes: u64 = value(67_108_864) => 4_096..=1_099_511_627_776;
        /// Whether the process gives up the rights that it does not need, with Landlock and seccomp.
        sandbox: bool = value(true);
        /// The file with this server's policy, by agent and tool, read again on SIGHUP; or any, to accept sessions that
        /// list no grants.
        templates: PathBuf = otherwise("none: the sessions' grants alone", "/etc/obol/templates.toml");
        /// Tokens of an older policy epoch are refused.
        policy_epoch: u64 = value(0) => 0..=9_223_372_036_854_775_807;
    }

    /// The Authentication Service.
    As "as" {
        /// The address to listen on.
        listen: SocketAddr = value("127.0.0.1:8720");
        /// The address that agents know the service by.
        origin: String = otherwise("its address, on loopback without TLS", "https://as.example");
        /// The organisation that owns the sessions.
        org: String = value("default");
        /// The folder with the catalogue and the policies. Read at the first start and on SIGHUP.
        policy: PathBuf = otherwise("none: the policy that obol policy activate uploaded", "/etc/obol/policy");
        /// The certificate chain, PEM. Read again on SIGHUP.
        tls_cert: PathBuf = otherwise("none: plain HTTP, on loopback only", "/etc/obol/as.crt");
        /// The certificate's private key, PEM.
        tls_key: PathBuf = otherwise("none", "/etc/obol/as.key");
        /// The identity provider with which humans log in to approve agents: its issuer URL.
        provider: String = otherwise("none: a human on this machine approves", "https://idp.example");
        /// The service's client ID at the provider.
        provider_client_id: String = otherwise("none", "obol");
        /// The file with the service's client secret at the provider.
        provider_client_secret: PathBuf = otherwise("none: a public client, with PKCE only", "/etc/obol/client-secret");
        /// The scopes to ask the provider for, besides openid.
        provider_scopes: Vec<String> = value(vec!["profile"]);
        /// The claim of the provider's ID token that names a human's roles; dots lead into nested objects.
        provider_roles_claim: String = value("groups");
        /// The role for each value of that claim, as "value=role"; other values then give no role.
        provider_roles: Vec<String> = otherwise("each value is the role of that name", vec!["obol-developers=dev"]);
        /// The kinds of login (acr) to ask the provider for; it must report one of them.
        provider_acr_values: Vec<String> = otherwise("any", vec!["phr"]);
        /// Whether the provider must ask for the password at each login, even of a user who is already logged in there.
        provider_always_ask: bool = value(false);
        /// Whether the provider does not report the time of a login. The age of a login is then unknown.
        provider_lacks_auth_time: bool = value(false);
        /// Whether the provider asks an agent's owner to approve calls on their own device (CIBA, poll mode). They see a code
        /// there, and on the page what it stands for.
        provider_approves_calls: bool = value(false);
        /// A private JSON file that names several identity providers, instead of the one above.
        providers: PathBuf = otherwise("none: only the provider above, if there is one", "/etc/obol/as-providers.json");
        /// The roles that may operate the service from another machine (`obol login`); a human needs one of them.
        operator_roles: Vec<String> = otherwise("none: nobody can", vec!["operator"]);
        /// How long such a login lasts, in seconds.
        operator_login: u64 = value(3_600) => 60..=43_200;
        /// The file of agents, sessions, policies and events.
        directory: PathBuf = Usual::InState("authority.redb");
        /// The file that counts the directory's commits, so that an old copy of the directory is noticed. Keep it out of backups.
        witness: PathBuf = otherwise("beside the directory, with the ending .witness", "/var/lib/obol/authority.witness");
        /// The file with the master key that seals the directory; created if it does not exist.
        master_key: PathBuf = Usual::InState("as-master.key");
        /// The name under which the kernel's keyring holds the master key.
        keychain: String = otherwise("none", "obol:as-master-key");
        /// The file with the private half of the key that agents pin; created if it does not exist.
        identity_key: PathBuf = Usual::InState("as-identity.key");
        /// A session's life, in seconds.
        session_life: u64 = value(900) => 60..=3_600;
        /// How long resource servers go on without hearing from the service, in seconds, unless they set it themselves.
        lease: u64 = value(300) => 30..=900;
        /// How long an approval lasts, in days.
        approval_days: u64 = value(30) => 1..=366;
        /// How often one agent may ask for approval of calls within an hour.
        call_approvals: u64 = value(10) => 1..=1_000;
        /// How long a request for approval of calls waits, in seconds.
        call_wait: u64 = value(300) => 5..=300;
        /// The weakest suite that any agent may use.
        min_suite: u16 = value(1) => 1..=4;
        /// Whether an agent whose key seems to have been copied is suspended, not only reported.
        suspend_clones: bool = value(false);
        /// The audit log's file. Everything approved, opened or ended is in it.
        audit_log: PathBuf = otherwise("none is written", "/var/log/obol/as-audit.jsonl");
        /// The file with the key that seals the audit log; created if it does not exist.
        audit_key: PathBuf = Usual::InState("as-audit.key");
        /// The size at which an audit log file is closed and the next one started, in bytes.
        audit_file_bytes: u64 = value(67_108_864) => 4_096..=1_099_511_627_776;
        /// A private JSON file that lists the transmitters and receivers of security events. Read again on SIGHUP.
        events: PathBuf = otherwise("none: no events are received or sent", "/etc/obol/as-events.json");
        /// A JSON file that lists the issuers whose signed tokens can replace a human's approval when an agent registers.
        /// Read again on SIGHUP.
        attestors: PathBuf = otherwise("none: only humans approve agents", "/etc/obol/as-attestors.json");
        /// The mail server for messages about waiting requests and alarms: smtps://host, smtp://host (STARTTLS is required), or,
        /// only on this machine, smtp+plain://localhost:25.
        mail_server: String = otherwise("none: no messages are sent", "smtps://mail.example");
        /// The sender's address of messages.
        mail_from: String = otherwise("none: a mail server needs it", "obol@example.com");
        /// Who is told of requests that wait for a human: registrations of agents, and calls that need approval.
        mail_approvals: Vec<String> = otherwise("nobody", vec!["approvers@example.com"]);
        /// Who is told of alarms.
        mail_alarms: Vec<String> = otherwise("nobody", vec!["security@example.com"]);
        /// The service's user name at the mail server.
        mail_user: String = otherwise("none: no login", "obol");
        /// The private file with the password at the mail server. Without it: the credential obol-as-mail-password.
        mail_password: PathBuf = otherwise("none", "/etc/obol/mail-password");
        /// The only certificate authorities to trust when the service connects to others.
        ca_file: PathBuf = otherwise("the system's", "/etc/obol/ca.pem");
        /// Where /livez, /readyz and /metrics are served: a loopback address, or off.
        http: String = value("off");
        /// Messages of one kind per second from one address, with bursts of twice as many; 0 for no limit.
        address_rate: u32 = value(20);
        /// The most connections at once.
        connections: usize = value(4_096) => 1..=1_000_000;
        /// Whether the process gives up the rights that it does not need, with Landlock and seccomp.
        sandbox: bool = value(true);
    }

    /// A provider of the Agent Token Protocol.
    AtpServe "atp_serve" {
        /// The token endpoint as agents see it.
        url: String = otherwise("none: obol atp serve needs --url", "https://api.example.com/v1/agent-tokens");
        /// The address to listen on.
        listen: SocketAddr = value("127.0.0.1:8710");
        /// The scopes on offer.
        scopes: Vec<String> = otherwise("none", vec!["search"]);
        /// Scopes whose tokens are good for one request.
        single_use: Vec<String> = otherwise("none", vec!["pay"]);
        /// The file of secrets, agents and masters.
        secrets: PathBuf = otherwise("none: obol atp serve needs --secrets", "/etc/obol/atp-secrets.json");
        /// The certificate chain, PEM.
        tls_cert: PathBuf = otherwise("none: plain HTTP, on loopback only", "/etc/obol/atp-tls.crt");
        /// The certificate's private key, PEM.
        tls_key: PathBuf = otherwise("none", "/etc/obol/atp-tls.key");
        /// Where /livez, /readyz and /metrics are served: a loopback address, or off.
        http: String = value("off");
        /// The life of a token, in seconds.
        ttl: u64 = value(3_600) => 1..=86_400;
        /// The longest life of a token under a master, in seconds.
        max_ttl: u64 = value(86_400) => 1..=86_400;
        /// How long ago a request may have been signed, in seconds.
        window: u64 = value(300) => 1..=900;
        /// How tokens are signed: HS256 or EdDSA.
        algorithm: obol_atp::jwt::Algorithm = value("HS256");
        /// Requests per second from one address; 0 for no limit.
        address_rate: u32 = value(100);
        /// Requests per second from one agent, after a burst of ten; 0 for no limit.
        agent_rate: u32 = value(1);
        /// Where JWT keys, tokens, revocations and the list of ended secrets are kept: a file, memory, or the address of a
        /// Redis or Valkey.
        store: PathBuf = Usual::InState("atp-tokens.redb");
        /// The file with the key that seals the store; created if it does not exist. The same for all providers that share a store.
        key: PathBuf = Usual::InState("atp.key");
        /// Where answered requests are remembered: a file, memory, or the address of a Redis or Valkey.
        spent: PathBuf = Usual::InState("atp-spent.redb");
        /// The file that holds the Redis user's password.
        redis_password_file: PathBuf = otherwise("none", "/etc/obol/redis.password");
        /// The first part of every key in Redis.
        redis_namespace: String = otherwise("made from the endpoint", "atp");
        /// The audit log's file. Every issued token is in it.
        audit_log: PathBuf = otherwise("none is written", "/var/log/obol/atp-audit.jsonl");
        /// The file with the key that seals the audit log; created if it does not exist.
        audit_key: PathBuf = Usual::InState("atp-audit.key");
        /// A JSON file with name and capabilities for the discovery document.
        discovery: PathBuf = otherwise("none", "/etc/obol/atp-discovery.json");
        /// Whether a request must name this endpoint.
        require_aud: bool = value(false);
        /// Whether the dialect of masters is switched off.
        signed_only: bool = value(false);
        /// Whether the process gives up the rights that it does not need, with Landlock and seccomp.
        sandbox: bool = value(true);
    }

    /// An agent of the Agent Token Protocol.
    Atp "atp" {
        /// The folder with the agent's name and tokens.
        state: PathBuf = otherwise("a folder in the user's home", "/var/lib/obol/atp");
        /// The file with the secret.
        secret_file: PathBuf = otherwise("none", "/etc/obol/atp.secret");
        /// The only certificate authorities to trust.
        ca_file: PathBuf = otherwise("the usual ones", "/etc/obol/ca.pem");
        /// Further hosts for which the secret from the environment may be used.
        hosts: Vec<String> = otherwise("none", vec!["api.example.com"]);
        /// Endpoints to use even though they are not at the host whose document names them.
        endpoints: Vec<String> = otherwise("none", vec!["https://tokens.example.com/v1/agent-tokens"]);
        /// Master credentials for hosts that do not accept signed requests: a host, an equals sign and a private file.
        masters: Vec<String> = otherwise("none", vec!["api.example.com=/etc/obol/atp.master"]);
        /// How this agent is named: machine (one name everywhere) or keyed (a different name for each provider).
        agent_id_mode: String = value("machine");
        /// Where tokens are kept: auto, secret-service, kernel or file.
        keychain: String = value("auto");
        /// Hosts that may have addresses that are not public.
        allow_private: Vec<String> = otherwise("none", vec!["api.internal"]);
    }
}

/// A configuration file with every setting, none of them set.
pub(crate) fn sample() -> String {
    let mut text = String::from(
        "# All settings of Obol. A setting that is missing or empty has the default shown here.\n#\n\
         # Obol reads the first of --config FILE, $OBOL_CONFIG, ~/.config/obol/obol.toml and /etc/obol/obol.toml. A variable\n\
         # OBOL_SECTION__KEY overrides the file, and a flag overrides both. A relative path is taken from this file's folder;\n\
         # in a variable, from the state folder.\n",
    );
    let mut section = "";
    for setting in all() {
        if setting.section != section {
            section = setting.section;
            text.push_str(&format!("\n[{section}]\n"));
        }
        text.push('\n');
        for line in setting.about {
            text.push_str(&format!("#{line}\n"));
        }
        let (usual, example) = match (setting.usual)() {
            Usual::Value(value) => (None, value),
            Usual::InState(name) => {
                (Some(format!("{name} in the state folder")), format!("/var/lib/obol/{name}").into())
            }
            Usual::Otherwise(words, example) => (Some(words.to_owned()), example),
        };
        if let Some(range) = setting.range {
            text.push_str(&format!("# {} to {}.\n", range.start(), range.end()));
        }
        if let Some(usual) = usual {
            text.push_str(&format!("# Default: {usual}.\n"));
        }
        text.push_str(&format!("#{} = {}\n", setting.key, written(&example)));
    }
    text
}

/// A value as TOML has it.
fn written(value: &Value) -> String {
    match value {
        Value::String(text) => format!("\"{}\"", text.escape_default()),
        Value::Array(several) => format!("[{}]", several.iter().map(written).collect::<Vec<_>>().join(", ")),
        other => shown(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::config::Config;

    #[test]
    fn the_sample_is_a_configuration_with_all_its_lines_and_with_none() {
        let sample = sample();
        assert_eq!(toml::from_str::<Config>(&sample).unwrap(), Config::default());
        let is_setting =
            |line: &&str| line.starts_with('#') && line.contains(" = ") && !line.starts_with("# ");
        let bare: Vec<_> = sample
            .lines()
            .map(|line| if is_setting(&line) { line.trim_start_matches('#') } else { line })
            .collect();
        let all: toml::Table = toml::from_str(&bare.join("\n")).unwrap();
        toml::from_str::<Config>(&bare.join("\n")).unwrap();
        for setting in super::all() {
            let value = &all[setting.section][setting.key];
            assert_eq!(setting.check(value), Ok(()), "{}", setting.name());
        }
    }
}
