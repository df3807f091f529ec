//! The whole terminal: a screen that is drawn over and over, and keys. Whatever ends the program, the terminal is as it
//! was.

use std::{
    io::{self, Stdout},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use ratatui::{
    Frame, Terminal,
    backend::CrosstermBackend,
    crossterm::{
        event::{self, Event, KeyEvent, KeyEventKind},
        tty::IsTty,
    },
};
use tokio::sync::mpsc;

/// How often the thread that waits for keys looks whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What came from the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A key was pressed.
    Key(KeyEvent),
    /// It has another size.
    Resized,
}

/// The terminal, as long as this lives. Dropped, also by a panic, it is as it was.
pub struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    over: Arc<AtomicBool>,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    ///
    /// Where standard output is not one.
    #[expect(
        clippy::disallowed_methods,
        reason = "asked whether it is a terminal; written by the library"
    )]
    pub fn take() -> io::Result<(Self, mpsc::UnboundedReceiver<Heard>)> {
        if !io::stdout().is_tty() || !io::stdin().is_tty() {
            return Err(io::Error::other("standard input and output have to be a terminal"));
        }
        // A panic gives it back before it is told.
        let terminal = ratatui::try_init()?;
        let over = Arc::new(AtomicBool::new(false));
        let (sender, heard) = mpsc::unbounded_channel();
        let screen = Self {
            terminal,
            over: Arc::clone(&over),
        };
        thread::Builder::new()
            .name("dlpm-keys".to_owned())
            .spawn(move || hear(&sender, &over))?;
        Ok((screen, heard))
    }

    /// Draws it.
    ///
    /// # Errors
    ///
    /// The system's, where the terminal has gone away.
    pub fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(draw).map(drop)
    }

    /// Gives the terminal back for a while.
    pub fn leave(&mut self) {
        ratatui::restore();
    }

    /// Takes it again.
    ///
    /// # Errors
    ///
    /// As [`Self::take`].
    pub fn enter(&mut self) -> io::Result<()> {
        self.terminal = ratatui::try_init()?;
        self.terminal.clear()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        ratatui::restore();
    }
}

fn hear(sender: &mpsc::UnboundedSender<Heard>, over: &AtomicBool) {
    while !over.load(Ordering::SeqCst) {
        match event::poll(LOOK_EVERY) {
            Ok(true) => {}
            Ok(false) => continue,
            Err(_) => return,
        }
        let heard = match event::read() {
            Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => Heard::Key(key),
            Ok(Event::Resize(..)) => Heard::Resized,
            Ok(_) => continue,
            Err(_) => return,
        };
        if sender.send(heard).is_err() {
            return;
        }
    }
}
