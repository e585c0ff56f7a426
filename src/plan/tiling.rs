//! How a part is cut into pieces for which a GPU has room.
//!
//! Pure arithmetic, so that the planner and the execution cut alike. A part of which all arrays fit is one piece, as far
//! as its windows can be bound, and the arrays are held whole. Otherwise a piece holds only the windows of the arrays
//! that belong to its items, beside those arrays of which it reads everything; of these, such as a kernel can read a
//! window at a time ([`Role::WholeWindowed`]) need not be there whole either.

use crate::device::buffer_size::{buffer_class, window_buffer};
use crate::kernel::Role;

/// What a piece needs of an array.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Requirement {
    pub(crate) role: Role,
    /// Elements of the whole array.
    pub(crate) len: usize,
    /// Bytes of one element.
    pub(crate) element_bytes: usize,
}

/// What a GPU can hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capacity {
    /// All arrays together, in bytes.
    pub(crate) arrays: u64,
    /// The largest buffer.
    pub(crate) buffer: u64,
    /// The largest window of a buffer that can be bound.
    pub(crate) binding: u64,
}

/// How a part is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tiling {
    /// The most items of a piece.
    pub(crate) items: usize,
    /// Whether arrays are held whole, and not only the windows that a piece needs.
    pub(crate) whole: bool,
    /// The largest window on an array that is read a window at a time, in bytes. No limit if it is held whole.
    pub(crate) window: u64,
}

/// Windows begin and end at multiples of this many elements.
const WINDOW_GRAIN: usize = 64;
/// The share of the memory that a window takes of an array that is read a window at a time: small beside the pieces that
/// it is read for, since it is read again for each of them.
const WINDOW_SHARE: u64 = 8;
/// The smallest such window: a few rows of it are cut for one product.
const LEAST_WINDOW: u64 = 4 << 10;

impl Requirement {
    fn bytes(&self) -> u64 {
        (self.len as u64).saturating_mul(self.element_bytes as u64)
    }

    /// Bytes of the buffer that a piece of so many items needs.
    fn buffer(&self, items: usize, cut: &Tiling) -> u64 {
        let elements = match self.role {
            _ if cut.whole => self.len,
            Role::Items { num, den } => items.div_ceil(den.max(1)).saturating_mul(num),
            Role::Halo { width, halo } => items.saturating_add(2 * halo).saturating_mul(width),
            Role::WholeWindowed if !self.is_held_whole(cut) => {
                return buffer_class(window_buffer(cut.window));
            }
            Role::Whole | Role::WholeWindowed => self.len,
        };
        let elements = elements.saturating_add(2 * WINDOW_GRAIN).min(self.len);
        buffer_class((elements as u64).saturating_mul(self.element_bytes as u64))
    }

    /// Whether all of the array is there while a piece runs that reads everything.
    pub(crate) fn is_held_whole(&self, cut: &Tiling) -> bool {
        cut.whole || self.role != Role::WholeWindowed || self.bytes() <= cut.window
    }
}

impl Tiling {
    /// Cuts a part of `items` items at multiples of `border` into pieces of at most `most` items, which can be bound, such
    /// that there is room for each.
    ///
    /// # Errors
    /// The bytes that the least piece needs, if there is no room for it.
    pub(crate) fn new(
        needs: impl Iterator<Item = Requirement> + Clone,
        (items, border, most): (usize, usize, usize),
        room: &Capacity,
    ) -> Result<Self, u64> {
        let whole = Self {
            items: most,
            whole: true,
            window: u64::MAX,
        };
        let windowed = |need: &Requirement| need.role == Role::WholeWindowed;
        let too_long = needs
            .clone()
            .any(|need| windowed(&need) && need.bytes() > room.buffer);
        // Nearly always, and quickly told.
        if !too_long
            && (room.arrays == u64::MAX || whole.bytes(needs.clone(), items) <= room.arrays)
        {
            return Ok(whole);
        }
        let read_whole = needs
            .clone()
            .filter(|need| windowed(need) || need.role == Role::Whole);
        let held = whole.bytes(read_whole, 0);
        let window = if held <= room.arrays / 2 && !too_long {
            u64::MAX
        } else {
            let least = room.binding.min(room.buffer / 2);
            (room.arrays / WINDOW_SHARE).min(least) / 256 * 256
        };
        let cut = |items| Self {
            items,
            whole: false,
            window,
        };
        let fits = |items| cut(items).bytes(needs.clone(), items) <= room.arrays;
        let most = most.min(items);
        if fits(most) {
            return Ok(cut(most));
        }
        let least = border.min(most);
        if !fits(least) {
            return Err(cut(least).bytes(needs, least));
        }
        // In multiples of the border; the first bound fits, the second does not.
        let (mut yes, mut no) = (1, most.div_ceil(border));
        while no - yes > 1 {
            let middle = yes + (no - yes) / 2;
            if fits(middle * border) {
                yes = middle;
            } else {
                no = middle;
            }
        }
        Ok(cut(yes * border))
    }

    /// Bytes of the buffers that a piece of so many items needs.
    pub(crate) fn bytes(&self, needs: impl Iterator<Item = Requirement>, items: usize) -> u64 {
        needs
            .map(|need| need.buffer(items, self))
            .fold(0, u64::saturating_add)
    }

    /// A cut into smaller pieces than those of `items` items, for which there was no room although there should have been,
    /// of arrays of which the largest that is read a window at a time has `windowed` bytes. `None` if there is none.
    pub(crate) fn smaller(&self, items: usize, border: usize, windowed: u64) -> Option<Self> {
        if self.whole {
            return Some(Self {
                items,
                whole: false,
                ..*self
            });
        }
        let half = items / 2 / border * border;
        let window = (self.window.min(windowed) / 2).max(LEAST_WINDOW) / 256 * 256;
        let smaller = Self {
            items: if half > 0 { half } else { items },
            whole: false,
            window: if windowed > LEAST_WINDOW {
                window.min(self.window)
            } else {
                self.window
            },
        };
        (smaller.items < items || smaller.window < self.window).then_some(smaller)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ROOM: Capacity = Capacity {
        arrays: 1 << 20,
        buffer: 1 << 20,
        binding: 1 << 20,
    };

    fn need(role: Role, len: usize) -> Requirement {
        Requirement {
            role,
            len,
            element_bytes: 4,
        }
    }

    #[test]
    fn what_fits_is_held_whole_and_in_one_piece() {
        let needs = [need(Role::ITEM, 1 << 17), need(Role::Whole, 1 << 16)];
        let cut = Tiling::new(needs.into_iter(), (1 << 17, 64, usize::MAX), &ROOM);
        assert!(cut.is_ok_and(|cut| cut.whole && cut.items == usize::MAX));
    }

    #[test]
    fn what_is_read_whole_must_fit_beside_the_least_piece() {
        let needs = |whole| [need(Role::ITEM, 1 << 20), need(Role::Whole, whole)];
        let items = (1 << 20, 64, usize::MAX);
        let cut = Tiling::new(needs(1 << 17).into_iter(), items, &ROOM).expect("it fits");
        assert!(!cut.whole && cut.items < 1 << 17);
        let bytes = Tiling::new(needs(1 << 18).into_iter(), items, &ROOM).expect_err("too much");
        assert!(bytes > ROOM.arrays);
    }

    #[test]
    fn what_can_be_read_in_windows_need_not_fit() {
        let b = need(Role::WholeWindowed, 1 << 22);
        let needs = [need(Role::rows(1 << 11), 1 << 22), b];
        let cut =
            Tiling::new(needs.into_iter(), (1 << 11, 64, usize::MAX), &ROOM).expect("it fits");
        assert!(!b.is_held_whole(&cut) && cut.items >= 64);
        // A small one is held all the same.
        assert!(need(Role::WholeWindowed, 1 << 10).is_held_whole(&cut));
    }

    #[test]
    fn smaller_cuts_come_to_an_end() {
        for windowed in [0, 1 << 22] {
            let (border, mut items) = (64, 1 << 20);
            let mut cut = Tiling {
                items,
                whole: true,
                window: u64::MAX,
            };
            let mut count = 0;
            while let Some(smaller) = cut.smaller(items, border, windowed) {
                assert_ne!(smaller, cut);
                cut = smaller;
                items = cut.items;
                count += 1;
                assert!(count < 100);
            }
            assert_eq!(cut.items, border);
            assert_eq!(cut.window == LEAST_WINDOW, windowed > 0);
        }
    }

    fn role() -> impl Strategy<Value = Role> {
        prop_oneof![
            (1usize..9).prop_map(Role::rows),
            (1usize..9).prop_map(|log2| Role::per(1 << log2)),
            (1usize..4, 1usize..9).prop_map(|(halo, width)| Role::Halo { width, halo }),
            Just(Role::Whole),
            Just(Role::WholeWindowed),
        ]
    }

    proptest! {
        #[test]
        fn pieces_fit_are_not_empty_and_are_no_smaller_than_they_must_be(
            roles in prop::collection::vec((role(), 1usize..100_000), 1..5),
            items in 1usize..100_000, arrays in 10_000u64..1_000_000, buffer in 10_000u64..1_000_000,
        ) {
            let border = 512;
            let needs = roles.iter().map(|(role, whole)| {
                let len = match *role {
                    Role::Items { num, den } => items.div_ceil(den) * num,
                    Role::Halo { width, .. } => items * width,
                    Role::Whole | Role::WholeWindowed => *whole,
                };
                need(*role, len)
            });
            let room = Capacity { arrays, buffer, binding: buffer };
            match Tiling::new(needs.clone(), (items, border, usize::MAX), &room) {
                Ok(cut) => {
                    let piece = cut.items.min(items);
                    prop_assert!(piece == items || (piece > 0 && piece.is_multiple_of(border)));
                    prop_assert!(cut.bytes(needs.clone(), piece) <= arrays);
                    if piece < items {
                        let more = (piece + border).min(items);
                        prop_assert!(cut.bytes(needs, more) > arrays);
                    }
                }
                Err(bytes) => prop_assert!(bytes > arrays),
            }
        }
    }
}
