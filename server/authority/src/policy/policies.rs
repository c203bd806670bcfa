//! The versions of a service's policy: which decides, which is only looked at, and those there is a way back to.
//!
//! What is in force is what the directory says, so a restart changes nothing, whatever lies in a folder meanwhile.

use std::collections::BTreeSet;
use std::sync::Arc;

use obol_policy::{Comparison, Impact, Occasion, PolicySource, PolicyVersion as Loaded, diff};
use parking_lot::Mutex;

use super::{CedarDecider, facts};
use crate::authority::{Authority, Now};
use crate::decider::{Decider, NoPolicy};
use crate::directory::{
    Agent, AgentStatus, Directory, Human, Person, PolicyText, PolicyVersion, Unavailable, Unharmed,
};
use crate::refused::Refused;

/// Agents that are looked at to say what a version changes: enough to see a mistake by, and not for ever.
const MAX_AGENTS_ASKED: usize = 10_000;
/// The suite that agents are asked about as if they opened a session with it.
const USUAL_SUITE: u8 = 4;

/// What the directory keeps, loaded.
#[derive(Debug)]
pub struct KeptPolicy {
    held: Held,
    /// Why nothing is decided, where nothing is.
    undecided: Option<String>,
}

#[derive(Clone, Debug, Default)]
struct Held {
    in_force: Option<Arc<Loaded>>,
    observed: Option<Arc<Loaded>>,
}

impl KeptPolicy {
    /// Loads what is in force, and what is looked at beside it. A policy that this build cannot read decides nothing.
    ///
    /// # Errors
    ///
    /// [`Unavailable`] where the directory cannot be read.
    pub fn load(directory: &dyn Directory) -> Result<Self, Unavailable> {
        let Some(version) = directory.policy()? else {
            let why = "no policy is in force; `obol policy activate FOLDER` puts one in force".to_owned();
            return Ok(Self { held: Held::default(), undecided: Some(why) });
        };
        let text = directory.policy_text(&version.digest)?;
        let text = text.ok_or_else(|| Unavailable::new("the text of the policy in force is missing"))?;
        let in_force = match load(&text) {
            Ok(loaded) => loaded,
            Err(why) => {
                let why = format!(
                    "the policy in force ({}) cannot be read by this version of obol: {why}; `obol policy activate FOLDER` puts \
                     another in force",
                    version.digest
                );
                return Ok(Self { held: Held::default(), undecided: Some(why) });
            }
        };
        let observed = directory.observed_policy()?.map(|text| load(&text)).transpose();
        let observed = observed.unwrap_or_else(|why| {
            tracing::error!(why, "the observed policy cannot be read; nothing is looked at");
            None
        });
        Ok(Self { held: Held { in_force: Some(in_force), observed }, undecided: None })
    }

    /// Who decides.
    pub fn decider(&self) -> Arc<dyn Decider> {
        match &self.undecided {
            Some(why) => Arc::new(NoPolicy(why.clone())),
            None => self.held.decider(),
        }
    }

    /// Why nothing is decided, where nothing is.
    pub fn undecided(&self) -> Option<&str> {
        self.undecided.as_deref()
    }
}

impl Held {
    fn decider(&self) -> Arc<dyn Decider> {
        match &self.in_force {
            Some(version) => Arc::new(CedarDecider::new(Arc::clone(version), self.observed.clone())),
            None => Arc::new(NoPolicy("no policy is in force".to_owned())),
        }
    }
}

fn load(text: &PolicyText) -> Result<Arc<Loaded>, String> {
    let source: PolicySource =
        serde_json::from_str(&text.text).map_err(|_| "its text has another form".to_owned())?;
    let loaded = Loaded::load(source).map_err(|error| error.to_string())?;
    match loaded.digest().to_string() == text.digest {
        true => Ok(Arc::new(loaded)),
        false => Err("its text is not the one it is known by".to_owned()),
    }
}

fn text_of(version: &Loaded) -> Result<PolicyText, Refused> {
    let text = serde_json::to_string(version.source())
        .map_err(|error| Refused::Unavailable(format!("the policy's text cannot be written: {error}")))?;
    Ok(PolicyText { digest: version.digest().to_string(), text })
}

/// A version that came into force, or would.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Activated {
    /// When, by whom, with which epoch; `None` where it was only asked what would be.
    pub version: Option<PolicyVersion>,
    /// What it changes for the agents that were asked about.
    pub impact: Impact,
    /// How many these are.
    pub agents: usize,
    /// How many of their sessions end with it.
    pub sessions: usize,
    /// What is valid in it and may be a mistake.
    pub warnings: Vec<String>,
}

/// The versions of a service that runs.
#[derive(Debug)]
pub struct Policies {
    authority: Arc<Authority>,
    held: Mutex<Held>,
}

impl Policies {
    /// Of a service whose decider is that of `kept`.
    pub fn new(authority: Arc<Authority>, kept: KeptPolicy) -> Self {
        Self { authority, held: Mutex::new(kept.held) }
    }

    /// The version in force.
    pub fn in_force(&self) -> Option<Arc<Loaded>> {
        self.held.lock().in_force.clone()
    }

    /// The version that is only looked at.
    pub fn observed(&self) -> Option<Arc<Loaded>> {
        self.held.lock().observed.clone()
    }

    /// A version that the directory has the text of, by its digest.
    ///
    /// # Errors
    ///
    /// [`Refused::Unknown`] where it has not.
    pub fn kept(&self, digest: &str) -> Result<Arc<Loaded>, Refused> {
        let text = self.authority.directory().policy_text(digest)?;
        let text = text.ok_or(Refused::Unknown("version of the policy"))?;
        load(&text).map_err(Refused::Malformed)
    }

    /// What a version would change. Nothing is changed.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub fn weigh(&self, version: &Loaded, now: Now) -> Result<Activated, Refused> {
        self.weigh_all(version, now).map(|(weighed, _)| weighed)
    }

    fn weigh_all(&self, version: &Loaded, now: Now) -> Result<(Activated, Unharmed), Refused> {
        let before = self.in_force();
        let (mut impact, mut agents, mut sessions) = (Impact::default(), 0, 0);
        let mut unharmed = Unharmed::new();
        let mut page = self.authority.directory().agents(None)?;
        while let Some(last) = page.last().map(|agent| agent.id.clone()) {
            let live = page.iter().filter(|agent| gets_sessions(agent, now.secs()));
            for agent in live.take(MAX_AGENTS_ASKED.saturating_sub(agents)) {
                agents += 1;
                if let Some(before) = &before {
                    let owner = self.authority.person(&agent.owner)?;
                    let (suites, live) = self.suites(agent)?;
                    if weigh_one(before, version, (agent, &owner), &suites, now.secs(), &mut impact) {
                        unharmed.insert(agent.id.clone(), agent.version);
                    } else {
                        sessions += live;
                    }
                }
            }
            if agents >= MAX_AGENTS_ASKED {
                break;
            }
            page = self.authority.directory().agents(Some(&last))?;
        }
        let warnings = version.findings().iter().map(ToString::to_string).collect();
        Ok((Activated { version: None, impact, agents, sessions, warnings }, unharmed))
    }

    /// The suites of the agent's live sessions, and how many these are.
    fn suites(&self, agent: &Agent) -> Result<(BTreeSet<u8>, usize), Refused> {
        let sessions = self.authority.directory().sessions(&agent.id)?;
        let suites = sessions.iter().map(|session| session.suite).collect();
        Ok((suites, sessions.len()))
    }

    /// Puts a version in force. What takes away more than a fifth of all grants is done only where `anyway` says so.
    ///
    /// # Errors
    ///
    /// [`Refused`]; the version that was in force still is.
    pub fn activate(
        &self,
        version: Arc<Loaded>,
        by: &Human,
        anyway: bool,
        now: Now,
    ) -> Result<Activated, Refused> {
        let (weighed, unharmed) = self.weigh_all(&version, now)?;
        if weighed.impact.is_too_much() && !anyway {
            let Impact { lost, held, .. } = weighed.impact;
            return Err(Refused::PolicyTakesTooMuch { lost, held });
        }
        let mut held = self.held.lock();
        let observed = held.observed.clone().filter(|other| other.digest() != version.digest());
        let text = text_of(&version)?;
        let next = Held { in_force: Some(version), observed };
        let row = self.authority.activate_policy(text, next.decider(), unharmed, by, now)?;
        *held = next;
        Ok(Activated { version: Some(row), ..weighed })
    }

    /// Looks at a version beside the one in force, or at none.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    pub fn observe(&self, other: Option<Arc<Loaded>>, by: &Human) -> Result<(), Refused> {
        let mut held = self.held.lock();
        if held.in_force.is_none() {
            return Err(Refused::Unavailable(
                "no policy is in force that another could be looked at beside".to_owned(),
            ));
        }
        let next = Held { in_force: held.in_force.clone(), observed: other };
        let text = next.observed.as_deref().map(text_of).transpose()?;
        self.authority.observe_policy(text, next.decider(), by)?;
        *held = next;
        Ok(())
    }
}

fn gets_sessions(agent: &Agent, now: u64) -> bool {
    agent.status == AgentStatus::Active && !agent.is_expired(now)
}

/// Counts what an agent gains and loses; whether its live sessions, of these suites, hold nothing that it loses.
fn weigh_one(
    before: &Loaded,
    after: &Loaded,
    (agent, owner): (&Agent, &Person),
    suites: &BTreeSet<u8>,
    now: u64,
    impact: &mut Impact,
) -> bool {
    let owner_auth_age_secs = now.saturating_sub(agent.approved_at.max(owner.login_at));
    let facts = facts(agent, owner, now);
    let changes = |suite: u8| {
        let moment = Occasion { now, suite, owner_auth_age_secs };
        Ok::<_, obol_policy::FactsError>(diff(
            &before.decide(&facts, &moment)?,
            &after.decide(&facts, &moment)?,
        ))
    };
    match changes(USUAL_SUITE) {
        Ok(change) => impact.add(&change),
        // No policy can decide about it, so it opens no session; it must not keep others from a policy.
        Err(error) => {
            tracing::warn!(agent = %agent.id, %error, "nothing can be decided about an agent; what it holds ends");
            return false;
        }
    }
    suites.iter().all(|suite| changes(*suite).is_ok_and(|change| change.standing != Comparison::Narrowed))
}

#[cfg(test)]
mod tests {
    use obol_handshake::AuthoritySecret;
    use obol_session::SessionId;

    use super::*;
    use crate::authority::Parts;
    use crate::directory::contract::{self, NOW, agent};
    use crate::directory::{MemoryDirectory, Registered};
    use crate::id::SystemRandom;
    use crate::settings::Settings;

    const CATALOGUE: &str = r#"
[[tool]]
name = "search"
audience = "https://api.example"
risk = "low"
  [[tool.offer]]
  name = "read"
  action = ["read"]
  resource = "docs/**"
  ttl = 60
"#;

    fn at(secs: u64) -> Now {
        Now { ms: secs * 1_000 }
    }

    /// A version by which one role may search.
    fn version(role: &str) -> Arc<Loaded> {
        version_with(role, "")
    }

    /// The same with something said beside it.
    fn version_with(role: &str, beside: &str) -> Arc<Loaded> {
        let policies = format!(
            r#"
@id("use") permit (principal in Obol::Role::"{role}", action == Obol::Action::"use", resource);
@id("ahead") permit (principal in Obol::Role::"{role}", action == Obol::Action::"useUnattended", resource);
{beside}"#
        );
        let policies = [("a.cedar".to_owned(), policies)].into();
        Arc::new(Loaded::load(PolicySource { catalogue: CATALOGUE.to_owned(), policies }).unwrap())
    }

    /// As the program starts.
    fn start(directory: &Arc<MemoryDirectory>) -> (Arc<Authority>, Policies) {
        let kept = KeptPolicy::load(&**directory).unwrap();
        let parts = Parts {
            settings: Settings::new("https://as.example", "example").unwrap(),
            directory: Arc::<MemoryDirectory>::clone(directory),
            decider: kept.decider(),
            key: AuthoritySecret::generate(&mut SystemRandom),
            code_key: [3; 32],
            audit: None,
        };
        let authority = Arc::new(Authority::new(parts, at(NOW)).unwrap());
        let policies = Policies::new(Arc::clone(&authority), kept);
        (authority, policies)
    }

    #[test]
    fn a_restart_finds_what_was_in_force_and_the_way_back_raises_the_epoch() {
        let directory = Arc::new(MemoryDirectory::new());
        let by = Human::local("anna");
        let (_, policies) = start(&directory);
        let why = KeptPolicy::load(&*directory).unwrap().undecided.unwrap();
        assert!(policies.in_force().is_none() && why.contains("obol policy activate"), "{why}");
        assert!(policies.observe(Some(version("x")), &by).is_err(), "nothing to look at it beside");
        let (one, two) = (version("dev"), version("other"));
        policies.activate(Arc::clone(&one), &by, false, at(NOW)).unwrap();
        assert_eq!(
            policies.activate(Arc::clone(&one), &by, false, at(NOW)).unwrap_err(),
            Refused::PolicyInForce
        );
        policies.activate(Arc::clone(&two), &by, false, at(NOW)).unwrap();
        policies.observe(Some(version("third")), &by).unwrap();

        let (_, policies) = start(&directory);
        assert_eq!(policies.in_force().unwrap().digest(), two.digest());
        assert_eq!(policies.observed().unwrap().digest(), version("third").digest());
        let back = policies.kept(&one.digest().to_string()).unwrap();
        let row = policies.activate(back, &by, false, at(NOW)).unwrap().version.unwrap();
        assert_eq!((row.version, row.epoch), (3, 3));
        assert_eq!(policies.kept(&"0".repeat(64)).unwrap_err(), Refused::Unknown("version of the policy"));
        policies.activate(version("third"), &by, false, at(NOW)).unwrap();
        assert!(policies.observed().is_none(), "it decides now");
    }

    #[test]
    fn what_takes_away_too_much_needs_a_word_and_what_is_weighed_changes_nothing() {
        let directory = Arc::new(MemoryDirectory::new());
        let by = Human::local("anna");
        let one = agent(&*directory, 1, "builder");
        let (_, policies) = start(&directory);
        policies.activate(version(&one.roles[0]), &by, false, at(NOW)).unwrap();
        let nobody = version("nobody");
        let weighed = policies.weigh(&nobody, at(NOW)).unwrap();
        assert_eq!((weighed.impact.held, weighed.impact.lost, weighed.agents), (1, 1, 1));
        let refused = policies.activate(Arc::clone(&nobody), &by, false, at(NOW)).unwrap_err();
        assert_eq!(refused, Refused::PolicyTakesTooMuch { lost: 1, held: 1 });
        assert_eq!(directory.policy().unwrap().unwrap().epoch, 1);
        policies.activate(nobody, &by, true, at(NOW)).unwrap();
        assert_eq!(directory.policy().unwrap().unwrap().epoch, 2);
    }

    /// Its human's name is longer than any policy takes, so nothing can be decided about it.
    fn undecidable(directory: &MemoryDirectory, number: u64) -> Agent {
        let name = format!("agent-{number}");
        let new = contract::new_registration(number, &name);
        let carried =
            directory.register(contract::handshake(1 << 33 | number), new, NOW, contract::seal(number));
        let Registered::Waits(id) = contract::done(carried.unwrap()) else { panic!("nobody was invited") };
        directory.approve(contract::approval(&id, &"x".repeat(10_000)), NOW).unwrap().unwrap()
    }

    #[test]
    fn an_agent_that_nothing_can_be_decided_about_loses_what_it_holds_and_keeps_no_policy_from_the_others() {
        let directory = Arc::new(MemoryDirectory::new());
        let by = Human::local("anna");
        let (good, odd) = (agent(&*directory, 1, "builder"), undecidable(&directory, 2));
        let (_, policies) = start(&directory);
        policies.activate(version("dev"), &by, false, at(NOW)).unwrap();
        for (agent, number) in [(&good, 100), (&odd, 101)] {
            contract::open(&*directory, agent, number);
        }
        // Takes nothing from anybody.
        let done = policies.activate(version_with("dev", "// again"), &by, false, at(NOW)).unwrap();
        assert_eq!(done.agents, 2);
        let lives = |number| directory.session(SessionId::from_u64(number)).unwrap().unwrap().ended.is_none();
        assert!(lives(100) && !lives(101));
    }

    #[test]
    fn what_is_looked_at_is_told_and_decides_nothing() {
        let directory = Arc::new(MemoryDirectory::new());
        let one = agent(&*directory, 1, "builder");
        let moment = crate::decider::Moment { now: NOW, suite: 4 };
        let role = one.roles[0].as_str();
        let owner = Person::unknown(one.owner.clone());
        let alone = CedarDecider::new(version(role), None).decide(&one, &owner, moment).unwrap();
        let looking = CedarDecider::new(version(role), Some(version("nobody")));
        let beside = looking.decide(&one, &owner, moment).unwrap();
        assert_eq!((alone.grants.len(), &beside.grants), (1, &alone.grants));
        assert!(alone.otherwise.is_empty());
        let [told] = beside.otherwise.as_slice() else { panic!("{beside:?}") };
        assert!(told.contains("loses search at https://api.example"), "{told}");
    }

    #[test]
    fn a_policy_that_cannot_be_read_decides_nothing() {
        let directory = Arc::new(MemoryDirectory::new());
        let broken = PolicyText { digest: "d".to_owned(), text: "{}".to_owned() };
        directory.activate_policy(broken, Unharmed::new(), Human::local("anna"), NOW).unwrap().unwrap();
        let kept = KeptPolicy::load(&*directory).unwrap();
        assert!(kept.undecided().unwrap().contains("cannot be read"));
        let one = agent(&*directory, 1, "builder");
        let moment = crate::decider::Moment { now: NOW, suite: 4 };
        let owner = Person::unknown(one.owner.clone());
        assert!(kept.decider().decide(&one, &owner, moment).is_err());
        assert!(kept.decider().may_register(&owner, "coding", &[], "local", 1).is_err());
        // Another text than the one it is known by is none either.
        let swapped =
            PolicyText { digest: version("a").digest().to_string(), ..text_of(&version("b")).unwrap() };
        directory.activate_policy(swapped, Unharmed::new(), Human::local("anna"), NOW).unwrap().unwrap();
        assert!(KeptPolicy::load(&*directory).unwrap().undecided().unwrap().contains("not the one"));
    }
}
