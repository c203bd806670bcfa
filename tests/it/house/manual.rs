//! Pages that are made from the code: the manual, and the catalogue of errors.

use std::path::{Path, PathBuf};
use std::process::Command;

use obol_world::authority::AsProcess;
use obol_world::home::{self, command};
use obol_world::http::Http;
use serde_json::Value;

use super::same_as_the_document;

fn pages(home: &Path) -> Vec<PathBuf> {
    let folder = home.join("man1");
    let made = command(home).arg("man").arg(&folder).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Runs a formatter over a page; what it said, or `None` where this machine does not have it.
fn format(program: &str, arguments: &[&str], page: &Path) -> Option<(bool, String, String)> {
    let run = Command::new(program).args(arguments).arg(page).env("MANWIDTH", "100").output().ok()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some((run.status.success(), text(&run.stdout), text(&run.stderr)))
}

#[test]
fn every_page_of_the_manual_can_be_read_by_man() {
    let home = home::home();
    let pages = pages(home.path());
    assert!(pages.len() > 30, "{pages:?}");
    let mut tried = Vec::new();
    for (program, arguments) in [
        ("groff", &["-man", "-Tutf8", "-ww"][..]),
        ("mandoc", &["-T", "utf8", "-W", "error"]),
        ("man", &["-P", "cat", "-l"]),
    ] {
        let Some(_) = format(program, &["--version"], Path::new("/dev/null")) else {
            eprintln!("NOTE: {program} is not on this machine; pages were not tried with it");
            continue;
        };
        tried.push(program);
        for page in &pages {
            let (well, text, complaints) = format(program, arguments, page).unwrap();
            assert!(well && complaints.is_empty(), "{program} {}: {complaints}", page.display());
            let name = page.file_stem().unwrap().to_str().unwrap();
            // Formatters may put a hyphen of another kind, or colour, between the letters.
            let plain: String = text.chars().filter(char::is_ascii_alphabetic).collect();
            let letters: String = name.chars().filter(char::is_ascii_alphabetic).collect();
            assert!(plain.contains(&letters), "{program} {}: {text}", page.display());
        }
    }
    assert!(!tried.is_empty() || cfg!(not(target_os = "linux")), "none of man, groff and mandoc is here");
}

#[test]
fn the_first_page_is_printed_where_no_folder_is_named() {
    let home = home::home();
    let said = command(home.path()).arg("man").output().unwrap();
    assert!(said.status.success());
    assert!(String::from_utf8_lossy(&said.stdout).contains(".SH NAME\nobol"), "{said:?}");
    let refused = command(home.path()).args(["man", "/dev/null/man1"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
}

#[test]
fn the_catalogue_of_errors_is_what_the_code_says() {
    let home = home::home();
    let said = command(home.path()).arg("errors").output().unwrap();
    same_as_the_document("errors.md", &String::from_utf8(said.stdout).unwrap());
}

#[test]
fn the_type_of_a_services_refusal_leads_to_its_place_in_the_catalogue() {
    let home = home::home();
    let service = AsProcess::start(home.path());
    let page = include_str!("../../../docs/errors.md");
    let handshake = "POST /v1/handshake HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\n{}";
    for (request, status, code) in [
        ("GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n", 404, "NOT_FOUND"),
        ("PUT /v1/handshake HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", 405, "METHOD"),
        (handshake, 415, "CONTENT_TYPE"),
    ] {
        let (answered, body) = Http::new(service.port()).exchange(request).unwrap();
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((answered, problem["code"].as_str()), (status, Some(code)), "{problem}");
        let (file, anchor) = problem["type"].as_str().unwrap().split_once('#').unwrap();
        assert!(file.ends_with("/docs/errors.md"), "{problem}");
        assert!(page.contains(&format!("<a id=\"{anchor}\"></a>`{code}`")), "{anchor}");
    }
}
