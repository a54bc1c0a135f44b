//! The verbs of the control plane: `sluice model create …`. Each is one request to `/api/v1`.
//!
//! All kinds share list, show, create, update and delete ([`verbs`]); what else a kind can do is in the
//! table of [`kinds`]: a verb that the API gets is a line there.

pub(crate) mod apply;
mod content;
mod evaluations;
mod fields;
mod help;
mod kinds;
mod names;
mod verbs;
mod view;
mod watch;

pub(crate) use fields::encoded;
pub(crate) use verbs::Noun;
