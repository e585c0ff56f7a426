//! Cuts a part into tiles that fit the memory of a GPU.
//!
//! Pure arithmetic, so that the planner and the execution cut alike. If all arrays of a part fit, they are held whole, and
//! the part is one tile unless its windows exceed a binding. Otherwise a tile holds only the windows of the arrays that
//! belong to its items, and the arrays that it reads whole. An array that the kernel can read a window at a time
//! ([`Role::WholeWindowed`]) need not be held whole either.

use super::params::PARAMS;
use crate::device::buffer_size::{buffer_class, window_buffer};
use crate::kernel::Role;

/// An array that a tile needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Requirement {
    pub(crate) role: Role,
    /// Elements of the whole array.
    pub(crate) len: usize,
    /// Bytes of one element.
    pub(crate) element_bytes: usize,
}

/// The memory and the limits of a GPU, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capacity {
    /// All arrays together.
    pub(crate) arrays: u64,
    /// The largest buffer.
    pub(crate) buffer: u64,
    /// The largest window of a buffer that can be bound.
    pub(crate) binding: u64,
}

/// The items of a part, and where it may be cut.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TiledPart {
    pub(crate) items: usize,
    /// Tiles end at multiples of this.
    pub(crate) border_grain: usize,
    /// The most items that one dispatch can bind.
    pub(crate) bindable_items: usize,
}

/// How a part is cut into tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tiling {
    /// The most items of a tile.
    pub(crate) items: usize,
    /// Whether arrays are held whole, rather than only the windows that a tile needs.
    pub(crate) whole: bool,
    /// The largest window on a [`Role::WholeWindowed`] array, in bytes; `u64::MAX` if such arrays are held whole.
    pub(crate) window: u64,
}

/// Windows begin and end at multiples of this many elements.
const WINDOW_GRAIN: usize = 64;
/// Windows on [`Role::WholeWindowed`] arrays have a multiple of this many bytes.
const WINDOW_BYTES: u64 = 256;

impl Requirement {
    fn bytes(&self) -> u64 {
        (self.len as u64).saturating_mul(self.element_bytes as u64)
    }

    /// Bytes of the buffer for a tile of this many items.
    fn buffer(&self, items: usize, tiling: &Tiling) -> u64 {
        let elements = match self.role {
            _ if tiling.whole => self.len,
            Role::Items { num, den } => items.div_ceil(den.max(1)).saturating_mul(num),
            Role::Halo { width, halo } => items.saturating_add(2 * halo).saturating_mul(width),
            Role::WholeWindowed if !self.is_held_whole(tiling) => {
                return buffer_class(window_buffer(tiling.window));
            }
            Role::Whole | Role::WholeWindowed => self.len,
        };
        let elements = elements.saturating_add(2 * WINDOW_GRAIN).min(self.len);
        buffer_class((elements as u64).saturating_mul(self.element_bytes as u64))
    }

    /// Whether the whole array is on the device while a tile runs that reads all of it.
    pub(crate) fn is_held_whole(&self, tiling: &Tiling) -> bool {
        tiling.whole || self.role != Role::WholeWindowed || self.bytes() <= tiling.window
    }
}

impl Tiling {
    /// Cuts a part into the largest tiles that fit the capacity.
    ///
    /// # Errors
    /// The bytes that the smallest tile needs, if it does not fit.
    pub(crate) fn new(
        arrays: impl Iterator<Item = Requirement> + Clone,
        part: TiledPart,
        capacity: &Capacity,
    ) -> Result<Self, u64> {
        let whole = Self {
            items: part.bindable_items,
            whole: true,
            window: u64::MAX,
        };
        let windowed = |array: &Requirement| array.role == Role::WholeWindowed;
        let too_long = arrays
            .clone()
            .any(|array| windowed(&array) && array.bytes() > capacity.buffer);
        // Nearly every call ends here.
        if !too_long
            && (capacity.arrays == u64::MAX
                || whole.bytes(arrays.clone(), part.items) <= capacity.arrays)
        {
            return Ok(whole);
        }
        let read_whole = arrays
            .clone()
            .filter(|array| windowed(array) || array.role == Role::Whole);
        let held = whole.bytes(read_whole, 0);
        let window = if held <= capacity.arrays / PARAMS.held_share && !too_long {
            u64::MAX
        } else {
            // The buffer of a window is larger than the window: aligned, and rounded up.
            let limit = capacity.binding.min(capacity.buffer / 2);
            (capacity.arrays / PARAMS.window_share).min(limit) / WINDOW_BYTES * WINDOW_BYTES
        };
        let tiles_of = |items| Self {
            items,
            whole: false,
            window,
        };
        let fits = |items| tiles_of(items).bytes(arrays.clone(), items) <= capacity.arrays;
        let most = part.bindable_items.min(part.items);
        if fits(most) {
            return Ok(tiles_of(most));
        }
        let border = part.border_grain;
        let least = border.min(most);
        if !fits(least) {
            return Err(tiles_of(least).bytes(arrays, least));
        }
        // In multiples of the border: `below` fits, `above` does not.
        let (mut below, mut above) = (1, most.div_ceil(border));
        while above - below > 1 {
            let middle = below + (above - below) / 2;
            if fits(middle * border) {
                below = middle;
            } else {
                above = middle;
            }
        }
        Ok(tiles_of(below * border))
    }

    /// Bytes of the buffers for a tile of this many items.
    pub(crate) fn bytes(&self, arrays: impl Iterator<Item = Requirement>, items: usize) -> u64 {
        arrays
            .map(|array| array.buffer(items, self))
            .fold(0, u64::saturating_add)
    }

    /// Smaller tiles, after one of `items` items did not fit although it should have. `windowed` is the size of the
    /// largest [`Role::WholeWindowed`] array in bytes. `None` if the tiles cannot be smaller.
    pub(crate) fn smaller(&self, items: usize, border: usize, windowed: u64) -> Option<Self> {
        if self.whole {
            return Some(Self {
                items,
                whole: false,
                ..*self
            });
        }
        let half = items / 2 / border * border;
        let least_window = PARAMS.least_window;
        let window =
            (self.window.min(windowed) / 2).max(least_window) / WINDOW_BYTES * WINDOW_BYTES;
        let smaller = Self {
            items: if half > 0 { half } else { items },
            whole: false,
            window: if windowed > least_window {
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

    const CAPACITY: Capacity = Capacity {
        arrays: 1 << 20,
        buffer: 1 << 20,
        binding: 1 << 20,
    };

    fn array(role: Role, len: usize) -> Requirement {
        Requirement {
            role,
            len,
            element_bytes: 4,
        }
    }

    fn part(items: usize, border_grain: usize) -> TiledPart {
        TiledPart {
            items,
            border_grain,
            bindable_items: usize::MAX,
        }
    }

    #[test]
    fn arrays_that_fit_are_held_whole_and_make_one_tile() {
        let arrays = [array(Role::ITEM, 1 << 17), array(Role::Whole, 1 << 16)];
        let tiling = Tiling::new(arrays.into_iter(), part(1 << 17, 64), &CAPACITY);
        assert!(tiling.is_ok_and(|tiling| tiling.whole && tiling.items == usize::MAX));
    }

    #[test]
    fn an_array_read_whole_must_fit_beside_the_smallest_tile() {
        let arrays = |whole| [array(Role::ITEM, 1 << 20), array(Role::Whole, whole)];
        let part = part(1 << 20, 64);
        let tiling = Tiling::new(arrays(1 << 17).into_iter(), part, &CAPACITY).expect("it fits");
        assert!(!tiling.whole && tiling.items < 1 << 17);
        let bytes =
            Tiling::new(arrays(1 << 18).into_iter(), part, &CAPACITY).expect_err("too much");
        assert!(bytes > CAPACITY.arrays);
    }

    #[test]
    fn an_array_read_in_windows_need_not_fit() {
        let b = array(Role::WholeWindowed, 1 << 22);
        let arrays = [array(Role::rows(1 << 11), 1 << 22), b];
        let tiling =
            Tiling::new(arrays.into_iter(), part(1 << 11, 64), &CAPACITY).expect("it fits");
        assert!(!b.is_held_whole(&tiling) && tiling.items >= 64);
        // A small one is held whole nevertheless.
        assert!(array(Role::WholeWindowed, 1 << 10).is_held_whole(&tiling));
    }

    #[test]
    fn tiles_cannot_shrink_for_ever() {
        for windowed in [0, 1 << 22] {
            let (border, mut items) = (64, 1 << 20);
            let mut tiling = Tiling {
                items,
                whole: true,
                window: u64::MAX,
            };
            let mut count = 0;
            while let Some(smaller) = tiling.smaller(items, border, windowed) {
                assert_ne!(smaller, tiling);
                tiling = smaller;
                items = tiling.items;
                count += 1;
                assert!(count < 100);
            }
            assert_eq!(tiling.items, border);
            assert_eq!(tiling.window == PARAMS.least_window, windowed > 0);
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
        fn tiles_fit_are_not_empty_and_are_as_large_as_possible(
            roles in prop::collection::vec((role(), 1usize..100_000), 1..5),
            items in 1usize..100_000, arrays in 10_000u64..1_000_000, buffer in 10_000u64..1_000_000,
        ) {
            let border = 512;
            let arrays_of_part = roles.iter().map(|(role, whole)| {
                let len = match *role {
                    Role::Items { num, den } => items.div_ceil(den) * num,
                    Role::Halo { width, .. } => items * width,
                    Role::Whole | Role::WholeWindowed => *whole,
                };
                array(*role, len)
            });
            let capacity = Capacity { arrays, buffer, binding: buffer };
            match Tiling::new(arrays_of_part.clone(), part(items, border), &capacity) {
                Ok(tiling) => {
                    let piece = tiling.items.min(items);
                    prop_assert!(piece == items || (piece > 0 && piece.is_multiple_of(border)));
                    prop_assert!(tiling.bytes(arrays_of_part.clone(), piece) <= arrays);
                    if piece < items {
                        let more = (piece + border).min(items);
                        prop_assert!(tiling.bytes(arrays_of_part, more) > arrays);
                    }
                }
                Err(bytes) => prop_assert!(bytes > arrays),
            }
        }
    }
}
