//! The files of the APIs, and their credentials.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use obol_gateway::{Api, MAX_SECRET_BYTES, Source, is_name, recipe, recipes};
use obol_secret::compare::ct_eq_32;
use obol_secret::file::{
    PrivateFile, PrivateFileError, change, create_folder, files_in, read_credential, read_rules,
};
use obol_secret::key::Key32;
use obol_secret::seal::{OVERHEAD_BYTES, open, seal};
use obol_secret::wipe::Wiped;
use sha2::{Digest as _, Sha256};

use super::command::Helper;
use crate::exit::{Failure, Outcome};
use crate::output;
use crate::places::{environment, folder_of, state_folder};
use crate::role::master_key::Sources;
use crate::settings::args::gateway::{AddArgs, ApisArgs};

/// The longest file of an API, in bytes.
pub(super) const MAX_FILE_BYTES: usize = 1 << 20;
/// The most APIs.
const MAX_APIS: usize = 256;
/// What the sealing key is derived for.
const PURPOSE: &str = "obol-gateway-credential-v1";

/// The folder with the files.
pub(crate) fn folder(args: &ApisArgs) -> PathBuf {
    args.apis.clone().unwrap_or_else(|| state_folder().join("gateway"))
}

/// All APIs that there are files of.
pub(crate) fn read_all(folder: &Path) -> Outcome<Vec<(String, Api)>> {
    let files = files_in(folder, ".toml", MAX_APIS)?.unwrap_or_default();
    if files.is_empty() {
        return Err(Failure::usage(format_args!(
            "there is no API in {}: write NAME.toml for one, see docs/gateway.md",
            folder.display()
        )));
    }
    files.iter().map(|file| read(file)).collect()
}

fn read(path: &Path) -> Outcome<(String, Api)> {
    let wrong = |why: &dyn core::fmt::Display| Failure::usage(format_args!("{}: {why}", path.display()));
    let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    if !is_name(name) {
        return Err(wrong(&"an API's name consists of small letters, digits and hyphens"));
    }
    let text = read_rules(path, MAX_FILE_BYTES)?;
    let text = str::from_utf8(&text).map_err(|_| wrong(&"not UTF-8"))?;
    let api: Api = toml::from_str(text).map_err(|error| wrong(&error))?;
    api.check().map_err(|why| wrong(&why))?;
    Ok((name.to_owned(), api))
}

fn sealed_file(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.credential"))
}

/// The key that credentials are sealed under.
pub(crate) fn key(args: &ApisArgs, sealed: &[&Path]) -> Outcome<Key32> {
    let sources = Sources {
        named: args.gateway_key.as_deref(),
        credential: "obol-gateway-key",
        keychain: None,
        set: None,
        usual: "gateway.key",
        sealed,
    };
    sources.load()
}

/// An API with its secret, and the number of the program that prints it, if that is run again.
pub(crate) struct WithSecret {
    pub(crate) name: String,
    pub(crate) api: Api,
    pub(crate) secret: Wiped,
    pub(crate) program: Option<u16>,
}

/// Programs that print a credential, each with the name of its API. The helper runs them all: it ends with the gateway.
struct Programs {
    names: Vec<String>,
    helper: Option<Helper>,
}

impl Programs {
    fn start(apis: &[(String, Api)]) -> Outcome<Self> {
        let (mut names, mut commands) = (Vec::new(), Vec::new());
        for (name, api) in apis {
            if let Source::Command(command) = api.source().map_err(Failure::usage)? {
                names.push(name.clone());
                commands.push(command);
            }
        }
        let helper = if commands.is_empty() { None } else { Some(Helper::start(&commands)?) };
        Ok(Self { names, helper })
    }

    fn number(&self, name: &str) -> Option<u16> {
        self.names.iter().position(|known| known == name).and_then(|number| u16::try_from(number).ok())
    }

    /// What an API's program prints now.
    fn printed(&mut self, name: &str) -> Result<Wiped, String> {
        match (self.number(name), &mut self.helper) {
            (Some(number), Some(helper)) => helper.ask(number),
            _ => Err("there is no program".to_owned()),
        }
    }
}

/// Each API with its secret, from wherever its file says, and the helper that runs programs again, if there are such.
pub(crate) fn with_secrets(
    args: &ApisArgs,
    apis: Vec<(String, Api)>,
) -> Outcome<(Vec<WithSecret>, Option<Helper>)> {
    let mut programs = Programs::start(&apis)?;
    let folder = folder(args);
    let sealed: Vec<_> = apis.iter().map(|(name, _)| sealed_file(&folder, name)).collect();
    let sealed: Vec<_> = sealed.iter().map(PathBuf::as_path).filter(|path| path.exists()).collect();
    let mut key_of_all = None;
    let mut all = Vec::new();
    for (name, api) in apis {
        let secret = match api.source().map_err(Failure::usage)? {
            Source::Sealed => {
                if key_of_all.is_none() {
                    key_of_all = Some(key(args, &sealed)?.derive(PURPOSE));
                }
                let key = key_of_all.as_ref().ok_or_else(|| Failure::other("there is no key"))?;
                unsealed(key, &sealed_file(&folder, &name), &name)?
            }
            Source::File(path) => Wiped::new(PrivateFile::read(&path, MAX_SECRET_BYTES + 2)?.to_vec()),
            Source::Credential(credential) => from_credential(&credential)?,
            Source::Command(_) => {
                programs.printed(&name).map_err(|why| Failure::usage(format_args!("{name}: {why}")))?
            }
        };
        let program = programs.number(&name).filter(|_| api.renew().is_some());
        all.push(WithSecret { name, api, secret, program });
    }
    let is_asked_again = all.iter().any(|one| one.program.is_some());
    match programs.helper {
        Some(helper) if !is_asked_again => {
            helper.end()?;
            Ok((all, None))
        }
        helper => Ok((all, helper)),
    }
}

fn unsealed(key: &[u8; 32], path: &Path, name: &str) -> Outcome<Wiped> {
    let sealed = PrivateFile::read(path, MAX_SECRET_BYTES + OVERHEAD_BYTES).map_err(|error| {
        match error.is_missing() {
            true => Failure::usage(format_args!(
                "{name} has no credential; seal one with `obol gateway add {name} --credential-file FILE`"
            )),
            false => error.into(),
        }
    })?;
    let secret = open(key, name.as_bytes(), &sealed).ok_or_else(|| {
        Failure::usage(format_args!("{} was not sealed for {name} under this key", path.display()))
    })?;
    Ok(Wiped::new(secret.to_vec()))
}

fn from_credential(name: &str) -> Outcome<Wiped> {
    let folder = environment("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let folder =
        folder.ok_or_else(|| Failure::usage("this process has no credentials from a service manager"))?;
    Ok(Wiped::new(read_credential(&folder.join(name), MAX_SECRET_BYTES + 2)?.to_vec()))
}

/// Writes the recipe of an API whose file is not there. One that is there is the operator's, and stays.
fn write_recipe(file: &Path, name: &str) -> Outcome {
    if file.exists() {
        return Ok(());
    }
    let text = recipe(name).ok_or_else(|| {
        Failure::usage(format_args!(
            "there is no file {}, and no recipe for {name}: write the file (docs/gateway.md), or name one of {}",
            file.display(),
            recipes().collect::<Vec<_>>().join(", ")
        ))
    })?;
    create_folder(folder_of(file))?;
    PrivateFile::create_whole(file, text.as_bytes())?;
    output::line(&format!(
        "wrote {}; it says which requests it lets through and what it does not cover",
        file.display()
    ));
    Ok(())
}

/// Whether this very credential is sealed there already.
fn is_sealed(file: &Path, key: &[u8; 32], name: &str, secret: &[u8]) -> Outcome<bool> {
    if !file.exists() {
        return Ok(false);
    }
    let there = unsealed(key, file, name)?;
    let digest = |bytes: &[u8]| -> [u8; 32] { Sha256::digest(bytes).into() };
    Ok(ct_eq_32(&digest(&there), &digest(secret)))
}

/// Seals a credential. Where there is no file of the API, and a recipe, that is written first; doing it again changes nothing.
pub(crate) fn add(args: &AddArgs) -> Outcome {
    if !is_name(&args.name) {
        return Err(Failure::usage("an API's name consists of small letters, digits and hyphens"));
    }
    let mut secret = Wiped::new(Vec::new());
    if args.credential_file == Path::new("-") {
        let mut bytes = zeroize::Zeroizing::new(Vec::new());
        std::io::stdin().lock().take(MAX_SECRET_BYTES as u64 + 3).read_to_end(&mut bytes)?;
        secret.append(&bytes);
    } else {
        secret.append(&PrivateFile::read(&args.credential_file, MAX_SECRET_BYTES + 2)?);
    }
    let folder = folder(&args.apis);
    crate::places::place(Some(&folder.join("x")), "gateway/x")?;
    let file = sealed_file(&folder, &args.name);
    let toml = folder.join(format!("{}.toml", args.name));
    write_recipe(&toml, &args.name)?;
    let (_, api) = read(&toml)?;
    api.check_secret(&secret).map_err(Failure::usage)?;
    let key = key(&args.apis, &[&file])?.derive(PURPOSE);
    if !args.replace && is_sealed(&file, &key, &args.name, &secret)? {
        output::line(&format!("this credential is already sealed in {}", file.display()));
        return Ok(());
    }
    let sealed = seal(&key, args.name.as_bytes(), &secret).map_err(Failure::unavailable)?;
    if args.replace && file.exists() {
        change::<PrivateFileError>(&file, MAX_SECRET_BYTES + OVERHEAD_BYTES, |_| Ok(Wiped::new(sealed)))?;
    } else {
        PrivateFile::create_whole(&file, &sealed).map_err(|error| match file.exists() {
            true => Failure::usage(format_args!(
                "{} already has a credential; add --replace to replace it",
                args.name
            )),
            false => error.into(),
        })?;
    }
    let then = match args.credential_file == Path::new("-") {
        true => String::new(),
        false => format!("; remove {} if nothing else needs it", args.credential_file.display()),
    };
    output::line(&format!("sealed in {}{then}", file.display()));
    if let Some(caution) = api.caution(&secret) {
        output::line(caution);
    }
    Ok(())
}

/// Says what is wrong, or that nothing is.
pub(crate) fn check(args: &ApisArgs) -> Outcome {
    for (name, api) in read_all(&folder(args))? {
        let at = api.hosts_and_ports();
        let (host, port) = at.first().ok_or_else(|| Failure::other("there is no upstream"))?;
        output::line(&format!("{name}: {host}:{port}, {} routes", api.count()));
    }
    Ok(())
}
