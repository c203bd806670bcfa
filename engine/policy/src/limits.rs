//! How much of everything: the bounds of a version, of what is asked, and of what is kept.

/// The longest catalogue, in bytes.
pub const MAX_CATALOGUE_BYTES: usize = 1 << 20;
/// The most files of policies.
pub const MAX_POLICY_FILES: usize = 256;
/// All files of policies together, in bytes.
pub const MAX_POLICIES_BYTES: usize = 1 << 20;
/// The longest policy, in words and signs: what reads Cedar descends into it, and must not run out of stack.
pub(crate) const MAX_POLICY_WORDS: usize = 1_000;
/// The most policies.
pub(crate) const MAX_POLICIES: usize = 1_000;
/// The most tools: each may become a grant, and a session holds no more.
pub(crate) const MAX_TOOLS: usize = obol_session::limits::MAX_GRANTS;
/// The most questions that are asked to decide one session.
pub(crate) const MAX_EVALUATIONS: usize = 10_000;
/// The most offers of all tools together: two questions for each.
pub(crate) const MAX_OFFERS: usize = MAX_EVALUATIONS / 2;
/// The most sets that one tool is in, and routes that lead to it.
pub(crate) const MAX_PER_TOOL: usize = 64;
/// The longest name of an offer, a set, a policy, a role, a class or a tag, in bytes.
pub const MAX_NAME_BYTES: usize = 128;
/// The longest id of an agent or a human, in bytes.
pub(crate) const MAX_ID_BYTES: usize = 512;
/// The longest description of a tool, in bytes.
pub(crate) const MAX_DESCRIPTION_BYTES: usize = 1_000;
/// The most roles, and the most tags, of one agent or human.
pub const MAX_ROLES: usize = 64;
/// The most problems that are told of one version at once.
pub const MAX_PROBLEMS: usize = 20;
/// The most alerts in one decision: one policy that fails may fail for every offer.
pub(crate) const MAX_ALERTS: usize = 32;
/// What the cache keeps at most, counted in offers that were asked about: some tens of mebibytes.
pub(crate) const MAX_CACHED_OFFERS: usize = 100_000;
/// The longest file of cases, in bytes.
pub const MAX_CASES_BYTES: usize = 1 << 20;
/// The most cases in one file, and the most agents and humans in it.
pub(crate) const MAX_CASES: usize = 10_000;
