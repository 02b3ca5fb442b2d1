//! What is wrong on the segment, said once and counted. Pure.
