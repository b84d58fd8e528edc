//! Ctrl-Z is taken out of what is typed: claude hands its terminal back to a shell and waits to be continued, and there
//! is no shell (measured on 2.1.197 and 2.1.329: `Claude Code has been suspended. Run fg …`). Pure.

use bytes::Bytes;
use memchr::memmem;

const CONTROL_Z: u8 = 0x1a;
/// The same as kitty's keyboard writes it, and xterm's modifyOtherKeys.
const WRITTEN: [&[u8]; 4] = [b"\x1b[122;5u", b"\x1b[122;5:1u", b"\x1b[122;5:2u", b"\x1b[27;5;122~"];

/// What claude is given of `typed`. Copies only where there is something to take out.
pub(crate) fn without_suspend(typed: Bytes) -> Bytes {
    let plain = memchr::memchr(CONTROL_Z, &typed).is_none();
    if plain && WRITTEN.iter().all(|key| memmem::find(&typed, key).is_none()) {
        return typed;
    }
    let mut out = Vec::with_capacity(typed.len());
    let mut rest = &typed[..];
    while let Some((first, behind)) = rest.split_first() {
        if let Some(key) = WRITTEN.iter().find(|key| rest.starts_with(key)) {
            rest = &rest[key.len()..];
            continue;
        }
        if *first != CONTROL_Z {
            out.push(*first);
        }
        rest = behind;
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_z_is_no_key() {
        let table = [
            ("abc", "abc"),
            ("a\x1ab\x1a", "ab"),
            ("\x1a", ""),
            ("x\x1b[122;5uy\x1b[27;5;122~z", "xyz"),
            ("\x1b[122;5:1u\x1b[122;5:3u", "\x1b[122;5:3u"),
            ("\x1b[122;6u\x1b[99;5u\x03", "\x1b[122;6u\x1b[99;5u\x03"),
        ];
        for (typed, given) in table {
            assert_eq!(without_suspend(Bytes::from_static(typed.as_bytes())), given, "{typed:?}");
        }
    }
}
