//! The generator's random numbers: splitmix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014), by number instead of in sequence.
//!
//! The field `name` has a stream of its own, whose seed is `finalize(seed ^ fnv1a64(name))`; row n takes the stream's n-th output (from 0). So the values of a field
//! depend on the seed, the field's name and the row's number, and on nothing else.

const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// The output function of splitmix64.
#[must_use]
pub const fn finalize(state: u64) -> u64 {
    let state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    state ^ (state >> 31)
}

/// FNV-1a, 64 bits.
const fn fnv1a64(bytes: &[u8]) -> u64 {
    let mut hash = 0xCBF2_9CE4_8422_2325;
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0000_0100_0000_01B3);
        at += 1;
    }
    hash
}

/// The random numbers of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    seed: u64,
}

impl Stream {
    /// The stream of a field.
    #[must_use]
    pub const fn of_field(seed: u64, name: &str) -> Self {
        Self { seed: finalize(seed ^ fnv1a64(name.as_bytes())) }
    }

    /// A second stream, for a value that takes two numbers, or many.
    #[must_use]
    pub const fn fork(self, number: u64) -> Self {
        Self { seed: finalize(self.seed ^ number.wrapping_mul(0xD1B5_4A32_D192_ED03)) }
    }

    /// 64 random bits.
    #[must_use]
    pub const fn bits(self, row: u64) -> u64 {
        finalize(self.seed.wrapping_add(row.wrapping_add(1).wrapping_mul(GAMMA)))
    }

    /// Uniform in 0..n (Lemire's multiplication, without rejection: the error is below n / 2^64). 0 stands for 2^64.
    #[must_use]
    pub const fn below(self, row: u64, n: u64) -> u64 {
        if n == 0 {
            return self.bits(row);
        }
        ((self.bits(row) as u128 * n as u128) >> 64) as u64
    }

    /// Uniform in [0, 1), a multiple of 2^-53.
    #[must_use]
    pub fn unit(self, row: u64) -> f64 {
        (self.bits(row) >> 11) as f64 * 2_f64.powi(-53)
    }

    /// Normal with mean 0 and deviation 1 (Box and Muller), from this stream and `fork(1)`.
    #[must_use]
    pub fn normal(self, row: u64) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit(row)).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.fork(1).unit(row)).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_those_of_splitmix64() {
        // The published test vector: the first outputs from the seed 1234567.
        let stream = Stream { seed: 1_234_567 };
        let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423, 4_593_380_528_125_082_431];
        assert_eq!([0, 1, 2, 3].map(|row| stream.bits(row)), expected);
        assert_eq!(fnv1a64(b"foobar"), 0x8594_4171_F739_67E8);
    }

    #[test]
    fn numbers_stay_in_range_and_are_spread() {
        let stream = Stream::of_field(1, "x");
        let mut counts = [0_u32; 10];
        let (mut sum, mut squares) = (0.0, 0.0);
        for row in 0..10_000 {
            counts[stream.below(row, 10) as usize] += 1;
            assert!((0.0..1.0).contains(&stream.unit(row)));
            let normal = stream.normal(row);
            sum += normal;
            squares += normal * normal;
        }
        assert!(counts.iter().all(|count| (900..1_100).contains(count)), "{counts:?}");
        assert!((sum / 10_000.0_f64).abs() < 0.05 && (squares / 10_000.0_f64 - 1.0).abs() < 0.05, "{sum} {squares}");
        assert_ne!(Stream::of_field(1, "y").bits(0), stream.bits(0));
        assert_ne!(Stream::of_field(2, "x").bits(0), stream.bits(0));
    }
}
