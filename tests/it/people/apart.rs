//! Providers that are named in a file, as an operator writes it, and the service as a process.

use obol_world::home::write_private;
use serde_json::{Value, json};

#[test]
fn a_file_of_providers_that_cannot_be_is_refused_with_what_to_do() {
    let home = obol_world::home::home();
    let refused = |file: &Value, more: &[&str]| {
        write_private(&home.path().join("providers.json"), &file.to_string());
        let arguments = [&["--no-sandbox", "--providers", "providers.json"][..], more].concat();
        let service = obol_world::authority::AsProcess::unstarted(home.path(), &arguments).with_people();
        let (code, told) = service.fails();
        assert_eq!(code, Some(2), "{told}");
        told
    };
    let one = |name: &str, issuer: &str| json!({ "name": name, "issuer": issuer, "client_id": "obol" });
    let (corp, acme) = (one("corp", "https://idp.example"), one("acme", "https://acme.example"));
    let several = |all: &[&Value]| json!({ "providers": all });
    assert!(refused(&several(&[&corp, &corp]), &[]).contains("named twice"));
    assert!(refused(&several(&[&corp, &one("corp", "https://b.example")]), &[]).contains("given twice"));
    assert!(refused(&several(&[&corp, &one("Acme", "https://b.example")]), &[]).contains("small letters"));
    let mut foreign = acme.clone();
    foreign["organisation"] = json!("acme");
    assert!(refused(&several(&[&corp, &foreign]), &[]).contains("which of its values stand for which role"));
    let mut secret = acme;
    secret["client_secret_file"] = json!("nowhere.secret");
    assert!(refused(&several(&[&corp, &secret]), &[]).contains("nowhere.secret"));
}
