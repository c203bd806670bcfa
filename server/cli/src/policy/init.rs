//! `obol policy init`: a first folder that is valid and whose cases pass.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

use obol_policy::{Risk, catalogue_from_mcp};

use super::folder;
use crate::exit::{Failure, Outcome};
use crate::output;
use crate::settings::args::policy::InitArgs;

/// The longest answer of an MCP server that is read, in bytes.
const MAX_LIST_BYTES: u64 = 8 << 20;
/// The policies of a new folder.
const POLICIES_FILE: &str = "policies.cedar";

const POLICIES: &str = r#"// Who may use which tool, and how. Change it; `obol policy test` shows the effect.
// What no policy permits is denied; a forbid overrides any permit. Each policy needs its own @id.

@id("users-use-tools")
permit (principal in Obol::Role::"user", action == Obol::Action::"use", resource);

// Without a permit for useUnattended, a human must approve each call.
@id("users-unattended-at-low-risk")
permit (principal in Obol::Role::"user", action == Obol::Action::"useUnattended", resource)
when { resource.risk == "low" };

@id("clones-get-nothing")
forbid (principal is Obol::Agent, action, resource is Obol::Tool)
when { principal.clone_suspected };

// Users of the Authentication Service's own socket may approve agents, and give them at most this role.
@id("operators-let-users-in")
permit (principal in Obol::Role::"operator", action == Obol::Action::"register", resource)
when { [Obol::Role::"user"].containsAll(context.roles) };

// They may also approve calls that need it: `obol approvals` shows them. To keep people from approving their own agents' calls:
//   forbid (principal, action == Obol::Action::"approveCall", resource) when { context.agent.owner == principal };
@id("operators-approve-calls")
permit (principal in Obol::Role::"operator", action == Obol::Action::"approveCall", resource);
"#;

/// `obol policy init`.
pub(crate) fn run(args: &InitArgs) -> Outcome {
    let list = read_list(&args.from_mcp)?;
    let catalogue = catalogue_from_mcp(&list, &args.audience, Some(&args.org)).map_err(Failure::usage)?;
    let tools = obol_policy::Catalogue::from_toml(&catalogue).map_err(Failure::other)?;
    let Some(first) = tools.tools().first() else { return Err(Failure::usage("the list has no tools")) };
    let files = [
        (folder::CATALOGUE, catalogue.as_str()),
        (POLICIES_FILE, POLICIES),
        (folder::CASES, &cases(&first.name, &args.audience, first.risk)),
    ];
    if let Some((name, _)) = files.iter().find(|(name, _)| args.folder.join(name).symlink_metadata().is_ok())
    {
        return Err(Failure::usage(format_args!(
            "{} already exists, so nothing was written; choose another folder, or move it away",
            args.folder.join(name).display()
        )));
    }
    fs::create_dir_all(&args.folder).map_err(|error| failed(&args.folder, &error))?;
    for (name, text) in files {
        let path = args.folder.join(name);
        let written = File::create_new(&path).and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|error| failed(&path, &error))?;
    }
    let shown = args.folder.display();
    output::line(&format!("{} tools in {shown}/{}", tools.tools().len(), folder::CATALOGUE));
    output::line(
        "The risk of each tool is what the server says, or the highest. Check it, narrow the offers, then run:",
    );
    output::line(&format!("  obol policy check {shown}"));
    output::line(&format!("  obol policy test {shown}"));
    Ok(())
}

/// Cases that pass with the policies above.
fn cases(tool: &str, audience: &str, risk: Risk) -> String {
    // What these may hold, JSON writes as TOML does.
    let [tool, audience] = [tool, audience].map(serde_json::Value::from);
    let (expect, per_call, policies) = match risk {
        Risk::Low => ("all", "", "\"users-use-tools\", \"users-unattended-at-low-risk\""),
        _ => ("deny", "per_call = [\"all\"]\n", "\"users-use-tools\""),
    };
    format!(
        "# Agents, and what each is expected to get. `obol policy test` compares; docs/policy.md describes all fields.\n\n\
         [agents.helper]\nclass = \"assistant\"\nroles = [\"user\"]\n\n\
         [agents.copy]\nclass = \"assistant\"\nroles = [\"user\"]\nclone_suspected = true\n\n\
         [agents.stranger]\nclass = \"assistant\"\n\n\
         [[case]]\nagent = \"helper\"\ntool = {tool}\nexpect = \"{expect}\"\n{per_call}policies = [{policies}]\n\n\
         [[case]]\nagent = \"copy\"\ntool = {tool}\nexpect = \"deny\"\npolicies = [\"clones-get-nothing\"]\n\n\
         [[case]]\nagent = \"stranger\"\ntool = {tool}\nexpect = \"deny\"\npolicies = []\n\n\
         [humans.operator]\nroles = [\"operator\"]\n\n\
         [[register]]\nhuman = \"operator\"\nclass = \"assistant\"\nroles = [\"user\"]\nexpect = \"allow\"\n\n\
         [[register]]\nhuman = \"operator\"\nclass = \"assistant\"\nroles = [\"root\"]\nexpect = \"deny\"\n\n\
         [[approve]]\nhuman = \"operator\"\nagent = \"helper\"\ntool = {tool}\naudience = {audience}\noffer = \"all\"\n\
         expect = \"allow\"\npolicies = [\"operators-approve-calls\"]\n"
    )
}

fn read_list(path: &Path) -> Outcome<Vec<u8>> {
    let mut list = Vec::new();
    let source: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(File::open(path).map_err(|error| failed(path, &error))?)
    };
    source.take(MAX_LIST_BYTES + 1).read_to_end(&mut list).map_err(|error| failed(path, &error))?;
    Ok(list)
}

fn failed(path: &Path, error: &std::io::Error) -> Failure {
    Failure::usage(format_args!("{}: {error}", path.display()))
}
