//! Whether a server is set up so that it keeps what it acknowledges.

use super::super::Durability;

/// What is wrong, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// It cannot be written to.
    Replica,
    /// A setting that would break a promise.
    Setting(String),
}

/// The oldest version: the ones before are no longer maintained, nor tried here.
const OLDEST: (u64, u64) = (6, 2);

/// Judges the answer to `INFO`; `appendfsync` is `None` where the server does not tell.
pub(super) fn check(info: &str, appendfsync: Option<&str>, without_persistence: bool) -> Result<Durability, Unfit> {
    let get = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let unfit = |why: &str| Err(Unfit::Setting(why.to_owned()));
    if get("redis_mode") == Some("sentinel") {
        return unfit("it is a Sentinel; write redis+sentinel://host:26379/name");
    }
    let version = get("redis_version").unwrap_or("unknown");
    if numbers(version).is_none_or(|version| version < OLDEST) {
        return unfit(&format!("its version is {version}; it must be {}.{} or later", OLDEST.0, OLDEST.1));
    }
    if get("role") != Some("master") {
        return Err(Unfit::Replica);
    }
    let policy = get("maxmemory_policy").unwrap_or("unknown");
    // Others evict what has a time to live, which nothing of ours has.
    if get("maxmemory") != Some("0") && policy != "noeviction" && !policy.starts_with("volatile-") {
        return unfit(&format!(
            "its maxmemory-policy is {policy}: it would forget revocations once its memory is full; \
             set maxmemory-policy to noeviction"
        ));
    }
    match (get("aof_enabled"), appendfsync) {
        (Some("1"), Some("always")) => Ok(Durability::Machine),
        (Some("1"), _) => Ok(Durability::Process),
        _ if without_persistence => Ok(Durability::None),
        _ => unfit(
            "its appendonly is no: a crash would lose revocations; set appendonly to yes, \
             or allow it with allow_without_persistence()",
        ),
    }
}

fn numbers(version: &str) -> Option<(u64, u64)> {
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\nmaxmemory:0\r\n\
                        maxmemory_policy:noeviction\r\naof_enabled:1\r\nrole:master\r\n";

    #[test]
    fn good_settings_have_their_durability() {
        assert_eq!(check(GOOD, Some("always"), false), Ok(Durability::Machine));
        for weaker in [Some("everysec"), Some("no"), None] {
            assert_eq!(check(GOOD, weaker, false), Ok(Durability::Process));
        }
        for full in ["noeviction", "volatile-lru"] {
            let info = GOOD.replace("maxmemory:0", "maxmemory:9").replace("noeviction", full);
            assert_eq!(check(&info, Some("always"), false), Ok(Durability::Machine));
        }
        let nothing = GOOD.replace("aof_enabled:1", "aof_enabled:0");
        assert_eq!(check(&nothing, Some("always"), true), Ok(Durability::None));
    }

    #[test]
    fn bad_settings_are_named() {
        let full = GOOD.replace("maxmemory:0", "maxmemory:9");
        for (info, named) in [
            (GOOD.replace("7.0.15", "6.0.16"), "6.0.16"),
            (GOOD.replace("7.0.15", "seven"), "seven"),
            (GOOD.replace("standalone", "sentinel"), "redis+sentinel://"),
            (full.replace("noeviction", "allkeys-lru"), "maxmemory-policy"),
            (full.replace("maxmemory_policy:noeviction\r\n", ""), "maxmemory-policy"),
            (GOOD.replace("aof_enabled:1", "aof_enabled:0"), "appendonly"),
        ] {
            let error = check(&info, Some("always"), false).unwrap_err();
            assert!(matches!(&error, Unfit::Setting(why) if why.contains(named)), "{named}: {error:?}");
        }
        assert_eq!(check(&GOOD.replace("role:master", "role:slave"), None, true), Err(Unfit::Replica));
    }
}
