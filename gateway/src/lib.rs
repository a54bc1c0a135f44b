//! The HTTP face of Sluice.
