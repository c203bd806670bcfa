//! A herd of agents in many processes that need a new token at the same moment: each host and agent makes one request, and the
//! provider, with its limits on, refuses none of them.
//!
//! `OBOL_SOAK_HERD=1000` is for a thousand agents in fifty processes (`scripts/soak herd`).

#![expect(clippy::print_stdout, reason = "it is how a copy of this program speaks to the test")]

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use obol_atp::Host;
use obol_atp_client::{Client, KeychainChoice, Options};
use obol_world::home::write_private;

use crate::atp::agent::{World, now_ms, read};

/// Agents, unless the environment says otherwise; twenty for each process.
const AGENTS: usize = 60;
const AGENTS_OF_A_PROCESS: usize = 20;
const FEWEST_PROCESSES: usize = 6;
/// Tasks of one process that want one agent's token.
const CALLERS: usize = 3;
/// The life of a token, in seconds: enough for all to have got one before the first has to be refreshed.
const LIFE_SECS: u64 = 15;
const LIFE_OF_MANY_SECS: u64 = 60;

/// Tells a copy of this test program which provider, which folder and which agents are its own.
const HOST: &str = "OBOL_TEST_HERD_HOST";
const FOLDER: &str = "OBOL_TEST_HERD_FOLDER";
const OWN: &str = "OBOL_TEST_HERD_AGENTS";
/// Before each line that a copy says to the test, among those of the test runner.
const SAYS: &str = "HERD ";

fn agents() -> usize {
    std::env::var("OBOL_SOAK_HERD").ok().map_or(AGENTS, |count| count.parse().unwrap())
}

fn client(folder: &Path, host: &Host, agent: usize) -> Client {
    let options = Options::new(folder.join(agent.to_string())).secret_file(folder.join("secret"));
    let options = options.ca_file(folder.join("cert.pem")).allow_private([host.clone()]);
    Client::open(options.keychain(KeychainChoice::File)).unwrap()
}

/// In the copy: whenever a line comes, all want their tokens; says which they got.
async fn be_one_of_many(host: &Host) {
    let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
    let own = std::env::var(OWN).unwrap();
    let own = own.split(' ').map(|agent| agent.parse::<usize>().unwrap());
    let clients: Vec<_> = own.map(|agent| (agent, client(&folder, host, agent))).collect();
    println!("\n{SAYS}ready");
    for _moment in std::io::stdin().lines() {
        let callers = clients.iter().flat_map(|(agent, client)| {
            (0..CALLERS).map(move |_| {
                let (agent, client, host) = (*agent, client.clone(), host.clone());
                tokio::spawn(async move { (agent, client.ensure_token(&host, &read()).await) })
            })
        });
        for caller in callers.collect::<Vec<_>>() {
            let (agent, token) = caller.await.unwrap();
            let token = token.unwrap();
            println!("{SAYS}{agent} {} {}", token.id, token.refresh_at);
        }
        println!("{SAYS}done");
    }
}

/// A copy of this test program with its agents, killed when dropped.
struct Member {
    child: Child,
    says: Lines<BufReader<ChildStdout>>,
    told: ChildStdin,
}

impl Member {
    fn start(world: &World, agents: &[usize]) -> Self {
        let test = format!("{}::{TEST}", module_path!().split_once("::").unwrap().1);
        let agents: Vec<_> = agents.iter().map(ToString::to_string).collect();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &test, "--test-threads=1", "--nocapture"])
            .env(HOST, world.host.to_string())
            .env(FOLDER, world.folder.path())
            .env(OWN, agents.join(" "))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let says = BufReader::new(child.stdout.take().unwrap()).lines();
        let told = child.stdin.take().unwrap();
        Self { child, says, told }
    }

    /// Its next line.
    fn line(&mut self) -> String {
        let mut lines = self.says.by_ref().map(Result::unwrap);
        lines.find_map(|line| line.strip_prefix(SAYS).map(str::to_owned)).expect("a member ended")
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// All at once: which tokens each agent got, whoever asked, and when the last of them is to be refreshed.
fn all_at_once(herd: &mut [Member]) -> (BTreeMap<usize, BTreeSet<String>>, u64) {
    for member in herd.iter_mut() {
        member.told.write_all(b"now\n").unwrap();
    }
    let (mut tokens, mut refresh_at) = (BTreeMap::<usize, BTreeSet<String>>::new(), 0);
    for member in herd {
        loop {
            let line = member.line();
            if line == "done" {
                break;
            }
            let words: Vec<_> = line.split(' ').collect();
            tokens.entry(words[0].parse().unwrap()).or_default().insert(words[1].to_owned());
            refresh_at = refresh_at.max(words[2].parse().unwrap());
        }
    }
    (tokens, refresh_at)
}

const TEST: &str = "agents_of_many_processes_refresh_at_one_moment_with_one_request_each";

#[test]
fn agents_of_many_processes_refresh_at_one_moment_with_one_request_each() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let Ok(host) = std::env::var(HOST) {
        return runtime.block_on(be_one_of_many(&host.parse().unwrap()));
    }
    let count = agents();
    let processes = (count / AGENTS_OF_A_PROCESS).max(FEWEST_PROCESSES);
    let life = if count > AGENTS { LIFE_OF_MANY_SECS } else { LIFE_SECS };
    // All come from one address here. The rate of an agent is what it always is.
    let rate = u32::try_from(count).unwrap();
    let world = runtime.block_on(World::with(life, |builder| builder.address_rate(rate)));
    for agent in 0..count {
        // Else all of one machine and user would be one agent.
        std::fs::create_dir(world.path(&agent.to_string())).unwrap();
        let name = format!("{agent:064x}\n");
        write_private(&world.path(&agent.to_string()).join("agent-id"), &name);
    }
    // Each agent is in two processes.
    let own = |process| {
        (0..count).filter(move |agent| [agent % processes, (agent + 1) % processes].contains(&process))
    };
    let mut herd: Vec<_> =
        (0..processes).map(|process| Member::start(&world, &own(process).collect::<Vec<_>>())).collect();
    for member in &mut herd {
        assert_eq!(member.line(), "ready");
    }
    let expected = u64::try_from(count).unwrap();
    let (first, refresh_at) = all_at_once(&mut herd);
    assert_eq!(world.issued(), expected, "they began with one request each");
    std::thread::sleep(Duration::from_millis(refresh_at.saturating_sub(now_ms()) + 20));
    let (second, _) = all_at_once(&mut herd);
    assert_eq!(world.issued(), 2 * expected, "and refresh with one each");
    assert_eq!((first.len(), second.len()), (count, count));
    for (agent, tokens) in &second {
        assert_eq!(
            (first[agent].len(), tokens.len()),
            (1, 1),
            "both processes of agent {agent} have the same"
        );
        assert!(first[agent].is_disjoint(tokens), "a new one");
    }
    let metrics = world.router.metrics();
    let refused = metrics
        .lines()
        .find(|line| line.starts_with("obol_atp_requests_total") && !line.contains("code=\"ok\""));
    assert_eq!(refused, None, "no limit was reached");
    // Control: who shares no folder asks for itself.
    let stranger = client(world.folder.path(), &world.host, count + 1);
    runtime.block_on(stranger.ensure_token(&world.host, &read())).unwrap();
    assert_eq!(world.issued(), 2 * expected + 1);
}
