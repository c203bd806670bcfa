//! System calls as they are, for tests of what a sandbox closes.
//!
//! Most of what a sandbox denies no safe function does, and some of it no library has a name for. A test has to do it
//! all the same: what nobody tried is not known to be closed. Nothing that ships links this crate.

use std::io;

/// No address of a process is below this, because nothing is ever mapped there.
const LOWEST_ADDRESS: u64 = 0x1_0000;
/// No address of a process is from here on: the rest is the kernel's.
const HIGHEST_ADDRESS: u64 = 1 << 47;

/// Makes one system call, with arguments that point nowhere, and says what the kernel answers. Where the call makes a
/// process, the new one ends at once.
///
/// # Panics
///
/// If an argument could be an address in this process.
pub fn attempt(number: libc::c_long, arguments: [u64; 6]) -> io::Result<i64> {
    for argument in arguments {
        let points_nowhere = !(LOWEST_ADDRESS..HIGHEST_ADDRESS).contains(&argument);
        assert!(points_nowhere || u32::try_from(argument).is_ok(), "{argument:#x} may be an address");
    }
    let [a, b, c, d, e, f] = arguments;
    let own = std::process::id();
    #[allow(
        unsafe_code,
        reason = "no argument is an address of this process, so the kernel neither reads nor writes its memory; a call \
                  that makes a process leaves the new one here, and it ends in the next line"
    )]
    let answer = unsafe {
        let answer = libc::syscall(number, a, b, c, d, e, f);
        if libc::getpid().cast_unsigned() != own {
            libc::_exit(0);
        }
        answer
    };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}
