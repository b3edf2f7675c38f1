//! Small letters of four by six pixels.

/// Width of a letter in pixels.
pub(super) const WIDTH: i32 = 4;
/// Height of a letter in pixels.
pub(super) const HEIGHT: i32 = 6;

/// The rows of a letter from the top, the leftmost pixel in the highest of four bits; other characters are blank.
pub(super) fn rows(letter: char) -> [u8; HEIGHT as usize] {
    match letter {
        'a' => [0b0110, 0b1001, 0b1001, 0b1111, 0b1001, 0b1001],
        'b' => [0b1110, 0b1001, 0b1110, 0b1001, 0b1001, 0b1110],
        'c' => [0b0111, 0b1000, 0b1000, 0b1000, 0b1000, 0b0111],
        'd' => [0b1110, 0b1001, 0b1001, 0b1001, 0b1001, 0b1110],
        'e' => [0b1111, 0b1000, 0b1110, 0b1000, 0b1000, 0b1111],
        'f' => [0b1111, 0b1000, 0b1110, 0b1000, 0b1000, 0b1000],
        'g' => [0b0111, 0b1000, 0b1011, 0b1001, 0b1001, 0b0111],
        'i' => [0b1110, 0b0100, 0b0100, 0b0100, 0b0100, 0b1110],
        'j' => [0b0011, 0b0001, 0b0001, 0b0001, 0b1001, 0b0110],
        'k' => [0b1001, 0b1010, 0b1100, 0b1100, 0b1010, 0b1001],
        'm' => [0b1001, 0b1111, 0b1111, 0b1001, 0b1001, 0b1001],
        'n' => [0b1001, 0b1101, 0b1101, 0b1011, 0b1011, 0b1001],
        'o' => [0b0110, 0b1001, 0b1001, 0b1001, 0b1001, 0b0110],
        'p' => [0b1110, 0b1001, 0b1001, 0b1110, 0b1000, 0b1000],
        'r' => [0b1110, 0b1001, 0b1001, 0b1110, 0b1010, 0b1001],
        's' => [0b0111, 0b1000, 0b0110, 0b0001, 0b0001, 0b1110],
        't' => [0b1111, 0b0100, 0b0100, 0b0100, 0b0100, 0b0100],
        'u' => [0b1001, 0b1001, 0b1001, 0b1001, 0b1001, 0b0110],
        'x' => [0b1001, 0b1001, 0b0110, 0b0110, 0b1001, 0b1001],
        'y' => [0b1001, 0b1001, 0b0101, 0b0010, 0b0010, 0b0010],
        'z' => [0b1111, 0b0001, 0b0010, 0b0100, 0b1000, 0b1111],
        _ => [0; HEIGHT as usize],
    }
}

#[cfg(test)]
mod tests {
    use super::super::scene::SIGN_WORDS;
    use super::*;

    #[test]
    fn every_letter_on_signs_can_be_drawn_and_told_from_the_others() {
        let letters: std::collections::BTreeSet<char> = SIGN_WORDS.iter().flat_map(|word| word.chars()).collect();
        let drawn: std::collections::BTreeSet<[u8; 6]> = letters.iter().map(|letter| rows(*letter)).collect();
        assert_eq!(drawn.len(), letters.len());
        assert!(!drawn.contains(&[0; 6]));
    }
}
