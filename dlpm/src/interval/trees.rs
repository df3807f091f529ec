//! Trees of processes that are followed.

/// A set of trees, each of which has a number from 0 to 63.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trees(u64);

impl Trees {
    /// How many trees can be followed at the same time.
    pub const MOST: u8 = 64;

    /// The tree with that number alone.
    pub fn one(number: u8) -> Self {
        Self(1u64.checked_shl(number.into()).unwrap_or(0))
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether both have a tree in common.
    pub fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Those of either.
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that are not in `other`.
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The first number that is not in it.
    pub fn first_free(self) -> Option<u8> {
        (0..Self::MOST).find(|number| !self.meets(Self::one(*number)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_trees() {
        let both = Trees::one(0).and(Trees::one(63));
        assert!(both.meets(Trees::one(63)) && !both.meets(Trees::one(62)) && !both.is_empty());
        assert!(Trees::one(64).is_empty(), "there is no such tree");
        assert_eq!(both.without(Trees::one(0)), Trees::one(63));
        assert_eq!((both.first_free(), Trees::default().first_free()), (Some(1), Some(0)));
        let all = (0..Trees::MOST).fold(Trees::default(), |all, number| all.and(Trees::one(number)));
        assert_eq!(all.first_free(), None);
    }
}
