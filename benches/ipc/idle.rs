//! Agents that are connected and do nothing: this very program, as processes of their own.

use core::time::Duration;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use obol_client::{Client, ConnectOptions};
use obol_ipc::Endpoint;
use obol_ipc::names::{PeerName, ToolName};

/// One process with agents in it; it ends when this is dropped.
pub(crate) struct Agents {
    child: Child,
    /// They go when this is closed.
    stay: Option<ChildStdin>,
}

impl Agents {
    /// So many agents with a connection each, once every one of them has drawn a token of this tool.
    pub(crate) fn start(socket: &Path, tool: &str, count: usize) -> Self {
        let own = std::env::current_exe().expect("our own path");
        let mut command = Command::new(own);
        command.arg("--idle-agents").arg(socket).args([tool, &count.to_string()]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the agents start");
        obol_benches::rows::count_as_ours(child.id());
        let mut said = String::new();
        let out = child.stdout.take().expect("a pipe");
        BufReader::new(out).read_line(&mut said).expect("a line");
        assert_eq!(said, "idle\n", "they are connected");
        let stay = child.stdin.take();
        Self { child, stay }
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        drop(self.stay.take());
        let _ended = self.child.wait();
    }
}

/// The agents' side.
pub(crate) fn stay(arguments: &[String]) {
    let [socket, tool, count] = arguments else { return };
    let tool = ToolName::new(tool.as_str()).expect("a name");
    let agents: Vec<Client> = (0..count.parse().expect("a count"))
        .map(|_: usize| {
            let options = ConnectOptions::new(PeerName::new("obol-benches/1").expect("a name"));
            let endpoint = Endpoint::at(socket).expect("a path");
            let mut client = Client::connect(endpoint, options).expect("the daemon answers");
            client.dequeue_token(&tool, Duration::from_secs(30)).expect("a token");
            client
        })
        .collect();
    println!("idle");
    std::io::stdout().flush().expect("somebody reads");
    let _closed = std::io::stdin().read_to_end(&mut Vec::new());
    drop(agents);
}
