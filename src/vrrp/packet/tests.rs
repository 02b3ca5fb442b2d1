//! The byte vectors of the reference, recorded adverts, and every way to be refused.

use super::*;

#[test]
fn names_are_unique() {
    let names: std::collections::BTreeSet<&str> = Refusal::ALL.iter().map(|refusal| refusal.name()).collect();
    assert_eq!(names.len(), Refusal::ALL.len());
}
