//! TLS on both sides: a gateway is the API of another one, and that one's credential is a token for it.

use std::fs;
use std::net::TcpStream;
use std::process::Stdio;

use obol_world::certificates::{self, Holds};
use obol_world::home::{wait_until, write_private};

use super::World;

#[test]
fn a_gateway_serves_tls_and_trusts_an_api_by_the_authorities_that_its_file_names() {
    let inner = World::with(&["--tls-cert", "as.crt", "--tls-key", "as.key"], |home, api| {
        certificates::authority(home, "ours");
        certificates::issued(home, "ours", "as", "localhost", Holds::Now);
        super::file(api)
    });
    let trusted = inner.home().join("ours.crt").display().to_string();
    let credential = inner.token("search");
    let file = format!(
        "upstream = \"https://localhost:{}\"\n[credential]\nput = \"header\"\nname = \"authorization\"\nprefix = \"TBAC \"\n\
         file = \"{}\"\n[[route]]\nmethod = \"GET\"\npath = \"/saas/v1/search/{{*what}}\"\ntool = \"search\"\n",
        inner.port,
        inner.home().join("credential").display()
    );
    write_private(&inner.home().join("credential"), &credential);
    let mut outer = World::with(&[], |_, _| file.clone());

    let stranger = outer.ask("GET /saas/saas/v1/search/a", &outer.token("search"), "", "");
    assert_eq!((stranger.status, inner.count()), (503, 0), "nobody trusts that authority: {}", outer.log());
    outer.kill();
    outer.write("saas", &format!("ca_file = \"{trusted}\"\n{file}"));
    outer.run(&[]);
    let answer = outer.ask("GET /saas/saas/v1/search/a", &outer.token("search"), "", "");
    assert_eq!((answer.status, inner.count()), (200, 1), "{} {} {}", answer.text(), outer.log(), inner.log());
    let again = outer.ask("GET /saas/saas/v1/search/a", &outer.token("search"), "", "");
    assert_eq!(again.problem().1, "CREDENTIAL_REFUSED", "the one behind it took that token once");
    assert_eq!(inner.count(), 1);
    assert!(!fs::read_to_string(outer.log_file()).unwrap().contains(&credential));
}

#[test]
fn a_gateway_that_trusts_nobody_does_not_start_for_an_api_over_tls() {
    let route = "[[route]]\nmethod = \"GET\"\npath = \"/v1/search/{*what}\"\ntool = \"search\"\n";
    let file = |upstream: &str, more: &str| {
        format!("upstream = \"{upstream}\"\n{more}\n[credential]\nput = \"bearer\"\n{route}")
    };
    let mut api = 0;
    let mut world = World::with(&[], |home, port| {
        certificates::authority(home, "ours");
        api = port;
        super::file(port)
    });
    world.kill();
    write_private(&world.home().join("none.crt"), "");
    let none = world.home().join("none.crt");
    let oauth = format!(
        "upstream = \"http://127.0.0.1:{api}\"\n[credential]\nput = \"oauth-client\"\n\
         token_url = \"https://login.example/token\"\nclient_id = \"me\"\n{route}"
    );
    for file in [file("https://api.example", ""), oauth] {
        world.write("saas", &file);
        let refused = world.command().env("SSL_CERT_FILE", &none).output().unwrap();
        let told = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{told}");
        assert!(told.contains("saas: this system trusts no certificate authority"), "{told}");
        assert!(told.contains("install the package ca-certificates") && told.contains("ca_file"), "{told}");
    }
    // For control: one without TLS, one whose file names an authority, and a system that trusts somebody.
    let ours = world.home().join("ours.crt");
    let named = format!("ca_file = \"{}\"", ours.display());
    for (file, authorities) in [
        (super::file(api), &none),
        (file("https://api.example", &named), &none),
        (file("https://api.example", ""), &ours),
    ] {
        world.write("saas", &file);
        let log = fs::OpenOptions::new().append(true).open(world.log_file()).unwrap();
        let mut command = world.command();
        world.child =
            Some(command.env("SSL_CERT_FILE", authorities).stderr(Stdio::from(log)).spawn().unwrap());
        wait_until("the gateway listens", || {
            let ended = world.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "{file}: {}", world.log());
            TcpStream::connect(world.at()).is_ok()
        });
        world.kill();
    }
}
