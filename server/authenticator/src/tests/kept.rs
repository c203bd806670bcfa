//! Connections are kept: for a moment, never for what must not be sent twice, and a dead one is no obstacle.

use core::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener as Listener, TcpStream};
use tokio::sync::watch;

use super::*;

/// Passes connections on to the service, counts them, and cuts them when told.
struct Wire {
    opened: AtomicUsize,
    open: AtomicUsize,
    cut: watch::Sender<()>,
}

impl Wire {
    async fn start(known: SocketAddr, service: SocketAddr) -> Arc<Self> {
        let listener = Listener::bind(known).await.unwrap();
        let wire = Arc::new(Self {
            opened: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            cut: watch::Sender::new(()),
        });
        let passing = Arc::clone(&wire);
        tokio::spawn(async move {
            while let Ok((mut agent, _)) = listener.accept().await {
                let (wire, mut cut) = (Arc::clone(&passing), passing.cut.subscribe());
                wire.opened.fetch_add(1, Ordering::SeqCst);
                wire.open.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    let mut service = TcpStream::connect(service).await.unwrap();
                    tokio::select! {
                        _ended = copy_bidirectional(&mut agent, &mut service) => {}
                        _told = cut.changed() => {}
                    }
                    wire.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        wire
    }

    fn opened(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }
}

async fn wired() -> (Running, Arc<Wire>) {
    let (known, real) = (free_port(), free_port());
    let service = Running::with(tempfile::tempdir().unwrap(), known, &Suite::ALL, Some(real)).await;
    let wire = Wire::start(known, real).await;
    (service, wire)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_serves_session_after_session_and_is_closed_once_nobody_asks() {
    let (service, wire) = wired().await;
    let mut agent = service.approved("builder", &UplinkOptions::new()).await;
    agent.authenticate(None, now()).await.unwrap();
    let before = wire.opened();
    for _ in 0..20 {
        agent.authenticate(None, now()).await.unwrap();
    }
    assert_eq!(wire.opened(), before, "it was kept");
    let asked = Instant::now();
    while wire.open.load(Ordering::SeqCst) > 0 {
        assert!(asked.elapsed() < Duration::from_secs(9), "it costs the service a connection");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(asked.elapsed() > Duration::from_secs(3), "it is kept for a moment");
    agent.authenticate(None, now()).await.unwrap();
    assert_eq!(wire.opened(), before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_died_meanwhile_costs_no_session_and_no_alarm() {
    let (service, wire) = wired().await;
    let mut agent = service.approved("builder", &UplinkOptions::new()).await;
    for round in 0..10 {
        let before = wire.opened();
        agent.authenticate(None, now()).await.unwrap();
        assert_eq!(wire.opened() - before, usize::from(round > 0), "round {round}");
        wire.cut.send_replace(());
        // In half of the rounds the end is known before the next message is sent, in the others it may not be.
        if round % 2 == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let kept = service.authority.directory().agent("builder").unwrap().unwrap();
    assert_eq!(service.authority.directory().sessions(&kept.id).unwrap().len(), 10);
    assert!(!kept.clone_suspected);
}
