//! What Redis does in one step: each of these runs alone, whole or not at all, and is logged as one transaction.

/// The script's text, after what all of them begin with.
macro_rules! script {
    ($file:literal) => {
        concat!(include_str!("keys.lua"), include_str!("guard.lua"), include_str!($file))
    };
}

/// The only one that works where there is no store yet.
pub(super) const CREATE: &str = concat!(include_str!("keys.lua"), include_str!("create.lua"));
pub(super) const AGREE: &str = script!("agree.lua");
pub(super) const PUBLISH: &str = script!("publish.lua");
pub(super) const LOOK: &str = script!("look.lua");
pub(super) const LOOKUP: &str = script!("lookup.lua");
pub(super) const PURGE: &str = script!("purge.lua");
pub(super) const CLAIM: &str = script!("claim.lua");
pub(super) const FINISH: &str = script!("finish.lua");
pub(super) const HEARTBEAT: &str = script!("heartbeat.lua");
pub(super) const RETIRE: &str = script!("retire.lua");
pub(super) const INTEND: &str = script!("intend.lua");
pub(super) const SETTLE: &str = script!("settle.lua");
pub(super) const INTENTS: &str = script!("intents.lua");

/// The names of the keys, in the order in which the scripts expect them: all in one slot of a Cluster.
pub(super) fn keys(namespace: &str) -> Vec<String> {
    ["meta", "log", "index", "expiry", "claims", "claims-expiry", "intents", "nodes"]
        .map(|name| format!("{{{namespace}}}:{name}"))
        .into()
}
