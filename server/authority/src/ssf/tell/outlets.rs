//! One task for each who is told. It reads the directory's events behind its own cursor, which is kept, sends what is asked for,
//! one after the other, and tries again until it is taken: a second apart at first, a minute at most. Nobody waits for it. Once
//! events are forgotten that it has not told, it goes on with what is left, and what is lost is counted.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::said::{self, Said};
use crate::authority::{Authority, Now};
use crate::directory::{Answer, Directory, EventStream, Happening};
use crate::notices::{Notice, Topic};
use crate::outbound::{Outbound, Target};
use crate::ssf::effect::SET_TYPE;
use crate::ssf::outlet_settings::{HookSettings, TellSettings};
use crate::ssf::trial::fresh_name;

/// The first and the longest pause before something is sent again.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How often it is looked for events that nobody was woken for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often a notice is tried, which is not kept.
const NOTICE_TRIES: u32 = 6;
/// The most acknowledged names of one stream that are ahead of others.
const MAX_AHEAD: usize = 1_000;

/// How it stands with one who is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutletStatus {
    /// Its name.
    pub name: String,
    /// `stream` or `webhook`.
    pub kind: &'static str,
    /// How many events it has not come to.
    pub waiting: u64,
    /// How much it has taken.
    pub sent: u64,
    /// How much was given up.
    pub dropped: u64,
    /// Why it took nothing the last time.
    pub error: Option<String>,
}

#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    dropped: AtomicU64,
    cursor: AtomicU64,
    error: Mutex<Option<String>>,
}

/// See the module's header.
#[derive(Debug)]
pub(in crate::ssf) struct Outlets {
    settings: TellSettings,
    outbound: Outbound,
    counts: Mutex<BTreeMap<String, (&'static str, Arc<Counts>)>>,
    /// Streams were made, changed or removed.
    changes: Notify,
    /// A token that shows that a stream works, by the stream: its name, and what it is to say.
    verifications: Mutex<HashMap<String, (String, String)>>,
    verify: Notify,
    /// Names that a receiver acknowledged before those in front of them.
    ahead: Mutex<HashMap<String, BTreeSet<u64>>>,
}

/// What came of sending something once.
enum Sent {
    Taken,
    /// It is wrong for them, and stays so.
    Refused(String),
    /// It may be taken later.
    Later(String),
}

/// Something for one who is told: it is made anew each time it is sent, for it carries the time.
type Make<'a> = dyn Fn(Now) -> Result<(HeaderMap, Vec<u8>), String> + Send + Sync + 'a;

/// Whom something is sent to, and which answer means that they want no more of it.
struct Mailbox<'a> {
    target: &'a Target,
    never: StatusCode,
    counts: Arc<Counts>,
    now: fn() -> Now,
}

impl Outlets {
    pub(in crate::ssf) fn new(settings: TellSettings, outbound: Outbound) -> Self {
        Self {
            settings,
            outbound,
            counts: Mutex::default(),
            changes: Notify::new(),
            verifications: Mutex::default(),
            verify: Notify::new(),
            ahead: Mutex::default(),
        }
    }

    pub(super) fn settings(&self) -> &TellSettings {
        &self.settings
    }

    pub(super) fn changed(&self) {
        self.changes.notify_one();
    }

    /// Has a token sent on a stream that shows that it works. One waits for each.
    pub(super) fn verify(&self, stream: &str, state: String) {
        self.verifications.lock().insert(stream.to_owned(), (format!("v.{}", fresh_name()), state));
        self.verify.notify_waiters();
    }

    pub(super) fn verification_for(&self, stream: &str) -> Option<(String, String)> {
        self.verifications.lock().get(stream).cloned()
    }

    fn forget_verification(&self, stream: &str, name: &str) {
        let mut all = self.verifications.lock();
        if all.get(stream).is_some_and(|(waiting, _)| waiting == name) {
            all.remove(stream);
        }
    }

    fn counts(&self, name: &str, kind: &'static str) -> Arc<Counts> {
        let mut all = self.counts.lock();
        Arc::clone(&all.entry(name.to_owned()).or_insert_with(|| (kind, Arc::default())).1)
    }

    pub(in crate::ssf) fn status(&self, head: u64) -> Vec<OutletStatus> {
        let all = self.counts.lock();
        let status = |(name, (kind, counts)): (&String, &(&'static str, Arc<Counts>))| OutletStatus {
            name: name.clone(),
            kind,
            waiting: head.saturating_sub(counts.cursor.load(Ordering::Relaxed)),
            sent: counts.sent.load(Ordering::Relaxed),
            dropped: counts.dropped.load(Ordering::Relaxed),
            error: counts.error.lock().clone(),
        };
        all.iter().map(status).collect()
    }

    /// Tells until it is dropped.
    pub(in crate::ssf) async fn run(self: Arc<Self>, authority: Arc<Authority>, now: fn() -> Now) {
        let mut hooks = JoinSet::new();
        for index in 0..self.settings.hooks.len() {
            let (outlets, reader) = (Arc::clone(&self), Arc::clone(&authority));
            hooks.spawn(async move { outlets.run_hook(index, &reader, now).await });
            let (outlets, notices) = (Arc::clone(&self), authority.notices().listen());
            let origin = authority.settings().origin().to_owned();
            hooks.spawn(async move { outlets.run_notices(index, notices, &origin, now).await });
        }
        loop {
            let reader = Arc::clone(&authority);
            let streams = tokio::task::spawn_blocking(move || reader.directory().event_streams()).await;
            let mut tasks = JoinSet::new();
            for stream in streams.ok().and_then(Result::ok).unwrap_or_default() {
                self.counts(&stream.id, "stream").cursor.store(stream.cursor, Ordering::Relaxed);
                if stream.push.is_some() && stream.status == "enabled" {
                    let (outlets, authority) = (Arc::clone(&self), Arc::clone(&authority));
                    tasks.spawn(async move { outlets.run_stream(stream, &authority, now).await });
                }
            }
            // Dropping the tasks ends them; where each had come to is kept.
            self.changes.notified().await;
        }
    }

    /// Pushes what a stream asks for.
    async fn run_stream(&self, stream: EventStream, authority: &Arc<Authority>, now: fn() -> Now) {
        let counts = self.counts(&stream.id, "stream");
        let Some(receiver) = self.settings.receiver_named(&stream.receiver) else {
            *counts.error.lock() =
                Some("its receiver is not in the file of security events any more".to_owned());
            return;
        };
        let allowed = stream.push.as_deref().and_then(|url| Target::parse(url).ok());
        let Some(target) = allowed.filter(|target| receiver.may_push_to(target)) else {
            *counts.error.lock() = Some("its address is not allowed any more".to_owned());
            return;
        };
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/secevent+jwt"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(Ok(mut value)) = stream.authorization.as_deref().map(HeaderValue::from_str) {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let origin = authority.settings().origin().to_owned();
        // RFC 8935: whoever takes a token and cannot use it says so with 400.
        let mailbox =
            Mailbox { target: &target, never: StatusCode::BAD_REQUEST, counts: Arc::clone(&counts), now };
        let sign = |claims: &serde_json::Value, now: Now| {
            let keys = authority.signing_keys(now).map_err(|error| error.to_string())?;
            let token = keys.sign(receiver.algorithm, SET_TYPE, claims, now.secs());
            let token = token.map_err(|error| error.to_string())?;
            Ok((headers.clone(), token.into_bytes()))
        };
        let mut cursor = stream.cursor;
        loop {
            if let Some((jti, state)) = self.verification_for(&stream.id) {
                let make = |now: Now| {
                    let claims =
                        said::verification(&origin, &receiver.name, &stream.id, &state, &jti, now.secs());
                    sign(&claims, now)
                };
                self.until_taken(&mailbox, &make).await;
                self.forget_verification(&stream.id, &jti);
            }
            let page = self.page(&stream.id, cursor, authority, &counts).await;
            for said in page.said.iter().filter(|said| stream.events.iter().any(|kind| kind == said.kind)) {
                let jti = format!("{}.{}", stream.id, said.seq);
                let make = |now: Now| sign(&said.claims(&origin, &receiver.name, &jti, now.secs()), now);
                self.until_taken(&mailbox, &make).await;
                self.come_to(&stream.id, said.seq, authority, &counts).await;
            }
            if page.head > cursor {
                cursor = page.head;
                self.come_to(&stream.id, cursor, authority, &counts).await;
            } else {
                self.wait(authority).await;
            }
        }
    }

    /// Sends to a webhook what opens and ends.
    async fn run_hook(&self, index: usize, authority: &Arc<Authority>, now: fn() -> Now) {
        let Some(hook) = self.settings.hooks.get(index) else { return };
        let counts = self.counts(&hook.name, "webhook");
        if !hook.tells.contains(&Topic::Sessions) {
            return;
        }
        let name = format!("hook:{}", hook.name);
        let (reader, of) = (Arc::clone(authority), name.clone());
        let begun = tokio::task::spawn_blocking(move || {
            let directory = reader.directory();
            directory.told(&of, directory.last_event()?)
        });
        let mut cursor = match begun.await {
            Ok(Ok(cursor)) => cursor,
            _ => return,
        };
        counts.cursor.store(cursor, Ordering::Relaxed);
        let origin = authority.settings().origin().to_owned();
        let mailbox = hook_box(hook, &counts, now);
        loop {
            let page = self.page(&name, cursor, authority, &counts).await;
            for said in &page.said {
                let (id, body) = (format!("evt_{}", said.seq), said.to_json(&origin).to_string());
                let make = |now: Now| Ok(hook_request(hook, &id, &body, now));
                self.until_taken(&mailbox, &make).await;
                self.come_to(&name, said.seq, authority, &counts).await;
            }
            if page.head > cursor {
                cursor = page.head;
                self.come_to(&name, cursor, authority, &counts).await;
            } else {
                self.wait(authority).await;
            }
        }
    }

    /// Sends to a webhook what is told once.
    async fn run_notices(
        &self,
        index: usize,
        mut notices: broadcast::Receiver<Notice>,
        origin: &str,
        now: fn() -> Now,
    ) {
        let Some(hook) = self.settings.hooks.get(index) else { return };
        let counts = self.counts(&hook.name, "webhook");
        let mailbox = hook_box(hook, &counts, now);
        loop {
            let notice = match notices.recv().await {
                Ok(notice) => notice,
                Err(broadcast::error::RecvError::Lagged(lost)) => {
                    counts.dropped.fetch_add(lost, Ordering::Relaxed);
                    continue;
                }
                Err(broadcast::error::RecvError::Closed) => return,
            };
            if !hook.tells.contains(&notice.topic) {
                continue;
            }
            let (id, body) = (format!("ntc_{}", fresh_name()), notice.to_json(origin).to_string());
            let make = |now: Now| Ok(hook_request(hook, &id, &body, now));
            self.tries(&mailbox, &make, NOTICE_TRIES).await;
        }
    }

    /// Sends until it is taken, or refused for good.
    async fn until_taken(&self, mailbox: &Mailbox<'_>, make: &Make<'_>) {
        self.tries(mailbox, make, u32::MAX).await;
    }

    async fn tries(&self, mailbox: &Mailbox<'_>, make: &Make<'_>, most: u32) {
        let mut pause = PAUSES.0;
        for tried in 1..=most {
            match self.send(mailbox, make).await {
                Sent::Taken => return mailbox.counts.note(None),
                Sent::Later(error) if tried < most => {
                    *mailbox.counts.error.lock() = Some(error);
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSES.1);
                }
                Sent::Later(error) | Sent::Refused(error) => return mailbox.counts.note(Some(error)),
            }
        }
    }

    async fn send(&self, mailbox: &Mailbox<'_>, make: &Make<'_>) -> Sent {
        let (headers, body) = match make((mailbox.now)()) {
            Ok(made) => made,
            Err(error) => return Sent::Later(error),
        };
        match self.outbound.post(mailbox.target, headers, body).await {
            Err(error) => Sent::Later(error.to_string()),
            Ok(answer) if answer.status.is_success() => Sent::Taken,
            Ok(answer) if answer.status == mailbox.never => Sent::Refused(answer.status.to_string()),
            Ok(answer) => Sent::Later(answer.status.to_string()),
        }
    }

    /// What happened behind a cursor.
    async fn page(&self, name: &str, cursor: u64, authority: &Arc<Authority>, counts: &Counts) -> Page {
        let reader = Arc::clone(authority);
        let read = tokio::task::spawn_blocking(move || read_page(reader.directory(), cursor)).await;
        match read {
            Ok(Ok(page)) => {
                if page.lost > 0 {
                    tracing::error!(
                        name,
                        lost = page.lost,
                        "events were forgotten before somebody was told of them"
                    );
                    counts.dropped.fetch_add(page.lost, Ordering::Relaxed);
                }
                page
            }
            Ok(Err(error)) => {
                tracing::error!(name, %error, "events could not be read, so somebody is not told of them");
                Page::default()
            }
            Err(_) => Page::default(),
        }
    }

    async fn come_to(&self, name: &str, cursor: u64, authority: &Arc<Authority>, counts: &Counts) {
        counts.cursor.store(cursor, Ordering::Relaxed);
        let (writer, name) = (Arc::clone(authority), name.to_owned());
        let kept = tokio::task::spawn_blocking(move || writer.directory().come_to(&name, cursor)).await;
        if let Ok(Err(error)) = kept {
            tracing::error!(%error, "how far somebody was told could not be kept; they are told again after a restart");
        }
    }

    async fn wait(&self, authority: &Authority) {
        let mut head = authority.directory().head();
        head.mark_unchanged();
        let woken = async {
            tokio::select! {
                _ = head.changed() => {}
                () = self.verify.notified() => {}
            }
        };
        // Also without being woken, should a commit have been before it was listened for.
        let _woken = timeout(LOOK_EVERY, woken).await;
    }

    /// Notes what a receiver has acknowledged; where its stream has come to.
    pub(super) fn acknowledge(
        &self,
        stream: &EventStream,
        names: impl Iterator<Item = String>,
        directory: &dyn Directory,
    ) -> Answer<u64> {
        let prefix = format!("{}.", stream.id);
        let mut all = self.ahead.lock();
        let ahead = all.entry(stream.id.clone()).or_default();
        for name in names {
            match name.strip_prefix(&prefix).and_then(|seq| seq.parse().ok()) {
                Some(seq) if seq > stream.cursor && ahead.len() < MAX_AHEAD => {
                    ahead.insert(seq);
                }
                _ => self.forget_verification(&stream.id, &name),
            }
        }
        let page = read_page(directory, stream.cursor)?;
        let is_open =
            |said: &&Said| stream.events.iter().any(|kind| kind == said.kind) && !ahead.contains(&said.seq);
        // Up to before the first that was not acknowledged.
        let cursor = page.said.iter().find(is_open).map_or(page.head, |said| said.seq.saturating_sub(1));
        let counts = self.counts(&stream.id, "stream");
        counts.sent.fetch_add(ahead.iter().filter(|seq| **seq <= cursor).count() as u64, Ordering::Relaxed);
        ahead.retain(|seq| *seq > cursor);
        drop(all);
        counts.dropped.fetch_add(page.lost, Ordering::Relaxed);
        if cursor > stream.cursor {
            counts.cursor.store(cursor, Ordering::Relaxed);
            directory.come_to(&stream.id, cursor)?;
        }
        Ok(cursor)
    }

    /// What waits for a stream, and whether there is more.
    pub(super) fn waiting(
        &self,
        stream: &EventStream,
        directory: &dyn Directory,
        most: usize,
    ) -> Answer<(Vec<Said>, bool)> {
        if stream.status != "enabled" {
            return Ok((Vec::new(), false));
        }
        let mut said = read_page(directory, stream.cursor)?.said;
        let all = self.ahead.lock();
        let ahead = all.get(&stream.id);
        said.retain(|said| {
            stream.events.iter().any(|kind| kind == said.kind)
                && !ahead.is_some_and(|ahead| ahead.contains(&said.seq))
        });
        let more = said.len() > most;
        said.truncate(most);
        Ok((said, more))
    }
}

/// Events behind a cursor.
#[derive(Debug, Default)]
struct Page {
    said: Vec<Said>,
    /// The last event that was looked at.
    head: u64,
    /// How many were forgotten before.
    lost: u64,
}

fn read_page(directory: &dyn Directory, cursor: u64) -> Answer<Page> {
    let mut page = Page { head: cursor, ..Page::default() };
    let events = match directory.events(cursor)? {
        Some(events) => events,
        None => {
            // What is left begins somewhere behind it.
            let last = directory.last_event()?;
            page.lost = last.saturating_sub(cursor);
            page.head = last;
            return Ok(page);
        }
    };
    for event in events {
        page.head = event.seq;
        if matches!(event.what, Happening::SessionOpen { .. } | Happening::SessionEnd { .. }) {
            page.said.extend(said::of(&event, directory)?);
        }
    }
    Ok(page)
}

/// The Standard Webhooks: 410 says that the receiver wants no more of it.
fn hook_box<'a>(hook: &'a HookSettings, counts: &Arc<Counts>, now: fn() -> Now) -> Mailbox<'a> {
    Mailbox { target: &hook.url, never: StatusCode::GONE, counts: Arc::clone(counts), now }
}

fn hook_request(hook: &HookSettings, id: &str, body: &str, now: Now) -> (HeaderMap, Vec<u8>) {
    (hook.key.headers(id, now.secs(), body.as_bytes()), body.as_bytes().to_vec())
}

impl Counts {
    fn note(&self, given_up: Option<String>) {
        let count = if given_up.is_some() { &self.dropped } else { &self.sent };
        count.fetch_add(1, Ordering::Relaxed);
        *self.error.lock() = given_up;
    }
}
