//! The kernel's keyring as a keychain, where this machine has one: tokens are in it, shared by processes and in no file.

use std::process::Output;

use linux_keyutils::{KeyError, KeyRing, KeyRingIdentifier};
use serde_json::Value;

use crate::atp::agent::{SECRET, World};

/// What a command of the binary came to.
async fn run(mut command: std::process::Command, arguments: &[&str]) -> Output {
    command.args(arguments);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn json(output: &Output) -> Value {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{errors}"))
}

/// Whether a file of the agent's folder holds this text as it is.
fn is_in_a_file(world: &World, text: &str) -> bool {
    std::fs::read_dir(world.path("agent")).unwrap().any(|entry| {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kernels_keyring_keeps_tokens_and_no_secrets() {
    let world = World::new(3_600).await;
    let host = world.host.to_string();
    let request = ["request", &host, "--scope", "read", "--json", "--keychain", "kernel"];
    let ring = match KeyRing::get_persistent(KeyRingIdentifier::Session) {
        Ok(ring) => ring,
        Err(error) => {
            eprintln!(
                "SKIPPED IN PART: this machine has no persistent kernel keyring ({error}). It takes a kernel with \
                 CONFIG_PERSISTENT_KEYRINGS, and a container that lets keyctl through"
            );
            let refused = run(world.obol("agent"), &request).await;
            let errors = String::from_utf8_lossy(&refused.stderr);
            assert!(!refused.status.success() && errors.contains("choose another keychain"), "{errors}");
            return;
        }
    };
    let kept = |account: &str| match ring.search(&format!("agentdom:{account}")) {
        Ok(key) => Some(key.read_to_vec().unwrap()),
        Err(KeyError::KeyDoesNotExist | KeyError::KeyRevoked | KeyError::KeyExpired) => None,
        Err(error) => panic!("{error}"),
    };
    assert!(kept(&host).is_none());

    let first = run(world.obol("agent"), &request).await;
    let token = json(&first);
    assert_eq!(token["stored_in"], "kernel");
    let errors = String::from_utf8_lossy(&first.stderr);
    assert!(
        errors.contains("gone when this machine starts again"),
        "what it does not outlive is said: {errors}"
    );
    let entry: Value = serde_json::from_slice(&kept(&host).unwrap()).unwrap();
    assert_eq!(entry["access_token"], token["access_token"], "it is really there");
    assert!(!is_in_a_file(&world, token["access_token"].as_str().unwrap()));
    let again = run(world.obol("agent"), &[&request[..], &["--cached"]].concat()).await;
    assert_eq!(json(&again)["access_token"], token["access_token"], "another process finds it");
    assert_eq!(world.issued(), 1);
    assert!(!String::from_utf8_lossy(&again.stderr).contains("gone when"), "said once");

    let secret = world.path("secret").display().to_string();
    let keep = ["keep-secret", &host, "--secret-file", &secret, "--json", "--keychain", "kernel"];
    assert_eq!(json(&run(world.obol("agent"), &keep).await)["stored_in"], "file", "the keyring forgets");
    assert!(kept(&format!("__atp_secret__:{host}")).is_none() && !is_in_a_file(&world, SECRET));
    let mut without_file = world.obol("agent");
    without_file.env_remove("OBOL_ATP__SECRET_FILE");
    assert_eq!(
        json(&run(without_file, &request).await)["stored_in"],
        "kernel",
        "signed with the kept secret"
    );
    assert_eq!(world.issued(), 2);

    let revoke = ["revoke", &host, "--keychain", "kernel"];
    assert!(run(world.obol("agent"), &revoke).await.status.success());
    assert!(kept(&host).is_none(), "what was given back is gone");
    let elsewhere = ["request", &host, "--scope", "read", "--json", "--keychain", "file"];
    assert_eq!(json(&run(world.obol("other"), &elsewhere).await)["stored_in"], "file");
    assert!(kept(&host).is_none(), "control: another keychain leaves nothing there");
}
