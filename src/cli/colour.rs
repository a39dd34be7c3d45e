//! Colours on terminals, for those who want them: none in pipes, none with `NO_COLOR`.

use std::fmt::Display;

use super::output::Output;

/// Whether text is coloured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint(bool);

impl Paint {
    pub(super) fn of(output: &Output) -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|it| !it.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|it| it == "dumb");
        Self(output.is_terminal() && !output.is_json() && !unwanted && !dumb)
    }

    fn paint(self, code: u8, text: impl Display) -> String {
        match self.0 {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_string(),
        }
    }

    pub(super) fn added(self, text: impl Display) -> String {
        self.paint(32, text)
    }

    pub(super) fn removed(self, text: impl Display) -> String {
        self.paint(31, text)
    }

    pub(super) fn changed(self, text: impl Display) -> String {
        self.paint(33, text)
    }

    pub(super) fn faint(self, text: impl Display) -> String {
        self.paint(2, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_end_where_the_text_ends() {
        assert_eq!(Paint(true).added("x"), "\x1b[32mx\x1b[0m");
        assert_eq!(Paint(false).removed("x"), "x");
    }
}
