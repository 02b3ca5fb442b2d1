//! The schedule against a clock that the tests turn.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn steady() -> Pace {
    Pace { interval: SECOND, timeout: ms(500), jitter: Duration::ZERO, warmup: Duration::ZERO, ..Pace::default() }
}

fn one(pace: &Pace) -> Schedule {
    let mut schedule = Schedule::new(Random::new(1));
    schedule.add(CheckId(1), pace, true, SECOND);
    schedule
}

const START: Option<Due> = Some(Due::Start(CheckId(1)));
const DEADLINE: Option<Due> = Some(Due::Deadline(CheckId(1)));

#[test]
fn runs_do_not_drift() {
    let mut schedule = one(&steady());
    for second in 1..100 {
        let planned = SECOND * second;
        assert_eq!(schedule.next(), Some(planned));
        assert_eq!(schedule.pop(planned - ms(1), planned - ms(1)), None);
        // Each begins a little late and takes a while.
        let late = planned + ms(u64::from(second) * 7 % 40);
        assert_eq!(schedule.pop(late, late), START);
        assert_eq!(schedule.pop(late, late), None, "one run at a time");
        assert!(schedule.over(CheckId(1), End::Final, late + ms(123)));
    }
    assert_eq!(schedule.latest(), ms(39));
    assert_eq!(schedule.latest(), Duration::ZERO, "told once");
}

#[test]
fn the_deadline_counts_from_the_real_start() {
    let mut schedule = one(&steady());
    let (judged, now) = (SECOND + ms(20), SECOND + ms(30));
    assert_eq!(schedule.pop(judged, now), START);
    assert_eq!(schedule.next(), Some(now + ms(500)));
    assert_eq!(schedule.pop(now + ms(499), now + ms(600)), None, "what is judged is what was due then");
    assert_eq!(schedule.pop(now + ms(500), now + ms(500)), DEADLINE);
    assert_eq!(schedule.pop(now + ms(900), now + ms(900)), None, "told once");
    assert!(schedule.over(CheckId(1), End::Failed, now + ms(500)));
    assert_eq!(schedule.next(), Some(SECOND * 2));
}

#[test]
fn attempts_of_a_run() {
    let mut schedule = one(&Pace { retries: 2, retry_delay: ms(100), ..steady() });
    let mut now = SECOND;
    for attempt in 0..3 {
        assert_eq!(schedule.pop(now, now), START, "attempt {attempt}");
        now += ms(50);
        assert_eq!(schedule.over(CheckId(1), End::Failed, now), attempt == 2, "attempt {attempt}");
        now += ms(100);
    }
    // The next run is where it would have been without.
    assert_eq!(schedule.next(), Some(SECOND * 2));
    assert_eq!(schedule.pop(SECOND * 2, SECOND * 2), START);
    assert!(!schedule.over(CheckId(1), End::Failed, SECOND * 2), "each run has all attempts");
    let again = SECOND * 2 + ms(100);
    assert_eq!(schedule.pop(again, again), START);
    assert!(schedule.over(CheckId(1), End::Final, again));
    assert_eq!(schedule.next(), Some(SECOND * 3));
}

#[test]
fn missed_runs_are_left_out() {
    // A run that takes longer than its interval.
    let mut schedule = one(&Pace { timeout: SECOND * 5, ..steady() });
    assert_eq!(schedule.pop(SECOND, SECOND), START);
    assert!(schedule.over(CheckId(1), End::Failed, SECOND + ms(3_400)));
    assert_eq!(schedule.next(), Some(SECOND * 5));
    // A pause of the thread: not all at once, but each where it would have been.
    let mut schedule = Schedule::new(Random::new(3));
    for id in 0..1000 {
        schedule.add(CheckId(id), &Pace { warmup: SECOND, ..steady() }, true, Duration::ZERO);
    }
    let before: Vec<_> = schedule.queue.iter().copied().collect();
    let pause = SECOND * 10 - ms(1);
    assert_eq!(schedule.pop(pause, pause).map(|_| ()), None, "all are late by more than their interval");
    let after: Vec<_> = schedule.queue.iter().map(|(at, id)| (*at - SECOND * 9, *id)).collect();
    let wrapped = |at: Duration| if at >= SECOND { at - SECOND } else { at };
    let mut after: Vec<_> = after.into_iter().map(|(at, id)| (wrapped(at), id)).collect();
    after.sort();
    let mut before: Vec<_> = before.into_iter().map(|(at, id)| (wrapped(at), id)).collect();
    before.sort();
    assert_eq!(after, before, "the order is as it was");
    assert!(schedule.latest() > SECOND * 8, "that it was late is not hidden");
}

#[test]
fn a_pause_shorter_than_the_interval_leaves_nothing_out() {
    let mut schedule = one(&steady());
    let late = SECOND + ms(900);
    assert_eq!(schedule.pop(late, late), START);
    assert!(schedule.over(CheckId(1), End::Final, late));
    assert_eq!(schedule.next(), Some(SECOND * 2));
}

#[test]
fn jitter_only_shortens_and_spreads() {
    let pace = Pace { jitter: ms(300), ..steady() };
    let mut schedule = one(&pace);
    let mut before = schedule.next().expect("queued");
    let mut least = SECOND;
    for _ in 0..1000 {
        assert_eq!(schedule.pop(before, before), START);
        assert!(schedule.over(CheckId(1), End::Final, before + ms(1)));
        let next = schedule.next().expect("queued");
        let interval = next - before;
        assert!(interval <= SECOND && interval >= ms(700), "{interval:?}");
        least = least.min(interval);
        before = next;
    }
    assert!(least < ms(750), "{least:?}");
    // Larger than the interval, it leaves a pause.
    let mut schedule = one(&Pace { jitter: SECOND * 10, ..steady() });
    for _ in 0..1000 {
        let at = schedule.next().expect("queued");
        schedule.pop(at, at);
        schedule.over(CheckId(1), End::Final, at);
        assert!(schedule.next().expect("queued") >= at + ms(100));
    }
}

#[test]
fn warm_up_spreads_the_first_runs() {
    let mut schedule = Schedule::new(Random::new(7));
    let pace = Pace { warmup: SECOND * 2, ..steady() };
    for id in 0..5000 {
        schedule.add(CheckId(id), &pace, true, SECOND);
    }
    let mut tenths = [0; 20];
    for (at, _) in &schedule.queue {
        let at = at.checked_sub(SECOND).expect("not before it was added");
        assert!(at < SECOND * 2);
        tenths[(at.as_millis() / 100) as usize] += 1;
    }
    assert!(tenths.iter().all(|count| (125..375).contains(count)), "{tenths:?}");
}

#[test]
fn time_that_the_thread_missed_is_given_back() {
    let mut schedule = one(&steady());
    assert_eq!(schedule.pop(SECOND, SECOND), START);
    let deadline = SECOND + ms(500);
    // One long pause, however long.
    schedule.give_back(SECOND * 5);
    assert_eq!(schedule.next(), Some(deadline + SECOND * 5));
    // No more: an attempt ends, on a machine that never has time for us, too.
    for _ in 0..100 {
        schedule.give_back(ms(400));
    }
    assert_eq!(schedule.next(), Some(deadline + SECOND * 5));
    assert!(schedule.over(CheckId(1), End::Final, SECOND));
    assert_eq!(schedule.pop(SECOND * 2, SECOND * 2), START);
    for _ in 0..100 {
        schedule.give_back(ms(30));
    }
    assert_eq!(schedule.next(), Some(SECOND * 2 + ms(1000)), "at most its timeout again");
    // What waits is not moved.
    assert!(schedule.over(CheckId(1), End::Final, SECOND * 2));
    schedule.give_back(SECOND);
    assert_eq!(schedule.next(), Some(SECOND * 3));
}

#[test]
fn without_a_deadline_somebody_else_ends_it() {
    let mut schedule = Schedule::new(Random::new(1));
    schedule.add(CheckId(1), &steady(), false, SECOND);
    assert_eq!(schedule.pop(SECOND, SECOND), START);
    assert_eq!(schedule.next(), None);
    schedule.give_back(SECOND);
    assert!(schedule.over(CheckId(1), End::Final, SECOND * 7));
    assert_eq!(schedule.next(), Some(SECOND * 7));
}

#[test]
fn put_off_removed_and_unknown() {
    let mut schedule = one(&Pace { retries: 1, ..steady() });
    assert_eq!(schedule.pop(SECOND, SECOND), START);
    schedule.put_off(CheckId(1), SECOND + ms(20));
    assert_eq!(schedule.pop(SECOND + ms(19), SECOND + ms(19)), None);
    assert_eq!(schedule.pop(SECOND + ms(20), SECOND + ms(20)), START);
    assert!(!schedule.over(CheckId(1), End::Failed, SECOND + ms(30)), "it was no attempt");
    assert!(schedule.over(CheckId(2), End::Failed, SECOND));
    schedule.put_off(CheckId(2), SECOND);
    schedule.remove(CheckId(2));
    schedule.remove(CheckId(1));
    assert_eq!((schedule.next(), schedule.pop(SECOND * 9, SECOND * 9)), (None, None));
    assert!(schedule.queue.is_empty() && schedule.slots.is_empty());
}

#[test]
fn thousands_run_at_their_rate() {
    let mut schedule = Schedule::new(Random::new(11));
    let pace = Pace { jitter: ms(100), warmup: SECOND, ..steady() };
    for id in 0..5000 {
        schedule.add(CheckId(id), &pace, true, Duration::ZERO);
    }
    let mut runs = vec![0u32; 5000];
    let mut most = 0;
    for tick in 0..20_000 {
        let now = ms(tick);
        let mut started = 0;
        while let Some(due) = schedule.pop(now, now) {
            let Due::Start(id) = due else { panic!("{due:?}: all answer at once") };
            runs[id.0 as usize] += 1;
            started += 1;
            assert!(schedule.over(id, End::Final, now));
        }
        most = most.max(started);
    }
    assert!(runs.iter().all(|runs| (19..=23).contains(runs)), "{:?}", runs.iter().max());
    assert!(most < 60, "{most} in one millisecond, where 5.3 are usual");
}
