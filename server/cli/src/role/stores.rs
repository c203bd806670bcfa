//! Where `obol rs` keeps what it must not forget: in memory, in a file, or in a Redis that it shares with others.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use obol_ipc::rs_control;
use obol_token::Audience;
use obol_token::text::to_hex;
use obol_verify::{
    Clock, MemorySessionTable, MemorySpentSet, NewFile, RedbSessionTable, RedbSpentSetOptions, ResourceHalf,
    SessionSealKey, SessionStore, SpentSet, SystemClock,
};
use obol_verify_redis::{RedisOptions, RedisSessionTable, RedisSpentSet, Server};

use crate::exit::{Failure, Outcome};
use crate::places::place;
use crate::role::companions;
use crate::settings::MEMORY;
use crate::settings::args::RsArgs;
use crate::settings::config::Config;

/// The key that kept sessions are sealed under, where none is named.
pub(crate) const SESSION_KEY: &str = "session.key";
/// What a provider of the Agent Token Protocol keeps, where nothing is named: tokens and revocations, the key that seals them, and
/// which requests were answered.
pub(crate) const ATP_TOKENS: &str = "atp-tokens.redb";
pub(crate) const ATP_KEY: &str = "atp.key";
pub(crate) const ATP_SPENT: &str = "atp-spent.redb";
/// What addresses of Redis begin with.
const REDIS_SCHEMES: [&str; 7] =
    ["redis://", "rediss://", "valkey://", "valkeys://", "unix://", "redis+unix://", "valkey+unix://"];

/// A place that was named in a setting.
pub(crate) enum StoreLocation {
    Memory,
    Redis(String),
    File(PathBuf),
}

impl StoreLocation {
    pub(crate) fn of(named: Option<&PathBuf>, default: &str) -> Outcome<Self> {
        let text = named.and_then(|named| named.to_str());
        match text {
            Some(MEMORY) => Ok(Self::Memory),
            Some(url) if REDIS_SCHEMES.iter().any(|scheme| url.starts_with(scheme)) => {
                Ok(Self::Redis(url.to_owned()))
            }
            Some(url) if url.contains("://") => Err(Failure::usage(
                "this is not a place to keep data: name a file, `memory`, redis://host:port or unix:///path/of/socket",
            )),
            _ => place(named, default).map(Self::File),
        }
    }
}

/// What is known of a place before anything is opened there.
pub(crate) enum Kept {
    InMemory,
    InFile(PathBuf),
    AtServer(Server),
}

/// Where something is kept; in this file of the state folder if nothing is said.
pub(crate) fn where_kept(named: Option<&PathBuf>, default: &str) -> Outcome<Kept> {
    Ok(match StoreLocation::of(named, default)? {
        StoreLocation::Memory => Kept::InMemory,
        StoreLocation::File(path) => Kept::InFile(path),
        // The namespace does not change where the server is.
        StoreLocation::Redis(url) => {
            let options = RedisOptions::new(&url, "any").map_err(Failure::usage)?;
            options.server().map_or(Kept::InMemory, Kept::AtServer)
        }
    })
}

/// The same for what is kept in memory if nothing is said.
pub(crate) fn where_kept_if(named: Option<&PathBuf>) -> Outcome<Kept> {
    named.map_or(Ok(Kept::InMemory), |named| where_kept(Some(named), MEMORY))
}

/// Whether this names a file, and not memory or a server.
pub(crate) fn is_file(named: &str) -> bool {
    named != MEMORY && !named.contains("://")
}

/// What is wrong with the places that are named, as far as that can be said without opening them.
pub(crate) fn check(args: &RsArgs, config: &Config) -> Vec<Failure> {
    let named = [
        args.spent.as_ref().or(config.rs.spent.as_ref()),
        args.session_store.as_ref().or(config.rs.session_store.as_ref()),
    ];
    let wrong = |named: &PathBuf| match StoreLocation::of(Some(named), "").ok()? {
        StoreLocation::Redis(url) => redis_options(&url, args, config, &[0; 32]).err(),
        StoreLocation::File(_) | StoreLocation::Memory => None,
    };
    let malformed = |named: &PathBuf| StoreLocation::of(Some(named), "").err();
    let mut found: Vec<Failure> = Vec::new();
    for named in named.into_iter().flatten() {
        let failure = malformed(named).or_else(|| wrong(named));
        found.extend(
            failure.filter(|failure| found.iter().all(|known| known.to_string() != failure.to_string())),
        );
    }
    found
}

/// Opens the table of sessions that the settings name.
pub(crate) fn sessions(
    args: &RsArgs,
    config: &Config,
    audience: &Audience,
    clock: &Arc<SystemClock>,
) -> Outcome<Arc<dyn SessionStore>> {
    let named = args.session_store.as_ref().or(config.rs.session_store.as_ref());
    let Some(named) = named else { return Ok(Arc::new(MemorySessionTable::new())) };
    let key_file = || place(args.session_key.as_ref().or(config.rs.session_key.as_ref()), SESSION_KEY);
    let key = |path: &Path| SessionSealKey::load_or_create(path).map_err(Failure::usage);
    match StoreLocation::of(Some(named), "sessions.redb")? {
        StoreLocation::Memory => Ok(Arc::new(MemorySessionTable::new())),
        StoreLocation::File(path) => {
            let key_file = key_file()?;
            companions::refuse_lost_key(&key_file, &[&path])?;
            companions::refuse_lost_table(&path, &key_file, args.first_start)?;
            let table = RedbSessionTable::open(&path, key(&key_file)?).map_err(Failure::unavailable)?;
            Ok(Arc::new(table))
        }
        StoreLocation::Redis(url) => {
            let options = redis_options(&url, args, config, &audience.hash())?;
            let clock: Arc<dyn Clock> = Arc::<SystemClock>::clone(clock);
            let table =
                RedisSessionTable::open(options, key(&key_file()?)?, clock).map_err(Failure::unavailable)?;
            if let Some(fence) = table.fence() {
                tracing::warn!(
                    fence,
                    "sessions that began up to that time (Unix seconds) are refused: Redis may have lost their revocation"
                );
            }
            Ok(Arc::new(table))
        }
    }
}

/// Whether sessions outlast the process, and whose they are.
pub(crate) fn how_sessions_last(args: &RsArgs, config: &Config) -> Outcome<rs_control::Kept> {
    let named = args.session_store.as_ref().or(config.rs.session_store.as_ref());
    Ok(match where_kept_if(named)? {
        Kept::InMemory => rs_control::Kept::Memory,
        Kept::InFile(_) => rs_control::Kept::File,
        Kept::AtServer(_) => rs_control::Kept::Shared,
    })
}

/// Takes over what a file of sessions lists. A session that the table does not take is logged and left out.
pub(crate) fn import(sessions: &dyn SessionStore, halves: &[ResourceHalf], now: u64) -> Outcome {
    let refused = sessions.replace_all(halves, now).map_err(Failure::unavailable)?;
    for (session, why) in refused {
        tracing::warn!(%session, %why, "a listed session is refused");
    }
    Ok(())
}

/// Opens the spent set that the settings name.
pub(crate) fn spent_set(
    args: &RsArgs,
    config: &Config,
    audience: &Audience,
    clock_skew: u64,
    clock: &Arc<SystemClock>,
) -> Outcome<Arc<dyn SpentSet>> {
    let clock: Arc<dyn Clock> = Arc::<SystemClock>::clone(clock);
    match StoreLocation::of(args.spent.as_ref().or(config.rs.spent.as_ref()), "spent.redb")? {
        StoreLocation::Memory => Ok(in_memory(args, clock_skew, clock)),
        StoreLocation::File(path) => in_file(args, &path, clock_skew, clock),
        StoreLocation::Redis(url) => {
            let options = redis_options(&url, args, config, &audience.hash())?;
            let set = RedisSpentSet::open(options, clock).map_err(Failure::unavailable)?;
            match set.fence() {
                Some(fence) => tracing::warn!(
                    fence,
                    "it is not known what was spent before that time (Unix seconds): tokens issued up to it are refused"
                ),
                None => tracing::info!("spent tokens are shared over Redis"),
            }
            Ok(Arc::new(set))
        }
    }
}

fn in_memory(args: &RsArgs, clock_skew: u64, clock: Arc<dyn Clock>) -> Arc<dyn SpentSet> {
    if args.first_start {
        tracing::warn!("spent tokens are kept in memory: tokens spent before this start are accepted again");
        return Arc::new(MemorySpentSet::unfenced(clock, clock_skew));
    }
    tracing::warn!(
        seconds = clock_skew,
        "spent tokens are kept in memory: tokens issued before this start, or up to this long after it, are refused"
    );
    Arc::new(MemorySpentSet::fenced(clock, clock_skew))
}

fn in_file(args: &RsArgs, path: &Path, clock_skew: u64, clock: Arc<dyn Clock>) -> Outcome<Arc<dyn SpentSet>> {
    let new_file = if args.first_start { NewFile::Trusted } else { NewFile::Fenced };
    if !args.first_start && !path.exists() {
        tracing::warn!(
            file = %path.display(),
            "the file of spent tokens is new: tokens issued up to {clock_skew} s from now are refused, in case an old file was lost; if there was none, use --first-start",
        );
    }
    let set = RedbSpentSetOptions::new(path)
        .clock_skew(clock_skew)
        .new_file(new_file)
        .open(clock)
        .map_err(Failure::unavailable)?;
    Ok(Arc::new(set))
}

fn redis_options(
    url: &str,
    args: &RsArgs,
    config: &Config,
    audience_hash: &[u8; 32],
) -> Outcome<RedisOptions> {
    let settings = &config.rs;
    // All servers of one audience must meet in one namespace, so it is not left to chance.
    let derived = || to_hex(&audience_hash.first_chunk::<4>().copied().unwrap_or_default());
    let namespace = settings.redis_namespace.clone().unwrap_or_else(derived);
    let mut options = RedisOptions::new(url, &namespace).map_err(Failure::usage)?;
    if let Some(seconds) = settings.clock_skew {
        options = options.clock_skew(seconds);
    }
    if args.first_start {
        options = options.first_start();
    }
    if let Some(path) = &settings.redis_password_file {
        options = options.password_file(path).map_err(Failure::usage)?;
    }
    if let Some(replicas) = settings.redis_wait_replicas {
        options = options.wait_replicas(replicas);
    }
    if let Some(seconds) = settings.redis_clock_difference {
        options = options.max_clock_difference(seconds);
    }
    if settings.redis_assume_noeviction == Some(true) {
        options = options.assume_noeviction();
    }
    Ok(options)
}
