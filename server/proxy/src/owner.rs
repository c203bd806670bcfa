//! Whose a connection to a loopback address is: the kernel is asked for the socket at its other end (`sock_diag(7)`).
//!
//! What is not answered, or not for a socket that somebody holds and that is connected, is nobody's: who asks then serves
//! nobody.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::io;
use std::os::fd::OwnedFd;

use parking_lot::Mutex;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

/// How long the kernel may take; it answers within the question.
const PATIENCE: Duration = Duration::from_secs(1);
/// `SOCK_DIAG_BY_FAMILY`, of question and answer.
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST`.
const IS_REQUEST: u16 = 1;
const IPPROTO_TCP: u8 = 6;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// Every state; the answer's is looked at.
const ALL_STATES: u32 = u32::MAX;
/// `INET_DIAG_NOCOOKIE`, twice.
const NO_COOKIE: [u8; 8] = [0xff; 8];
/// `TCP_ESTABLISHED`, and `TCP_CLOSE_WAIT`: the other side, ours, is the only one that may have ended.
const CONNECTED: [u8; 2] = [1, 8];
/// The length of a header, of a question and of the part of an answer that is read.
const HEADER_BYTES: usize = 16;
const QUESTION_BYTES: u32 = 72;
const ANSWER_BYTES: usize = HEADER_BYTES + 72;

/// Whose a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Caller {
    /// One of those whom the proxy is for.
    Admitted {
        /// By a loopback address, where web pages of a browser come as well.
        by_tcp: bool,
    },
    /// Another user's.
    Stranger(u32),
    /// The kernel does not say.
    Unknown,
}

/// Asks the kernel, by one socket that was opened before the sandbox was entered.
#[derive(Debug)]
pub struct Owners(Mutex<Line>);

#[derive(Debug)]
struct Line {
    socket: OwnedFd,
    asked: u32,
}

impl Owners {
    /// Opens the way to ask.
    ///
    /// # Errors
    ///
    /// The system does not give the socket.
    pub fn open() -> io::Result<Self> {
        let family = AddressFamily::NETLINK;
        let diag = Some(netlink::SOCK_DIAG);
        let socket = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, diag)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        Ok(Self(Mutex::new(Line { socket, asked: 0 })))
    }

    /// The user who holds the socket that is bound to `peer` and connected to `ours`.
    ///
    /// # Errors
    ///
    /// There is none, or the kernel does not say.
    pub fn of(&self, peer: SocketAddr, ours: SocketAddr) -> io::Result<u32> {
        let mut line = self.0.lock();
        line.asked = line.asked.wrapping_add(1);
        let asked = line.asked;
        send(&line.socket, &question(asked, peer, ours), SendFlags::empty())?;
        loop {
            let mut answer = [0; 512];
            let (_, length) = recv(&line.socket, &mut answer, RecvFlags::empty())?;
            let answer = answer.get(..length).unwrap_or_default();
            // One of a question before, which took too long.
            if word(answer, 8) == Some(asked) {
                return held_by(answer, peer, ours);
            }
        }
    }
}

/// `struct nlmsghdr`, `struct inet_diag_req_v2`.
fn question(number: u32, peer: SocketAddr, ours: SocketAddr) -> Vec<u8> {
    let family = if peer.is_ipv4() { AF_INET } else { AF_INET6 };
    let mut bytes = Vec::new();
    bytes.extend(QUESTION_BYTES.to_ne_bytes());
    bytes.extend(BY_FAMILY.to_ne_bytes());
    bytes.extend(IS_REQUEST.to_ne_bytes());
    bytes.extend(number.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend([family, IPPROTO_TCP, 0, 0]);
    bytes.extend(ALL_STATES.to_ne_bytes());
    bytes.extend(peer.port().to_be_bytes());
    bytes.extend(ours.port().to_be_bytes());
    bytes.extend(octets(peer.ip()));
    bytes.extend(octets(ours.ip()));
    bytes.extend([0; 4]);
    bytes.extend(NO_COOKIE);
    bytes
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V6(address) => address.octets(),
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
    }
}

/// `struct nlmsghdr`, `struct inet_diag_msg`: of a socket that is connected there and that somebody holds, its user. One that nobody
/// holds any more has user 0 and inode 0.
fn held_by(answer: &[u8], peer: SocketAddr, ours: SocketAddr) -> io::Result<u32> {
    let nobody = || io::Error::new(io::ErrorKind::NotFound, "the kernel knows no such connection");
    let port = |at| word(answer, at).map(u32::to_ne_bytes);
    let ([p, q], [r, s]) = (peer.port().to_be_bytes(), ours.port().to_be_bytes());
    let is_an_answer = answer.len() >= ANSWER_BYTES
        && answer.get(4..6) == Some(&BY_FAMILY.to_ne_bytes()[..])
        && answer.get(17).is_some_and(|state| CONNECTED.contains(state))
        && port(20) == Some([p, q, r, s]);
    let (user, inode) = (word(answer, HEADER_BYTES + 64), word(answer, HEADER_BYTES + 68));
    match (user, inode) {
        (Some(user), Some(1..)) if is_an_answer => Ok(user),
        _ => Err(nobody()),
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn own() -> u32 {
        use std::os::unix::fs::MetadataExt as _;
        std::fs::metadata("/proc/self").unwrap().uid()
    }

    #[test]
    fn a_connection_is_its_users_and_what_is_none_is_nobodys() {
        let owners = Owners::open().unwrap();
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                assert!(address.starts_with('['), "there is no IPv4");
                eprintln!("NOT TESTED: this machine has no IPv6");
                continue;
            };
            let at = listener.local_addr().unwrap();
            let stream = TcpStream::connect(at).unwrap();
            let peer = stream.local_addr().unwrap();
            let (kept, seen) = listener.accept().unwrap();
            assert_eq!(seen, peer);
            assert_eq!(owners.of(peer, at).unwrap(), own());
            let mut other = peer;
            other.set_port(1);
            assert!(owners.of(other, at).is_err(), "a port that nobody has");
            assert!(owners.of(at, peer).is_ok(), "our own end, seen from there");
            drop(kept);
            assert!(owners.of(at, other).is_err(), "one that only listens");
            drop(stream);
            assert!(owners.of(peer, at).is_err(), "nobody holds it any more");
        }
    }

    #[test]
    fn an_answer_that_is_cut_or_of_another_connection_is_nobodys() {
        let (peer, ours) = ("127.0.0.1:4000".parse().unwrap(), "127.0.0.1:8740".parse().unwrap());
        let mut answer = vec![0; ANSWER_BYTES];
        answer[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
        answer[17] = 1;
        answer[20..22].copy_from_slice(&4000_u16.to_be_bytes());
        answer[22..24].copy_from_slice(&8740_u16.to_be_bytes());
        answer[80..84].copy_from_slice(&1000_u32.to_ne_bytes());
        answer[84..88].copy_from_slice(&7_u32.to_ne_bytes());
        assert_eq!(held_by(&answer, peer, ours).unwrap(), 1000);
        for (at, byte) in [(17, 10), (17, 6), (20, 1), (23, 1), (84, 0), (4, 2)] {
            let mut wrong = answer.clone();
            wrong[at] = byte;
            assert!(held_by(&wrong, peer, ours).is_err(), "{at}");
        }
        for length in 0..ANSWER_BYTES {
            assert!(held_by(&answer[..length], peer, ours).is_err(), "{length}");
        }
    }
}
