//! A script of frames, pauses and swapped snapshots through one worker or three, with the checks of `tests/hostile.rs`.
//!
//! An odd first byte makes three workers. Each step then is one byte and what belongs to it: 0 to 199 a frame (two bytes
//! of length, then as many bytes; an odd step takes the second interface), 200 to 219 a pause, 220 to 229 an answer to a
//! frame that was sent, or an ICMP error about it (one more byte chooses), 230 to 239 a swap, from 240 on the end of a
//! batch.

#![no_main]

#[path = "../../tests/hostile_support/mod.rs"]
#[allow(dead_code)]
mod hostile_support;

use evenkeel::dataplane::io::BATCH;
use evenkeel::model::SynCookies;
use hostile_support::Random;
use hostile_support::frames::repaired;
use hostile_support::rig::Rig;
use hostile_support::site::Engine;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|script: &[u8]| {
    let Some((&first, mut rest)) = script.split_first() else { return };
    let workers = if first & 1 == 1 { 3 } else { 1 };
    let mut rig = Rig::of(Engine { workers, syn_cookies: SynCookies::Flood, roomy: true });
    let mut batch: Vec<(u8, Vec<u8>)> = Vec::new();
    while let Some((&step, more)) = rest.split_first() {
        rest = more;
        match step {
            0..200 => {
                let Some((length, more)) = rest.split_first_chunk::<2>() else { break };
                let length = usize::from(u16::from_le_bytes(*length) % 2000).min(more.len());
                let (frame, more) = more.split_at(length);
                rest = more;
                // Checksums are too much to ask of a fuzzer: below 100 they are made right.
                let frame = if step < 100 { repaired(frame.to_vec()) } else { frame.to_vec() };
                batch.push((step & 1, frame));
            }
            200..220 => rig.pass_time(1 << (step - 200), 300),
            220..230 => {
                let Some((&choice, more)) = rest.split_first() else { break };
                rest = more;
                let answer = rig.answer(&mut Random::new(u64::from(step) << 8 | u64::from(choice)));
                batch.extend(answer);
            }
            230..240 => rig.swap(&mut Random::new(u64::from(step))),
            _ => rig.batch(&std::mem::take(&mut batch)),
        }
        if batch.len() == BATCH {
            rig.batch(&std::mem::take(&mut batch));
        }
    }
    rig.batch(&batch);
    rig.compare();
    rig.end();
});
