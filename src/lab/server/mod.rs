//! The real servers' programs: nginx, HAProxy, and small ones that are easy to check.
//!
//! Owns starting them on a site's servers. Each says its own name in every answer, so that a client knows who answered.

pub mod decap;
pub mod haproxy;
pub mod hash;
pub mod nginx;
pub mod transfer;
pub mod udp;
