//! The folder name of a project, by the CLI's own rule.

/// UTF-16 units above which a name is shortened and told apart by a hash.
const LONG: usize = 200;

/// The folder name under `projects/` of the folder with this real path.
///
/// Each UTF-16 unit outside `[A-Za-z0-9]` becomes `-`; of more than 200 units the first 200 stay, and `-` with
/// base 36 of the absolute 32-bit hash `h * 31 + unit` of the path follows (facts/seed-packages.md §3).
/// Different paths may share a key: `a.b` and `a-b`.
pub fn project_key(real_path: &str) -> String {
    let units = || real_path.encode_utf16();
    let plain = |unit: u16| u8::try_from(unit).ok().filter(u8::is_ascii_alphanumeric).map_or('-', char::from);
    let key: String = units().map(plain).collect();
    if key.len() <= LONG {
        return key;
    }
    let hash = units().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    format!("{}-{}", &key[..LONG], base36(hash.unsigned_abs()))
}

fn base36(mut number: u32) -> String {
    let mut digits = Vec::new();
    loop {
        digits.push(char::from(b"0123456789abcdefghijklmnopqrstuvwxyz"[(number % 36) as usize]));
        number /= 36;
        if number == 0 {
            return digits.iter().rev().collect();
        }
    }
}
