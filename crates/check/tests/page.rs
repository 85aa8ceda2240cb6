//! The page is whole by itself, whatever the history holds.

use std::time::Duration;

use serde_json::Value as Json;
use synod_check::budget::Budget;
use synod_check::html::{OPERATIONS_SHOWN_MAX, page, report_of};
use synod_check::verdict::{Finding, Level};
use synod_check::workload::{Plant, Store, Workload};
use synod_check::{generate::Script, history::History, sequential};

fn page_of(history: &History) -> String {
    let (verdict, algorithm) = sequential::check(history, &Budget::default());
    let finding = Finding { level: Level::Sequential, verdict, algorithm, elapsed: Duration::ZERO };
    page(history, &report_of(history, vec![finding]))
}

fn data(page: &str) -> Json {
    let start = page.find("application/json\">").expect("data") + "application/json\">".len();
    let end = start + page[start..].find("</script>").expect("an end");
    serde_json::from_str(&page[start..end]).expect("the data is JSON")
}

/// Keys and names that look like markup or like the template's own marks stay data.
#[test]
fn nothing_in_a_history_can_leave_its_place() {
    let evil = "</script><script>alert(1)</script>{{script}}<!--";
    let mut history = Script::new().write(evil, evil, 1).read("q", evil, 1).history();
    history.name = evil.to_string();
    let page = page_of(&history);
    assert_eq!(page.matches("</script>").count(), 2, "the page's own two");
    assert!(!page.contains("<script>alert"), "a name is no markup");
    assert_eq!(data(&page)["keys"][0], evil);
}

/// A page refers to nothing outside itself.
#[test]
fn the_page_loads_nothing() {
    let page = page_of(&Script::new().write("p", "x", 1).history());
    for mark in ["http:", "https:", "src=", "href=", "@import", "url(", "fetch(", "XMLHttpRequest"] {
        assert!(!page.contains(mark), "{mark}");
    }
}

/// The counter-example's operations and steps are numbers of operations on the page.
#[test]
fn the_counter_example_is_on_the_page() {
    let history = Workload::new(Store::Linearizable, 2_000, 3).with(Plant::StaleRead).history();
    let data = data(&page_of(&history));
    let finding = &data["findings"][0];
    assert_eq!(finding["verdict"], "violated");
    let operations = finding["operations"].as_array().expect("operations");
    assert!(!operations.is_empty() && operations.len() <= 10);
    let on_page = |json: &Json| json.as_u64().is_some_and(|i| (i as usize) < history.operations.len());
    assert!(operations.iter().all(on_page));
    for step in finding["steps"].as_array().expect("steps") {
        assert!(on_page(&step[0]) && on_page(&step[1]) && step[3].is_string());
    }
}

/// Of a history that is too long for a page, the part around the violation is shown, and the page says so.
#[test]
fn a_long_history_is_cut_to_what_matters() {
    let history =
        Workload::new(Store::Linearizable, OPERATIONS_SHOWN_MAX + 50_000, 3).with(Plant::StaleRead).history();
    let data = data(&page_of(&history));
    let shown = data["process"].as_array().expect("operations").len();
    assert!((OPERATIONS_SHOWN_MAX..OPERATIONS_SHOWN_MAX + 100).contains(&shown));
    assert_eq!(data["total"], history.operations.len());
    assert!(data["findings"][0]["operations"].as_array().is_some_and(|operations| operations.len() >= 3));
}
