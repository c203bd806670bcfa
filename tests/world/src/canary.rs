//! Secrets that a test knows, and where they are found: in the memory of a process, in files, in bytes.

use std::fs::{self, File};
use std::io::BufRead as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use obol_token::text::to_hex;

/// What is read of a process at a time, in bytes.
const CHUNK_BYTES: usize = 1 << 20;
/// Pieces overlap by more than a canary's length, in bytes.
const OVERLAP_BYTES: usize = 64;

/// What must not be found: each secret as it is written and as it is.
pub struct Canaries(Vec<(String, Vec<u8>)>);

impl Canaries {
    /// These secrets, by name.
    pub fn of<'a>(secrets: impl IntoIterator<Item = (&'a str, [u8; 32])>) -> Self {
        let mut all = Vec::new();
        for (name, key) in secrets {
            // The second half is enough to know it by, and finds cut off copies too.
            all.push((format!("{name}, in hex"), to_hex(&key).as_bytes()[32..].to_vec()));
            all.push((name.to_owned(), key[16..].to_vec()));
        }
        Self(all)
    }

    /// Those that are in these bytes.
    pub fn found_in(&self, bytes: &[u8]) -> Vec<&str> {
        let holds = |needle: &[u8]| {
            let (first, rest) = needle.split_first().unwrap();
            let mut bytes = bytes;
            // The standard library's search for one byte is fast also where these tests are not optimised.
            while !bytes.is_empty() {
                bytes.skip_until(*first).unwrap();
                if bytes.starts_with(rest) {
                    return true;
                }
            }
            false
        };
        self.0.iter().filter(|(_, needle)| holds(needle)).map(|(name, _)| name.as_str()).collect()
    }

    /// Searches all memory of a process that can be read, its environment and its arguments.
    pub fn found_in_process(&self, pid: u32) -> Vec<String> {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
        let (mut found, mut searched) = (Vec::new(), 0);
        for line in maps.lines().filter(|line| line.contains(" r") || line.contains(" -")) {
            let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
            let (from, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
            let mut buffer = vec![0; CHUNK_BYTES + OVERLAP_BYTES];
            for start in (from..to).step_by(CHUNK_BYTES) {
                let length = usize::try_from((to - start).min((CHUNK_BYTES + OVERLAP_BYTES) as u64)).unwrap();
                // Some of it is the kernel's and cannot be read.
                if let Ok(read) = memory.read_at(&mut buffer[..length], start) {
                    searched += read;
                    found.extend(self.found_in(&buffer[..read]).into_iter().map(str::to_owned));
                }
            }
        }
        assert!(searched > 1 << 20, "only {searched} bytes of process {pid} could be read");
        for file in ["environ", "cmdline"] {
            let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap();
            found.extend(self.found_in(&bytes).into_iter().map(|name| format!("{name} in {file}")));
        }
        found
    }

    /// Searches every file below a folder but those that are made to hold secrets; and how many files that were.
    pub fn found_in_files(&self, folder: &Path, allowed: &[PathBuf]) -> (Vec<String>, usize) {
        let (mut found, mut searched) = (Vec::new(), 0);
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            if kind.is_dir() {
                let (more, files) = self.found_in_files(&path, allowed);
                found.extend(more);
                searched += files;
            } else if kind.is_file() && !allowed.contains(&path) {
                let bytes = fs::read(&path).unwrap();
                searched += 1;
                found
                    .extend(self.found_in(&bytes).iter().map(|name| format!("{name} in {}", path.display())));
            }
        }
        (found, searched)
    }
}
