//! The rule of what ends a task, as a table of files; and that neither reads nor crashes change what a file says.

use super::*;
use proptest::prelude::*;

const ALL: Enabled = Enabled { browser: true, client_messages: true, caller_messages: true };
const SECOND: i64 = 1_000_000;

fn at(us: i64) -> Timestamp {
    Timestamp(1_000 * SECOND + us)
}

/// What was said, in short: `S` a status, `P` text, `X` a stray end line, `D` and `E` ends, `+` anything else.
fn short(entries: &[Entry]) -> String {
    let letter = |entry: &Entry| match &entry.said {
        Said::Status { .. } => 'S',
        Said::Progress { .. } => 'P',
        Said::Stray { .. } => 'X',
        Said::Done { .. } => 'D',
        Said::Error { .. } => 'E',
        _ => '+',
    };
    entries.iter().map(letter).collect()
}

/// Pieces of the log, each with the microsecond at which it came, then nothing more.
fn read(pieces: &[(i64, &str)]) -> Vec<Entry> {
    let mut reader = Reader::new(ALL);
    let mut said: Vec<Entry> =
        pieces.iter().flat_map(|(us, piece)| reader.push(at(*us), piece.as_bytes())).collect();
    said.extend(reader.finish());
    assert_eq!(reader.ended(), said.iter().any(|entry| entry.said.ends()));
    said
}

#[test]
fn an_end_line_counts_where_it_stands_alone() {
    let table: &[(&str, &str)] = &[
        // As agents write it: a command, a line.
        ("DONE\n", "D"),
        ("ERROR\n", "E"),
        ("DONE: all\n", "D"),
        ("STATUS: 90% x\nDONE\n", "SD"),
        ("STATUS: x\nDELIVERABLE: y\nDONE: z\n", "S+D"),
        ("STATUS: x\nERROR: y\n", "SE"),
        ("\n\nDONE\n\n", "D"),
        ("text\n\nDONE\n", "PD"),
        ("text\n \t\r\nDONE\n", "PD"),
        ("DONE\n\ntext\n", "D"),
        ("DONE\nSTATUS: 100% x\n", "D"),
        // A text of several lines, wherever in it the word stands.
        ("STATUS: steps\nfirst\nDONE\n", "SPX"),
        ("STATUS: steps\nDONE\nsecond\n", "SXP"),
        ("STATUS: steps\nfirst\nDONE\nsecond\n", "SPXP"),
        ("STATUS: steps\nDONE: first\nTODO: second\n", "SXP"),
        ("STATUS: log\nbuilding\nERROR: no such file\nretrying\n", "SPXP"),
        ("DONE\ntext\n", "XP"),
        ("text\nDONE\nDONE\n", "PXX"),
        ("DONE\ntext\n\nDONE\n", "XPD"),
        ("STATUS: steps\nDONE\nsecond\nSTATUS: x\nDONE\n", "SXPSD"),
        // Indented lines belong to the line before them.
        ("STATUS: steps\n  first\n  DONE\n  second\n", "SPPP"),
        ("STATUS: steps\n  first\nDONE\n", "SPD"),
        ("DONE: all\n  of it\n", "D"),
        ("text\n  more\nDONE\n", "PPX"),
        // The first one ends it.
        ("DONE: a\nERROR: b\n", "D"),
        ("ERROR: a\nDONE: b\n", "E"),
        ("DONE\n\nSTATUS: x\nDELIVERABLE: y\nERROR\n", "D"),
        // No newline, no line.
        ("DONE", ""),
        ("STATUS: x\nDONE", "S"),
        ("DONE\nte", "D"),
        ("DONE extra\n- DONE\nDONE!\n", "PPP"),
        ("DONE\r\n", "D"),
    ];
    for (file, expected) in table {
        assert_eq!(short(&read(&[(0, file)])), *expected, "{file:?}");
    }
}

#[test]
fn a_pause_parts_lines_as_an_empty_one_does() {
    let table: &[(&[(i64, &str)], &str)] = &[
        (&[(0, "text\n"), (PAUSE_US, "DONE\n")], "PD"),
        (&[(0, "text\n"), (PAUSE_US - 1, "DONE\n")], "PX"),
        (&[(0, "DONE\n"), (PAUSE_US, "text\n")], "D"),
        (&[(0, "DONE\n"), (PAUSE_US - 1, "text\n")], "XP"),
        // One append in two reads.
        (&[(0, "STATUS: a\nDO"), (100, "NE\nb\n")], "SXP"),
        (&[(0, "STATUS: a\nDONE\n"), (500_000, "b\n")], "SXP"),
        (&[(0, "STATUS: a\nb\n"), (500_000, "DONE\n")], "SPX"),
        // The machine was started anew, and its clock with it.
        (&[(0, "text\n"), (-SECOND, "DONE\n")], "PD"),
        (&[(0, "DONE\n"), (-SECOND, "text\n")], "D"),
    ];
    for (pieces, expected) in table {
        assert_eq!(short(&read(pieces)), *expected, "{pieces:?}");
    }
}

#[test]
fn an_end_line_waits_for_what_follows_and_not_longer() {
    let done = Entry { offset: 10, said: Said::Done { summary: None }, cut: false };
    let mut reader = Reader::new(ALL);
    assert_eq!(reader.due(), None);
    assert_eq!(short(&reader.push(at(0), b"STATUS: x\nDONE\n")), "S");
    assert_eq!((reader.due(), reader.ended()), (Some(at(PAUSE_US)), false));
    assert_eq!(reader.settle(at(PAUSE_US - 1)), None);
    assert_eq!(reader.settle(at(PAUSE_US)), Some(done));
    assert_eq!((reader.due(), reader.ended()), (None, true));
    assert_eq!(reader.settle(at(9 * SECOND)), None);
    assert_eq!(reader.push(at(9 * SECOND), b"ERROR\n\nSTATUS: x\n"), []);
    assert_eq!(reader.finish(), None);
}

#[test]
fn a_stray_one_is_shown_as_it_was_written() {
    let said: Vec<Said> =
        read(&[(0, "a\nDONE\nDONE: b\nERROR\nERROR: c\n")]).into_iter().map(|entry| entry.said).collect();
    let stray = |text: &str| Said::Stray { text: text.into() };
    let expected = [
        Said::Progress { text: "a".into() },
        stray("DONE"),
        stray("DONE: b"),
        stray("ERROR"),
        stray("ERROR: c"),
    ];
    assert_eq!(said, expected);
}

#[test]
fn lines_are_named_by_their_first_byte() {
    let offsets = |entries: Vec<Entry>| entries.iter().map(|entry| entry.offset).collect::<Vec<_>>();
    assert_eq!(offsets(read(&[(0, "a\n\nbc\r\nST"), (1, "ATUS: x\n")])), [0, 3, 7]);
    let long = format!("{}\nb\n", "x".repeat(3 * MAX_LINE));
    assert_eq!(offsets(read(&[(0, &long)])), [0, 3 * MAX_LINE as u64 + 1]);
}

#[test]
fn a_line_that_is_too_long_is_cut_and_said_to_be() {
    let text = |len: usize| Said::Progress { text: "x".repeat(len) };
    let line = |len: usize| format!("{}\n", "x".repeat(len));
    for (len, cut) in [(MAX_LINE - 1, false), (MAX_LINE, false), (MAX_LINE + 1, true), (9 * MAX_LINE, true)] {
        let expected = Entry { offset: 0, said: text(len.min(MAX_LINE)), cut };
        assert_eq!(read(&[(0, &line(len))]), [expected], "{len}");
    }
    // Half a path or half a JSON text is nothing to act upon.
    for word in ["DELIVERABLE: ", "BROWSER: ", "CALLER_MESSAGE: n "] {
        let long = format!("{word}{}", line(MAX_LINE));
        assert_eq!(read(&[(0, &long)])[0].said, Said::Progress { text: long[..MAX_LINE].into() }, "{word}");
    }
    let said = read(&[(0, &format!("STATUS: 5% {}", line(MAX_LINE)))]);
    assert_eq!((short(&said).as_str(), said[0].cut), ("S", true));
}

#[test]
fn bytes_that_are_no_text_are_lines_all_the_same() {
    let mut reader = Reader::new(ALL);
    let said = reader.push(at(0), b"\xff\xfe\0\nSTATUS: \xc3\nDELIVERABLE: a\0b\n");
    let said: Vec<Said> = said.into_iter().map(|entry| entry.said).collect();
    let expected = [
        Said::Progress { text: "\u{fffd}\u{fffd}\u{fffd}".into() },
        Said::Status { percent: None, message: "\u{fffd}".into() },
        Said::Deliverable { path: "a\u{fffd}b".into() },
    ];
    assert_eq!(said, expected);
    // A character in two reads is one.
    assert_eq!(read(&[(0, "STATUS: ä\n")]), {
        let mut reader = Reader::new(ALL);
        let mut said = reader.push(at(0), b"STATUS: \xc3");
        said.extend(reader.push(at(1), b"\xa4\n"));
        said
    });
}

#[test]
fn another_file_begins_anew_and_the_end_stays_said() {
    let mut reader = Reader::new(ALL);
    reader.push(at(0), b"text\nhalf a li");
    assert_eq!(reader.restart(), None);
    let said = reader.push(at(1), b"DONE\n");
    assert_eq!((short(&said).as_str(), reader.due()), ("", Some(at(1 + PAUSE_US))));
    let done = Entry { offset: 0, said: Said::Done { summary: None }, cut: false };
    assert_eq!(reader.restart(), Some(done));
    assert_eq!(reader.push(at(2), b"text\n\nERROR\n\n"), []);
    assert!(reader.ended());
}

/// Lines that matter to the rule, and pauses between some.
fn pieces() -> impl Strategy<Value = Vec<(bool, String)>> {
    let line = prop_oneof![
        Just("DONE"),
        Just("ERROR: x"),
        Just("STATUS: 5% ü"),
        Just("text"),
        Just("  more"),
        Just(""),
        Just("DONE extra"),
    ];
    let piece = (prop::collection::vec(line, 1..6), any::<bool>(), prop::bool::weighted(0.3));
    let piece = piece.prop_map(|(lines, newline, pause)| {
        (pause, format!("{}{}", lines.join("\n"), if newline { "\n" } else { "" }))
    });
    prop::collection::vec(piece, 0..6)
}

proptest! {
    /// However reads cut the file, and wherever the daemon dies and comes back with what it stored.
    #[test]
    fn what_a_file_says_depends_on_nothing_else(
        pieces in pieces(), sizes in prop::collection::vec(1usize..9, 1..20), looks in any::<bool>(),
    ) {
        let (mut whole, mut torn) = (Reader::new(ALL), Reader::new(ALL));
        let (mut expected, mut got) = (Vec::new(), Vec::new());
        let (mut now, mut sizes) = (at(0), sizes.iter().cycle());
        for (pause, piece) in pieces.iter().filter(|(_, piece)| !piece.is_empty()) {
            now.0 += if *pause { PAUSE_US } else { 1 };
            expected.extend(whole.push(now, piece.as_bytes()));
            if looks {
                // A daemon that was there in time.
                got.extend(torn.settle(now));
            }
            let mut rest = piece.as_bytes();
            while !rest.is_empty() {
                let (head, tail) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
                got.extend(torn.push(now, head));
                torn = serde_json::from_str(&serde_json::to_string(&torn).unwrap()).unwrap();
                rest = tail;
            }
        }
        prop_assert_eq!(&torn, &whole);
        expected.extend(whole.finish());
        got.extend(torn.finish());
        prop_assert_eq!(got, expected);
    }

    #[test]
    fn no_bytes_are_too_odd(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut reader = Reader::new(ALL);
        let said = reader.push(at(0), &bytes);
        prop_assert!(said.windows(2).all(|pair| pair[0].offset < pair[1].offset));
    }
}
