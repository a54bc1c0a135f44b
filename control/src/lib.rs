//! Records and decisions.
