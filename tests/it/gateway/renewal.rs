//! A credential that a program prints, and prints again: what changes, what goes wrong, and what is left behind.

use std::fs;
use std::path::Path;

use obol_world::home::{wait_until, write_private};

use super::{SECRET, World, file_with};

const SECOND: &str = "sk-live-second-0123456789";

/// What the program does, by what a file says.
const PROGRAM: &str = r#"#!/bin/sh
home=$1
echo run >> "$home/runs"
case $(cat "$home/mode") in
much) while :; do cat "$home/real"; done ;;
fails) cat "$home/real"; exit 3 ;;
nothing) ;;
hangs) cat "$home/real"; echo $$ > "$home/new" && mv "$home/new" "$home/pid"; sleep 1000 ;;
*) cat "$home/real" ;;
esac
"#;

/// A file that takes another's place at once.
fn put(world: &World, name: &str, text: &str) {
    let new = world.home().join("new-file");
    write_private(&new, text);
    fs::rename(new, world.home().join(name)).unwrap();
}

/// A gateway whose credential is printed every second.
fn world() -> World {
    World::with(&[], |home, api| {
        for (name, text) in [("real", SECRET), ("mode", "prints"), ("program", PROGRAM)] {
            write_private(&home.join(name), text);
        }
        let home = home.to_str().unwrap();
        let command = format!("command = [\"/bin/sh\", \"{home}/program\", \"{home}\"]\nrenew = 1");
        file_with(api, &format!("put = \"bearer\"\n{command}"))
    })
}

/// Makes a call, and gives what the API saw of it.
fn call(world: &World) -> String {
    let answer = world.ask("GET /saas/v1/search/a", &world.token("search"), "", "");
    assert_eq!(answer.status, 200, "{} {}", answer.text(), world.log());
    world.seen.lock().last().unwrap().clone()
}

fn count(world: &World, what: &str) -> usize {
    world.log().matches(what).count()
}

/// Waits for a run that began after this.
fn wait_for_another(world: &World, what: &str) {
    let before = count(world, what);
    wait_until(what, || count(world, what) >= before + 2);
}

/// The processes that this one started, and that have not ended.
fn children(of: u32) -> Vec<u32> {
    let is_child = |stat: &str| {
        let mut rest = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        let (state, parent) = (rest.next(), rest.next());
        state != Some("Z") && parent.and_then(|parent| parent.parse().ok()) == Some(of)
    };
    let all =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    all.filter(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| is_child(&stat)))
        .collect()
}

fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

fn helper(world: &World) -> u32 {
    let all = children(world.child.as_ref().unwrap().id());
    let [helper] = all.as_slice() else { panic!("{all:?}") };
    *helper
}

fn kill(pid: u32) {
    let killed = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    assert!(killed.success());
}

const RENEWED: &str = "the API's credential was renewed";
const NOT_RENEWED: &str = "cannot be renewed, and stays as it was";

#[test]
fn a_credential_that_was_renewed_is_still_blotted_out_of_what_the_api_remembers() {
    let world = world();
    assert!(call(&world).contains(SECRET));
    put(&world, "real", SECOND);
    wait_until("the new one is used", || call(&world).contains(SECOND));
    for secret in [SECRET, SECOND] {
        // What the API says of earlier requests: this one is told what to say.
        let line = format!("GET /saas/v1/search/{secret}");
        let answer = world.ask(&line, &world.token("search"), "", "");
        assert_eq!(answer.status, 200, "{} {}", answer.text(), world.log());
        assert!(
            !answer.text().contains(secret) && answer.text().contains("/v1/search/***"),
            "{}",
            answer.text()
        );
    }
    let kept = world.ask("GET /saas/v1/search/of-another", &world.token("search"), "", "");
    assert!(kept.text().contains("/v1/search/of-another"), "the control: {}", kept.text());
}

#[test]
fn a_credential_that_changes_is_used_once_it_is_printed_and_told_nobody() {
    let world = world();
    assert!(call(&world).contains(&format!("authorization: bearer {SECRET}\r\n")));
    put(&world, "real", &format!("{SECOND}\n"));
    wait_for_another(&world, RENEWED);
    assert!(call(&world).contains(&format!("authorization: bearer {SECOND}\r\n")));
    for secret in [SECRET, SECOND] {
        assert!(!world.log().contains(secret), "in the log");
    }
    let answer = world.ask("GET /saas/v1/search/a", &world.token("search"), "", "");
    assert!(!answer.text().contains(SECOND), "the new one is blotted out: {}", answer.text());
    for pid in [world.child.as_ref().unwrap().id(), helper(&world)] {
        let told =
            ["environ", "cmdline"].map(|file| fs::read(Path::new("/proc").join(pid.to_string()).join(file)));
        let told: Vec<u8> = told.into_iter().flat_map(Result::unwrap_or_default).collect();
        assert!(!String::from_utf8_lossy(&told).contains(SECOND));
    }
}

#[test]
fn a_program_that_goes_wrong_changes_nothing_and_one_that_hangs_holds_nobody_up() {
    let mut world = world();
    put(&world, "real", SECOND);
    for (mode, why) in [
        ("much", "printed more than 16386 bytes"),
        ("fails", "ended with exit status: 3"),
        ("nothing", "a credential is one line"),
    ] {
        put(&world, "mode", mode);
        wait_until(mode, || world.log().lines().any(|line| line.contains(NOT_RENEWED) && line.contains(why)));
        // It may have been printed well before that.
        let used = call(&world);
        assert!(used.contains(SECRET) || used.contains(SECOND), "{mode}: {used}");
    }
    put(&world, "mode", "prints");
    wait_for_another(&world, RENEWED);
    assert!(call(&world).contains(SECOND));

    put(&world, "real", "sk-live-third-0123456789");
    let before = call(&world);
    put(&world, "mode", "hangs");
    wait_until("the program hangs", || world.home().join("pid").exists());
    let hangs: u32 = fs::read_to_string(world.home().join("pid")).unwrap().trim().parse().unwrap();
    let used = call(&world);
    assert!(used.contains(SECOND) || used.contains("third"), "{before}");
    assert!(runs(hangs));
    let helper = helper(&world);
    world.kill();
    wait_until("what the gateway started has ended", || !runs(helper) && !runs(hangs));
    assert!(!world.log().contains("sk-live"), "in the log");
}

#[test]
fn without_its_helper_a_gateway_goes_on_with_what_it_has_and_says_so() {
    let mut world = world();
    wait_for_another(&world, RENEWED);
    let first = helper(&world);
    kill(first);
    wait_until("the gateway notices", || world.log().contains("the helper that runs the programs has ended"));
    put(&world, "real", SECOND);
    let before = fs::read_to_string(world.home().join("runs")).unwrap();
    wait_until("it is tried again", || count(&world, NOT_RENEWED) >= 2);
    assert!(call(&world).contains(SECRET), "what was there stays");
    assert_eq!(fs::read_to_string(world.home().join("runs")).unwrap(), before, "nothing else runs programs");
    assert!(children(world.child.as_ref().unwrap().id()).is_empty(), "and nothing is left of the helper");
    world.kill();
    world.run(&[]);
    assert!(call(&world).contains(SECOND));
}

#[test]
fn a_gateway_whose_program_fails_at_the_start_does_not_start() {
    let mut world = world();
    world.kill();
    put(&world, "mode", "fails");
    let output = world.command().output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("saas: /bin/sh ended with exit status: 3") && !told.contains("sk-live"), "{told}");
    let left = || {
        let all = fs::read_dir("/proc").unwrap();
        let lines = all.filter_map(|entry| fs::read(entry.unwrap().path().join("cmdline")).ok());
        let home = world.home().to_str().unwrap().as_bytes().to_vec();
        lines.filter(|line| line.windows(home.len()).any(|part| part == home)).count()
    };
    wait_until("its program has ended", || left() == 0);
}

#[test]
fn a_stop_of_the_unit_ends_the_gateway_before_its_helper_and_nothing_is_logged_as_an_error() {
    let unit = include_str!("../../../server/gateway/systemd/obol-gateway.service");
    assert!(unit.lines().any(|line| line == "KillMode=mixed"), "the signal is for the gateway alone: {unit}");
    let gone = "the helper that runs the programs has ended";
    for only_the_gateway in [true, false] {
        let mut world = world();
        wait_for_another(&world, RENEWED);
        let (gateway, helper) = (world.child.as_ref().unwrap().id(), helper(&world));
        // What systemd does by this mode; and, for control, what it does without it.
        let signal = |pid: u32| {
            let told = std::process::Command::new("kill").arg(pid.to_string()).status().unwrap();
            assert!(told.success());
        };
        if !only_the_gateway {
            signal(helper);
            wait_until("the gateway notices", || world.log().contains(gone));
        }
        signal(gateway);
        let mut ended = None;
        wait_until("the gateway ends", || {
            ended = world.child.as_mut().unwrap().try_wait().unwrap();
            ended.is_some()
        });
        wait_until("the helper ends", || !runs(helper));
        assert!(ended.unwrap().success(), "{}", world.log());
        assert_eq!(world.log().contains(" ERROR "), !only_the_gateway, "{}", world.log());
    }
}
