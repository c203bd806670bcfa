//! TLS on both sides: a gateway is the API of another one, and that one's credential is a token for it.

use std::fs;

use super::World;
use crate::authority::private_ca::{certificate, certificate_authority};

#[test]
fn a_gateway_serves_tls_and_trusts_an_api_by_the_authorities_that_its_file_names() {
    let inner = World::with(&["--tls-cert", "as.crt", "--tls-key", "as.key"], |home, api| {
        certificate_authority(home, "ours");
        certificate(home, "ours");
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
    obol_world::home::write_private(&inner.home().join("credential"), &credential);
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
