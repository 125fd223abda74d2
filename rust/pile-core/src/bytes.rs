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

/// Appends a number as LEB128: seven bits a byte, the low ones first; the high bit says that another byte follows.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Takes a number of [`put_varint`] from the start of `bytes`; `None` if they end within it or it exceeds 64 bits.
#[inline]
pub(crate) fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let (mut number, mut shift) = (0, 0);
    loop {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if shift >= 64 || bits << shift >> shift != bits {
            return None;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
        shift += 7;
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

    proptest! {
        #[test]
        fn varints_are_taken_as_they_were_put(numbers in vec(any::<u64>().prop_map(|n| n >> (n % 64)), 0..9)) {
            let mut bytes = Vec::new();
            numbers.iter().for_each(|number| put_varint(&mut bytes, *number));
            let mut rest = bytes.as_slice();
            for number in &numbers {
                prop_assert_eq!(take_varint(&mut rest), Some(*number));
            }
            prop_assert_eq!(take_varint(&mut rest), None);
        }
    }

    #[test]
    fn varints_that_end_early_or_are_too_large_are_refused() {
        for bytes in [&[][..], &[0x80], &[0xff; 9], &[0xff; 10], &[0x80; 11]] {
            assert_eq!(take_varint(&mut &*bytes), None);
        }
        let largest = [&[0xff; 9][..], &[1]].concat();
        assert_eq!(take_varint(&mut largest.as_slice()), Some(u64::MAX));
        let too_large = [&[0xff; 9][..], &[2]].concat();
        assert_eq!(take_varint(&mut too_large.as_slice()), None);
    }

    #[test]
    fn digits_are_those_of_display() {
        for number in [0, 7, 10, 9_999, u64::MAX] {
            let digits = decimal_digits(number, &mut [0; 20]).to_vec();
            assert_eq!(digits, number.to_string().into_bytes());
        }
    }
}
