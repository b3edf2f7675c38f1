//! Ranks of values that may be tied, in samples whose members may count several times.

/// The values of a sample as levels: whole numbers from 0 in the order of the values, equal ones alike.
#[derive(Debug)]
pub(super) struct Levels {
    /// Level of each member.
    pub of: Vec<u32>,
    count: usize,
}

impl Levels {
    /// The levels of numbers, none of which is NaN.
    pub fn new(values: &[f64]) -> Self {
        let mut order: Vec<u32> = (0..values.len() as u32).collect();
        let value = |member: &u32| values[*member as usize];
        order.sort_unstable_by(|left, right| value(left).total_cmp(&value(right)));
        let mut levels = Self { of: vec![0; values.len()], count: 0 };
        for tied in order.chunk_by(|left, right| value(left) == value(right)) {
            tied.iter().for_each(|&member| levels.of[member as usize] = levels.count as u32);
            levels.count += 1;
        }
        levels
    }

    /// Members at each level, member by member as often as `times` says.
    pub fn sizes(&self, times: &[u32]) -> Vec<u64> {
        let mut sizes = vec![0; self.count];
        self.of.iter().zip(times).for_each(|(&level, &times)| sizes[level as usize] += u64::from(times));
        sizes
    }

    /// Mid-rank of each level: the mean of the positions, from 1, that its members have among all.
    pub fn mid_ranks(&self, times: &[u32]) -> Vec<f64> {
        let mut before = 0;
        let mid_rank = |size: u64| {
            before += size;
            (before - size) as f64 + (size as f64 + 1.0) / 2.0
        };
        self.sizes(times).into_iter().map(mid_rank).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tied_values_share_the_mean_of_their_positions() {
        let levels = Levels::new(&[2.0, -0.0, 7.0, 2.0, 0.0, 2.0]);
        assert_eq!(levels.of, [1, 0, 2, 1, 0, 1]);
        assert_eq!(levels.mid_ranks(&[1; 6]), [1.5, 4.0, 6.0]);
    }

    #[test]
    fn a_member_that_counts_twice_is_like_two() {
        let (once, twice) = (Levels::new(&[3.0, 1.0, 1.0, 2.0]), Levels::new(&[3.0, 1.0, 2.0]));
        assert_eq!(once.sizes(&[1; 4]), twice.sizes(&[1, 2, 1]));
        assert_eq!(once.mid_ranks(&[1; 4]), twice.mid_ranks(&[1, 2, 1]));
        assert_eq!(twice.sizes(&[1, 0, 1]), [0, 1, 1]);
    }
}
