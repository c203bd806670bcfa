//! The spent set in Redis, against real servers that restart, lose, refuse, stall and take over from each other.

use core::time::Duration;
use std::sync::{Arc, Barrier};
use std::time::{SystemTime, UNIX_EPOCH};

use obol_token::{Jti, SessionId};
use obol_verify::{Clock, Mark, SpendError, SpentSet, SystemClock};
use obol_verify_redis::{RedisOptions, RedisSpentSet, Unfit};
use obol_world::ManualClock;
use obol_world::home::{wait_until, write_private};
use obol_world::redis::RedisServer;

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn mark(number: u64) -> Mark {
    let mut random = [0; 16];
    random[..8].copy_from_slice(&number.to_be_bytes());
    Mark::new(SessionId::from_u64(1), &Jti::from_random(random), now() + 600)
}

fn options(server: &RedisServer) -> RedisOptions {
    // Machines that run these tests beside others may need long for a reply.
    RedisOptions::new(&server.url(), "rs").unwrap().reply_timeout(Duration::from_secs(5))
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::new())
}

fn open(options: RedisOptions) -> RedisSpentSet {
    RedisSpentSet::open(options, clock()).unwrap()
}

fn refusal(options: RedisOptions) -> Unfit {
    RedisSpentSet::open(options, clock()).unwrap_err().reason
}

fn unavailable(result: &Result<(), SpendError>) -> bool {
    matches!(result, Err(SpendError::Unavailable(_)))
}

/// Spends one mark, again and again until the set can tell.
fn spend_surely(set: &RedisSpentSet, mark: Mark) -> Result<(), SpendError> {
    let mut answer = set.spend(mark).wait();
    wait_until("the set decides", || {
        if unavailable(&answer) {
            answer = set.spend(mark).wait();
        }
        !unavailable(&answer)
    });
    answer
}

#[test]
fn of_many_threads_on_two_servers_with_one_token_exactly_one_is_served() {
    const THREADS: usize = 16;
    let redis = RedisServer::start(&[]);
    let sets =
        [open(options(&redis).first_start()), open(RedisOptions::new(&redis.tcp_url(), "rs").unwrap())];
    for round in 0..20 {
        let start = Barrier::new(THREADS);
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let (set, start) = (&sets[thread % 2], &start);
                    scope.spawn(move || {
                        start.wait();
                        spend_surely(set, mark(round))
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let spent = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        let replayed = outcomes.iter().filter(|outcome| **outcome == Err(SpendError::AlreadySpent)).count();
        assert_eq!((spent, replayed), (1, THREADS - 1), "{outcomes:?}");
    }
}

#[test]
fn a_first_start_has_no_fence_and_any_other_has_one_that_all_share() {
    let redis = RedisServer::start(&[]);
    let first = open(options(&redis).first_start());
    assert_eq!(first.fence(), None);
    assert_eq!(open(options(&redis)).fence(), None, "who joins finds the marks complete");

    let other = RedisOptions::new(&redis.url(), "other").unwrap();
    let before = now();
    let fenced = open(other.clone());
    let fence = fenced.fence().unwrap();
    let margin = 60 + 2 * 5 + 2;
    assert!(
        (before + margin..=now() + margin + 1).contains(&fence),
        "skew, twice the clock difference, rounding"
    );
    assert_eq!(open(other.clone().first_start()).fence(), Some(fence), "a fence cannot be talked away");
}

#[test]
fn a_restart_of_redis_raises_the_fence_whether_or_not_it_kept_the_marks() {
    for persistence in [&[][..], &["--appendonly", "yes", "--appendfsync", "always"]] {
        let mut redis = RedisServer::start(persistence);
        let sets = [open(options(&redis).first_start()), open(options(&redis))];
        sets[0].spend(mark(1)).wait().unwrap();
        let before = now();
        redis.kill();
        for set in &sets {
            wait_until("unreadiness shows", || unavailable(&set.health()));
            assert!(unavailable(&set.spend(mark(2)).wait()));
            assert!(set.is_spent(&mark(2)).is_err());
        }
        redis.start_again();
        for set in &sets {
            wait_until("it connects again", || set.health().is_ok());
            assert!(set.fence().unwrap() >= before + 60);
        }
        assert_eq!(sets[0].fence(), sets[1].fence());
        spend_surely(&sets[1], mark(3)).unwrap();
        assert_eq!(spend_surely(&sets[0], mark(3)), Err(SpendError::AlreadySpent));
    }
}

/// Does something to the server after which marks may be missing, and expects a fence before anything is accepted.
fn expect_a_fence(arguments: &[&str], harm: impl FnOnce(&RedisServer)) {
    let redis = RedisServer::start(arguments);
    let set = open(options(&redis).first_start());
    set.spend(mark(1)).wait().unwrap();
    assert_eq!(set.fence(), None);
    harm(&redis);
    // Whether a spend or the watch finds it first: what is accepted is accepted behind the fence.
    spend_surely(&set, mark(2)).unwrap();
    assert!(set.fence().is_some());
}

#[test]
fn a_flush_of_the_database_raises_the_fence() {
    expect_a_fence(&[], |redis| assert_eq!(redis.ask(&["FLUSHALL"]), "OK"));
}

#[test]
fn a_record_that_somebody_deletes_raises_the_fence() {
    expect_a_fence(&[], |redis| assert_eq!(redis.ask(&["DEL", "obol:rs:epoch"]), "1"));
}

#[test]
fn a_change_of_the_replication_history_raises_the_fence() {
    // A master that was a replica meanwhile may have thrown its marks away, on the same connection.
    expect_a_fence(&[], |redis| {
        assert_eq!(redis.ask(&["REPLICAOF", "127.0.0.1", "1"]), "OK");
        assert_eq!(redis.ask(&["REPLICAOF", "NO", "ONE"]), "OK");
    });
}

#[test]
fn evictions_raise_the_fence_even_if_the_policy_is_right_again() {
    expect_a_fence(&[], |redis| {
        redis.ask(&["SET", "bystander", "x"]);
        let configure = |key: &str, value: &str| assert_eq!(redis.ask(&["CONFIG", "SET", key, value]), "OK");
        configure("maxmemory-policy", "allkeys-random");
        configure("maxmemory", "1");
        wait_until("something is evicted", || {
            redis.ask(&["SET", "more", "x"]);
            redis.info("stats", "evicted_keys") != "0"
        });
        configure("maxmemory", "0");
        configure("maxmemory-policy", "noeviction");
    });
}

/// Whatever has happened to Redis: a mark that was set is not set again, unless behind a fence.
fn expect_no_second_acceptance(set: &RedisSpentSet, what: &str) {
    // Whoever comes first, a spend or the watch, finds out; what is refused meanwhile stays refused.
    for _ in 0..20 {
        match set.spend(mark(1)).wait() {
            Ok(()) => {
                assert!(set.fence().is_some(), "{what}: accepted again without a fence");
                return;
            }
            Err(SpendError::AlreadySpent | SpendError::Unavailable(_)) => {}
            Err(error) => panic!("{what}: {error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn every_field_of_the_record_counts() {
    let far = (now() + 3_600).to_string() + "000";
    let changed = [
        ("format", "1"),
        ("format", "3"),
        ("id", "0123456789abcdef0123456789abcdef"),
        ("fence", "1"),
        ("skew", "61"),
        ("run", "0123456789abcdef0123456789abcdef01234567"),
        ("replid", "0123456789abcdef0123456789abcdef01234567"),
        ("evicted", "7"),
        ("seen", far.as_str()),
        ("count", "0"),
        ("count", "2"),
        ("count", "x"),
    ];
    for (field, value) in changed {
        let redis = RedisServer::start(&[]);
        let set = open(options(&redis).first_start());
        set.spend(mark(1)).wait().unwrap();
        redis.ask(&["HSET", "obol:rs:epoch", field, value]);
        expect_no_second_acceptance(&set, field);
        match (field, value) {
            // Of another build, or of servers with another skew: refused until somebody sees to it.
            ("format", "3") | ("skew", _) => {
                wait_until("it is said", || unavailable(&set.health()));
                assert!(unavailable(&set.spend(mark(2)).wait()), "{field}");
            }
            _ => {
                spend_surely(&set, mark(2)).unwrap();
                assert!(set.fence().is_some(), "{field} = {value} does not count");
            }
        }
    }
}

#[test]
fn every_field_of_the_record_must_be_there() {
    for field in ["format", "id", "fence", "skew", "run", "replid", "evicted", "seen", "count"] {
        let redis = RedisServer::start(&[]);
        let set = open(options(&redis).first_start());
        set.spend(mark(1)).wait().unwrap();
        assert_eq!(redis.ask(&["HDEL", "obol:rs:epoch", field]), "1", "{field}");
        expect_no_second_acceptance(&set, field);
        spend_surely(&set, mark(2)).unwrap();
        assert!(set.fence().is_some(), "{field} does not count");
    }
}

/// Evicts what a policy may evict, and leaves no trace of it in counters or settings, all inside one look.
pub(crate) fn evict_without_a_trace(redis: &RedisServer, policy: &str) {
    redis.ask_all(&[
        &["CONFIG", "SET", "maxmemory-policy", policy],
        &["CONFIG", "SET", "maxmemory", "1"],
        &["GET", "nothing"],
        &["GET", "nothing"],
        &["CONFIG", "SET", "maxmemory", "0"],
        &["CONFIG", "SET", "maxmemory-policy", "noeviction"],
        &["CONFIG", "RESETSTAT"],
    ]);
}

#[test]
fn an_evicted_mark_never_reads_as_one_that_never_was_whatever_is_reset() {
    for (policy, only_the_marks) in
        [("volatile-ttl", true), ("volatile-random", true), ("allkeys-lru", false), ("allkeys-random", false)]
    {
        let redis = RedisServer::start(&[]);
        let set = open(options(&redis).first_start());
        set.spend(mark(1)).wait().unwrap();
        let marks = marks_of(&redis);
        if only_the_marks {
            // So that the record stays, which would tell by its absence.
            assert_eq!(redis.ask(&["PEXPIRE", &marks, "100000000"]), "1");
        }
        wait_until("it is evicted", || {
            evict_without_a_trace(&redis, policy);
            redis.ask(&["EXISTS", &marks]) == "0"
        });
        assert_eq!(redis.info("stats", "evicted_keys"), "0", "the counter does not tell");
        expect_no_second_acceptance(&set, policy);
        spend_surely(&set, mark(2)).unwrap();
        assert!(set.fence().is_some(), "{policy}");
    }
}

#[test]
fn a_mark_that_somebody_takes_out_raises_the_fence() {
    for harm in
        [&["ZREMRANGEBYRANK", "MARKS", "0", "0"][..], &["UNLINK", "MARKS"], &["PEXPIRE", "MARKS", "1"]]
    {
        expect_a_fence(&[], |redis| {
            let marks = marks_of(redis);
            let words: Vec<_> =
                harm.iter().map(|word| if *word == "MARKS" { &marks } else { *word }).collect();
            assert_eq!(redis.ask(&words), "1");
            wait_until("the mark is gone", || redis.ask(&["ZCARD", &marks]) == "0");
        });
    }
}

#[test]
fn a_replica_that_takes_over_is_fenced_and_a_replica_is_not_used() {
    let mut master = RedisServer::start(&["--repl-diskless-sync-delay", "0"]);
    let replica = RedisServer::start(&["--replicaof", "127.0.0.1", &master.port().to_string()]);
    wait_until("the replica follows", || replica.info("replication", "master_link_status") == "up");
    assert!(matches!(refusal(options(&replica)), Unfit::NotMaster(_)));
    let set = open(options(&master).first_start());
    set.spend(mark(1)).wait().unwrap();
    master.kill();
    assert_eq!(replica.ask(&["REPLICAOF", "NO", "ONE"]), "OK");
    let after = open(options(&replica));
    assert!(after.fence().is_some());
}

#[test]
fn with_replicas_to_wait_for_nothing_is_accepted_without_them() {
    let master = RedisServer::start(&["--repl-diskless-sync-delay", "0"]);
    let set = open(options(&master).first_start().wait_replicas(1).reply_timeout(Duration::from_secs(2)));
    assert!(unavailable(&set.spend(mark(1)).wait()));
    let _replica = RedisServer::start(&["--replicaof", "127.0.0.1", &master.port().to_string()]);
    let before = now();
    spend_surely(&set, mark(2)).unwrap();
    // A master's first replica begins another replication history, so what was refused is behind a fence: whoever took
    // the token for fresh had a clock at most a skew behind the time that it was issued at.
    assert!(set.fence().unwrap() >= before + 60, "refused, and burned");
}

#[test]
fn a_mark_that_no_replica_confirmed_stays_burned_when_one_is_back() {
    let master = RedisServer::start(&["--repl-diskless-sync-delay", "0"]);
    let port = master.port().to_string();
    let follow = || {
        let replica = RedisServer::start(&["--replicaof", "127.0.0.1", &port]);
        wait_until("the replica follows", || master.info("replication", "slave0").contains("state=online"));
        replica
    };
    let mut replica = follow();
    let set = open(options(&master).first_start().wait_replicas(1).reply_timeout(Duration::from_secs(2)));
    spend_surely(&set, mark(1)).unwrap();
    replica.kill();
    assert!(unavailable(&set.spend(mark(2)).wait()));
    let _replica = follow();
    spend_surely(&set, mark(3)).unwrap();
    // The history went on, so nothing is fenced: the mark itself refuses.
    assert_eq!(set.fence(), None);
    assert_eq!(spend_surely(&set, mark(2)), Err(SpendError::AlreadySpent));
}

#[test]
fn a_server_that_may_evict_marks_is_refused_with_words() {
    let redis = RedisServer::start(&["--maxmemory-policy", "allkeys-lru"]);
    let error = RedisSpentSet::open(options(&redis), clock()).unwrap_err().to_string();
    assert!(error.contains("allkeys-lru") && error.contains("noeviction"), "{error}");
    // Also when somebody changes it later.
    assert_eq!(redis.ask(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]), "OK");
    let set = open(options(&redis).first_start());
    assert_eq!(redis.ask(&["CONFIG", "SET", "maxmemory-policy", "volatile-ttl"]), "OK");
    wait_until("it is noticed", || unavailable(&set.health()));
    assert!(unavailable(&set.spend(mark(1)).wait()));
    assert_eq!(redis.ask(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]), "OK");
    spend_surely(&set, mark(2)).unwrap();
}

#[test]
fn servers_that_are_not_fit_are_refused_with_words() {
    let cluster = RedisServer::start(&["--cluster-enabled", "yes"]);
    assert_eq!(refusal(options(&cluster)), Unfit::Cluster);

    let redis = RedisServer::start(&[]);
    let ahead = Arc::new(ManualClock::new(now() + 3_600));
    let error = RedisSpentSet::open(options(&redis), ahead).unwrap_err().reason;
    assert!(matches!(error, Unfit::Clock(3_590..=3_610)), "{error}");

    let _set = open(options(&redis));
    assert_eq!(refusal(options(&redis).clock_skew(30)), Unfit::Skew("60".to_owned()));

    let nobody = RedisOptions::new("unix:///nowhere/redis.sock", "rs").unwrap();
    assert!(matches!(refusal(nobody), Unfit::Unreachable(_)));

    assert_eq!(redis.ask(&["ACL", "SETUSER", "default", "-info"]), "OK");
    assert!(matches!(refusal(options(&redis)), Unfit::Unreachable(_)));
}

#[test]
fn a_password_comes_from_a_file_and_a_wrong_one_is_not_repeated() {
    let redis = RedisServer::start(&["--requirepass", "hunter2", "--protected-mode", "no"]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    assert!(matches!(refusal(options(&redis)), Unfit::Unreachable(_)));
    write_private(&path, "hunter3\n");
    let wrong = refusal(options(&redis).password_file(&path).unwrap()).to_string();
    assert!(!wrong.contains("hunter"), "{wrong}");
    write_private(&path, "hunter2\n");
    let set = open(options(&redis).password_file(&path).unwrap().first_start());
    set.spend(mark(1)).wait().unwrap();
}

#[test]
fn a_server_without_room_refuses_and_recovers() {
    let redis = RedisServer::start(&[]);
    let set = open(options(&redis).first_start());
    set.spend(mark(1)).wait().unwrap();
    assert_eq!(redis.ask(&["CONFIG", "SET", "maxmemory", "1"]), "OK");
    assert!(unavailable(&set.spend(mark(2)).wait()));
    wait_until("unreadiness shows without a spend", || unavailable(&set.health()));
    assert_eq!(redis.ask(&["CONFIG", "SET", "maxmemory", "0"]), "OK");
    spend_surely(&set, mark(3)).unwrap();
    assert_eq!(spend_surely(&set, mark(1)), Err(SpendError::AlreadySpent));
    assert_eq!(set.fence(), None, "nothing was lost");
}

#[test]
fn a_server_that_becomes_a_replica_refuses() {
    let redis = RedisServer::start(&[]);
    let set = open(options(&redis).first_start());
    assert_eq!(redis.ask(&["REPLICAOF", "127.0.0.1", "1"]), "OK");
    assert!(unavailable(&set.spend(mark(1)).wait()));
    wait_until("unreadiness shows", || unavailable(&set.health()));
    assert_eq!(redis.ask(&["REPLICAOF", "NO", "ONE"]), "OK");
    spend_surely(&set, mark(2)).unwrap();
}

#[test]
fn a_server_that_does_not_answer_in_time_refuses_and_recovers() {
    let redis = RedisServer::start(&[]);
    let set = open(RedisOptions::new(&redis.url(), "rs").unwrap().first_start());
    let mut asleep = redis.begin(&["DEBUG", "SLEEP", "4"]);
    wait_until("unreadiness shows", || unavailable(&set.health()));
    assert!(unavailable(&set.spend(mark(1)).wait()));
    asleep.wait().unwrap();
    spend_surely(&set, mark(2)).unwrap();
    assert_eq!(spend_surely(&set, mark(2)), Err(SpendError::AlreadySpent));
}

#[test]
fn a_server_that_is_still_loading_refuses_until_it_is_done() {
    let mut redis = RedisServer::start(&["--appendonly", "no"]);
    let set = open(options(&redis).first_start());
    set.spend(mark(1)).wait().unwrap();
    let spent_at = now();
    assert_eq!(redis.ask(&["DEBUG", "POPULATE", "2000"]), "OK");
    assert_eq!(redis.ask(&["SAVE"]), "OK");
    redis.kill();
    // A millisecond for each key, and events looked at in between.
    redis.spawn(&["--key-load-delay", "1500", "--loading-process-events-interval-bytes", "1024"]);
    wait_until("it is loading", || redis.ask(&["PING"]).contains("LOADING"));
    assert!(unavailable(&set.spend(mark(3_000)).wait()));
    assert!(RedisSpentSet::open(options(&redis), clock()).is_err());
    wait_until("it has loaded", || redis.ask(&["PING"]).contains("PONG"));
    spend_surely(&set, mark(3_001)).unwrap();
    assert_eq!(spend_surely(&set, mark(3_001)), Err(SpendError::AlreadySpent));
    // Nothing that it had loaded is believed, so what was spent before lies behind a fence, a skew beyond its time.
    assert!(set.fence().unwrap() >= spent_at + 60, "{:?}", set.fence());
}

#[test]
fn a_mark_stays_until_its_own_end_and_names_no_token() {
    let redis = RedisServer::start(&[]);
    let set = open(options(&redis).first_start());
    let mark = mark(1);
    set.spend(mark).wait().unwrap();
    let mut keys: Vec<_> = redis.ask(&["KEYS", "obol:rs:*"]).lines().map(str::to_owned).collect();
    keys.sort();
    assert_eq!(keys, ["obol:rs:epoch".to_owned(), marks_of(&redis)]);
    assert_eq!(redis.ask(&["ZCARD", &keys[1]]), "1");
    // By the numbers: exp, a skew of 60 s, a margin of 60 s, a clock difference of 5 s.
    let end: f64 =
        redis.ask(&["ZRANGE", &keys[1], "0", "-1", "WITHSCORES"]).lines().last().unwrap().parse().unwrap();
    assert_eq!(end, ((mark.expires_at() + 60 + 60 + 5) * 1_000) as f64);
    assert!(!redis.ask(&["ZRANGE", &keys[1], "0", "-1"]).contains("AAAAAAAAAAE"), "the jti is nowhere");
    // What has no end of its own is never evicted alone.
    assert_eq!([&keys[0], &keys[1]].map(|key| redis.ask(&["PTTL", key])), ["-1", "-1"]);
    // What is past its end is too old to tell, however often it is asked for.
    let old = Mark::new(SessionId::from_u64(1), &Jti::from_random([9; 16]), now() - 1_000);
    assert_eq!(set.spend(old).wait(), Err(SpendError::Forgotten));
    assert_eq!(set.spend(old).wait(), Err(SpendError::Forgotten));
}

/// The key of the marks of the epoch that is recorded.
fn marks_of(redis: &RedisServer) -> String {
    format!("obol:rs:epoch:{}:marks", redis.ask(&["HGET", "obol:rs:epoch", "id"]))
}

#[test]
fn a_mark_goes_once_its_time_is_over_and_costs_no_fence() {
    let redis = RedisServer::start(&[]);
    // It must be kept for a margin of a minute, whatever is set; so it is given an end in the past by hand.
    let set = open(options(&redis).first_start());
    set.spend(mark(1)).wait().unwrap();
    set.spend(mark(2)).wait().unwrap();
    let marks = marks_of(&redis);
    let earlier =
        "local m = redis.call('ZRANGE', KEYS[1], 0, 0) return redis.call('ZADD', KEYS[1], 'XX', 1, m[1])";
    redis.ask(&["EVAL", earlier, "1", &marks]);
    wait_until("it is taken out", || redis.ask(&["ZCARD", &marks]) == "1");
    assert_eq!(redis.ask(&["HGET", "obol:rs:epoch", "count"]), "1");
    assert!(set.health().is_ok() && set.fence().is_none());
}

#[test]
fn a_mark_takes_at_most_140_bytes_in_redis() {
    const MARKS: u64 = 20_000;
    let redis = RedisServer::start(&[]);
    let set = open(options(&redis).first_start());
    let used = || {
        redis.info("memory", "used_memory_dataset").parse::<u64>().unwrap()
            + redis.info("memory", "used_memory_overhead").parse::<u64>().unwrap()
    };
    let before = used();
    for thousand in 0..MARKS / 1_000 {
        let tickets: Vec<_> = (0..1_000).map(|number| set.spend(mark(thousand * 1_000 + number))).collect();
        assert!(tickets.into_iter().all(|ticket| ticket.wait() == Ok(())));
    }
    assert_eq!(redis.ask(&["ZCARD", &marks_of(&redis)]), MARKS.to_string());
    let each = (used() - before) / MARKS;
    println!("{each} bytes for each mark");
    assert!(each <= 140, "{each} bytes for each mark");
}
