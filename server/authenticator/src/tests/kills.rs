//! A service that is killed as hard as a process can be, again and again, while an agent opens sessions at it.

use core::time::Duration;
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use obol_authority::directory::{EndScope, Happening};
use obol_session::SessionId;

use super::*;

/// Tells this very test that it is to be the service, and where.
const SERVE: &str = "OBOL_TEST_SERVE";
const NAME: &str = "tests::kills::no_kill_of_the_service_loses_a_session_or_revives_one";
const ROUNDS: u64 = 20;

/// The service as a process of its own, killed when dropped.
struct Service(Child);

impl Service {
    fn start(folder: &Path, known: SocketAddr) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", NAME, "--nocapture"]);
        command.env(SERVE, format!("{known} {}", folder.display())).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.map_while(Result::ok).any(|line| line.contains("the service is ready"));
        assert!(ready, "the service ended before it was ready");
        Self(child)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // SIGKILL, to a process of ours by its handle.
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// What the child does.
async fn serve(told: &str) {
    let (known, folder) = told.split_once(' ').unwrap();
    let known: SocketAddr = known.parse().unwrap();
    let authority = authority_in(Path::new(folder), known, &Suite::ALL);
    let options = ServiceOptions::new(known).rate(None);
    let service = options.bind(authority).await.unwrap();
    println!("the service is ready");
    let _ended = service.run(core::future::pending()).await;
}

/// Every event there is, numbered without a gap.
fn events(authority: &Authority) -> Vec<Happening> {
    let mut found = Vec::new();
    loop {
        let page = authority.directory().events(found.len() as u64).unwrap().unwrap();
        if page.is_empty() {
            return found;
        }
        for event in page {
            assert_eq!(event.seq, found.len() as u64 + 1, "events have no gaps");
            found.push(event.what);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_kill_of_the_service_loses_a_session_or_revives_one() {
    if let Some(told) = std::env::var_os(SERVE) {
        return serve(told.to_str().unwrap()).await;
    }
    let known = free_port();
    let service = Running::with(tempfile::tempdir().unwrap(), known, &Suite::ALL, None).await;
    drop(service.approved("builder", &UplinkOptions::new()).await);
    let folder = service.stop().await;
    let place = |end: &str| folder.path().join(format!("builder.{end}"));
    let identity = || Identity::open_or_create(&place("identity"), &place("key")).unwrap();
    let pinned = pinned(&authority_in(folder.path(), known, &Suite::ALL));
    let (mut heard_of, mut ended, mut last) = (BTreeSet::new(), BTreeSet::new(), SessionId::from_u64(0));
    for round in 0..ROUNDS {
        let running = Service::start(folder.path(), known);
        let mut agent = Authenticator::new(pinned.clone(), identity(), &UplinkOptions::new()).unwrap();
        let opening = tokio::spawn(async move {
            let mut heard_of = Vec::new();
            while let Ok(session) = agent.authenticate(None, now()).await {
                heard_of.push(session.half.session_id);
            }
            heard_of
        });
        tokio::time::sleep(Duration::from_millis(20 + 37 * round % 400)).await;
        drop(running);
        heard_of.extend(opening.await.unwrap());

        let authority = authority_in(folder.path(), known, &Suite::ALL);
        let directory = authority.directory();
        for id in &heard_of {
            assert!(
                directory.session(*id).unwrap().is_some(),
                "round {round}: {id} was answered and is lost"
            );
        }
        for id in &ended {
            assert!(directory.session(*id).unwrap().unwrap().ended.is_some(), "{id} was ended and is back");
            assert!(directory.half(*id, "https://a").unwrap().is_none());
        }
        assert!(directory.last_session().unwrap() >= last, "numbers never fall");
        last = directory.last_session().unwrap();
        let suspected = |what: &&Happening| matches!(what, Happening::CloneSuspected { .. });
        assert_eq!(events(&authority).iter().filter(suspected).count(), 0, "a kill raises no alarm");
        let agent = directory.agent("builder").unwrap().unwrap();
        if let Some(live) = directory.sessions(&agent.id).unwrap().first() {
            let by = Human::local("anna");
            authority.end(&EndScope::Session(live.id), "test", &by, moment()).unwrap();
            ended.insert(live.id);
        }
    }
    assert!(heard_of.len() > 10, "only {} sessions were opened", heard_of.len());
    assert!(!ended.is_empty());
}
