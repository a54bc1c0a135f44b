//! The API as clients meet it: real HTTP through the gateway's whole stack, on both databases.

mod access_page;
mod allow;
mod apply;
mod clearance;
mod content;
mod content_rights;
mod conversions;
mod evaluations;
mod gate;
mod honest;
mod input;
mod keys;
mod records;
mod rig;
mod rights;
mod secrecy;
mod versions;
mod work_orders;
