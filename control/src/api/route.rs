//! What a route is, and how it is written down.

use axum::routing::MethodFilter;

use crate::domain::roles::Verb;

/// Under which all routes are.
pub(super) const BASE: &str = "/api/v1";

/// What a route is, beside its types.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route {
    pub method: &'static str,
    /// Below [`BASE`]: `/models/{model}`.
    pub path: &'static str,
    pub verb: Verb,
    pub summary: &'static str,
}

pub(super) const fn get(path: &'static str, verb: Verb, summary: &'static str) -> Route {
    route("GET", path, verb, summary)
}
pub(super) const fn post(path: &'static str, verb: Verb, summary: &'static str) -> Route {
    route("POST", path, verb, summary)
}
pub(super) const fn put(path: &'static str, verb: Verb, summary: &'static str) -> Route {
    route("PUT", path, verb, summary)
}
pub(super) const fn patch(path: &'static str, verb: Verb, summary: &'static str) -> Route {
    route("PATCH", path, verb, summary)
}
pub(super) const fn delete(path: &'static str, verb: Verb, summary: &'static str) -> Route {
    route("DELETE", path, verb, summary)
}
const fn route(
    method: &'static str,
    path: &'static str,
    verb: Verb,
    summary: &'static str,
) -> Route {
    Route {
        method,
        path,
        verb,
        summary,
    }
}

impl Route {
    pub(super) fn writes(self) -> bool {
        self.method != "GET"
    }

    pub(super) fn filter(self) -> MethodFilter {
        match self.method {
            "POST" => MethodFilter::POST,
            "PUT" => MethodFilter::PUT,
            "PATCH" => MethodFilter::PATCH,
            "DELETE" => MethodFilter::DELETE,
            _ => MethodFilter::GET,
        }
    }
}
