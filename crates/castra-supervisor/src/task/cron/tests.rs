//! Firings in two zones over four changes of the clock, and the rule against a search minute by minute.

use super::*;
use jiff::tz::TimeZoneDatabase;
use jiff::{SignedDuration, Zoned};
use proptest::prelude::*;

/// By the rules that castra was built with, whatever the machine has.
fn zone(name: &str) -> TimeZone {
    TimeZoneDatabase::bundled().get(name).unwrap()
}

fn schedule(expression: &str, name: &str) -> Schedule {
    Schedule::new(expression, zone(name)).unwrap_or_else(|error| panic!("{expression}: {error}"))
}

fn at(text: &str) -> Timestamp {
    Timestamp(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
}

/// The first firings after an instant, as their zone's clock shows them.
fn firings(expression: &str, name: &str, after: &str, count: usize) -> Vec<String> {
    let schedule = schedule(expression, name);
    let shown = |at: Timestamp| {
        let at = jiff::Timestamp::from_microsecond(at.0).unwrap().to_zoned(zone(name));
        at.strftime("%m-%d %H:%M:%S %:z").to_string()
    };
    std::iter::successors(schedule.next_after(at(after)), |at| schedule.next_after(*at))
        .take(count)
        .map(shown)
        .collect()
}

#[test]
fn fields_mean_what_they_say() {
    let after = "2026-11-21T17:00:00Z";
    let table: &[(&str, &[&str])] = &[
        ("30 2 * * *", &["11-22 02:30:00 +00:00", "11-23 02:30:00 +00:00"]),
        ("0 17 * * *", &["11-22 17:00:00 +00:00"]),
        ("*/20 * * * *", &["11-21 17:20:00 +00:00", "11-21 17:40:00 +00:00", "11-21 18:00:00 +00:00"]),
        ("*/30 * * * * *", &["11-21 17:00:30 +00:00", "11-21 17:01:00 +00:00"]),
        ("0 9 * * MON-FRI", &["11-23 09:00:00 +00:00"]),
        ("0 9 * * 7", &["11-22 09:00:00 +00:00", "11-29 09:00:00 +00:00"]),
        ("0 9 1 jan,JUL *", &["01-01 09:00:00 +00:00", "07-01 09:00:00 +00:00"]),
        ("0 0 29 2 *", &["02-29 00:00:00 +00:00"]),
        ("0 0 L * *", &["11-30 00:00:00 +00:00", "12-31 00:00:00 +00:00"]),
        ("0 0 * * FRI#1", &["12-04 00:00:00 +00:00"]),
        ("0 0 * * friL", &["11-27 00:00:00 +00:00", "12-25 00:00:00 +00:00"]),
        ("0 0 15W * *", &["12-15 00:00:00 +00:00", "01-15 00:00:00 +00:00", "02-15 00:00:00 +00:00"]),
        ("0 0 ? * mon-WED,Fri", &["11-23 00:00:00 +00:00"]),
        // The 13th, or a Friday.
        (
            "0 0 13 * FRI",
            &[
                "11-27 00:00:00 +00:00",
                "12-04 00:00:00 +00:00",
                "12-11 00:00:00 +00:00",
                "12-13 00:00:00 +00:00",
            ],
        ),
        ("@daily", &["11-22 00:00:00 +00:00"]),
        ("@weekly", &["11-22 00:00:00 +00:00", "11-29 00:00:00 +00:00"]),
        (" 0   17 * * * ", &["11-22 17:00:00 +00:00"]),
    ];
    for (expression, expected) in table {
        assert_eq!(firings(expression, "UTC", after, expected.len()), *expected, "{expression}");
    }
    assert_eq!(schedule("0 0 29 2 *", "UTC").next_after(at(after)), Some(at("2028-02-29T00:00:00Z")));
    assert_eq!(
        schedule("* * * * * *", "UTC").next_after(Timestamp(1_500_000)),
        Some(Timestamp(2_000_000)),
        "fractions of a second"
    );
}

/// Zone, noon (UTC) of the day before, that day, the day after, offsets before and after the change. The hour from two
/// to three is left out.
const FORWARD: [(&str, &str, &str, &str, &str, &str); 4] = [
    ("Europe/Berlin", "2026-03-28T12:00:00Z", "03-29", "03-30", "+01:00", "+02:00"),
    ("Europe/Berlin", "2027-03-27T12:00:00Z", "03-28", "03-29", "+01:00", "+02:00"),
    ("America/New_York", "2026-03-07T20:00:00Z", "03-08", "03-09", "-05:00", "-04:00"),
    ("America/New_York", "2027-03-13T20:00:00Z", "03-14", "03-15", "-05:00", "-04:00"),
];

/// The same where an hour occurs twice: in Berlin from two to three, in New York from one to two.
const BACK: [(&str, &str, &str, &str, &str, &str, u8); 4] = [
    ("Europe/Berlin", "2026-10-24T12:00:00Z", "10-25", "10-26", "+02:00", "+01:00", 2),
    ("Europe/Berlin", "2027-10-30T12:00:00Z", "10-31", "11-01", "+02:00", "+01:00", 2),
    ("America/New_York", "2026-10-31T20:00:00Z", "11-01", "11-02", "-04:00", "-05:00", 1),
    ("America/New_York", "2027-11-06T20:00:00Z", "11-07", "11-08", "-04:00", "-05:00", 1),
];

#[test]
fn a_named_time_that_does_not_exist_fires_once_the_clock_has_jumped() {
    for (name, after, day, next, old, new) in FORWARD {
        let table: &[(&str, &[String])] = &[
            ("30 2 * * *", &[format!("{day} 03:00:00 {new}"), format!("{next} 02:30:00 {new}")]),
            ("0 2 * * *", &[format!("{day} 03:00:00 {new}"), format!("{next} 02:00:00 {new}")]),
            ("59 1 * * *", &[format!("{day} 01:59:00 {old}"), format!("{next} 01:59:00 {new}")]),
            ("0 3 * * *", &[format!("{day} 03:00:00 {new}"), format!("{next} 03:00:00 {new}")]),
            // Several that were jumped over are one, also with one that is there anyhow.
            ("*/15 2 * * *", &[format!("{day} 03:00:00 {new}"), format!("{next} 02:00:00 {new}")]),
            ("0 2,3 * * *", &[format!("{day} 03:00:00 {new}"), format!("{next} 02:00:00 {new}")]),
            // croner's own rule would skip this one.
            ("30 2,14 * * *", &[format!("{day} 03:00:00 {new}"), format!("{day} 14:30:00 {new}")]),
        ];
        for (expression, expected) in table {
            // Some fire in the evening before, which is not meant.
            let mut found = firings(expression, name, after, 9);
            found.retain(|firing| firing.starts_with(day) || firing.starts_with(next));
            assert_eq!(found[..expected.len()], **expected, "{expression} {name} {day}");
        }
    }
}

#[test]
fn a_named_time_that_occurs_twice_fires_the_first_time() {
    for (name, after, day, next, old, new, h) in BACK {
        let table: &[(String, Vec<String>)] = &[
            (
                format!("30 {h} * * *"),
                vec![format!("{day} 0{h}:30:00 {old}"), format!("{next} 0{h}:30:00 {new}")],
            ),
            (
                format!("*/30 {h} * * *"),
                vec![
                    format!("{day} 0{h}:00:00 {old}"),
                    format!("{day} 0{h}:30:00 {old}"),
                    format!("{next} 0{h}:00:00 {new}"),
                ],
            ),
            (
                format!("30 {h},14 * * *"),
                vec![format!("{day} 0{h}:30:00 {old}"), format!("{day} 14:30:00 {new}")],
            ),
            (
                format!("0 {h},{} * * *", h + 1),
                vec![
                    format!("{day} 0{h}:00:00 {old}"),
                    format!("{day} 0{}:00:00 {new}", h + 1),
                    format!("{next} 0{h}:00:00 {new}"),
                ],
            ),
        ];
        for (expression, expected) in table {
            let mut found = firings(expression, name, after, 9);
            found.retain(|firing| firing.starts_with(day) || firing.starts_with(next));
            assert_eq!(found[..expected.len()], **expected, "{expression} {name}");
        }
    }
}

#[test]
fn an_interval_follows_the_clock() {
    let berlin = "Europe/Berlin";
    let table: &[(&str, &str, &[&str])] = &[
        (
            "*/30 * * * *",
            "2026-03-29T00:20:00Z",
            &["03-29 01:30:00 +01:00", "03-29 03:00:00 +02:00", "03-29 03:30:00 +02:00"],
        ),
        ("0 * * * *", "2026-03-29T00:00:00Z", &["03-29 03:00:00 +02:00", "03-29 04:00:00 +02:00"]),
        ("0 */2 * * *", "2026-03-28T23:00:00Z", &["03-29 04:00:00 +02:00"]),
        (
            "*/30 * * * *",
            "2026-10-25T00:00:00Z",
            &[
                "10-25 02:30:00 +02:00",
                "10-25 02:00:00 +01:00",
                "10-25 02:30:00 +01:00",
                "10-25 03:00:00 +01:00",
            ],
        ),
        (
            "0 */2 * * *",
            "2026-10-24T22:00:00Z",
            &["10-25 02:00:00 +02:00", "10-25 02:00:00 +01:00", "10-25 04:00:00 +01:00"],
        ),
    ];
    for (expression, after, expected) in table {
        assert_eq!(firings(expression, berlin, after, expected.len()), *expected, "{expression} {after}");
    }
}

#[test]
fn a_day_that_a_zone_left_out_is_made_up_for() {
    // Samoa went from the 29th to the 31st of December 2011.
    let found = firings("0 12 * * *", "Pacific/Apia", "2011-12-29T12:00:00Z", 3);
    assert_eq!(found, ["12-29 12:00:00 -10:00", "12-31 00:00:00 +14:00", "12-31 12:00:00 +14:00"]);
}

#[test]
fn what_is_not_understood_is_named() {
    let error = |expression: &str, zone: &str| match Schedule::parse(expression, zone) {
        Ok(schedule) => panic!("{expression:?} in {zone:?} is {schedule:?}"),
        Err(error) => error,
    };
    for (expression, name, wrong) in [
        ("60 * * * *", "minute", "60"),
        ("x * * * *", "minute", "x"),
        ("* 24 * * *", "hour", "24"),
        ("* MON * * *", "hour", "MON"),
        ("* * 0 * *", "day", "0"),
        ("* * 32 * *", "day", "32"),
        ("* * * 13 *", "month", "13"),
        ("* * * FOO *", "month", "FOO"),
        ("* * * * 8", "weekday", "8"),
        ("* * * * MOO", "weekday", "MOO"),
        ("5-1 * * * *", "minute", "5-1"),
        ("*/0 * * * *", "minute", "*/0"),
        ("5/10 * * * *", "minute", "5/10"),
        ("1,,2 * * * *", "minute", "1,,2"),
        ("1, * * * *", "minute", "1,"),
        ("* * * JANFEB *", "month", "JANFEB"),
        ("* * * JANUARY *", "month", "JANUARY"),
        ("* * * JAN1 *", "month", "JAN1"),
        ("* * * * MONTUE", "weekday", "MONTUE"),
        ("* * * * FRI#6", "weekday", "FRI#6"),
        ("* * * L *", "month", "L"),
        ("61 * * * * *", "second", "61"),
        ("60 25 * * *", "minute", "60"),
    ] {
        match error(expression, "UTC") {
            CronError::Field { field, value, .. } => {
                assert_eq!((field, &*value), (name, wrong), "{expression}")
            }
            other => panic!("{expression}: {other}"),
        }
    }
    for (expression, found) in [("", 0), ("* * * *", 4), ("* * * * * * 2030", 7)] {
        assert_eq!(error(expression, "UTC"), CronError::Fields { found }, "{expression}");
    }
    assert_eq!(error("0 0 30 2 *", "UTC"), CronError::Never);
    assert_eq!(error("0 0 31 4,6 *", "UTC"), CronError::Never);
    assert_eq!(error("@often", "UTC"), CronError::Nickname { name: "@often".into() });
    for name in ["", "Europe/Nowhere", "../etc/passwd", "/etc/localtime"] {
        assert_eq!(error("* * * * *", name), CronError::Zone { name: name.into() });
    }
    assert_eq!(
        error("0 25 * * *", "UTC").to_string(),
        "hour `25` is not understood: it is 0 to 23, with `*`, `,`, `-` and `/`"
    );
}

#[test]
fn what_was_missed_is_made_up_for_by_the_rule() {
    let hourly = schedule("0 * * * *", "UTC");
    let noon = at("2026-11-21T12:00:00Z");
    let hour = |hour: i64| Timestamp(noon.0 + hour * 3_600_000_000);
    let all = |max| MissedRule::All { max };
    let table: &[(Timestamp, MissedRule, &[Timestamp])] = &[
        (hour(3), MissedRule::Skip, &[]),
        (hour(3), MissedRule::Once, &[hour(3)]),
        (hour(3), all(9), &[hour(1), hour(2), hour(3)]),
        (hour(3), all(2), &[hour(2), hour(3)]),
        (hour(3), all(0), &[]),
        (Timestamp(hour(3).0 - 1), all(9), &[hour(1), hour(2)]),
        (noon, all(9), &[]),
        (hour(-1), MissedRule::Once, &[]),
    ];
    for (now, rule, expected) in table {
        assert_eq!(hourly.missed(noon, *now, *rule), *expected, "{now} {rule:?}");
    }
    // A year of seconds is no work.
    let many = schedule("* * * * * *", "UTC").missed(Timestamp(0), noon, all(u32::MAX));
    assert_eq!((many.len(), many.last()), (MAX_MISSED as usize, Some(&noon)));
    // Across a change of the clock: both of the two hours.
    let quarter = schedule("0 */2 * * *", "Europe/Berlin");
    assert_eq!(
        quarter.missed(at("2026-10-24T23:00:00Z"), at("2026-10-25T03:30:00Z"), all(9)),
        [at("2026-10-25T00:00:00Z"), at("2026-10-25T01:00:00Z"), at("2026-10-25T03:00:00Z")]
    );
}

/// The rule of the module's page, looked up minute by minute for a stretch of days: no search, no stretches.
fn by_hand(schedule: &Schedule, from: jiff::Timestamp, minutes: i64) -> Vec<Timestamp> {
    let zoned = |minute: i64| {
        from.checked_add(SignedDuration::from_mins(minute)).unwrap().to_zoned(schedule.zone.clone())
    };
    let matches = |at: jiff::civil::DateTime| schedule.cron.is_time_matching(&at).unwrap();
    let first_time = |at: &Zoned| schedule.zone.to_ambiguous_zoned(at.datetime()).earlier().unwrap() == *at;
    let mut found = Vec::new();
    for minute in 0..minutes {
        let (before, at) = (zoned(minute - 1), zoned(minute));
        let jumped = (at.datetime() - before.datetime()).total(jiff::Unit::Minute).unwrap() as i64;
        let gone = (1..jumped).any(|m| matches(before.datetime() + SignedDuration::from_mins(m)));
        let shown = matches(at.datetime()) && (!schedule.named || first_time(&at));
        if shown || (schedule.named && gone) {
            found.push(Timestamp(at.timestamp().as_microsecond()));
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn the_search_finds_what_the_rule_says(
        minute in prop::sample::select(vec!["*/20", "0", "30", "15,45", "*", "59"]),
        hour in prop::sample::select(vec!["*", "*/2", "*/3", "0", "1", "2", "3", "1-3", "2,14", "0-23"]),
        day in prop::sample::select(vec!["* * *", "*/2 * *", "* * SUN", "29 3 *", "1 11 SAT"]),
        // A change of half an hour, one at midnight, and one in the south beside the usual ones.
        (name, around) in prop::sample::select(vec![
            ("Europe/Berlin", "2026-03-29T01:00:00Z"),
            ("Europe/Berlin", "2027-10-31T01:00:00Z"),
            ("America/New_York", "2026-03-08T07:00:00Z"),
            ("America/New_York", "2027-11-07T06:00:00Z"),
            ("Australia/Lord_Howe", "2026-04-04T15:00:00Z"),
            ("Australia/Lord_Howe", "2026-10-03T15:30:00Z"),
            ("America/Havana", "2026-03-08T05:00:00Z"),
            ("UTC", "2026-06-01T00:00:00Z"),
        ]),
    ) {
        let schedule = schedule(&format!("{minute} {hour} {day}"), name);
        let from: jiff::Timestamp = around.parse().unwrap();
        let from = from - SignedDuration::from_hours(30);
        let minutes = 60 * 60;
        let (begin, end) = (Timestamp(from.as_microsecond() - 1), Timestamp(from.as_microsecond() + minutes * 60_000_000));
        let expected = by_hand(&schedule, from, minutes);
        let forward: Vec<Timestamp> = std::iter::successors(schedule.next_after(begin), |at| schedule.next_after(*at))
            .take_while(|at| *at < end)
            .collect();
        prop_assert_eq!(&forward, &expected);
        let mut back: Vec<Timestamp> = std::iter::successors(schedule.last_before(end), |at| schedule.last_before(*at))
            .take_while(|at| *at > begin)
            .collect();
        back.reverse();
        prop_assert_eq!(back, expected);
    }
}
