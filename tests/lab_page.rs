//! The status page in a browser: it shows what is true of a running engine, an admin changes servers by it, hostile text stays
//! text, an engine that comes back is shown again, and a thousand services do not kill the browser.

mod lab_support;

use std::io::Write as _;
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use evenkeel::lab::engine::Engine;
use evenkeel::lab::scenario::START;
use evenkeel::lab::server::nginx;
use evenkeel::lab::site::{APPLIANCE, Family};
use evenkeel::model::{Method, Protocol};
use lab_support::browser::{Chromium, LONG, Tab, browser_is_possible};
use lab_support::rig::{Rig, Stand, WEB_INSIDE, Wish};
use lab_support::{heavy, lab_is_possible, program};
use serde_json::Value as Json;
use toml::Table;

const PORT: u16 = 9112;

/// A site by NAT with a web listener; `alice` is an admin, `bob` is none.
fn stand() -> Stand {
    let mut stand = Wish::new(Method::Nat, Family::V4).build();
    let hash = |password: &str| bcrypt::hash(password, 4).expect("a hash");
    let users = stand.site.lab.path("users");
    std::fs::write(&users, format!("alice:{}\nbob:{}\n", hash("secret"), hash("other"))).expect("a file");
    stand.config.set("web", "port", i64::from(PORT));
    stand.config.set("web", "users", users.display().to_string());
    stand.config.set("web", "admins", vec!["alice"]);
    stand
}

fn check(kind: &str) -> Vec<toml::Value> {
    let mut check = Table::new();
    check.insert("type".into(), kind.into());
    check.insert("interval".into(), 0.1.into());
    check.insert("timeout".into(), 1.into());
    vec![toml::Value::from(check)]
}

/// Who looks at a page.
struct Looker {
    tab: Tab,
}

/// Opens the page as a user.
fn open(chromium: &Chromium, user: &str) -> Looker {
    open_with(chromium, user, "")
}

/// Opens the page as a user; `first` runs before anything of the page does.
fn open_with(chromium: &Chromium, user: &str, first: &str) -> Looker {
    let source = "window.wrong = []; addEventListener('error', (e) => wrong.push('error: ' + e.message)); \
                  addEventListener('unhandledrejection', (e) => wrong.push('rejected: ' + e.reason)); \
                  addEventListener('securitypolicyviolation', (e) => wrong.push('policy: ' + e.violatedDirective)); \
                  for (const kind of ['error', 'warn']) console[kind] = (...all) => wrong.push(kind + ': ' + all.join(' '));";
    let at = if user.is_empty() { String::new() } else { format!("{user}@") };
    Looker { tab: chromium.open(&format!("{source}\n{first}"), &format!("http://{at}127.0.0.1:{PORT}/")) }
}

impl Looker {
    /// What an expression gives, through JSON.
    fn value(&self, expression: &str) -> Json {
        let text = format!("JSON.stringify({expression})");
        let found = self.tab.evaluate(&text).unwrap_or_else(|error| panic!("{expression}: {error}"));
        let text = found.as_str().unwrap_or("null").to_owned();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{expression}: {error}: {text}"))
    }

    fn holds(&self, expression: &str) -> bool {
        self.tab.evaluate(&format!("Boolean({expression})")).is_ok_and(|found| found == Json::Bool(true))
    }

    fn await_that(&self, expression: &str) {
        let start = Instant::now();
        while !self.holds(expression) {
            assert!(start.elapsed() < LONG, "not within {LONG:?}: {expression}; the page:\n{}", self.text("body"));
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn text(&self, selector: &str) -> String {
        let text = self.value(&format!("document.querySelector('{selector}')?.innerText"));
        text.as_str().unwrap_or_default().to_owned()
    }

    fn run(&self, statement: &str) {
        self.tab.evaluate(&format!("{{ {statement}; }}")).unwrap_or_else(|error| panic!("{statement}: {error}"));
    }

    /// Opens a service by a click on its name.
    fn unfold(&self, service: &str) {
        let button =
            format!("[...document.querySelectorAll('.toggle')].find((one) => one.textContent === '{service}')");
        self.await_that(&button);
        self.run(&format!("{button}.click()"));
        self.await_that(&format!("{button}.getAttribute('aria-expanded') === 'true'"));
    }

    /// Nothing went wrong in the page, and it asked nobody else.
    fn must_be_clean(&self) {
        assert_eq!(self.value("window.wrong"), serde_json::json!([]));
        let others = "performance.getEntriesByType('resource').map((one) => one.name).filter((name) => new URL(name).host !== location.host)";
        assert_eq!(self.value(others), serde_json::json!([]));
    }

    fn width(&self, width: u32, height: u32) {
        self.tab.resize(width, height);
    }

    /// A picture for the documentation, where somebody wants one: `EVENKEEL_PAGE_PICTURE=FOLDER`.
    fn picture(&self, name: &str) {
        let Some(folder) = std::env::var_os("EVENKEEL_PAGE_PICTURE") else { return };
        std::fs::write(std::path::Path::new(&folder).join(name), self.tab.picture()).expect("a file");
    }
}

/// The row of a server.
fn row(end: &str) -> String {
    format!("document.querySelector('[data-server=\"{end}\"]')")
}

#[test]
fn the_page_shows_what_is_true_and_does_what_an_admin_says() {
    if !lab_is_possible() || !browser_is_possible() {
        return;
    }
    let mut stand = stand();
    stand.config.change_service("web", "check", check("tcp"));
    let mut web = nginx::start_on(&stand.site, &stand.site.servers, WEB_INSIDE, false).unwrap();
    let mut rig = stand.start_engine();
    let all_up = |status: &Json| {
        let servers = status["services"][0]["servers"].as_array();
        servers.is_some_and(|servers| servers.iter().all(|server| server["state"] == "up"))
    };
    rig.engine.await_status(LONG, "both are up", all_up).unwrap();
    let ends = [0, 1].map(|at: usize| format!("{}:{WEB_INSIDE}", rig.site.servers[at].address(Family::V4)));
    let chromium = Chromium::start(&rig.site.lab, APPLIANCE);

    // A wrong password shows nothing.
    let stranger = open(&chromium, "alice:wrong");
    stranger.await_that("document.readyState === 'complete' && !location.href.startsWith('about:')");
    assert!(!stranger.holds("document.querySelector('table')"));

    let page = open(&chromium, "alice:secret");
    page.await_that("document.querySelectorAll('tr.service').length === 3");
    assert_eq!(page.text("#user"), "alice (admin)");
    page.run("window.mark = 1");
    page.unfold("web");
    for end in &ends {
        page.await_that(&format!("{}.innerText.includes('UP')", row(end)));
        page.await_that(&format!("{}.innerText.includes('tcp: connected')", row(end)));
    }
    for _ in 0..6 {
        rig.get();
    }
    // The page's numbers are those of the status: both are asked until they are of the same moment.
    let start = Instant::now();
    loop {
        let status = rig.engine.status().unwrap();
        let server = &status["services"][0]["servers"][0];
        let shown = page
            .value(&format!("[3, 4].map((at) => Number({}.children[at].innerText.match(/\\d+/)[0]))", row(&ends[0])));
        let wanted = [&server["active"], &server["inactive"]];
        let moved = wanted.iter().any(|number| **number != 0);
        if moved && shown[0] == *wanted[0] && shown[1] == *wanted[1] {
            break;
        }
        assert!(start.elapsed() < LONG, "the page has {shown}, the engine {wanted:?}");
        thread::sleep(Duration::from_millis(100));
    }
    page.picture("page-light.png");

    // A server dies: the page says so by itself, with the check's words.
    web.remove(1).stop();
    page.await_that(&format!("/DOWN/.test({0}.innerText) && /connection refused/.test({0}.innerText)", row(&ends[1])));
    page.await_that("document.title.startsWith('(1)')");
    assert!(page.text("#verdict").contains("1 service with trouble"), "{}", page.text("#verdict"));

    // Drained by clicks.
    page.run(&format!("{}.querySelector('.change').click()", row(&ends[0])));
    page.await_that("document.getElementById('change').open");
    assert!(page.text("#change-of").contains(&ends[0]), "{}", page.text("#change-of"));
    page.run("document.querySelector('input[value=drain]').click(); document.getElementById('apply').click()");
    let drains = |status: &Json| status["services"][0]["servers"][0]["admin"] == "drain";
    rig.engine.await_status(LONG, "the engine drains", drains).unwrap();
    page.await_that(&format!("/DRAIN/.test({}.innerText)", row(&ends[0])));
    page.await_that("/drains/.test(document.getElementById('toast').innerText)");

    // A weight: first one that is none, then one that the engine takes.
    page.run(&format!("{}.querySelector('.change').click()", row(&ends[0])));
    let weigh = |number: &str| {
        page.run(&format!(
            "const field = document.getElementById('weight'); field.value = '{number}'; \
             field.dispatchEvent(new Event('input', {{ bubbles: true }})); \
             document.getElementById('change-form').dispatchEvent(new Event('submit', {{ cancelable: true }}))"
        ));
    };
    weigh("70000");
    page.await_that("/whole number/.test(document.getElementById('change-said').innerText)");
    weigh("7");
    let weighs = |status: &Json| status["services"][0]["servers"][0]["configured_weight"] == 7;
    rig.engine.await_status(LONG, "the weight is 7", weighs).unwrap();
    page.await_that(&format!("/of 7/.test({}.innerText)", row(&ends[0])));
    page.await_that("!document.getElementById('unsaved').hidden && !document.getElementById('save').hidden");

    // What the engine refuses is shown in its own words.
    page.run(&format!("{0}.about.server.name = '192.0.2.250'; {0}.querySelector('.change').click()", row(&ends[0])));
    page.run("document.querySelector('input[value=maintenance]').click(); document.getElementById('apply').click()");
    page.await_that("/Refused: .*192.0.2.250/.test(document.getElementById('change-said').innerText)");
    page.run("document.getElementById('cancel').click()");
    page.picture("page-drain.png");

    // On a phone nothing is wider than the screen.
    page.width(360, 740);
    page.await_that("innerWidth === 360");
    assert!(page.holds("document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways");
    page.picture("page-phone.png");
    page.width(1500, 1000);

    // Who is no admin sees all and has nothing to press.
    let reader = open(&chromium, "bob:other");
    reader.await_that("document.querySelectorAll('tr.service').length === 3");
    reader.unfold("web");
    reader.await_that(&row(&ends[0]));
    assert_eq!(reader.text("#user"), "bob (reader)");
    assert_eq!(reader.value("document.querySelectorAll('.change').length"), 0);
    assert!(reader.holds("document.getElementById('save').hidden"));
    let save = "fetch(location.origin + '/api', { method: 'POST', headers: { 'Content-Type': 'application/json' }, \
                body: JSON.stringify({ version: 1, command: 'save' }) }).then((answer) => answer.status)";
    let answered = reader.tab.evaluate(save).expect("an answer");
    assert_eq!(answered, Json::from(403), "a reader saved");
    reader.must_be_clean();

    // The engine goes, and comes back: so does the page, by itself.
    rig.engine.process().stop();
    page.await_that("/Not connected since/.test(document.getElementById('lost').innerText)");
    rig.engine = Engine::start(&rig.site.lab, APPLIANCE, &program(), &rig.config).unwrap();
    page.await_that("document.getElementById('lost').hidden && !document.body.classList.contains('stale')");
    page.await_that(&format!("/DRAIN/.test({}.innerText)", row(&ends[0])));
    assert_eq!(page.value("window.mark"), 1, "it was never loaded again");
    page.must_be_clean();
}

#[test]
fn hostile_words_stay_words() {
    if !lab_is_possible() || !browser_is_possible() {
        return;
    }
    const HOSTILE: &str = "<img src=x onerror=hacked()><script>window.hacked=1</script>";
    let mut stand = stand();
    stand.config.change_service("web", "check", check("smtp"));
    for server in &stand.site.servers {
        let at = (server.address(Family::V4), WEB_INSIDE);
        let listener = stand.site.lab.node(&server.name).unwrap().run(|| TcpListener::bind(at)).unwrap().unwrap();
        // It ends with the program.
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.write_all(format!("{HOSTILE}\r\n").as_bytes());
            }
        });
    }
    let rig = stand.start_engine();
    let chromium = Chromium::start(&rig.site.lab, APPLIANCE);
    let page = open(&chromium, "alice:secret");
    page.await_that("document.getElementById('table').innerText.includes('<script>window.hacked=1')");
    assert!(page.holds("window.hacked === undefined"));
    assert_eq!(page.value("document.querySelectorAll('main img, main script, main iframe').length"), 0);
    // A search for it finds the service, and breaks nothing.
    page.run("const field = document.getElementById('filter'); field.value = '<script>'; field.dispatchEvent(new Event('input'))");
    page.await_that("document.querySelectorAll('tr.service').length === 1");
    page.must_be_clean();
}

/// A page that stays open holds what it held, and so does the engine. Its clock runs ahead: it asks again at once, and two seconds
/// are over. `EVENKEEL_PAGE_POLLS=43200` is a day.
#[test]
fn a_page_that_stays_open_does_not_grow() {
    /// As many as its charts keep, and more.
    const WARM: u64 = 200;
    if !lab_is_possible() || !browser_is_possible() {
        return;
    }
    let polls = std::env::var("EVENKEEL_PAGE_POLLS").ok().and_then(|text| text.parse().ok()).unwrap_or(2 * WARM);
    let rig = stand().start_engine();
    let chromium = Chromium::start(&rig.site.lab, APPLIANCE);
    let ahead = "let ahead = 0; const now = Date.now, later = window.setTimeout; Date.now = () => now() + ahead; \
                 window.setTimeout = (what, after, ...more) => { \
                     if (after !== 2000) return later(what, after, ...more); \
                     ahead += after; \
                     if (window.pausing) window.next = what; else later(what, 0, ...more); \
                     return 0; \
                 };";
    let page = open_with(&chromium, "alice:secret", ahead);
    page.unfold("web");
    let drawn = || page.value("Number(document.body.dataset.drawn || 0)").as_u64().unwrap_or_default();
    let wait = |until: u64| {
        let (mut seen, mut moved) = (drawn(), Instant::now());
        while seen < until {
            thread::sleep(Duration::from_millis(50));
            let now = drawn();
            if now > seen {
                (seen, moved) = (now, Instant::now());
            }
            assert!(moved.elapsed() < LONG, "it stands at {seen} pictures:\n{}", page.text("body"));
        }
    };
    let pid = rig.engine.process().pid();
    let engine = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("its files").count();
        (resident.trim().trim_end_matches(" kB").parse::<usize>().expect("kB"), files)
    };
    // Between two questions: what an answer on its way holds is not the page's.
    let weigh = || {
        page.run("window.pausing = true");
        page.await_that("window.next");
        let found = (page.tab.weight(), engine());
        page.run("window.pausing = false; const go = window.next; window.next = null; go()");
        found
    };
    wait(WARM);
    let first = weigh();
    wait(WARM + polls);
    let last = weigh();
    println!("after {WARM} pictures {first:?}; after {polls} more {last:?}");
    let ((page_first, (memory_first, files_first)), (page_last, (memory_last, files_last))) = (first, last);
    assert!(page_last.bytes < page_first.bytes + (1 << 19), "{page_first:?} {page_last:?}");
    assert!(page_last.nodes < page_first.nodes + 500, "{page_first:?} {page_last:?}");
    assert!(page_last.listeners < page_first.listeners + 50, "{page_first:?} {page_last:?}");
    assert!(memory_last < memory_first + 4096, "the engine: {memory_first} to {memory_last} kB");
    assert!(files_last < files_first + 8, "the engine: {files_first} to {files_last} files");
    page.must_be_clean();
}

#[test]
fn a_thousand_services_are_a_page_at_a_time() {
    if !lab_is_possible() || !browser_is_possible() {
        return;
    }
    let _heavy = heavy();
    let mut stand = stand();
    let vip = stand.site.vip(Family::V4);
    let way = stand.site.servers[0].address(Family::V4);
    for number in 0..1000_u16 {
        // Two services share their servers: behind NAT each address has a place in the filter, and there are 16384.
        let [high, low] = (number % 500).to_be_bytes();
        let servers: Vec<_> = (1..=20).map(|at| (std::net::IpAddr::from([10, 128 + high, low, at]), 1)).collect();
        let (name, port) = (format!("s{number:04}"), (10_000 + number).to_string());
        stand.config.service(&name, vip, Protocol::Tcp, &port, "rr", &servers);
        stand.config.change_service(&name, "method", "nat");
    }
    stand.ip(APPLIANCE, &format!("route add 10.128.0.0/9 via {way}"));
    let rig = {
        let Stand { wish, site, config } = stand;
        let engine = Engine::start(&site.lab, APPLIANCE, &program(), &config).unwrap();
        engine.await_ready(START + LONG).unwrap_or_else(|error| panic!("{error}"));
        Rig { wish, engine, config, site }
    };
    let chromium = Chromium::start(&rig.site.lab, APPLIANCE);
    let start = Instant::now();
    let page = open(&chromium, "alice:secret");
    page.await_that("document.querySelectorAll('tr.service').length === 20");
    println!("1003 services are there after {:?}", start.elapsed());
    assert_eq!(page.text("#services-count"), "1003");
    page.run("document.getElementById('open-all').click()");
    page.await_that("document.querySelectorAll('tr.server').length > 300");
    let nodes = page.value("document.querySelectorAll('*').length").as_u64().unwrap();
    let drawn = page.value("Number(document.body.dataset.drawn)").as_u64().unwrap();
    page.await_that(&format!("Number(document.body.dataset.drawn) > {}", drawn + 3));
    let later = page.value("document.querySelectorAll('*').length").as_u64().unwrap();
    println!("{nodes} elements, {later} later");
    assert!(nodes < 20_000 && later < 20_000, "{nodes} elements, {later} later");
    page.run("document.getElementById('after').click()");
    page.await_that("/page 2 of 51/.test(document.getElementById('at').innerText)");
    page.run("const field = document.getElementById('filter'); field.value = 's0999'; field.dispatchEvent(new Event('input'))");
    page.await_that("document.querySelectorAll('tr.service').length === 1 && /s0999/.test(document.getElementById('table').innerText)");
    page.must_be_clean();
}
