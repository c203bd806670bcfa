//! What the README shows is pasted, as its readers do, and does what it says there.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use obol_world::home;

/// A block between two fences.
struct Block {
    language: String,
    text: String,
    /// What the README says right after it.
    after: String,
}

fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn blocks() -> Vec<Block> {
    let readme = fs::read_to_string(tree().join("README.md")).unwrap();
    let mut blocks: Vec<Block> = Vec::new();
    let mut inside = false;
    for line in readme.lines() {
        assert!(
            !line.starts_with("    "),
            "code belongs between fences, where it is found and tried: {line}"
        );
        if let Some(language) = line.strip_prefix("```") {
            inside = !inside;
            if inside {
                let language = language.to_owned();
                blocks.push(Block { language, text: String::new(), after: String::new() });
            }
        } else if let Some(block) = blocks.last_mut() {
            let part = if inside { &mut block.text } else { &mut block.after };
            part.push_str(line);
            part.push('\n');
        }
    }
    assert!(!inside);
    blocks
}

fn write_program(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A home whose programs stand in for what a machine of tests has not: a network, root, and the time for an optimised
/// build. What they are asked for must be what there is.
struct Reader {
    home: tempfile::TempDir,
    port: u16,
}

impl Reader {
    fn new() -> Self {
        let home = home::home();
        let bin = home.path().join("bin");
        fs::create_dir_all(home.path().join(".cargo/bin")).unwrap();
        fs::write(home.path().join(".cargo/env"), "export PATH=$HOME/.cargo/bin:$PATH\n").unwrap();
        fs::create_dir(&bin).unwrap();
        let (obol, tree) = (home::obol().display(), tree());
        let tree = tree.display();
        // Daemons take a while to start, as on a machine that is busy.
        let slow = format!(
            "#!/bin/sh\ncase \"$1 $2\" in 'as --policy'|'rs --audience'|'sidecar '*) sleep 0.5;; esac\nexec {obol} \"$@\"\n"
        );
        write_program(&bin.join("slow-obol"), &slow);
        write_program(&bin.join("sudo"), "#!/bin/sh\n[ \"$1 $2 $3\" = 'apt-get install -y' ]\n");
        let git = format!(
            "#!/bin/sh\n[ \"$1 $2\" = 'clone {}' ] && ln -s {tree} obol\n",
            env!("CARGO_PKG_REPOSITORY")
        );
        write_program(&bin.join("git"), &git);
        let curl =
            "#!/bin/sh\ncase \"$*\" in *https://sh.rustup.rs) echo :;; *) exec /usr/bin/curl \"$@\";; esac\n";
        write_program(&bin.join("curl"), curl);
        let cargo = format!(
            "#!/bin/sh\ncase \"$*\" in\n'run -p obol -- '*) [ -f Cargo.toml ] || exit 1; shift 4; exec {obol} \"$@\";;\n\
             'install --path server/cli') cp {}/bin/slow-obol $HOME/.cargo/bin/obol && [ -f {tree}/server/cli/Cargo.toml ];;\n\
             *) exit 64;;\nesac\n",
            home.path().display()
        );
        write_program(&bin.join("cargo"), &cargo);
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self { home, port }
    }

    /// Gives a block to a shell as one.
    fn paste(&self, block: &str) -> Output {
        let home = self.home.path();
        let text = block.replace("8700", &self.port.to_string());
        let script = format!("{text}\nended=$?\nkill $(jobs -p) 2>/dev/null; wait; exit $ended\n");
        Command::new("/bin/bash")
            .args(["-c", &script])
            .env_clear()
            .env("HOME", home)
            .env("XDG_RUNTIME_DIR", home.join("run"))
            .env("OBOL_RS__LISTEN", format!("127.0.0.1:{}", self.port))
            .env("OBOL_AS__LISTEN", format!("127.0.0.1:{}", home::free_port()))
            .env("OBOL_AS__HTTP", "off")
            .env("PATH", format!("{0}/.cargo/bin:{0}/bin:/usr/bin:/bin", home.display()))
            .current_dir(home)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }
}

/// What a block must bring about, found by a word in it.
const SHELL: [(&str, &[&str]); 3] = [
    ("git clone", &["mint", "TOKEN_REPLAYED"]),
    ("cargo install", &[]),
    (
        "obol dequeue",
        &[
            "approved: builder",
            "suite 4",
            "\"ok\":true",
            "\"code\":\"TOKEN_REPLAYED\"",
            "1 session ended",
            "\"code\":\"SESSION_EXPIRED\"",
        ],
    ),
];

#[test]
fn every_block_for_a_shell_works_when_pasted_as_one() {
    let reader = Reader::new();
    let mut pasted = 0;
    for block in blocks().iter().filter(|block| block.language == "sh") {
        if block.text.trim() == "scripts/test" {
            let mode = fs::metadata(tree().join("scripts/test")).unwrap().permissions().mode();
            assert!(mode & 0o111 != 0, "these tests are run by it");
            continue;
        }
        let known = SHELL.iter().find(|(word, _)| block.text.contains(word));
        let (_, wanted) = known.unwrap_or_else(|| panic!("say here what comes of it: {}", block.text));
        let output = reader.paste(&block.text);
        let (said, errors) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{}\n{said}\n{errors}", block.text);
        let mut rest = &*said;
        for word in *wanted {
            let at = rest.find(word).unwrap_or_else(|| panic!("no {word} in\n{said}\n{errors}"));
            rest = &rest[at + word.len()..];
        }
        pasted += 1;
    }
    assert_eq!(pasted, SHELL.len());
}

#[test]
fn every_block_of_rust_is_a_part_of_the_example_named_below_it() {
    let mut seen = 0;
    for block in blocks().iter().filter(|block| block.language == "rust") {
        let (_, link) = block.after.split_once("](").unwrap();
        let example = fs::read_to_string(tree().join(link.split_once(')').unwrap().0)).unwrap();
        let lines: Vec<_> = example.lines().map(str::trim).collect();
        for line in block.text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            assert!(lines.contains(&line), "not in the example: {line}");
        }
        seen += 1;
    }
    assert_eq!(seen, 2);
    // What Node and Python are shown stands in their own pages, whose lines their own tests run.
    for (language, page) in [("js", "client/node/README.md"), ("python", "client/python/README.md")] {
        let page = fs::read_to_string(tree().join(page)).unwrap();
        let code = |line: &str| line.split(['#', '/']).next().unwrap_or_default().trim().to_owned();
        let lines: Vec<_> = page.lines().map(code).collect();
        let blocks = blocks();
        let block = blocks.iter().find(|block| block.language == language).unwrap();
        for line in block.text.lines().map(code).filter(|line| !line.is_empty()) {
            assert!(lines.contains(&line), "not in the page: {line}");
        }
    }
    assert!(blocks().iter().all(|block| ["sh", "rust", "js", "python"].contains(&block.language.as_str())));
}
