//! A look at what a session shows, without a terminal.

use super::inner::Inner;
use super::{Chunk, From, screen};
use crate::screen::Screen;
use crate::{Error, SessionId, Size, Status};
use std::sync::Arc;

/// How much of the end of the output of a session that is over is read, bytes:
/// a full-screen program paints all of its screen in much less.
const LAST: u64 = 4 * 1024 * 1024;

/// What a session shows.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Shown {
    /// The lines of the screen, without blanks at their ends.
    pub lines: Vec<String>,
    /// Row and column of the cursor, from 0.
    pub cursor: (usize, usize),
    /// The title that the program has set.
    pub title: Option<String>,
    /// Whether it is the alternate screen, that of full-screen programs.
    pub alternate: bool,
}

impl Shown {
    fn of(screen: &Screen) -> Self {
        Self {
            lines: screen.text(0),
            cursor: screen.cursor(),
            title: screen.title().map(str::to_owned),
            alternate: screen.is_alternate(),
        }
    }
}

/// What a session shows now; of one that is over what it showed last.
pub(super) fn look(inner: &Arc<Inner>, id: SessionId) -> Result<Shown, Error> {
    let desk = inner.desk(id)?;
    if inner.info(id)?.status == Status::Running
        && let Ok((shown, answers)) = desk.screen.look(Shown::of)
    {
        if !answers.is_empty() {
            let asked = Arc::clone(&desk);
            inner
                .runtime
                .spawn(async move { screen::answer(&asked, answers).await });
        }
        return Ok(shown);
    }
    let mut screen = Screen::new(Size::default());
    let mut reader = desk.log.reader(From::TailBytes(LAST))?;
    loop {
        match reader.try_next()? {
            Some(Chunk::Bytes { bytes, .. }) => screen.feed(&bytes),
            Some(Chunk::Gap { .. }) => {}
            Some(Chunk::End { .. }) | None => return Ok(Shown::of(&screen)),
        }
    }
}
