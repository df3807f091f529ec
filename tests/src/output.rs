//! What a run of the program left: how it exited and what it said.

use std::{os::unix::process::ExitStatusExt, process::ExitStatus};

/// What a run left.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Asserts how it exited, and that it did not panic.
    #[track_caller]
    pub fn exited(self, code: i32) -> Self {
        assert_eq!(
            (self.status.code(), self.status.signal()),
            (Some(code), None),
            "stdout:\n{}\nstderr:\n{}",
            self.stdout,
            self.stderr
        );
        for sign in ["panicked", "RUST_BACKTRACE", "stack backtrace"] {
            assert!(!self.stderr.contains(sign), "{}", self.stderr);
        }
        self
    }

    /// Asserts that standard error holds each of these.
    #[track_caller]
    pub fn says(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.stderr.contains(part), "no `{part}` in:\n{}", self.stderr);
        }
        self
    }

    /// Asserts that standard output holds each of these.
    #[track_caller]
    pub fn prints(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.stdout.contains(part), "no `{part}` in:\n{}", self.stdout);
        }
        self
    }

    /// Asserts a failure of dlpm itself: the exit code, an error of one paragraph that holds each of these parts, and
    /// nothing on standard output.
    #[track_caller]
    pub fn fails(self, code: i32, parts: &[&str]) -> Self {
        let output = self.exited(code).says(parts);
        assert_eq!(output.stdout, "", "{}", output.stderr);
        let errors: Vec<&str> = output
            .stderr
            .lines()
            .filter(|line| !line.starts_with("dlpm: note: ") && !line.starts_with("dlpm: warning: "))
            .collect();
        assert_eq!(errors.len(), 1, "no error of one paragraph:\n{}", output.stderr);
        assert!(errors[0].starts_with("dlpm: "), "{}", output.stderr);
        output
    }
}
