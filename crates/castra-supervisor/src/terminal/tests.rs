//! The promise `feed(serialise(t)) ≡ t`, over streams that a terminal really gets and over hostile ones.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use proptest::prelude::*;

use super::*;

fn terminal(rows: u16, cols: u16) -> Terminal {
    Terminal::new(Size::new(rows, cols), Scrollback::default())
}

fn fed(rows: u16, cols: u16, text: &str) -> Terminal {
    let mut terminal = terminal(rows, cols);
    terminal.feed(text.as_bytes());
    terminal
}

fn again(of: &Terminal) -> Terminal {
    let mut copy = Terminal::new(of.size(), Scrollback::default());
    copy.feed(&of.serialise());
    copy
}

/// All that can be told of a terminal.
fn facts(t: &Terminal) -> impl PartialEq + std::fmt::Debug + use<> {
    (
        (t.size, t.cursor(), t.is_alternate(), t.parser.state, t.pending.clone(), t.utf8.held().to_vec()),
        (t.screen_text(), t.screen_ansi(), t.modes.clone(), t.insert, t.joint().map(|(col, _)| col)),
        (
            t.history.lines().map(narrow).collect::<Vec<_>>(),
            t.history.open(&t.clusters).as_deref().map(narrow),
        ),
        String::from_utf8_lossy(&t.paint_rest(String::new())).into_owned(),
    )
}

/// A line's characters, each with its colours, without the blanks that may have been too little room for a
/// wide character.
fn narrow(line: &str) -> Vec<(char, String)> {
    let (mut out, mut pen) = (Vec::new(), String::new());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\x1b' {
            pen = chars.by_ref().take_while(|c| *c != 'm').collect();
            continue;
        }
        if cluster::width(c) == 2 {
            let text = out.iter().rposition(|(c, _)| *c != ' ').map_or(0, |at| at + 1);
            out.truncate(text);
        }
        out.push((c, pen.clone()));
    }
    out
}

#[track_caller]
fn holds(t: &Terminal) {
    assert_eq!(facts(&again(t)), facts(t));
}

#[test]
fn scrollback_screen_modes_and_title_come_back() {
    let mut t =
        fed(4, 10, "\x1b[31mone\x1b[m\r\ntwo wraps over\r\nthree\r\n\x1b[1mfour\x1b[m\r\nfive\r\nsix");
    t.feed(b"\x1b]0;\xe2\x9c\xb3 name\x07\x1b[?2004h\x1b[?1004h\x1b[?1000h\x1b[?1002h\x1b[?1006h\x1b[>1u\x1b[5 q\x1b[?25l");
    assert_eq!(t.history.lines().collect::<Vec<_>>(), ["\x1b[0;31mone\x1b[m", "two wraps over"]);
    assert_eq!(t.screen_text(), ["three", "four", "five", "six"]);
    assert_eq!(t.screen_ansi(), "three\n\x1b[0;1mfour\x1b[m\nfive\nsix\n");
    assert_eq!(t.title(), "✳ name");
    assert_eq!(t.modes().mouse(), Some((Mouse::Drags, Some(MouseEncoding::Sgr))));
    assert!(t.modes().bracketed_paste() && t.modes().focus_reports());
    assert_eq!((t.modes().kitty_keyboard(false), t.modes().cursor_style()), (1, 5));
    assert_eq!(t.cursor(), (3, 3, false));
    holds(&t);
}

#[test]
fn what_not_every_terminal_knows_is_spelled_out() {
    let t = fed(
        3,
        20,
        "────────\x1b[31m漢漢漢漢漢\x1b[m\r\neeeeeeeee\u{301}e\u{301}e\u{301}e\u{301}   \x1b[2;5H",
    );
    let painted = String::from_utf8(t.serialise()).unwrap();
    for text in ["────────", "漢漢漢漢漢", "eeeeeeee", "e\u{301}e\u{301}e\u{301}e\u{301}"]
    {
        assert!(painted.contains(text), "{text} in {painted:?}");
    }
    let repeats = painted
        .split("\x1b[")
        .skip(1)
        .any(|csi| csi.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with('b'));
    assert!(!repeats && !painted.contains('\u{9b}'), "{painted:?}");
    holds(&t);
}

#[test]
fn a_client_that_has_the_history_needs_the_screen_only() {
    let mut t = fed(2, 10, "one\r\ntwo\r\n\x1b[31mthree\x1b[m\x1b[?2004h\x1b[>1u\x1b]0;name\x07");
    for step in ["", "\x1b[?1049hother\x1b[>5u", "\x1b[2;2r\x1b[?25l"] {
        t.feed(step.as_bytes());
        let mut copy = terminal(2, 10);
        copy.feed(&t.serialise_screen());
        assert_eq!(copy.history.lines().len(), 0);
        let shown = |t: &Terminal| (t.screen_ansi(), t.cursor(), t.modes.clone(), t.is_alternate());
        assert_eq!(shown(&copy), shown(&t), "{step:?}");
    }
}

#[test]
fn a_window_of_another_size_shows_what_fits() {
    let t = fed(4, 8, "\x1b[1mabcdefgh\x1b[m\x1b[2;1Hxé界y\r\nlast\x1b[?2004h");
    // Rows, columns, and what a window that was full of something else shows then.
    type Case = (u16, u16, &'static [&'static str], (u16, u16));
    let table: [Case; 5] = [
        (4, 8, &["abcdefgh", "xé界y", "last", ""], (4, 2)),
        (6, 12, &["abcdefgh", "xé界y", "last", "", "", ""], (4, 2)),
        (4, 3, &["abc", "xé", "las", ""], (2, 2)),
        (2, 8, &["xé界y", "last"], (4, 1)),
        (1, 4, &["last"], (3, 0)),
    ];
    for (rows, cols, shown, (col, row)) in table {
        let mut window = fed(rows, cols, &"#".repeat(usize::from(rows * cols)));
        window.feed(t.crop(Size::new(rows, cols)).as_bytes());
        assert_eq!(window.screen_text(), shown, "{rows}x{cols}");
        assert_eq!(window.cursor(), (col, row, true), "{rows}x{cols}");
        assert!(window.history.lines().len() == 0 && !window.modes().bracketed_paste());
        window.feed(t.serialise_modes().as_bytes());
        assert!(window.modes().bracketed_paste());
    }
    assert!(t.crop(Size::new(4, 8)).contains("\x1b[0;1mabcdefgh\x1b[m"));
}

#[test]
fn both_screens_come_back() {
    let mut t = fed(3, 8, "shell\r\n$ vim\x1b[?1049h\x1b[Hfile\x1b[2;3Htext\x1b[>5u");
    holds(&t);
    let mut copy = again(&t);
    for t in [&mut t, &mut copy] {
        t.feed(b"\x1b[?1049l!");
        assert_eq!(t.screen_text(), ["shell", "$ vim!", ""]);
        assert_eq!(t.modes().kitty_keyboard(true), 0);
    }
    assert_eq!(facts(&copy), facts(&t));
}

#[test]
fn marks_take_no_cell() {
    for (text, want, cursor) in [
        ("e\u{301}x", "e\u{301}x", 2),
        ("\u{1f468}\u{200d}\u{1f469}x", "\u{1f468}\u{200d}\u{1f469}x", 5),
        ("\u{2764}\u{fe0f}x", "\u{2764}\u{fe0f}x", 2),
        ("界\u{301}\u{302}x", "界\u{301}\u{302}x", 3),
        ("1234567890\u{301}", "1234567890\u{301}", 10),
        // Nothing to belong to.
        ("\u{301}x", "x", 1),
        ("a\r\u{301}x", "x", 1),
        // A code point that stands for a combination of somebody else's.
        ("\u{100000}\u{34000}x", "\u{fffd}\u{fffd}x", 3),
    ] {
        let t = fed(2, 10, text);
        assert_eq!((t.screen_text()[0].as_str(), t.cursor().0), (want, cursor), "{text:?}");
        holds(&t);
    }
    // A mark that comes after the copy was made.
    let mut t = fed(2, 10, "abe");
    let mut copy = again(&t);
    t.feed("\u{301}".as_bytes());
    copy.feed("\u{301}".as_bytes());
    assert_eq!((facts(&copy), copy.screen_text()[0].as_str()), (facts(&t), "abe\u{301}"));
}

#[test]
fn a_line_that_is_half_out_comes_back_as_one() {
    for text in [
        "abcdefghijklm\r\nx",
        "abc界defghi界\r\nx",
        "\x1b[41mabcdefgh",
        "abcd    efgh\r\nx",
        "abcd\x1b[44m    ef\r\nx",
    ] {
        let t = fed(2, 4, text);
        holds(&t);
        let wide = String::from_utf8(t.serialise()).unwrap();
        assert!(!wide.contains("abcd\r\n"), "{text:?} is one line: {wide:?}");
    }
}

#[test]
fn what_is_not_finished_goes_on() {
    let whole = "x\x1b[31mred\x1b]0;tit\u{e9}le\x07\x1bP$qm\x1b\\\x1b(0q\x1b(B界\x1b]52;c;SGVsbG8=\x07\x1b_Gkitty\x1b\\end";
    let want = fed(3, 20, whole);
    for cut in 0..whole.len() {
        let mut t = terminal(3, 20);
        t.feed(&whole.as_bytes()[..cut]);
        holds(&t);
        let serialised = t.serialise();
        assert!(!String::from_utf8_lossy(&serialised).contains("SGV"), "no clipboard is told");
        let mut copy = again(&t);
        copy.feed(&whole.as_bytes()[cut..]);
        assert_eq!(facts(&copy), facts(&want), "cut at {cut}");
    }
}

#[test]
fn hostile_lengths_are_bounded() {
    let mut t = terminal(24, 80);
    for introducer in ["\x1b]0;", "\x1bP", "\x1b]52;c;", "\x1b_", "\x1b[", "\x1b]8;;"] {
        t.feed(introducer.as_bytes());
        for _ in 0..200 {
            t.feed(&[b'1'; 50_000]);
        }
        assert!(t.pending.len() <= MAX_PENDING);
        holds(&t);
        t.feed(b"\x18");
    }
    assert!(t.title().len() <= 1024);
    t.feed(b"\x1b[8;9999;9999t\x1b[99999999999b");
    assert_eq!(t.size(), Size { rows: 24, cols: 80 });
    for n in 0..100_000 {
        t.feed(format!("\x1b[38;5;{}mline {n} {}\r\n", n % 256, "x".repeat(n % 50)).as_bytes());
    }
    let (lines, bytes) = (t.history.lines().len(), t.history.lines().map(str::len).sum::<usize>());
    assert!(lines <= 10_000 && bytes <= 1 << 20, "{lines} lines, {bytes} bytes");
    t.feed(&vec![b'y'; 5 << 20]);
    assert!(t.history.lines().map(str::len).sum::<usize>() <= 1 << 20);
    assert!(t.serialise().len() < 3 << 20);
    t.resize(Size { rows: 60_000, cols: 0 });
    assert_eq!(t.size(), Size { rows: 500, cols: 2 });
}

#[test]
fn an_erased_screen_is_not_history_and_cleared_history_is_gone() {
    let mut t = fed(2, 10, "a\r\nb\r\nc\x1b[2J");
    assert_eq!(t.history.lines().collect::<Vec<_>>(), ["a"]);
    assert_eq!(t.screen_text(), ["", ""]);
    t.feed(b"\x1b[3J");
    assert_eq!(t.history.lines().len(), 0);
    holds(&t);
}

#[test]
fn notices_are_told_once() {
    let mut t = fed(2, 10, "\x1b]9;needs you\x07\x1b]9;4;1;50\x07\x1b]777;notify;title;body\x1b\\");
    assert_eq!(t.take_notices(), ["needs you", "title: body"]);
    assert_eq!(t.take_notices(), Vec::<String>::new());
}

#[test]
fn a_checkpoint_is_the_terminal_or_an_error() {
    let t = fed(3, 10, "one\r\ntwo\r\nthree\r\nfour\x1b]0;t\x07\x1b[?1049halt");
    let bytes = t.checkpoint(4711);
    let (copy, next) = Terminal::restore(&bytes, Scrollback::default()).unwrap();
    assert_eq!((facts(&copy), next), (facts(&t), 4711));
    for cut in 0..bytes.len() {
        assert_eq!(
            Terminal::restore(&bytes[..cut], Scrollback::default()).err(),
            Some(CheckpointError::Short)
        );
    }
    let mut other = bytes.clone();
    other[4] = 2;
    let newer = CheckpointError::Version { version: 2 };
    assert_eq!(Terminal::restore(&other, Scrollback::default()).err(), Some(newer));
    other[0] = b'X';
    assert_eq!(Terminal::restore(&other, Scrollback::default()).err(), Some(CheckpointError::Magic));
}

#[derive(Debug, Clone)]
enum Act {
    Feed(Vec<u8>),
    Resize(u16, u16),
}

fn sequences() -> impl Strategy<Value = String> {
    let number = prop_oneof![4 => 0u16..12, 1 => 12u16..300, 1 => Just(999u16)];
    let params = prop::collection::vec(number, 0..4)
        .prop_map(|n| n.iter().map(u16::to_string).collect::<Vec<_>>().join(";"));
    let private = prop::sample::select(vec![
        1u16, 6, 7, 25, 1047, 1048, 1049, 9, 1000, 1002, 1003, 1004, 1006, 1015, 2004, 2026, 2031, 5, 12,
    ]);
    prop_oneof![
        4 => (params.clone(), prop::sample::select("@ABCDEFGHIJKLMPSTXZ`abdefghlmrsu".chars().collect::<Vec<_>>()))
            .prop_map(|(p, f)| format!("\x1b[{p}{f}")),
        3 => (private, any::<bool>()).prop_map(|(n, on)| format!("\x1b[?{n}{}", if on { 'h' } else { 'l' })),
        3 => prop::sample::select(vec![0u8, 1, 2, 3, 4, 7, 9, 22, 31, 44, 97, 107, 39, 49])
            .prop_map(|n| format!("\x1b[{n}m")),
        1 => any::<[u8; 3]>().prop_map(|[r, g, b]| format!("\x1b[38;2;{r};{g};{b};48;5;{g}m")),
        1 => (1u8..8, 1u8..8).prop_map(|(a, b)| format!("\x1b[{a};{b}r")),
        2 => prop::sample::select(vec![
            "\x1b7", "\x1b8", "\x1bc", "\x1bD", "\x1bE", "\x1bM", "\x1bH", "\x1b(0", "\x1b(B", "\x1b)0", "\x0e",
            "\x0f", "\x1b=", "\x1b>", "\x1b#8", "\x1b[!p", "\x1b[4h", "\x1b[4l", "\x1b[20h", "\x1b[3J", "\x1b[2J",
            "\x1b[>1u", "\x1b[>3u", "\x1b[<u", "\x1b[=5;2u", "\x1b[<9u", "\x1b[2 q", "\x1b[>4;2m", "\x1b[22;0t",
            "\x1b[23;0t", "\x1b[c", "\x1b[6n", "\x1b[5W", "\x1b[W", "\x1b[3g",
        ]).prop_map(str::to_owned),
        1 => "[a-zé界;]{0,12}".prop_map(|t| format!("\x1b]2;{t}\x07")),
        1 => "[a-z;?=]{0,20}".prop_map(|t| format!("\x1b]52;c;{t}\x1b\\")),
        1 => "[a-z\\$;?]{0,20}".prop_map(|t| format!("\x1bP{t}\x1b\\")),
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-z ]{1,30}",
        3 => Just("\r\n".to_owned()),
        1 => prop::sample::select(vec!["\t", "\x08", "\r", "\n", "\x0b"]).prop_map(str::to_owned),
        2 => prop::sample::select(vec![
            "界", "日本語", "e\u{301}", "\u{301}", "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}", "\u{2764}\u{fe0f}",
            "🇩🇪", "é", "─│┌", "\u{200b}", "한", "\u{100001}", "\u{34001}", "\u{ad}",
        ]).prop_map(str::to_owned),
    ]
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        8 => text().prop_map(|t| Act::Feed(t.into_bytes())),
        8 => sequences().prop_map(|t| Act::Feed(t.into_bytes())),
        2 => prop::collection::vec(any::<u8>(), 1..8).prop_map(Act::Feed),
        // A sequence cut anywhere.
        1 => (sequences(), any::<prop::sample::Index>())
            .prop_map(|(t, at)| Act::Feed(t.as_bytes()[..at.index(t.len())].to_vec())),
        1 => (1u16..7, 2u16..14).prop_map(|(rows, cols)| Act::Resize(rows, cols)),
    ];
    prop::collection::vec(act, 0..50)
}

fn apply(t: &mut Terminal, acts: &[Act]) {
    for act in acts {
        match act {
            Act::Feed(bytes) => t.feed(bytes),
            Act::Resize(rows, cols) => t.resize(Size { rows: *rows, cols: *cols }),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn a_copy_is_equal_and_stays_so(
        rows in 1u16..7, cols in 2u16..14, before in acts(), after in acts(),
    ) {
        let mut t = terminal(rows, cols);
        apply(&mut t, &before);
        let mut copy = again(&t);
        prop_assert_eq!(facts(&copy), facts(&t));
        // Without another size: what is above the screen is laid out by it.
        let after: Vec<Act> = after.into_iter().filter(|a| matches!(a, Act::Feed(_))).collect();
        apply(&mut t, &after);
        apply(&mut copy, &after);
        prop_assert_eq!(facts(&copy), facts(&t));
    }

    #[test]
    fn portions_do_not_matter(acts in acts(), size in 1usize..7) {
        let (mut whole, mut cut) = (terminal(5, 11), terminal(5, 11));
        for act in &acts {
            if let Act::Feed(bytes) = act {
                whole.feed(bytes);
                bytes.chunks(size).for_each(|part| cut.feed(part));
            }
        }
        prop_assert_eq!(facts(&cut), facts(&whole));
    }

    #[test]
    fn a_serialised_terminal_asks_nothing(acts in acts()) {
        let mut t = terminal(5, 11);
        apply(&mut t, &acts);
        let all = t.serialise();
        // What is not finished may become a question with what follows, and is washed then.
        let finished = &all[..all.len() - t.pending.len() - t.utf8.held().len()];
        let mut washed = Vec::new();
        Wash::new(false).feed(finished, &mut washed);
        prop_assert_eq!(String::from_utf8_lossy(&washed), String::from_utf8_lossy(finished));
    }
}
