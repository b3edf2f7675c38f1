//! Values as scripts: a page that was opened from disk may not fetch files, but may load scripts, and each of these hands
//! one value to the page's function `receive`.

use serde::Serialize;

use crate::error::{Error, Result};

/// A script that hands over a value under the name of its file.
pub(super) fn script(name: &str, value: &impl Serialize) -> Result<String> {
    Ok(format!("receive({},{});\n", literal(&name)?, literal(value)?))
}

/// A value as an expression of JavaScript that is harmless wherever it stands: JSON without `<`, which could end a script
/// within a page, and without the line ends that JSON allows in strings and older JavaScript does not.
fn literal(value: &impl Serialize) -> Result<String> {
    let json = serde_json::to_string(value)
        .map_err(|cause| Error::internal("cannot write the data of a page as JSON").caused_by(cause))?;
    // In JSON these occur within strings alone.
    let escapes = [('<', "\\u003c"), ('\u{2028}', "\\u2028"), ('\u{2029}', "\\u2029")];
    Ok(escapes.into_iter().fold(json, |json, (character, escape)| match json.contains(character) {
        true => json.replace(character, escape),
        false => json,
    }))
}

/// A column of numbers as the base64 text of their little-endian bytes (RFC 4648, section 4), which a page reads several
/// times faster than a list.
pub(super) fn column<const N: usize>(bytes: impl Iterator<Item = [u8; N]>) -> String {
    base64(&bytes.flatten().collect::<Vec<u8>>())
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let value = bits >> (18 - 6 * digit) & 63;
            text.push(if digit <= group.len() { char::from(DIGITS[value as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_those_of_rfc_4648() {
        // Section 10 of the RFC.
        for (bytes, expected) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(bytes.as_bytes()), expected);
        }
        assert_eq!(column([0x0403_0201_u32, 0xffff_ffff].into_iter().map(u32::to_le_bytes)), "AQIDBP////8=");
    }

    #[test]
    fn nothing_ends_a_script_early() {
        let text = script("a", &["</script><!--", "\u{2028}\u{2029}\"\\\n"]).unwrap();
        assert_eq!(text, "receive(\"a\",[\"\\u003c/script>\\u003c!--\",\"\\u2028\\u2029\\\"\\\\\\n\"]);\n");
    }
}
