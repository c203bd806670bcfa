//! Files that belong together: one that is gone beside the other is noticed, and brings nothing back.
//!
//! `docs/design.md` lists the pairs.

use std::fs;

use obol_queue::{DequeueError, FlushScope, OpenError, Queue};

use crate::queue::{draw, now};
use crate::support::{Store, World};

/// A store with a session that was flushed, closed.
fn flushed_store() -> Store {
    let store = Store::new();
    let queue = Queue::open(store.database(), store.master_key()).unwrap();
    queue.provision(World::new(1, now(), &["search"]).document()).unwrap();
    draw(&queue, "search");
    queue.flush(&FlushScope::All, "the agent was hijacked").unwrap();
    assert_eq!(queue.dequeue("search").unwrap_err(), DequeueError::SessionFlushed);
    store
}

#[test]
fn of_the_two_files_of_a_store_neither_comes_back_alone() {
    const DATABASE: &str = "tokens.redb";
    const KEYS: &str = "tokens.redb.keys";
    for (lost, kept) in [(DATABASE, KEYS), (KEYS, DATABASE)] {
        for emptied in [false, true] {
            let store = flushed_store();
            let (lost, kept) = (store.path(lost), store.path(kept));
            let aside = store.path("aside");
            fs::copy(&lost, &aside).unwrap();
            let before = fs::read(&kept).unwrap();
            if emptied {
                fs::File::options().write(true).open(&lost).unwrap().set_len(0).unwrap();
            } else {
                fs::remove_file(&lost).unwrap();
            }
            // However often it is tried.
            for _ in 0..2 {
                match Queue::open(store.database(), store.master_key()) {
                    Err(OpenError::HalfGone { gone, left }) => {
                        assert_eq!((gone, left), (lost.clone(), kept.clone()))
                    }
                    other => panic!("{}: {other:?}", lost.display()),
                }
            }
            // redb keeps its own books in the database whenever it opens it.
            assert!(
                kept == store.database() || fs::read(&kept).unwrap() == before,
                "the key file is untouched"
            );
            fs::rename(&aside, &lost).unwrap();
            let queue = Queue::open(store.database(), store.master_key()).unwrap();
            assert_eq!(queue.dequeue("search").unwrap_err(), DequeueError::SessionFlushed);
        }
    }
}

#[test]
fn a_new_store_in_the_place_of_an_old_one_repeats_no_nonce() {
    let store = Store::new();
    let mut prefixes = Vec::new();
    for _ in 0..3 {
        let queue = Queue::open(store.database(), store.master_key()).unwrap();
        queue.provision(World::new(1, now(), &["search"]).document()).unwrap();
        let token = draw(&queue, "search");
        let envelope = obol_token::Envelope::parse(&token).unwrap();
        prefixes.push(*envelope.iv().first_chunk::<4>().unwrap());
        drop(queue);
        fs::remove_file(store.database()).unwrap();
        fs::remove_file(store.path("tokens.redb.keys")).unwrap();
    }
    assert!(
        prefixes[0] != prefixes[1] && prefixes[1] != prefixes[2] && prefixes[0] != prefixes[2],
        "{prefixes:?}"
    );
}
