//! Reverse proxies of others, nginx and Caddy: each in a folder of its own, and ended with its value.

use core::net::SocketAddr;
use std::fs::{self, File};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::home::wait_until;

/// A running one.
pub struct ReverseProxy {
    child: Child,
    is_nginx: bool,
    log: PathBuf,
}

impl ReverseProxy {
    /// nginx, with this in front of its blocks and this within `http`.
    pub fn nginx(folder: &Path, main: &str, http: &str) -> Self {
        fs::create_dir_all(folder).unwrap();
        let at = folder.display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {at}/{kind};\n"))
            .concat();
        let text = format!(
            "daemon off;\npid {at}/pid;\nerror_log {at}/log;\n{main}\nhttp {{\naccess_log off;\n{temporary}{http}}}\n"
        );
        fs::write(folder.join("nginx.conf"), text).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-p").arg(folder).arg("-c").arg(folder.join("nginx.conf"));
        command.arg("-e").arg(folder.join("log"));
        Self::start(command, true, folder)
    }

    /// Caddy, with these global options and these sites.
    pub fn caddy(folder: &Path, options: &str, sites: &str) -> Self {
        fs::create_dir_all(folder).unwrap();
        let file = folder.join("Caddyfile");
        fs::write(&file, format!("{{\n admin off\n auto_https off\n{options}}}\n{sites}")).unwrap();
        let mut command = Command::new("caddy");
        command.args(["run", "--adapter", "caddyfile", "--config"]).arg(&file);
        Self::start(command, false, folder)
    }

    fn start(mut command: Command, is_nginx: bool, folder: &Path) -> Self {
        let log = folder.join("log");
        command.env_clear().env("HOME", folder).env("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/bin");
        command.stdin(Stdio::null()).stderr(File::options().create(true).append(true).open(&log).unwrap());
        let child = command.spawn().expect("nginx and caddy are installed by scripts/install");
        Self { child, is_nginx, log }
    }

    /// Waits until it listens there.
    pub fn wait(&mut self, at: SocketAddr) {
        wait_until("the proxy listens", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("{status}: {}", self.log());
            }
            TcpStream::connect(at).is_ok()
        });
    }

    /// The process; nginx has workers below it.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it said of itself.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for ReverseProxy {
    fn drop(&mut self) {
        // nginx's workers end with their master only if that is asked to; Caddy would wait for who is connected.
        let signal = if self.is_nginx { "-TERM" } else { "-KILL" };
        let _asked = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        let _ended = self.child.wait();
    }
}
