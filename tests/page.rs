//! The page as files: what is written where, what it replaces, the leaderboard in a browser, and the way from a store to it.
//! With `SCREENSHOTS=folder` in the environment, pictures of it are left there for a look.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use digrap_bench::report::figure::Figure;
use digrap_bench::report::page::{Page, write_page};
use digrap_bench::report::{SensitivityPlot, sensitivity};
use digrap_bench::score::References;
use digrap_bench::store::{Store, StoredModel};
use digrap_bench::suite::Entry;
use serde_json::{Value, json};

use crate::chromium::Browser;
use crate::explorer::{COUNT, Explorer, wait_for_question};
use crate::made_samples::{MODELS, Made, made_set, run_named};
use crate::support::{fixture, program_at};

#[test]
fn images_are_small_files_and_missing_ones_are_told() {
    let (made, folder) = (Made::new(120), tempfile::tempdir().unwrap());
    let told = made.write(folder.path(), true);
    let unreadable =
        r#"Unreadable { dataset: "far/away", images: 6, first: "3", cause: "the file is empty: no bytes" }"#;
    assert!(told.contains(&unreadable.to_owned()), "{told:?}");
    let names: Vec<String> = fs::read_dir(folder.path().join("images/far-away"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names.len(), 40 - 6, "{names:?}");
    assert!(names.contains(&"0.png".to_owned()) && names.contains(&"1.jpg".to_owned()), "{names:?}");
    let mut explorer = Explorer::open(&made, folder.path(), "#sample=far%2Faway/3");
    explorer.browser.wait_for("document.querySelector('.picture img')?.naturalWidth === 256");
    explorer.browser.open(&folder.path().join("explorer.html"), "#sample=far%2Faway/9");
    explorer.browser.wait_for("document.querySelector('.picture.missing')?.textContent.includes('could not be read')");
    explorer.browser.assert_quiet(folder.path());
    // An image that was lost since, and that the list has not shown.
    fs::remove_file(folder.path().join("images/far-away/39.jpg")).unwrap();
    explorer.browser.open(&folder.path().join("explorer.html"), "#sample=far%2Faway/117");
    explorer.browser.wait_for("document.querySelector('.picture.missing')?.textContent.includes('far-away/39.jpg')");
}

#[test]
fn a_page_takes_the_place_of_an_earlier_one_alone() {
    let (made, root) = (Made::new(60), tempfile::tempdir().unwrap());
    let page = root.path().join("page");
    let folders = |below: &str| {
        let entries = fs::read_dir(page.join(below)).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    made.write(&page, true);
    assert_eq!(folders("images"), ["counterfactual-vision", "far-away", "in-distribution"]);
    made.write(&page, false);
    assert!(!page.join("images").exists(), "images of the earlier page");
    Made::of(vec![made_set("in-distribution", "ID", MODELS.len(), 60, 1)]).write(&page, false);
    assert_eq!(folders("data"), ["catalogue.js", "in-distribution"]);
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "what is beside the page");
    // What somebody has put into the page stays, and so does the page.
    made.write(&page, true);
    let catalogue = fs::read(page.join("data/catalogue.js")).unwrap();
    let (board, samples) = (made.board(), made.samples());
    for other in
        ["notes.txt", "assets/mine.js", "data/x.csv", "data/far-away/samples-x.js", "figures/a.pdf", "images/1.jpg"]
    {
        fs::create_dir_all(page.join(other).parent().unwrap()).unwrap();
        fs::write(page.join(other), "mine").unwrap();
        let without = Page { board: &board, figures: &[], samples: &samples, images: false };
        let error = write_page(&without, &page, &mut |_| {}).unwrap_err().to_string();
        assert!(error.ends_with(&format!("holds `{other}`, which is no part of an earlier page")), "{error}");
        assert_eq!(fs::read_to_string(page.join(other)).unwrap(), "mine");
        assert_eq!(fs::read(page.join("data/catalogue.js")).unwrap(), catalogue);
        fs::remove_file(page.join(other)).unwrap();
    }
    fs::remove_dir(page.join("figures")).unwrap();
    made.write(&page, true);
    // Neither other folders nor files are touched.
    let foreign = root.path().join("notes");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("index.html"), "mine").unwrap();
    let (board, samples) = (made.board(), made.samples());
    let page = Page { board: &board, figures: &[], samples: &samples, images: false };
    for (target, expected) in
        [("notes", "holds something else than an earlier page"), ("notes/index.html", "is no folder")]
    {
        let error = write_page(&page, root.path().join(target), &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains(expected), "{error:?}");
    }
    assert_eq!(fs::read_to_string(foreign.join("index.html")).unwrap(), "mine");
    assert_eq!(fs::read_dir(&foreign).unwrap().count() + fs::read_dir(root.path()).unwrap().count(), 3);
}

#[test]
fn the_explorer_tells_of_a_limit() {
    let (made, folder) = (Made::new(30), tempfile::tempdir().unwrap());
    let (board, mut samples) = (made.board(), made.samples());
    samples.limit = Some(30);
    let page = Page { board: &board, figures: &[], samples: &samples, images: false };
    write_page(&page, folder.path(), &mut |_| {}).unwrap();
    let mut explorer = Explorer::open(&made, folder.path(), "");
    assert_eq!(explorer.browser.text("document.getElementById('limit').textContent"), "(first 30 of each dataset)");
    explorer.close();
}

/// A figure of accuracies by a parameter.
fn sweep(title: &str) -> Figure {
    let series = [("ID".to_owned(), vec![Some(70.0), Some(80.0)])];
    let plot = SensitivityPlot { title, parameter: "mu", values: &[0.1, 1.0], series: &series };
    Figure { title: title.to_owned(), ..sensitivity(&[plot]) }
}

#[test]
fn hostile_texts_do_no_harm() {
    let attack = "</script><img src=x onerror=\"window.harmed=1\"><!--\u{2028}'`${window.harmed=1}&amp;\u{2029}\\";
    let folder = tempfile::tempdir().unwrap();
    let mut made = Made::of(vec![made_set(attack, "ID", MODELS.len(), 20, 1)]);
    let set = &mut made.sets[0];
    set.dataset.questions[4].text = attack.into();
    let mut references = References::builder();
    for _ in 0..20 {
        references.answer(attack, Some(attack), None).unwrap();
        references.answer("__proto__", None, None).unwrap();
        references.end_question(Some(attack), Some(attack)).unwrap();
    }
    set.dataset.references = Some(references.finish());
    set.answers[1] = vec![attack.to_owned(); 20];
    let mut samples = made.samples();
    samples.models[1].name = attack;
    let mut board = made.board();
    board.suite = "{{content}}<script>window.harmed = 1</script>".to_owned();
    board.entries[1] = Entry { name: attack.to_owned(), runs: vec![run_named(attack)], ..board.entries[1].clone() };
    let figures = [(format!("../{attack}"), sweep(attack)), (format!("..\\{attack}"), sweep("y"))];
    let page = Page { board: &board, figures: &figures, samples: &samples, images: true };
    write_page(&page, folder.path(), &mut |_| {}).unwrap();
    assert_eq!(fs::read_dir(folder.path().join("figures")).unwrap().count(), 2);
    let data = fs::read_dir(folder.path().join("data")).unwrap().count();
    assert_eq!(data, 2, "a folder and the catalogue");
    let mut explorer = Explorer::open(&made, folder.path(), "");
    explorer.browser.press("/");
    explorer.browser.write("onerror");
    assert_eq!(explorer.browser.text(COUNT), "20 of 20 samples");
    for step in 0..5 {
        explorer.browser.press(if step == 0 { "Enter" } else { "j" });
    }
    explorer.browser.press("Enter");
    wait_for_question(&mut explorer, (0, 4));
    let said =
        explorer.browser.value("[...document.querySelectorAll('#detail .said')].map((text) => text.textContent)");
    assert_eq!(said.as_array().unwrap().iter().filter(|text| **text == json!(attack)).count(), 2, "{said}");
    assert_eq!(explorer.browser.value("window.harmed ?? null"), Value::Null);
    explorer.browser.open(&folder.path().join("index.html"), "");
    assert_eq!(
        explorer.browser.text("document.querySelector('h1').textContent"),
        format!("Leaderboard: {}", board.suite)
    );
    let titles = "[...document.querySelectorAll('.figures svg > title')].map((title) => title.textContent)";
    assert_eq!(explorer.browser.value(titles)[0], json!(attack));
    assert_eq!(explorer.browser.value("document.querySelectorAll('.figures img').length"), json!(0));
    explorer.browser.click("#board tbody tr:nth-child(2) td a");
    explorer.browser.wait_for("document.getElementById('samples') && !document.getElementById('samples').hidden");
    assert_eq!(explorer.browser.text("document.querySelector('[name=dataset]').value"), attack);
    assert_eq!(explorer.browser.value("window.harmed ?? null"), Value::Null);
    explorer.close();
}

#[test]
fn the_leaderboard_sorts_finds_and_opens_samples() {
    let (made, folder) = (Made::new(200), tempfile::tempdir().unwrap());
    made.write(folder.path(), false);
    let mut browser = Browser::start(1280, 900);
    browser.open(&folder.path().join("index.html"), "");
    browser.screenshot("leaderboard-light");
    let left_out = "[...document.querySelectorAll('h2')].find((head) => head.textContent === 'Left out').closest('details')\
                    .querySelector('li').textContent";
    assert_eq!(browser.text(left_out), format!("{}: question 7 of <b>made</b> has no answer", MODELS[0].0));
    let names = "[...document.querySelectorAll('#board tbody.measured th')].filter((name) => name.checkVisibility())\
                 .map((name) => name.firstChild.textContent.trim())";
    let by = |set: usize| {
        let mut models: Vec<usize> = (0..MODELS.len()).collect();
        models
            .sort_by(|one, other| made.sets[set].cell(*other).accuracy.total_cmp(&made.sets[set].cell(*one).accuracy));
        models.into_iter().map(|model| MODELS[model].0).collect::<Vec<_>>()
    };
    let given = MODELS.map(|(name, _)| name);
    assert_eq!(browser.value(names), json!(given));
    browser.click("#board thead th:nth-child(3) button");
    assert_eq!(browser.value(names), json!(by(1)));
    browser.click("#board thead th:nth-child(3) button");
    assert_eq!(browser.value(names), json!(by(1).into_iter().rev().collect::<Vec<_>>()));
    browser.click("#board thead th:nth-child(3) button");
    assert_eq!(browser.value(names), json!(given));
    // A row without the average is last whichever way the others go.
    browser.click("#board thead th:nth-child(5) button");
    browser.click("#board thead th:nth-child(5) button");
    assert_eq!(browser.value(names).as_array().unwrap().last(), Some(&json!("base")));
    let last = browser.text("[...document.querySelectorAll('#board tbody tr')].at(-1).textContent");
    assert!(last.starts_with("Vanilla FT"), "{last}");
    browser.click("#filter");
    browser.write("digrap");
    assert_eq!(browser.value(names), json!(["digrap mu=0.5"]));
    assert_eq!(browser.text("document.getElementById('rows').textContent"), "1 of 4 rows");
    browser.prefer("dark");
    browser.screenshot("leaderboard-dark");
    for width in [360, 800] {
        browser.resize(width, 800);
        let wide = browser.value("document.documentElement.scrollWidth");
        assert!(wide.as_u64().unwrap() <= u64::from(width), "{wide} pixels in a window of {width}");
        browser.screenshot(&format!("leaderboard-dark-{width}"));
    }
    browser.resize(1280, 900);
    browser.click("#board tbody.measured tr:not([hidden]) td:nth-child(4) a");
    let mut explorer = Explorer { made: &made, folder: folder.path(), browser };
    explorer.browser.wait_for("document.getElementById('samples') && !document.getElementById('samples').hidden");
    explorer.shows(&made.that(|set, _| set.label == "Far"));
    assert_eq!(explorer.browser.text("document.querySelector('[name=model]').value"), "2");
    explorer.close();
}

#[test]
fn the_same_samples_give_the_same_bytes() {
    let made = Made::new(300);
    let (board, samples, figures) = (made.board(), made.samples(), [("sweep".to_owned(), sweep("Sweep"))]);
    let page = Page { board: &board, figures: &figures, samples: &samples, images: true };
    let [first, second] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    for folder in [&first, &second, &second] {
        write_page(&page, folder.path(), &mut |_| {}).unwrap();
    }
    let files = files_below(first.path());
    assert!(files.len() > 100 && files.contains_key("figures/sweep.svg"), "{}", files.len());
    assert!(files == files_below(second.path()));
    // An image's own document has to name its language.
    let namespace = "http://www.w3.org/2000/svg";
    let names_others = |(name, bytes): &(&String, &Vec<u8>)| {
        let text = String::from_utf8_lossy(bytes);
        let text = if name.ends_with(".svg") { text.replacen(namespace, "", 1) } else { text.into_owned() };
        text.contains("://")
    };
    let addresses = files.iter().filter(names_others);
    assert_eq!(addresses.map(|(name, _)| name).collect::<Vec<_>>(), [""; 0], "files that name addresses outside");
}

/// Names and contents of all files.
fn files_below(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(inner) = folders.pop() {
        for entry in fs::read_dir(&inner).unwrap().map(|entry| entry.unwrap()) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().display().to_string();
                files.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    files
}

/// From a run to the page: what is shown one by one adds up to what the run told.
#[test]
fn a_store_becomes_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let output = program_at(folder.path()).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let [tuned, base] = ["miniature-ft", "miniature-pt"].map(|name| fixture(&format!("models/{name}")));
    let models = ["--model", tuned.to_str().unwrap(), "--zero-shot", base.to_str().unwrap()];
    let suite = ["--suite", "miniature", "--limit", "24", "--json"];
    let evaluated = run(&[&["vqa", "--store", "store.sqlite"][..], &models, &suite].concat());
    let shift = ["shift", "--store", "store.sqlite", "--reference-limit", "200"];
    run(&[&shift[..], &models[..2], &suite].concat());
    run(&[&["leaderboard", "--store", "store.sqlite", "--html", "page"][..], &suite].concat());
    let page = folder.path().join("page");
    let mut browser = Browser::start(1200, 820);
    browser.open(&page.join("index.html"), "");
    assert!(browser.value("document.querySelectorAll('.figures svg').length").as_u64().unwrap() > 3);
    let tooltip = "document.querySelector('.figures svg circle title, .figures svg path title') !== null";
    assert_eq!(browser.value(tooltip), json!(true));
    browser.screenshot("miniature-leaderboard");
    browser.prefer("dark");
    browser.screenshot("miniature-leaderboard-dark");
    let table = browser.text("document.querySelector('#board tbody').textContent");
    browser.open(&page.join("explorer.html"), "#dataset=miniature-viz&sample=miniature-viz/5");
    browser.wait_for("document.querySelector('#detail h1') !== null");
    assert_eq!(browser.text(COUNT), "24 of 240 samples");
    browser.wait_for("document.querySelector('.picture img')?.naturalWidth > 0");
    browser.screenshot("miniature-sample-dark");
    browser.prefer("light");
    browser.open(&page.join("explorer.html"), "#dataset=miniature&sample=miniature/3");
    browser.wait_for("document.querySelector('.picture img')?.naturalWidth > 0");
    browser.screenshot("miniature-sample");
    for evaluation in evaluated["evaluations"].as_array().unwrap() {
        let accuracy = evaluation["accuracy"].as_f64().unwrap();
        assert!(table.contains(&format!("{accuracy:.2}")), "{accuracy} is not in {table}");
        let told = browser.value(&format!(
            "(async () => {{ const dataset = samples.datasets.findIndex((one) => one.about.name === {}); \
             const model = samples.catalogue.models.findIndex((one) => one.name === {}); let sum = 0; \
             for (let sample = 0; sample < 24; sample += 1) \
             sum += (await samples.detail(samples.bases[dataset] + sample)).scores[model]; return sum / 24; }})()",
            evaluation["dataset"], evaluation["model"]
        ));
        assert!((100.0 * told.as_f64().unwrap() - accuracy).abs() < 1e-9, "{told} is not {accuracy} %");
    }
    browser.assert_quiet(&page);
    name_as_sweep(folder.path());
    let leaderboard = ["leaderboard", "--store", "store.sqlite", "--html", "page", "--no-images"];
    run(&[&leaderboard[..], &suite].concat());
    assert!(!page.join("images").exists());
    // The sweep is found by the names of models, while figures have the names that tables have.
    let index = fs::read_to_string(page.join("index.html")).unwrap();
    assert!(
        page.join("figures/sensitivity.svg").exists() && page.join("figures/shift-accuracy-digrap-mu-0-1.svg").exists()
    );
    assert!(index.contains("digrap mu=0.1") && index.contains("digrap mu=1.0"), "{index}");
    // The distances are those of the other model.
    run(&[&leaderboard[..], &suite, &["--model", "mu=1"]].concat());
    assert!(page.join("index.html").exists() && !page.join("figures").exists());
}

/// Gives the two models of a store names and settings as of a sweep.
fn name_as_sweep(folder: &Path) {
    let path = folder.join("store.sqlite");
    let mut store = Store::open(&path).unwrap();
    let models = store.models().unwrap();
    for model in &models {
        let mu = if model.name == "miniature-ft" { 0.1 } else { 1.0 };
        let settings = json!({"method": "digrap", "method_settings": {"mu": mu}, "subject": {"seed": 1}});
        let (name, training) = (format!("mu={mu}"), Some(settings.to_string()));
        store.record_model(&StoredModel { name, training, zero_shot: false, ..model.clone() }).unwrap();
    }
    drop(store);
    let names: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
    let removed =
        program_at(folder).args(["runs", "rm"]).args(names).args(["--store", "store.sqlite"]).output().unwrap();
    assert!(removed.status.success(), "{}", String::from_utf8_lossy(&removed.stderr));
}
