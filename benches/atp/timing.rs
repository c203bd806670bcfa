//! Whether the time of a refusal tells what was wrong. Two kinds of requests go over one connection in random order, as many of each;
//! what a guesser can win who sees nothing but the time is the largest difference between the shares of both kinds that were
//! answered by any one moment (Kolmogorov and Smirnov): 0 for two that cannot be told apart, 1,000 thousandths for two that always
//! can. As a control, requests that are refused before any signature is looked at, which must be told apart.

use core::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use obol_atp::{AgentId, RevokeBody, Secret, TokenBody};
use obol_atp_server::{Router, SecretBook};
use obol_benches::clients::connect;
use obol_benches::rows::{Row, Target, Unit};
use obol_verify::{MemorySpentSet, SystemClock};

use crate::{Failure, Size, world};

/// Of two samples of one kind, one pair in a thousand differs by more than this, divided by the root of half their size.
const CRITICAL: f64 = 1.95;
/// Requests that come first and are not counted.
const WARM_UP: usize = 500;

/// A request that is to be sent.
type Asked = Result<Request<Full<Bytes>>, Failure>;

/// What is asked, twice: each makes a request that is refused, for a reason of its own.
struct Pair {
    what: &'static str,
    /// An agent that nobody knows is drawn for either kind, so that making a request takes the same.
    kinds: [fn(&Fixture, AgentId) -> Asked; 2],
    expect: Expect,
}

#[derive(Clone, Copy)]
enum Expect {
    Alike,
    Apart,
    /// Told, and nothing is promised: who asks has the token.
    Whatever,
}

const PAIRS: [Pair; 6] = [
    Pair {
        what: "a token asked for by an unknown agent, or with a wrong secret",
        kinds: [
            |fixture, stranger| ask(stranger, &fixture.wrong),
            |fixture, _| ask(fixture.known, &fixture.wrong),
        ],
        expect: Expect::Alike,
    },
    Pair {
        what: "a token revoked by an unknown agent, or with a wrong secret",
        kinds: [
            |fixture, stranger| revoke(fixture, stranger, &fixture.wrong),
            |fixture, _| revoke(fixture, fixture.known, &fixture.wrong),
        ],
        expect: Expect::Alike,
    },
    Pair {
        what: "a forged token verified: of an unknown agent, or of a known one",
        kinds: [
            |fixture, stranger| bearer(fixture, "/verify", stranger),
            |fixture, _| bearer(fixture, "/verify", fixture.known),
        ],
        expect: Expect::Alike,
    },
    Pair {
        what: "a forged token revoked: of an unknown agent, or of a known one",
        kinds: [
            |fixture, stranger| bearer(fixture, "/revoke", stranger),
            |fixture, _| bearer(fixture, "/revoke", fixture.known),
        ],
        expect: Expect::Alike,
    },
    Pair {
        what: "a token verified that was revoked, or is forged",
        kinds: [
            |fixture, _| post("/verify", Some(fixture.revoked.clone()), Bytes::new()),
            |fixture, _| bearer(fixture, "/verify", fixture.known),
        ],
        expect: Expect::Whatever,
    },
    Pair {
        what: "control: a malformed request, or a wrong secret",
        kinds: [|_, _| post("", None, "{".repeat(300)), |fixture, _| ask(fixture.known, &fixture.wrong)],
        expect: Expect::Apart,
    },
];

/// What a provider that knows one agent is asked with.
struct Fixture {
    known: AgentId,
    wrong: Secret,
    /// The first part of a live token.
    header: String,
    revoked: String,
}

pub(crate) async fn measure(size: Size) -> Result<(), Failure> {
    let known = world::body(7).agent_id;
    let secret = world::SECRET;
    let book = format!(
        r#"{{"obol_atp":1,"agents":[{{"agent_id":"{known}","secrets":[{{"secret":"{secret}"}}]}}]}}"#
    );
    let clock = Arc::new(SystemClock::new());
    let router = Router::builder(world::E.parse()?)
        .secrets(SecretBook::parse(book.as_bytes())?)
        .scopes(["read"])
        .spent(Arc::new(MemorySpentSet::unfenced(clock, 60)))
        .address_rate(0)
        .agent_rate(0)
        .build()?;
    let address = world::serve(router).await?;
    let mut client = connect(address).await?;
    let answer =
        client.send_request(ask(known, &world::secret())?).await?.into_body().collect().await?.to_bytes();
    let answer: serde_json::Value = serde_json::from_slice(&answer)?;
    let revoked = answer.get("token").and_then(|token| token.as_str()).ok_or("no token")?.to_owned();
    client.ready().await?;
    client
        .send_request(post("/revoke", Some(revoked.clone()), Bytes::new())?)
        .await?
        .into_body()
        .collect()
        .await?;
    let header = revoked.split('.').next().unwrap_or_default().to_owned();
    let fixture =
        Fixture { known, wrong: Secret::of_any_length(b"not the secret of anybody here"), header, revoked };
    for pair in &PAIRS {
        compare(pair, &fixture, address, size.timed).await?;
    }
    Ok(())
}

async fn compare(pair: &Pair, fixture: &Fixture, address: SocketAddr, count: usize) -> Result<(), Failure> {
    let mut client = connect(address).await?;
    let mut order: Vec<usize> = (0..2 * (count + WARM_UP)).map(|number| number % 2).collect();
    shuffle(&mut order)?;
    let mut seen = [0; 2];
    let mut times = [Vec::with_capacity(count), Vec::with_capacity(count)];
    for kind in order {
        let (Some(make), Some(times), Some(seen)) =
            (pair.kinds.get(kind), times.get_mut(kind), seen.get_mut(kind))
        else {
            return Err("there are two kinds".into());
        };
        let took = time(&mut client, make(fixture, stranger()?)?).await?;
        *seen += 1;
        if *seen > WARM_UP {
            times.push(took);
        }
    }
    let [first, second] = &mut times;
    first.sort_unstable();
    second.sort_unstable();
    let won = 1_000.0 * difference(first, second);
    let chance = 1_000.0 * CRITICAL * (2.0 / count as f64).sqrt();
    let median = |times: &[u64]| times.get(times.len() / 2).copied().unwrap_or_default();
    println!(
        "{}: {} and {} ns in the middle of {count} each; a guesser wins {won:.1} thousandths, {chance:.1} by chance",
        pair.what,
        median(first),
        median(second)
    );
    let row = Row::new("atp", format!("{}: won by the time, in thousandths", pair.what), Unit::Count, won);
    match pair.expect {
        Expect::Alike => row.wants(Target::AtMost(chance)).record(),
        Expect::Apart => row.wants(Target::AtLeast(chance)).record(),
        Expect::Whatever => row.record(),
    }
    Ok(())
}

/// Nanoseconds until the whole answer is there.
async fn time(client: &mut SendRequest<Full<Bytes>>, request: Request<Full<Bytes>>) -> Result<u64, Failure> {
    client.ready().await?;
    let begin = Instant::now();
    let answer = client.send_request(request).await?;
    answer.into_body().collect().await?;
    Ok(u64::try_from(begin.elapsed().as_nanos())?)
}

/// The largest difference of the two shares that are at most as long as any one time. Both are sorted.
fn difference(first: &[u64], second: &[u64]) -> f64 {
    let share = |times: &[u64], time: u64| {
        times.partition_point(|other| *other <= time) as f64 / times.len().max(1) as f64
    };
    let gap = |time: &u64| (share(first, *time) - share(second, *time)).abs();
    first.iter().chain(second).map(gap).fold(0.0, f64::max)
}

fn shuffle(order: &mut [usize]) -> Result<(), Failure> {
    for last in (1..order.len()).rev() {
        let mut random = [0; 8];
        getrandom::fill(&mut random)?;
        order.swap(last, usize::try_from(u64::from_le_bytes(random) % u64::try_from(last + 1)?)?);
    }
    Ok(())
}

fn stranger() -> Result<AgentId, Failure> {
    let mut random = [0; 16];
    getrandom::fill(&mut random)?;
    Ok(AgentId::from_random(random))
}

fn post(path: &str, bearer: Option<String>, body: impl Into<Bytes>) -> Asked {
    let request = Request::post(format!("{}{path}", world::PATH)).header("host", "a");
    let request = request.header("content-type", "application/json");
    let request = match bearer {
        Some(token) => request.header("authorization", format!("Bearer {token}")),
        None => request,
    };
    Ok(request.body(Full::new(body.into()))?)
}

fn ask(agent_id: AgentId, secret: &Secret) -> Asked {
    post("", None, TokenBody { agent_id, ..world::body(0) }.signed_with(secret))
}

fn revoke(fixture: &Fixture, agent_id: AgentId, secret: &Secret) -> Asked {
    let TokenBody { aud, nonce, timestamp, .. } = world::body(0);
    let body = RevokeBody { agent_id, aud, nonce, timestamp, token: fixture.revoked.as_str().into() };
    post("/revoke", None, body.signed_with(secret))
}

/// A token under a live key's name that names an agent, with a signature of nobody.
fn bearer(fixture: &Fixture, path: &str, agent: AgentId) -> Asked {
    // What it claims is read only once its signature held; here both kinds have claims of one length.
    let token = format!("{}.{}.{}", fixture.header, agent.to_string().repeat(6), "A".repeat(43));
    post(path, Some(token), Bytes::new())
}
