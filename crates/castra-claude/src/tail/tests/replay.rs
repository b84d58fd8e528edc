//! What waits is bounded, and decoding may start anew at any hold.

use super::*;
use proptest::prelude::*;

#[test]
fn what_waits_is_bounded() {
    let orphans: Vec<Value> = (0..2500).map(|n| text(1000 + n, 9, "m", "x")).collect();
    let mut log = Log::new(Tail::new());
    log.step(&lines(&orphans));
    assert!(log.told.len() >= 1500, "{}", log.told.len());
    // A circle, too, is told in the end.
    let mut log = Log::run(&[lines(&[text(1, 2, "m", "a"), text(2, 1, "m", "b")]), Step::Later(SETTLE)]);
    assert_eq!(log.names()[..3], ["running", "assistant 1", "assistant 2"]);
    log.step(&Step::Later(SETTLE));
    log.tail.finish(99, 99 * SECOND, &mut log.told);
    assert_eq!(log.tail.hold(), None);
}

fn any_step() -> impl Strategy<Value = Step> {
    let record = (0_u8..12, 1_u128..30, 0_u128..30).prop_map(|(kind, n, parent)| match kind {
        0 | 1 => user(n, parent, "x"),
        2 => attached(n, parent),
        3 | 4 => text(n, parent, "m", "a"),
        5 => calls(n, parent, "m2", "t"),
        6 => answers(n, parent, "t"),
        7 => over(n, parent),
        8 => interrupted(n, parent),
        9 => failed(n, parent, json!(null)),
        10 => with(text(n, parent, "s", "b"), json!({"isSidechain": true, "agentId": "a"})),
        _ => json!({"type": "last-prompt", "leafUuid": id(n)}),
    });
    let status = proptest::sample::select(vec![Status::Idle, Status::Busy, Status::Waiting]);
    prop_oneof![
        8 => (0_u8..2, proptest::collection::vec(record, 1..5), 0_usize..40).prop_map(|(file, values, cut)| {
            let bytes: String = values.iter().map(|value| format!("{value}\n")).collect();
            let mut bytes = bytes.into_bytes();
            // Some records end in the middle of a line.
            bytes.truncate(bytes.len() - cut % bytes.len().min(7));
            Step::File(file, bytes)
        }),
        3 => status.prop_map(Step::Status),
        1 => proptest::sample::select(vec![0, SECOND, SETTLE]).prop_map(Step::Later),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decoding_may_start_anew_at_any_hold(steps in proptest::collection::vec(any_step(), 1..25)) {
        let mut whole = Log::new(Tail::new());
        let mut cuts = Vec::new();
        for step in &steps {
            let before = (whole.at, whole.offsets.clone());
            whole.step(step);
            cuts.push((before, whole.tail.hold(), whole.tail.due(), whole.told.len()));
        }
        for (index, (_, hold, due, told)) in cuts.iter().enumerate() {
            let from = hold.map_or(index + 1, |hold| hold as usize - 1);
            prop_assert!(from <= index + 1);
            let mut anew = Log::new(Tail::new());
            anew.seq = from as u64;
            if let Some((before, ..)) = cuts.get(from) {
                (anew.at, anew.offsets) = before.clone();
            }
            steps[from..=index.max(from.saturating_sub(1))].iter().take(index + 1 - from).for_each(|step| anew.step(step));
            prop_assert_eq!(anew.tail.hold(), *hold, "after {}", index);
            prop_assert_eq!(anew.tail.due(), *due, "after {}", index);
            anew.told.clear();
            if let (true, Some((before, ..))) = (from == index + 1, cuts.get(index + 1)) {
                (anew.at, anew.offsets) = before.clone();
            }
            steps[index + 1..].iter().for_each(|step| anew.step(step));
            prop_assert_eq!(&anew.told, &whole.told[*told..], "after {}", index);
        }
    }
}
