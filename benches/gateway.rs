//! What a gateway costs a request: nginx, Caddy and `obol gateway` on the same cores, in front of the same API, with connections that
//! are kept. Suite 2, a token of its own for every request, drawn before the clock runs; and what 1,000 idle connections hold.
//!
//! `cargo bench -p obol-benches --bench gateway`; with `-- --quick` a tenth of the requests. All kinds take turns, in blocks, so that
//! what else the machine does falls on each. Clients, proxies and API share the machine.

#![expect(clippy::expect_used, reason = "a benchmark that cannot start has nothing to measure")]
#![expect(clippy::print_stdout, reason = "what it measures is what it prints")]

use core::convert::Infallible;
use core::net::SocketAddr;
use core::time::Duration;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use http_body_util::{Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use obol_benches::clients::{Failure, Load, Measured, connect, load, send_all};
use obol_benches::rows::{self, Row, Target, Unit};
use obol_client::{Client, ConnectOptions};
use obol_ipc::Endpoint;
use obol_ipc::names::{PeerName, ToolName};
use obol_world::home::{command, free_port, home, wait_until, write_private};
use obol_world::reverse::ReverseProxy;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

type Body = Empty<Bytes>;

const AUDIENCE: &str = "https://gateway.example";
/// What makes this program the API; its port follows.
const SERVE: &str = "--serve";
/// Connections that are kept, each with one request at a time.
const CONNECTIONS: usize = 32;
/// Requests of a block, and blocks of each kind; the first is not counted.
const BLOCK: usize = 4_000;
const BLOCKS: usize = 11;
/// Connections that are idle when memory is looked at.
const IDLE: usize = 1_000;
/// How long the sidecar may mint again what was drawn, before the clock runs.
const SETTLE: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(20);
/// Files that a process may have open here.
const FILES: u64 = 16_384;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args();
    if let Some(port) = arguments.by_ref().skip_while(|argument| argument != SERVE).nth(1) {
        return serve(port.parse()?);
    }
    // `cargo test --benches` runs this without it, and wants to know only that it builds.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let blocks = if std::env::args().any(|argument| argument == "--quick") { 2 } else { BLOCKS };
    let most = getrlimit(Resource::Nofile).maximum.unwrap_or(FILES).min(FILES);
    setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: Some(most) })?;
    rows::begin();
    let home = home();
    let runtime = Runtime::new()?;
    let (mut sidecar, mut kinds, _api) = start(home.path());
    for number in 0..blocks {
        for kind in &mut kinds {
            let requests = kind.requests(&mut sidecar, BLOCK)?;
            let block = runtime.block_on(load(kind.at, CONNECTIONS, requests))?;
            if number > 0 {
                kind.load.add(block);
            }
        }
    }
    let measured: Vec<_> = kinds
        .iter_mut()
        .map(|kind| {
            let measured = core::mem::take(&mut kind.load).measured();
            println!("{}: {measured}", kind.name);
            measured
        })
        .collect();
    let [nginx, caddy, memory, durable] = measured.as_slice() else { return Err("four kinds".into()) };
    for (what, ours, target) in [
        ("obol gateway, the spent set in memory", memory, true),
        ("obol gateway, a durable spent set", durable, false),
    ] {
        record(ours, what, "nginx", nginx, target);
        record(ours, what, "Caddy", caddy, false);
    }
    for kind in &kinds {
        idle(kind, &mut sidecar, &runtime)?;
    }
    Ok(())
}

/// The sidecar's client, the proxies, and the API behind them.
fn start(home: &Path) -> (Sidecar, Vec<Kind>, Running) {
    let create = ["session", "create", "--audience", AUDIENCE, "--suite", "2", "--tool", "rows"];
    let created = command(home).args(create).output().expect("obol runs");
    assert!(created.status.success(), "{created:?}");
    let sidecar = Sidecar::start(home);
    let port = free_port();
    let api = Command::new(std::env::current_exe().expect("our own path"))
        .args([SERVE, &port.to_string()])
        .spawn()
        .expect("the API starts");
    let api = Running::new(api);
    let listening = |at| wait_until("it listens", || std::net::TcpStream::connect(at).is_ok());
    listening(SocketAddr::from(([127, 0, 0, 1], port)));
    let kinds = vec![
        nginx(&home.join("nginx"), port),
        caddy(&home.join("caddy"), port),
        gateway(home, "obol gateway, memory", "memory", port),
        gateway(home, "obol gateway, durable", "spent.redb", port),
    ];
    for kind in &kinds {
        listening(kind.at);
        processes(kind.pid).into_iter().for_each(rows::count_as_ours);
    }
    (sidecar, kinds, api)
}

fn nginx(folder: &Path, api: u16) -> Kind {
    let port = free_port();
    let main = "worker_processes auto;\nworker_rlimit_nofile 16384;\nevents { worker_connections 8192; }";
    let http = format!(
        "keepalive_requests 1000000;\nupstream api {{ server 127.0.0.1:{api}; keepalive 256; keepalive_requests 1000000; }}\n\
         server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://api; proxy_http_version 1.1;\n\
         proxy_set_header Connection \"\"; }} }}\n"
    );
    let proxy = ReverseProxy::nginx(folder, main, &http);
    let pid = proxy.pid();
    Kind::new("nginx", port, "/rows", pid, Alive::Other(proxy))
}

fn caddy(folder: &Path, api: u16) -> Kind {
    let port = free_port();
    let proxy = ReverseProxy::caddy(
        folder,
        "",
        &format!(
            ":{port} {{\n bind 127.0.0.1\n reverse_proxy 127.0.0.1:{api} {{\n  transport http {{\n   keepalive_idle_conns_per_host 256\n  }}\n }}\n}}\n"
        ),
    );
    let pid = proxy.pid();
    Kind::new("Caddy", port, "/rows", pid, Alive::Other(proxy))
}

fn gateway(home: &Path, name: &'static str, spent: &str, api: u16) -> Kind {
    let apis = home.join("apis");
    if !apis.exists() {
        fs::create_dir(&apis).expect("a folder");
        write_private(&home.join("secret"), "sk-live-0123456789abcdef");
        let text = format!(
            "upstream = \"http://127.0.0.1:{api}\"\n[credential]\nput = \"bearer\"\nfile = \"{}\"\n\
             [[route]]\nmethod = \"GET\"\npath = \"/rows\"\ntool = \"rows\"\nbody = \"none\"\n",
            home.join("secret").display()
        );
        write_private(&apis.join("api.toml"), &text);
    }
    let port = free_port();
    let mut gateway = command(home);
    gateway.args([
        "--log",
        "warn",
        "gateway",
        "--apis",
        "apis",
        "--sessions",
        "rs-sessions.json",
        "--first-start",
    ]);
    gateway.args(["--spent", spent, "--listen", &format!("127.0.0.1:{port}")]);
    let child = gateway.spawn().expect("the gateway starts");
    Kind::new(name, port, "/api/rows", child.id(), Alive::Gateway(Running::new(child)))
}

/// A process; killed when dropped.
struct Running(Child);

impl Running {
    fn new(child: Child) -> Self {
        rows::count_as_ours(child.id());
        Self(child)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

/// What lives as long as a kind is measured.
enum Alive {
    Gateway(#[expect(dead_code, reason = "held")] Running),
    Other(#[expect(dead_code, reason = "held")] ReverseProxy),
}

/// One proxy in front of the API.
struct Kind {
    name: &'static str,
    at: SocketAddr,
    path: &'static str,
    pid: u32,
    is_ours: bool,
    load: Load,
    _alive: Alive,
}

impl Kind {
    fn new(name: &'static str, port: u16, path: &'static str, pid: u32, alive: Alive) -> Self {
        let at = SocketAddr::from(([127, 0, 0, 1], port));
        let is_ours = matches!(alive, Alive::Gateway(_));
        Self { name, at, path, pid, is_ours, load: Load::default(), _alive: alive }
    }

    /// So many requests, each with a token; those for others carry as many bytes.
    fn requests(&self, sidecar: &mut Sidecar, count: usize) -> Result<Vec<Request<Body>>, Failure> {
        let tokens =
            if self.is_ours { sidecar.tokens(count)? } else { vec![sidecar.tokens(1)?.remove(0); count] };
        std::thread::sleep(SETTLE);
        let request = |token: String| {
            let request = Request::get(self.path).header("host", "localhost");
            Ok(request.header("authorization", format!("TBAC {token}")).body(Body::new())?)
        };
        tokens.into_iter().map(request).collect()
    }
}

fn record(ours: &Measured, what: &str, peer: &str, other: &Measured, has_target: bool) {
    for (suffix, unit, measured, beside, target) in [
        ("", Unit::PerSecond, ours.per_second, other.per_second, Some(Target::RatioAtLeast(0.5))),
        (", p50", Unit::Nanoseconds, ours.p50, other.p50, None),
        (", p99", Unit::Nanoseconds, ours.p99, other.p99, Some(Target::RatioAtMost(2.0))),
    ] {
        println!("{what}{suffix}: {:.2} of {peer}", measured / beside);
        let row = Row::new("gateway", format!("{what}{suffix}"), unit, measured).beside(peer, beside);
        match target.filter(|_| has_target) {
            Some(target) => row.wants(target).record(),
            None => row.record(),
        }
    }
}

/// The real one, and a client of it.
struct Sidecar {
    _running: Running,
    client: Client,
}

impl Sidecar {
    fn start(home: &Path) -> Self {
        let mut tqs = command(home);
        tqs.env("OBOL_TQS__CONNECTION_RATE", "0").env("OBOL_TQS__USER_RATE", "0");
        tqs.args(["--log", "warn", "tqs", "--session", "agent-session.json"]).stdout(Stdio::null());
        let running = Running::new(tqs.spawn().expect("the sidecar starts"));
        let socket = home.join("run/obol/agent.sock");
        wait_until("the sidecar answers", || socket.exists());
        let options = ConnectOptions::new(PeerName::new("bench/1").expect("a name"));
        let client = Client::connect(Endpoint::at(&socket).expect("a path"), options).expect("it answers");
        Self { _running: running, client }
    }

    fn tokens(&mut self, count: usize) -> Result<Vec<String>, Failure> {
        let tool = ToolName::new("rows")?;
        let mut tokens = Vec::with_capacity(count);
        for _ in 0..count {
            tokens.push(self.client.dequeue_token(&tool, PATIENCE)?.token.expose().to_owned());
        }
        Ok(tokens)
    }
}

/// The API: answers each request at once.
fn serve(port: u16) -> Result<(), Failure> {
    Runtime::new()?.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let answer = service_fn(async |_: Request<Incoming>| {
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"rows"))))
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
        }
    })
}

/// What a proxy holds once this many connections have had an answer and stay.
fn idle(kind: &Kind, sidecar: &mut Sidecar, runtime: &Runtime) -> Result<(), Failure> {
    let before = resident(kind.pid)?;
    let mut kept = Vec::with_capacity(IDLE);
    for request in kind.requests(sidecar, IDLE)? {
        kept.push(runtime.block_on(async {
            let mut client = connect(kind.at).await?;
            send_all(&mut client, vec![request]).await?;
            Ok::<_, Failure>(client)
        })?);
    }
    let after = resident(kind.pid)?;
    println!(
        "{}: {:.1} MiB resident with {IDLE} idle connections, {:.1} MiB before",
        kind.name,
        after / 1_048_576.0,
        before / 1_048_576.0
    );
    Row::new("gateway", format!("{}, resident with {IDLE} idle connections", kind.name), Unit::Bytes, after)
        .record();
    Ok(())
}

/// A process and those below it.
fn processes(pid: u32) -> Vec<u32> {
    let below = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    core::iter::once(pid).chain(below.split_whitespace().flat_map(str::parse)).collect()
}

/// What they hold together, in bytes. What several share counts for each.
fn resident(pid: u32) -> Result<f64, Failure> {
    let mut kilobytes = 0.0;
    for process in processes(pid) {
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        kilobytes += line.trim().trim_end_matches(" kB").parse::<f64>()?;
    }
    Ok(kilobytes * 1_024.0)
}
