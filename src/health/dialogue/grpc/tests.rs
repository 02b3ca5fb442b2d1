//! gRPC health checks against a server of the crate h2, and against hand-made frames.
