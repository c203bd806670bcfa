//! A machine that trusts no certificate authority, as small images do: what would be reached over TLS is said at the start, with what
//! to do. The gateway and the proxy are tried with the rest of them.

use std::path::Path;
use std::process::Output;

use obol_world::certificates;
use obol_world::home::{command, home, write_private};

/// A place where nobody answers.
const NOWHERE: &str = "127.0.0.1:9";

/// What a command says where these are the system's authorities.
fn told(home: &Path, authorities: &str, arguments: &[&str]) -> Output {
    command(home)
        .args(arguments)
        .env("SSL_CERT_FILE", home.join(authorities))
        .env_remove("SSL_CERT_DIR")
        .output()
        .unwrap()
}

fn says(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

const WHAT_TO_DO: &str = "install the package ca-certificates";

#[test]
fn a_system_without_certificate_authorities_is_said_at_the_start_of_whatever_would_use_them() {
    let home = home();
    let home = home.path();
    certificates::authority(home, "ours");
    write_private(&home.join("none.crt"), "");
    write_private(&home.join("secret"), &"a".repeat(64));
    let key = "ab".repeat(32);
    let (over_tls, plain) = (format!("https://{NOWHERE}#{key}"), format!("http://{NOWHERE}#{key}"));
    let url = format!("https://{NOWHERE}/mcp");
    let join = |service| ["rs", "join", "--authority", service, "--rs-identity-key", "rs.key", "abcd-efgh"];
    let wrap = ["mcp", "wrap", "--audience", "https://tools.example", "--url", &url];
    let request =
        ["atp", "request", "--state", "atp", "--secret-file", "secret", "--scope", "read", "localhost:9"];
    for arguments in [&join(&over_tls)[..], &wrap, &request] {
        let refused = told(home, "none.crt", arguments);
        assert!(
            !refused.status.success() && says(&refused).contains(WHAT_TO_DO),
            "{arguments:?}: {refused:?}"
        );
        let control = told(home, "ours.crt", arguments);
        assert!(!says(&control).contains(WHAT_TO_DO), "{arguments:?}: {control:?}");
    }
    let without_tls = told(home, "none.crt", &join(&plain));
    assert!(!says(&without_tls).contains(WHAT_TO_DO), "nobody is asked for there: {without_tls:?}");
}

#[test]
fn an_authentication_service_that_reaches_somebody_over_tls_wants_to_trust_somebody() {
    let home = home();
    let home = home.path();
    let authority = certificates::authority(home, "ours");
    write_private(&home.join("none.crt"), "");
    let issuer = |scheme: &str| format!("{scheme}://{NOWHERE}/issuer");
    let attestors = |scheme: &str| {
        let agents = serde_json::json!([{
            "claims": {"sub": "builder"}, "class": "ci", "names": ["builder"], "roles": ["ci"], "owner": "local:root"
        }]);
        let all = serde_json::json!({"attestors": [{
            "issuer": issuer(scheme), "kind": "workload", "audience": "https://as.example",
            "jwks_uri": format!("{}/jwks", issuer(scheme)), "agents": agents
        }]});
        write_private(&home.join(format!("{scheme}.json")), &all.to_string());
        format!("attestors = \"{}\"", home.join(format!("{scheme}.json")).display())
    };
    let mail = |server: &str| {
        format!(
            "mail_server = \"{server}\"\nmail_from = \"as@example.com\"\nmail_alarms = [\"ops@example.com\"]"
        )
    };
    let provider = |scheme: &str| {
        format!(
            "provider = \"{}\"\nprovider_client_id = \"obol\"\noperator_roles = [\"ops\"]",
            issuer(scheme)
        )
    };
    let ca_file = format!("\nca_file = \"{}\"", authority.display());
    let mut said = Vec::new();
    for (over_tls, plain) in [
        (attestors("https"), attestors("http")),
        (mail("smtps://mail.example"), mail("smtp+plain://localhost:25")),
        (provider("https"), provider("http")),
    ] {
        let problems = |settings: &str, authorities: &str| {
            let config = home.join("obol.toml");
            write_private(&config, &format!("[as]\nlisten = \"127.0.0.1:8721\"\n{settings}\n"));
            let config = config.to_str().unwrap();
            says(&told(home, authorities, &["--config", config, "config", "check"]))
        };
        let refused = problems(&over_tls, "none.crt");
        if !refused.contains(WHAT_TO_DO) {
            said.push(format!("{over_tls}: {refused}"));
        }
        for (settings, authorities) in
            [(&over_tls, "ours.crt"), (&plain, "none.crt"), (&format!("{over_tls}{ca_file}"), "none.crt")]
        {
            let accepted = problems(settings, authorities);
            if !accepted.contains("no problems found") {
                said.push(format!("{settings}, {authorities}: {accepted}"));
            }
        }
    }
    assert_eq!(said, Vec::<String>::new());
}
