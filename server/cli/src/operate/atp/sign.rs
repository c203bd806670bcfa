//! `obol atp sign`: any JSON object, any key.

use std::io::Read as _;
use std::path::Path;

use obol_atp::{canonical, sign_atp_body, verify_atp_signature};
use obol_secret::file::PrivateFile;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::exit::{Exit, Failure, Outcome};
use crate::output;
use crate::settings::args::atp::SignArgs;

/// The longest object that is signed, in bytes.
const MAX_OBJECT_BYTES: usize = 1 << 20;
/// The longest file with a secret, in bytes.
const MAX_SECRET_FILE_BYTES: usize = 64 << 10;

pub(super) fn run(args: &SignArgs) -> Outcome {
    let secret = read_secret(&args.secret_file)?;
    let body: Map<String, Value> =
        obol_secret::json::parse(&read_object(&args.file)?).map_err(Failure::usage)?;
    if let Some(signature) = &args.check {
        let holds = verify_atp_signature(&body, signature, &secret);
        if args.output.json {
            output::json(&json!({ "valid": holds }));
        }
        return if holds { Ok(()) } else { Err(Failure::new(Exit::Denied, "the signature is not valid")) };
    }
    let signature = sign_atp_body(&body, &secret).map_err(Failure::usage)?;
    if args.output.json {
        let bytes = canonical(&body).map_err(Failure::usage)?;
        output::json(&json!({ "signature": signature, "canonical": String::from_utf8_lossy(&bytes) }));
    } else {
        output::line(&signature);
    }
    Ok(())
}

/// The file's bytes without one line end.
pub(super) fn read_secret(path: &Path) -> Outcome<Zeroizing<Vec<u8>>> {
    let mut secret = PrivateFile::read(path, MAX_SECRET_FILE_BYTES).map_err(Failure::usage)?;
    let kept = secret
        .strip_suffix(b"\n")
        .map_or(secret.len(), |text| text.strip_suffix(b"\r").unwrap_or(text).len());
    secret.truncate(kept);
    Ok(secret)
}

fn read_object(path: &Path) -> Outcome<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = MAX_OBJECT_BYTES as u64 + 1;
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(limit).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    read.map_err(|error| Failure::usage(format_args!("cannot read {}: {error}", path.display())))?;
    if bytes.len() > MAX_OBJECT_BYTES {
        return Err(Failure::usage(format_args!("{} is larger than 1 MiB", path.display())));
    }
    Ok(bytes)
}
