//! Users of this machine, as people name them: by number or by name.

use core::fmt;

use nix::unistd::User;

/// A user that is named in a way that leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownUser(String);

impl fmt::Display for UnknownUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no user {:?} on this machine; name one that exists, or a number", self.0)
    }
}

impl core::error::Error for UnknownUser {}

/// The number of a user, who is named by number or by name. A number need not belong to a known user: containers run
/// processes under numbers that no list of users has.
///
/// # Errors
///
/// [`UnknownUser`] when the name is on no list of users.
pub fn uid_of(user: &str) -> Result<u32, UnknownUser> {
    // The largest number means "no user" to the kernel.
    if let Some(uid) = user.parse().ok().filter(|uid| *uid != u32::MAX) {
        return Ok(uid);
    }
    match User::from_name(user) {
        Ok(Some(found)) => Ok(found.uid.as_raw()),
        _ => Err(UnknownUser(user.to_owned())),
    }
}

/// A user's name, or the number of one who has none.
pub fn name_of(uid: u32) -> String {
    match User::from_uid(uid.into()) {
        Ok(Some(found)) => found.name,
        _ => format!("#{uid}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_number_and_by_name() {
        assert_eq!(uid_of("54321"), Ok(54_321));
        assert_eq!(uid_of("root"), Ok(0));
        assert_eq!(name_of(0), "root");
        assert_eq!(name_of(4_000_000_000), "#4000000000");
    }

    #[test]
    fn what_is_no_user_is_refused() {
        for text in ["", "no such user", "-1", "4294967295", "4294967296", "0x0"] {
            assert!(uid_of(text).unwrap_err().to_string().contains(text), "{text}");
        }
    }
}
