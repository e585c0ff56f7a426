//! Cuts a matrix product on a GPU into panels whose operands fit the windows of a dispatch.
//!
//! Nearly always a product over all of k is one panel. When an operand exceeds the adapter's largest binding (128 MiB
//! on some), the products of consecutive panels along k add up in C. This is pure arithmetic, without a device.

use std::ops::Range;

/// Borders between panels are multiples of this number of elements where possible, so that windows are aligned.
const ALIGNED: usize = 64;

/// The shape of a product C = op(A) * op(B), and how A and B are stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Product {
    /// Rows of C.
    pub(super) m: usize,
    /// Columns of C.
    pub(super) n: usize,
    /// Columns of op(A) and rows of op(B).
    pub(super) k: usize,
    /// Elements from one stored row of A to the next: at least `m` if A is transposed, else `k`.
    pub(super) lda: usize,
    /// Whether A is stored with k as its rows.
    pub(super) transposed_a: bool,
    /// Whether B is stored with n as its rows.
    pub(super) transposed_b: bool,
}

/// A part of a product that is one dispatch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Panel {
    /// Rows of C.
    pub(super) rows: Range<usize>,
    /// Columns of C.
    pub(super) columns: Range<usize>,
    /// Columns of op(A) and rows of op(B).
    pub(super) depth: Range<usize>,
}

impl Panel {
    /// Whether this panel is the first to touch its part of C; the others add to it.
    pub(super) fn is_first(&self) -> bool {
        self.depth.start == 0
    }
}

impl Product {
    /// Panels whose window on A has at most `most_a` elements, and that on B at most `most_b`, for any alignment. The
    /// panels of the same part of C follow each other along k.
    pub(super) fn panels(self, most_a: usize, most_b: usize) -> impl Iterator<Item = Panel> {
        let Self {
            m,
            n,
            k,
            lda,
            transposed_a,
            transposed_b,
        } = self;
        // Windows span whole stored rows, so the cuts leave as many of those together as possible, and cut within one
        // only if they must.
        let loose = |most: usize| most.saturating_sub(ALIGNED).max(1);
        let too_long = |count: usize, width: usize, most: usize| {
            width > loose(most) && width.saturating_mul(count) > most
        };
        let (mut rows, mut columns, mut depth) = (m, n, k);
        if transposed_a {
            depth = fitting(k, lda, most_a);
            if too_long(k, lda, most_a) {
                rows = m.min(loose(most_a));
            }
        } else {
            rows = fitting(m, k, most_a);
            if too_long(m, k, most_a) {
                depth = k.min(loose(most_a));
            }
        }
        if transposed_b {
            columns = fitting(n, k, most_b);
            if too_long(n, k, most_b) {
                depth = depth.min(loose(most_b));
            }
        } else {
            depth = depth.min(fitting(k, n, most_b));
            if too_long(k, n, most_b) {
                columns = n.min(loose(most_b));
            }
        }
        pieces(m, rows).flat_map(move |rows| {
            pieces(n, columns).flat_map(move |columns| {
                let rows = rows.clone();
                pieces(k, depth).map(move |depth| Panel {
                    rows: rows.clone(),
                    columns: columns.clone(),
                    depth,
                })
            })
        })
    }
}

/// The number of the `count` stored rows of `width` elements that fit a window of `most` elements: all, or a number
/// that makes every window begin at an aligned element, or at least one.
fn fitting(count: usize, width: usize, most: usize) -> usize {
    let room = most / width.max(1);
    if count <= room {
        count
    } else if room >= ALIGNED {
        room / ALIGNED * ALIGNED
    } else {
        (most.saturating_sub(ALIGNED) / width).max(1)
    }
}

/// `0..len` in pieces of `step`.
fn pieces(len: usize, step: usize) -> impl Iterator<Item = Range<usize>> + Clone {
    let step = step.max(1);
    (0..len.div_ceil(step)).map(move |i| i * step..((i + 1) * step).min(len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_fits_is_one_panel() {
        let product = Product {
            m: 512,
            n: 512,
            k: 512,
            lda: 512,
            transposed_a: false,
            transposed_b: false,
        };
        let panels: Vec<_> = product.panels(512 * 512, 512 * 512).collect();
        assert_eq!(
            panels,
            [Panel {
                rows: 0..512,
                columns: 0..512,
                depth: 0..512
            }]
        );
    }

    #[test]
    fn a_large_operand_is_cut_along_k_at_aligned_borders() {
        let product = Product {
            m: 64,
            n: 8192,
            k: 8192,
            lda: 8192,
            transposed_a: false,
            transposed_b: false,
        };
        let depths: Vec<_> = product.panels(1 << 25, 1 << 25).map(|p| p.depth).collect();
        assert_eq!(depths, [0..4096, 4096..8192]);
    }

    proptest! {
        #[test]
        fn panels_fit_and_cover_every_product_once(
            m in 1usize..40, n in 1usize..40, k in 1usize..150, more in 0usize..20,
            transposed_a: bool, transposed_b: bool, most_a in 65usize..2000, most_b in 65usize..2000,
        ) {
            let lda = if transposed_a { m + more } else { k };
            let product = Product { m, n, k, lda, transposed_a, transposed_b };
            let mut seen = vec![0u8; m * n * k];
            let mut depth_before = vec![0; m * n];
            for Panel { rows, columns, depth } in product.panels(most_a, most_b) {
                let window = |rows: &Range<usize>, stride: usize, within: &Range<usize>| {
                    let first = rows.start * stride + within.start;
                    let end = (rows.end - 1) * stride + within.end;
                    end - first / ALIGNED * ALIGNED
                };
                let a = if transposed_a { window(&depth, lda, &rows) } else { window(&rows, k, &depth) };
                let b = if transposed_b { window(&columns, k, &depth) } else { window(&depth, n, &columns) };
                prop_assert!(a <= most_a && b <= most_b, "{a} of {most_a}, {b} of {most_b}");
                for i in rows {
                    for j in columns.clone() {
                        // In the order of k, so that only the first panel scales C.
                        prop_assert_eq!(depth_before[i * n + j], depth.start);
                        depth_before[i * n + j] = depth.end;
                        depth.clone().for_each(|q| seen[(i * n + j) * k + q] += 1);
                    }
                }
            }
            prop_assert!(seen.iter().all(|s| *s == 1));
        }
    }
}
