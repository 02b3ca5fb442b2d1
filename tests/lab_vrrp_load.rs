//! The `vrrp` thread under load: what 255 routers cost, and that busy cores bring about no change of master.
//!
//! `EVENKEEL_BUSY_SECONDS` (15) says how long the cores are kept busy.

mod lab_support;
mod vrrp_lab_support;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lab_support::{heavy, lab_is_possible};
use vrrp_lab_support::{Appliance, plan, router, segment, wait};

/// Time on a core of each thread of this process with that name, by its number.
fn times(name: &str) -> Vec<(u64, Duration)> {
    let mut times = Vec::new();
    for task in fs::read_dir("/proc/self/task").unwrap().flatten() {
        let read = |file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
        if read("comm").trim() == name {
            let nanoseconds = read("schedstat").split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0);
            let number = task.file_name().to_string_lossy().parse().unwrap();
            times.push((number, Duration::from_nanos(nanoseconds)));
        }
    }
    times.sort();
    times
}

#[test]
fn as_many_routers_as_an_interface_can_have_cost_less_than_two_hundredths_of_a_core() {
    if !lab_is_possible() {
        return;
    }
    let _alone = heavy();
    let lab = segment(&["a", "b"]);
    let routers = |priority: u8| {
        let of = |vrid: u8| {
            let mut router = router(&format!("vi{vrid}"), vrid, priority, &[&format!("10.0.1.{vrid}")]);
            router.interval = Duration::from_secs(1);
            router
        };
        plan((1..=255).map(of).collect())
    };
    let a = Appliance::start(&lab, "a", routers(150));
    let first: Vec<u64> = times("vrrp").into_iter().map(|(number, _)| number).collect();
    let b = Appliance::start(&lab, "b", routers(100));
    wait("a is master of all", || (1..=255).all(|slot| a.masters(slot) && !b.masters(slot)));
    wait("b is backup of all", || b.driver.status().routers.iter().all(|router| router.state == "BACKUP"));
    // The start is not what is measured.
    std::thread::sleep(Duration::from_secs(2));
    let received = || b.driver.status().routers.iter().map(|router| router.adverts.received).sum::<u64>();
    let (before, heard, start) = (times("vrrp"), received(), Instant::now());
    std::thread::sleep(Duration::from_secs(10));
    let (after, passed) = (times("vrrp"), start.elapsed());
    let heard = received() - heard;
    assert_eq!((before.len(), after.len()), (2, 2));
    for ((number, then), (_, now)) in before.into_iter().zip(after) {
        let share = (now - then).as_secs_f64() / passed.as_secs_f64() * 100.0;
        let what = if first.contains(&number) { "master" } else { "backup" };
        println!("255 routers at 1 s, {what}: {share:.2} % of a core");
        assert!(share < 2.0, "{what}: {share:.2} % of a core");
    }
    assert!((2200..=2900).contains(&heard), "{heard} adverts in {passed:?}");
}

#[test]
fn busy_cores_change_no_master() {
    if !lab_is_possible() {
        return;
    }
    let _alone = heavy();
    let lab = segment(&["a", "b"]);
    let wish = |priority| {
        let mut plan = plan(vec![router("vi", 51, priority, &["10.0.0.100"])]);
        // As an installation has it.
        plan.vrrp.settings.realtime = 50;
        plan
    };
    let (a, b) = (Appliance::start(&lab, "a", wish(150)), Appliance::start(&lab, "b", wish(100)));
    wait("a is master", || a.masters(1) && !b.masters(1) && b.state("vi") == "BACKUP");
    let before = (a.mastery.changes(), b.mastery.changes(), a.router("vi").promotions);
    let busy = Arc::new(AtomicBool::new(true));
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let spinners: Vec<_> = (0..2 * cores)
        .map(|_| {
            let busy = Arc::clone(&busy);
            std::thread::spawn(move || {
                while busy.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        })
        .collect();
    let seconds = std::env::var("EVENKEEL_BUSY_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(15);
    let start = Instant::now();
    let mut masters = 0;
    while start.elapsed() < Duration::from_secs(seconds) {
        std::thread::sleep(Duration::from_millis(50));
        masters = masters.max(u32::from(a.masters(1)) + u32::from(b.masters(1)));
    }
    busy.store(false, Ordering::Relaxed);
    spinners.into_iter().for_each(|spinner| spinner.join().unwrap());
    let after = (a.mastery.changes(), b.mastery.changes(), a.router("vi").promotions);
    println!(
        "{} spinning threads for {seconds} s, thread {}: {:?} -> {:?}",
        2 * cores,
        a.driver.status().realtime,
        before,
        after
    );
    assert_eq!(after, before, "a change of master");
    assert_eq!(masters, 1);
    let heard = b.router("vi").adverts.received;
    assert!(heard >= 9 * seconds, "{heard} adverts");
}
