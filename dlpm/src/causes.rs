//! An error and all that caused it, each thing said once.
//!
//! Many errors, of libraries as well, already hold the text of their source: `{:#}` of anyhow would repeat it.

use std::error::Error;

/// One line: the error, then each cause that nothing before it has said.
pub fn told(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // An error that holds its cause's text mostly ends with it: `failed: why` adds something to `why` alone.
        if !text.contains(&cause_text) {
            text = match cause_text.strip_prefix(&text) {
                Some(rest) => format!("{text}{rest}"),
                None => format!("{text}: {cause_text}"),
            };
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use anyhow::{Context, anyhow};

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open {name}: {source}")]
    struct Opened {
        name: &'static str,
        source: io::Error,
    }

    #[derive(Debug, thiserror::Error)]
    #[error("{0}; choose another folder")]
    struct Advised(#[source] Opened);

    fn opened() -> Opened {
        Opened {
            name: "log",
            source: io::Error::from_raw_os_error(libc::ENOENT),
        }
    }

    #[test]
    fn what_an_error_holds_of_its_cause_is_not_repeated() {
        let missing = "No such file or directory (os error 2)";
        assert_eq!(told(&opened()), format!("cannot open log: {missing}"));
        assert_eq!(
            told(&Advised(opened())),
            format!("cannot open log: {missing}; choose another folder")
        );
        let with_context = anyhow::Error::new(Advised(opened())).context("the trace cannot start");
        assert_eq!(
            told(with_context.as_ref()),
            format!("the trace cannot start: cannot open log: {missing}; choose another folder")
        );
    }

    #[test]
    fn a_cause_that_says_more_is_told() {
        let error: anyhow::Error = Err::<(), _>(anyhow!("the disk is full"))
            .context("cannot write x")
            .unwrap_err();
        assert_eq!(told(error.as_ref()), "cannot write x: the disk is full");
        assert_eq!(told(anyhow!("alone").as_ref()), "alone");
    }
}
