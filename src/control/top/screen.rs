//! What someone at `evenkeel top` has chosen: the list, its order, the filter, the line; and what each key does to it.
//!
//! Owns the choices. Never draws, and never reads a key. Pure.

use ratatui::crossterm::event::{KeyCode, KeyModifiers};

use super::sample::{Entry, Group, Sample};

/// The lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum View {
    /// Services and their servers.
    #[default]
    Services,
    /// Workers.
    Workers,
    /// Drops.
    Drops,
    /// Virtual routers.
    Routers,
    /// Warnings.
    Warnings,
}

impl View {
    /// All of them, in the order of the keys 1 to 5.
    pub const ALL: [View; 5] = [View::Services, View::Workers, View::Drops, View::Routers, View::Warnings];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            View::Services => "services",
            View::Workers => "workers",
            View::Drops => "drops",
            View::Routers => "vrrp",
            View::Warnings => "warnings",
        }
    }
}

/// The orders of services, and of the servers of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// As in the configuration.
    #[default]
    File,
    /// What does not serve first.
    Failing,
    /// By established flows.
    Active,
    /// By new flows.
    New,
    /// By packets, both ways.
    Packets,
}

impl Order {
    const ALL: [Order; 5] = [Order::File, Order::Failing, Order::Active, Order::New, Order::Packets];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Order::File => "file",
            Order::Failing => "failing",
            Order::Active => "active",
            Order::New => "new/s",
            Order::Packets => "packets/s",
        }
    }

    /// What is largest comes first.
    fn weight(self, entry: &Entry) -> f64 {
        let rates = entry.rates.unwrap_or_default();
        match self {
            Order::File => 0.0,
            Order::Failing => f64::from(u8::from(!entry.good)),
            Order::Active => entry.active as f64,
            Order::New => rates.new,
            Order::Packets => rates.in_packets + rates.out_packets,
        }
    }
}

/// What the loop is to do after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Draw.
    Draw,
    /// Draw everything anew: a serial line lost something.
    Redraw,
    /// End.
    Quit,
}

/// The choices.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Screen {
    /// The list that is shown.
    pub view: View,
    /// Its order, for services.
    pub order: Order,
    /// Only what has this in it, whatever its case.
    pub filter: String,
    /// The filter is being typed.
    pub typing: bool,
    /// Services without their servers.
    pub folded: bool,
    /// The numbers stand still.
    pub paused: bool,
    /// The keys are explained instead of a list.
    pub help: bool,
    /// The line that is chosen.
    pub line: usize,
    /// The first line that is shown.
    pub top: usize,
}

impl Screen {
    /// What a key does. `page`: lines of the list that the screen has room for; `lines`: lines that there are.
    pub fn on_key(&mut self, key: KeyCode, held: KeyModifiers, page: usize, lines: usize) -> Wish {
        if held.contains(KeyModifiers::CONTROL) {
            return match key {
                KeyCode::Char('c' | 'd') => Wish::Quit,
                KeyCode::Char('l') => Wish::Redraw,
                _ => Wish::Draw,
            };
        }
        if self.typing {
            self.type_filter(key);
            return Wish::Draw;
        }
        if self.help {
            self.help = false;
            return if key == KeyCode::Char('q') { Wish::Quit } else { Wish::Draw };
        }
        let last = lines.saturating_sub(1);
        match key {
            KeyCode::Char('q') => return Wish::Quit,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.help = true,
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Char('c') | KeyCode::Enter => {
                self.folded = !self.folded;
                self.line = 0;
            }
            KeyCode::Char('s') | KeyCode::Right => self.order = next(&Order::ALL, self.order, 1),
            KeyCode::Char('S') | KeyCode::Left => self.order = next(&Order::ALL, self.order, Order::ALL.len() - 1),
            KeyCode::Tab => self.show(next(&View::ALL, self.view, 1)),
            KeyCode::BackTab => self.show(next(&View::ALL, self.view, View::ALL.len() - 1)),
            KeyCode::Char(digit @ '1'..='5') => {
                let at = digit as usize - '1' as usize;
                self.show(View::ALL.get(at).copied().unwrap_or_default());
            }
            KeyCode::Up | KeyCode::Char('k') => self.line = self.line.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.line = (self.line + 1).min(last),
            KeyCode::PageUp => self.line = self.line.saturating_sub(page.max(1)),
            KeyCode::PageDown => self.line = (self.line + page.max(1)).min(last),
            KeyCode::Home | KeyCode::Char('g') => self.line = 0,
            KeyCode::End | KeyCode::Char('G') => self.line = last,
            _ => {}
        }
        Wish::Draw
    }

    fn type_filter(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(letter) if self.filter.chars().count() < 60 => self.filter.push(letter),
            _ => {}
        }
        self.line = 0;
    }

    fn show(&mut self, view: View) {
        if view != self.view {
            (self.view, self.line, self.top) = (view, 0, 0);
        }
    }

    /// Keeps the chosen line among those that there are, and on the screen.
    pub fn settle(&mut self, page: usize, lines: usize) {
        self.line = self.line.min(lines.saturating_sub(1));
        self.top = self.top.min(self.line).max((self.line + 1).saturating_sub(page.max(1)));
        self.top = self.top.min(lines.saturating_sub(page));
    }

    /// The services and servers to show, in order.
    pub fn entries<'s>(&self, sample: &'s Sample) -> Vec<(&'s Entry, bool)> {
        let wanted = self.filter.to_lowercase();
        let has = |text: &str| text.to_lowercase().contains(&wanted);
        let matches = |entry: &Entry| has(&entry.end) || has(&entry.name) || has(&entry.state);
        let mut groups: Vec<&Group> = sample.groups.iter().collect();
        let order = self.order;
        // Sorts are stable: what is equal stays as in the file.
        let failing = |group: &&Group| group.servers.iter().filter(|server| !server.good).count() as f64;
        let worth = |group: &Group| match order {
            Order::Failing => order.weight(&group.service) * 1e9 + failing(&group),
            _ => order.weight(&group.service),
        };
        groups.sort_by(|a, b| worth(b).total_cmp(&worth(a)));
        let mut all = Vec::new();
        for group in groups {
            let whole = wanted.is_empty() || matches(&group.service);
            let mut servers: Vec<&Entry> = group.servers.iter().filter(|server| whole || matches(server)).collect();
            if !whole && servers.is_empty() {
                continue;
            }
            all.push((&group.service, true));
            if !self.folded {
                servers.sort_by(|a, b| order.weight(b).total_cmp(&order.weight(a)));
                all.extend(servers.into_iter().map(|server| (server, false)));
            }
        }
        all
    }
}

/// The one `steps` after, round and round.
fn next<T: Copy + PartialEq>(all: &[T], now: T, steps: usize) -> T {
    let at = all.iter().position(|one| *one == now).unwrap_or(0);
    all.get((at + steps) % all.len()).copied().unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::sample::take;
    use super::super::sample::tests::status;
    use super::*;

    fn sample() -> Sample {
        take(Some((&status(1), Duration::from_secs(1))), &status(2))
    }

    fn shown(screen: &Screen) -> Vec<String> {
        screen.entries(&sample()).into_iter().map(|(entry, _)| entry.end.clone()).collect()
    }

    fn press(screen: &mut Screen, keys: &str) -> Wish {
        let mut wish = Wish::Draw;
        for key in keys.chars() {
            wish = screen.on_key(KeyCode::Char(key), KeyModifiers::NONE, 5, 5);
        }
        wish
    }

    #[test]
    fn the_order_is_of_services_and_of_their_servers() {
        let mut screen = Screen::default();
        let (web, mail) = ("tcp 192.0.2.10:80", "tcp 192.0.2.10:80");
        assert_eq!(shown(&screen), [web, "10.0.0.11:8080", "10.0.0.12:8080", mail, "10.0.0.13:8080"]);
        press(&mut screen, "s");
        assert_eq!(screen.order, Order::Failing);
        assert_eq!(shown(&screen), [mail, "10.0.0.13:8080", web, "10.0.0.12:8080", "10.0.0.11:8080"]);
        press(&mut screen, "sss");
        assert_eq!(screen.order, Order::Packets);
        assert_eq!(shown(&screen)[1], "10.0.0.11:8080");
        press(&mut screen, "s");
        assert_eq!(screen.order, Order::File);
        press(&mut screen, "Sc");
        assert_eq!((screen.order, shown(&screen).len()), (Order::Packets, 2));
    }

    #[test]
    fn the_filter_is_typed_and_taken_back() {
        let mut screen = Screen::default();
        press(&mut screen, "/q.12");
        assert!(screen.typing && screen.filter == "q.12", "while it is typed, q is a letter");
        for _ in 0..4 {
            screen.on_key(KeyCode::Backspace, KeyModifiers::NONE, 5, 5);
        }
        press(&mut screen, ".0.12:");
        assert_eq!(shown(&screen), ["tcp 192.0.2.10:80", "10.0.0.12:8080"]);
        screen.on_key(KeyCode::Enter, KeyModifiers::NONE, 5, 5);
        assert!(!screen.typing);
        screen.on_key(KeyCode::Esc, KeyModifiers::NONE, 5, 5);
        press(&mut screen, "/MAIL");
        assert_eq!(shown(&screen), ["tcp 192.0.2.10:80", "10.0.0.13:8080"], "of a service that matches, all servers");
        screen.on_key(KeyCode::Esc, KeyModifiers::NONE, 5, 5);
        assert_eq!((screen.typing, shown(&screen).len()), (false, 5));
    }

    #[test]
    fn lines_are_chosen_within_what_there_is() {
        let mut screen = Screen::default();
        let mut key = |key| {
            screen.on_key(key, KeyModifiers::NONE, 10, 100);
            screen.settle(10, 100);
            (screen.line, screen.top)
        };
        for (code, expected) in [
            (KeyCode::Up, (0, 0)),
            (KeyCode::Down, (1, 0)),
            (KeyCode::PageDown, (11, 2)),
            (KeyCode::End, (99, 90)),
            (KeyCode::Down, (99, 90)),
            (KeyCode::PageUp, (89, 89)),
            (KeyCode::Home, (0, 0)),
        ] {
            assert_eq!(key(code), expected, "{code:?}");
        }
        screen.line = 50;
        screen.settle(10, 3);
        assert_eq!((screen.line, screen.top), (2, 0), "the list became shorter");
        screen.settle(0, 0);
        assert_eq!((screen.line, screen.top), (0, 0));
    }

    #[test]
    fn keys_do_what_the_help_says() {
        let mut screen = Screen::default();
        assert_eq!(press(&mut screen, "3"), Wish::Draw);
        assert_eq!(screen.view, View::Drops);
        screen.on_key(KeyCode::Tab, KeyModifiers::NONE, 5, 5);
        assert_eq!(screen.view, View::Routers);
        press(&mut screen, "1");
        screen.on_key(KeyCode::BackTab, KeyModifiers::NONE, 5, 5);
        assert_eq!(screen.view, View::Warnings);
        press(&mut screen, "p?");
        assert!(screen.paused && screen.help);
        press(&mut screen, "p");
        assert!(screen.paused && !screen.help, "any key ends the help");
        assert_eq!(press(&mut screen, "q"), Wish::Quit);
        let held = |screen: &mut Screen, key| screen.on_key(KeyCode::Char(key), KeyModifiers::CONTROL, 5, 5);
        assert_eq!(held(&mut screen, 'l'), Wish::Redraw);
        screen.typing = true;
        assert_eq!(held(&mut screen, 'c'), Wish::Quit, "also while a filter is typed");
    }
}
