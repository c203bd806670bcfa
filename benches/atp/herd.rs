//! Many at once: what a provider with many live tokens holds in memory, and when agents that began in one second come back.

use std::collections::BTreeMap;
use std::sync::Arc;

use obol_atp::Host;
use obol_atp_client::{Client, KeychainChoice, Options, TokenRequest};
use obol_atp_server::serve::{Certificate, Options as ServeOptions, TLS12_AND_13};
use obol_atp_server::{Router, SecretBook};
use obol_benches::rows::{Row, Target, Unit};
use obol_world::certificates;
use sha2::{Digest as _, Sha256};
use tower::ServiceExt as _;

use crate::{Failure, Size, world};

/// How many clients begin at a time.
const AT_ONCE: usize = 16;
/// Characters of the longest bar of the plot.
const BAR: usize = 40;
/// The most tokens of a master and one label.
const TOKENS_OF_A_LABEL: usize = 16;

/// Memory of a provider by live tokens of masters; those of the signed dialect have no row.
pub(crate) fn memory(size: Size) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let credential = "the credential of a benchmark";
    let hash: String = Sha256::digest(credential).iter().map(|byte| format!("{byte:02x}")).collect();
    let book = format!(r#"{{"obol_atp":1,"masters":[{{"name":"m","sha256":"{hash}","scopes":["read"]}}]}}"#);
    let router = Router::builder(world::E.parse()?)
        .secrets(SecretBook::parse(book.as_bytes())?)
        .scopes(["read"])
        .address_rate(0)
        .build()?;
    let routes: axum::Router = router.into();
    let before = resident()?;
    runtime.block_on(async {
        for number in 0..size.live_tokens {
            let label = number / TOKENS_OF_A_LABEL;
            let request = http::Request::post("/issue")
                .header("authorization", format!("Bearer {credential}"))
                .header("content-type", "application/json")
                .body(format!(r#"{{"scopes":["read"],"agent_id":"agent-{label}"}}"#))?
                .map(axum::body::Body::from);
            let answer = routes.clone().oneshot(request).await?;
            if answer.status() != http::StatusCode::OK {
                return Err(Failure::from(format!("token {number}: {}", answer.status())));
            }
        }
        Ok(())
    })?;
    let grew = resident()?.saturating_sub(before) as f64;
    let each = grew / size.live_tokens as f64;
    println!(
        "{} live tokens of masters: {:.1} MiB, {each:.0} bytes each",
        size.live_tokens,
        grew / 1_048_576.0
    );
    Row::new("atp", format!("memory with {} live tokens of masters", size.live_tokens), Unit::Bytes, grew)
        .record();
    runtime.block_on(memory_of_signed(size))
}

/// The same of the signed dialect: what is kept is that each request was answered, for 20 minutes.
async fn memory_of_signed(size: Size) -> Result<(), Failure> {
    let routes: axum::Router = world::provider(world::E, None)?.into();
    let (secret, before) = (world::secret(), resident()?);
    for number in 0..size.live_tokens {
        let body = world::body(u8::try_from(number % 200).unwrap_or(0)).signed_with(&secret);
        let request = http::Request::post("/").header("content-type", "application/json");
        let answer = routes.clone().oneshot(request.body(axum::body::Body::from(body))?).await?;
        if answer.status() != http::StatusCode::OK {
            return Err(Failure::from(format!("token {number}: {}", answer.status())));
        }
    }
    let grew = resident()?.saturating_sub(before) as f64;
    let each = grew / size.live_tokens as f64;
    println!("{} live signed tokens: {:.1} MiB, {each:.0} bytes each", size.live_tokens, grew / 1_048_576.0);
    Row::new("atp", format!("memory with {} live signed tokens", size.live_tokens), Unit::Bytes, grew)
        .record();
    Ok(())
}

fn resident() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kilobytes * 1_024)
}

/// Real agents get a token each within a short while; when each of them will refresh it, as requests a second.
pub(crate) async fn plot(size: Size) -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    certificates::self_signed(folder.path(), "cert.pem", "key.pem");
    let (chain, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let port = tokio::net::TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port();
    let host: Host = format!("localhost:{port}").parse()?;
    let router = world::provider(&format!("https://{host}{}", world::PATH), None)?;
    let certificate = Arc::new(Certificate::load(&chain, &key, TLS12_AND_13)?);
    let service = ServeOptions::new(([127, 0, 0, 1], port).into()).certificate(certificate);
    let service = service.bind(router.clone()).await?;
    let stop = tokio::spawn(service.run(core::future::pending()));
    let secret = folder.path().join("secret");
    write_private(&secret, world::SECRET)?;

    let mut ahead = Vec::with_capacity(size.agents);
    let numbers: Vec<usize> = (0..size.agents).collect();
    for some in numbers.chunks(AT_ONCE) {
        let begin = |number: &usize| {
            let options = Options::new(folder.path().join(format!("agent-{number}")));
            let options = options.secret_file(&secret).ca_file(&chain).keychain(KeychainChoice::File);
            let (client, host) = (Client::open(options.allow_private([host.clone()])), host.clone());
            tokio::spawn(async move {
                let token = client?.request_token(&host, &TokenRequest::new(["read"])?).await?;
                Ok::<_, obol_atp_client::AtpError>((token.expires_at - token.refresh_at) / 1_000)
            })
        };
        for agent in some.iter().map(begin).collect::<Vec<_>>() {
            ahead.push(agent.await??);
        }
    }
    stop.abort();
    // As if all tokens had been issued in one second: what is left is when before its end each is refreshed.
    let mut seconds: BTreeMap<u64, usize> = BTreeMap::new();
    ahead.iter().for_each(|second| *seconds.entry(*second).or_default() += 1);
    let busiest = seconds.values().copied().max().unwrap_or(0);
    println!("requests a second of {} agents, by seconds before their tokens end:", size.agents);
    let (last, first) = (seconds.keys().next().copied(), seconds.keys().next_back().copied());
    for second in (last.unwrap_or(0)..=first.unwrap_or(0)).rev() {
        let count = seconds.get(&second).copied().unwrap_or(0);
        println!("{second:>5} s {count:>4} {}", "#".repeat((count * BAR).div_ceil(busiest.max(1))));
    }
    let row = Row::new(
        "atp",
        format!("busiest second of {} agents' refreshes", size.agents),
        Unit::Count,
        busiest as f64,
    );
    row.wants(Target::AtMost(40.0)).record();
    Ok(())
}

fn write_private(path: &std::path::Path, text: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}
