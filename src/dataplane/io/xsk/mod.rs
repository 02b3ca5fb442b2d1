//! AF_XDP frame I/O.

pub mod sys;
