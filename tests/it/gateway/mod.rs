//! The gateway as a process: what an agent's request becomes at the API, and what never does.

mod calls;
mod smuggling;

use core::net::SocketAddr;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;

use obol_world::home::{command, free_port, home, wait_until, write_private};
use obol_world::tqs::Tqs;
use parking_lot::Mutex;
use tempfile::TempDir;

use crate::end_to_end::{create_session, draw};
use crate::resource::{Answer, send};

/// What no agent may see.
const SECRET: &str = "sk-live-0123456789abcdef";

/// The requests that an API got, as they came.
type Seen = Arc<Mutex<Vec<String>>>;

/// An API that shows what it was sent, as the worst do. `/slow` never answers; `/401` refuses the credential.
fn api() -> (u16, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, seen) = (listener.local_addr().unwrap().port(), Seen::default());
    let kept = Arc::clone(&seen);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, seen) = (stream.unwrap(), Arc::clone(&kept));
            std::thread::spawn(move || serve(stream, &seen));
        }
    });
    (port, seen)
}

fn serve(mut stream: TcpStream, seen: &Seen) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let (mut head, mut line) = (String::new(), String::new());
        while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
            head.push_str(&line.to_ascii_lowercase());
            line.clear();
        }
        if head.is_empty() {
            return;
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body).unwrap();
        let whole = format!("{head}\n{}", String::from_utf8(body).unwrap());
        seen.lock().push(whole.clone());
        if head.contains("/slow") {
            let _until_the_gateway_ends = reader.read_line(&mut line);
            return;
        }
        let status = if head.contains("/401") { "401 Unauthorized" } else { "200 OK" };
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nSet-Cookie: a=b\r\nX-Echo: {SECRET}\r\n\r\n{whole}",
            whole.len()
        );
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// A sidecar with a session for `search`, an API, and a gateway between them.
struct World {
    home: TempDir,
    tqs: Tqs,
    seen: Seen,
    port: u16,
    child: Option<Child>,
}

impl World {
    fn start() -> Self {
        let home = home();
        create_session(home.path());
        let tqs = Tqs::start(home.path(), &["--session", "agent-session.json"]);
        let (api, seen) = api();
        fs::create_dir(home.path().join("apis")).unwrap();
        write_private(
            &home.path().join("apis/saas.toml"),
            &format!(
                "upstream = \"http://127.0.0.1:{api}\"\n[credential]\nput = \"bearer\"\n\
                 [[route]]\nmethod = [\"GET\", \"POST\"]\npath = \"/v1/search/{{*what}}\"\ntool = \"search\"\n\
                 query = [\"q\"]\n[[route]]\nmethod = \"POST\"\npath = \"/v1/pay\"\ntool = \"pay\"\n"
            ),
        );
        write_private(&home.path().join("secret"), SECRET);
        let added = command(home.path())
            .args(["gateway", "add", "saas", "--apis", "apis", "--credential-file", "secret"])
            .output()
            .unwrap();
        assert!(added.status.success(), "{added:?}");
        fs::remove_file(home.path().join("secret")).unwrap();
        let mut world = Self { home, tqs, seen, port: free_port(), child: None };
        world.run(&["--first-start"]);
        world
    }

    fn run(&mut self, arguments: &[&str]) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log_file()).unwrap();
        let child = command(self.home.path())
            .args([
                "--log",
                "trace",
                "gateway",
                "--apis",
                "apis",
                "--sessions",
                "rs-sessions.json",
                "--listen",
            ])
            .arg(format!("127.0.0.1:{}", self.port))
            .args(arguments)
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap();
        self.child = Some(child);
        wait_until("the gateway listens", || {
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

    fn token(&self, tool: &str) -> String {
        draw(&self.tqs, tool)
    }

    fn ask(&self, line: &str, token: &str, more: &str, body: &str) -> Answer {
        let length = body.len();
        send(
            self.at(),
            format!(
                "{line} HTTP/1.1\r\nHost: localhost\r\nAuthorization: TBAC {token}\r\nConnection: close\r\n{more}\
                 Content-Length: {length}\r\n\r\n{body}"
            ),
        )
    }

    fn log_file(&self) -> PathBuf {
        self.home.path().join("gateway.log")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn count(&self) -> usize {
        self.seen.lock().len()
    }

    fn home(&self) -> &Path {
        self.home.path()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.kill();
    }
}
