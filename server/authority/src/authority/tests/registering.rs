//! From a stranger's key to an agent, by a human's yes or an invitation.

use super::*;

fn poll(authority: &Authority, told: &Value, now: Now) -> Option<Polled> {
    let id = RegistrationId::parse(told["registration_id"].as_str().unwrap()).unwrap();
    let token = Bearer::parse(told["poll_token"].as_str().unwrap()).unwrap();
    authority.poll(id, &token, now).unwrap()
}

#[test]
fn a_human_sees_what_the_agent_says_and_the_words_of_its_key() {
    let authority = authority();
    let client = Client::new();
    let told = client.register(&authority, "builder", json!({}), at(START));
    assert_eq!((told["interval"].as_u64(), told["expires_in"].as_u64()), (Some(5), Some(600)));
    assert_eq!(poll(&authority, &told, at(START)), Some(Polled::Pending));
    let review = authority.review(&code_of(&told), at(START)).unwrap();
    assert_eq!(review.words, client.identity.public().words());
    assert_eq!((review.registration.wanted.name.as_str(), review.before.is_none()), ("builder", true));
    assert_eq!(review.registration.source, "192.0.2.1");

    let roles = ["dev".to_owned()];
    let agent = authority.approve(&review, &roles, Some(60), Human::local("anna"), at(START)).unwrap();
    assert_eq!((agent.expires_at, agent.roles.as_slice()), (START + 60, &roles[..]));
    let heard = poll(&authority, &told, at(START));
    assert_eq!(heard, Some(Polled::Approved { agent: agent.id, expires_at: START + 60 }));
    assert_eq!(authority.review(&code_of(&told), at(START)).unwrap_err(), Refused::NoSuchCode);
}

#[test]
fn what_policy_does_not_let_a_human_approve_stays_pending() {
    let authority = authority();
    let told = Client::new().register(&authority, "builder", json!({}), at(START));
    let review = authority.review(&code_of(&told), at(START)).unwrap();
    let approve = |role: &str, secs| {
        authority.approve(&review, &[role.to_owned()], secs, Human::local("anna"), at(START))
    };
    assert_eq!(approve("root", None).unwrap_err(), Refused::ApprovalDenied);
    assert!(matches!(approve("dev", Some(0)), Err(Refused::Malformed(_))));
    assert!(matches!(approve("dev", Some(u64::MAX)), Err(Refused::Malformed(_))));
    assert_eq!(poll(&authority, &told, at(START)), Some(Polled::Pending));
    let by = Human::local("anna");
    authority.deny(review.registration.id.clone(), true, &by, at(START)).unwrap();
    assert_eq!(poll(&authority, &told, at(START)), Some(Polled::Denied));
    let again = Client::new().register(&authority, "other", json!({}), at(START));
    assert_eq!(code(&again), "TOO_MANY_PENDING", "its source is blocked");
}

#[test]
fn guessed_codes_find_nothing() {
    let authority = authority();
    Client::new().register(&authority, "builder", json!({}), at(START));
    for _ in 0..10_000 {
        let guess = UserCode::generate(&mut SystemRandom);
        assert_eq!(authority.review(&guess, at(START)).unwrap_err(), Refused::NoSuchCode);
    }
}

#[test]
fn a_registration_needs_the_proof_of_its_sek_and_sound_words() {
    let authority = authority();
    let bad_proof = json!({ "sek_proof": "22".repeat(64) });
    assert_eq!(code(&Client::new().register(&authority, "x", bad_proof, at(START))), "SEK_PROOF");
    let bad_name = json!({ "wanted": { "name": "two words", "class": "coding" } });
    assert_eq!(code(&Client::new().register(&authority, "x", bad_name, at(START))), "MALFORMED");
    let bad_ticket = json!({ "ticket": "short" });
    assert_eq!(code(&Client::new().register(&authority, "x", bad_ticket, at(START))), "INVITATION");
}

#[test]
fn an_invited_agent_is_active_at_once_with_the_roles_of_its_invitation() {
    let authority = authority();
    let by = || Human::local("anna");
    let invite = |roles: &[&str], most| {
        let roles: Vec<_> = roles.iter().map(ToString::to_string).collect();
        authority.invite("coding", &roles, most, 3_600, by(), at(START))
    };
    assert_eq!(invite(&["root"], 1).unwrap_err(), Refused::ApprovalDenied);
    assert!(matches!(invite(&["dev"], 0), Err(Refused::Malformed(_))));
    let ticket = invite(&["reader"], 1).unwrap().ticket.to_text();
    let presents = || json!({ "ticket": ticket.as_str() });
    let mut client = Client::new();
    let told = client.register(&authority, "ci-1", presents(), at(START));
    let agent = authority.directory().agent("ci-1").unwrap().unwrap();
    assert_eq!(told["agent_id"], agent.id.as_str());
    assert_eq!((agent.roles.as_slice(), agent.owner), (&["reader".to_owned()][..], by()));
    let opened = session(&client.open(&authority, Suite::HybridAesGcm, json!({}), at(START)));
    assert_eq!(opened.audiences, ["https://a"]);
    let second = Client::new().register(&authority, "ci-2", presents(), at(START));
    assert_eq!(code(&second), "INVITATION");
}

#[test]
fn an_approval_that_has_ended_is_renewed_with_what_changed() {
    let authority = authority();
    let (mut client, agent) = Client::approved(&authority, "builder", &["dev"]);
    let later = at(agent.expires_at + 5);
    assert_eq!(client.refused(&authority, later), "APPROVAL_EXPIRED");
    let told = client.register(&authority, "builder-2", json!({}), later);
    let review = authority.review(&code_of(&told), later).unwrap();
    assert_eq!(review.before.as_ref().map(|before| before.wanted.name.as_str()), Some("builder"));
    let renewed =
        authority.approve(&review, &["reader".to_owned()], None, Human::local("anna"), later).unwrap();
    assert_eq!((renewed.id.as_str(), renewed.wanted.name.as_str()), (agent.id.as_str(), "builder-2"));
    let opened = session(&client.open(&authority, Suite::AesGcm, json!({}), later));
    assert_eq!((opened.agent_instance_id.as_str(), opened.audiences.len()), (agent.id.as_str(), 1));
}

#[test]
fn a_key_is_replaced_without_a_human_and_the_old_one_ends() {
    let authority = authority();
    let (mut client, agent) = Client::approved(&authority, "builder", &["dev"]);
    client.open(&authority, Suite::AesGcm, json!({}), at(START));
    let next = IdentityKey::generate(&mut SystemRandom);
    let rotate = |client: &Client, request: Value| {
        let sent = client.send(&authority, (Purpose::RotateKey, Suite::AesGcm), at(START), |_, _| request);
        let sent = sent.unwrap();
        let first = to_hex(&sent.established.hash.0);
        let answer = authority.prove(Purpose::RotateKey, &sent.proof, "192.0.2.1", at(START)).unwrap();
        (read(sent, &answer), first)
    };
    let both = json!({ "next": "11".repeat(32), "first": "11".repeat(32) });
    assert_eq!(code(&rotate(&client, both).0), "MALFORMED");
    let (told, first) = rotate(&client, json!({ "next": to_hex(&next.public().0) }));
    assert_eq!(told["agent_id"], agent.id.as_str());

    let mut renewed = Client {
        identity: next,
        sek: SekKey::from_bytes(client.sek.expose()).unwrap(),
        chain: client.chain.clone(),
    };
    assert_eq!(renewed.refused(&authority, at(START)), "NOT_REGISTERED", "it is not proven yet");
    let (told, _) = rotate(&renewed, json!({ "first": first }));
    assert_eq!(told["agent_id"], agent.id.as_str());
    let opened = session(&renewed.open(&authority, Suite::AesGcm, json!({}), at(START)));
    assert_eq!(opened.sub, renewed.identity.public().subject());
    assert_eq!(opened.agent_instance_id, agent.id.as_str());
    let over = at(START + crate::directory::KEY_OVERLAP_SECS);
    assert_eq!(client.refused(&authority, over), "REVOKED");
    assert!(AgentId::parse(&opened.agent_instance_id).is_some());
    let wanted: &Wanted = &authority.directory().agent("builder").unwrap().unwrap().wanted;
    assert_eq!(wanted.class, "coding");
}
