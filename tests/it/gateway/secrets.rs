//! Where a credential comes from, beside what was sealed.

use std::fs;

use obol_world::home::{command, wait_until, write_private};

use super::{FRESH, SECRET, World, file_with};

#[test]
fn a_credential_may_be_in_a_file_with_the_service_manager_or_printed_by_a_program() {
    let places = ["file = \"{}/real\"", "command = [\"/bin/cat\", \"{}/real\"]", "credential = \"real\""];
    for place in places {
        let world = World::with(&[], |home, api| {
            write_private(&home.join("real"), &format!("{SECRET}\n"));
            let place = place.replace("{}", home.to_str().unwrap());
            file_with(api, &format!("put = \"header\"\nname = \"x-key\"\nprefix = \"key \"\n{place}"))
        });
        let answer = world.ask("GET /saas/v1/search/a", &world.token("search"), "", "");
        assert_eq!(answer.status, 200, "{place}: {}", world.log());
        assert!(answer.text().contains("x-key: key ***"), "{}", answer.text());
        assert!(world.seen.lock()[0].contains(&format!("x-key: key {SECRET}\r\n")), "{place}");
        assert!(!world.log().contains(SECRET), "{place}");
    }
}

#[test]
fn a_program_that_fails_is_no_credential() {
    let mut world = World::start();
    world.kill();
    let file = fs::read_to_string(world.home().join("apis/saas.toml")).unwrap();
    world.write("saas", &file.replace("put = \"bearer\"", "put = \"bearer\"\ncommand = [\"/bin/false\"]"));
    let output = world.command().output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("saas: /bin/false ended with exit status: 1"), "{told}");
}

#[test]
fn what_a_program_complains_of_is_in_no_log_and_none_outlives_its_gateway() {
    let mut world = World::with(&[], |home, api| {
        write_private(&home.join("program"), &format!("echo {SECRET} >&2; echo {SECRET}\n"));
        let command = format!("command = [\"/bin/sh\", \"{}/program\"]", home.display());
        file_with(api, &format!("put = \"bearer\"\n{command}"))
    });
    let answer = world.ask("GET /saas/v1/search/a", &world.token("search"), "", "");
    assert_eq!(answer.status, 200, "{} {}", answer.text(), world.log());
    assert!(!world.log().contains(SECRET), "{}", world.log());
    world.kill();
    // One that hangs while the gateway starts.
    let (home, pid) = (world.home().to_owned(), world.home().join("pid"));
    let hangs = format!("echo $$ > {0}/new && mv {0}/new {0}/pid; exec sleep 1000\n", home.display());
    write_private(&home.join("new-program"), &hangs);
    fs::rename(home.join("new-program"), home.join("program")).unwrap();
    let mut starting = world.command().spawn().unwrap();
    wait_until("the program runs", || pid.exists());
    let program = fs::read_to_string(&pid).unwrap().trim().to_owned();
    let runs =
        || fs::read_to_string(format!("/proc/{program}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    assert!(runs(), "the control");
    starting.kill().unwrap();
    starting.wait().unwrap();
    wait_until("the program has ended", || !runs());
}

#[test]
fn a_token_is_got_for_the_secret_and_another_one_once_it_is_refused() {
    let world = World::with(&[], |_, api| {
        let token_url = format!("token_url = \"http://127.0.0.1:{api}/token\"\nclient_id = \"me\"");
        file_with(api, &format!("put = \"oauth-client\"\n{token_url}"))
    });
    let gets = || world.seen.lock().iter().filter(|text| text.starts_with("post /token")).count();
    let token = world.token("search");
    let mut answer = None;
    wait_until("the gateway has a token", || {
        let asked = world.ask("GET /saas/v1/search/a", &token, "", "");
        let is_there = asked.status != 503;
        answer = Some(asked);
        is_there
    });
    let answer = answer.unwrap();
    assert_eq!(answer.status, 200, "until then nothing is spent: {} {}", answer.text(), world.log());
    assert!(!answer.text().contains(FRESH), "{}", answer.text());
    let seen = world.seen.lock().clone();
    let [got, asked] = seen.as_slice() else { panic!("{seen:?}") };
    assert!(got.contains("authorization: basic ") && got.ends_with("grant_type=client_credentials"), "{got}");
    assert!(asked.contains(&format!("authorization: bearer {FRESH}\r\n")), "{asked}");

    let refused = world.ask("GET /saas/v1/search/401", &world.token("search"), "", "");
    assert_eq!(refused.problem().1, "CREDENTIAL_REFUSED");
    wait_until("another token is got", || gets() == 2);
}

#[test]
fn another_credential_takes_the_place_of_the_one_that_is_sealed() {
    let mut world = World::start();
    let add = |secret: &str, more: &[&str]| {
        write_private(&world.home().join("secret"), secret);
        let sealing = ["gateway", "add", "saas", "--apis", "apis", "--credential-file", "secret"];
        command(world.home()).args(sealing).args(more).output().unwrap()
    };
    const OTHER: &str = "sk-live-other-0123456789";
    assert_eq!(add(OTHER, &[]).status.code(), Some(2), "not without --replace");
    assert!(!add("two\nlines", &["--replace"]).status.success(), "and not by what can be none");
    let replaced = add(OTHER, &["--replace"]);
    assert!(replaced.status.success(), "{replaced:?}");
    let used = |world: &World| {
        let answer = world.ask("GET /saas/v1/search/a", &world.token("search"), "", "");
        assert_eq!(answer.status, 200, "{} {}", answer.text(), world.log());
        world.seen.lock().last().unwrap().clone()
    };
    assert!(used(&world).contains(SECRET), "until it is started again");
    world.kill();
    world.run(&[]);
    assert!(used(&world).contains(&format!("authorization: bearer {OTHER}\r\n")));
}
