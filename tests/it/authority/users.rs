//! The operator's socket is the service's own user's and root's, whatever its modes say.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use obol_world::authority::{CATALOGUE, POLICIES, write_policy};
use obol_world::home::{self, free_port, obol, wait_until};

use crate::cli::{stderr, stdout};

const SERVICE: u32 = 54_011;
const STRANGER: u32 = 54_012;

/// A service of another user's; killed when dropped.
struct Service {
    home: tempfile::TempDir,
    child: Child,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Service {
    fn start() -> Self {
        let home = home::home();
        let at = |path: &str| home.path().join(path);
        fs::copy(obol(), at("obol")).unwrap();
        fs::create_dir(at("own")).unwrap();
        write_policy(&at("policy"), CATALOGUE, POLICIES);
        for path in ["own", "run"] {
            chown(at(path), Some(SERVICE), Some(SERVICE)).unwrap();
        }
        for (path, mode) in [("", 0o755), ("obol", 0o755), ("own", 0o700), ("run", 0o755), ("policy", 0o755)]
        {
            fs::set_permissions(at(path), Permissions::from_mode(mode)).unwrap();
        }
        let log = fs::File::create(at("as.log")).unwrap();
        let child = Command::new(at("obol"))
            .args(["--log", "info", "as", "--policy", "../policy", "--listen"])
            .arg(format!("127.0.0.1:{}", free_port()))
            .env_clear()
            .env("HOME", at("own"))
            .env("XDG_RUNTIME_DIR", at("run"))
            .current_dir(at("own"))
            .uid(SERVICE)
            .gid(SERVICE)
            .stdin(Stdio::null())
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap();
        let service = Self { home, child };
        wait_until("the service", || {
            fs::read_to_string(service.path("as.log")).unwrap().contains("listening")
        });
        service
    }

    fn path(&self, path: &str) -> PathBuf {
        self.home.path().join(path)
    }

    fn socket(&self) -> PathBuf {
        self.path("run/obol/as-control.sock")
    }

    /// A command as this user, who expects the service to be that one's.
    fn operate(&self, uid: u32, expected: u32, arguments: &[&str]) -> Output {
        Command::new(self.path("obol"))
            .args(arguments)
            .env_clear()
            .env("OBOL_AS_CONTROL_SOCKET", format!("unix://{}", self.socket().display()))
            .env("OBOL_ENDPOINT_USER", expected.to_string())
            .current_dir("/")
            .uid(uid)
            .gid(uid)
            .output()
            .unwrap()
    }
}

fn open_every_door(socket: &Path) {
    for (path, mode) in [(socket.parent().unwrap(), 0o777), (socket, 0o666)] {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
}

#[test]
fn only_the_services_own_user_and_root_operate_it_even_with_every_door_open() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can run processes of other users; run this test as root");
        return;
    }
    let service = Service::start();
    let status = |uid| service.operate(uid, SERVICE, &["as", "status"]);
    for uid in [SERVICE, 0] {
        let told = status(uid);
        assert!(told.status.success() && stdout(&told).contains("ready"), "{uid}: {told:?}");
    }
    let turned_away = status(STRANGER);
    assert_eq!(turned_away.status.code(), Some(3), "{turned_away:?}");
    assert!(stderr(&turned_away).contains("sudo env OBOL_AS_CONTROL_SOCKET="), "{turned_away:?}");
    open_every_door(&service.socket());
    let invite = ["agent", "invite", "--class", "coding"];
    let refused = service.operate(STRANGER, SERVICE, &invite);
    assert!(!refused.status.success() && stdout(&refused).is_empty(), "{refused:?}");
    let made = service.operate(SERVICE, SERVICE, &invite);
    assert_eq!(stdout(&made).trim().len(), 43, "the control: {made:?}");
    // Who operates is who the system says it is: root's invitations are root's.
    let log = fs::read_to_string(service.path("as.log")).unwrap();
    assert!(log.contains(&format!("local:#{SERVICE}")), "{log}");
}
