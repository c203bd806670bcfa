//! The rule, tried with real files.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::time::Instant;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;

const LIMIT: usize = 100;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn put(path: &Path, text: &str) {
    PrivateFile::open(path).unwrap().into_file().write_all(text.as_bytes()).unwrap();
}

fn read(path: impl AsRef<Path>) -> Result<String, String> {
    let bytes = PrivateFile::read(path, LIMIT).map_err(|error| error.to_string())?;
    Ok(String::from_utf8(bytes.to_vec()).unwrap())
}

#[test]
fn what_is_created_is_closed_to_others_and_reads_back() {
    let folder = folder();
    let path = folder.path().join("file");
    put(&path, "secret");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    PrivateFile::append(&path).unwrap().into_file().write_all(b" and more").unwrap();
    assert_eq!(read(&path), Ok("secret and more".to_owned()));
    assert!(matches!(PrivateFile::create(&path).unwrap_err().fault(), Fault::Io(_)));
    assert!(PrivateFile::read(folder.path().join("none"), LIMIT).unwrap_err().is_missing());
}

#[test]
fn a_file_is_read_up_to_its_limit_and_no_further() {
    let folder = folder();
    let path = folder.path().join("file");
    put(&path, &"x".repeat(LIMIT));
    assert_eq!(read(&path).unwrap().len(), LIMIT);
    put(&path, &"x".repeat(LIMIT + 1));
    assert!(read(&path).unwrap_err().contains("longer than 100 bytes"));
}

#[test]
fn pipes_sockets_and_folders_are_refused_at_once() {
    let folder = folder();
    let place = |name: &str| folder.path().join(name);
    mknodat(CWD, place("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(place("socket")).unwrap();
    fs::create_dir(place("folder")).unwrap();
    let start = Instant::now();
    for name in ["fifo", "socket", "folder"] {
        for opened in [
            read(place(name)).map(drop),
            PrivateFile::open(place(name)).map(drop).map_err(|error| error.to_string()),
            PrivateFile::append(place(name)).map(drop).map_err(|error| error.to_string()),
            read_public(&place(name), LIMIT).map(drop).map_err(|error| error.to_string()),
            read_credential(&place(name), LIMIT).map(drop).map_err(|error| error.to_string()),
        ] {
            assert!(opened.unwrap_err().contains("must be a regular file"), "{name}");
        }
    }
    assert!(start.elapsed() < READ_PATIENCE);
}

#[test]
fn a_file_open_to_others_is_refused_with_the_command_that_helps() {
    let folder = folder();
    let path = folder.path().join("file");
    put(&path, "secret");
    for mode in [0o640, 0o604, 0o620, 0o660, 0o666] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        for refusal in [read(&path).unwrap_err(), PrivateFile::open(&path).unwrap_err().to_string()] {
            assert!(refusal.contains(&format!("chmod 600 {}", path.display())), "{refusal}");
            assert!(!refusal.contains("secret"));
        }
    }
}

#[test]
fn a_file_with_a_second_name_is_refused() {
    let folder = folder();
    let path = folder.path().join("file");
    put(&path, "secret");
    fs::hard_link(&path, folder.path().join("other")).unwrap();
    assert!(read(&path).unwrap_err().contains("2 names"));
    assert!(PrivateFile::open(&path).unwrap_err().to_string().contains("2 names"));
    fs::remove_file(folder.path().join("other")).unwrap();
    assert!(read(&path).is_ok());
}

#[test]
fn a_folder_where_others_can_write_holds_no_secrets() {
    let folder = folder();
    let path = folder.path().join("file");
    put(&path, "secret");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
    for refusal in [read(&path).unwrap_err(), PrivateFile::open(&path).unwrap_err().to_string()] {
        assert!(refusal.contains("chmod go-w"), "{refusal}");
    }
    assert!(PrivateFile::create(folder.path().join("new")).is_err());
    assert!(!folder.path().join("new").exists(), "it is made though it is refused");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o1777)).unwrap();
    assert!(read(&path).is_ok(), "nobody can take a file away in a sticky folder");
}

#[test]
fn a_folder_is_created_closed_to_others_and_one_where_others_write_is_refused() {
    let above = folder();
    let path = above.path().join("a/b");
    create_folder(&path).unwrap();
    for made in [&path, &above.path().join("a")] {
        assert_eq!(fs::metadata(made).unwrap().permissions().mode() & 0o777, 0o700);
    }
    // One that is there is left as it is, also where others may look into it.
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    create_folder(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o755);
    fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
    let refusal = create_folder(&path).unwrap_err().to_string();
    assert!(refusal.contains(&format!("run `chmod go-w {}`", path.display())), "{refusal}");
    put(&above.path().join("file"), "");
    assert!(matches!(create_folder(&above.path().join("file")).unwrap_err().fault(), Fault::Io(_)));
}

#[test]
fn what_decides_is_read_by_anybody_and_refused_where_others_write_it() {
    let folder = folder();
    let path = folder.path().join("rules");
    put(&path, "rules");
    for (mode, is_read) in [(0o600, true), (0o444, true), (0o644, true), (0o664, false), (0o602, false)] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        assert_eq!(read_rules(&path, LIMIT).is_ok(), is_read, "{mode:o}");
        assert_eq!(check_rules(&path).is_ok(), is_read, "{mode:o}");
        assert!(read_public(&path, LIMIT).is_ok(), "{mode:o}");
    }
    // What counts is the file that is read, not the link to it.
    symlink("rules", folder.path().join("link")).unwrap();
    let refusal = read_rules(&folder.path().join("link"), LIMIT).unwrap_err().to_string();
    assert!(refusal.contains(&format!("run `chmod go-w {}`", path.display())), "{refusal}");
}

#[test]
fn a_link_is_followed_to_what_is_read_and_never_to_what_is_written() {
    let folder = folder();
    let (path, link) = (folder.path().join("file"), folder.path().join("link"));
    put(&path, "secret");
    symlink("file", &link).unwrap();
    assert_eq!(read(&link), Ok("secret".to_owned()));
    for opened in [PrivateFile::open(&link), PrivateFile::append(&link)] {
        assert!(opened.unwrap_err().to_string().contains("is a symbolic link"));
    }
    assert!(PrivateFile::create(&link).is_err());
    // Nor is anything made where a link points to nothing.
    symlink("none", folder.path().join("dangling")).unwrap();
    assert!(PrivateFile::open(folder.path().join("dangling")).is_err());
    assert!(!folder.path().join("none").exists());
    // What the link leads to must pass the rule, and the refusal says what that is.
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let refusal = read(&link).unwrap_err();
    assert!(refusal.contains("leads to") && refusal.contains("chmod 600"), "{refusal}");
    symlink("loop", folder.path().join("loop")).unwrap();
    assert!(read(folder.path().join("loop")).is_err());
}

#[test]
fn what_is_behind_a_link_is_judged_by_its_own_folder() {
    let folder = folder();
    let open = folder.path().join("open");
    fs::create_dir(&open).unwrap();
    put(&open.join("file"), "secret");
    fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
    symlink("open/file", folder.path().join("link")).unwrap();
    assert!(read(folder.path().join("link")).unwrap_err().contains("chmod go-w"));
}

#[test]
fn a_folder_swapped_behind_a_link_is_read_again_and_found() {
    let folder = folder();
    let place = |name: &str| folder.path().join(name);
    for (number, text) in [("..1", "old"), ("..2", "new")] {
        fs::create_dir(place(number)).unwrap();
        put(&place(number).join("file"), text);
    }
    symlink("..1", place("..data")).unwrap();
    symlink("..data/file", place("file")).unwrap();
    assert_eq!(read(place("file")), Ok("old".to_owned()));
    symlink("..2", place("..tmp")).unwrap();
    fs::rename(place("..tmp"), place("..data")).unwrap();
    assert_eq!(read(place("file")), Ok("new".to_owned()));
    assert_eq!(read(place("..data/file")), Ok("new".to_owned()));
    // Both the link to the file and the link to the folder are in the folder that is mounted.
    assert_eq!(folders_of_links(&place("file")), [folder.path()]);
    assert_eq!(folders_of_links(&place("..data/file")), [folder.path()]);
    assert!(folders_of_links(&place("..1/file")).is_empty());
}

#[test]
fn a_link_that_leads_elsewhere_opens_no_folder() {
    let folder = folder();
    symlink("/etc", folder.path().join("away")).unwrap();
    symlink("../x", folder.path().join("up")).unwrap();
    for link in ["away/file", "up/file", "away", "up"] {
        assert!(folders_of_links(&folder.path().join(link)).is_empty(), "{link}");
    }
}

#[test]
fn a_locked_file_is_not_locked_again() {
    let folder = folder();
    let path = folder.path().join("file");
    let held = PrivateFile::open(&path).unwrap().locked().unwrap();
    let again = PrivateFile::open(&path).unwrap().locked().unwrap_err();
    assert!(matches!(again.fault(), Fault::InUse), "{again}");
    drop(held);
    assert!(PrivateFile::open(&path).unwrap().locked().is_ok());
}

#[test]
fn what_takes_too_long_is_given_up_and_what_does_not_leaves_no_thread() {
    let start = Instant::now();
    let stuck: Result<(), _> = in_time(Path::new("file"), |_| {
        std::thread::sleep(READ_PATIENCE * 3);
        Ok(())
    });
    let error = stuck.unwrap_err();
    assert!(matches!(error.fault(), Fault::NoAnswer) && error.to_string().contains("network mount"));
    assert!(start.elapsed() < READ_PATIENCE * 2);
}
