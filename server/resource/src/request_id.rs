//! A name for every request, in logs and in the answer.

use core::hash::BuildHasher as _;
use core::sync::atomic::{AtomicU64, Ordering};
use std::hash::RandomState;
use std::sync::LazyLock;

use http::{HeaderMap, HeaderName};

pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The longest name taken over from a caller, in bytes.
const MAX_BYTES: usize = 64;

/// The caller's own name for the request if it is short and harmless in a log, otherwise a new one.
pub(crate) fn of(headers: &HeaderMap) -> String {
    let harmless = |text: &&str| {
        (1..=MAX_BYTES).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
    };
    headers
        .get(HEADER)
        .and_then(|value| value.to_str().ok())
        .filter(harmless)
        .map_or_else(fresh, str::to_owned)
}

/// Unique in this process, and unlikely to meet another's.
fn fresh() -> String {
    static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0_u8));
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{:08x}-{count:x}", *PROCESS >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn only_harmless_names_are_taken_over() {
        let with =
            |value: &'static str| of(&HeaderMap::from_iter([(HEADER, HeaderValue::from_static(value))]));
        assert_eq!(with("req-1.a:b_c"), "req-1.a:b_c");
        for odd in [
            "",
            "a b",
            "a\"b",
            "a=b",
            "0123456789012345678901234567890123456789012345678901234567890123456789",
        ] {
            assert_ne!(with(odd), odd);
        }
        assert_ne!(of(&HeaderMap::new()), of(&HeaderMap::new()));
    }
}
