//! `obol sidecar`: both are kept up, told what they must hear, and ended together.

use core::time::Duration;
use std::process::{Child, Command, Stdio};

use obol_client::{AuthClient, Client};
use obol_ipc::Endpoint;
use obol_world::home::{command, wait_until};

use super::{World, auth_socket, options};

/// A running supervisor, ended when dropped.
struct Supervisor<'w> {
    child: Child,
    world: &'w World,
}

impl<'w> Supervisor<'w> {
    fn start(world: &'w World) -> Self {
        let log = std::fs::File::create(world.path().join("sidecar.log")).unwrap();
        let mut command = command(world.path());
        command.arg("sidecar").env("OBOL_AUTHENTICATOR__URL", world.pinned()).stderr(log);
        let running = Self { child: command.spawn().unwrap(), world };
        wait_until("both answer", || running.answers());
        running
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.world.path().join("sidecar.log")).unwrap()
    }

    fn answers(&self) -> bool {
        let auth = AuthClient::connect(Endpoint::at(auth_socket(self.world.path())).unwrap(), options());
        let agent = Endpoint::at(self.world.path().join("run/obol/agent.sock")).unwrap();
        auth.is_ok() && Client::connect(agent, options()).is_ok()
    }

    /// The processes of both, by what they say of themselves.
    fn pids(&self) -> [u32; 2] {
        let endpoint = Endpoint::at(self.world.path().join("run/obol/control.sock")).unwrap();
        let tqs = obol_client::ControlClient::connect(endpoint, options()).unwrap().status().unwrap().pid;
        [tqs, self.world.status().pid]
    }

    fn signal(&self, name: &str, pid: u32) {
        assert!(
            Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap().success()
        );
    }
}

impl Drop for Supervisor<'_> {
    fn drop(&mut self) {
        // Ours by its handle; its children end with it.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn is_there(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn both_are_kept_up_and_the_log_says_which_ended() {
    let world = World::new(900);
    let mut supervisor = Supervisor::start(&world);
    world.register();
    let before = supervisor.pids();
    for (place, role) in ["tqs", "authenticator"].into_iter().enumerate() {
        supervisor.signal("KILL", supervisor.pids()[place]);
        wait_until("it is started again", || {
            supervisor.answers() && supervisor.log().contains(&format!("role=\"{role}\" status=signal: 9"))
        });
    }
    let after = supervisor.pids();
    assert!(before.iter().zip(&after).all(|(before, after)| before != after), "{before:?} {after:?}");
    world.wait_for("the session is there", |status| status.session.is_some());

    // Both hear of a reload, and both end in good order with it.
    supervisor.signal("HUP", supervisor.child.id());
    wait_until("both read again", || supervisor.log().matches("read again").count() >= 2);
    supervisor.signal("TERM", supervisor.child.id());
    assert_eq!(supervisor.child.wait().unwrap().code(), Some(0), "{}", supervisor.log());
    assert!(!after.iter().any(|pid| is_there(*pid)), "{}", supervisor.log());
}

#[test]
fn both_end_with_a_supervisor_that_is_killed_and_when_the_operator_drains() {
    let world = World::new(900);
    let mut supervisor = Supervisor::start(&world);
    let pids = supervisor.pids();
    supervisor.child.kill().unwrap();
    supervisor.child.wait().unwrap();
    wait_until("both end", || !pids.iter().any(|pid| is_there(*pid)));

    let mut supervisor = Supervisor::start(&world);
    let endpoint = Endpoint::at(world.path().join("run/obol/control.sock")).unwrap();
    obol_client::ControlClient::connect(endpoint, options()).unwrap().drain().unwrap();
    assert_eq!(supervisor.child.wait().unwrap().code(), Some(0), "{}", supervisor.log());
}

#[test]
fn what_is_set_up_wrong_is_not_started_over_and_over() {
    let world = World::new(900);
    let began = std::time::Instant::now();
    let output = command(world.path()).arg("sidecar").stdout(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("authenticator.url"), "{output:?}");
    assert!(began.elapsed() < Duration::from_secs(30));
}
