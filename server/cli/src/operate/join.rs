//! `obol rs join`: makes this copy of a resource server known to an Authentication Service, once.

use std::io::Read as _;
use std::path::Path;

use obol_resource::provision::join;
use obol_secret::file::PrivateFile;
use obol_session::clock::{Clock as _, SystemClock};
use obol_uplink::AuthError;
use serde_json::json;
use zeroize::Zeroizing;

use crate::exit::{Exit, Failure, Outcome};
use crate::output;
use crate::role::followed;
use crate::settings::args::JoinArgs;
use crate::settings::config::Config;

/// The longest code, in bytes.
const MAX_CODE_BYTES: usize = 1 << 10;

/// `obol rs join`.
pub(crate) fn run(args: &JoinArgs, config: &Config) -> Outcome {
    obol_sandbox::harden_process();
    let code = code(args)?;
    let service = followed::service(&args.service, config)?.ok_or_else(|| {
        Failure::usage("--authority is needed: the service and its key, https://host#KEY, as `obol as key --pin` prints them")
    })?;
    let (mut uplink, key) = followed::uplink(&args.service, config, service)?;
    let now = SystemClock::new().now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let joined = runtime.block_on(join(&mut uplink, &key, code.trim(), now)).map_err(failure)?;
    if args.output.json {
        output::json(&json!({
            "rsId": joined.rs_id,
            "audience": joined.audience,
            "service": uplink.service().to_string(),
        }));
        return Ok(());
    }
    let identity = followed::identity_key(&args.service, config)?;
    output::line(&format!("joined as {}, a copy of {}", joined.rs_id, joined.audience));
    output::line(&format!("its identity is in {}", identity.display()));
    output::line(&format!(
        "start it with: obol rs --authority '{}' --audience {}",
        uplink.service(),
        joined.audience
    ));
    Ok(())
}

fn failure(error: AuthError) -> Failure {
    match &error {
        AuthError::Refused { code, .. } if code == "KEY_IN_USE" => Failure::new(
            Exit::Denied,
            "a copy has already joined with this identity; each copy needs its own (name another with --rs-identity-key)",
        ),
        AuthError::Refused { .. } => Failure::new(Exit::Denied, error),
        AuthError::Unreachable(_) | AuthError::Rejected { .. } => Failure::unavailable(error),
        _ => Failure::other(error),
    }
}

fn code(args: &JoinArgs) -> Outcome<Zeroizing<String>> {
    match (&args.code, args.code_file.as_deref()) {
        (Some(code), _) => Ok(Zeroizing::new(code.clone())),
        (None, Some(file)) if file == Path::new("-") => {
            let mut text = Zeroizing::new(String::new());
            std::io::stdin().lock().take(MAX_CODE_BYTES as u64).read_to_string(&mut text)?;
            Ok(text)
        }
        (None, Some(file)) => {
            let bytes = PrivateFile::read(file, MAX_CODE_BYTES)?;
            let text = core::str::from_utf8(&bytes).map_err(Failure::usage)?;
            Ok(Zeroizing::new(text.to_owned()))
        }
        (None, None) => Err(Failure::usage(
            "a join code is needed, as `obol rs invite AUDIENCE` prints it; or use --code-file",
        )),
    }
}
