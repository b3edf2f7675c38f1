//! The explorer of a page in a browser: opened from disk, filtered, searched and read with mouse and keyboard. With
//! `SCREENSHOTS=folder` in the environment, pictures of it are left there for a look.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use digrap_bench::store::Distances;
use serde_json::{Value, json};

use crate::chromium::Browser;
use crate::made_samples::{MODELS, Made, MadeSet, SHOWN, made_set};

pub const COUNT: &str = "document.getElementById('count').textContent";

fn grouped(number: usize) -> String {
    if number < 1000 { number.to_string() } else { format!("{},{:03}", grouped(number / 1000), number % 1000) }
}

/// The explorer in a browser, its samples read.
pub struct Explorer<'a> {
    pub made: &'a Made,
    pub folder: &'a Path,
    pub browser: Browser,
}

impl<'a> Explorer<'a> {
    pub fn open(made: &'a Made, folder: &'a Path, hash: &str) -> Self {
        let mut browser = Browser::start(1280, 900);
        browser.open(&folder.join("explorer.html"), hash);
        browser.wait_for("document.getElementById('samples') && !document.getElementById('samples').hidden");
        Self { made, folder, browser }
    }

    /// The list holds these samples: the count says so, and the rows of the first page are theirs.
    pub fn shows(&mut self, expected: &[(usize, usize)]) {
        let all: usize = self.made.sets.iter().map(MadeSet::len).sum();
        let count = format!("{} of {} samples", grouped(expected.len()), grouped(all));
        assert_eq!(self.browser.text(COUNT), count);
        let rows =
            self.browser.value("[...document.querySelectorAll('#list .question')].map((row) => row.textContent)");
        let questions: Vec<&str> = expected.iter().take(100).map(|at| self.made.question(*at)).collect();
        assert_eq!(rows, json!(questions));
    }

    /// The sample that is open, as its question.
    pub fn open_question(&mut self) -> Value {
        self.browser.value("document.querySelector('#detail h1')?.textContent ?? null")
    }

    /// Which places of the list are shown.
    fn page(&mut self) -> String {
        self.browser.text("document.getElementById('page').textContent")
    }

    /// What has the focus: its identifier, or its kind and the number of its sample.
    fn focus(&mut self) -> String {
        self.browser.text(
            "document.activeElement.id || document.activeElement.tagName + ' ' + document.activeElement.dataset.number",
        )
    }

    pub fn close(mut self) {
        self.browser.assert_quiet(self.folder);
    }
}

pub fn wait_for_question(explorer: &mut Explorer, at: (usize, usize)) {
    let question = json!(explorer.made.question(at));
    explorer.browser.wait_for(&format!("document.querySelector('#detail h1')?.textContent === {question}"));
}

#[test]
fn filters_select_what_the_samples_say() {
    let (made, folder) = (Made::new(400), tempfile::tempdir().unwrap());
    made.write(folder.path(), true);
    let mut explorer = Explorer::open(&made, folder.path(), "");
    explorer.shows(&made.that(|_, _| true));
    explorer.browser.choose("[name=dataset]", "far/away");
    explorer.shows(&made.that(|set, _| set.label == "Far"));
    explorer.browser.choose("[name=type]", "number");
    explorer.shows(&made.that(|set, at| set.label == "Far" && set.references().answer_type(at) == Some("number")));
    explorer.browser.choose("[name=dataset]", "");
    explorer.browser.choose("[name=type]", "");
    for (outcome, holds) in OUTCOMES {
        explorer.browser.choose("[name=outcome]", outcome);
        explorer.shows(&made.that(|set, at| holds(set.scores[SHOWN][at])));
    }
    explorer.browser.choose("[name=model]", "2");
    explorer.shows(&made.that(|set, at| OUTCOMES[3].1(set.scores[2][at])));
    explorer.browser.click("#reset");
    explorer.shows(&made.that(|_, _| true));
    explorer.browser.choose("[name=agreement]", "disagree");
    explorer.shows(&made.that(|set, at| (1..MODELS.len()).contains(&set.right(at))));
    explorer.browser.choose("[name=agreement]", "differ");
    let spelt = |set: &MadeSet, model: usize, at: usize| set.answers[model][at].to_lowercase();
    explorer.shows(&made.that(|set, at| (1..MODELS.len()).any(|model| spelt(set, model, at) != spelt(set, 0, at))));
    explorer.browser.choose("[name=agreement]", "wrong");
    explorer.shows(&made.that(|set, at| set.right(at) == 0));
    explorer.browser.choose("[name=agreement]", "right");
    explorer.shows(&made.that(|set, at| set.right(at) == MODELS.len()));
    explorer.browser.click("#reset");
    explorer.browser.choose("[name=outcome]", "right");
    explorer.browser.choose("[name=other]", "2");
    explorer.shows(&made.that(|set, at| set.scores[SHOWN][at] >= 0.5 && set.scores[2][at] < 0.5));
    explorer.close();
}

#[test]
fn letters_typed_at_a_persons_pace_all_arrive() {
    let (made, folder) = (Made::new(120), tempfile::tempdir().unwrap());
    made.write(folder.path(), false);
    let mut explorer = Explorer::open(&made, folder.path(), "");
    explorer.browser.press("/");
    for (letter, pause_ms) in "tennis next to".chars().zip([100, 150, 120, 140, 130, 110].into_iter().cycle()) {
        explorer.browser.press(&letter.to_string());
        std::thread::sleep(Duration::from_millis(pause_ms));
    }
    // Longer than the page waits before it writes its address.
    std::thread::sleep(Duration::from_millis(400));
    explorer.browser.write("k");
    assert_eq!(explorer.browser.text("document.querySelector('[name=text]').value"), "tennis next tok");
    explorer.browser.wait_for("location.hash === '#text=tennis+next+tok'");
    explorer.close();
}

/// A value of the filter, and the scores that it keeps.
type Outcome = (&'static str, fn(f64) -> bool);

/// The outcomes in the order in which they are offered.
const OUTCOMES: [Outcome; 4] = [
    ("wrong", |score| score < 0.5),
    ("right", |score| score >= 0.5),
    ("none", |score| score == 0.0),
    ("part", |score| score > 0.0 && score < 1.0),
];

#[test]
fn a_search_finds_questions_and_answers() {
    let (made, folder) = (Made::new(300), tempfile::tempdir().unwrap());
    made.write(folder.path(), false);
    let mut explorer = Explorer::open(&made, folder.path(), "");
    explorer.browser.press("/");
    explorer.browser.write("TENNIS");
    explorer.shows(&made.that(|set, at| set.says(at, "tennis")));
    explorer.browser.write(" racket");
    explorer.shows(&made.that(|set, at| set.says(at, "tennis") && set.says(at, "racket")));
    for (text, phrase) in [("\"next to the cat\"", "next to the cat"), ("äpfel", "äpfel"), ("nowhere said", "nowhere")]
    {
        explorer.browser.value("document.querySelector('[name=text]').select()");
        explorer.browser.write(text);
        explorer.shows_or_nothing(&made.that(|set, at| set.says(at, phrase)));
    }
    explorer.browser.click(".nothing button");
    explorer.shows(&made.that(|_, _| true));
    explorer.close();
}

impl Explorer<'_> {
    fn shows_or_nothing(&mut self, expected: &[(usize, usize)]) {
        self.shows(expected);
        let told = self.browser.value("document.querySelector('.nothing') !== null");
        assert_eq!(told, json!(expected.is_empty()));
    }
}

#[test]
fn distances_limit_and_order_the_list() {
    let (made, folder) = (Made::new(300), tempfile::tempdir().unwrap());
    made.write(folder.path(), false);
    let mut explorer = Explorer::open(&made, folder.path(), "");
    // The columns of the page hold single precision.
    let joint = |made: &Made, (set, at): (usize, usize)| {
        made.sets[set].distances[SHOWN][at].joint.map(|distance| distance as f32)
    };
    explorer.browser.choose("[name=order]", "farthest");
    let mut expected = made.that(|_, _| true);
    // Stable, and those without a distance last.
    expected.sort_by(|a, b| joint(&made, *b).unwrap_or(-1.0).total_cmp(&joint(&made, *a).unwrap_or(-1.0)));
    explorer.shows(&expected);
    explorer.browser.choose("[name=order]", "nearest");
    expected.sort();
    expected.sort_by(|a, b| joint(&made, *a).unwrap_or(99.0).total_cmp(&joint(&made, *b).unwrap_or(99.0)));
    explorer.shows(&expected);
    explorer.browser.click("[name=from]");
    explorer.browser.write("25.5");
    explorer.browser.click("[name=to]");
    explorer.browser.write("27");
    expected.retain(|at| joint(&made, *at).is_some_and(|distance| (25.5..=27.0).contains(&distance)));
    explorer.shows(&expected);
    explorer.browser.choose("[name=distance]", "vision:digrap mu=0.5");
    let vision = |(set, at): (usize, usize)| made.sets[set].distances[2][at].vision.unwrap() as f32;
    expected = made.that(|_, _| true);
    expected.retain(|at| (25.5..=27.0).contains(&vision(*at)));
    expected.sort_by(|a, b| vision(*a).total_cmp(&vision(*b)));
    explorer.shows(&expected);
    let note = |explorer: &mut Explorer| explorer.browser.text("document.querySelector('#list .notes').textContent");
    assert!(note(&mut explorer).ends_with(&format!("distance {:.2} (digrap mu=0.5)", vision(expected[0]))));
    explorer.close();
}

#[test]
fn a_distance_is_that_of_the_chosen_model() {
    let (made, folder) = (Made::new(120), tempfile::tempdir().unwrap());
    made.write(folder.path(), false);
    let mut explorer = Explorer::open(&made, folder.path(), "");
    for model in [SHOWN, 0, 2] {
        explorer.browser.choose("[name=model]", &model.to_string());
        let note = explorer.browser.text("document.querySelector('#list .notes').textContent");
        let distance = made.sets[0].distances[model][0].joint.unwrap();
        assert!(note.ends_with(&format!("distance {distance:.2}")), "{note}");
    }
    explorer.browser.choose("[name=order]", "farthest");
    let joint = |(set, at): (usize, usize)| made.sets[set].distances[2][at].joint.unwrap_or(-1.0) as f32;
    let mut expected = made.that(|_, _| true);
    expected.sort_by(|one, other| joint(*other).total_cmp(&joint(*one)));
    explorer.shows(&expected);
    explorer.close();
}

#[test]
fn scores_order_the_list() {
    let (made, folder) = (Made::new(300), tempfile::tempdir().unwrap());
    made.write(folder.path(), false);
    let mut explorer = Explorer::open(&made, folder.path(), "#order=worst");
    let score = |(set, at): (usize, usize)| made.sets[set].scores[SHOWN][at];
    let mut expected = made.that(|_, _| true);
    expected.sort_by(|a, b| score(*a).total_cmp(&score(*b)));
    explorer.shows(&expected);
    explorer.browser.choose("[name=order]", "best");
    expected.sort();
    expected.sort_by(|a, b| score(*b).total_cmp(&score(*a)));
    explorer.shows(&expected);
    explorer.close();
}

#[test]
fn a_link_opens_a_sample_and_back_returns() {
    let (made, folder) = (Made::new(300), tempfile::tempdir().unwrap());
    made.write(folder.path(), true);
    let mut explorer = Explorer::open(&made, folder.path(), "#dataset=far%2Faway&outcome=wrong&sample=far%2Faway/137");
    wait_for_question(&mut explorer, (2, 137));
    explorer.shows(&made.that(|set, at| set.label == "Far" && set.scores[SHOWN][at] < 0.5));
    let set = &made.sets[2];
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    set.references().answers(137).for_each(|answer| *counts.entry(answer.text).or_default() += 1);
    let people = explorer.browser.value(
        "Object.fromEntries([...document.querySelectorAll('.people li')].map((line) => \
         [line.querySelector('.said').textContent, parseInt(line.querySelector('.muted').textContent)]))",
    );
    assert_eq!(people, json!(counts));
    let models = explorer.browser.value(
        "[...document.querySelectorAll('#detail table')[0].querySelectorAll('tbody tr')].map((line) => \
         [line.querySelector('.said').textContent, line.querySelector('.number').textContent])",
    );
    let expected = (0..MODELS.len()).map(|model| (&set.answers[model][137], told_score(set.scores[model][137])));
    assert_eq!(models, json!(expected.collect::<Vec<_>>()));
    let distances = explorer.browser.value(
        "[...document.querySelectorAll('#detail table')[1].querySelectorAll('tbody tr')].map((line) => \
         line.querySelectorAll('td')[1].textContent)",
    );
    let expected = set.distances.iter().flat_map(|distances| {
        let Distances { vision, question, joint, .. } = distances[137];
        [vision, question, joint].map(|distance| format!("{:.2}", distance.unwrap()))
    });
    assert_eq!(distances, json!(expected.collect::<Vec<_>>()));
    // Another one, by a click, and back.
    let listed = made.that(|set, at| set.label == "Far" && set.scores[SHOWN][at] < 0.5);
    explorer.browser.click("#list li:nth-child(2) a");
    wait_for_question(&mut explorer, listed[1]);
    explorer.browser.back();
    wait_for_question(&mut explorer, (2, 137));
    explorer.close();
}

/// A score as the explorer tells it.
fn told_score(score: f64) -> String {
    format!("{} {:.2}", if score < 0.5 { "✗" } else { "✓" }, 100.0 * score)
}

#[test]
fn keys_move_open_and_close() {
    let (made, folder) = (Made::new(200), tempfile::tempdir().unwrap());
    made.write(folder.path(), true);
    let mut explorer = Explorer::open(&made, folder.path(), "");
    for key in ["j", "ArrowDown", "j", "k"] {
        explorer.browser.press(key);
    }
    assert_eq!(explorer.open_question(), Value::Null);
    explorer.browser.press("Enter");
    // The first key shows where the cursor is.
    wait_for_question(&mut explorer, (0, 1));
    explorer.browser.press("j");
    wait_for_question(&mut explorer, (0, 2));
    // Outside of the list arrows scroll.
    explorer.browser.press("ArrowUp");
    explorer.browser.press("k");
    wait_for_question(&mut explorer, (0, 1));
    explorer.browser.press("Escape");
    assert_eq!(explorer.open_question(), Value::Null);
    assert_eq!(explorer.focus(), "A 1");
    explorer.browser.press("?");
    assert_eq!(explorer.browser.value("document.getElementById('help').open"), json!(true));
    explorer.browser.press("j");
    explorer.browser.press("Escape");
    assert_eq!(explorer.browser.value("document.getElementById('help').open"), json!(false));
    explorer.browser.press("/");
    explorer.browser.write("jk?");
    assert_eq!(explorer.browser.text("document.querySelector('[name=text]').value"), "jk?");
    assert_eq!(explorer.browser.text(COUNT), "0 of 600 samples");
    for key in ["Enter", "j", "Escape"] {
        explorer.browser.press(key);
        assert_eq!(explorer.focus(), "list");
    }
    explorer.close();
}

#[test]
fn the_focus_stays_where_keys_go_on() {
    let (made, folder) = (Made::new(200), tempfile::tempdir().unwrap());
    made.write(folder.path(), true);
    let mut explorer = Explorer::open(&made, folder.path(), "");
    explorer.browser.click("#list li:nth-child(2) a");
    wait_for_question(&mut explorer, (0, 1));
    assert_eq!(explorer.focus(), "detail");
    explorer.browser.value("document.getElementById('next-sample').focus()");
    for at in 2..5 {
        explorer.browser.press("Enter");
        wait_for_question(&mut explorer, (0, at));
        assert_eq!(explorer.focus(), "next-sample");
    }
    explorer.browser.press("Tab");
    assert_eq!(explorer.focus(), "close");
    explorer.browser.press("Enter");
    assert_eq!((explorer.open_question(), explorer.focus()), (Value::Null, "A 4".to_owned()));
    explorer.browser.back();
    wait_for_question(&mut explorer, (0, 4));
    assert_eq!(explorer.focus(), "detail");
    // What is typed elsewhere is none of the list's keys.
    let shifted = "document.body.dispatchEvent(new KeyboardEvent('keydown', \
                   { key: 'j', isComposing: true, bubbles: true }))";
    explorer.browser.value(shifted);
    assert_eq!(explorer.open_question(), json!(made.question((0, 4))));
    explorer.close();
}

#[test]
fn a_narrow_window_shows_a_sample_from_its_top() {
    let (made, folder) = (Made::new(100), tempfile::tempdir().unwrap());
    made.write(folder.path(), true);
    let mut explorer = Explorer::open(&made, folder.path(), "");
    explorer.browser.resize(360, 600);
    explorer.browser.click("#list li:nth-child(60) a");
    wait_for_question(&mut explorer, (0, 59));
    let top = "document.getElementById('detail').getBoundingClientRect().top";
    assert!((0.0..200.0).contains(&explorer.browser.value(top).as_f64().unwrap()));
    explorer.browser.click("#close");
    let seen = "(() => { const box = document.activeElement.getBoundingClientRect(); \
                return box.top >= 0 && box.bottom <= innerHeight; })()";
    assert_eq!((explorer.focus(), explorer.browser.value(seen)), ("A 59".to_owned(), json!(true)));
    explorer.close();
}

#[test]
fn keys_turn_pages() {
    let (made, folder) = (Made::new(70), tempfile::tempdir().unwrap());
    made.write(folder.path(), false);
    let mut explorer = Explorer::open(&made, folder.path(), "#sample=counterfactual+vision/29");
    wait_for_question(&mut explorer, (1, 29));
    assert_eq!(explorer.page(), "1–100");
    explorer.browser.press("j");
    wait_for_question(&mut explorer, (1, 30));
    assert_eq!(explorer.page(), "101–200");
    explorer.browser.press("k");
    wait_for_question(&mut explorer, (1, 29));
    assert_eq!(explorer.page(), "1–100");
    explorer.browser.click("#next-page");
    explorer.browser.click("#next-page");
    assert_eq!((explorer.page(), explorer.focus()), ("201–210".to_owned(), "next-page".to_owned()));
    // The steps start from the open sample, wherever the list is.
    explorer.browser.click("#next-sample");
    wait_for_question(&mut explorer, (1, 30));
    assert_eq!(explorer.page(), "101–200");
    explorer.browser.press("Escape");
    assert_eq!(explorer.page(), "101–200");
    explorer.browser.click("#list li:nth-child(7) a");
    wait_for_question(&mut explorer, (1, 36));
    explorer.browser.back();
    explorer.browser.wait_for("document.querySelector('#detail h1') === null");
    assert_eq!(explorer.page(), "101–200");
    explorer.close();
}

#[test]
fn steps_follow_the_filters() {
    let (made, folder) = (Made::new(120), tempfile::tempdir().unwrap());
    made.write(folder.path(), false);
    let wrong = made.that(|set, at| set.scores[SHOWN][at] < 0.5);
    let last = *wrong.last().unwrap();
    let name = made.sets[last.0].dataset.name.replace('/', "%2F");
    let mut explorer = Explorer::open(&made, folder.path(), &format!("#sample={name}/{}", last.1));
    wait_for_question(&mut explorer, last);
    let off = |explorer: &mut Explorer| {
        ["previous-sample", "next-sample"]
            .map(|id| explorer.browser.text(&format!("document.getElementById('{id}').ariaDisabled")))
    };
    explorer.browser.choose("[name=outcome]", "wrong");
    assert_eq!(off(&mut explorer), ["false", "true"]);
    explorer.browser.choose("[name=outcome]", "right");
    assert_eq!(off(&mut explorer), ["true", "true"]);
    explorer.browser.choose("[name=outcome]", "wrong");
    explorer.browser.click("#previous-sample");
    wait_for_question(&mut explorer, wrong[wrong.len() - 2]);
    assert_eq!(off(&mut explorer), ["false", "false"]);
    explorer.close();
}

#[test]
fn windows_of_any_width_need_no_scrolling_sideways() {
    let (made, folder) = (Made::new(200), tempfile::tempdir().unwrap());
    made.write(folder.path(), true);
    let mut explorer = Explorer::open(&made, folder.path(), "#outcome=wrong");
    let ground = "getComputedStyle(document.body).backgroundColor";
    assert_eq!(explorer.browser.text(ground), "rgb(255, 255, 255)");
    explorer.browser.screenshot("explorer-light-list");
    explorer.browser.press("j");
    explorer.browser.press("Enter");
    explorer.browser.wait_for("document.querySelector('#detail h1') !== null");
    explorer.browser.screenshot("explorer-light");
    explorer.browser.prefer("dark");
    assert_eq!(explorer.browser.text(ground), "rgb(13, 17, 23)");
    explorer.browser.screenshot("explorer-dark");
    for width in [360, 800, 1280] {
        explorer.browser.resize(width, 800);
        let wide = explorer.browser.value("document.documentElement.scrollWidth");
        assert!(wide.as_u64().unwrap() <= u64::from(width), "{wide} pixels in a window of {width}");
        explorer.browser.screenshot(&format!("explorer-dark-{width}"));
    }
    explorer.browser.resize(360, 800);
    explorer.browser.press("Escape");
    assert_eq!(explorer.browser.value("document.querySelector('[name=type]').checkVisibility()"), json!(false));
    explorer.browser.click("#more");
    assert_eq!(explorer.browser.value("document.querySelector('[name=type]').checkVisibility()"), json!(true));
    explorer.browser.screenshot("explorer-narrow-list");
    explorer.close();
}

/// An input, what is given to it, and the samples that are kept then.
type Step = (&'static str, &'static str, fn(&MadeSet, usize) -> bool);

/// Measures what filters take: how long it is from the event of an input until the list is rendered. With `PAGE_SAMPLES=N`
/// in the environment there are N samples of `PAGE_MODELS` models, and the times are printed as rows of a table and have to
/// be below 200 ms; by default few, and what the list shows is checked alone.
#[test]
fn filters_of_many_samples() {
    let number = |name: &str| std::env::var(name).ok().map(|count| count.parse::<usize>().unwrap());
    let (asked, models) = (number("PAGE_SAMPLES"), number("PAGE_MODELS").unwrap_or(MODELS.len()));
    let folder = tempfile::tempdir().unwrap();
    let size = asked.unwrap_or(3000) / 10;
    let sets = (1..=10).map(|seed| made_set(&format!("set-{seed}"), "set", models, size, seed));
    let made = Made::of(sets.collect());
    made.write(folder.path(), false);
    let mut explorer = Explorer::open(&made, folder.path(), "");
    if asked.is_some() {
        let opened = explorer.browser.value("performance.now()");
        println!("| {models} | opening the page | | {:.0} |", opened.as_f64().unwrap());
    }
    explorer.shows(&made.that(|_, _| true));
    let steps: [Step; 14] = [
        ("type", "number", |set, at| set.references().answer_type(at) == Some("number")),
        ("type", "", |_, _| true),
        ("outcome", "wrong", |set, at| set.scores[SHOWN][at] < 0.5),
        ("outcome", "any", |_, _| true),
        ("other", "0", |set, at| set.scores[0][at] < 0.5),
        ("other", "", |_, _| true),
        ("agreement", "disagree", |set, at| (1..set.answers.len()).contains(&set.right(at))),
        ("agreement", "right", |set, at| set.right(at) == set.answers.len()),
        ("agreement", "differ", |set, at| {
            set.answers.iter().any(|said| said[at].to_lowercase() != set.answers[0][at].to_lowercase())
        }),
        ("agreement", "any", |_, _| true),
        ("text", "t", |set, at| set.says(at, "t")),
        ("text", "tennis next umbrella", |set, at| {
            ["tennis", "next", "umbrella"].iter().all(|word| set.says(at, word))
        }),
        ("text", "", |_, _| true),
        ("order", "farthest", |_, _| true),
    ];
    for (name, value, holds) in steps {
        let taken = explorer.browser.value(&format!(
            "(() => {{ const input = document.querySelector('[name={name}]'); input.value = '{value}'; \
             const start = performance.now(); input.dispatchEvent(new Event('input', {{ bubbles: true }})); \
             document.body.getBoundingClientRect(); return performance.now() - start; }})()"
        ));
        let taken = taken.as_f64().unwrap();
        if asked.is_some() {
            println!("| {models} | {name} | `{value}` | {taken:.0} |");
            assert!(taken < 200.0, "{name} {value:?} took {taken} ms");
        }
        let mut expected = made.that(holds);
        if value == "farthest" {
            let joint = |(set, at): (usize, usize)| made.sets[set].distances[SHOWN][at].joint.unwrap_or(-1.0) as f32;
            expected.sort_by(|one, other| joint(*other).total_cmp(&joint(*one)));
        }
        explorer.shows(&expected);
    }
    explorer.close();
}

/// The lowest contrast of a text with what is behind it (WCAG 2.2, relative luminance and contrast ratio), and that text.
/// Buttons that are off and figures, which have grounds of their own, are left out.
const LOWEST_CONTRAST: &str = "(() => {
  const rgba = (text) => text.match(/[\\d.]+/g).map(Number);
  const ground = (place) => {
    for (let at = place; at; at = at.parentElement) {
      const colour = rgba(getComputedStyle(at).backgroundColor);
      if (colour[3] !== 0) return colour;
    }
    return [255, 255, 255];
  };
  const linear = (value) => value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  let lowest = [99, ''];
  for (const place of document.body.querySelectorAll('*')) {
    const words = [...place.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!words || !place.checkVisibility() || place.closest('svg, script, [aria-disabled=true]')) continue;
    const [one, other] = [luminance(rgba(getComputedStyle(place).color)), luminance(ground(place))].sort((a, b) => b - a);
    const ratio = (one + 0.05) / (other + 0.05);
    if (ratio < lowest[0]) lowest = [ratio, `${place.className} ${place.textContent}`];
  }
  return lowest;
})()";

/// WCAG 2.2, success criterion 1.4.3.
const CONTRAST: f64 = 4.5;

#[test]
fn texts_stand_out_in_both_schemes() {
    let (made, folder) = (Made::new(100), tempfile::tempdir().unwrap());
    made.write(folder.path(), true);
    let mut explorer = Explorer::open(&made, folder.path(), "#sample=far%2Faway/9");
    wait_for_question(&mut explorer, (2, 9));
    for (page, hash) in [("explorer.html", "#sample=far%2Faway/9"), ("index.html", "")] {
        explorer.browser.open(&folder.path().join(page), hash);
        explorer.browser.wait_for("document.querySelectorAll('h1').length === 1");
        for scheme in ["light", "dark"] {
            explorer.browser.prefer(scheme);
            let lowest = explorer.browser.value(LOWEST_CONTRAST);
            let ratio = lowest[0].as_f64().unwrap();
            assert!((CONTRAST..30.0).contains(&ratio), "{page}, {scheme}: {lowest}");
        }
    }
    explorer.close();
}
