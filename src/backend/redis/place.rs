use std::{fmt, str::FromStr};

use super::super::Position;

/// A place in the log: the id of an entry of the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    milliseconds: u64,
    number: u64,
}

impl Place {
    pub(super) fn of(position: &Position) -> Self {
        let offset = position.offset();
        Self { milliseconds: (offset >> 64) as u64, number: offset as u64 }
    }

    pub(super) fn in_life(self, incarnation: &str) -> Position {
        Position::new(incarnation, u128::from(self.milliseconds) << 64 | u128::from(self.number))
    }
}

impl FromStr for Place {
    type Err = ();

    fn from_str(id: &str) -> Result<Self, ()> {
        let (milliseconds, number) = id.split_once('-').ok_or(())?;
        Ok(Self { milliseconds: milliseconds.parse().map_err(drop)?, number: number.parse().map_err(drop)? })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.milliseconds, self.number)
    }
}
