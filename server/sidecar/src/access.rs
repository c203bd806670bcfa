//! Who may connect to a socket: the daemon's own user alone, or agents that run as other users.
//!
//! An agent can be hijacked. One that runs as the daemon's own user reads the daemon's keys and speaks on the operator's
//! socket; one that runs as another user has the agent's socket and nothing else. The modes of folder and socket only let
//! in whom they must; what decides is the peer's user, asked of the kernel at every connection.

use core::fmt;
use std::collections::BTreeSet;

use nix::unistd::{Group, User};
use obol_ipc::user::{UnknownUser, name_of, uid_of};

/// The most users and groups that can be named.
const MAX_NAMES: usize = 64;
/// The longest name, in bytes; Linux itself allows 32.
const MAX_NAME_BYTES: usize = 64;
const ROOT: u32 = 0;

/// Whom a socket is for.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub enum Access {
    /// The daemon's own user, and root.
    #[default]
    OwnUser,
    /// These as well.
    Agents(AgentUsers),
    /// The daemon's own user, and root, in a folder through which these come to a socket of their own.
    OwnUserBeside(AgentUsers),
}

/// The users whose processes are agents.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AgentUsers {
    names: Vec<String>,
    uids: BTreeSet<u32>,
    groups: BTreeSet<u32>,
    /// Those of `uids` that were named themselves, and not by a group.
    listed: bool,
}

/// Why users that were named cannot be the agents'.
#[derive(Debug)]
#[non_exhaustive]
pub enum AgentUsersError {
    /// The list is empty.
    Nobody,
    /// The list, or a name, is too long.
    TooLong,
    /// There is no such user.
    User(UnknownUser),
    /// There is no such group.
    Group(String),
    /// The daemon's own user, or root: such an agent would have every key.
    HasTheKeys(u32),
}

impl fmt::Display for AgentUsersError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("names nobody; leave it out if agents and sidecar are one user"),
            Self::TooLong => {
                write!(
                    f,
                    "names more than {MAX_NAMES} users, or one with more than {MAX_NAME_BYTES} bytes; name a @group"
                )
            }
            Self::User(error) => error.fmt(f),
            Self::Group(name) => {
                write!(f, "there is no group {name:?} on this machine; name one that exists")
            }
            Self::HasTheKeys(uid) => write!(
                f,
                "{} can read the sidecar's keys, and an agent must not; run the sidecar as a user of its own",
                name_of(*uid)
            ),
        }
    }
}

impl core::error::Error for AgentUsersError {}

impl AgentUsers {
    /// Looks up users, by number or by name, and groups, by `@name` or `@number`. `own` is the daemon's user.
    ///
    /// A group stands for the members that it has now: who joins it later waits for the daemon's next start.
    ///
    /// # Errors
    ///
    /// [`AgentUsersError`] if nobody or too many are named, a name is unknown on this machine, or one is the daemon's own user or
    /// root.
    pub fn named(names: &[String], own: u32) -> Result<Self, AgentUsersError> {
        if names.is_empty() {
            return Err(AgentUsersError::Nobody);
        }
        if names.len() > MAX_NAMES || names.iter().any(|name| name.len() > MAX_NAME_BYTES) {
            return Err(AgentUsersError::TooLong);
        }
        let (mut uids, mut groups, mut listed) = (BTreeSet::new(), BTreeSet::new(), false);
        for name in names {
            match name.strip_prefix('@') {
                None => {
                    listed = true;
                    uids.insert(uid_of(name).map_err(AgentUsersError::User)?);
                }
                Some(group) => {
                    let (gid, members) = group_of(group)?;
                    groups.insert(gid);
                    // The daemon's user may have to be in the group, to give its socket to it.
                    uids.extend(members.into_iter().filter(|uid| ![own, ROOT].contains(uid)));
                }
            }
        }
        match uids.iter().find(|uid| [own, ROOT].contains(uid)) {
            Some(uid) => Err(AgentUsersError::HasTheKeys(*uid)),
            None => Ok(Self { names: names.to_vec(), uids, groups, listed }),
        }
    }

    /// As they were named.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    fn includes(&self, uid: u32, gid: u32) -> bool {
        self.uids.contains(&uid) || self.groups.contains(&gid)
    }
}

fn group_of(name: &str) -> Result<(u32, Vec<u32>), AgentUsersError> {
    let unknown = || AgentUsersError::Group(name.to_owned());
    let found = match name.parse::<u32>() {
        // As with users, a number need not be on any list.
        Ok(gid) => match Group::from_gid(gid.into()) {
            Ok(Some(group)) => group,
            _ => return Ok((gid, Vec::new())),
        },
        Err(_) => Group::from_name(name).ok().flatten().ok_or_else(unknown)?,
    };
    let uid = |member: &String| User::from_name(member).ok().flatten().map(|user| user.uid.as_raw());
    Ok((found.gid.as_raw(), found.mem.iter().filter_map(uid).collect()))
}

/// Modes of a socket and of its folder, and the group that both must have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Modes {
    /// The folder's mode.
    pub folder: u32,
    /// The socket's mode.
    pub socket: u32,
    /// The group of both, where it matters.
    pub group: Option<u32>,
}

impl Access {
    /// For the daemon's own user, in the folder of a socket with this access.
    #[must_use]
    pub fn own_user_beside(&self) -> Self {
        match self.clone() {
            Self::OwnUser => Self::OwnUser,
            Self::Agents(agents) | Self::OwnUserBeside(agents) => Self::OwnUserBeside(agents),
        }
    }

    /// Whether a process of this user, in this group of its own, may connect. Root may connect to everybody's socket: it
    /// can read their memory anyway.
    pub(crate) fn admits(&self, uid: u32, gid: u32) -> bool {
        let own = rustix::process::geteuid().as_raw();
        uid == own || uid == ROOT || matches!(self, Self::Agents(users) if users.includes(uid, gid))
    }

    /// The same where no more than the user is known: a group stands for the members that it had when it was looked up.
    pub fn admits_user(&self, uid: u32) -> bool {
        let own = rustix::process::geteuid().as_raw();
        uid == own || uid == ROOT || matches!(self, Self::Agents(users) if users.uids.contains(&uid))
    }

    /// One group has folder and socket to itself; several users can only be let in by letting in everybody, so that it is
    /// the check of the peer's user alone that keeps others out.
    pub fn modes(&self) -> Modes {
        let open = |agents: &AgentUsers| match agents {
            AgentUsers { groups, listed: false, .. } if groups.len() == 1 => {
                // New files in a folder with this bit have its group; nothing else would give the socket to the group once
                // the daemon may no longer change owners.
                Modes { folder: 0o2710, socket: 0o660, group: groups.first().copied() }
            }
            _ => Modes { folder: 0o711, socket: 0o666, group: None },
        };
        match self {
            Self::OwnUser => Modes { folder: 0o700, socket: 0o600, group: None },
            Self::Agents(agents) => open(agents),
            Self::OwnUserBeside(agents) => Modes { socket: 0o600, ..open(agents) },
        }
    }

    /// The agents' users as they were named; none where there is but one user.
    pub(crate) fn agent_users(&self) -> &[String] {
        match self {
            Self::OwnUser => &[],
            Self::Agents(users) | Self::OwnUserBeside(users) => users.names(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u32 = 54_000;

    fn named(names: &[&str]) -> Result<AgentUsers, AgentUsersError> {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        AgentUsers::named(&names, OWN)
    }

    fn access(names: &[&str]) -> Access {
        Access::Agents(named(names).unwrap())
    }

    #[test]
    fn who_is_named_may_connect_and_nobody_else() {
        let agents = access(&["54001", "@54100"]);
        assert!(agents.admits(54_001, 54_001));
        assert!(agents.admits(54_002, 54_100), "by the group it runs in");
        assert!(!agents.admits(54_002, 54_002));
        assert!(!agents.admits(54_100, 54_001), "a group's number is not a user's");
        let own = rustix::process::geteuid().as_raw();
        for access in [agents, Access::OwnUser] {
            assert!(access.admits(own, 1) && access.admits(ROOT, 1));
        }
        assert!(!Access::OwnUser.admits(54_001, 54_100));
        assert!(!access(&["54001", "@54100"]).own_user_beside().admits(54_001, 54_100));
        let agents = access(&["54001", "@54100"]);
        assert!(agents.admits_user(54_001) && agents.admits_user(own) && agents.admits_user(ROOT));
        assert!(!agents.admits_user(54_002) && !Access::OwnUser.admits_user(54_001));
    }

    #[test]
    fn only_a_single_group_has_the_socket_to_itself() {
        assert_eq!(Access::OwnUser.modes(), Modes { folder: 0o700, socket: 0o600, group: None });
        assert_eq!(access(&["@7"]).modes(), Modes { folder: 0o2710, socket: 0o660, group: Some(7) });
        for mixed in [&["@7", "@8"][..], &["54001"], &["54001", "@7"]] {
            assert_eq!(access(mixed).modes(), Modes { folder: 0o711, socket: 0o666, group: None });
            let beside = access(mixed).own_user_beside();
            assert_eq!(beside.modes(), Modes { folder: 0o711, socket: 0o600, group: None });
        }
    }

    #[test]
    fn who_has_the_keys_is_no_agent_and_who_does_not_exist_is_named() {
        for (names, says) in [
            (&["54000"][..], "#54000"),
            (&["54001", "root"], "root"),
            (&["0"], "root"),
            (&["no-such-user"], "no-such-user"),
            (&["@no-such-group"], "no-such-group"),
            (&[], "nobody"),
            (&["", "54001"], "\"\""),
        ] {
            let message = named(names).unwrap_err().to_string();
            assert!(message.contains(says), "{names:?}: {message}");
        }
        let many: Vec<_> = (1..=65).map(|uid| uid.to_string()).collect();
        assert!(matches!(AgentUsers::named(&many, OWN), Err(AgentUsersError::TooLong)));
    }
}
