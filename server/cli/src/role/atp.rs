//! `obol atp serve`: a provider.
//!
//! As with the other servers, the process is closed to others before a key is loaded, and the sandbox entered while there is
//! one thread.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use obol_atp::AtpEndpoint;
use obol_atp_server::serve::{Certificate, Handle, Options, TLS12_AND_13};
use obol_atp_server::{Builder, Router, SecretBook, Store};
use obol_probe::contract::Address;
use obol_probe::health::{self, Health, Loopback};
use obol_probe::stop::Stop;
use obol_secret::text::to_hex;
use obol_verify::{MemorySpentSet, NewFile, RedbSpentSetOptions, SpentSet, SystemClock};
use obol_verify_redis::{RedisOptions, RedisSpentSet};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

use crate::exit::{Failure, Outcome};
use crate::log_lines;
use crate::places::place;
use crate::role::audit;
use crate::role::companions;
use crate::role::sandbox;
use crate::role::stores::{self, StoreLocation};
use crate::settings::args::atp::ServeArgs;
use crate::settings::config::AtpServe;
use crate::signals::shutdown_signal;

const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8710);
/// How far the clocks of those who sign may be ahead, in seconds.
const AHEAD_SECS: u64 = 60;
/// A secret in the environment, for those who set up a provider as the protocol's documentation says.
const SECRET_VARIABLE: &str = "ATP_SECRET";
/// In the place of an endpoint that is not said, where settings are checked.
const STAND_IN_URL: &str = "https://provider.invalid/v1/agent-tokens";
/// The longest file for the discovery document, in bytes.
const MAX_DISCOVERY_BYTES: usize = 32 << 10;

/// Runs until SIGTERM or SIGINT. SIGHUP reads secrets and certificate again.
pub(crate) fn run(args: &ServeArgs, config: &AtpServe) -> Outcome {
    let mut hardening = obol_sandbox::harden_process();
    let url = args.url.as_ref().or(config.url.as_ref());
    let url = url.ok_or_else(|| Failure::usage("--url is needed: the token endpoint as agents see it"))?;
    let endpoint = AtpEndpoint::for_provider(url).map_err(Failure::usage)?;
    let secrets_file = args.secrets.clone().or_else(|| config.secrets.clone());
    let listen = listen(args, config);
    let http = probe(args.http.as_ref().or(config.http.as_ref()))?;
    // While there is one thread: each store that is opened has one of its own.
    let ports = [Some(listen), http].into_iter().flatten().map(|address| address.port());
    let sandbox = (config.sandbox != Some(false)).then(|| sandbox::of_provider(args, config, ports));
    hardening.extend(sandbox::enter(sandbox.transpose()?.as_ref()));
    obol_sandbox::report(&hardening, None);
    let options = front(args, config, certificate(args, config)?)?;
    let router = provider(args, config, endpoint, secrets_file.as_deref())?;
    log_lines::begin()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let service = options.bind(router).await.map_err(Failure::unavailable)?;
        let handle = service.handle();
        for address in handle.addresses().iter().filter_map(Address::tcp).take(1) {
            tracing::info!(%address, endpoint = url, "listening");
        }
        let reload = tokio::spawn(reload(signal(SignalKind::hangup())?, secrets_file, handle));
        let _said_in_the_log = service.run(shutdown_signal()?).await;
        reload.abort();
        Ok(())
    })
}

/// Everything that is wrong with the settings, for `obol config check`. Nothing is opened that is written, and what a flag may
/// still say is not missed.
pub(crate) fn check(config: &AtpServe) -> Vec<Failure> {
    if *config == AtpServe::default() {
        return Vec::new();
    }
    let (args, mut found) = (ServeArgs::default(), Vec::new());
    let url = config.url.as_deref().unwrap_or(STAND_IN_URL);
    let endpoint = good(AtpEndpoint::for_provider(url).map_err(Failure::usage), &mut found);
    match good(certificate(&args, config), &mut found) {
        Some(certificate) => found.extend(front(&args, config, certificate).err()),
        // Whether the address may be taken depends on it.
        None => found.extend(probe(config.http.as_ref()).err()),
    }
    let endpoint = endpoint.or_else(|| AtpEndpoint::for_provider(STAND_IN_URL).ok());
    let book = config.secrets.as_deref().map(|file| SecretBook::load(file).map_err(Failure::usage));
    let book = book.and_then(|book| good(book, &mut found)).map_or_else(stand_in, Ok);
    if let (Some(endpoint), Some(book)) = (endpoint, good(book, &mut found)) {
        for place in [&config.store, &config.spent].into_iter().flatten() {
            found.extend(place_fault(place, &args, config, &endpoint));
        }
        let spent = Arc::new(MemorySpentSet::unfenced(Arc::new(SystemClock::new()), AHEAD_SECS));
        let parts = Parts { book, store: Store::memory(), spent };
        let mut config = config.clone();
        config
            .scopes
            .get_or_insert_with(|| config.single_use.clone().unwrap_or_else(|| vec!["any".to_owned()]));
        let built = configured(&args, &config, endpoint, parts);
        found.extend(built.and_then(|builder| builder.build().map_err(Failure::usage)).err());
    }
    let mut told = HashSet::new();
    found.retain(|failure| told.insert(failure.to_string()));
    found.iter().map(|failure| failure.about("[atp_serve]")).collect()
}

/// What is good of it; what is not is found.
fn good<T>(outcome: Outcome<T>, found: &mut Vec<Failure>) -> Option<T> {
    outcome.map_err(|failure| found.push(failure)).ok()
}

/// A list of secrets in the place of one that is not named, or is refused already. Nothing is served with it.
fn stand_in() -> Outcome<SecretBook> {
    let mut book = SecretBook::parse(br#"{"obol_atp":1}"#).map_err(Failure::usage)?;
    book.add_shared(STAND_IN_URL.as_bytes()).map_err(Failure::usage)?;
    Ok(book)
}

/// What is wrong with a place where something is kept, as far as that can be said without opening it.
fn place_fault(
    named: &PathBuf,
    args: &ServeArgs,
    config: &AtpServe,
    endpoint: &AtpEndpoint,
) -> Option<Failure> {
    match StoreLocation::of(Some(named), "") {
        Ok(StoreLocation::Redis(url)) => redis_options(&url, args, config, endpoint).err(),
        Ok(StoreLocation::File(_) | StoreLocation::Memory) => None,
        Err(failure) => Some(failure),
    }
}

fn listen(args: &ServeArgs, config: &AtpServe) -> SocketAddr {
    args.listen.or(config.listen).unwrap_or(DEFAULT_LISTEN)
}

/// The addresses, if they may be taken.
fn front(args: &ServeArgs, config: &AtpServe, certificate: Option<Arc<Certificate>>) -> Outcome<Options> {
    let mut options = Options::new(listen(args, config));
    if let Some(certificate) = certificate {
        options = options.certificate(certificate);
    }
    if args.allow_remote {
        options = options.allow_remote();
    }
    if let Some(address) = probe(args.http.as_ref().or(config.http.as_ref()))? {
        options = options.http_at(address);
    }
    options.check().map_err(Failure::unavailable)?;
    Ok(options)
}

/// What is opened or read before a provider is built.
struct Parts {
    book: SecretBook,
    store: Store,
    spent: Arc<dyn SpentSet>,
}

fn provider(
    args: &ServeArgs,
    config: &AtpServe,
    endpoint: AtpEndpoint,
    secrets: Option<&Path>,
) -> Outcome<Router> {
    let book = book(secrets)?;
    let spent = spent_set(args, config, &endpoint)?;
    let store = store(args, config, &endpoint)?;
    let mut builder = configured(args, config, endpoint, Parts { book, store, spent })?;
    if let Some(path) = args.audit.audit_log.as_ref().or(config.audit_log.as_ref()) {
        let key = args.audit.audit_key.as_ref().or(config.audit_key.as_ref());
        builder = builder.audit(audit::open_for_atp(path, key)?);
    }
    builder.build().map_err(Failure::usage)
}

/// A provider as it is set.
fn configured(args: &ServeArgs, config: &AtpServe, endpoint: AtpEndpoint, parts: Parts) -> Outcome<Builder> {
    let scopes =
        if args.scope.is_empty() { config.scopes.clone().unwrap_or_default() } else { args.scope.clone() };
    let single = &config.single_use;
    let single_use =
        if args.single_use.is_empty() { single.clone().unwrap_or_default() } else { args.single_use.clone() };
    let mut builder = Router::builder(endpoint)
        .secrets(parts.book)
        .scopes(scopes)
        .single_use(single_use)
        .store(parts.store)
        .spent(parts.spent)
        .require_aud(args.require_aud || config.require_aud == Some(true))
        .signed_only(args.signed_only || config.signed_only == Some(true));
    if let Some(seconds) = args.ttl.or(config.ttl) {
        builder = builder.token_ttl(Duration::from_secs(seconds));
    }
    if let Some(seconds) = args.max_ttl.or(config.max_ttl) {
        builder = builder.max_ttl(Duration::from_secs(seconds));
    }
    if let Some(seconds) = config.window {
        builder = builder.window(Duration::from_secs(seconds));
    }
    if let Some(algorithm) = config.algorithm {
        builder = builder.algorithm(algorithm);
    }
    if let Some(rate) = config.address_rate {
        builder = builder.address_rate(rate);
    }
    if let Some(rate) = config.agent_rate {
        builder = builder.agent_rate(rate);
    }
    match args.discovery.as_ref().or(config.discovery.as_ref()) {
        Some(path) => described(builder, path),
        None => Ok(builder),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Described {
    name: Option<String>,
    capabilities: Option<Value>,
}

fn described(mut builder: Builder, path: &Path) -> Outcome<Builder> {
    let text = obol_secret::file::read_public(path, MAX_DISCOVERY_BYTES).map_err(Failure::usage)?;
    let read: Described = obol_secret::json::parse(&text)
        .map_err(|error| Failure::usage(format_args!("{}: {error}", path.display())))?;
    if let Some(name) = read.name {
        builder = builder.name(name);
    }
    if let Some(capabilities) = read.capabilities {
        builder = builder.capabilities(capabilities);
    }
    Ok(builder)
}

/// The file of secrets, and the one of the environment.
fn book(file: Option<&Path>) -> Outcome<SecretBook> {
    let environment = std::env::var_os(SECRET_VARIABLE).filter(|secret| !secret.is_empty());
    let mut book = match (file, &environment) {
        (Some(file), _) => SecretBook::load(file).map_err(Failure::usage)?,
        (None, Some(_)) => SecretBook::parse(br#"{"obol_atp":1}"#).map_err(Failure::usage)?,
        (None, None) => {
            return Err(Failure::usage(
                "--secrets FILE is needed; make one with `obol atp secret new --secrets FILE --shared`",
            ));
        }
    };
    if let Some(secret) = environment {
        tracing::warn!(
            "a shared secret comes from {SECRET_VARIABLE}, which other programs of this user can read; put it into --secrets"
        );
        let secret =
            secret.to_str().ok_or_else(|| Failure::usage(format_args!("{SECRET_VARIABLE} is not UTF-8")))?;
        book.add_shared(secret.as_bytes()).map_err(Failure::usage)?;
    }
    match book.short_secrets() {
        0 => {}
        count => tracing::warn!(
            count,
            "secrets are shorter than 32 bytes; make longer ones with `obol atp secret rotate`"
        ),
    }
    Ok(book)
}

fn store(args: &ServeArgs, config: &AtpServe, endpoint: &AtpEndpoint) -> Outcome<Store> {
    let key = || place(args.key.as_ref().or(config.key.as_ref()), stores::ATP_KEY);
    match StoreLocation::of(args.store.as_ref().or(config.store.as_ref()), stores::ATP_TOKENS)? {
        StoreLocation::Memory => {
            tracing::warn!(
                "JWT keys, tokens and revocations are kept in memory: every token ends with this process"
            );
            Ok(Store::memory())
        }
        StoreLocation::File(path) => {
            let key = key()?;
            companions::refuse_lost_key(&key, &[&path])?;
            companions::refuse_lost_store(&path, &key, args.first_start)?;
            Store::open(&path, &key).map_err(Failure::unavailable)
        }
        StoreLocation::Redis(url) => {
            let options = redis_options(&url, args, config, endpoint)?;
            Store::shared(options, &key()?).map_err(Failure::unavailable)
        }
    }
}

fn spent_set(args: &ServeArgs, config: &AtpServe, endpoint: &AtpEndpoint) -> Outcome<Arc<dyn SpentSet>> {
    let clock = Arc::new(SystemClock::new());
    match StoreLocation::of(args.spent.as_ref().or(config.spent.as_ref()), stores::ATP_SPENT)? {
        StoreLocation::Memory if args.first_start => {
            tracing::warn!(
                "answered requests are kept in memory: requests answered before this start are answered again"
            );
            Ok(Arc::new(MemorySpentSet::unfenced(clock, AHEAD_SECS)))
        }
        StoreLocation::Memory => {
            tracing::warn!(
                seconds = AHEAD_SECS,
                "answered requests are kept in memory: requests signed before this start, or up to this long after it, are refused"
            );
            Ok(Arc::new(MemorySpentSet::fenced(clock, AHEAD_SECS)))
        }
        StoreLocation::File(path) => {
            let new_file = if args.first_start { NewFile::Trusted } else { NewFile::Fenced };
            if !args.first_start && !path.exists() {
                tracing::warn!(
                    file = %path.display(),
                    "the file of answered requests is new: requests signed up to {AHEAD_SECS} s from now are refused, in case an old file was lost; if there was none, use --first-start",
                );
            }
            let options = RedbSpentSetOptions::new(path).clock_skew(AHEAD_SECS).new_file(new_file);
            Ok(Arc::new(options.open(clock).map_err(Failure::unavailable)?))
        }
        StoreLocation::Redis(url) => {
            let options = redis_options(&url, args, config, endpoint)?;
            Ok(Arc::new(RedisSpentSet::open(options, clock).map_err(Failure::unavailable)?))
        }
    }
}

/// All providers of one endpoint meet in one namespace.
fn redis_options(
    url: &str,
    args: &ServeArgs,
    config: &AtpServe,
    endpoint: &AtpEndpoint,
) -> Outcome<RedisOptions> {
    let derived =
        || format!("atp-{}", to_hex(Sha256::digest(endpoint.as_str()).get(..4).unwrap_or_default()));
    let namespace = config.redis_namespace.clone().unwrap_or_else(derived);
    let mut options = RedisOptions::new(url, &namespace).map_err(Failure::usage)?.clock_skew(AHEAD_SECS);
    if args.first_start {
        options = options.first_start();
    }
    if let Some(path) = &config.redis_password_file {
        options = options.password_file(path).map_err(Failure::usage)?;
    }
    Ok(options)
}

fn certificate(args: &ServeArgs, config: &AtpServe) -> Outcome<Option<Arc<Certificate>>> {
    let chain = args.tls_cert.as_ref().or(config.tls_cert.as_ref());
    let key = args.tls_key.as_ref().or(config.tls_key.as_ref());
    match (chain, key) {
        (Some(chain), Some(key)) => Certificate::load(chain, key, TLS12_AND_13)
            .map(|loaded| Some(Arc::new(loaded)))
            .map_err(Failure::usage),
        (None, None) => Ok(None),
        _ => Err(Failure::usage("a certificate and its key go together: --tls-cert and --tls-key")),
    }
}

/// Where those who watch the process ask, if anywhere: on loopback alone.
fn probe(named: Option<&String>) -> Outcome<Option<SocketAddr>> {
    let Some(named) = named.filter(|named| *named != "off") else { return Ok(None) };
    let address = named.parse().ok().filter(|address: &SocketAddr| address.ip().is_loopback());
    address.map(Some).ok_or_else(|| {
        Failure::usage("--http is a loopback address with a port, such as 127.0.0.1:8711, or off")
    })
}

/// Serves `/livez`, `/readyz` and `/metrics` until the word to stop is said, or nothing where there is no address.
pub(crate) fn watched(named: Option<&String>, health: impl Health, stop: Stop) -> Outcome<JoinHandle<()>> {
    let listener = probe(named)?.map(Loopback::bind).transpose().map_err(Failure::unavailable)?;
    Ok(tokio::spawn(async move {
        if let Some(listener) = listener {
            health::serve(listener, Arc::new(health), &stop).await;
        }
    }))
}

/// Reads secrets and certificate again whenever asked to. What is wrong changes nothing.
async fn reload(mut asked: Signal, file: Option<PathBuf>, handle: Handle) {
    while asked.recv().await.is_some() {
        let read = tokio::task::block_in_place(|| {
            book(file.as_deref()).and_then(|book| handle.reload(book).map_err(Failure::usage))
        });
        match read {
            Ok(()) => tracing::info!("secrets read again"),
            Err(failure) => tracing::error!(%failure, "the secrets stay as they were"),
        }
        if let Err(error) = handle.reload_certificate() {
            tracing::error!(%error, "the certificate stays as it was");
        }
    }
}
