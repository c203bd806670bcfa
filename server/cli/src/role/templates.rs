//! The policy of a resource server's own: what tokens may allow beyond what their sessions were granted.
//!
//! A file in TOML, a section for each agent instance and tool; what is not listed has no template, and is refused:
//!
//! ```toml
//! ["agent-1".search]
//! allowed_actions = ["read"]
//! resource = "docs/**"
//! max_rows = 100
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use obol_secret::file::read_rules;
use obol_verify::{ResourceHalf, Template, TemplateTable, Templates};
use parking_lot::RwLock;

use crate::exit::{Failure, Outcome};
use crate::settings::ANY;
use crate::settings::config::Config;

/// The longest file, in bytes.
const MAX_FILE_BYTES: usize = 1 << 20;

/// The file that the settings name.
pub(crate) fn file(config: &Config) -> Option<&Path> {
    config.rs.templates.as_deref().filter(|named| named.as_os_str() != ANY)
}

/// The templates in force, which a reload puts others in the place of.
#[derive(Debug)]
pub(crate) struct ServerTemplates {
    file: Option<PathBuf>,
    current: RwLock<Arc<dyn Templates>>,
}

impl ServerTemplates {
    /// Those that the settings name. Without any, sessions are held to their grants, and those that say nothing of grants
    /// are refused.
    pub(crate) fn open(config: &Config) -> Outcome<Self> {
        let current: Arc<dyn Templates> = match (&config.rs.templates, file(config)) {
            (_, Some(file)) => Arc::new(read(file)?),
            (Some(_any), None) => Arc::new(Template::Any),
            (None, None) => Arc::new(Template::Granted),
        };
        Ok(Self { file: file(config).map(Path::to_owned), current: RwLock::new(current) })
    }

    /// Whether there is something to read again.
    pub(crate) fn are_in_a_file(&self) -> bool {
        self.file.is_some()
    }

    /// Reads the file again, if there is one, and changes nothing yet.
    pub(crate) fn read(&self) -> Outcome<Option<TemplateTable>> {
        self.file.as_deref().map(read).transpose()
    }

    /// Puts what was read in force.
    pub(crate) fn put(&self, templates: Option<TemplateTable>) {
        if let Some(templates) = templates {
            *self.current.write() = Arc::new(templates);
        }
    }
}

impl Templates for ServerTemplates {
    fn template(&self, agent_instance_id: &str, tool: &str) -> Template {
        self.current.read().template(agent_instance_id, tool)
    }
}

fn read(path: &Path) -> Outcome<TemplateTable> {
    let wrong = |why: &dyn core::fmt::Display| {
        Failure::usage(format_args!("the templates in {}: {why}", path.display()))
    };
    let text = read_rules(path, MAX_FILE_BYTES).map_err(Failure::usage)?;
    let text = str::from_utf8(&text).map_err(|_| wrong(&"not UTF-8"))?;
    toml::from_str(text).map_err(|error| wrong(&error))
}

/// Says of which sessions tokens will be refused whatever they allow, while it can still be mended.
pub(crate) fn warn_of(halves: &[ResourceHalf], config: &Config, max_ttl: u64) {
    for half in halves {
        let session = half.session_id;
        let Some(grants) = &half.grants else {
            if config.rs.templates.is_none() {
                tracing::warn!(
                    %session,
                    "the session has no grants, so its tokens are refused; make sessions with grants, set rs.templates to a file, or set it to \"any\" to accept whatever a token allows"
                );
            }
            continue;
        };
        for grant in grants.iter().filter(|grant| grant.ttl > max_ttl) {
            let (tool, ttl) = (&grant.tool, grant.ttl);
            tracing::warn!(%session, tool, ttl, max_ttl, "tokens of this grant live longer than rs.max_ttl and are refused");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    fn written(text: &str, mode: u32) -> (tempfile::TempDir, Result<TemplateTable, String>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("templates.toml");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let read = read(&path).map_err(|failure| failure.to_string());
        (folder, read)
    }

    #[test]
    fn templates_are_read_by_agent_and_tool() {
        let text = "[\"agent-1\".search]\nallowed_actions = [\"read\"]\nresource = \"docs/**\"\nmax_rows = 5\n[a.pay]\n";
        let (_folder, table) = written(text, 0o644);
        let debug = format!("{:?}", table.unwrap());
        for part in ["agent-1", "search", "docs/**", "Some(5)", "pay"] {
            assert!(debug.contains(part), "{part} in {debug}");
        }
    }

    #[test]
    fn a_file_that_is_wrong_or_that_others_can_write_is_refused() {
        for (text, mode, why) in [
            ("[a.search]\nmax_row = 5\n", 0o600, "max_row"),
            ("[a.search]\nmax_rows = -1\n", 0o600, "max_rows"),
            ("[a.search]\n[a.search]\n", 0o600, "duplicate"),
            ("search = 1\n", 0o600, "search"),
            ("[a.search]\n", 0o664, "others can write"),
            ("[a.search]\n", 0o602, "others can write"),
        ] {
            let (_folder, table) = written(text, mode);
            let error = table.unwrap_err();
            assert!(error.contains(why) && error.contains("templates.toml"), "{why} in {error}");
        }
    }
}
