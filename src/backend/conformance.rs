//! The conditions that a backend must meet, as a suite that any backend can run.
