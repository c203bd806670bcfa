//! Asks a provider for a token, has it verified, and gives it back.
//!
//!     cargo run -p obol-atp-client --example token -- api.example.com read SECRET_FILE
//!
//! `--ca-file FILE --allow-private` may follow, for a provider on this machine.

#![allow(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use core::error::Error;

use obol_atp_client::{
    Client, Host, Options, TokenRequest, generate_agent_id, sign_atp_body, verify_atp_signature,
};
use serde_json::json;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let host: Host = arguments.next().ok_or("which host?")?.parse()?;
    let scope = arguments.next().ok_or("which scope?")?;
    let secret_file = arguments.next().ok_or("which file has the secret?")?;
    let folder = std::env::temp_dir().join(format!("obol-atp-example-{}", std::process::id()));
    let mut options = Options::new(&folder).secret_file(secret_file);
    while let Some(argument) = arguments.next() {
        options = match argument.as_str() {
            "--ca-file" => options.ca_file(arguments.next().ok_or("which file?")?),
            "--allow-private" => options.allow_private([host.clone()]),
            other => return Err(format!("what is {other}?").into()),
        };
    }
    let done = run(options, &host, &scope).await;
    std::fs::remove_dir_all(folder)?;
    done
}

async fn run(options: Options, host: &Host, scope: &str) -> Result<(), Box<dyn Error>> {
    let client = Client::open(options)?;
    let request = TokenRequest::new([scope])?.purpose("Sync dashboard metrics")?;
    let token = client.request_token(host, &request).await?;
    println!("a token for {} s, of {}", token.expires_in, token.agent_id);
    println!("valid: {}", client.verify_token(&token.access_token, host).await?.valid);
    client.revoke_token(host).await?;
    println!("valid: {}", client.verify_token(&token.access_token, host).await?.valid);

    // Without a provider: this machine's name, and a signature over any JSON object.
    let mut body = json!({ "agent_id": generate_agent_id()? });
    let body = body.as_object_mut().ok_or("an object")?;
    let signature = sign_atp_body(body, b"any key")?;
    println!("signed: {}", verify_atp_signature(body, &signature, b"any key"));
    Ok(())
}
