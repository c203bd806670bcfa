//! Requests over HTTP on loopback: tokens issued, durable and in memory, beside the Express middleware, and a route behind the layer.
//! Server and clients share the machine.

use core::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Bytes;
use obol_benches::clients::{connect, load};
use obol_benches::rows::{self, Row, Target, Unit};
use tokio::net::TcpStream;

use crate::{Failure, Size, world};

/// Connections that are kept alive, each with one request at a time.
const CONNECTIONS: usize = 64;

pub(crate) async fn measure(size: Size) -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let durable = world::serve(world::provider(world::E, Some(folder.path()))?).await?;
    let issued = rate(durable, issue(size.requests / 2)?).await?;
    println!("tokens issued, redb durable, {CONNECTIONS} connections: {issued:.0}/s");
    let row = Row::new(
        "atp",
        format!("tokens issued, redb durable, {CONNECTIONS} connections"),
        Unit::PerSecond,
        issued,
    );
    row.wants(Target::AtLeast(10_000.0)).record();

    let memory = world::serve(world::provider(world::E, None)?).await?;
    let issued = rate(memory, issue(size.requests / 2)?).await?;
    let row = Row::new("atp", "tokens issued, in memory", Unit::PerSecond, issued);
    match Express::start().await? {
        None => row.record(),
        Some(express) => {
            let peer = rate(express.address, issue(size.requests / 4)?).await?;
            println!("tokens issued, in memory: {issued:.0}/s, Express middleware {peer:.0}/s");
            row.beside("the Express middleware", peer).wants(Target::RatioAtLeast(2.0)).record();
        }
    }

    let token = token(memory).await?;
    let get = |path: &str| -> Result<_, Failure> {
        let request = || {
            let request =
                Request::get(path).header("host", "a").header("authorization", format!("Bearer {token}"));
            request.body(Full::default())
        };
        Ok((0..size.requests).map(|_| request()).collect::<Result<Vec<_>, _>>()?)
    };
    let bare = rate(memory, get("/bare")?).await?;
    let guarded = rate(memory, get("/guarded")?).await?;
    println!("require(\"read\"): {guarded:.0}/s, bare {bare:.0}/s");
    let row = Row::new("atp", "a route behind require(\"read\")", Unit::PerSecond, guarded);
    row.beside("the same route without it", bare).wants(Target::RatioAtLeast(0.8)).record();
    Ok(())
}

/// Signed requests, each with a nonce of its own.
fn issue(count: usize) -> Result<Vec<Request<Full<Bytes>>>, Failure> {
    let secret = world::secret();
    let request = |number: usize| {
        let agent = u8::try_from(number % 200).unwrap_or(0);
        let body = world::body(agent).signed_with(&secret);
        let request =
            Request::post(world::PATH).header("host", "a").header("content-type", "application/json");
        request.body(Full::from(body))
    };
    Ok((0..count).map(request).collect::<Result<_, _>>()?)
}

async fn token(address: SocketAddr) -> Result<String, Failure> {
    let mut client = connect(address).await?;
    let request = issue(1)?.pop().ok_or("no request")?;
    let answer = client.send_request(request).await?.into_body().collect().await?.to_bytes();
    let answer: serde_json::Value = serde_json::from_slice(&answer)?;
    Ok(answer.get("token").and_then(|token| token.as_str()).ok_or("no token")?.to_owned())
}

/// How many a second.
async fn rate(address: SocketAddr, requests: Vec<Request<Full<Bytes>>>) -> Result<f64, Failure> {
    Ok(load(address, CONNECTIONS, requests).await?.measured().per_second)
}

/// The JavaScript middleware in a real Express.
struct Express {
    child: Child,
    address: SocketAddr,
}

impl Express {
    /// Where Node or Express is missing that is said, and it is not measured.
    async fn start() -> Result<Option<Self>, Failure> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let port = tokio::net::TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port();
        let mut node = Command::new("node");
        node.arg(root.join("benches/atp/express.js")).arg(port.to_string()).arg(world::E).arg(world::SECRET);
        node.env("NODE_PATH", root.join("target/express/node_modules"))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let Ok(mut child) = node.spawn() else {
            rows::skipped("the Express middleware: there is no Node; scripts/install test installs it");
            return Ok(None);
        };
        rows::count_as_ours(child.id());
        let address: SocketAddr = ([127, 0, 0, 1], port).into();
        for _ in 0..200 {
            if TcpStream::connect(address).await.is_ok() {
                return Ok(Some(Self { child, address }));
            }
            if child.try_wait()?.is_some() {
                break;
            }
            tokio::time::sleep(core::time::Duration::from_millis(50)).await;
        }
        rows::skipped("the Express middleware: Express is not in target/express; scripts/test fetches it");
        Ok(None)
    }
}

impl Drop for Express {
    fn drop(&mut self) {
        let _was_gone = self.child.kill();
        let _was_gone = self.child.wait();
    }
}
