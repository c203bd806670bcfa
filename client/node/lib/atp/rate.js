// Token buckets by name. Their number is bounded: when there are too many, the fullest history is dropped first, which can
// only let somebody in.
"use strict";

const MAX_BUCKETS = 10_000;

/** `rate` a second, `burst` at once. Returns whether there was one left, or the seconds to wait. */
function createLimiter(rate, burst) {
  const buckets = new Map();
  return (name, nowMs) => {
    if (rate === 0) return 0;
    const bucket = buckets.get(name) ?? { left: burst, at: nowMs };
    const left = Math.min(burst, bucket.left + (Math.max(0, nowMs - bucket.at) / 1000) * rate);
    buckets.delete(name);
    if (buckets.size >= MAX_BUCKETS) buckets.delete(buckets.keys().next().value);
    buckets.set(name, { left: left >= 1 ? left - 1 : left, at: nowMs });
    return left >= 1 ? 0 : Math.ceil((1 - left) / rate);
  };
}

module.exports = { createLimiter };
