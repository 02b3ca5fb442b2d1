//! How urgently the kernel runs a thread.
//!
//! Owns the choice: real-time where that is permitted, else the best nice value, else nothing. Never fails: what came of it
//! is said in words.

use crate::priority;

/// Gives the calling thread real-time priority `priority` (1 to 99; 0: leave it alone), or as much of it as is permitted.
/// Returns what it has now, for the status, and whether that is what was wanted.
pub fn raise(priority: u8) -> (String, bool) {
    if priority == 0 {
        return ("ordinary, as configured".into(), true);
    }
    let refusal = match priority::set_realtime(priority.min(99)) {
        Ok(()) => return (format!("real-time, priority {}", priority.min(99)), true),
        Err(errno) => errno,
    };
    match priority::set_nice(-20) {
        Ok(()) => (format!("nice -20: real-time priority is not permitted ({refusal}); give CAP_SYS_NICE"), false),
        Err(errno) => (
            format!("ordinary: neither real-time ({refusal}) nor nice -20 ({errno}) is permitted; give CAP_SYS_NICE"),
            false,
        ),
    }
}

/// Makes the calling thread run before ordinary ones where that is permitted, without real-time priority.
pub fn hurry() {
    // A refusal costs some time under load, and no more.
    let _ = priority::set_nice(-20);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_the_thread_got() {
        assert_eq!(raise(0), ("ordinary, as configured".to_owned(), true));
        // On a thread of its own, which takes the priority with it.
        let (words, wanted) = std::thread::spawn(|| raise(1)).join().unwrap();
        assert_eq!(wanted, words == "real-time, priority 1", "{words}");
        assert!(wanted || words.contains("CAP_SYS_NICE"), "{words}");
    }
}
