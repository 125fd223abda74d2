//! Conversions between bytes and numbers that several layers use.

/// The first eight bytes as a big-endian number, padded with zeros.
///
/// If the numbers of two strings differ, they compare as the strings do. Sorting by them first avoids most
/// comparisons of strings, which are elsewhere in memory. Strings with equal numbers still have to be compared.
pub(crate) fn sortable_prefix(bytes: &[u8]) -> u64 {
    let mut prefix = [0; 8];
    let n = bytes.len().min(8);
    prefix[..n].copy_from_slice(&bytes[..n]);
    u64::from_be_bytes(prefix)
}

/// The decimal digits of `number`, without allocating. `u64::MAX` has 20 digits.
pub(crate) fn decimal_digits(mut number: u64, buffer: &mut [u8; 20]) -> &[u8] {
    let mut start = buffer.len();
    loop {
        start -= 1;
        buffer[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &buffer[start..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    proptest! {
        #[test]
        fn sortable_prefixes_sort_as_the_strings(a in vec(0_u8..3, 0..12), b in vec(0_u8..3, 0..12)) {
            let (of_a, of_b) = (sortable_prefix(&a), sortable_prefix(&b));
            prop_assert_eq!(of_a.cmp(&of_b).then_with(|| a.cmp(&b)), a.cmp(&b));
        }
    }

    #[test]
    fn digits_are_those_of_display() {
        for number in [0, 7, 10, 9_999, u64::MAX] {
            let digits = decimal_digits(number, &mut [0; 20]).to_vec();
            assert_eq!(digits, number.to_string().into_bytes());
        }
    }
}
