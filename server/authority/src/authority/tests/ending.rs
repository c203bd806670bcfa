//! Ending: what is disabled gets nothing more, and what it had is worth nothing.

use core::sync::atomic::{AtomicBool, Ordering};

use super::*;

#[test]
fn a_disabled_agent_is_refused_until_it_is_enabled() {
    let authority = authority();
    let (mut client, agent) = Client::approved(&authority, "builder", &["dev"]);
    let opened = session(&client.open(&authority, Suite::AesGcm, json!({}), at(START)));
    let by = Human::local("anna");
    let report = authority.end(&EndScope::Agent("builder".into()), "test", &by, at(START)).unwrap();
    assert_eq!(report.ended.sessions, [opened.session_id]);
    assert_eq!(report.latest_end, Some(START + 900));
    let holder = |audience: &str| Holder { audience: audience.into(), sessions: 1, until: START + 900 };
    assert_eq!(report.holders, [holder("https://a"), holder("https://b")]);
    assert!(authority.directory().half(opened.session_id, "https://a").unwrap().is_none());
    assert_eq!(client.refused(&authority, at(START)), "SUSPENDED");
    authority.enable_agent("builder", &by, at(START)).unwrap();
    session(&client.open(&authority, Suite::AesGcm, json!({}), at(START)));
    assert_eq!(authority.directory().sessions(&agent.id).unwrap().len(), 1);
}

#[test]
fn a_disabled_human_operates_nothing_whatever_policy_says() {
    let authority = authority();
    let anna = Human { issuer: "https://idp.example".into(), subject: "anna".into() };
    let allowed = || authority.may_operate(&anna, "agent.disable").unwrap().allowed;
    assert!(allowed(), "policy lets everybody");
    let left = EndScope::Owner(anna.clone(), OwnerEnd::Suspend);
    authority.end(&left, "left", &Human::local("test"), at(START)).unwrap();
    assert!(!allowed());
}

#[test]
fn a_denied_tool_is_left_out_of_what_is_granted() {
    let authority = authority();
    let (mut client, _) = Client::approved(&authority, "builder", &["dev"]);
    let by = Human::local("anna");
    let end = |tool: &str| authority.end(&EndScope::Tool(tool.into()), "test", &by, at(START)).unwrap();
    session(&client.open(&authority, Suite::AesGcm, json!({}), at(START)));
    assert_eq!(end("pay").ended.sessions.len(), 1);
    let opened = session(&client.open(&authority, Suite::AesGcm, json!({}), at(START)));
    assert_eq!(opened.grants.iter().map(|grant| grant.tool.as_str()).collect::<Vec<_>>(), ["search"]);
    assert_eq!(opened.audiences, ["https://a"]);
    end("search");
    assert_eq!(client.refused(&authority, at(START)), "NO_GRANTS");
    authority.enable_tool("pay", &by, at(START)).unwrap();
    let opened = session(&client.open(&authority, Suite::AesGcm, json!({}), at(START)));
    assert_eq!(opened.audiences, ["https://b"]);
}

#[test]
fn a_session_opened_after_an_activation_has_the_new_epoch() {
    let authority = authority();
    let (mut client, _) = Client::approved(&authority, "builder", &["dev"]);
    let by = Human::local("anna");
    for epoch in 1..4 {
        assert_eq!(activate(&authority, &format!("digest-{epoch}"), &by).epoch, epoch);
        let opened = session(&client.open(&authority, Suite::AesGcm, json!({}), at(START)));
        assert_eq!(opened.policy_epoch, epoch);
    }
}

#[test]
fn nothing_is_decided_by_one_policy_and_opened_under_the_epoch_of_another() {
    let authority = authority();
    let (client, _) = Client::approved(&authority, "builder", &["dev"]);
    let by = Human::local("anna");
    let stop = AtomicBool::new(false);
    // Even epochs grant nothing, so a session with an even epoch was decided by another policy than it says.
    let grants = ByRole(BTreeMap::from([("dev", vec![grant("search", "https://a")])]));
    let deciders: [Arc<dyn Decider>; 2] = [Arc::new(ByRole::default()), Arc::new(grants)];
    let activate = |number: usize| {
        let text = PolicyText { digest: number.to_string(), text: String::new() };
        authority
            .activate_policy(text, Arc::clone(&deciders[number % 2]), Unharmed::new(), &by, at(START))
            .unwrap();
    };
    // What was in force before has an even epoch and grants something.
    activate(1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in (2_usize..).take_while(|_| !stop.load(Ordering::Relaxed)) {
                activate(number);
                std::thread::sleep(core::time::Duration::from_micros(200));
            }
        });
        // Also where this thread panics: the other would go on for ever.
        let _stop = StopAtEnd(&stop);
        let mut opened = 0;
        while opened < 20 {
            let sent = client.ask(&authority, Suite::AesGcm, json!({}), at(START));
            match authority.prove(Purpose::Session, &sent.proof, "192.0.2.1", at(START)) {
                Ok(answer) => {
                    let told = read(sent, &answer);
                    if told.get("error").is_none() {
                        assert_eq!(session(&told).policy_epoch % 2, 1, "{told}");
                        opened += 1;
                    }
                }
                // It changed too often while this was decided.
                Err(rejected) => assert!(matches!(rejected, Rejected::Unavailable(_)), "{rejected:?}"),
            }
        }
    });
}

/// Says so when it is dropped.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn an_agent_that_leaves_is_gone_for_good() {
    let authority = authority();
    let (mut client, agent) = Client::approved(&authority, "builder", &["dev"]);
    session(&client.open(&authority, Suite::AesGcm, json!({}), at(START)));
    let sent = client.send(&authority, (Purpose::Deregister, Suite::AesGcm), at(START), |_, _| json!({}));
    let sent = sent.unwrap();
    let answer = authority.prove(Purpose::Deregister, &sent.proof, "192.0.2.1", at(START)).unwrap();
    assert_eq!(read(sent, &answer), json!({ "sessions_ended": 1 }));
    assert_eq!(client.refused(&authority, at(START)), "REVOKED");
    let again = client.register(&authority, "builder", json!({}), at(START));
    assert_eq!(code(&again), "REVOKED");
    let seen = authority.directory().agent(agent.id.as_str()).unwrap().unwrap();
    assert_eq!(seen.status, AgentStatus::Revoked);
}

#[test]
fn a_resource_server_joins_with_its_code_once() {
    let authority = authority();
    let by = Human::local("anna");
    let invited = authority.add_resource_server("https://a", &[Suite::AesGcm], &by, at(START)).unwrap();
    let join = |code: &str| {
        let client = Client::new();
        let request = json!({ "code": code });
        let sent = client.send(&authority, (Purpose::Join, Suite::HybridAesGcm), at(START), |_, _| request);
        let sent = sent.unwrap();
        let answer = authority.prove(Purpose::Join, &sent.proof, "192.0.2.1", at(START)).unwrap();
        (read(sent, &answer), client.identity.public())
    };
    assert_eq!(code(&join("short").0), "JOIN_CODE");
    let (told, key) = join(&invited.ticket.to_text());
    assert_eq!(told["audience"], "https://a");
    assert_eq!(authority.directory().replica(key).unwrap().unwrap().id.as_str(), told["rs_id"]);
    assert_eq!(code(&join(&invited.ticket.to_text()).0), "JOIN_CODE");
    assert!(authority.add_resource_server("", &[Suite::AesGcm], &by, at(START)).is_err());
    assert!(authority.add_resource_server("https://c", &[], &by, at(START)).is_err());
}
