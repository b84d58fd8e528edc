//! What comes next while a message is typed: one step at a time, chosen from what the screen shows. Pure; nothing is
//! pressed here.

use super::super::{QUIET, UNHEARD};
use super::{text_of, typed};
use castra_claude::terminal::screen::{Composer, Screen};
use castra_claude::terminal::typing::{Typed, stands};
use castra_proto::MessageId;
use castra_proto::api::SendMessage;
use std::time::Duration;
use tokio::time::Instant;

const ENTERS: u32 = 5;
/// After which a key that ends claude when it is pressed twice may be pressed again.
const DISARMED: Duration = Duration::from_secs(3);
/// Silence for each 100 kB of a text on top of [`QUIET`]: an end that is repeated in it is on the screen early.
const QUIET_PER_100_KB: Duration = Duration::from_secs(1);
/// After which a text that does not come to stand in the composer is pasted anew, and how often.
const UNSEEN: Duration = Duration::from_secs(20);
const PASTES: u32 = 3;
/// After which a message that was entered, of which no transcript tells and which stands nowhere, is given up.
const LOST: Duration = Duration::from_secs(10);

/// A message on its way into the composer.
pub(in super::super) struct Typing {
    pub(in super::super) message: MessageId,
    pub(super) typed: Typed,
    /// As claude's transcript will have it.
    pub(super) text: String,
    pub(super) is_command: bool,
    pub(super) step: Step,
    pub(super) since: Instant,
    pub(super) pastes: u32,
    /// How often Enter was found to have been lost, or not to have been.
    pub(super) enters: u32,
    /// The last key was [`Move::ClearAll`].
    pub(super) cleared: bool,
    /// What stood in the composer when a key was to take it away, and how many have not.
    left: (String, u32),
    /// Where the cursor stood before the blank.
    pub(super) cursor: Option<(u16, u16)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// What an earlier daemon typed may still be on its way: a blank was typed, and when the cursor moves all before it
    /// was taken.
    Sounding,
    /// The composer is being cleared.
    Clearing,
    Pasted,
    Entered,
    /// A blank was typed, to see whether the composer takes anything.
    Probed,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    /// Takes away what is before the cursor.
    Clear,
    /// Moves the cursor behind the text.
    End,
    /// Takes all lines away.
    ClearAll,
    /// Leaves the mode in which a line is a shell command.
    LeaveShell,
    Paste,
    /// It does not come to stand there: to be cleared, and pasted anew.
    Again,
    /// It was pasted often enough.
    GiveUp,
    Enter,
    /// A blank, to see whether Enter was lost.
    Probe,
    EnterAgain,
    /// Enter was not lost.
    Wait,
    /// Entered, seen back by nobody, and not in the composer.
    Lost,
}

/// What the choice depends on besides what was done.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) screen: Screen,
    pub(super) cursor: Option<(u16, u16)>,
    /// Since the terminal last showed something.
    pub(super) silent: Duration,
    /// Since the last step.
    pub(super) since: Duration,
    /// No turn runs and no slash command waits for its end.
    pub(super) at_rest: bool,
}

impl Seen {
    /// Nothing was shown for so long, nor done.
    fn is_still(&self, time: Duration) -> bool {
        self.silent.min(self.since) >= time
    }
}

impl Typing {
    pub(super) fn new(message: MessageId, body: &str, step: Step) -> Option<Self> {
        let body: SendMessage = serde_json::from_str(body).ok()?;
        Some(Self {
            message,
            typed: typed(&body).ok()?,
            text: text_of(&body),
            is_command: body.command.is_some(),
            step,
            since: Instant::now(),
            pastes: 0,
            enters: 0,
            cleared: false,
            left: (String::new(), 0),
            cursor: None,
        })
    }

    pub(super) fn is_entered(&self) -> bool {
        matches!(self.step, Step::Entered | Step::Probed)
    }

    /// None: nothing yet.
    pub(super) fn next(&self, seen: &Seen) -> Option<Move> {
        match self.step {
            Step::Sounding => self.sounded(seen),
            Step::Clearing => self.cleared(seen),
            Step::Pasted => self.pasted(seen),
            Step::Entered => self.entered(seen),
            Step::Probed => Self::probed(seen),
        }
    }

    /// What was chosen is done.
    pub(super) fn done(&mut self, chosen: Move, seen: &Seen) {
        let step = match chosen {
            Move::Clear | Move::End | Move::ClearAll | Move::LeaveShell | Move::Again => Step::Clearing,
            Move::Paste => Step::Pasted,
            Move::Enter | Move::EnterAgain | Move::Wait => Step::Entered,
            Move::Probe => Step::Probed,
            Move::GiveUp | Move::Lost => return,
        };
        self.enters += u32::from(self.step == Step::Probed);
        self.pastes += u32::from(step == Step::Pasted);
        self.cleared = chosen == Move::ClearAll;
        if let Some(composer) = prompt(&seen.screen).filter(|_| matches!(chosen, Move::Clear | Move::End)) {
            let tries = self.tries(composer) + 1;
            self.left = (composer.text.clone(), tries);
        }
        self.step = step;
        self.since = Instant::now();
    }

    fn sounded(&self, seen: &Seen) -> Option<Move> {
        let taken = seen.cursor != self.cursor || seen.since >= UNSEEN;
        (seen.is_still(QUIET) && taken && prompt(&seen.screen).is_some()).then_some(Move::Clear)
    }

    fn cleared(&self, seen: &Seen) -> Option<Move> {
        let composer = prompt(&seen.screen).filter(|_| seen.is_still(QUIET))?;
        if composer.shell {
            return Some(Move::LeaveShell);
        }
        if composer.text.is_empty() {
            return Some(Move::Paste);
        }
        let several = composer.text.contains('\n') || composer.text.starts_with("[Pasted text #");
        match self.tries(composer) {
            _ if several && self.cleared && seen.since < DISARMED => None,
            _ if several => Some(Move::ClearAll),
            // Somebody left the cursor before it.
            1 => Some(Move::End),
            // What no key takes away is no text, but a hint of claude's that gives way to one.
            3.. => Some(Move::Paste),
            _ => Some(Move::Clear),
        }
    }

    /// How many keys have not taken away what stands there.
    fn tries(&self, composer: &Composer) -> u32 {
        if self.left.0 == composer.text { self.left.1 } else { 0 }
    }

    fn pasted(&self, seen: &Seen) -> Option<Move> {
        if self.stands(seen) {
            return Some(Move::Enter);
        }
        // A dialog took the paste, or somebody at the keyboard changed it.
        let vain = seen.is_still(UNSEEN) && prompt(&seen.screen).is_some();
        vain.then_some(if self.pastes >= PASTES { Move::GiveUp } else { Move::Again })
    }

    /// The composer has taken all of it. Nothing is entered into a dialog that has come meanwhile, into what nobody
    /// knows, or while a turn runs, in which a dialog may come at any time; and silence alone is no proof, since claude
    /// reads on while it draws nothing.
    fn stands(&self, seen: &Seen) -> bool {
        let Some(composer) = prompt(&seen.screen) else { return false };
        let long = QUIET_PER_100_KB.mul_f64(self.text.len() as f64 / 100_000.0);
        // It has shown something since it was pasted.
        let heard = seen.silent < seen.since;
        heard
            && seen.silent >= QUIET + long
            && !composer.text.is_empty()
            && match self.is_command {
                true => composer.text.starts_with(self.text.trim()),
                false => stands(&composer.text, &self.text) != Some(false),
            }
    }

    fn entered(&self, seen: &Seen) -> Option<Move> {
        if seen.since < UNHEARD || self.enters >= ENTERS {
            return None;
        }
        let composer = prompt(&seen.screen)?;
        // It still stands there: was Enter lost, or is claude slow? A blank tells.
        if !composer.text.is_empty() {
            return Some(Move::Probe);
        }
        // A slash command need not leave a trace: its end is found by the screen.
        (seen.since >= LOST && seen.at_rest).then_some(Move::Lost)
    }

    fn probed(seen: &Seen) -> Option<Move> {
        let stands = prompt(&seen.screen).is_some_and(|composer| !composer.text.is_empty());
        seen.is_still(QUIET).then_some(if stands { Move::EnterAgain } else { Move::Wait })
    }
}

fn prompt(screen: &Screen) -> Option<&Composer> {
    match screen {
        Screen::Prompt(composer) => Some(composer),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use castra_claude::terminal::screen::FirstRun;
    use uuid::Uuid;

    fn typing(step: Step) -> Typing {
        let body = r#"{"text": "hello there"}"#;
        let cursor = Some((2, 40));
        Typing { pastes: 1, cursor, ..Typing::new(MessageId(Uuid::nil()), body, step).expect("typable") }
    }

    fn holding(text: &str) -> Composer {
        Composer { text: text.into(), shell: false }
    }

    fn idle(text: &str) -> Screen {
        Screen::Prompt(holding(text))
    }

    fn busy(text: &str) -> Screen {
        Screen::Busy(holding(text))
    }

    /// Quiet since half a second, and `since` seconds behind the last step.
    fn seen(screen: Screen, since: f64) -> Seen {
        let silent = Duration::from_millis(500);
        Seen { screen, cursor: Some((2, 40)), silent, since: Duration::from_secs_f64(since), at_rest: true }
    }

    #[test]
    fn what_comes_next() {
        use Step::{Clearing, Entered, Pasted, Probed, Sounding};
        let moved = |seen: Seen| Seen { cursor: Some((3, 40)), ..seen };
        let loud = |seen: Seen| Seen { silent: Duration::from_millis(100), ..seen };
        let silent = |seen: Seen| Seen { silent: seen.since + Duration::from_secs(1), ..seen };
        let restless = |seen: Seen| Seen { at_rest: false, ..seen };
        let shell = || Screen::Prompt(Composer { text: String::new(), shell: true });
        let text = "hello there";
        let table = [
            // A blank that is seen to have been taken, or that nobody waits for any longer.
            (Sounding, moved(seen(idle(" "), 1.0)), Some(Move::Clear)),
            (Sounding, seen(idle(""), 1.0), None),
            (Sounding, seen(idle(""), 21.0), Some(Move::Clear)),
            (Sounding, loud(moved(seen(idle(" "), 1.0))), None),
            (Sounding, moved(seen(Screen::Unknown, 1.0)), None),
            (Clearing, seen(idle(""), 1.0), Some(Move::Paste)),
            (Clearing, seen(busy(""), 1.0), None),
            (Clearing, loud(seen(idle(""), 1.0)), None),
            (Clearing, seen(shell(), 1.0), Some(Move::LeaveShell)),
            (Clearing, seen(idle("a draft"), 1.0), Some(Move::Clear)),
            (Clearing, seen(idle("a\ndraft"), 1.0), Some(Move::ClearAll)),
            (Clearing, seen(idle("[Pasted text #1 +9 lines]"), 1.0), Some(Move::ClearAll)),
            (Clearing, seen(busy("a draft"), 1.0), None),
            (Clearing, seen(Screen::FirstRun(FirstRun::Trust), 1.0), None),
            (Pasted, seen(idle(text), 1.0), Some(Move::Enter)),
            (Pasted, seen(busy(text), 1.0), None),
            (Pasted, loud(seen(idle(text), 1.0)), None),
            (Pasted, silent(seen(idle(text), 1.0)), None),
            (Pasted, seen(idle("hello"), 1.0), None),
            (Pasted, silent(seen(idle("hello"), 21.0)), Some(Move::Again)),
            (Pasted, silent(seen(busy("hello"), 21.0)), None),
            (Pasted, seen(Screen::Unknown, 1.0), None),
            (Entered, seen(idle(text), 1.0), None),
            (Entered, seen(idle(text), 2.0), Some(Move::Probe)),
            (Entered, seen(busy(text), 2.0), None),
            (Entered, seen(idle(""), 2.0), None),
            (Entered, seen(idle(""), 10.0), Some(Move::Lost)),
            (Entered, restless(seen(idle(""), 10.0)), None),
            (Probed, seen(idle(text), 1.0), Some(Move::EnterAgain)),
            (Probed, loud(seen(idle(text), 1.0)), None),
            (Probed, seen(idle(""), 1.0), Some(Move::Wait)),
            (Probed, seen(busy(text), 1.0), Some(Move::Wait)),
            (Probed, seen(Screen::Unknown, 1.0), Some(Move::Wait)),
        ];
        for (step, seen, chosen) in table {
            assert_eq!(typing(step).next(&seen), chosen, "{step:?} {seen:?}");
        }
    }

    #[test]
    fn what_is_done_too_often_is_given_up() {
        let vain = Seen { silent: Duration::from_secs(30), ..seen(idle("hello"), 30.0) };
        let mut pasted = typing(Step::Pasted);
        for expected in [Move::Again, Move::Again, Move::GiveUp] {
            assert_eq!(pasted.next(&vain), Some(expected));
            pasted.done(expected, &vain);
            pasted.done(Move::Paste, &vain);
        }

        // The key that takes all lines ends claude when it is pressed twice.
        let mut clearing = typing(Step::Clearing);
        let draft = |since| seen(idle("a\ndraft"), since);
        assert_eq!(clearing.next(&draft(1.0)), Some(Move::ClearAll));
        clearing.done(Move::ClearAll, &draft(1.0));
        assert_eq!(clearing.next(&draft(1.0)), None);
        assert_eq!(clearing.next(&draft(3.0)), Some(Move::ClearAll));

        let stands = seen(idle("hello there"), 3.0);
        let mut entered = typing(Step::Entered);
        let mut probes = 0;
        while let Some(next) = entered.next(&stands) {
            probes += u32::from(next == Move::Probe);
            entered.done(next, &stands);
        }
        assert_eq!((probes, entered.step), (ENTERS, Step::Entered));
    }

    #[test]
    fn what_no_key_takes_away_is_a_hint() {
        let stands = |text: &str| seen(idle(text), 1.0);
        let moves = |shown: &[&str]| -> Vec<Move> {
            let mut typing = typing(Step::Clearing);
            let mut one = |text: &&str| {
                let chosen = typing.next(&stands(text)).expect("a move");
                typing.done(chosen, &stands(text));
                chosen
            };
            shown.iter().map(&mut one).collect()
        };
        use Move::{Clear, End, Paste};
        assert_eq!(moves(&["Resend it"; 4]), [Clear, End, Clear, Paste]);
        // The cursor was in the middle, then before it, then behind it.
        assert_eq!(moves(&["a draft", "raft", "raft", "raft", ""]), [Clear, Clear, End, Clear, Paste]);
    }
}
