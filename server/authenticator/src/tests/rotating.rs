//! The identity key is replaced, and a kill at any point leaves one that works.

use super::*;

/// An agent that is approved and has had a session.
async fn settled(service: &Running) -> Authenticator {
    let mut agent = service.approved("builder", &UplinkOptions::new()).await;
    while !matches!(agent.registration().await, Ok(RegistrationState::Approved { .. })) {
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    agent.authenticate(None, now()).await.unwrap();
    agent
}

/// What is in the agent's file now, as if the process had been killed here.
fn file(service: &Running) -> PathBuf {
    service.folder.path().join("builder.identity")
}

/// The same agent after a kill, from its file.
fn again(service: &Running) -> Authenticator {
    service.agent("builder", &UplinkOptions::new())
}

fn key_at_service(service: &Running) -> obol_handshake::IdentityPublic {
    service.authority.directory().agent("builder").unwrap().unwrap().identity
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_point_of_replacing_the_key_leaves_one_that_works() {
    let service = Running::start().await;
    let mut agent = settled(&service).await;
    let first = agent.identity().public();

    // The new key was made, and nothing said yet.
    agent.identity_mut().next_key().unwrap();
    let mut agent = again(&service);
    assert!(!agent.is_unsettled());
    agent.authenticate(None, now()).await.unwrap();
    assert_eq!(agent.identity().public(), first);

    // It was named, and that is known; it was named, and that is not.
    agent.name_next(now()).await.unwrap();
    let named = std::fs::read(file(&service)).unwrap();
    let mut agent = again(&service);
    assert!(agent.is_unsettled());
    assert!(agent.settle(now()).await.unwrap(), "it is gone on with");
    let second = agent.identity().public();
    assert_eq!(key_at_service(&service), second);
    assert_ne!(first, second);
    agent.authenticate(None, now()).await.unwrap();

    // It was proven, and its answer did not arrive: the file is that of before.
    std::fs::write(file(&service), &named).unwrap();
    let mut agent = again(&service);
    assert_eq!(agent.identity().public(), first);
    assert!(agent.settle(now()).await.unwrap(), "the service says which it is");
    assert_eq!(agent.identity().public(), second);
    agent.rotate(now()).await.unwrap();
    let third = agent.identity().public();
    assert_eq!(key_at_service(&service), third);

    // The one before is still taken for sessions for a while, and for nothing else.
    std::fs::write(file(&service), &named).unwrap();
    let mut old = again(&service);
    old.identity_mut().set_next_named_in(None).unwrap();
    assert_eq!(code(&old.name_next(now()).await.unwrap_err()), "REVOKED");
    assert_eq!(key_at_service(&service), third);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_the_service_forgot_is_named_anew() {
    let service = Running::start().await;
    let mut agent = settled(&service).await;
    let first = agent.identity().public();
    agent.name_next(now()).await.unwrap();
    // Whoever is ended and let in again has no key on its way.
    let by = Human::local("anna");
    service.authority.end(&EndScope::Agent("builder".to_owned()), "test", &by, moment()).unwrap();
    service.authority.enable_agent("builder", &by, moment()).unwrap();
    let mut agent = again(&service);
    assert!(!agent.settle(now()).await.unwrap());
    assert!(!agent.is_unsettled());
    agent.authenticate(None, now()).await.unwrap();
    assert_eq!(agent.identity().public(), first);
    agent.rotate(now()).await.unwrap();
    assert_eq!(key_at_service(&service), agent.identity().public());
    agent.authenticate(None, now()).await.unwrap();
    assert!(!service.authority.directory().agent("builder").unwrap().unwrap().clone_suspected);
}
