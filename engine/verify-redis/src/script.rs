//! What runs inside the server, atomically. Sent whole each time: a server that forgot a script needs no special case.
//!
//! Every script begins with one prologue. It reads the record of the incarnation and what the server says of itself, and goes on
//! only if all of it is as it was recorded:
//!
//! | field | what it is | over, if |
//! |---|---|---|
//! | `format` | 2 | it is another |
//! | `id` | the incarnation's random name | it is not the caller's |
//! | `fence` | issue times up to it are refused | it is not the caller's |
//! | `skew` | the clock skew of all servers | it is not the caller's |
//! | `run` | the server process | `run_id` is another |
//! | `replid` | its replication history | `master_replid` is another |
//! | `evicted` | how many keys it has evicted | `evicted_keys` is another |
//! | `seen` | the latest time seen, in milliseconds | the clock is behind it by more than clocks may differ |
//! | `count` | how many marks or sessions there are | there are not as many |
//!
//! The last is what nobody can talk away: counters can be reset and policies changed back, but what was evicted is gone.
//! All that is kept beside a record is one key without an end of its own, so it is there as a whole or not at all, and
//! nothing but these scripts takes anything out of it. A policy other than `noeviction`, and a clock that is too far from
//! the caller's, are refused before anything is read or written.
//!
//! Keys: the record, and what is kept. Arguments of all scripts:
//!
//! | | |
//! |---|---|
//! | 1 | the caller's time, in Unix seconds |
//! | 2 | how far the clocks may be apart, in seconds |
//! | 3 | the command that counts what is kept |
//! | 4 | `1` if a server that does not name its policy is taken for one that does not evict |
//! | 5 to 7 | id, fence and skew: of the caller's incarnation, or for a new one |
//!
//! Answers: `policy` and its name; `clock` and the server's time; `epoch` where it is over; else what each script says.

/// What a script needs to know, without judging it.
macro_rules! facts {
    () => {
        r"
local function said(part, name)
  local text = redis.call('INFO', part)
  local _, last = string.find(text, '\n' .. name .. ':', 1, true)
  return last and string.match(text, '^[^\r\n]*', last + 1) or ''
end
local function digits(number) return string.format('%.0f', number) end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local slack = ARGV[2] * 1000
local policy = said('memory', 'maxmemory_policy')
if policy ~= 'noeviction' and not (policy == '' and ARGV[4] == '1') then return {'policy', policy} end
if math.abs(now - ARGV[1] * 1000) > slack + 1000 then return {'clock', now} end
local run, replid = said('server', 'run_id'), said('replication', 'master_replid')
local evicted = said('stats', 'evicted_keys')
local r = redis.call('HMGET', KEYS[1], 'format', 'id', 'fence', 'skew', 'run', 'replid', 'evicted', 'seen', 'count')
local id, fence, skew, seen, count = r[2], r[3], r[4], tonumber(r[8] or ''), tonumber(r[9] or '')
local function whole(kept)
  return r[1] == '2' and run == r[5] and replid == r[6] and evicted == r[7]
    and seen and seen <= now + slack and count and count == redis.call(ARGV[3], kept)
end
"
    };
}

/// Facts, and the judgement: what follows runs only while the caller's incarnation lasts.
macro_rules! prologue {
    () => {
        concat!(
            facts!(),
            r"
if id ~= ARGV[5] or fence ~= ARGV[6] or skew ~= ARGV[7] or not whole(KEYS[2]) then return {'epoch'} end
"
        )
    };
}

/// Takes out marks whose time is over, at most so many. Not by a clock that has just leapt: nobody has seen a time later
/// than a second after the last look.
macro_rules! forget {
    () => {
        r"
local function forget(most)
  local before = digits(math.min(now, seen + 1000))
  local old = math.min(most, redis.call('ZCOUNT', KEYS[2], '-inf', before))
  if old > 0 then redis.call('ZREMRANGEBYRANK', KEYS[2], 0, old - 1) end
  return old
end
"
    };
}

/// Spends marks. Further arguments: each mark's end (Unix milliseconds) and the mark. An end that begins with `&` is of a mark
/// that is spent with the one before it: both, or none. Answers `done`, the server's time, and a character for each that has
/// no `&`: 1 spent now, 0 spent before, 2 too old to tell.
pub(crate) const SPEND: &str = concat!(
    prologue!(),
    forget!(),
    r"
local marks = {}
for i = 9, #ARGV, 2 do marks[#marks + 1] = ARGV[i] end
local known = redis.call('ZMSCORE', KEYS[2], unpack(marks))
local out, taken, new = {}, {}, {}
local function used(i) return known[i] or taken[marks[i]] end
local function take(i, last)
  taken[marks[i]] = true
  new[#new + 1] = last
  new[#new + 1] = marks[i]
end
local i = 1
while i <= #marks do
  local last = ARGV[6 + 2 * i]
  local with = marks[i + 1] and string.match(ARGV[8 + 2 * i], '^&(.+)$')
  if tonumber(last) <= now or (with and tonumber(with) <= now) then
    out[#out + 1] = '2'
  elseif used(i) or (with and (used(i + 1) or marks[i] == marks[i + 1])) then
    out[#out + 1] = '0'
  else
    out[#out + 1] = '1'
    take(i, last)
    if with then take(i + 1, with) end
  end
  i = i + (with and 2 or 1)
end
if #new > 0 then redis.call('ZADD', KEYS[2], unpack(new)) end
local gone = forget(2 * #marks)
redis.call('HSET', KEYS[1], 'seen', digits(math.max(now, seen)), 'count', digits(count + #new / 2 - gone))
return {'done', now, table.concat(out)}
"
);

/// Looks whether all is well, and writes, because a server that is full or read-only shows it only then. Answers `done`,
/// the server's time and an empty text.
pub(crate) const WATCH: &str = concat!(
    prologue!(),
    forget!(),
    r"
local gone = forget(10000)
redis.call('HSET', KEYS[1], 'seen', digits(math.max(now, seen)), 'count', digits(count - gone))
return {'done', now, ''}
"
);

/// Takes over the incarnation that is recorded, if it lasts; begins a new one otherwise, with the fence and the id in the
/// arguments. Further arguments: `1` to begin a new one in any case, `1` if an absent record means that there never was
/// anything, the name of what is kept. Answers `kept` or `new`, the id and the fence; `format` or `skew` and what was
/// found.
///
/// A record of format 1 is of an incarnation that is over: it does not say how many marks there are.
pub(crate) const ADOPT: &str = concat!(
    facts!(),
    r"
if r[1] and r[1] ~= '1' and r[1] ~= '2' then return {'format', r[1]} end
if skew and skew ~= ARGV[7] then return {'skew', skew} end
local before = KEYS[1] .. ':' .. (id or '')
if id and fence and skew and ARGV[8] ~= '1' and whole(before .. ':' .. ARGV[10]) then
  redis.call('HSET', KEYS[1], 'seen', digits(math.max(now, seen)))
  return {'kept', id, fence}
end
local new = ARGV[6]
if not id and ARGV[9] == '1' then new = '0' end
if (tonumber(fence or '') or 0) > tonumber(new) then new = fence end
if id then redis.call('UNLINK', before .. ':' .. ARGV[10], before .. ':sealed', before .. ':revoked') end
redis.call('UNLINK', KEYS[1])
redis.call('HSET', KEYS[1], 'format', '2', 'id', ARGV[5], 'fence', new, 'skew', ARGV[7], 'run', run, 'replid', replid,
  'evicted', evicted, 'seen', digits(now), 'count', '0')
return {'new', ARGV[5], new}
"
);

/// Writes one row of the table of sessions, if nobody changed the table meanwhile. Further arguments: the number of the
/// change before, the row's key and the row, the number of this change, the manifest. Answers `done`, the server's time,
/// and `ok` or `stale`.
pub(crate) const CHANGE: &str = concat!(
    prologue!(),
    r"
if (redis.call('HGET', KEYS[1], 'changes') or '0') ~= ARGV[8] then return {'done', now, 'stale'} end
redis.call('HSET', KEYS[2], ARGV[9], ARGV[10])
redis.call('HSET', KEYS[1], 'changes', ARGV[11], 'manifest', ARGV[12], 'seen', digits(math.max(now, seen)),
  'count', digits(redis.call('HLEN', KEYS[2])))
return {'done', now, 'ok'}
"
);

/// Reads the table of sessions if there was a change. Further argument: the number of the last change that is known.
/// Answers `done`, the server's time and the number of the last change, and, where that is another, the manifest and the
/// rows: key and row in turn.
pub(crate) const READ: &str = concat!(
    prologue!(),
    r"
local c = redis.call('HMGET', KEYS[1], 'changes', 'manifest')
local changes = c[1] or '0'
if changes == ARGV[8] then return {'done', now, changes} end
return {'done', now, changes, c[2] or '', redis.call('HGETALL', KEYS[2])}
"
);

/// Writes a change of records, if nobody else wrote one meanwhile. Further arguments: the number of the change before and of
/// this one, the manifest, how many rows go, their numbers, and then the number of each new row and the row. Answers `done`, the
/// server's time, and `ok` or `stale`.
pub(crate) const CHANGE_RECORDS: &str = concat!(
    prologue!(),
    r"
if (redis.call('HGET', KEYS[1], 'changes') or '0') ~= ARGV[8] then return {'done', now, 'stale'} end
local first = 12 + ARGV[11]
for i = 12, first - 1 do redis.call('ZREMRANGEBYSCORE', KEYS[2], ARGV[i], ARGV[i]) end
for i = first, #ARGV, 2 do redis.call('ZADD', KEYS[2], ARGV[i], ARGV[i + 1]) end
redis.call('HSET', KEYS[1], 'changes', ARGV[9], 'manifest', ARGV[10], 'seen', digits(math.max(now, seen)),
  'count', digits(redis.call('ZCARD', KEYS[2])))
return {'done', now, 'ok'}
"
);

/// Reads records if there was a change. Further arguments: the number of the last change that is known, the number of the last
/// row that is known, the most rows. Answers `done`, the server's time and the number of the last change, and, where that is
/// another, the manifest and the rows: row and number in turn.
pub(crate) const READ_RECORDS: &str = concat!(
    prologue!(),
    r"
local c = redis.call('HMGET', KEYS[1], 'changes', 'manifest')
local changes = c[1] or '0'
if changes == ARGV[8] then return {'done', now, changes} end
return {'done', now, changes, c[2] or '',
  redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. ARGV[9], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[10])}
"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_script_but_the_one_that_begins_an_incarnation_does_anything_before_the_prologue() {
        for script in [SPEND, WATCH, CHANGE, READ, CHANGE_RECORDS, READ_RECORDS] {
            assert!(script.starts_with(prologue!()), "{script}");
        }
        assert!(ADOPT.starts_with(facts!()));
    }
}
