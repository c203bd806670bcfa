//! Attack 7 in a real browser that is logged in: a stranger's site frames pages, and sends their forms by itself.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use serde_json::json;

use super::chromium::Chromium;
use super::{World, crowd};

/// A site, which serves until the process ends: its origin. It answers a path with a page.
fn site(answer: impl Fn(&str) -> String + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let head = head_of(&mut stream);
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let page = answer(&path);
            let length = page.len();
            let _gone = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{page}"
            );
        }
    });
    origin
}

fn head_of(stream: &mut TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
        head.extend(byte);
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// The service without what keeps its pages out of frames: whoever asks here gets its pages, less those headers. Cookies are the same, since
/// browsers keep them by host and not by port.
fn without_its_defence(service: &str) -> String {
    let to = service.strip_prefix("http://").unwrap().to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let head = head_of(&mut stream);
            let kept = head.lines().filter(|line| {
                let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
                !line.is_empty() && name != "host" && name != "connection"
            });
            let asked = kept.collect::<Vec<_>>().join("\r\n");
            let mut inner = TcpStream::connect(&to).unwrap();
            write!(inner, "{asked}\r\nHost: {to}\r\nConnection: close\r\n\r\n").unwrap();
            let mut answer = Vec::new();
            inner.read_to_end(&mut answer).unwrap();
            let answer = String::from_utf8(answer).unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            let stripped = ["content-security-policy", "x-frame-options", "cross-origin-resource-policy"];
            let kept = head.lines().filter(|line| {
                let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
                !stripped.contains(&name.as_str())
            });
            let _gone = write!(stream, "{}\r\n\r\n{body}", kept.collect::<Vec<_>>().join("\r\n"));
        }
    });
    origin
}

#[test]
fn no_page_shows_in_the_frame_of_a_strangers_site() {
    let world = World::new();
    let id = crowd::registration(&world, 1, "builder");
    let bare = without_its_defence(&world.origin);
    let paths =
        ["/console".to_owned(), "/activate".to_owned(), format!("/activate/{id}"), "/operate".to_owned()];
    let frames = move |origin: &str| -> String {
        paths.iter().map(|path| format!("<iframe src=\"{origin}{path}\"></iframe>")).collect()
    };
    let (framed, service, stripped) = (frames.clone(), world.origin.clone(), bare);
    let evil = site(move |path| match path {
        "/framed" => format!("<h1>Win a prize</h1>{}", framed(&service)),
        "/control" => frames(&stripped),
        _ => String::new(),
    });
    let mut chromium = Chromium::start();
    chromium.look(&world.url("/console"), "framed-console", 200);
    let shown = |chromium: &mut Chromium, path: &str| {
        let told = chromium.act(&json!({ "act": "frames", "url": format!("{evil}{path}") }));
        let frames = told["frames"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned());
        frames.collect::<Vec<_>>()
    };
    let texts = shown(&mut chromium, "/framed");
    assert_eq!(texts.len(), 4, "{texts:?}");
    for text in &texts {
        assert!(!text.contains("Logged in as") && !text.contains("Obol"), "{texts:?}");
    }
    // Control: without those headers the same browser shows them there, logged in as it is.
    let texts = shown(&mut chromium, "/control");
    assert!(texts[0].contains("Logged in as") && texts[0].contains("What needs you"), "{texts:?}");
    assert!(texts[1].contains("Logged in as"), "{texts:?}");
}

#[test]
fn a_form_that_a_strangers_site_sends_by_itself_changes_nothing() {
    let world = World::new();
    let _running = world.agent();
    let asked = world.obol(&["register", "--name", "builder", "--role", "dev"]);
    let page = asked["page"].as_str().unwrap().to_owned();
    let mut chromium = Chromium::start();
    chromium.look(&page, "forged-registration", 200);
    let (denies, logs_out) = (page.clone(), world.url("/logout"));
    let evil = site(move |path| {
        let (to, word) = if path == "/deny" { (&denies, "deny") } else { (&logs_out, "x") };
        format!(
            "<body onload=\"document.forms[0].submit()\"><form method=\"post\" action=\"{to}\">\
             <input name=\"word\" value=\"{word}\"><input name=\"token\" value=\"{}\"></form>",
            "A".repeat(43)
        )
    });
    for path in ["/deny", "/out"] {
        let led = json!({ "act": "led", "url": format!("{evil}{path}"), "to": world.origin });
        let told = chromium.act(&led);
        assert!(told["text"].as_str().unwrap().contains("Nothing was done"), "{path}: {told:#}");
    }
    let waiting = || world.authority.directory().waiting(obol_world::now(), None).unwrap().len();
    assert_eq!(waiting(), 1, "it waits, as before");
    // Control: the service's own page, which finds the human still logged in.
    chromium.look(&page, "own-registration", 200);
    assert!(chromium.press("button[value=deny]", "").contains("Denied"));
    assert_eq!(waiting(), 0);
}
