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

/// A token that was just verified, with the place of its list at hand for later requests.
pub(super) fn located(mut verified: Verified, context: Context<'_>) -> Result<Verified, Rejection> {
    if let Some(lists) = context.lists {
        verified.listed = lists.listed(verified.identity.iss(), verified.identity.status())?;
    }
    Ok(verified)
}

/// What stands in the way of a verified token, if its status does.
#[inline]
pub(super) fn by_verified(verified: &Arc<Verified>, context: Context<'_>) -> Option<Found> {
    let (listed, lists) = (verified.listed.as_ref()?, context.lists?);
    match lists.standing(listed, context.now) {
        Standing::Clear => None,
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
    let Some(listed) = lists.listed(claims.iss, claims.status)? else { return Ok(None) };
    match lists.standing(&listed, context.now) {
        Standing::Clear => Ok(None),
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
