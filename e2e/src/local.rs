//! One machine, no relay.

use std::path::Path;

use tempfile::TempDir;

use crate::case::Setting;
use crate::cw::Cw;
use crate::home::Home;

/// A home directory in which nothing runs yet.
pub struct Local {
    home: Home,
    _dir: TempDir,
}

impl Local {
    /// A new one; `program` is `cw`.
    ///
    /// # Panics
    ///
    /// When there is no place for temporary files.
    #[must_use]
    pub fn new(program: &str) -> Self {
        let dir = temporary();
        let path = dir.path().join("h");
        std::fs::create_dir(&path).expect("a directory of our own can be written");
        let cw = Cw::new(Path::new(program), &path).env("CODEWIRE_NODE_NAME", "dev-1");
        Self {
            home: Home::new(&path, cw),
            _dir: dir,
        }
    }

    /// The directory of its node.
    #[must_use]
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// `cw` here.
    #[must_use]
    pub fn cw(&self) -> &Cw {
        self.home.cw()
    }
}

/// A directory for a test; its path is short, because sockets lie in it.
pub(crate) fn temporary() -> TempDir {
    tempfile::Builder::new()
        .prefix("cw-e2e-")
        .tempdir()
        .expect("there is a place for temporary files")
}

impl Setting for Local {
    fn logs(&self) -> Vec<(String, String)> {
        vec![("node".to_owned(), self.home.log())]
    }

    fn tear_down(&self) {
        self.home.tear_down();
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.home.tear_down();
    }
}
