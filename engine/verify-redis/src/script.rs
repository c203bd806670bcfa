//! What runs inside the server, atomically. Sent whole each time: a server that forgot a script needs no special case.

/// Spends marks. Keys: epoch record, then one for each mark. Arguments: the epoch's id, then each mark's end (Unix
/// milliseconds). Answers `epoch` if the record is not that epoch's or the server's replication history is another;
/// else `done`, the server's time, and a character for each mark: 1 spent now, 0 spent before, 2 too old to tell.
pub(crate) const SPEND: &str = r"
local r = redis.call('HMGET', KEYS[1], 'id', 'replid')
if r[1] ~= ARGV[1] or r[2] ~= string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)') then
  return {'epoch'}
end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local out = {}
for i = 2, #KEYS do
  if tonumber(ARGV[i]) <= now then
    out[i - 1] = '2'
  elseif redis.call('SET', KEYS[i], '1', 'NX', 'PXAT', ARGV[i]) then
    out[i - 1] = '1'
  else
    out[i - 1] = '0'
  end
end
return {'done', now, table.concat(out)}
";

/// Looks whether all is well, and writes, because a server that is full or read-only shows it only then. Key: epoch
/// record. Argument: the epoch's id. Answers `epoch`, or `done`, the server's time and its eviction policy.
pub(crate) const WATCH: &str = r"
local r = redis.call('HMGET', KEYS[1], 'id', 'replid', 'evicted')
local info = redis.call('INFO', 'replication')
if r[1] ~= ARGV[1] or r[2] ~= string.match(info, 'master_replid:(%x+)')
    or r[3] ~= (string.match(redis.call('INFO', 'stats'), 'evicted_keys:(%d+)') or '') then
  return {'epoch'}
end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('HSET', KEYS[1], 'seen', string.format('%.0f', now))
return {'done', now, string.match(redis.call('INFO', 'memory'), 'maxmemory_policy:([%w%-]+)') or ''}
";

/// Takes over the epoch that is recorded, if this is still the process, the history and the set of keys that it was
/// recorded for; begins a new one otherwise. Key: epoch record. Arguments: id for a new epoch, run id, replication id,
/// count of evictions, fence for a new epoch, clock skew, `1` to begin a new one in any case, `1` if an absent record
/// means that nothing was ever spent.
pub(crate) const ADOPT: &str = r"
local r = redis.call('HMGET', KEYS[1], 'format', 'id', 'run', 'replid', 'evicted', 'fence', 'skew')
if r[1] and r[1] ~= '1' then return {'format', r[1]} end
if r[7] and r[7] ~= ARGV[6] then return {'skew', r[7]} end
if ARGV[3] ~= string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)') then return {'again'} end
local t = redis.call('TIME')
local seen = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000))
if r[2] and r[3] == ARGV[2] and r[4] == ARGV[3] and r[5] == ARGV[4] and ARGV[7] ~= '1' then
  redis.call('HSET', KEYS[1], 'seen', seen)
  return {'kept', r[2], r[6]}
end
local fence = ARGV[5]
if not r[2] and ARGV[8] == '1' then fence = '0' end
if r[6] and tonumber(r[6]) > tonumber(fence) then fence = r[6] end
redis.call('HSET', KEYS[1], 'format', '1', 'id', ARGV[1], 'run', ARGV[2], 'replid', ARGV[3], 'evicted', ARGV[4],
  'fence', fence, 'skew', ARGV[6], 'seen', seen)
return {'new', ARGV[1], fence, r[2] or ''}
";

/// Adds a session or revokes one. Keys: epoch record, sealed sessions, revoked ones. Arguments: the epoch's id, `add` or
/// `revoke`, the session's number, its sealed text or the time, the most sessions. Answers `epoch`, or `done`, the
/// change's number, and `ok`, `full` or `revoked`.
pub(crate) const CHANGE: &str = r"
local r = redis.call('HMGET', KEYS[1], 'id', 'replid')
if r[1] ~= ARGV[1] or r[2] ~= string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)') then
  return {'epoch'}
end
if ARGV[2] == 'add' then
  if redis.call('HEXISTS', KEYS[3], ARGV[3]) == 1 then return {'done', 0, 'revoked'} end
  if redis.call('HEXISTS', KEYS[2], ARGV[3]) == 0 and redis.call('HLEN', KEYS[2]) >= tonumber(ARGV[5]) then
    return {'done', 0, 'full'}
  end
  redis.call('HSET', KEYS[2], ARGV[3], ARGV[4])
else
  redis.call('HSET', KEYS[3], ARGV[3], ARGV[4])
  redis.call('HDEL', KEYS[2], ARGV[3])
end
return {'done', redis.call('HINCRBY', KEYS[1], 'changes', 1), 'ok'}
";

/// Reads all sessions if there was a change. Keys as above. Arguments: the epoch's id, the number of the last change that
/// is known. Answers `epoch`, or `done`, the server's time and the number of the last change, and, where that is
/// another, the sealed sessions: number and text in turn.
pub(crate) const READ: &str = r"
local r = redis.call('HMGET', KEYS[1], 'id', 'replid', 'evicted', 'changes')
if r[1] ~= ARGV[1] or r[2] ~= string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
    or r[3] ~= (string.match(redis.call('INFO', 'stats'), 'evicted_keys:(%d+)') or '') then
  return {'epoch'}
end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local changes = r[4] or '0'
if changes == ARGV[2] then return {'done', now, changes} end
return {'done', now, changes, redis.call('HGETALL', KEYS[2])}
";
