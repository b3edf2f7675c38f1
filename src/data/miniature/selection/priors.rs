//! The greedy re-split of VQA-CP (Agrawal et al. 2018, Don't Just Assume; Look and Answer, section 3).

use std::collections::{BTreeSet, HashMap};

/// Share of the questions that goes to the test part.
const TEST_SHARE: f64 = 1.0 / 3.0;

/// Questions of one type with one answer.
struct Group<'a> {
    questions: Vec<usize>,
    /// The words of the type and of the answer.
    concepts: BTreeSet<&'a str>,
    /// Whether it is in the test part; none while that is open.
    test: Option<bool>,
}

/// Whether each question goes to the test part, from its type and its answer.
///
/// Groups of one type and answer stay whole. They are gone through from the smallest to the largest, those of equal size in
/// the order in which they first appear, since the paper leaves the order open: the test part thus has the answers that
/// are rare for their type, which its shift is about. Each group joins the test part unless it is in the training part
/// already, and then, of those that are in neither, the one that has most of the words that only the test part has joins
/// the training part. It ends when the test part has a third of the questions; the rest is training.
pub(super) fn test_split(questions: &[(&str, &str)]) -> Vec<bool> {
    let mut groups = groups(questions);
    let (mut tested, mut covered, mut open) = (0, BTreeSet::new(), BTreeSet::new());
    for at in 0..groups.len() {
        if groups[at].test.is_some() {
            continue;
        }
        groups[at].test = Some(true);
        tested += groups[at].questions.len();
        open.extend(groups[at].concepts.difference(&covered).copied());
        if tested as f64 >= TEST_SHARE * questions.len() as f64 {
            break;
        }
        let gain = |group: &Group| group.concepts.intersection(&open).count();
        let free = (0..groups.len()).filter(|other| groups[*other].test.is_none());
        // Of several, `max_by_key` takes the last, so that the first is the last of the reversed order.
        if let Some(best) = free.rev().max_by_key(|other| gain(&groups[*other])) {
            groups[best].test = Some(false);
            covered.extend(groups[best].concepts.iter().copied());
            open.retain(|concept| !covered.contains(concept));
        }
    }
    let mut test = vec![false; questions.len()];
    for group in groups.iter().filter(|group| group.test == Some(true)) {
        group.questions.iter().for_each(|question| test[*question] = true);
    }
    test
}

fn groups<'a>(questions: &[(&'a str, &'a str)]) -> Vec<Group<'a>> {
    let mut numbers: HashMap<(&str, &str), usize> = HashMap::new();
    let mut groups: Vec<Group> = Vec::new();
    for (question, (kind, answer)) in questions.iter().enumerate() {
        let number = *numbers.entry((kind, answer)).or_insert_with(|| {
            let concepts = kind.split_whitespace().chain(answer.split_whitespace()).collect();
            groups.push(Group { questions: Vec::new(), concepts, test: None });
            groups.len() - 1
        });
        groups[number].questions.push(question);
    }
    groups.sort_by_key(|group| group.questions.len());
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_split_goes_as_worked_out_by_hand() {
        // Groups from the smallest: C (how many, 3), D (what shape, 2), A (how many, 2), B (what color, red), E (is it, red).
        let questions = [
            ("how many", "2"),
            ("what color", "red"),
            ("how many", "3"),
            ("what shape", "2"),
            ("is it", "red"),
            ("how many", "2"),
            ("what color", "red"),
            ("is it", "red"),
            ("is it", "red"),
            ("what color", "red"),
        ];
        // C is tested (1 of 10): open are how, many, 3. A has two of them, the others none: A trains and leaves 3 open.
        // D is tested (2 of 10), which opens what and shape: B has one of them, E none: B trains.
        // E is tested (5 of 10, a third is reached).
        let expected = [false, false, true, true, true, false, false, true, true, false];
        assert_eq!(test_split(&questions), expected);
    }

    #[test]
    fn the_first_of_equal_groups_trains() {
        let questions: Vec<(&str, &str)> =
            ["a", "b", "c", "d", "e", "f", "g", "h", "i"].iter().map(|kind| (*kind, "x")).collect();
        let test = test_split(&questions);
        // a is tested and opens a and x; all others have x, so that the first of them, b, trains. c is tested and opens c,
        // which nobody else has: d trains, the first of what is left. e is tested, and three of nine are enough.
        let expected = [true, false, true, false, true, false, false, false, false];
        assert_eq!(test, expected);
    }

    #[test]
    fn no_type_has_an_answer_in_both_parts() {
        let kinds = ["what color is the", "how many", "is there", "what shape"];
        let answers = ["red", "blue", "1", "2", "yes", "no"];
        let questions: Vec<(&str, &str)> =
            (0..600).map(|at: usize| (kinds[at * at % 4], answers[at * 7 % 11 % 6])).collect();
        let test = test_split(&questions);
        for (left, is_tested) in questions.iter().zip(&test) {
            let same = questions.iter().zip(&test).filter(|(right, _)| *right == left);
            assert!(same.into_iter().all(|(_, other)| other == is_tested));
        }
        let share = test.iter().filter(|test| **test).count() as f64 / 600.0;
        assert!((1.0 / 3.0..0.6).contains(&share), "{share}");
    }
}
