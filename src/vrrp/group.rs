//! Routers that are master together or not at all. Pure.
