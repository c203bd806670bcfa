//! Bodies on their way in, from anybody who can connect: what they may take of this process.
//!
//! A body costs nothing to announce, and little to send all of but its last byte. So bodies under way are bounded in
//! number, in the sum of their bytes and in their time, and who holds most gives way first: where there is no room for
//! another body, or another piece of one, the oldest body of the peer that holds most is given up and answered 503. A body
//! that is there within moments, as nearly all are, is counted nowhere until then.

use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use core::time::Duration;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::ConnectInfo;
use http::{Extensions, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Bytes, Frame};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::refusal::Problem;

/// The longest body that is read, in bytes.
pub(crate) const MAX_BODY_BYTES: usize = 1 << 20;
/// How long a body may take to arrive, unless told otherwise.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// The most bodies under way at a time.
const MAX_BODIES: usize = 1_024;
/// The most bytes of bodies that are under way or being worked on, in all; with what is reckoned for each.
const MAX_BYTES: usize = 16 << 20;
/// What is reckoned for a body beside its own bytes, once it is longer than [`SMALL`]: the connection's buffer.
const BUFFER_BYTES: usize = 64 << 10;
/// Bodies up to this many bytes are not counted once they are there.
const SMALL: usize = 16 << 10;
/// Pieces of a body shorter than this, in bytes, are put together.
const SHORT_PIECE_BYTES: usize = 4 << 10;
/// What may be held by bodies that were told to give way and have not yet, in bytes, before others wait for them.
const MAX_LEAVING_BYTES: usize = 4 << 20;
/// A body must arrive this fast, in bytes a second,
const MIN_RATE: u64 = 128 << 10;
/// after this time, in which it may take a rest.
const GRACE: Duration = Duration::from_secs(2);

/// Who sends: an address, or as much of it as one subscriber has to itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Peer(Option<IpAddr>);

impl Peer {
    /// The peer of a request, where the server that took the connection has noted it.
    pub(crate) fn of(extensions: &Extensions) -> Self {
        let noted = extensions.get::<ConnectInfo<SocketAddr>>();
        Self(noted.map(|ConnectInfo(address)| match address.ip().to_canonical() {
            IpAddr::V6(ip) => {
                // A host has 2^64 addresses to itself.
                let [a, b, c, d, ..] = ip.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
            ip => ip,
        }))
    }
}

/// See the module's header. Clones share everything.
#[derive(Clone, Debug)]
pub(crate) struct Bodies {
    state: Arc<Mutex<State>>,
    timeout: Duration,
}

#[derive(Debug)]
struct State {
    most_bodies: usize,
    most_bytes: usize,
    last: u64,
    bytes: usize,
    /// Bytes of bodies that were told to give way and have not yet.
    leaving: usize,
    bodies: BTreeMap<u64, Coming>,
    peers: HashMap<Peer, Held>,
}

#[derive(Debug)]
struct Coming {
    peer: Peer,
    bytes: usize,
    /// It is whole, and being worked on.
    whole: bool,
    give_way: Arc<Notify>,
}

/// What one peer has under way.
#[derive(Clone, Copy, Default, Debug)]
struct Held {
    bodies: usize,
    bytes: usize,
}

impl Bodies {
    /// Within the standard bounds.
    pub(crate) fn new(timeout: Duration) -> Self {
        Self::bounded(MAX_BODIES, MAX_BYTES, timeout)
    }

    fn bounded(most_bodies: usize, most_bytes: usize, timeout: Duration) -> Self {
        let (bodies, peers) = (BTreeMap::new(), HashMap::new());
        let state = State { most_bodies, most_bytes, last: 0, bytes: 0, leaving: 0, bodies, peers };
        Self { state: Arc::new(Mutex::new(state)), timeout }
    }

    /// Reads a body whole, within bounds.
    pub(crate) async fn read(&self, peer: Peer, mut body: Body) -> Result<Whole, Problem> {
        let mut received = Received::default();
        while let Some(frame) = ready_frame(&mut body).await {
            match frame {
                Some(frame) => received.add(frame)?,
                None => return self.keep(peer, received, None),
            }
        }
        let began = Instant::now();
        let mut place = self.enter(peer, received.bytes)?;
        let give_way = Arc::clone(&place.give_way);
        loop {
            let rest = Duration::from_secs(received.bytes as u64) / u32::try_from(MIN_RATE).unwrap_or(1);
            let deadline = began + self.timeout.min(GRACE + rest);
            let frame = tokio::select! {
                biased;
                () = give_way.notified() => return Err(Problem::overloaded()),
                frame = timeout_at(deadline, body.frame()) => frame,
            };
            match frame {
                Ok(Some(frame)) => {
                    received.add(frame)?;
                    place.hold(received.bytes)?;
                    place.let_others_leave().await?;
                }
                Ok(None) => return self.keep(peer, received, Some(place)),
                Err(_) => {
                    let detail = "the body did not arrive in time";
                    return Err(Problem::malformed(StatusCode::REQUEST_TIMEOUT, detail));
                }
            }
        }
    }

    /// A place for a body under way.
    fn enter(&self, peer: Peer, bytes: usize) -> Result<Place, Problem> {
        let give_way = Arc::new(Notify::new());
        let mut state = self.lock();
        if state.bodies.len() >= state.most_bodies && !state.make_room(|held| held.bodies) {
            return Err(Problem::overloaded());
        }
        state.last += 1;
        let number = state.last;
        let coming = Coming { peer, bytes: 0, whole: false, give_way: Arc::clone(&give_way) };
        state.bodies.insert(number, coming);
        state.peers.entry(peer).or_default().bodies += 1;
        drop(state);
        let mut place = Place { bodies: self.clone(), number, charge: 0, give_way };
        place.hold(bytes)?;
        Ok(place)
    }

    /// Counts a long body for as long as it is worked on; a short one no more.
    fn keep(&self, peer: Peer, received: Received, place: Option<Place>) -> Result<Whole, Problem> {
        let place = match place {
            _ if received.bytes <= SMALL => None,
            Some(place) => Some(place),
            None => Some(self.enter(peer, received.bytes)?),
        };
        if let Some(place) = &place
            && let Some(coming) = self.lock().bodies.get_mut(&place.number)
        {
            coming.whole = true;
        }
        Ok(Whole { bytes: received.into_bytes(), _place: place })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl State {
    /// Gives up the oldest body, of those that are still coming, of the peer that holds most; false where there is none.
    fn make_room(&mut self, held: impl Fn(&Held) -> usize) -> bool {
        let coming = self.bodies.iter().filter(|(_, coming)| !coming.whole);
        let weight = |coming: &Coming| self.peers.get(&coming.peer).map_or(0, &held);
        // Of equals the last is taken, so the oldest comes last.
        let Some((&number, _)) = coming.rev().max_by_key(|(_, coming)| weight(coming)) else { return false };
        if let Some(coming) = self.forget(number) {
            self.leaving += coming.bytes;
            coming.give_way.notify_one();
        }
        true
    }

    fn forget(&mut self, number: u64) -> Option<Coming> {
        let coming = self.bodies.remove(&number)?;
        self.bytes -= coming.bytes;
        if let Some(held) = self.peers.get_mut(&coming.peer) {
            (held.bodies, held.bytes) = (held.bodies - 1, held.bytes - coming.bytes);
            if held.bodies == 0 {
                self.peers.remove(&coming.peer);
            }
        }
        Some(coming)
    }
}

/// A body, as much of it as is there.
#[derive(Default, Debug)]
struct Received {
    /// As they came, most often one. Short ones that follow are collected, so that each does not cost more than it holds.
    pieces: Vec<Bytes>,
    tail: Vec<u8>,
    bytes: usize,
}

impl Received {
    fn add(&mut self, frame: Result<Frame<Bytes>, axum::Error>) -> Result<(), Problem> {
        let Ok(frame) = frame else {
            return Err(Problem::malformed(StatusCode::BAD_REQUEST, "the body did not arrive whole"));
        };
        let Ok(data) = frame.into_data() else { return Ok(()) };
        self.bytes += data.len();
        if self.bytes > MAX_BODY_BYTES {
            let detail = format!("the body is longer than {MAX_BODY_BYTES} bytes");
            return Err(Problem::malformed(StatusCode::PAYLOAD_TOO_LARGE, detail));
        }
        if self.pieces.is_empty() {
            self.pieces.push(data);
            return Ok(());
        }
        if data.len() < SHORT_PIECE_BYTES {
            self.tail.extend_from_slice(&data);
        }
        if self.tail.len() >= SHORT_PIECE_BYTES || data.len() >= SHORT_PIECE_BYTES {
            let tail = core::mem::take(&mut self.tail);
            self.pieces.extend((!tail.is_empty()).then(|| tail.into()));
        }
        if data.len() >= SHORT_PIECE_BYTES {
            self.pieces.push(data);
        }
        Ok(())
    }

    fn into_bytes(mut self) -> Bytes {
        match (self.pieces.len(), self.tail.is_empty()) {
            (0 | 1, true) => self.pieces.pop().unwrap_or_default(),
            _ => {
                self.pieces.push(self.tail.into());
                self.pieces.concat().into()
            }
        }
    }
}

/// A body that is there.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) bytes: Bytes,
    /// Keeps a long one counted while it is worked on.
    _place: Option<Place>,
}

/// A place among the bodies under way.
#[derive(Debug)]
struct Place {
    bodies: Bodies,
    number: u64,
    /// What is counted for it.
    charge: usize,
    give_way: Arc<Notify>,
}

impl Place {
    /// Counts this many bytes for the body; others give way for them, or it does itself.
    fn hold(&mut self, bytes: usize) -> Result<(), Problem> {
        let charge = bytes + if bytes > SMALL { BUFFER_BYTES } else { 0 };
        let mut state = self.bodies.lock();
        let state = &mut *state;
        let coming = state.bodies.get_mut(&self.number).ok_or_else(Problem::overloaded)?;
        let more = charge - coming.bytes;
        coming.bytes = charge;
        self.charge = charge;
        state.bytes += more;
        if let Some(held) = state.peers.get_mut(&coming.peer) {
            held.bytes += more;
        }
        while state.bytes > state.most_bytes {
            if !state.make_room(|held| held.bytes) {
                return Err(Problem::overloaded());
            }
        }
        if state.bodies.contains_key(&self.number) { Ok(()) } else { Err(Problem::overloaded()) }
    }

    /// Lets the bodies that were told to give way do it, before there is more; itself, if it is one of them.
    async fn let_others_leave(&self) -> Result<(), Problem> {
        while self.must_wait()? {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    fn must_wait(&self) -> Result<bool, Problem> {
        let state = self.bodies.lock();
        if state.bodies.contains_key(&self.number) {
            Ok(state.leaving > MAX_LEAVING_BYTES)
        } else {
            Err(Problem::overloaded())
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.bodies.lock();
        if state.forget(self.number).is_none() {
            state.leaving -= self.charge;
        }
    }
}

/// The next piece of a body, where one is there already: `None` where it is still to come, `Some(None)` at the end.
async fn ready_frame(body: &mut Body) -> Option<Option<Result<Frame<Bytes>, axum::Error>>> {
    use core::future::poll_fn;
    use core::pin::Pin;
    use core::task::Poll;
    if body.is_end_stream() {
        return Some(None);
    }
    poll_fn(|context| {
        Poll::Ready(match Pin::new(&mut *body).poll_frame(context) {
            Poll::Ready(frame) => Some(frame),
            Poll::Pending => None,
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8) -> Peer {
        Peer(Some(IpAddr::from([10, 0, 0, number])))
    }

    fn bodies(number: usize, bytes: usize) -> Bodies {
        Bodies::bounded(number, bytes, BODY_TIMEOUT)
    }

    fn numbers(bodies: &Bodies) -> Vec<u64> {
        bodies.lock().bodies.keys().copied().collect()
    }

    #[test]
    fn who_has_most_bodies_under_way_gives_way_first_and_its_oldest_body_does() {
        let bodies = bodies(4, 1 << 20);
        let one = bodies.enter(peer(1), 0).unwrap();
        let _many: Vec<_> = (0..3).map(|_| bodies.enter(peer(2), 0).unwrap()).collect();
        let _other = bodies.enter(peer(3), 0).unwrap();
        assert_eq!(numbers(&bodies), [1, 3, 4, 5]);
        // Of peers that hold one each the oldest body goes.
        drop(_many);
        let _more: Vec<_> = (4..7).map(|number| bodies.enter(peer(number), 0).unwrap()).collect();
        assert!(!numbers(&bodies).contains(&one.number));
    }

    #[test]
    fn who_has_most_bytes_under_way_gives_way_to_others_and_to_itself() {
        let bodies = bodies(100, 10_000);
        let mut first = bodies.enter(peer(1), 4_000).unwrap();
        let mut second = bodies.enter(peer(1), 4_000).unwrap();
        let mut small = bodies.enter(peer(2), 1_000).unwrap();
        small.hold(3_000).unwrap();
        assert!(first.hold(4_001).is_err(), "the oldest of the peer with most");
        second.hold(6_000).unwrap();
        assert_eq!(bodies.lock().bytes, 9_000);
        assert!(second.hold(7_001).is_err(), "and at last itself");
        small.hold(9_999).unwrap();
        assert_ne!(bodies.lock().leaving, 0);
        drop((first, second, small));
        let state = bodies.lock();
        assert_eq!((state.bytes, state.leaving, state.bodies.len(), state.peers.len()), (0, 0, 0, 0));
    }

    #[test]
    fn what_is_whole_is_not_given_up() {
        let bodies = bodies(100, 100 << 10);
        let received = |bytes| Received { pieces: vec![vec![0; bytes].into()], tail: Vec::new(), bytes };
        let kept = bodies.keep(peer(1), received(30 << 10), None).unwrap();
        assert!(bodies.enter(peer(2), 30 << 10).is_err(), "there is no room beside it");
        assert_eq!(numbers(&bodies), [1]);
        drop(kept);
        bodies.enter(peer(2), 30 << 10).unwrap();
        let small = bodies.keep(peer(1), received(SMALL), None).unwrap();
        assert!(small._place.is_none(), "short ones are not counted");
    }

    #[test]
    fn pieces_of_all_lengths_come_out_as_one_body() {
        for lengths in
            [&[][..], &[5], &[5, 6], &[5_000, 1, 2, 3, 5_000, 4], &[1; 5_000], &[4_096, 4_095, 1, 4_096]]
        {
            let (mut received, mut sent) = (Received::default(), Vec::new());
            for (place, length) in lengths.iter().enumerate() {
                let piece = vec![u8::try_from(place % 251).unwrap(); *length];
                sent.extend_from_slice(&piece);
                received.add(Ok(Frame::data(piece.into()))).unwrap();
            }
            assert!(
                received.pieces.len() <= 2 + sent.len() / SHORT_PIECE_BYTES * 2,
                "short pieces are put together"
            );
            assert_eq!(received.into_bytes(), sent);
        }
    }

    #[test]
    fn addresses_that_one_host_has_many_of_are_one_peer() {
        let peer = |address: &str| {
            let mut extensions = Extensions::new();
            extensions.insert(ConnectInfo::<SocketAddr>(address.parse().unwrap()));
            Peer::of(&extensions)
        };
        assert_eq!(peer("[2001:db8::1]:1"), peer("[2001:db8::ffff:2]:2"));
        assert_ne!(peer("[2001:db8::1]:1"), peer("[2001:db8:0:1::1]:1"));
        assert_eq!(peer("[::ffff:127.0.0.1]:1"), peer("127.0.0.1:2"));
        assert_ne!(peer("127.0.0.1:1"), peer("127.0.0.2:1"));
        assert_eq!(Peer::of(&Extensions::new()), Peer(None));
    }
}
