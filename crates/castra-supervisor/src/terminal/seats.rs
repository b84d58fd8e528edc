//! Who sits at a terminal, and the size that follows: the smallest of those who drive.

use std::collections::BTreeMap;

use super::Size;

/// Until somebody drives (spec.md).
pub const DEFAULT_SIZE: Size = Size { rows: 50, cols: 200 };

/// What a viewer may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Types, and has a say in the size.
    Driver,
    /// Only looks; its own terminal shows what fits.
    Reader,
}

/// The viewers of one terminal. Rows and columns are decided apart: the least of each among drivers that
/// have said a size. When the last driver leaves, the size stays: nobody's screen is drawn anew for that.
#[derive(Debug, Clone)]
pub struct Seats<K> {
    seats: BTreeMap<K, (Role, Option<Size>)>,
    size: Size,
}

impl<K: Ord> Default for Seats<K> {
    fn default() -> Seats<K> {
        Seats::new(DEFAULT_SIZE)
    }
}

impl<K: Ord> Seats<K> {
    /// A terminal of this size that nobody looks at.
    pub fn new(size: Size) -> Seats<K> {
        Seats { seats: BTreeMap::new(), size }
    }

    /// Takes a seat, or another role in the same seat. The new size of the terminal, if it changes.
    pub fn join(&mut self, viewer: K, role: Role) -> Option<Size> {
        let seat = self.seats.entry(viewer).or_insert((role, None));
        seat.0 = role;
        self.settle()
    }

    /// A viewer's window has this size; 0 rows or columns say nothing (a hidden window).
    pub fn resize(&mut self, viewer: &K, rows: u16, cols: u16) -> Option<Size> {
        if let Some(seat) = self.seats.get_mut(viewer).filter(|_| rows > 0 && cols > 0) {
            seat.1 = Some(Size::new(rows, cols));
        }
        self.settle()
    }

    pub fn leave(&mut self, viewer: &K) -> Option<Size> {
        self.seats.remove(viewer);
        self.settle()
    }

    pub fn may_type(&self, viewer: &K) -> bool {
        self.seats.get(viewer).is_some_and(|(role, _)| *role == Role::Driver)
    }

    pub fn len(&self) -> usize {
        self.seats.len()
    }

    pub fn is_empty(&self) -> bool {
        self.seats.is_empty()
    }

    pub fn size(&self) -> Size {
        self.size
    }

    /// The terminal has this size, whoever gave it. Another one, if those who drive want it.
    pub fn found(&mut self, size: Size) -> Option<Size> {
        self.size = size;
        self.settle()
    }

    fn settle(&mut self) -> Option<Size> {
        let drivers = self.seats.values().filter(|(role, _)| *role == Role::Driver);
        let least = drivers
            .filter_map(|(_, size)| *size)
            .reduce(|a, b| Size { rows: a.rows.min(b.rows), cols: a.cols.min(b.cols) })?;
        let changed = least != self.size;
        self.size = least;
        changed.then_some(least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(rows: u16, cols: u16) -> Option<Size> {
        Some(Size { rows, cols })
    }

    #[test]
    fn the_smallest_driver_decides_and_readers_never() {
        let mut seats: Seats<&str> = Seats::default();
        assert_eq!(seats.size(), Size { rows: 50, cols: 200 });
        assert_eq!(seats.join("reader", Role::Reader), None);
        assert_eq!(seats.resize(&"reader", 10, 10), None);
        // A driver that has not said its size has no say yet.
        assert_eq!(seats.join("laptop", Role::Driver), None);
        assert_eq!(seats.resize(&"laptop", 60, 100), size(60, 100));
        assert_eq!(seats.join("phone", Role::Driver), None);
        assert_eq!(seats.resize(&"phone", 70, 40), size(60, 40));
        assert_eq!(seats.resize(&"phone", 0, 0), None, "a hidden window");
        assert_eq!(seats.resize(&"phone", 70, 40), None, "nothing new");
        assert_eq!(seats.resize(&"stranger", 1, 1), None);
        assert_eq!(seats.join("phone", Role::Reader), size(60, 100), "who only looks has no say");
        assert_eq!(seats.join("phone", Role::Driver), size(60, 40));
        assert!(seats.may_type(&"phone") && !seats.may_type(&"reader") && !seats.may_type(&"stranger"));
        assert_eq!(seats.leave(&"phone"), size(60, 100));
        assert_eq!(seats.leave(&"laptop"), None, "it stays as it was");
        assert_eq!((seats.size(), seats.len()), (Size { rows: 60, cols: 100 }, 1));
        assert_eq!(seats.resize(&"reader", 5, 5), None);
    }
}
