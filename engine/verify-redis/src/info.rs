//! What `INFO` says.

/// The value of a field in the text of `INFO`.
pub(crate) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim_end)
}

/// Whether the version has what is needed: `SET … PXAT` came with Redis 6.2. Valkey reports 7.2.4.
pub(crate) fn is_new_enough(version: &str) -> bool {
    let mut numbers = version.split('.').map_while(|part| part.parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let info = "# Server\r\nrun_id:abc\r\nrole:master\r\nrole_of:x\r\n";
        assert_eq!(field(info, "run_id"), Some("abc"));
        assert_eq!(field(info, "role"), Some("master"));
        assert_eq!(field(info, "rol"), None);
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        for (version, enough) in
            [("6.0.16", false), ("6.2.0", true), ("7.0.15", true), ("10.0", true), ("5", false), ("", false)]
        {
            assert_eq!(is_new_enough(version), enough, "{version}");
        }
    }
}
