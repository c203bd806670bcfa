//! What is particular to a file: it is there after a restart, sealed, and nobody else's.

use std::collections::BTreeSet;

use obol_handshake::Random as _;
use obol_secret::key::Key32;
use obol_session::SessionId;

use super::*;
use crate::directory::contract::{
    self, NOW, agent, approval, events, half_of, handshake, new_registration, open, policy, seal,
};
use crate::directory::{
    AgentStatus, Approval, Carried, Directory, EndScope, Human, KeyStanding, MemoryDirectory, Refused,
    Registered,
};
use crate::id::SystemRandom;

fn master() -> Key32 {
    Key32::from_bytes([7; 32])
}

#[test]
fn everything_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("authority.redb");
    let (one, events_before) = {
        let directory = RedbDirectory::open(&path, &master()).unwrap();
        let one = agent(&directory, 1, "builder");
        open(&directory, &one, 100);
        open(&directory, &one, 101);
        let end = EndScope::Session(SessionId::from_u64(100));
        directory.end(end, "because".into(), Human::local("anna"), NOW).unwrap().unwrap();
        let known = directory.agent(one.id.as_str()).unwrap().unwrap();
        let unharmed = [(known.id, known.version)].into();
        directory.activate_policy(policy("digest"), unharmed, Human::local("anna"), NOW).unwrap().unwrap();
        (one, events(&directory))
    };
    let directory = RedbDirectory::open(&path, &master()).unwrap();
    assert_eq!(events(&directory), events_before);
    assert!(
        half_of(&directory, 100, "https://a").is_none() && half_of(&directory, 101, "https://a").is_some()
    );
    assert_eq!(directory.last_session().unwrap(), SessionId::from_u64(101));
    assert!(matches!(directory.standing(one.identity, NOW).unwrap(), KeyStanding::Agent(_)));
    let again = directory.refuse(handshake(101), Refused::NoGrants, NOW, seal(9)).unwrap();
    assert_eq!(again, Carried::Again(b"101 done".to_vec()), "answers too");
    assert_eq!(directory.policy().unwrap().unwrap().digest, "digest");
    assert_eq!(directory.policy_text("digest").unwrap(), Some(policy("digest")));
}

#[test]
fn a_file_that_is_anothers_damaged_or_sealed_under_another_key_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("authority.redb");
    let directory = RedbDirectory::open(&path, &master()).unwrap();
    let busy = RedbDirectory::open(&path, &master()).unwrap_err().to_string();
    assert!(busy.contains("authority.redb"), "{busy}");
    agent(&directory, 1, "builder");
    drop(directory);
    let other = RedbDirectory::open(&path, &Key32::from_bytes([8; 32])).unwrap_err().to_string();
    assert!(other.contains("another master key"), "{other}");
    std::fs::write(&path, b"dear diary").unwrap();
    assert!(RedbDirectory::open(&path, &master()).is_err());
    std::fs::write(&path, b"").unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(
        matches!(RedbDirectory::open(&path, &master()), Err(DirectoryOpenError::File(_))),
        "open to others"
    );
}

#[test]
fn the_file_shows_no_key_no_name_and_no_half() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("authority.redb");
    let half = {
        let directory = RedbDirectory::open(&path, &master()).unwrap();
        let one = agent(&directory, 1, "builder");
        open(&directory, &one, 100);
        half_of(&directory, 100, "https://a").unwrap()
    };
    let bytes = std::fs::read(&path).unwrap();
    let shows = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    let key = half.keys.session_key.expose();
    assert!(!shows(key) && !shows(obol_secret::text::to_hex(key).as_bytes()));
    for text in ["K_session", "poll_hash", "human-1", "search", "builder", "https://a", "192.0.2"] {
        assert!(!shows(text.as_bytes()), "{text}");
    }
    assert!(shows(b"obol.authority.rows"), "the search works");
}

#[test]
fn a_row_that_was_changed_or_moved_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("authority.redb");
    let (one, two) = {
        let directory = RedbDirectory::open(&path, &master()).unwrap();
        (agent(&directory, 1, "builder"), agent(&directory, 2, "other"))
    };
    let place = |agent: &crate::directory::Agent| place(Table::Agent, agent.id.as_str().as_bytes());
    {
        let database = Database::open(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        {
            let mut table = transaction.open_table(ROWS).unwrap();
            let of_two = table.get(place(&two).as_slice()).unwrap().unwrap().value().to_vec();
            table.insert(place(&one).as_slice(), of_two.as_slice()).unwrap();
        }
        transaction.commit().unwrap();
    }
    let directory = RedbDirectory::open(&path, &master()).unwrap();
    assert!(directory.agent(one.id.as_str()).is_err(), "another agent's row in its place");
    assert!(directory.agent(two.id.as_str()).unwrap().is_some());
    let ended = directory.end(EndScope::Agent("builder".into()), "x".into(), Human::local("a"), NOW);
    assert!(ended.is_err(), "what cannot be read is not changed either");
    directory.health().unwrap();
}

#[test]
fn a_transaction_that_panics_changes_nothing_and_harms_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let directory = RedbDirectory::open(&folder.path().join("authority.redb"), &master()).unwrap();
    let new = new_registration(1, "builder");
    let (identity, id) = (new.identity, new.id.clone());
    let panics = directory.register(handshake(1), new, NOW, Box::new(|_| panic!("on purpose")));
    assert!(panics.is_err());
    assert_eq!(directory.standing(identity, NOW).unwrap(), KeyStanding::Unknown);
    assert!(directory.approve(approval(&id, "anna"), NOW).unwrap().is_err());
    agent(&directory, 2, "other");
}

#[test]
fn many_at_once_share_commits_and_each_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let directory = RedbDirectory::open(&folder.path().join("authority.redb"), &master()).unwrap();
    let agents: Vec<_> = (0..8).map(|number| agent(&directory, number, &format!("agent-{number}"))).collect();
    let numbers = core::sync::atomic::AtomicU64::new(1_000);
    let open_one = |id: &str| {
        // Another thread's number may be the higher one by then: a few tries are enough.
        for _ in 0..1_000 {
            let agent = directory.agent(id).unwrap().unwrap();
            let number = numbers.fetch_add(1, core::sync::atomic::Ordering::SeqCst);
            let mut plan = contract::plan(&agent, number, 0);
            plan.presented = agent.chain.into_iter().collect();
            match directory.open_session(handshake(number), plan, NOW, seal(number)).unwrap() {
                Carried::Now(Ok(opened), _) => return assert!(!opened.clone_suspected),
                Carried::Stale => {}
                other => panic!("{other:?}"),
            }
        }
        panic!("no session was opened");
    };
    std::thread::scope(|scope| {
        for agent in &agents {
            scope.spawn(|| (0..10).for_each(|_| open_one(agent.id.as_str())));
        }
    });
    for agent in &agents {
        assert_eq!(directory.sessions(&agent.id).unwrap().len(), 10);
    }
    assert_eq!(events(&directory).len(), agents.len() + 80);
}

/// The same commands, to a file that is closed and opened again now and then, and to memory: every answer is the same.
#[test]
fn a_file_answers_as_memory_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("authority.redb");
    let memory = MemoryDirectory::new();
    let mut file = Some(RedbDirectory::open(&path, &master()).unwrap());
    let mut waiting = Vec::new();
    let mut now = NOW;
    for step in 0_u64..400 {
        let mut bytes = [0; 8];
        SystemRandom.fill(&mut bytes);
        let [kind, who, more, ..] = bytes;
        let number = u64::from(who % 12);
        let directory = file.as_ref().unwrap();
        let both: [&dyn Directory; 2] = [&memory, directory];
        match kind % 8 {
            0 | 1 => {
                let mut new = new_registration(number, &format!("agent-{}", more % 12));
                new.code_hash = contract::key(step).0;
                let [one, two] = both.map(|directory| {
                    directory.register(handshake(step), new.clone(), now, seal(step)).unwrap()
                });
                assert_eq!(one, two);
                if let Carried::Now(Ok(Registered::Waits(id)), _) = one {
                    waiting.push(id);
                }
            }
            2 | 3 if !waiting.is_empty() => {
                let id = &waiting[usize::from(more) % waiting.len()];
                let renewed = memory.registration_named(id, now).unwrap().and_then(|waits| waits.renews);
                let renewed = renewed.and_then(|id| memory.agent(id.as_str()).unwrap());
                // Now and then somebody else is answered for than was looked at.
                let reached = renewed.map(|agent| agent.owner).filter(|_| more % 5 != 0);
                let approval = Approval { reached, ..approval(id, "anna") };
                let [one, two] = both.map(|directory| directory.approve(approval.clone(), now).unwrap());
                assert_eq!(one, two);
            }
            4 => {
                let Some(agent) = memory.agent(&format!("agent-{number}")).unwrap() else { continue };
                let plan = || contract::plan(&agent, 1_000 + step, 0);
                let [one, two] = both.map(|directory| {
                    directory.open_session(handshake(step), plan(), now, seal(step)).unwrap()
                });
                assert_eq!(one, two);
            }
            5 => {
                let scope = match more % 4 {
                    0 => EndScope::Agent(format!("agent-{number}")),
                    1 => EndScope::Revoke(format!("agent-{number}")),
                    2 => EndScope::Session(SessionId::from_u64(1_000 + step.saturating_sub(u64::from(who)))),
                    _ => EndScope::Tool("pay".into()),
                };
                let end = |directory: &dyn Directory| {
                    directory.end(scope.clone(), "x".into(), Human::local("anna"), now).unwrap()
                };
                assert_eq!(end(both[0]), end(both[1]));
                assert_eq!(both[0].enable_tool("pay", now), both[1].enable_tool("pay", now));
            }
            6 => {
                let name = format!("agent-{number}");
                let [one, two] = both.map(|directory| directory.enable_agent(&name, now).unwrap());
                assert_eq!(one, two);
                now += u64::from(more);
                assert_eq!(both[0].forget(now), both[1].forget(now));
            }
            _ => {
                drop(file.take());
                file = Some(RedbDirectory::open(&path, &master()).unwrap());
            }
        }
        let directory = file.as_ref().unwrap();
        assert_eq!(memory.agents(None), directory.agents(None));
        assert_eq!(memory.last_event(), directory.last_event());
    }
    let directory = file.unwrap();
    assert_eq!(memory.events(0), directory.events(0));
    for agent in memory.agents(None).unwrap() {
        assert_eq!(memory.sessions(&agent.id), directory.sessions(&agent.id));
        let live = !memory.sessions(&agent.id).unwrap().is_empty();
        assert!(!live || agent.status == AgentStatus::Active, "only an active agent has live sessions");
    }
}

/// A directory and its witness in a folder.
struct Witnessed(tempfile::TempDir);

impl Witnessed {
    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn open(&self) -> Result<RedbDirectory, DirectoryOpenError> {
        RedbDirectory::open_witnessed(&self.file("authority.redb"), &self.file("witness"), &master())
    }

    fn accept(&self) -> Result<(RedbDirectory, StartedOver), DirectoryOpenError> {
        RedbDirectory::accept_rollback(&self.file("authority.redb"), &self.file("witness"), &master(), NOW)
    }

    fn copy(&self, from: &str, to: &str) {
        std::fs::copy(self.file(from), self.file(to)).unwrap();
    }
}

#[test]
fn a_directory_that_was_put_back_is_not_opened_unasked_and_revives_nothing_when_it_is() {
    let place = Witnessed(tempfile::tempdir().unwrap());
    let directory = place.open().unwrap();
    let (builder, leaver) = (agent(&directory, 1, "builder"), agent(&directory, 2, "leaver"));
    open(&directory, &builder, 100);
    open(&directory, &leaver, 101);
    let life = directory.incarnation([1; 16]).unwrap();
    drop(directory);
    place.copy("authority.redb", "copy");
    let directory = place.open().unwrap();
    directory
        .end(EndScope::Revoke("leaver".into()), "gone".into(), Human::local("anna"), NOW)
        .unwrap()
        .unwrap();
    drop(directory);
    drop(place.open().expect("the control: the one that was last written"));
    let current = place.accept().unwrap_err();
    assert!(matches!(current, DirectoryOpenError::NotPutBack(_)), "{current}");

    place.copy("copy", "authority.redb");
    for _ in 0..2 {
        let refused = place.open().unwrap_err();
        assert!(matches!(refused, DirectoryOpenError::PutBack(..)), "{refused}");
        assert!(refused.to_string().contains("--accept-rollback"), "{refused}");
    }
    let (directory, over) = place.accept().unwrap();
    // Agent by agent, and their ids are random.
    let ended: BTreeSet<_> = over.sessions.iter().copied().collect();
    assert_eq!(ended, [100, 101].map(SessionId::from_u64).into());
    assert_eq!(over.agents.len(), 2);
    for agent in [&builder, &leaver] {
        let now = directory.agent(agent.id.as_str()).unwrap().unwrap();
        assert_eq!(now.status, AgentStatus::Suspended);
        assert!(directory.sessions(&agent.id).unwrap().iter().all(|session| session.ended.is_some()));
    }
    assert_ne!(directory.incarnation([2; 16]).unwrap(), life, "followers are told everything anew");
    drop(directory);
    drop(place.open().expect("it is the directory from now on"));
}

#[test]
fn a_witness_that_is_gone_or_anothers_is_missed_and_a_directory_without_contents_needs_none() {
    let place = Witnessed(tempfile::tempdir().unwrap());
    agent(&place.open().unwrap(), 1, "builder");
    let witness = std::fs::read(place.file("witness")).unwrap();
    for other in [None, Some(&b"dear diary"[..])] {
        match other {
            None => std::fs::remove_file(place.file("witness")).unwrap(),
            Some(other) => std::fs::write(place.file("witness"), other).unwrap(),
        }
        let refused = place.open().unwrap_err();
        assert!(matches!(refused, DirectoryOpenError::PutBack(..)), "{refused}");
    }
    std::fs::write(place.file("witness"), &witness).unwrap();
    drop(place.open().unwrap());
    // One of its two places torn by a power cut: the other one counts.
    let torn = [&witness[..36], &[0; 36]].concat();
    std::fs::write(place.file("witness"), torn).unwrap();
    drop(place.open().unwrap());
    std::fs::remove_file(place.file("authority.redb")).unwrap();
    drop(place.open().expect("nothing lives again in it"));
    drop(place.open().expect("and its own witness saw it"));
}

#[test]
fn a_directory_of_a_version_that_counted_nothing_is_taken_and_counted_from_then_on() {
    let place = Witnessed(tempfile::tempdir().unwrap());
    let uncount = |database: &Database| {
        let transaction = database.begin_write().unwrap();
        transaction.open_table(ROWS).unwrap().remove(super::place(Table::Meta, COMMITS).as_slice()).unwrap();
        transaction.commit().unwrap();
    };
    let directory = RedbDirectory::open(&place.file("authority.redb"), &master()).unwrap();
    agent(&directory, 1, "builder");
    uncount(&directory.store.database);
    drop(directory);
    place.copy("authority.redb", "copy");
    agent(&place.open().unwrap(), 2, "other");
    place.copy("copy", "authority.redb");
    assert!(matches!(place.open().unwrap_err(), DirectoryOpenError::PutBack(..)));
}

/// A copy of a version that counted nothing has no index of owners either, so that making one would be its first commit.
#[test]
fn whatever_copy_is_accepted_its_first_commit_is_the_one_that_starts_over() {
    for saw in ["commits", "nothing", "anothers"] {
        let place = Witnessed(tempfile::tempdir().unwrap());
        let directory = RedbDirectory::open(&place.file("authority.redb"), &master()).unwrap();
        let builder = agent(&directory, 1, "builder");
        open(&directory, &builder, 100);
        let transaction = directory.store.database.begin_write().unwrap();
        for name in [COMMITS, &b"owners_indexed"[..]] {
            let key = super::place(Table::Meta, name);
            transaction.open_table(ROWS).unwrap().remove(key.as_slice()).unwrap();
        }
        transaction.commit().unwrap();
        drop(directory);
        place.copy("authority.redb", "copy");
        agent(&place.open().unwrap(), 2, "other");
        match saw {
            "commits" => place.copy("copy", "authority.redb"),
            "nothing" => std::fs::remove_file(place.file("witness")).unwrap(),
            _ => std::fs::write(place.file("witness"), b"dear diary").unwrap(),
        }
        assert!(matches!(place.open().unwrap_err(), DirectoryOpenError::PutBack(..)), "{saw}");
        // As if it were killed right before that commit.
        drop(Opening::new(&place.file("authority.redb"), &master()).unwrap().store(1_000, None).unwrap());
        assert!(
            matches!(place.open().unwrap_err(), DirectoryOpenError::PutBack(..)),
            "{saw}: nothing is accepted"
        );
        // And right after it, before the witness is told.
        let witness = std::fs::read(place.file("witness")).unwrap();
        let (directory, over) = place.accept().unwrap();
        assert_eq!(over.sessions, [SessionId::from_u64(100)], "{saw}");
        drop(directory);
        std::fs::write(place.file("witness"), witness).unwrap();
        let again = match place.open() {
            Ok(directory) => directory,
            Err(DirectoryOpenError::PutBack(..)) => place.accept().unwrap().0,
            Err(error) => panic!("{saw}: {error}"),
        };
        let known = again.agent(builder.id.as_str()).unwrap().unwrap();
        assert_eq!(known.status, AgentStatus::Suspended, "{saw}");
    }
}
