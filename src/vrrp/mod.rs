//! VRRP: who is master of which addresses.
