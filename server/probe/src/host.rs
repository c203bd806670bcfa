//! Who a request to a loopback address was meant for.
//!
//! A web page may have its own name lead to 127.0.0.1 (DNS rebinding), and the browser then lets it read what a server on
//! this machine answers. What gives it away is the name: `Host` and `Origin` carry the page's, not this machine's.

use core::net::{IpAddr, Ipv6Addr};

/// Whether a request with these headers was meant for this machine: its `Host` names a loopback address or `localhost`,
/// and so does its `Origin` if it has one. Both values are bytes as they came; a request of HTTP/1.0 may have no `Host`.
/// Of several `Origin`s or `Host`s each must pass.
pub fn is_local<'a>(
    hosts: impl IntoIterator<Item = &'a [u8]>,
    origins: impl IntoIterator<Item = &'a [u8]>,
) -> bool {
    let origin = |origin: &[u8]| {
        let text = core::str::from_utf8(origin).ok();
        let host =
            text.and_then(|text| text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")));
        host.is_some_and(names_loopback)
    };
    hosts.into_iter().all(|host| core::str::from_utf8(host).is_ok_and(names_loopback))
        && origins.into_iter().all(origin)
}

/// Whether `host` or `host:port`, as in a `Host` header or a URL, names this machine: a loopback address, or `localhost`.
pub fn names_loopback(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => host,
        _ => authority,
    };
    if let Some(v6) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return v6.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback());
    }
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_local() {
        for host in
            ["localhost", "LocalHost:8700", "127.0.0.1", "127.0.0.1:1", "127.9.9.9", "[::1]", "[::1]:8700"]
        {
            assert!(is_local([host.as_bytes()], []), "{host}");
            let origin = format!("http://{host}");
            assert!(is_local([host.as_bytes()], [origin.as_bytes()]), "{origin}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:8700",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "localhost.",
            "10.0.0.1",
            "0.0.0.0",
            "[::]",
            "::1:8700x",
            "127.0.0.1:8700:1",
            "user@localhost",
            "127.1",
            "2130706433",
        ] {
            assert!(!is_local([host.as_bytes()], []), "{host}");
            let origin = format!("http://{host}");
            assert!(!is_local([&b"localhost"[..]], [origin.as_bytes()]), "{origin}");
        }
        assert!(!is_local([&b"localhost"[..], b"evil.example"], []), "of two, each must pass");
        assert!(!is_local([&b"localhost"[..]], [&b"null"[..]]));
        assert!(!is_local([&b"\xff"[..]], []));
        assert!(is_local([], []), "HTTP/1.0");
    }
}
