//! A call that waits for a yes, in the console: who sees it, what it shows, who decides, and what no form decides.

use core::time::Duration;

use obol_authority::directory::CallStanding;
use obol_authority::id::ApprovalId;
use obol_client::{AuthClient, ConnectOptions};
use obol_ipc::Endpoint;
use obol_ipc::approvals::{ApprovalResult, ApprovalState, RequestApprovalParams, WantedCall};
use obol_ipc::names::{Label, PeerName, ToolName};
use obol_world::home::wait_until;

use super::browser::Browser;
use super::console::approved;
use super::{World, crowd};

const PURPOSE: &str = "<img src=x onerror=alert(1)> pay \u{202e}the bill";

pub(super) fn auth(world: &World) -> AuthClient {
    let endpoint = Endpoint::at(world.home.path().join("run/obol/auth.sock")).unwrap();
    AuthClient::connect(endpoint, ConnectOptions::new(PeerName::new("obol-tests/1").unwrap())).unwrap()
}

/// The agent, once it has a session, asks to pay from an account, and says hostile things beside it.
pub(super) fn ask(world: &World) -> ApprovalResult {
    let call = WantedCall {
        tool: ToolName::new("pay").unwrap(),
        audience: None,
        actions: vec!["pay".to_owned()],
        resource: Some("accounts/7".to_owned()),
        constraints: None,
        arguments: Some(r#"{"note":"</pre><script>alert(2)</script>","to":"acme"}"#.to_owned()),
        count: Some(2),
    };
    let asked = RequestApprovalParams {
        calls: vec![call],
        purpose: Some(PURPOSE.to_owned()),
        lifetime_seconds: Some(120),
    };
    // The sidecar has the session a moment later than the service, and takes what is approved for it alone.
    wait_until("the agent has its session", || auth(world).auth_status().unwrap().session.is_some());
    auth(world).request_approval(asked).unwrap()
}

pub(super) fn standing(world: &World, asked: &ApprovalResult) -> CallStanding {
    let id = ApprovalId::parse(&asked.approval_id).unwrap();
    world.authority.directory().call_approval(&id).unwrap().unwrap().standing(obol_world::now())
}

/// The requests that a page of the list links to.
fn linked(body: &str) -> Vec<&str> {
    let parts = body.split("href=\"/console/approvals/apr_").skip(1);
    parts.map(|part| part.split('"').next().unwrap()).collect()
}

#[test]
fn calls_that_wait_come_in_pages() {
    let world = World::new();
    let _running = world.agent();
    let mut browser = approved(&world);
    let asked = ask(&world);
    crowd::calls(&world, &asked.approval_id, 149);
    let first = browser.open(&world.url("/console/approvals"));
    let (_, more) = first.body.split_once("href=\"/console/approvals?after=").expect("there are more");
    let after = more.split('"').next().unwrap();
    let second = browser.open(&world.url(&format!("/console/approvals?after={after}")));
    let mut seen = linked(&first.body);
    assert_eq!(seen.len(), 100);
    seen.extend(linked(&second.body));
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 150, "each once");
    assert!(second.body.contains("From the beginning") && !second.body.contains("More calls"));
    // A place that is none is the beginning.
    let nowhere = browser.open(&world.url("/console/approvals?after=nowhere"));
    assert_eq!((nowhere.status, linked(&nowhere.body).len()), (200, 100));
}

#[test]
fn a_call_is_shown_whole_and_approved_in_the_console() {
    let world = World::new();
    let _running = world.agent();
    let mut browser = approved(&world);
    let empty = browser.open(&world.url("/console/approvals"));
    assert!(empty.body.contains("No call is waiting for you"), "{empty:?}");
    let asked = ask(&world);
    let path = format!("/console/approvals/{}", asked.approval_id);
    let list = browser.open(&world.url("/console/approvals"));
    assert!(list.body.contains(&path) && list.body.contains("builder"), "{list:?}");
    let page = browser.open(&world.url(&path));
    assert_eq!(page.status, 200, "{page:?}");
    let shown = [
        "pay",
        "https://a",
        "accounts/7",
        "up to 2 times",
        "at most 9 rows",
        "The agent says",
        "acme",
        "2 min",
    ];
    for part in shown {
        assert!(page.body.contains(part), "{part}: {page:?}");
    }
    for raw in ["<script", "<img", "</pre><", "\u{202e}"] {
        assert!(!page.body.contains(raw), "{raw}: {page:?}");
    }
    assert_eq!(page.header("x-frame-options"), Some("DENY"));
    assert!(page.header("content-security-policy").unwrap().contains("frame-ancestors 'none'"));
    let token = page.hidden("token");
    let done = browser.submit(&page.url, &[("token", &token), ("word", "approve")]);
    let after = browser.follow(done);
    assert!(after.body.contains("Approved by") && !after.body.contains("value=\"approve\""), "{after:?}");
    let id = Label::new(asked.approval_id.as_str()).unwrap();
    let heard = auth(&world).approval_status(id, Duration::from_secs(10)).unwrap();
    assert_eq!(heard.state, ApprovalState::Approved);
    let again = browser.submit(&page.url, &[("token", &token), ("word", "deny")]);
    assert_eq!(again.status, 404, "a word is said once: {again:?}");
}

#[test]
fn no_forged_form_and_nobody_without_a_right_decides_about_a_call() {
    let world = World::new();
    let _running = world.agent();
    let mut browser = approved(&world);
    let asked = ask(&world);
    let path = format!("/console/approvals/{}", asked.approval_id);
    let waits = || standing(&world, &asked) == CallStanding::Waiting;
    let page = browser.open(&world.url(&path));
    let token = page.hidden("token");
    let yes = [("token", token.as_str()), ("word", "approve")];
    for headers in [
        &[][..],
        &[("Sec-Fetch-Site", "cross-site")],
        &[("Origin", "null")],
        &[("Sec-Fetch-Site", "same-site")],
    ] {
        assert_eq!(browser.submit_from(headers, &page.url, &yes).status, 403, "{headers:?}");
    }
    assert_eq!(browser.submit(&page.url, &[("word", "approve")]).status, 403, "without the page's token");
    assert_eq!(browser.open(&format!("{}?word=approve&token={token}", page.url)).status, 200);
    assert!(waits(), "an address decides nothing");
    let stranger = Browser::default().send("GET", &world.url(&path), &[], "");
    assert!(stranger.leads_to().unwrap().contains("/login?to=/console/approvals/"), "{stranger:?}");

    // Carl has no role: he learns nothing. Bert looks at the console, and decides nothing.
    let mut carl = world.logged_in("carl");
    assert_eq!(carl.open(&world.url(&path)).status, 404);
    assert!(carl.open(&world.url("/console/approvals")).body.contains("No call is waiting for you"));
    let mut bert = world.logged_in("bert");
    let seen = bert.open(&world.url(&path));
    assert!(seen.status == 200 && !seen.body.contains("name=\"word\""), "{seen:?}");
    for (who, expected) in [(&mut carl, 404), (&mut bert, 403)] {
        let token = who.open(&world.url("/activate")).hidden("token");
        for word in ["approve", "deny"] {
            let said = who.submit(&world.url(&path), &[("token", &token), ("word", word)]);
            assert_eq!(said.status, expected, "{word}: {said:?}");
        }
    }
    assert!(waits());
    // Control: the same form, from the page that was shown.
    assert_eq!(browser.submit(&page.url, &[("token", &token), ("word", "deny")]).status, 303);
    assert_eq!(standing(&world, &asked), CallStanding::Denied);
}
