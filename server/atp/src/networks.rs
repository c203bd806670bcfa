//! Which network each agent signs from. An agent's name can be guessed and its secret can be copied: one that signs from two networks
//! within ten minutes may be two agents. That is told, and refused to nobody: agents do move.

use core::net::IpAddr;
use core::time::Duration;
use std::collections::HashMap;
use std::time::Instant;

use obol_atp::AgentId;
use parking_lot::Mutex;

/// How soon after each other two networks are told of.
const SPAN: Duration = Duration::from_secs(600);
/// The most agents that are watched at a time.
const MAX_AGENTS: usize = 65_536;

#[derive(Clone, Copy, Debug)]
struct Seen {
    network: [u8; 6],
    at: Instant,
    told: Option<Instant>,
}

/// The last network of each agent.
#[derive(Debug, Default)]
pub(crate) struct Networks(Mutex<HashMap<AgentId, Seen>>);

impl Networks {
    /// Whether this has to be told: the agent signed from another network a short while ago, and that was not told yet.
    pub(crate) fn is_second(&self, agent: AgentId, address: Option<IpAddr>, now: Instant) -> bool {
        let Some(network) = address.map(network) else { return false };
        let mut all = self.0.lock();
        if all.len() >= MAX_AGENTS && !all.contains_key(&agent) {
            all.retain(|_, seen| now.saturating_duration_since(seen.at) < SPAN);
            if all.len() >= MAX_AGENTS {
                return false;
            }
        }
        let before = all.get(&agent).copied();
        let recent = |when: Instant| now.saturating_duration_since(when) < SPAN;
        let is_other = before.is_some_and(|seen| seen.network != network && recent(seen.at));
        let told = before.and_then(|seen| seen.told).filter(|when| recent(*when));
        let tells = is_other && told.is_none();
        all.insert(agent, Seen { network, at: now, told: if tells { Some(now) } else { told } });
        tells
    }
}

/// A /24 of IPv4, a /48 of IPv6: about what one site has.
fn network(address: IpAddr) -> [u8; 6] {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            [0, 0, 0, a, b, c]
        }
        IpAddr::V6(address) => {
            let [a, b, c, d, e, f, ..] = address.octets();
            [a, b, c, d, e, f]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_agent_on_two_networks_is_told_of_once() {
        let (networks, start) = (Networks::default(), Instant::now());
        let agent = AgentId::from_random([1; 16]);
        let sees = |agent, address: &str, seconds| {
            networks.is_second(agent, Some(address.parse().unwrap()), start + Duration::from_secs(seconds))
        };
        assert!(!sees(agent, "192.0.2.1", 0) && !sees(agent, "192.0.2.99", 1), "one network");
        assert!(sees(agent, "198.51.100.7", 2), "two");
        assert!(!sees(agent, "192.0.2.1", 3), "told already");
        assert!(sees(agent, "2001:db8:1::1", 602), "again after a while");
        assert!(!sees(agent, "2001:db8:1:2::1", 2_000) && !sees(agent, "192.0.2.1", 2_700), "it moved");
        assert!(!sees(AgentId::from_random([2; 16]), "198.51.100.7", 2), "another agent");
        assert!(!networks.is_second(agent, None, start));
    }
}
