//! Known secrets are given to the daemon; then everything that others can come by is searched for them.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use obol_token::text::from_hex;
use obol_world::halves::AgentSession;
use obol_world::home::{self, command, wait_until};
use obol_world::now;
use obol_world::tqs::{self, Tqs};

const CHUNK: usize = 1 << 20;

/// What must not be found: each secret as it is written and as it is.
struct Canaries(Vec<(String, Vec<u8>)>);

impl Canaries {
    fn of(world: &AgentSession, master_key: &str) -> Self {
        let json = world.agent_json();
        let server = &json["resource_servers"][0];
        let keys = ["K_session", "verifier_secret", "mutual_auth"];
        let mut all = Vec::new();
        let secrets = keys.map(|key| (key, server[key].as_str().unwrap())).into_iter();
        for (name, hex) in secrets.chain([("master key", master_key.trim())]) {
            // The second half of the digits is enough to know it by, and finds cut off copies too.
            all.push((format!("{name}, in hex"), hex.as_bytes()[32..].to_vec()));
            all.push((
                name.to_owned(),
                from_hex(hex).map(|key: [u8; 32]| key.to_vec()).unwrap()[16..].to_vec(),
            ));
        }
        Self(all)
    }

    fn found_in(&self, bytes: &[u8]) -> Vec<&str> {
        let holds = |needle: &[u8]| {
            let (first, rest) = needle.split_first().unwrap();
            let mut bytes = bytes;
            // The standard library's search for one byte is fast also where these tests are not optimised.
            while !bytes.is_empty() {
                bytes.skip_until(*first).unwrap();
                if bytes.starts_with(rest) {
                    return true;
                }
            }
            false
        };
        self.0.iter().filter(|(_, needle)| holds(needle)).map(|(name, _)| name.as_str()).collect()
    }

    /// Searches all memory of a process that can be read, its environment and its arguments.
    fn found_in_process(&self, pid: u32) -> Vec<String> {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
        let (mut found, mut searched) = (Vec::new(), 0);
        for line in maps.lines().filter(|line| line.contains(" r") || line.contains(" -")) {
            let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
            let (from, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
            // Pieces overlap by more than a canary's length.
            let mut buffer = vec![0; CHUNK + 64];
            for start in (from..to).step_by(CHUNK) {
                let length = usize::try_from((to - start).min(CHUNK as u64 + 64)).unwrap();
                // Some of it is the kernel's and cannot be read.
                if let Ok(read) = memory.read_at(&mut buffer[..length], start) {
                    searched += read;
                    found.extend(self.found_in(&buffer[..read]).into_iter().map(str::to_owned));
                }
            }
        }
        assert!(searched > 1 << 20, "only {searched} bytes of process {pid} could be read");
        for file in ["environ", "cmdline"] {
            let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap();
            found.extend(self.found_in(&bytes).into_iter().map(|name| format!("{name} in {file}")));
        }
        found
    }

    /// Searches every file below a folder but those that are made to hold secrets.
    fn found_in_files(&self, folder: &Path, allowed: &[PathBuf]) -> (Vec<String>, usize) {
        let (mut found, mut searched) = (Vec::new(), 0);
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            if kind.is_dir() {
                let (more, files) = self.found_in_files(&path, allowed);
                found.extend(more);
                searched += files;
            } else if kind.is_file() && !allowed.contains(&path) {
                let bytes = fs::read(&path).unwrap();
                searched += 1;
                found
                    .extend(self.found_in(&bytes).iter().map(|name| format!("{name} in {}", path.display())));
            }
        }
        (found, searched)
    }
}

/// An agent that has drawn a token and lives on.
fn agent(home: &Path) -> Child {
    let document = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/protocol.md")).unwrap();
    let script = document.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    let mut agent = Command::new("python3");
    agent.args(["-c", &format!("{script}\nsys.stdout.flush()\nsys.stdin.read()"), "search"]);
    agent.env("OBOL_ENDPOINT_SOCKET", format!("unix://{}", tqs::socket(home).display()));
    agent.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut agent = agent.spawn().expect("python3 is needed for this test; install Debian's package python3");
    let mut token = String::new();
    BufReader::new(agent.stdout.take().unwrap()).read_line(&mut token).unwrap();
    assert!(token.len() > 100, "the agent has its token: {token:?}");
    agent
}

fn end(mut child: Child) {
    let _ended = child.kill();
    child.wait().unwrap();
}

#[test]
fn no_secret_is_in_an_agent_a_log_a_database_or_anything_else_the_daemon_leaves() {
    let home = home::home();
    let world = AgentSession::new(1, now(), &["search"]);
    let session = home.path().join("session.json");
    home::write_private(&session, &world.agent_json().to_string());
    let tqs = Tqs::start(home.path(), &["--session", "session.json", "--log", "trace"]);
    let master_key = home.path().join(".local/state/obol/master.key");
    let canaries = Canaries::of(&world, &fs::read_to_string(&master_key).unwrap());

    let agent = agent(home.path());
    assert_eq!(canaries.found_in_process(agent.id()), Vec::<String>::new());

    // Our own client, held in the middle of a request.
    tqs.signal("STOP");
    let held = command(home.path()).args(["dequeue", "search"]).stdout(Stdio::null()).spawn().unwrap();
    wait_until("the client waits for the daemon", || {
        let state = fs::read_to_string(format!("/proc/{}/stat", held.id())).unwrap();
        let mut descriptors = fs::read_dir(format!("/proc/{}/fd", held.id())).unwrap().map(Result::unwrap);
        let connected = descriptors.any(|fd| {
            fs::read_link(fd.path()).is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
        });
        connected && state.rsplit(')').next().unwrap().trim_start().starts_with('S')
    });
    assert_eq!(canaries.found_in_process(held.id()), Vec::<String>::new());
    tqs.signal("CONT");
    end(held);

    for secret in ["environ", "cmdline"] {
        let bytes = fs::read(format!("/proc/{}/{secret}", tqs.pid())).unwrap();
        assert_eq!(canaries.found_in(&bytes), Vec::<&str>::new(), "{secret} of the daemon");
    }
    let flushed = command(home.path()).args(["flush", "--all", "--reason", "canary"]).output().unwrap();
    assert!(flushed.status.success(), "{flushed:?}");
    tqs.signal("ABRT");
    tqs.wait_for_status();
    let (found, searched) = canaries.found_in_files(home.path(), &[session.clone(), master_key]);
    assert_eq!(found, Vec::<String>::new());
    assert!(searched >= 3, "the log, the database and its keys");
    end(agent);

    // The control: whoever does hold a secret is found out.
    let (found, _) = canaries.found_in_files(home.path(), &[]);
    assert!(found.len() >= 4, "{found:?}");
    let mut holder = Command::new("python3");
    holder.args([
        "-c",
        "import sys; kept = sys.stdin.readline(); print('holds', flush=True); sys.stdin.read()",
    ]);
    let mut holder = holder.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = holder.stdin.take().unwrap();
    stdin.write_all(world.agent_json().to_string().as_bytes()).unwrap();
    stdin.write_all(b"\n").unwrap();
    let mut line = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let found = canaries.found_in_process(holder.id());
    assert!(found.iter().any(|name| name.starts_with("K_session")), "{found:?}");
    end(holder);
}
