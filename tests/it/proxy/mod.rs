//! The agent's side of a gateway without code: programs that know nothing of Obol, and a local address as their base URL.

mod programs;
mod strangers;
mod tries;

use core::net::SocketAddr;
use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use obol_world::home::{command, free_port, wait_until, write_private};
use serde_json::json;

use crate::end_to_end::AUDIENCE;
use crate::gateway::World;
use crate::resource::{Answer, send};

/// A gateway with its API and a sidecar, and a proxy in front of both.
struct Here {
    world: World,
    port: u16,
    arguments: Vec<String>,
    child: Option<Child>,
}

impl Here {
    fn start(arguments: &[&str]) -> Self {
        let world = World::start();
        let via = format!("http://127.0.0.1:{}/saas", world.port);
        Self::before(world, &via, arguments)
    }

    /// In front of whatever answers there.
    fn before(world: World, via: &str, arguments: &[&str]) -> Self {
        let route = |path: &str, tool: &str| {
            json!({
                "audience": AUDIENCE, "tools": [tool], "url": "https://saas.example", "path": path, "via": via,
            })
        };
        let routes = json!([
            route("/v1/search/**", "search"),
            route("/v1/files/*", "search"),
            route("/v1/socket", "search"),
            route("/v1/pay", "pay"),
        ]);
        write_private(&world.home().join("routes.json"), &routes.to_string());
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let mut here = Self { world, port: free_port(), arguments, child: None };
        here.run();
        here
    }

    fn run(&mut self) {
        self.run_with(&[]);
    }

    /// The same with this in its environment.
    fn run_with(&mut self, environment: &[(&str, PathBuf)]) {
        let home = self.world.home();
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log_file()).unwrap();
        let mut proxy = command(home);
        proxy.args([
            "--log",
            "trace",
            "proxy",
            "--routes",
            "routes.json",
            "--to",
            "saas=https://saas.example",
        ]);
        proxy.args(["--listen", &self.at().to_string()]).args(&self.arguments);
        proxy.envs(environment.iter().cloned());
        self.child = Some(proxy.stderr(Stdio::from(log)).spawn().unwrap());
        wait_until("the proxy listens", || {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "{}", self.log());
            TcpStream::connect(self.at()).is_ok()
        });
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ended = child.kill();
            let _ended = child.wait();
        }
    }

    fn at(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    fn ask(&self, line: &str, more: &str, body: &str) -> Answer {
        send(self.at(), request(line, more, body))
    }

    fn log_file(&self) -> PathBuf {
        self.world.home().join("proxy.log")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        self.kill();
    }
}

fn request(line: &str, more: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}Content-Length: {length}\r\n\r\n{body}"
    )
}
