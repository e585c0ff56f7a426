//! Matrix views of arrays: a shape and an orientation over one-dimensional data, checked once.
//!
//! A view owns nothing and moves nothing. It holds the caller's borrow, so kernels that take views keep the rule that no
//! argument reads what another one writes.

use super::handle::Handle;
use super::typed::Array;
use crate::element::Element;
use crate::error::{Error, Result};

/// An array as a row-major matrix, for reading.
///
/// ```
/// # fn main() -> divvy::Result<()> {
/// use divvy::Array;
///
/// let array = Array::from_vec(vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]);
/// let a = array.as_matrix(2, 3)?;
/// assert_eq!((a.rows(), a.columns()), (2, 3));
/// assert_eq!((a.transposed().rows(), a.transposed().columns()), (3, 2));
/// assert!(array.as_matrix(4, 2).is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Matrix<'a, T: Element> {
    array: &'a Array<T>,
    rows: usize,
    columns: usize,
    transposed: bool,
}

impl<T: Element> Clone for Matrix<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Element> Copy for Matrix<'_, T> {}

impl<'a, T: Element> Matrix<'a, T> {
    /// The transpose. No element moves: kernels read the same array the other way round.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            transposed: !self.transposed,
            ..self
        }
    }

    /// The number of rows, after any transposition.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of columns, after any transposition.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The operand that a kernel keeps.
    pub(crate) fn operand(&self) -> MatrixOperand {
        MatrixOperand {
            handle: self.array.handle().clone(),
            rows: self.rows,
            columns: self.columns,
            transposed: self.transposed,
        }
    }
}

/// An array as a row-major matrix, for writing.
#[derive(Debug)]
pub struct MatrixMut<'a, T: Element> {
    array: &'a mut Array<T>,
    rows: usize,
    columns: usize,
}

impl<T: Element> MatrixMut<'_, T> {
    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The operand that a kernel keeps.
    pub(crate) fn operand(&self) -> MatrixOperand {
        MatrixOperand {
            handle: self.array.handle().clone(),
            rows: self.rows,
            columns: self.columns,
            transposed: false,
        }
    }
}

impl<T: Element> Array<T> {
    /// This array as a row-major matrix, for kernels that read it, such as [`gemm`](crate::kernels::gemm()).
    ///
    /// # Errors
    /// [`Error::Length`] unless the array has exactly `rows * columns` elements, [`Error::TooLarge`] if that number
    /// overflows.
    pub fn as_matrix(&self, rows: usize, columns: usize) -> Result<Matrix<'_, T>> {
        check_shape("as_matrix", self.len(), rows, columns)?;
        Ok(Matrix {
            array: self,
            rows,
            columns,
            transposed: false,
        })
    }

    /// This array as a row-major matrix, for kernels that write it.
    ///
    /// # Errors
    /// As [`Array::as_matrix`].
    pub fn as_matrix_mut(&mut self, rows: usize, columns: usize) -> Result<MatrixMut<'_, T>> {
        check_shape("as_matrix_mut", self.len(), rows, columns)?;
        Ok(MatrixMut {
            array: self,
            rows,
            columns,
        })
    }
}

fn check_shape(function: &str, given: usize, rows: usize, columns: usize) -> Result<()> {
    let Some(expected) = rows.checked_mul(columns) else {
        return Err(Error::TooLarge {
            what: format!("{function}: a matrix"),
            given: format!("{rows} x {columns}"),
            limit: format!("{} elements", usize::MAX),
        });
    };
    Error::check_length(function, "self", given, expected, || {
        format!("{rows} rows of {columns}")
    })
}

/// A matrix as an operand of a kernel.
#[derive(Clone, Debug)]
pub(crate) struct MatrixOperand {
    /// The array.
    pub(crate) handle: Handle,
    /// Rows after any transposition.
    pub(crate) rows: usize,
    /// Columns after any transposition.
    pub(crate) columns: usize,
    /// Whether the array holds the transpose.
    pub(crate) transposed: bool,
}

impl MatrixOperand {
    /// Elements from one stored row to the next.
    pub(crate) fn row_length(&self) -> usize {
        if self.transposed {
            self.rows
        } else {
            self.columns
        }
    }

    /// The strides after any transposition.
    pub(crate) fn strides(&self) -> Strides {
        if self.transposed {
            Strides {
                row: 1,
                column: self.rows,
            }
        } else {
            Strides {
                row: self.columns,
                column: 1,
            }
        }
    }
}

/// The distances between neighbours in a matrix, in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Strides {
    /// From one row to the next.
    pub(crate) row: usize,
    /// From one column to the next.
    pub(crate) column: usize,
}

impl std::fmt::Display for MatrixOperand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} x {}", self.rows, self.columns)?;
        if self.transposed {
            write!(
                f,
                " (the transpose of an array of {} x {})",
                self.columns, self.rows
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_that_does_not_fit_says_what_was_expected_and_given() {
        let mut array = Array::from_vec(vec![0.0f32; 5]);
        let text = array.as_matrix(2, 3).expect_err("6 are needed").to_string();
        assert!(
            text.contains("has 5") && text.contains("6 are needed (2 rows of 3)"),
            "{text}"
        );
        let text = array
            .as_matrix_mut(usize::MAX, 2)
            .expect_err("overflow")
            .to_string();
        assert!(
            text.contains(&format!("{} x 2", usize::MAX)) && text.contains("too large"),
            "{text}"
        );
        assert!(array.as_matrix(5, 1).is_ok());
        assert!(
            Array::<f32>::from_vec(vec![])
                .as_matrix(0, usize::MAX)
                .is_ok()
        );
    }

    #[test]
    fn transposing_twice_is_the_matrix_itself() {
        let array = Array::from_vec(vec![0u32; 6]);
        let a = array.as_matrix(2, 3).expect("6 elements");
        let strides = |row, column| Strides { row, column };
        assert_eq!(a.operand().strides(), strides(3, 1));
        assert_eq!(a.transposed().operand().strides(), strides(1, 3));
        let twice = a.transposed().transposed();
        assert_eq!(
            (twice.rows(), twice.columns(), twice.operand().strides()),
            (2, 3, strides(3, 1))
        );
    }
}
