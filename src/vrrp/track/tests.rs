//! The rules of tracking.
