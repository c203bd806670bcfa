//! A token's life across the two languages: each agent refreshes at the other's provider, and both share the Secret Service.

use crate::atp::serve::node;

#[test]
fn each_agent_refreshes_at_the_others_provider_and_both_share_the_secret_service() {
    node("lifecycle.js", |_| {});
}
