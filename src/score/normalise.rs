//! Answer normalisation, string to string, exactly as the published evaluators do it.
//!
//! All of them share two steps, [`punctuation`] and [`digit_article`], whose slips are part of the definition:
//! scores are only comparable if everybody makes the same ones. Whitespace, digits and lower case are Python 3's.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

/// Contractions of the official evaluator (`GT-Vision-Lab/VQA`, `vqaEval.py`), as `key>value`; the same 120 pairs are
/// in LAVIS, MMF and lmms-eval. Keys with capitals are never reached, for tokens are lower case by then.
const CONTRACTIONS: &str = "\
    aint>ain't arent>aren't cant>can't couldve>could've couldnt>couldn't couldn'tve>couldn't've \
    couldnt've>couldn't've didnt>didn't doesnt>doesn't dont>don't hadnt>hadn't hadnt've>hadn't've hadn'tve>hadn't've \
    hasnt>hasn't havent>haven't hed>he'd hed've>he'd've he'dve>he'd've hes>he's howd>how'd howll>how'll hows>how's \
    Id've>I'd've I'dve>I'd've Im>I'm Ive>I've isnt>isn't itd>it'd itd've>it'd've it'dve>it'd've itll>it'll \
    let's>let's maam>ma'am mightnt>mightn't mightnt've>mightn't've mightn'tve>mightn't've mightve>might've \
    mustnt>mustn't mustve>must've neednt>needn't notve>not've oclock>o'clock oughtnt>oughtn't ow's'at>'ow's'at \
    'ows'at>'ow's'at 'ow'sat>'ow's'at shant>shan't shed've>she'd've she'dve>she'd've she's>she's shouldve>should've \
    shouldnt>shouldn't shouldnt've>shouldn't've shouldn'tve>shouldn't've somebody'd>somebodyd \
    somebodyd've>somebody'd've somebody'dve>somebody'd've somebodyll>somebody'll somebodys>somebody's \
    someoned>someone'd someoned've>someone'd've someone'dve>someone'd've someonell>someone'll someones>someone's \
    somethingd>something'd somethingd've>something'd've something'dve>something'd've somethingll>something'll \
    thats>that's thered>there'd thered've>there'd've there'dve>there'd've therere>there're theres>there's \
    theyd>they'd theyd've>they'd've they'dve>they'd've theyll>they'll theyre>they're theyve>they've twas>'twas \
    wasnt>wasn't wed've>we'd've we'dve>we'd've weve>we've werent>weren't whatll>what'll whatre>what're whats>what's \
    whatve>what've whens>when's whered>where'd wheres>where's whereve>where've whod>who'd whod've>who'd've \
    who'dve>who'd've wholl>who'll whos>who's whove>who've whyll>why'll whyre>why're whys>why's wont>won't \
    wouldve>would've wouldnt>wouldn't wouldnt've>wouldn't've wouldn'tve>wouldn't've yall>y'all yall'll>y'all'll \
    y'allll>y'all'll yall'd've>y'all'd've y'alld've>y'all'd've y'all'dve>y'all'd've youd>you'd youd've>you'd've \
    you'dve>you'd've youll>you'll youre>you're youve>you've";

/// Pairs that the VizWiz API spells with the ASCII apostrophe in key and value, and those with it in the key alone.
const VIZWIZ_ASCII: [&str; 8] = ["aint", "arent", "cant", "couldve", "couldnt", "weve", "wheres", "whove"];
const VIZWIZ_ASCII_KEY: [&str; 2] = ["couldn'tve", "hadn'tve"];

/// First digit of each run of ten decimal digits of Unicode (category Nd), which Python's `\d` accepts.
const DECIMAL_ZEROS: [u32; 66] = [
    0x30, 0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6, 0xe50, 0xed0,
    0xf20, 0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50, 0x1bb0, 0x1c40, 0x1c50, 0xa620,
    0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10, 0x104a0, 0x10d30, 0x11066, 0x110f0, 0x11136, 0x111d0,
    0x112f0, 0x11450, 0x114d0, 0x11650, 0x116c0, 0x11730, 0x118e0, 0x11950, 0x11c50, 0x11d50, 0x11da0, 0x16a60,
    0x16ac0, 0x16b50, 0x1d7ce, 0x1d7d8, 0x1d7e2, 0x1d7ec, 0x1d7f6, 0x1e140, 0x1e2f0, 0x1e950, 0x1fbf0,
];

/// `re.UNICODE` is passed where `re.sub` expects a count, and its value is 32.
const PERIODS_REMOVED_AT_MOST: usize = 32;

/// What counts as a number with thousands separators, which makes every punctuation mark vanish without a space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comma {
    /// Digit, comma, digit (official, LAVIS, VizWiz).
    One,
    /// Digit, one or more commas, digit (MMF, lmms-eval).
    Run,
}

/// The spelling of the contraction table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contractions {
    /// ASCII apostrophes.
    Official,
    /// Curly apostrophes in most pairs, so that ASCII tokens rarely match (VizWiz API).
    VizWiz,
}

/// Step one: each of 21 marks is deleted if it touches a space anywhere in the text or the text holds a number with
/// commas, else replaced by a space; then periods that no digit follows are deleted, 32 at most.
pub fn punctuation(text: &str, comma: Comma) -> String {
    let delete_all = has_number_with_comma(text, comma);
    let touches_space = |mark: char| {
        text.match_indices(mark).any(|(at, _)| text[at + 1..].starts_with(' ') || text[..at].ends_with(' '))
    };
    let mut replaced = String::with_capacity(text.len());
    for character in text.chars() {
        if !is_mark(character) {
            replaced.push(character);
        } else if !delete_all && !touches_space(character) {
            replaced.push(' ');
        }
    }
    if replaced.contains('.') { without_periods(&replaced) } else { replaced }
}

/// Step two: lower case, number words to digits, articles dropped, contractions restored, single spaces.
pub fn digit_article(text: &str, contractions: Contractions) -> String {
    let lower = text.to_lowercase();
    let contraction = |word: &str| match contractions {
        Contractions::Official => OFFICIAL.get(word).copied(),
        Contractions::VizWiz => VIZWIZ.get(word).map(String::as_str),
    };
    let mut out = String::with_capacity(lower.len());
    let words = lower.split(is_python_space).filter(|word| !word.is_empty());
    for word in words.map(digit_of_word).filter(|word| !matches!(*word, "a" | "an" | "the")) {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(contraction(word).unwrap_or(word));
    }
    out
}

/// Line feeds and tabs to spaces, then stripped; what the evaluators do before the two steps.
pub fn trimmed(text: &str) -> Cow<'_, str> {
    let outer = text.trim_matches(is_python_space);
    if outer.contains(['\n', '\t']) { Cow::Owned(outer.replace(['\n', '\t'], " ")) } else { Cow::Borrowed(outer) }
}

/// The whole official normalisation (`GT-Vision-Lab/VQA`): trimmed, punctuation, digits and articles.
pub fn official(text: &str) -> String {
    digit_article(&punctuation(&trimmed(text), Comma::One), Contractions::Official)
}

/// As [`official`], with lmms-eval's rule for commas (`lmms_eval/tasks/vqav2/utils.py`).
pub fn lmms_eval(text: &str) -> String {
    digit_article(&punctuation(&trimmed(text), Comma::Run), Contractions::Official)
}

/// As [`official`], with the contractions of the VizWiz API.
pub fn vizwiz(text: &str) -> String {
    digit_article(&punctuation(&trimmed(text), Comma::One), Contractions::VizWiz)
}

/// MMF's EvalAI processor (`mmf/utils/m4c_evaluators.py`): commas and question marks vanish and `'s` is split off first.
pub fn evalai(text: &str) -> String {
    let tokens = text.to_lowercase().replace([',', '?'], "").replace("'s", " 's");
    lmms_eval(&tokens)
}

fn is_mark(character: char) -> bool {
    matches!(
        character,
        ';' | '/'
            | '['
            | ']'
            | '"'
            | '{'
            | '}'
            | '('
            | ')'
            | '='
            | '+'
            | '\\'
            | '_'
            | '-'
            | '>'
            | '<'
            | '@'
            | '`'
            | ','
            | '?'
            | '!'
    )
}

/// Python's `str.isspace`, which adds the four ASCII separators to Unicode's white space.
fn is_python_space(character: char) -> bool {
    character.is_whitespace() || matches!(character, '\x1c'..='\x1f')
}

fn is_decimal_digit(character: char) -> bool {
    if character.is_ascii() {
        return character.is_ascii_digit();
    }
    let code = u32::from(character);
    let following = DECIMAL_ZEROS.partition_point(|&zero| zero <= code);
    code - DECIMAL_ZEROS[following.saturating_sub(1)] < 10
}

fn has_number_with_comma(text: &str, comma: Comma) -> bool {
    text.match_indices(',').any(|(at, _)| {
        let after = match comma {
            Comma::One => &text[at + 1..],
            Comma::Run => text[at + 1..].trim_start_matches(','),
        };
        text[..at].ends_with(is_decimal_digit) && after.starts_with(is_decimal_digit)
    })
}

fn without_periods(text: &str) -> String {
    let mut removed = 0;
    let mut out = String::with_capacity(text.len());
    for (at, character) in text.char_indices() {
        let lone = character == '.' && !text[at + 1..].starts_with(is_decimal_digit);
        if lone && removed < PERIODS_REMOVED_AT_MOST {
            removed += 1;
        } else {
            out.push(character);
        }
    }
    out
}

fn digit_of_word(word: &str) -> &str {
    match word {
        "none" | "zero" => "0",
        "one" => "1",
        "two" => "2",
        "three" => "3",
        "four" => "4",
        "five" => "5",
        "six" => "6",
        "seven" => "7",
        "eight" => "8",
        "nine" => "9",
        "ten" => "10",
        other => other,
    }
}

static OFFICIAL: LazyLock<HashMap<&str, &str>> =
    LazyLock::new(|| CONTRACTIONS.split(' ').filter_map(|pair| pair.split_once('>')).collect());

static VIZWIZ: LazyLock<HashMap<String, String>> = LazyLock::new(|| {
    let curly = |text: &str| text.replace('\'', "\u{2019}");
    let respelt = OFFICIAL.iter().map(|(&key, &value)| match key {
        _ if VIZWIZ_ASCII.contains(&key) => (key.to_owned(), value.to_owned()),
        _ if VIZWIZ_ASCII_KEY.contains(&key) => (key.to_owned(), curly(value)),
        _ => (curly(key), curly(value)),
    });
    respelt.collect()
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn official_and_evalai_agree_with_the_reference_rules() {
        let periods = ".".repeat(40);
        let left_over = ".".repeat(8);
        let rows = [
            ("The dog.", "dog", "dog"),
            ("100,978 people!", "100978 people", "100978 people"),
            ("1,,000", "1 000", "1000"),
            ("yes,no", "yes no", "yesno"),
            ("black, white", "black white", "black white"),
            ("1,5 -x", "15 x", "15 x"),
            ("a b-c, d", "b c d", "b c d"),
            ("t-shirt", "t shirt", "t shirt"),
            ("red / blue", "red blue", "red blue"),
            ("3:50 pm", "3:50 pm", "3:50 pm"),
            ("U.S.A.", "usa", "usa"),
            ("3.", "3", "3"),
            (".5", ".5", ".5"),
            ("5.x", "5x", "5x"),
            ("x.5", "x.5", "x.5"),
            ("it's", "it's", "it 's"),
            ("Dont", "don't", "don't"),
            ("Im", "im", "im"),
            ("none", "0", "0"),
            ("Zero", "0", "0"),
            ("eleven", "eleven", "eleven"),
            ("$5", "$5", "$5"),
            ("50%", "50%", "50%"),
            ("the a", "", ""),
            ("somebody'd", "somebodyd", "somebodyd"),
            (&periods, &left_over, &left_over),
        ];
        for (input, expected_official, expected_evalai) in rows {
            assert_eq!(official(input), expected_official, "official of {input:?}");
            assert_eq!(evalai(input), expected_evalai, "evalai of {input:?}");
        }
    }

    #[test]
    fn the_table_has_every_pair_once() {
        assert_eq!((OFFICIAL.len(), VIZWIZ.len()), (120, 120));
        assert_eq!(OFFICIAL["youve"], "you've");
    }

    #[test]
    fn vizwiz_writes_curly_apostrophes() {
        assert_eq!(vizwiz("dont wheres couldn'tve"), "don\u{2019}t where's couldn\u{2019}t\u{2019}ve");
        assert_eq!(vizwiz("couldn\u{2019}tve"), "couldn\u{2019}tve");
    }

    #[test]
    fn digits_and_spaces_are_those_of_python() {
        assert!("٣９\u{1d7ff}".chars().all(is_decimal_digit));
        assert!(!"²Ⅷx\u{1d7cd}\u{1d800}".chars().any(is_decimal_digit));
        assert_eq!(official("١,٢-x"), "١٢x");
        assert_eq!(official("two\u{1c}the\u{a0}cats"), "2 cats");
    }
}
