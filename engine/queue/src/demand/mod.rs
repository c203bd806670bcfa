//! Refill follows demand: how many tokens a tool should have waiting.
//!
//! Pure arithmetic over what was observed, so that it can be simulated. Two numbers come out: how many tokens to
//! keep ready in memory, enough for the time a refill takes, and how many to keep in all, never more than the
//! observed rate would use before they expire.

use core::time::Duration;

/// Over how long the rate that decides the depth is averaged, in seconds. A single call must not fill the disk.
const STEADY_SECS: f64 = 10.0;
/// The same for a tool that is used so seldom that the shorter average would jump with every call.
const SELDOM_SECS: f64 = 120.0;
/// Calls in [`STEADY_SECS`] below which a tool counts as seldom used.
const SELDOM_CALLS: f64 = 20.0;
/// Over how long the rate that decides what is kept in memory is averaged, in seconds: a burst must not run it dry.
const BURST_SECS: f64 = 0.5;
/// Ready tokens cover this many refill times at the observed rate, and at least so many seconds: a refill can have to
/// wait for another tool's.
const REFILL_MARGIN: f64 = 4.0;
const LEAST_LEAD_SECS: f64 = 0.1;
/// All waiting tokens together cover this share of a token's usable life at the observed rate. In a queue drawn
/// oldest first a token waits that share of its life, so at a steady rate none expires, and a rate that doubles is
/// still covered.
const DEPTH_SHARE: f64 = 0.5;
/// As many tokens are kept ready as were lately used at once, this many times.
const BURST_MARGIN: f64 = 2.0;
/// Over how long it is remembered how many were used at once, in seconds.
const PEAK_SECS: f64 = 60.0;
/// Where calls come by chance, as many standard deviations fewer than expected are counted on in a token's life: at a low
/// rate that is less than the share above.
const CHANCE: f64 = 1.5;
/// A tool that nobody has used for this many token lives is let go cold: nothing is minted until it is asked for.
const WARM_LIVES: u32 = 10;
/// The same for a tool that was never used at all.
const UNUSED_WARM_LIVES: u32 = 1;
/// New tokens come before the old ones end by at most this part of their life.
const EARLY_SHARE: u64 = 20;
/// What a refill is assumed to take before one was observed.
const FIRST_REFILL: Duration = Duration::from_millis(20);

/// How much may be minted ahead: limits that configuration sets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DemandLimits {
    /// Tokens in a batch under little load.
    pub(crate) batch: u16,
    /// The most tokens in one batch.
    pub(crate) max_batch: u16,
    /// The most tokens kept ready in memory for one tool.
    pub(crate) max_ready: usize,
    /// The most tokens kept for one tool in all.
    pub(crate) max_depth: usize,
}

/// What is known about one tool's use.
#[derive(Clone, Debug)]
pub(crate) struct Demand {
    /// Tokens a second, over [`STEADY_SECS`].
    steady: f64,
    /// Tokens a second, over [`SELDOM_SECS`].
    seldom: f64,
    /// Tokens a second, over [`BURST_SECS`].
    burst: f64,
    /// The most tokens used between two looks, fading over [`PEAK_SECS`].
    peak: f64,
    refill: Duration,
    /// The end of ready tokens that new ones were minted ahead of.
    renewed: u64,
    /// Minting has begun at three quarters of the depth and has not come to the whole of it yet.
    filling: bool,
    handed_out: u64,
    idle: Duration,
}

/// What waits for one tool.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    /// In memory, or on the way there.
    pub(crate) ready: usize,
    /// On disk, or on the way there.
    pub(crate) stored: usize,
    /// Tokens in the next batch on disk, as far as is known; otherwise 0.
    pub(crate) next_batch: usize,
    /// When the next ready token ends, in Unix seconds, if that is so soon that a new one should be there ([`early`]).
    pub(crate) ending: Option<u64>,
}

/// What to do about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Plan {
    /// Take batches out of the store until this many more tokens are ready.
    pub(crate) claim: usize,
    /// Mint this many tokens.
    pub(crate) mint: usize,
    /// In batches of this size.
    pub(crate) batch: u16,
    /// Ask again once no more than this many are ready.
    pub(crate) low_water: usize,
}

impl Default for Demand {
    fn default() -> Self {
        Self {
            steady: 0.0,
            seldom: 0.0,
            burst: 0.0,
            peak: 0.0,
            refill: FIRST_REFILL,
            renewed: 0,
            filling: false,
            handed_out: 0,
            idle: Duration::ZERO,
        }
    }
}

impl Demand {
    /// Notes how many tokens were handed out in all, `elapsed` after the last look.
    pub(crate) fn observe(&mut self, handed_out: u64, elapsed: Duration) {
        let used = handed_out.saturating_sub(self.handed_out);
        // The number can be ahead by what is being looked at for hand-out; nothing is counted twice for that.
        self.handed_out = self.handed_out.max(handed_out);
        self.idle = if used > 0 { Duration::ZERO } else { self.idle.saturating_add(elapsed) };
        let seconds = elapsed.as_secs_f64();
        if seconds > 0.0 {
            #[allow(clippy::cast_precision_loss)] // A rate needs no 53rd bit.
            let used = used as f64;
            let now = used / seconds;
            let average = |old: f64, over: f64| old + (now - old) * (1.0 - (-seconds / over).exp());
            self.steady = average(self.steady, STEADY_SECS);
            self.seldom = average(self.seldom, SELDOM_SECS);
            self.burst = average(self.burst, BURST_SECS);
            self.peak = used.max(self.peak * (-seconds / PEAK_SECS).exp());
        }
    }

    /// Notes that somebody asked and found nothing: the tool is in use, whatever the rate says.
    pub(crate) fn missed(&mut self) {
        self.idle = Duration::ZERO;
    }

    /// Notes how long it took from asking for a refill to having it.
    pub(crate) fn refilled(&mut self, took: Duration) {
        self.refill = (self.refill * 7 + took) / 8;
    }

    /// When somebody who found nothing should ask again.
    pub(crate) fn retry_after(&self) -> Duration {
        self.refill.clamp(Duration::from_millis(1), Duration::from_secs(1))
    }

    /// What should be done now. `usable` is how long a fresh token can wait before it is too old to hand out.
    pub(crate) fn plan(&mut self, waiting: Waiting, usable: Duration, limits: &DemandLimits) -> Plan {
        // Ready tokens that are about to end count for nothing, once.
        let ending = waiting.ending.filter(|end| *end != self.renewed);
        let waiting = if ending.is_some() { Waiting { ready: 0, ..waiting } } else { waiting };
        let plan = self.plan_for(waiting, usable, limits);
        if plan.mint > 0 || plan.claim > 0 {
            self.renewed = ending.unwrap_or(self.renewed);
        }
        plan
    }

    fn plan_for(&mut self, waiting: Waiting, usable: Duration, limits: &DemandLimits) -> Plan {
        let lives = if self.handed_out > 0 { WARM_LIVES } else { UNUSED_WARM_LIVES };
        let warm = self.idle <= usable * lives;
        let batch = self.batch_size(usable, limits);
        let floor = if warm { self.floor(limits).min(limits.max_depth) } else { 0 };
        let depth = self.in_a_life(usable).clamp(floor, limits.max_depth.max(floor));
        let lead = (self.refill.as_secs_f64() * REFILL_MARGIN).max(LEAST_LEAD_SECS);
        let ready = (floor + tokens(self.burst * lead - 0.5)).min(limits.max_ready);
        let depth = depth.max(ready);
        let all = waiting.ready + waiting.stored;
        // Refill in whole steps: below three quarters, up to the full depth. Whoever mints does a batch of it at a time
        // and asks again, so it has to be remembered that more is wanted.
        self.filling = all < depth && (self.filling || all <= low_water(depth));
        let mint = if self.filling { depth - all } else { 0 };
        // Batches come whole: nothing is claimed before there is room for one.
        let next_batch = waiting.next_batch.max(usize::from(batch));
        let low_water = low_water(ready).min(limits.max_ready.saturating_sub(next_batch));
        let claim = if waiting.ready <= low_water { ready.saturating_sub(waiting.ready) } else { 0 };
        Plan { claim: claim.min(waiting.stored + mint), mint, batch, low_water }
    }

    fn is_seldom_used(&self) -> bool {
        self.steady * STEADY_SECS < SELDOM_CALLS
    }

    /// Tokens a second.
    fn rate(&self) -> f64 {
        if self.is_seldom_used() { self.seldom } else { self.steady }
    }

    /// How many should wait, at this rate.
    fn in_a_life(&self, usable: Duration) -> usize {
        let used = self.rate() * usable.as_secs_f64();
        tokens((used * DEPTH_SHARE).min(used - CHANCE * used.sqrt()))
    }

    /// How many are kept ready at the least: what was lately used at once, with a margin, and no more than a batch. A
    /// batch where nothing is known.
    fn floor(&self, limits: &DemandLimits) -> usize {
        let batch = usize::from(limits.batch);
        if self.handed_out == 0 { batch } else { tokens(self.peak * BURST_MARGIN).clamp(1, batch) }
    }

    /// Large batches under load, small ones where most of a batch would expire unused.
    fn batch_size(&self, usable: Duration, limits: &DemandLimits) -> u16 {
        let in_a_life = self.in_a_life(usable);
        let usual = usize::from(limits.batch);
        let shrinks = self.handed_out > 0 && self.is_seldom_used();
        let small = if shrinks { usual.min(in_a_life / 2) } else { usual };
        // Two batches at least fit into memory, so that one can come while another is handed out.
        let fits = (limits.max_ready / 2).max(1);
        let wanted = (in_a_life / 8).max(small).min(usize::from(limits.max_batch)).min(fits).max(1);
        u16::try_from(wanted).unwrap_or(limits.max_batch)
    }
}

/// How long before the last of its ready tokens end a tool gets new ones, in seconds: at least one, at most a twentieth
/// of their life, and for each partition another time, so that tools that began together do not run dry together.
pub(crate) fn early(partition: u64, ttl: u64) -> u64 {
    // Multiplication by the golden ratio spreads neighbours apart.
    let spread = partition.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    1 + spread % (ttl / EARLY_SHARE).max(1)
}

/// The number of tokens at which a refill to `full` begins.
fn low_water(full: usize) -> usize {
    full - full.div_ceil(4)
}

/// Rounds up to whole tokens.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // `as` from f64 saturates.
fn tokens(amount: f64) -> usize {
    amount.ceil().max(0.0) as usize
}

#[cfg(test)]
mod simulation;

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: DemandLimits = DemandLimits { batch: 10, max_batch: 64, max_ready: 256, max_depth: 10_000 };
    const USABLE: Duration = Duration::from_secs(55);

    fn plan(demand: &mut Demand, ready: usize, stored: usize) -> Plan {
        demand.plan(Waiting { ready, stored, next_batch: 0, ending: None }, USABLE, &LIMITS)
    }

    #[test]
    fn a_fresh_tool_gets_one_batch_ahead_of_need() {
        let low_water = 7;
        assert_eq!(plan(&mut Demand::default(), 0, 0), Plan { claim: 10, mint: 10, batch: 10, low_water });
        assert_eq!(plan(&mut Demand::default(), 10, 0), Plan { claim: 0, mint: 0, batch: 10, low_water });
    }

    #[test]
    fn an_idle_tool_goes_cold_and_a_miss_warms_it() {
        let mut demand = Demand::default();
        demand.observe(0, USABLE * (WARM_LIVES + 1));
        assert_eq!(plan(&mut demand, 0, 0).mint, 0);
        demand.missed();
        assert_eq!(plan(&mut demand, 0, 0).mint, 10);
    }

    #[test]
    fn a_refill_a_batch_at_a_time_goes_on_from_three_quarters_to_the_full_depth() {
        let mut demand = Demand::default();
        (1..=60).for_each(|second| demand.observe(100 * second, Duration::from_secs(1)));
        let depth = plan(&mut demand, 0, 0).mint;
        let (mut stored, mut batches) = (0, 0);
        loop {
            let plan = plan(&mut demand, 0, stored);
            if plan.mint == 0 {
                break;
            }
            stored += plan.mint.min(usize::from(plan.batch));
            batches += 1;
        }
        assert!(stored == depth && batches > 10, "{stored} of {depth} in {batches} batches");
        assert_eq!(plan(&mut demand, 0, low_water(depth) + 1).mint, 0, "not before three quarters");
        assert_eq!(plan(&mut demand, 0, low_water(depth)).mint, depth - low_water(depth));
    }

    #[test]
    fn tokens_that_are_about_to_end_are_renewed_once() {
        let mut demand = Demand::default();
        let waiting = Waiting { ready: 10, stored: 0, next_batch: 0, ending: Some(77) };
        assert_eq!(demand.plan(waiting, USABLE, &LIMITS).mint, 10);
        assert_eq!(demand.plan(waiting, USABLE, &LIMITS).mint, 0);
        assert_eq!(demand.plan(Waiting { ending: Some(78), ..waiting }, USABLE, &LIMITS).mint, 10);
    }

    #[test]
    fn tools_that_began_together_are_renewed_apart() {
        for ttl in [1, 60, 3600] {
            let mut tools = [0_u32; 200];
            for partition in 0..10_000 {
                let early = early(partition, ttl);
                assert!((1..=(ttl / 20).max(1)).contains(&early));
                tools[usize::try_from(early).unwrap()] += 1;
            }
            let most = tools.iter().max().unwrap();
            assert!(
                u64::from(*most) <= 2 * 10_000 / (ttl / 20).max(1),
                "{most} of 10,000 at once, ttl {ttl}"
            );
        }
    }

    #[test]
    fn a_single_call_does_not_fill_the_disk() {
        let mut demand = Demand::default();
        demand.observe(1, Duration::from_millis(100));
        assert!(plan(&mut demand, 0, 0).mint <= 10);
    }

    #[test]
    fn depth_follows_the_rate_and_stays_below_what_would_expire() {
        let mut demand = Demand::default();
        for second in 1..=60 {
            demand.observe(100 * second, Duration::from_secs(1));
        }
        let plan = plan(&mut demand, 0, 0);
        assert!((2000..=100 * 55).contains(&plan.mint), "{plan:?}");
        assert_eq!(plan.batch, 64);
    }

    #[test]
    fn nothing_exceeds_the_limits_at_any_rate_and_under_any_limits() {
        for handed_out in [0, 1, 1000, u64::MAX] {
            for (batch, max_batch) in [(1, 1), (10, 64), (64, 10), (u16::MAX, u16::MAX)] {
                for (max_ready, max_depth) in [(1, 1), (1, 100), (100, 1), (256, 10_000)] {
                    let limits = DemandLimits { batch, max_batch, max_ready, max_depth };
                    let mut demand = Demand::default();
                    demand.observe(handed_out, Duration::from_millis(1));
                    let plan = demand.plan(
                        Waiting { ready: 0, stored: 0, next_batch: 0, ending: None },
                        USABLE,
                        &limits,
                    );
                    assert!(
                        plan.claim <= max_ready && plan.mint <= max_depth.max(max_ready),
                        "{plan:?} {limits:?}"
                    );
                    assert!(usize::from(plan.batch) <= max_ready, "{plan:?} {limits:?}");
                }
            }
        }
    }
}
