//! `obol atp serve` in its sandbox: closed on every thread, and still all that a provider has to do: serve by TLS, read secrets and
//! certificate again, write what must not be lost, find its Redis again.

use core::time::Duration;
use std::fs;
use std::path::Path;

use obol_atp::Host;
use obol_atp_client::{Client, KeychainChoice, Options};
use obol_world::certificates;
use obol_world::home::{free_port, wait_until, write_private};
use obol_world::redis::RedisServer;
use rustix::process::Signal;

use crate::atp::agent::{SECRET, read};
use crate::atp::provider::{Serve, home_with, secrets};
use crate::sidecar::hardening::{filters, hardening};

const NEWER: &str = "the secret after a rotation, long enough";

/// Puts a file in another's place, as editors and renewals of certificates do.
fn replace(path: &Path, text: &str) {
    let next = path.with_extension("next");
    write_private(&next, text);
    fs::rename(next, path).unwrap();
}

fn client(home: &Path, agent: &str, host: &Host, secret: &str) -> Client {
    let file = home.join(format!("{agent}.secret"));
    write_private(&file, secret);
    let options = Options::new(home.join(agent)).secret_file(file).ca_file(home.join("etc/cert.pem"));
    Client::open(options.allow_private([host.clone()]).keychain(KeychainChoice::File)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_is_closed_on_every_thread_and_reads_secrets_and_certificate_again() {
    let home = home_with(&[SECRET]);
    let etc = home.path().join("etc");
    certificates::self_signed(&etc, "cert.pem", "key.pem");
    let (port, probe) = (free_port(), format!("127.0.0.1:{}", free_port()));
    let arguments = [
        "--tls-cert",
        "etc/cert.pem",
        "--tls-key",
        "etc/key.pem",
        "--http",
        &probe,
        "--audit-log",
        "log/audit.jsonl",
    ];
    let first_start = [&arguments[..], &["--first-start"]].concat();
    let serve = Serve::start(home.path(), port, &first_start, &[]);
    let threads = filters(serve.pid());
    assert!(threads.len() >= 5, "the runtime's and those of store, marks and audit log: {threads:?}");
    assert!(threads.iter().all(|filters| filters == "4"), "{threads:?}");
    let line = hardening(&serve.log());
    let ports = format!("TCP, listening on {port} {}", probe.rsplit_once(':').unwrap().1);
    assert!(line.contains(&ports), "{line}");

    let host: Host = format!("localhost:{port}").parse().unwrap();
    let before = client(home.path(), "before", &host, SECRET);
    let token = before.request_token(&host, &read()).await.unwrap();
    let older = fs::read_to_string(etc.join("cert.pem")).unwrap();
    let renewed = home.path().join("renewed");
    fs::create_dir(&renewed).unwrap();
    certificates::self_signed(&renewed, "cert.pem", "key.pem");
    for file in ["cert.pem", "key.pem"] {
        replace(&etc.join(file), &fs::read_to_string(renewed.join(file)).unwrap());
    }
    replace(&etc.join("secrets.json"), &secrets(&[NEWER]));
    serve.signal(Signal::HUP);
    serve.wait_for_log("secrets read again");
    let after = client(home.path(), "after", &host, NEWER);
    let newer = after.request_token(&host, &read()).await.unwrap();
    assert!(!serve.log().contains("ERROR"), "{}", serve.log());
    let by_older = client(home.path(), "older", &host, SECRET).request_token(&host, &read()).await;
    assert!(by_older.is_err(), "control: the secret of before is not in the file any more");
    fs::write(etc.join("cert.pem"), older).unwrap();
    let unknown = client(home.path(), "unknown", &host, NEWER).request_token(&host, &read()).await;
    assert!(unknown.is_err(), "control: who trusts the certificate of before does not reach it");

    serve.signal(Signal::KILL);
    drop(serve);
    fs::copy(renewed.join("cert.pem"), etc.join("cert.pem")).unwrap();
    let serve = Serve::start(home.path(), port, &arguments, &[]);
    for token in [&token, &newer] {
        let verdict = after.verify_token(&token.access_token, &host).await.unwrap();
        assert!(verdict.valid, "what it wrote inside is there");
    }
    assert!(fs::metadata(home.path().join("log/audit.jsonl")).unwrap().len() > 0);
    assert!(!serve.log().contains("ERROR"), "{}", serve.log());
}

#[test]
fn the_sandbox_of_a_provider_can_be_switched_off_and_that_is_said_aloud() {
    let home = home_with(&[SECRET]);
    let switched_off = [("OBOL_ATP_SERVE__SANDBOX", "false")];
    let serve = Serve::start(home.path(), free_port(), &["--first-start"], &switched_off);
    assert!(filters(serve.pid()).iter().all(|filters| filters == "0"));
    assert!(
        serve.log().contains("WARN") && serve.log().contains("the sandbox is switched off"),
        "{}",
        serve.log()
    );
}

#[test]
fn inside_its_sandbox_a_provider_finds_its_redis_again_by_path_and_by_name() {
    for by_name in [false, true] {
        let mut redis = RedisServer::start(&[]);
        let url = if by_name { format!("redis://localhost:{}", redis.port()) } else { redis.url() };
        let home = home_with(&[SECRET]);
        let arguments = ["--store", &url, "--spent", &url, "--key", "atp.key", "--first-start"];
        let serve = Serve::start(home.path(), free_port(), &arguments, &[]);
        assert!(filters(serve.pid()).iter().all(|filters| filters == "4"));
        assert_eq!(hardening(&serve.log()).contains("connecting to"), by_name, "{}", serve.log());
        wait_until("it issues", || serve.issue() == Some(200));
        redis.kill();
        std::thread::sleep(Duration::from_millis(1_000));
        assert_eq!(serve.issue(), Some(503), "control: Redis is away");
        redis.start_again();
        wait_until("it is connected again", || serve.issue() == Some(200));
    }
}
