//! The XDP filter: which frames the engine takes from an interface.
