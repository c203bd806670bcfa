//! The Authentication Service as a process of its own, over TLS on loopback, with its directory in a file: how long a session
//! takes to open, how many a second of its processor time opens, how soon resource servers hear of an end and of a
//! security event, what it holds in
//! memory for those that only listen, and how long one waits that is told of everything. Connections are kept.
//!
//! `cargo bench -p obol-benches --bench authority`; with `-- --quick` a few that show only that it works. Names of
//! [`PARTS`] run these alone.

#![expect(clippy::expect_used, reason = "a benchmark that cannot start has nothing to measure")]
#![expect(clippy::print_stdout, clippy::cast_precision_loss, reason = "what it measures is what it prints")]

mod event;
mod refused;
mod snapshot;

use core::fmt::Write as _;
use core::time::Duration;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use obol_authenticator::{Authenticator, Identity, Registered, Wishes};
use obol_benches::rows::{self, Row, Target, Unit};
use obol_client::AsControlClient;
use obol_handshake::{IdentityKey, SystemRandom};
use obol_ipc::Endpoint;
use obol_ipc::as_control::{DisableParams, DisableScope, InviteServerParams};
use obol_ipc::names::{PeerName, Reason};
use obol_probe::stop::Stop;
use obol_resource::provision::{Follower, Lease, join};
use obol_uplink::{Pinned, Uplink, UplinkOptions};
use obol_verify::{MemorySessionTable, SessionTable as _, SystemClock};
use obol_world::authority::{AsProcess, write_policy};
use obol_world::{certificates, home, now};
use tokio::runtime::Runtime;

/// The resource server that the tools are at.
const AUDIENCE: &str = "https://api.example";
/// How often something is looked at that is not timed.
const LOOK: Duration = Duration::from_millis(1);

/// How much is measured.
#[derive(Clone, Copy)]
struct Plan {
    /// Sessions that are opened one after the other.
    sessions: usize,
    /// Agents that open sessions at the same time, no more than one human may approve in an hour, and how many each opens.
    agents: usize,
    each: usize,
    /// Resource servers that follow, and sessions that are ended.
    servers: usize,
    ends: usize,
    /// Resource servers that only listen.
    idle: usize,
    /// Sessions that one resource server is told of at once.
    listed: usize,
}

const FULL: Plan =
    Plan { sessions: 1_000, agents: 16, each: 200, servers: 100, ends: 100, idle: 2_000, listed: 100_000 };
const QUICK: Plan = Plan { sessions: 20, agents: 4, each: 5, servers: 4, ends: 5, idle: 20, listed: 2_000 };

/// What can be run alone, and how.
type Part = (&'static str, fn(Plan));

const PARTS: [Part; 7] = [
    ("open", open),
    ("rate", rate),
    ("end", end),
    ("event", event::event),
    ("refused", refused::refused),
    ("idle", idle),
    ("snapshot", snapshot::snapshot),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        return;
    }
    let plan = if arguments.iter().any(|argument| argument == "--quick") { QUICK } else { FULL };
    let asked: Vec<_> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    rows::begin();
    for (name, part) in PARTS {
        if asked.is_empty() || asked.iter().any(|asked| *asked == name) {
            part(plan);
        }
    }
}

/// A running service that grants so many tools to whoever has the role `dev`.
struct Service {
    process: AsProcess,
    home: tempfile::TempDir,
    certificate: PathBuf,
}

impl Service {
    fn start(tools: usize) -> Self {
        let home = home::home();
        let (catalogue, policies) = policy(tools);
        write_policy(&home.path().join("policy"), &catalogue, &policies);
        let certificate = certificate(home.path());
        // The port is known only once the process is there, and the origin must say it.
        let mut process = AsProcess::unstarted(home.path(), &[]);
        let origin = format!("https://localhost:{}", process.port());
        process.call_it(&origin, &["--policy", "policy", "--tls-cert", "as.crt", "--tls-key", "as.key"]);
        process.start_again();
        rows::count_as_ours(process.pid());
        Self { process, home, certificate }
    }

    /// An agent that a human has approved.
    async fn agent(&self, name: &str) -> Authenticator {
        let place = |end: &str| self.home.path().join(format!("{name}.{end}"));
        let identity = Identity::open_or_create(&place("identity"), &place("key")).expect("a new identity");
        let service = Pinned::parse(&self.process.pin()).expect("the service's pin");
        let options = UplinkOptions::new().ca_file(&self.certificate);
        let mut agent = Authenticator::new(service, identity, &options).expect("an authenticator");
        let wishes = Wishes {
            name: name.to_owned(),
            class: "bench".to_owned(),
            roles: vec!["dev".to_owned()],
            ..Wishes::default()
        };
        match agent.register(&wishes, None, now()).await.expect("the service answers") {
            Registered::Waits { code, .. } => {
                let said = self.process.operate(&["approve", &code, "--yes"]);
                assert!(said.status.success(), "{said:?}");
            }
            Registered::Active { .. } => {}
        }
        agent
    }

    fn operator(&self) -> AsControlClient {
        let name = PeerName::new("obol-benches/1").expect("a name");
        let socket = Endpoint::at(self.process.control_socket()).expect("a socket's path");
        AsControlClient::connect(socket, obol_client::ConnectOptions::new(name)).expect("the service answers")
    }

    /// A copy of the resource server that has joined and follows, and the sessions that it has heard of.
    async fn server(&self, operator: &mut AsControlClient) -> Arc<MemorySessionTable> {
        let (follower, sessions) = self.joined(operator).await;
        let following = follower.following();
        tokio::spawn(follower.run(Stop::new()));
        while !following.standing().follows {
            tokio::time::sleep(LOOK).await;
        }
        sessions
    }

    /// One that has joined and does not follow yet.
    async fn joined(&self, operator: &mut AsControlClient) -> (Follower, Arc<MemorySessionTable>) {
        let audience = obol_token::Audience::new(AUDIENCE).expect("an audience");
        let invitation = InviteServerParams { audience: audience.clone(), suites: (1..=4).collect() };
        let code = operator.invite_server(invitation).expect("a code").ticket;
        let service = Pinned::parse(&self.process.pin()).expect("the service's pin");
        let options = UplinkOptions::new().ca_file(&self.certificate);
        let mut uplink = Uplink::new(service, &options).expect("an uplink");
        let key = IdentityKey::generate(&mut SystemRandom);
        join(&mut uplink, &key, code.expose(), now()).await.expect("it joins");
        let (clock, sessions) = (Arc::new(SystemClock::new()), Arc::new(MemorySessionTable::new()));
        let lease = Arc::new(Lease::new(300, clock.clone()));
        (Follower::new(uplink, key, audience, sessions.clone(), lease, clock), sessions)
    }

    /// Processor time that the service has used, in seconds.
    fn processor_secs(&self) -> f64 {
        let folder = format!("/proc/{}/task", self.process.pid());
        let threads = std::fs::read_dir(folder).expect("the service runs").flatten();
        let nanoseconds = |thread: std::fs::DirEntry| {
            let text = std::fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
            text.split(' ').next().and_then(|text| text.parse::<u64>().ok()).unwrap_or_default()
        };
        threads.map(nanoseconds).sum::<u64>() as f64 / 1e9
    }
}

/// Memory that a process holds, in bytes.
fn resident_bytes(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1_024.0
}

/// So many tools, each with one offer, and the policies that grant them.
fn policy(tools: usize) -> (String, String) {
    let mut catalogue = "org = \"example\"\n".to_owned();
    for number in 0..tools {
        let _always = write!(
            catalogue,
            "\n[[tool]]\nname = \"tool-{number}\"\naudience = \"https://api.example\"\nrisk = \"low\"\n  [[tool.offer]]\n  \
             name = \"read\"\n  action = [\"read\"]\n  resource = \"docs/**\"\n  ttl = 60\n"
        );
    }
    let policies = r#"
@id("use") permit (principal in Obol::Role::"dev", action == Obol::Action::"use", resource);
@id("ahead") permit (principal is Obol::Agent, action == Obol::Action::"useUnattended", resource);
@id("operators") permit (principal in Obol::Role::"operator", action == Obol::Action::"register", resource);
"#;
    (catalogue, policies.to_owned())
}

/// The file of a certificate for localhost that vouches for itself.
fn certificate(folder: &Path) -> PathBuf {
    certificates::self_signed(folder, "as.crt", "as.key");
    folder.join("as.crt")
}

/// How long a session takes, one after the other, each with ten grants and all over one TLS connection, as an authenticator
/// opens them.
fn open(plan: Plan) {
    let service = Service::start(10);
    let mut times = Runtime::new().expect("a runtime").block_on(async {
        let mut agent = service.agent("builder").await;
        let mut times = Vec::with_capacity(plan.sessions);
        // The first finds policy cold and no connection.
        for number in 0..=plan.sessions {
            let begun = Instant::now();
            let session = agent.authenticate(None, now()).await.expect("a session");
            let took = begun.elapsed();
            assert_eq!(session.half.grants.len(), 10);
            if number > 0 {
                times.push(took.as_secs_f64() * 1e9);
            }
        }
        times
    });
    report("authenticate, ten grants", &mut times, 5e6, 20e6);
}

/// Sessions a second of the service's processor time, many agents at once, one grant each, each agent over one connection.
fn rate(plan: Plan) {
    let service = Service::start(1);
    let runtime = Runtime::new().expect("a runtime");
    let agents = runtime.block_on(async {
        let mut agents = Vec::new();
        for number in 0..plan.agents {
            agents.push(service.agent(&format!("agent-{number}")).await);
        }
        // The first finds policy cold and no connection; it took a while to make all of them.
        for agent in &mut agents {
            drop(agent.authenticate(None, now()).await.expect("a session"));
        }
        agents
    });
    let (used, begun) = (service.processor_secs(), Instant::now());
    runtime.block_on(async {
        let open = |mut agent: Authenticator| async move {
            for _ in 0..plan.each {
                drop(agent.authenticate(None, now()).await.expect("a session"));
            }
        };
        let opening: Vec<_> = agents.into_iter().map(|agent| tokio::spawn(open(agent))).collect();
        for agent in opening {
            agent.await.expect("an agent that got its sessions");
        }
    });
    let (used, took) = (service.processor_secs() - used, begun.elapsed().as_secs_f64());
    let sessions = (plan.agents * plan.each) as f64;
    let measured = sessions / used;
    println!(
        "sessions in a second of the service's processor time: {measured:.0}; {:.0} a second by the clock, agents beside it",
        sessions / took
    );
    Row::new("authority", "sessions in a second of processor time", Unit::PerSecond, measured)
        .wants(Target::AtLeast(2_500.0))
        .record();
}

/// From the operator's word, commit included, to the last of many resource servers that accepts nothing of it any more.
fn end(plan: Plan) {
    let service = Service::start(1);
    let mut operator = service.operator();
    let mut times = Runtime::new().expect("a runtime").block_on(async {
        let mut servers = Vec::new();
        for _ in 0..plan.servers {
            servers.push(service.server(&mut operator).await);
        }
        let mut agent = service.agent("builder").await;
        let mut times = Vec::new();
        for _ in 0..plan.ends {
            let id = agent.authenticate(None, now()).await.expect("a session").half.session_id;
            let known = |server: &Arc<MemorySessionTable>| {
                server.look_up(id).is_ok_and(|found| found.is_some_and(|session| session.is_active()))
            };
            while !servers.iter().all(known) {
                tokio::time::sleep(LOOK).await;
            }
            let scope = DisableScope::Session(id);
            let reason = Reason::new("bench").expect("a reason");
            let begun = Instant::now();
            drop(operator.disable(DisableParams { scope, reason }).expect("it ends"));
            while servers.iter().any(known) {
                tokio::task::yield_now().await;
            }
            times.push(begun.elapsed().as_secs_f64() * 1e9);
        }
        times
    });
    report(&format!("an end, to the last of {} resource servers", plan.servers), &mut times, 20e6, 250e6);
}

/// What a resource server that only listens costs the service in memory.
fn idle(plan: Plan) {
    let service = Service::start(1);
    let mut operator = service.operator();
    Runtime::new().expect("a runtime").block_on(async {
        let mut servers = vec![service.server(&mut operator).await];
        let before = resident_bytes(service.process.pid());
        for _ in 0..plan.idle {
            servers.push(service.server(&mut operator).await);
        }
        let each = (resident_bytes(service.process.pid()) - before) / plan.idle as f64;
        println!("memory of a resource server that listens: {each:.0} bytes, over {} of them", plan.idle);
        Row::new("authority", "memory of a resource server that listens", Unit::Bytes, each)
            .wants(Target::AtMost(f64::from(400 << 20) / 10_000.0))
            .record();
    });
}

/// Two rows: the median and the 99th percentile of these nanoseconds.
fn report(what: &str, times: &mut [f64], median: f64, worst: f64) {
    times.sort_by(f64::total_cmp);
    let at = |of_100: usize| times.get(times.len() * of_100 / 100).copied().unwrap_or(f64::NAN);
    for (name, measured, most) in [("p50", at(50), median), ("p99", at(99), worst)] {
        println!("{what}, {name}: {:.2} ms", measured / 1e6);
        Row::new("authority", format!("{what}, {name}"), Unit::Nanoseconds, measured)
            .wants(Target::AtMost(most))
            .record();
    }
}
