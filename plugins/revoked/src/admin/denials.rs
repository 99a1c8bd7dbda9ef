//! The requests that were refused last.

use http::{Response, StatusCode};
use serde_json::json;

use super::{
    Inner,
    answer::{self, AdminBody},
};

pub(super) fn answer(inner: &Inner) -> Response<AdminBody> {
    answer::json(StatusCode::OK, &json!({ "denials": inner.engine.denials().since(0) }))
}
