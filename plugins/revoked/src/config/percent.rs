//! Shares as people write them: `25`, `0.5`.

use serde::{Deserialize, Deserializer, de};

/// A share in percent, with two decimals at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percent(pub tower_revocation::rollout::Percent);

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let percent = f64::deserialize(deserializer)?;
        let hundredths = (percent * 100.0).round();
        // What is rounded away could turn "almost nobody" into nobody.
        let exact = (0.0..=10_000.0).contains(&hundredths) && (hundredths / 100.0 - percent).abs() < 1e-9;
        let exact = exact.then(|| tower_revocation::rollout::Percent::hundredths(hundredths as u16)).flatten();
        exact.map(Self).ok_or_else(|| {
            de::Error::custom(format!("{percent} is no share; write 0 to 100, with two decimals at most"))
        })
    }
}
