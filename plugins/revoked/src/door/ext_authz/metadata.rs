//! Claims that a filter in front has verified, in the metadata of a request.

use std::collections::HashMap;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};
use tower_revocation::{
    reject::Rejection,
    status_list::{StatusClaim, StatusRef},
    token::{self, ExtractError, Identity, VerifyError},
};

use crate::config::{Config, Issuer, Profile};

/// The claims of one token. What is in them is not checked for type before it is read.
#[derive(Debug)]
pub(super) struct Claims(HashMap<String, Value>);

/// Any of these makes a structure a set of claims, so that one that lacks some is refused, and not passed over.
const TELLING: [&str; 6] = ["iss", "sub", "jti", "sid", "iat", "exp"];
/// Times beyond this cannot be told apart by doubles, which is what metadata has.
const MAX_TIME: f64 = 9_007_199_254_740_992.0;

/// The claims in the namespaces that are trusted, where there are any: the namespace's own, or those under a key in it.
///
/// # Errors
///
/// Where there are those of several tokens.
pub(super) fn claims(mut metadata: HashMap<String, Struct>, trusted: &[String]) -> Result<Option<Claims>, Rejection> {
    let mut found = None;
    for Struct { fields } in trusted.iter().filter_map(|namespace| metadata.remove(namespace)) {
        if is_telling(&fields) {
            only(&mut found, fields)?;
            continue;
        }
        for value in fields.into_values() {
            if let Some(Kind::StructValue(Struct { fields })) = value.kind
                && is_telling(&fields)
            {
                only(&mut found, fields)?;
            }
        }
    }
    Ok(found)
}

fn is_telling(fields: &HashMap<String, Value>) -> bool {
    TELLING.iter().any(|name| fields.contains_key(*name))
}

fn only(found: &mut Option<Claims>, fields: HashMap<String, Value>) -> Result<(), Rejection> {
    match found.replace(Claims(fields)) {
        None => Ok(()),
        Some(_) => Err(Rejection::Credential(ExtractError::Several)),
    }
}

impl Claims {
    /// What revocation needs to know.
    ///
    /// # Errors
    ///
    /// Where the issuer is none of ours, or a claim has a type that it must not have.
    pub(super) fn identity(&self, config: &Config) -> Result<Identity, VerifyError> {
        let iss = self.text("iss")?.ok_or(VerifyError::UnknownIssuer)?;
        let Issuer { claims: names, .. } = issuer(config, iss).ok_or(VerifyError::UnknownIssuer)?;
        let named = |name: &Option<String>, usual| self.text(name.as_deref().unwrap_or(usual));
        let scope = self.scope();
        let mut claims = token::Claims::new(iss);
        claims.jti = named(&names.jti, "jti")?;
        claims.sid = named(&names.sid, "sid")?;
        claims.sub = named(&names.sub, "sub")?;
        claims.client_id = named(&names.client_id, "client_id")?;
        claims.scope = scope.as_deref();
        claims.iat = self.time("iat")?;
        claims.auth_time = self.time("auth_time")?;
        claims.exp = self.time("exp")?;
        claims.status = self.status(config.profile);
        Ok(Identity::from_verified(&claims))
    }

    /// Whether they can be those of this token, which is looked at only to refuse it.
    pub(super) fn are_of(&self, token: &str, iss: &str, jti: &str, config: &Config) -> bool {
        let payload = token.split('.').nth(1).and_then(|payload| URL_SAFE_NO_PAD.decode(payload).ok());
        let payload = payload.and_then(|payload| serde_json::from_slice::<serde_json::Value>(&payload).ok());
        let name = issuer(config, iss).and_then(|issuer| issuer.claims.jti.as_deref()).unwrap_or("jti");
        payload.is_some_and(|payload| payload["iss"] == iss && payload[name] == jti)
    }

    /// A string that is not empty.
    fn text(&self, name: &str) -> Result<Option<&str>, VerifyError> {
        match self.0.get(name).map(|value| &value.kind) {
            None => Ok(None),
            Some(Some(Kind::StringValue(text))) if !text.is_empty() => Ok(Some(text)),
            Some(_) => Err(VerifyError::Malformed),
        }
    }

    /// A NumericDate in whole seconds, rounded down, within [0, 2^53).
    fn time(&self, name: &str) -> Result<Option<u64>, VerifyError> {
        match self.0.get(name).map(|value| &value.kind) {
            None => Ok(None),
            Some(Some(Kind::NumberValue(seconds))) if (0.0..MAX_TIME).contains(seconds) => Ok(Some(*seconds as u64)),
            Some(_) => Err(VerifyError::Malformed),
        }
    }

    /// Where its status is told. What is malformed is told and not refused: the guard does that, where status lists count.
    fn status(&self, profile: Profile) -> StatusClaim<'_> {
        let nested = match self.0.get("status").map(structure) {
            None => StatusClaim::Missing,
            Some(Some(status)) => status.get("status_list").map_or(StatusClaim::Missing, reference),
            Some(None) => StatusClaim::Malformed,
        };
        let beside = self.0.get("status_list").filter(|_| profile == Profile::Janssen);
        match (nested, beside.map_or(StatusClaim::Missing, reference)) {
            (one, StatusClaim::Missing) | (StatusClaim::Missing, one) => one,
            (one, other) if one == other => one,
            _ => StatusClaim::Malformed,
        }
    }

    /// It grants and never identifies, so that what cannot be read, or stands in both places, is nothing.
    fn scope(&self) -> Option<String> {
        let text = |value: &Value| match &value.kind {
            Some(Kind::StringValue(text)) => Some(text.clone()),
            _ => None,
        };
        match (self.0.get("scope"), self.0.get("scp")) {
            (Some(scope), None) => text(scope),
            (None, Some(Value { kind: Some(Kind::ListValue(list)) })) => {
                list.values.iter().map(text).collect::<Option<Vec<_>>>().map(|scopes| scopes.join(" "))
            }
            (None, Some(scope)) => text(scope),
            _ => None,
        }
    }
}

/// What stands in `status_list`.
fn reference(list: &Value) -> StatusClaim<'_> {
    let Some(list) = structure(list) else { return StatusClaim::Malformed };
    match [list.get("uri"), list.get("idx")].map(|member| member.and_then(|member| member.kind.as_ref())) {
        [Some(Kind::StringValue(uri)), Some(Kind::NumberValue(idx))]
            if !uri.is_empty() && (0.0..MAX_TIME).contains(idx) && idx.fract() == 0.0 =>
        {
            StatusClaim::List(StatusRef { uri, idx: *idx as u64 })
        }
        _ => StatusClaim::Malformed,
    }
}

fn structure(value: &Value) -> Option<&HashMap<String, Value>> {
    match &value.kind {
        Some(Kind::StructValue(Struct { fields })) => Some(fields),
        _ => None,
    }
}

/// Whether two identities tell the same, so that one token can have both.
pub(super) fn are_alike(one: &Identity, other: &Identity) -> bool {
    type Text = fn(&Identity) -> Option<&str>;
    type Time = fn(&Identity) -> Option<u64>;
    const TEXTS: [Text; 5] = [|it| Some(it.iss()), Identity::jti, Identity::sid, Identity::sub, Identity::client_id];
    const TIMES: [Time; 3] = [Identity::iat, Identity::auth_time, Identity::exp];
    TEXTS.iter().all(|text| text(one) == text(other))
        && TIMES.iter().all(|time| time(one) == time(other))
        && one.status() == other.status()
}

fn issuer<'a>(config: &'a Config, iss: &str) -> Option<&'a Issuer> {
    config.issuer.iter().find(|issuer| issuer.issuer == iss)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value as Json, json};

    use super::*;

    fn value(json: &Json) -> Value {
        let kind = match json {
            Json::Null => Kind::NullValue(0),
            Json::Bool(yes) => Kind::BoolValue(*yes),
            Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap()),
            Json::String(text) => Kind::StringValue(text.clone()),
            Json::Array(_) => return Value::default(),
            Json::Object(members) => Kind::StructValue(Struct {
                fields: members.iter().map(|(name, member)| (name.clone(), value(member))).collect(),
            }),
        };
        Value { kind: Some(kind) }
    }

    fn claims(json: &Json) -> Claims {
        match value(json).kind {
            Some(Kind::StructValue(Struct { fields })) => Claims(fields),
            _ => unreachable!("an object"),
        }
    }

    #[test]
    fn the_place_of_a_status_is_read_as_from_a_token() {
        let list = |idx| StatusClaim::List(StatusRef { uri: "u", idx });
        for (json, standard, janssen) in [
            (json!({}), StatusClaim::Missing, StatusClaim::Missing),
            (json!({"status": {}}), StatusClaim::Missing, StatusClaim::Missing),
            (json!({"status": {"status_list": {"idx": 7, "uri": "u"}}}), list(7), list(7)),
            (json!({"status_list": {"idx": 7, "uri": "u"}}), StatusClaim::Missing, list(7)),
            (json!({"status": "active"}), StatusClaim::Malformed, StatusClaim::Malformed),
            (json!({"status": {"status_list": null}}), StatusClaim::Malformed, StatusClaim::Malformed),
            (
                json!({"status": {"status_list": {"idx": -1, "uri": "u"}}}),
                StatusClaim::Malformed,
                StatusClaim::Malformed,
            ),
            (
                json!({"status": {"status_list": {"idx": 1.5, "uri": "u"}}}),
                StatusClaim::Malformed,
                StatusClaim::Malformed,
            ),
            (
                json!({"status": {"status_list": {"idx": 1e300, "uri": "u"}}}),
                StatusClaim::Malformed,
                StatusClaim::Malformed,
            ),
            (json!({"status": {"status_list": {"idx": 1, "uri": ""}}}), StatusClaim::Malformed, StatusClaim::Malformed),
            (json!({"status": {"status_list": {"idx": 1}}}), StatusClaim::Malformed, StatusClaim::Malformed),
            (
                json!({"status": {"status_list": {"idx": 1, "uri": "u"}}, "status_list": {"idx": 2, "uri": "u"}}),
                list(1),
                StatusClaim::Malformed,
            ),
        ] {
            let claims = claims(&json);
            assert_eq!(claims.status(Profile::Standard), standard, "{json}");
            assert_eq!(claims.status(Profile::Janssen), janssen, "{json}");
        }
    }
}
