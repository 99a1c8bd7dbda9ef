//! Tokens held against the status lists that they point to.

use std::sync::Arc;

use super::{
    Claims, Verified,
    question::{Known, Question},
    source::{Context, Found},
};
use crate::{
    reject::Rejection,
    status_list::{Listed, Standing, StatusLists},
};

/// Finds the place of its list for a token that was just verified, for later requests. `false`: what the token says of its
/// status would refuse it if that were not in shadow, so that it has to be looked at anew each time.
pub(super) fn locate(verified: &mut Verified, context: Context<'_>) -> Result<bool, Rejection> {
    let Some(lists) = context.lists else { return Ok(true) };
    match lists.listed(verified.identity.iss(), verified.identity.status()) {
        Ok(listed) => verified.listed = listed,
        Err(rejection) if context.policy.forgiven.covers(rejection) => return Ok(false),
        Err(rejection) => return Err(rejection),
    }
    Ok(true)
}

/// What stands in the way of a verified token, if its status does.
#[inline]
pub(super) fn by_verified(verified: &Arc<Verified>, context: Context<'_>) -> Option<Found> {
    let (listed, lists) = (verified.listed.as_ref()?, context.lists?);
    match lists.standing(listed, context.now) {
        Standing::Clear => None,
        Standing::Refused(rejection) if context.policy.forgiven.covers(rejection) => None,
        Standing::Refused(rejection) => Some(Found::Refused(rejection, Arc::clone(verified))),
        Standing::Ask => {
            let known = Known::of(Arc::clone(verified));
            Some(unclear(lists, listed.clone(), known, Some(Arc::clone(verified))))
        }
    }
}

/// The same for claims that were verified outside.
#[inline]
pub(super) fn by_claims(claims: &Claims<'_>, context: Context<'_>) -> Result<Option<Found>, Rejection> {
    let Some(lists) = context.lists else { return Ok(None) };
    // An opaque token points nowhere.
    if claims.opaque.is_some() {
        return Ok(None);
    }
    let listed = match lists.listed(claims.iss, claims.status) {
        Ok(Some(listed)) => listed,
        Ok(None) => return Ok(None),
        Err(rejection) if context.policy.forgiven.covers(rejection) => return Ok(None),
        Err(rejection) => return Err(rejection),
    };
    match lists.standing(&listed, context.now) {
        Standing::Clear => Ok(None),
        Standing::Refused(rejection) if context.policy.forgiven.covers(rejection) => Ok(None),
        Standing::Refused(rejection) => Err(rejection),
        Standing::Ask => {
            let known = Known::of_claims(claims, claims.keys(context.denylist.hasher()));
            Ok(Some(unclear(lists, listed, known, None)))
        }
    }
}

/// The list has to be fetched first: begun now, whether or not the door can wait for it.
#[cold]
fn unclear(lists: &StatusLists, listed: Listed, known: Known, verified: Option<Arc<Verified>>) -> Found {
    lists.want(&listed);
    let lists = lists.clone();
    let told = Box::pin(async move {
        lists.ask(&listed).await?;
        Ok(known)
    });
    Found::Unclear(Box::new(Question::Elsewhere { told, verified }))
}
