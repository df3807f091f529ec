//! The state of the screen, and what keys do to it.

use super::{lines::Line, tally::Tally};

/// What is listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum View {
    /// Processes.
    #[default]
    Processes,
    /// Tenants.
    Tenants,
    /// Users.
    Users,
    /// GPUs.
    Gpus,
}

impl View {
    /// All, in the order of the key Tab.
    pub const ALL: [Self; 4] = [Self::Processes, Self::Tenants, Self::Users, Self::Gpus];

    /// As it is shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Processes => "processes",
            Self::Tenants => "tenants",
            Self::Users => "users",
            Self::Gpus => "GPUs",
        }
    }
}

/// What lines are sorted by, the largest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Power now.
    #[default]
    Power,
    /// Energy since the beginning.
    Energy,
    /// CPU time now.
    Cpu,
    /// Power of GPUs now.
    Gpu,
    /// Memory.
    Memory,
    /// Name, from A to Z.
    Name,
}

impl Order {
    /// All, in the order of the key `s`.
    pub const ALL: [Self; 6] = [
        Self::Power,
        Self::Energy,
        Self::Cpu,
        Self::Gpu,
        Self::Memory,
        Self::Name,
    ];

    /// The heading of its column.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Power => "W",
            Self::Energy => "J",
            Self::Cpu => "CPU%",
            Self::Gpu => "GPU W",
            Self::Memory => "MEM",
            Self::Name => "NAME",
        }
    }
}

/// A key that was pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A character.
    Char(char),
    /// Return.
    Enter,
    /// Escape.
    Escape,
    /// Backspace.
    Backspace,
    /// Tab.
    Tab,
    /// Tab with shift.
    BackTab,
    /// Arrow up.
    Up,
    /// Arrow down.
    Down,
    /// Page up.
    PageUp,
    /// Page down.
    PageDown,
    /// To the first line.
    Home,
    /// To the last line.
    End,
    /// Ctrl-C.
    Interrupt,
}

/// Whether the program goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// It does.
    On,
    /// It ends.
    Quit,
}

/// Lines of a page.
const PAGE: usize = 10;

/// Characters of a filter at most.
const LONGEST_FILTER: usize = 64;

/// The whole state.
#[derive(Clone, Debug, Default)]
pub struct App {
    /// Sums up to now.
    pub tally: Tally,
    /// What is shown instead, while it is paused.
    frozen: Option<Box<Tally>>,
    /// What is listed.
    pub view: View,
    /// By what.
    pub order: Order,
    /// The smallest first.
    pub reverse: bool,
    /// Processes below their tenants.
    pub tree: bool,
    /// Part of the names that are listed.
    pub filter: String,
    /// Whether the filter is being typed.
    pub types_filter: bool,
    /// The tenant whose processes are listed.
    pub inside: Option<Option<String>>,
    /// The line that is chosen.
    pub selected: usize,
    /// Whether the keys are explained.
    pub help: bool,
    /// Name of the machine.
    pub node: String,
    /// What is wrong, if anything is.
    pub trouble: Option<String>,
}

impl App {
    /// What is shown: the present, or the moment at which it was paused.
    pub fn shown(&self) -> &Tally {
        self.frozen.as_deref().unwrap_or(&self.tally)
    }

    /// Whether it is paused.
    pub fn is_paused(&self) -> bool {
        self.frozen.is_some()
    }

    /// Does what a key asks for.
    pub fn press(&mut self, key: Key) -> Flow {
        if key == Key::Interrupt {
            return Flow::Quit;
        }
        if self.types_filter {
            self.type_filter(key);
            return Flow::On;
        }
        if self.help {
            self.help = false;
            return if key == Key::Char('q') { Flow::Quit } else { Flow::On };
        }
        match key {
            Key::Char('q') => return Flow::Quit,
            Key::Char('?' | 'h') => self.help = true,
            Key::Char('j') | Key::Down => self.choose(1, true),
            Key::Char('k') | Key::Up => self.choose(1, false),
            Key::PageDown => self.choose(PAGE, true),
            Key::PageUp => self.choose(PAGE, false),
            Key::Home | Key::Char('g') => self.selected = 0,
            Key::End | Key::Char('G') => self.choose(usize::MAX, true),
            Key::Char('/') => self.types_filter = true,
            Key::Char('t') => self.tree = !self.tree,
            Key::Char('s') => self.order = next(Order::ALL, self.order, 1),
            Key::Char('S') => self.order = next(Order::ALL, self.order, Order::ALL.len() - 1),
            Key::Char('I') => self.reverse = !self.reverse,
            Key::Char(' ') => {
                self.frozen = match self.frozen.take() {
                    Some(_) => None,
                    None => Some(Box::new(self.tally.clone())),
                }
            }
            Key::Tab => self.show(next(View::ALL, self.view, 1)),
            Key::BackTab => self.show(next(View::ALL, self.view, View::ALL.len() - 1)),
            Key::Char(number @ '1'..='4') => {
                let position = usize::try_from(u32::from(number) - u32::from('1')).unwrap_or(0);
                self.show(View::ALL.get(position).copied().unwrap_or_default());
            }
            Key::Enter => self.enter(),
            Key::Escape => self.leave(),
            Key::Char(_) | Key::Backspace | Key::Interrupt => {}
        }
        Flow::On
    }

    fn type_filter(&mut self, key: Key) {
        match key {
            Key::Enter => self.types_filter = false,
            Key::Escape => {
                self.types_filter = false;
                self.filter.clear();
            }
            Key::Backspace => drop(self.filter.pop()),
            Key::Char(character) if self.filter.chars().count() < LONGEST_FILTER => self.filter.push(character),
            _ => {}
        }
        self.selected = 0;
    }

    fn show(&mut self, view: View) {
        self.view = view;
        self.inside = None;
        self.selected = 0;
    }

    /// Into the chosen tenant.
    fn enter(&mut self) {
        if self.view != View::Tenants {
            return;
        }
        if let Some(Line {
            tenant: Some(tenant), ..
        }) = self.lines().get(self.selected)
        {
            self.inside = Some(tenant.clone());
            self.view = View::Processes;
            self.selected = 0;
        }
    }

    /// Out of what is the innermost: a filter, or a tenant.
    fn leave(&mut self) {
        if !self.filter.is_empty() {
            self.filter.clear();
        } else if self.inside.take().is_some() {
            self.view = View::Tenants;
        }
        self.selected = 0;
    }

    fn choose(&mut self, by: usize, down: bool) {
        let last = self.lines().len().saturating_sub(1);
        self.selected = if down {
            self.selected.saturating_add(by)
        } else {
            self.selected.saturating_sub(by)
        }
        .min(last);
    }
}

fn next<T: Copy + PartialEq, const N: usize>(all: [T; N], now: T, by: usize) -> T {
    let position = all.iter().position(|one| *one == now).unwrap_or(0);
    all[(position + by) % N]
}
