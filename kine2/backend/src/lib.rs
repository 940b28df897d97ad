//! State engines.
