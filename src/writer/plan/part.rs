//! The parts that share a model.

use crate::error::{Error, Result, shorten};

/// One of the parts that share a model: `number` of `count`, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The number of the part, 1 to `count`.
    pub number: u32,
    /// The number of parts.
    pub count: u32,
}

impl Part {
    /// The whole model.
    pub const WHOLE: Part = Part { number: 1, count: 1 };

    /// Parses `I/N`.
    ///
    /// # Errors
    ///
    /// `InvalidArgument`, if that is not what it is.
    pub fn parse(text: &str) -> Result<Part> {
        let parsed = text.split_once('/').and_then(|(number, count)| {
            Some(Part { number: number.trim().parse().ok()?, count: count.trim().parse().ok()? })
        });
        let part = parsed.ok_or_else(|| {
            Error::InvalidArgument(format!("'{}' is no part: write it as I/N, such as 1/4", shorten(text, 40)))
        })?;
        part.check()?;
        Ok(part)
    }

    pub(crate) fn check(self) -> Result<()> {
        if (1..=self.count).contains(&self.number) && self.count <= 100_000 {
            return Ok(());
        }
        Err(Error::InvalidArgument(format!(
            "there is no part {} of {}: they are numbered from 1 to that, and 100000 are the most",
            self.number, self.count
        )))
    }

    /// Returns whether the file of that number is this part's.
    pub(crate) fn has(self, number: usize) -> bool {
        number % self.count as usize == self.number as usize - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read_and_share_all_there_is() {
        assert_eq!(Part::parse("2/3").unwrap(), Part { number: 2, count: 3 });
        for bad in ["", "1", "0/1", "4/3", "a/b", "1/0", "-1/2", "1/100001"] {
            assert!(Part::parse(bad).is_err(), "{bad}");
        }
        for n in 0..20 {
            assert_eq!((1..=3).filter(|&number| Part { number, count: 3 }.has(n)).count(), 1);
        }
    }
}
