//! The sidecar of the demo: `obol tqs` as a process of its own, which can be killed.

use core::time::Duration;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use obol_client::{Client, ConnectOptions, ControlClient};
use obol_ipc::Endpoint;
use obol_ipc::names::{PeerName, ToolName};

use crate::exit::{Failure, Outcome};

const START_PATIENCE: Duration = Duration::from_secs(10);
/// How long a draw may wait for a token.
const DRAW_PATIENCE: Duration = Duration::from_secs(5);

/// A running sidecar; killed when dropped.
pub(crate) struct Sidecar {
    child: Child,
    agent: Endpoint,
    control: Endpoint,
}

impl Sidecar {
    /// Starts in a folder that belongs to us alone, on the files that may be there from before.
    pub(crate) fn start(folder: &Path) -> Outcome<Self> {
        let log = OpenOptions::new().create(true).append(true).open(folder.join("tqs.log"))?;
        let agent = folder.join("agent.sock");
        let path = |name: &str| -> PathBuf { folder.join(name) };
        let child = Command::new(std::env::current_exe()?)
            .args(["--log", "info", "tqs", "--socket"])
            .arg(&agent)
            .arg("--control-socket")
            .arg(path("control.sock"))
            .arg("--store")
            .arg(path("tokens.redb"))
            .arg("--master-key")
            .arg(path("master.key"))
            .arg("--session")
            .arg(path("agent.json"))
            // Settings of this machine are not part of the story.
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let mut sidecar = Self {
            child,
            agent: Endpoint::at(agent).map_err(Failure::other)?,
            control: Endpoint::at(path("control.sock")).map_err(Failure::other)?,
        };
        sidecar.wait_until_it_answers(folder)?;
        Ok(sidecar)
    }

    fn wait_until_it_answers(&mut self, folder: &Path) -> Outcome {
        let deadline = Instant::now() + START_PATIENCE;
        while self.client().is_err() {
            let ended = self.child.try_wait()?.is_some();
            if ended || Instant::now() > deadline {
                let log = std::fs::read_to_string(folder.join("tqs.log")).unwrap_or_default();
                return Err(Failure::unavailable(format_args!("the sidecar does not answer:\n{log}")));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    pub(crate) fn client(&self) -> Outcome<Client> {
        Ok(Client::connect(self.agent.clone(), options()?)?)
    }

    pub(crate) fn control(&self) -> Outcome<ControlClient> {
        Ok(ControlClient::connect(self.control.clone(), options()?)?)
    }

    /// Ends the process as hard as a process can end.
    pub(crate) fn kill(mut self) -> Outcome {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        // Ours by its handle; that it has ended already is fine.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn options() -> Outcome<ConnectOptions> {
    Ok(ConnectOptions::new(PeerName::new("obol-demo/1").map_err(Failure::other)?))
}

/// Draws one token; gives back its text.
pub(crate) fn draw(client: &mut Client, tool: &str) -> Outcome<String> {
    let tool = ToolName::new(tool).map_err(Failure::other)?;
    let drawn = client.dequeue_token(&tool, DRAW_PATIENCE)?;
    Ok(drawn.token.expose().to_owned())
}
