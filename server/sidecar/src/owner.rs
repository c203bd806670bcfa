//! Who a connection belongs to, and who gives way to whom where something is scarce.
//!
//! All agents of a sidecar may be one user, so a user's connections are not a unit to be fair to. Shares go by process; and
//! where processes are in control groups of their own, as units of systemd and containers are, first by those, so that an
//! agent that forks gains nothing. Shares are equal among users, then among the groups of a user, then among the processes
//! of a group.
//!
//! A process is the one that connected: handing a connection on does not change whose it is.

use core::hash::BuildHasher;
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fs::File;
use std::io::Read;
use std::sync::LazyLock;

use tokio::net::unix::UCred;

/// The most that is read of the description of a process's control group, in bytes.
const MAX_GROUP_BYTES: u64 = 4 << 10;

/// See the module's header.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Owner {
    uid: u32,
    group: u64,
    pid: i32,
}

impl Owner {
    /// The process at the other end of a connection.
    pub(crate) fn of(peer: &UCred) -> Self {
        // Of a process that is in no name space of ours the system tells no number. Such processes are one.
        let pid = peer.pid().unwrap_or(0);
        Self { uid: peer.uid(), group: group_of(pid), pid }
    }

    #[cfg(test)]
    pub(crate) const fn new(uid: u32, group: u64, pid: i32) -> Self {
        Self { uid, group, pid }
    }

    /// The control group, which is of one user here.
    pub(crate) fn group(self) -> (u32, u64) {
        (self.uid, self.group)
    }

    pub(crate) fn uid(self) -> u32 {
        self.uid
    }
}

/// Names a process's control group. 0 where it cannot be read: the process has gone, or the system does not tell.
fn group_of(pid: i32) -> u64 {
    static NAMES: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    let mut text = Vec::new();
    let read = File::open(format!("/proc/{pid}/cgroup"))
        .and_then(|file| file.take(MAX_GROUP_BYTES).read_to_end(&mut text));
    if read.is_ok() { NAMES.hash_one(&text) } else { 0 }
}

/// Who gives something up, so that `newcomer` can have one: of those who hold most, the user, its group, and of that
/// the process. `None` where none of them holds at least two more than the newcomer's own: then it is the newcomer's own
/// share that is used up.
pub(crate) fn gives_way(held: impl Iterator<Item = (Owner, usize)>, newcomer: Owner) -> Option<Owner> {
    let parts: [fn(Owner) -> Owner; 3] =
        [|owner| Owner { group: 0, pid: 0, ..owner }, |owner| Owner { pid: 0, ..owner }, |owner| owner];
    let mut held: Vec<_> = held.filter(|(_, count)| *count > 0).collect();
    // Whether all parts so far are the newcomer's own.
    let mut ours = true;
    for part in parts {
        let mut sums: HashMap<Owner, usize> = HashMap::new();
        for (owner, count) in &held {
            *sums.entry(part(*owner)).or_default() += count;
        }
        let mine = part(newcomer);
        let own = sums.get(&mine).copied().unwrap_or(0);
        let (most, sum) = sums.into_iter().max_by_key(|(part, sum)| (*sum, *part))?;
        let chosen = if ours && sum < own + 2 { mine } else { most };
        ours &= chosen == mine;
        held.retain(|(owner, _)| part(*owner) == chosen);
    }
    held.first().map(|(owner, _)| *owner).filter(|_| !ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(held: &[((u32, u64, i32), usize)], newcomer: (u32, u64, i32)) -> Option<(u32, u64, i32)> {
        let owner = |(uid, group, pid)| Owner::new(uid, group, pid);
        let held = held.iter().map(|(who, count)| (owner(*who), *count));
        gives_way(held, owner(newcomer)).map(|owner| (owner.uid, owner.group, owner.pid))
    }

    #[test]
    fn the_process_that_holds_most_gives_way_and_equals_do_not() {
        let held = [((1, 1, 10), 5), ((1, 1, 11), 9), ((1, 1, 12), 1)];
        assert_eq!(way(&held, (1, 1, 13)), Some((1, 1, 11)));
        assert_eq!(way(&held, (1, 1, 12)), Some((1, 1, 11)));
        assert_eq!(way(&held, (1, 1, 11)), None, "not to itself");
        let equals = [((1, 1, 10), 5), ((1, 1, 11), 6)];
        assert_eq!(way(&equals, (1, 1, 10)), None, "nor for the sake of changing places");
        assert_eq!(way(&[((1, 1, 10), 1), ((1, 1, 11), 1)], (1, 1, 12)), None, "nor its only one");
        assert_eq!(way(&[], (1, 1, 10)), None);
    }

    #[test]
    fn where_agents_have_groups_of_their_own_forking_gains_nothing() {
        let forked = (20..80).map(|pid| ((1, 2, pid), 1));
        let held: Vec<_> = forked.chain([((1, 3, 90), 20)]).collect();
        let (_, group, _) = way(&held, (1, 3, 90)).unwrap();
        assert_eq!(group, 2, "sixty processes of one group hold more than one of another");
        assert_eq!(way(&held, (1, 2, 99)), None, "a further process of the group that has most gets nothing");
        // Within one group each process counts.
        let held: Vec<_> = (20..80).map(|pid| ((1, 2, pid), 1)).chain([((1, 2, 90), 20)]).collect();
        assert_eq!(way(&held, (1, 2, 99)), Some((1, 2, 90)));
    }

    #[test]
    fn users_share_before_their_groups_and_processes_do() {
        let held = [((1, 1, 10), 6), ((1, 2, 11), 5), ((2, 1, 12), 8)];
        assert_eq!(way(&held, (2, 1, 13)), Some((1, 1, 10)), "of the user with most, and of that the group");
        assert_eq!(way(&held, (1, 2, 11)), None, "the user's own part is used up, and its groups are equal");
    }

    #[test]
    fn a_process_has_the_group_that_the_system_says() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(group_of(own), group_of(own));
        assert_eq!(group_of(i32::MAX), 0);
    }
}
