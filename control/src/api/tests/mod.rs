//! The API as clients meet it: real HTTP through the gateway's whole stack, on both databases.

mod allow;
mod apply;
mod content;
mod conversions;
mod evaluations;
mod input;
mod records;
mod rig;
mod rights;
mod secrecy;
mod versions;
mod work_orders;
