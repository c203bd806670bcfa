//! Sessions: both sides reach the same keys, one message opens one session, and what is refused says so inside the handshake.

use super::*;

#[test]
fn both_sides_reach_the_same_keys_in_every_suite() {
    let authority = authority();
    let (mut client, agent) = Client::approved(&authority, "builder", &["dev"]);
    let mut last = SessionId::from_u64(0);
    for suite in Suite::ALL {
        let pop = PopKey::from_bytes([suite.number(); 32]);
        let extra = json!({ "pop_pub": to_hex(&pop.public()) });
        let sent = client.ask(&authority, suite, extra, at(START));
        let secret = obol_token::SessionSecret::from_bytes(*sent.established.secret.expose());
        client.chain = vec![to_hex(sent.established.chain.expose())];
        let answer = authority.prove(Purpose::Session, &sent.proof, "192.0.2.1", at(START)).unwrap();
        let told = session(&read(sent, &answer));
        assert_eq!((told.suite, told.agent_instance_id.as_str()), (suite.number(), agent.id.as_str()));
        assert_eq!((told.iss.as_str(), told.org_id.as_str()), (ORIGIN, "example"));
        assert_eq!(told.sub, client.identity.public().subject());
        assert_eq!((told.established_at, told.expires_at), (START, START + 900));
        assert_eq!(
            (told.policy_epoch, told.audiences.as_slice()),
            (0, &["https://a".into(), "https://b".into()][..])
        );
        assert!(told.session_id > last, "numbers rise");
        last = told.session_id;

        let of_agent = derive(&client, &told, &secret, pop);
        for keys in &of_agent.resource_servers {
            let half = authority.directory().half(told.session_id, &keys.aud).unwrap().unwrap();
            assert!(keys.session_key.matches(half.keys.session_key.expose()));
            assert!(keys.verifier_secret.matches(half.keys.verifier_secret.expose()));
            assert!(keys.mutual_auth.matches(half.keys.mutual_auth.expose()));
            assert_eq!(half.keys.sek_public, client.sek.public().0);
            assert_eq!(half.pop_pub, Some(of_agent.pop_key.as_ref().unwrap().public()));
            assert_eq!((half.suite, half.window.end), (suite, START + 900));
        }
    }
    assert_eq!(authority.directory().sessions(&agent.id).unwrap().len(), 4);
}

/// The agent's half, from what the answer says and what the handshake left.
fn derive(client: &Client, told: &Session, secret: &obol_token::SessionSecret, pop: PopKey) -> AgentHalf {
    let establish = Establish {
        session_id: told.session_id,
        suite: Suite::from_number(told.suite).unwrap(),
        agent: AgentIdentity {
            agent_instance_id: told.agent_instance_id.clone(),
            iss: told.iss.clone(),
            sub: told.sub.clone(),
        },
        org_id: told.org_id.clone(),
        lifetime_secs: told.expires_at - told.established_at,
        policy_epoch: told.policy_epoch,
        sek_public: client.sek.public().0,
        pop_key: Some(pop),
    };
    let names: Vec<_> = told.audiences.iter().map(String::as_str).collect();
    establish.from_secret(secret, &names, told.grants.clone(), told.established_at).unwrap().0
}

#[test]
fn a_repeated_third_message_gets_the_same_bytes_and_no_second_session() {
    let authority = authority();
    let (client, agent) = Client::approved(&authority, "builder", &["dev"]);
    let sent = client.ask(&authority, Suite::HybridAesGcm, json!({}), at(START));
    let prove = |now| authority.prove(Purpose::Session, &sent.proof, "192.0.2.1", now);
    let first = prove(at(START)).unwrap();
    for later in [0, 1, VALIDITY_SECS] {
        assert_eq!(prove(at(START + later)).unwrap(), first);
    }
    assert_eq!(prove(at(START + VALIDITY_SECS + 1)).unwrap_err(), Rejected::CookieExpired);
    assert_eq!(authority.directory().sessions(&agent.id).unwrap().len(), 1);
}

#[test]
fn a_hundred_at_once_of_one_third_message_open_one_session() {
    let authority = authority();
    let (client, agent) = Client::approved(&authority, "builder", &["dev"]);
    let sent = client.ask(&authority, Suite::AesGcm, json!({}), at(START));
    let answers: Vec<_> = std::thread::scope(|scope| {
        let prove = || authority.prove(Purpose::Session, &sent.proof, "192.0.2.1", at(START)).unwrap();
        let askers: Vec<_> = (0..100).map(|_| scope.spawn(prove)).collect();
        askers.into_iter().map(|asker| asker.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    assert_eq!(authority.directory().sessions(&agent.id).unwrap().len(), 1);
}

#[test]
fn one_cookie_serves_one_third_message() {
    let authority = authority();
    let (client, agent) = Client::approved(&authority, "builder", &["dev"]);
    let header = Header {
        purpose: Purpose::Session,
        suite: Suite::AesGcm,
        offer: SuiteOffer::of(&Suite::ALL),
        authority_key: authority.key().id(),
    };
    let prologue = Prologue::new(header, ORIGIN).unwrap();
    // The same random numbers make the same first message, so one answer serves two runs of it.
    struct Fixed;
    impl Random for Fixed {
        fn fill(&mut self, bytes: &mut [u8]) {
            bytes.fill(7);
        }
    }
    let mut proofs = Vec::new();
    let mut reply = None;
    for extra in [json!({}), json!({"client": "another"})] {
        let (waiting, hello) = Initiator::start(&prologue, &authority.key(), &mut Fixed).unwrap();
        let reply = reply.get_or_insert_with(|| authority.accept(&hello, at(START)).unwrap());
        let (ready, _) = waiting.read(reply).unwrap();
        let payload = client.session_request(&ready.hash(), at(START), extra).to_string();
        proofs.push(ready.prove(&client.identity, payload.as_bytes()).unwrap().1);
    }
    assert!(authority.prove(Purpose::Session, &proofs[0], "192.0.2.1", at(START)).is_ok());
    let second = authority.prove(Purpose::Session, &proofs[1], "192.0.2.1", at(START));
    assert_eq!(second.unwrap_err(), Rejected::Used, "its keys have sealed an answer already");
    assert_eq!(authority.directory().sessions(&agent.id).unwrap().len(), 1);
}

#[test]
fn what_does_not_belong_to_the_handshake_changes_nothing() {
    let authority = authority();
    let (client, agent) = Client::approved(&authority, "builder", &["dev"]);
    let sent = client.ask(&authority, Suite::HybridAesGcm, json!({}), at(START));
    for purpose in Purpose::ALL.into_iter().filter(|purpose| *purpose != Purpose::Session) {
        let other = authority.prove(purpose, &sent.proof, "192.0.2.1", at(START));
        assert!(matches!(other, Err(Rejected::Malformed(_))), "{purpose:?}");
    }
    for place in (0..sent.proof.len()).step_by(7) {
        let mut changed = sent.proof.clone();
        changed[place] ^= 1 << (place % 8);
        let answer = authority.prove(Purpose::Session, &changed, "192.0.2.1", at(START));
        assert!(matches!(answer, Err(Rejected::Malformed(_) | Rejected::CookieExpired)), "byte {place}");
    }
    let other = authority_with(Settings::new(ORIGIN, "example").unwrap());
    let relayed = other.prove(Purpose::Session, &sent.proof, "192.0.2.1", at(START));
    assert!(matches!(relayed, Err(Rejected::Malformed(_))), "another service");
    assert!(authority.directory().sessions(&agent.id).unwrap().is_empty());
    assert!(
        authority.prove(Purpose::Session, &sent.proof, "192.0.2.1", at(START)).is_ok(),
        "unchanged it goes on"
    );
}

#[test]
fn a_first_message_for_another_key_or_suite_is_refused_before_any_key_is_used() {
    let only_two = Settings::new(ORIGIN, "example").unwrap().suites(&[Suite::AesGcm]).unwrap();
    let authority = authority_with(only_two);
    let client = Client::new();
    let hybrid =
        client.send(&authority, (Purpose::Session, Suite::HybridAesGcm), at(START), |_, _| json!({}));
    assert_eq!(hybrid.err(), Some(Rejected::Suite(vec![2])));
    let stranger = AuthoritySecret::generate(&mut SystemRandom);
    let header = Header {
        purpose: Purpose::Session,
        suite: Suite::AesGcm,
        offer: SuiteOffer::of(&Suite::ALL),
        authority_key: stranger.key().id(),
    };
    let prologue = Prologue::new(header, ORIGIN).unwrap();
    let (_, hello) = Initiator::start(&prologue, &stranger.key(), &mut SystemRandom).unwrap();
    assert_eq!(authority.accept(&hello, at(START)).unwrap_err(), Rejected::UnknownKey);
    for bad in [&b""[..], &[2; 12], &[0; 60], &[0xFF; 20_000]] {
        assert!(
            matches!(authority.accept(bad, at(START)), Err(Rejected::Malformed(_))),
            "{} bytes",
            bad.len()
        );
    }
}

#[test]
fn each_reason_to_refuse_has_its_code_inside_the_handshake() {
    let authority = authority();
    let mut stranger = Client::new();
    assert_eq!(stranger.refused(&authority, at(START)), "NOT_REGISTERED");
    stranger.register(&authority, "waits", json!({}), at(START));
    assert_eq!(stranger.refused(&authority, at(START)), "PENDING_APPROVAL");

    let (mut nothing, _) = Client::approved(&authority, "nothing", &["idle"]);
    assert_eq!(nothing.refused(&authority, at(START)), "NO_GRANTS");
    let (mut unsure, _) = Client::approved(&authority, "unsure", &["undecided"]);
    assert_eq!(unsure.refused(&authority, at(START)), "UNAVAILABLE", "what does not evaluate grants nothing");

    let (mut client, agent) = Client::approved(&authority, "builder", &["dev"]);
    let skewed = |client: &mut Client, by: u64| {
        let told = client.open(&authority, Suite::AesGcm, json!({ "now": START + by }), at(START));
        told["error"]["code"].as_str().map(str::to_owned)
    };
    assert_eq!(skewed(&mut client, 31).as_deref(), Some("CLOCK_SKEW"));
    assert_eq!(skewed(&mut client, 30), None);
    for bad in [
        json!({ "unknown": 1 }),
        json!({ "sek_pk": "zz" }),
        json!({ "now": "soon" }),
        json!({ "pop_pub": "01".to_owned() + &"00".repeat(31) }),
        json!({ "chain": vec!["00".repeat(32); 5] }),
    ] {
        let told = client.open(&authority, Suite::AesGcm, bad.clone(), at(START));
        assert!(["MALFORMED", "UNAVAILABLE"].contains(&code(&told).as_str()), "{bad}: {told}");
    }
    let another =
        Client { sek: SekKey::generate(&mut SystemRandom), identity: again(&client), chain: Vec::new() };
    let mut another = another;
    assert_eq!(another.refused(&authority, at(START)), "SEK_PROOF", "another SEK than was registered");
    let copied = json!({ "sek_proof": "11".repeat(64) });
    assert_eq!(code(&client.open(&authority, Suite::AesGcm, copied, at(START))), "SEK_PROOF");

    assert_eq!(client.refused(&authority, at(agent.expires_at)), "APPROVAL_EXPIRED");
    let end = |scope| authority.end(&scope, "test", &Human::local("anna"), at(START)).unwrap();
    end(EndScope::Agent("builder".into()));
    assert_eq!(client.refused(&authority, at(START)), "SUSPENDED");
    end(EndScope::Revoke("builder".into()));
    assert_eq!(client.refused(&authority, at(START)), "REVOKED");
}

fn again(client: &Client) -> IdentityKey {
    IdentityKey::from_bytes(client.identity.expose())
}

#[test]
fn a_suite_that_is_too_weak_or_unread_is_refused_with_the_one_to_use() {
    let settings = Settings::new(ORIGIN, "example").unwrap().min_suite(Suite::AesGcm);
    let authority = authority_with(settings);
    let (mut client, _) = Client::approved(&authority, "builder", &["dev"]);
    let refused = |told: &Value| {
        assert_eq!(code(told), "SUITE_REQUIRED");
        (told["error"]["suite"].as_u64().unwrap(), told["error"]["because"].clone())
    };
    let weak = client.open(&authority, Suite::Tbac, json!({}), at(START));
    assert_eq!(refused(&weak), (4, json!([])));
    let by = Human::local("anna");
    authority.add_resource_server("https://b", &[Suite::AesGcm, Suite::Tbac], &by, at(START)).unwrap();
    let unread = client.open(&authority, Suite::HybridAesGcm, json!({}), at(START));
    assert_eq!(refused(&unread), (2, json!(["https://b"])));
    let only_a = json!({ "audiences": ["https://a"] });
    let told = session(&client.open(&authority, Suite::HybridAesGcm, only_a, at(START)));
    assert_eq!(told.audiences, ["https://a"], "who does not ask for that server is not held back by it");
    assert_eq!(session(&client.open(&authority, Suite::AesGcm, json!({}), at(START))).suite, 2);
}

#[test]
fn a_copied_key_is_noticed_at_its_first_session_and_can_end_both() {
    let authority = authority();
    let (mut client, agent) = Client::approved(&authority, "builder", &["dev"]);
    client.open(&authority, Suite::AesGcm, json!({}), at(START));
    let copy_of = |client: &Client| Client {
        identity: again(client),
        sek: SekKey::from_bytes(client.sek.expose()).unwrap(),
        chain: client.chain.clone(),
    };
    let mut copy = copy_of(&client);
    session(&copy.open(&authority, Suite::AesGcm, json!({}), at(START)));
    session(&client.open(&authority, Suite::AesGcm, json!({}), at(START)));
    let seen = authority.directory().agent(agent.id.as_str()).unwrap().unwrap();
    assert!(seen.clone_suspected && seen.status == AgentStatus::Active, "by default it is an alarm");

    let strict = Settings::new(ORIGIN, "example").unwrap().clones(ClonePolicy::Suspend);
    let authority = authority_with(strict);
    let (mut client, agent) = Client::approved(&authority, "builder", &["dev"]);
    client.open(&authority, Suite::AesGcm, json!({}), at(START));
    let mut copy = copy_of(&client);
    session(&copy.open(&authority, Suite::AesGcm, json!({}), at(START)));
    assert_eq!(client.refused(&authority, at(START)), "SUSPENDED");
    assert_eq!(copy.refused(&authority, at(START)), "SUSPENDED");
    assert!(authority.directory().sessions(&agent.id).unwrap().is_empty());
}
