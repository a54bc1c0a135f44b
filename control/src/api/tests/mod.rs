//! The API as clients meet it: real HTTP through the gateway's whole stack, on both databases.

mod apply;
mod evaluations;
mod input;
mod records;
mod rig;
mod rights;
mod secrecy;
mod versions;
