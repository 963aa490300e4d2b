//! Where the lanes of a shuffle take their values from.

/// The kinds of shuffles, in the order of PTX's modifiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shuffle {
    Index,
    Up,
    Down,
    Butterfly,
}

impl Shuffle {
    pub(crate) const ALL: [Shuffle; 4] = [Shuffle::Index, Shuffle::Up, Shuffle::Down, Shuffle::Butterfly];
}

/// Returns the lane that a lane's value comes from, and whether it is inside the segment.
pub(crate) fn shuffle(shuffle: Shuffle, lane: u32, b: u32, c: u32) -> (u32, bool) {
    let (b, clamp, segment) = (b & 31, c & 31, c >> 8 & 31);
    let last = lane & segment | clamp & !segment;
    let (from, inside) = match shuffle {
        Shuffle::Up => (lane.wrapping_sub(b), lane as i32 - b as i32 >= last as i32),
        Shuffle::Down => (lane + b, lane + b <= last),
        Shuffle::Butterfly => (lane ^ b, lane ^ b <= last),
        Shuffle::Index => {
            let from = lane & segment | b & !segment;
            (from, from <= last)
        }
    };
    if inside { (from, true) } else { (lane, false) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffles_stay_in_their_segment() {
        assert_eq!(shuffle(Shuffle::Up, 0, 1, 0), (0, false));
        assert_eq!(shuffle(Shuffle::Up, 5, 1, 0), (4, true));
        assert_eq!(shuffle(Shuffle::Index, 5, 31, 0x1f), (31, true));
        assert_eq!(shuffle(Shuffle::Down, 31, 1, 0x1f), (31, false));
        assert_eq!(shuffle(Shuffle::Butterfly, 3, 1, 0x1f), (2, true));
        assert_eq!(shuffle(Shuffle::Index, 9, 1, 0x181f), (9 & 24 | 1, true));
    }
}
