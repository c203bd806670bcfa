//! The operator has the identity key replaced, or ends the agent for good; and a key that is old is replaced by itself.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use obol_authority::directory::{AgentStatus, KeyStanding};
use obol_ipc::auth::{AuthState, RegistrationState};
use obol_secret::key::Key32;
use obol_world::home::wait_until;
use obol_world::now;
use serde_json::{Value, json};

use super::World;

impl World {
    fn standing(&self, key: obol_handshake::IdentityPublic) -> KeyStanding {
        self.authority().directory().standing(key, now()).unwrap()
    }
}

#[test]
fn a_key_is_replaced_without_a_gap_and_the_old_one_does_nothing_that_lasts() {
    let world = World::new(900);
    let tqs = world.tqs();
    let authenticator = world.authenticator();
    let before = world.register();
    let old = world.agent();
    let token = world.draw(&mut tqs.client()).unwrap();

    let done = world.obol_json(&["auth", "rotate", "--json"]);
    let agent = world.agent();
    assert_eq!(done["agentId"], agent.id.as_str());
    assert_eq!(agent.id, old.id);
    assert_ne!(agent.identity, old.identity);
    assert_eq!(done["words"], agent.identity.words());
    let status =
        world.wait_for("the new words", |status| status.registration.words == agent.identity.words());
    assert_eq!(status.session, before.session, "the session goes on");
    assert!(world.present(&token).is_ok(), "and so do tokens that were drawn");
    assert!(matches!(world.standing(agent.identity), KeyStanding::Agent(_)));
    // For sessions ten minutes more; the contract of the directory says that it is retired then.
    let later = now() + obol_authority::directory::KEY_OVERLAP_SECS;
    let retired = world.authority().directory().standing(old.identity, later).unwrap();
    assert_eq!(retired, KeyStanding::Retired);

    // With the new key sessions are opened and ends are heard, also after a kill.
    assert!(world.obol(&["authenticate"]).status.success());
    authenticator.kill();
    let _authenticator = world.authenticator();
    wait_until("a session by the new key", || world.obol(&["authenticate"]).status.success());
    world.disable();
    world.wait_for("it is heard", |status| status.state == AuthState::Stopped);
    world.enable();
    wait_until("a session", || world.obol(&["authenticate"]).status.success());
    assert!(!world.agent().clone_suspected);
}

/// Changes the identity's file, in the authenticator's stead.
fn rewrite(world: &World, change: impl FnOnce(&mut Value)) {
    let state: PathBuf = world.path().join(".local/state/obol/authenticator");
    let key = Key32::load(state.join("identity.key")).unwrap().derive("obol-identity-file-v1");
    let file = state.join("agent.identity");
    let (context, sealed) = (b"obol-identity-v1", std::fs::read(&file).unwrap());
    let plain = obol_secret::seal::open(&key, context, &sealed).unwrap();
    let mut contents: Value = serde_json::from_slice(&plain).unwrap();
    change(&mut contents);
    let sealed = obol_secret::seal::seal(&key, context, contents.to_string().as_bytes()).unwrap();
    std::fs::write(&file, sealed).unwrap();
}

#[test]
fn a_key_that_is_old_is_replaced_by_itself() {
    let world = World::new(900);
    let _tqs = world.tqs();
    let authenticator = world.authenticator();
    world.register();
    let old = world.agent().identity;
    assert_eq!(authenticator.terminate(), Some(0));
    rewrite(&world, |contents| contents["key_since"] = json!(now() - 90 * 86_400 + 3_600));
    let authenticator = world.authenticator();
    world.wait_for("a session", |status| status.session.is_some());
    std::thread::sleep(core::time::Duration::from_secs(2));
    assert_eq!(world.agent().identity, old, "not before its time");
    assert_eq!(authenticator.terminate(), Some(0));
    rewrite(&world, |contents| contents["key_since"] = json!(now() - 90 * 86_400));
    let _authenticator = world.authenticator();
    wait_until("another key", || world.agent().identity != old);
    world.wait_for("a session", |status| status.session.is_some());
}

#[test]
fn an_agent_that_is_deregistered_is_ended_everywhere_and_another_may_follow() {
    let world = World::new(900);
    let tqs = world.tqs();
    let _authenticator = world.authenticator();
    let status = world.register();
    let session = status.session.unwrap().session_id;
    let old = world.agent();
    let token = world.draw(&mut tqs.client()).unwrap();
    let half = || world.authority().directory().half(session, super::SERVER).unwrap();
    assert!(half().is_some());
    assert_eq!(world.obol(&["auth", "deregister"]).status.code(), Some(2), "it has to be said twice");

    let done = world.obol_json(&["auth", "deregister", "--yes", "--json"]);
    assert_eq!(done["agentId"], old.id.as_str());
    let ended = world.authority().directory().agent(old.id.as_str()).unwrap().unwrap();
    assert_eq!(ended.status, AgentStatus::Revoked);
    assert!(half().is_none(), "no resource server is told its keys any more");
    let sessions = world.authority().directory().sessions(&old.id).unwrap();
    assert!(sessions.iter().all(|session| session.ended.is_some()), "{sessions:?}");
    let drawn = world.obol(&["dequeue", "search", "--wait", "100", "--json"]);
    assert!(String::from_utf8_lossy(&drawn.stderr).contains("SESSION_FLUSHED"), "{drawn:?}");
    assert!(world.present(&token).is_err(), "what was drawn is worth nothing");

    // Here is another agent from now on, which a human has to let in; the old key never returns.
    let status = world.wait_for("nobody is registered", |status| status.state == AuthState::Unregistered);
    assert_eq!(status.registration.state, RegistrationState::None);
    assert_eq!(done["words"], status.registration.words.as_str());
    world.register();
    let next = world.agent();
    assert_ne!((next.id.as_str(), next.identity), (old.id.as_str(), old.identity));
    assert!(world.draw(&mut tqs.client()).is_ok());
    // It hears the service as the new one.
    world.disable();
    world.wait_for("it is heard", |status| status.state == AuthState::Stopped);
}

#[test]
fn agents_can_neither_replace_the_key_nor_end_the_agent() {
    let world = World::new(900);
    let _tqs = world.tqs();
    let _authenticator = world.authenticator();
    world.register();
    let before = world.agent();
    let operator = world.path().join("run/obol/auth-control.sock");
    let mode = std::fs::metadata(&operator).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "for the authenticator's own user alone");
    for command in [&["auth", "rotate"][..], &["auth", "deregister", "--yes"]] {
        // On the socket that agents are given there is nobody who understands it.
        let agents = super::auth_socket(world.path());
        let mut told = obol_world::home::command(world.path());
        let told = told.args(command).args(["--auth-control-socket"]).arg(agents).output().unwrap();
        assert!(!told.status.success(), "{told:?}");
    }
    assert_eq!(world.agent(), before);
}
