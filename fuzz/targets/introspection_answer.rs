//! Answers of introspection endpoints: what is believed has `active` as a Boolean.

use tower_revocation::token::read_introspection_answer;

pub fn run(json: &[u8]) {
    if let Some(active) = read_introspection_answer(json) {
        let parsed: serde_json::Value = serde_json::from_slice(json).expect("it was read");
        assert!(parsed["active"].is_boolean());
        // An active token may still be refused; an inactive one is never taken.
        assert!(!active || parsed["active"] == true);
    }
}
