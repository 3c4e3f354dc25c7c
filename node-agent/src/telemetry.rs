//! Logs: to standard error, as text for people or JSON for collectors.

use std::error::Error;
use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// One line per event for people; coloured on a terminal unless `NO_COLOR` is set.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Logs that can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// A level or directive that nobody understands.
    #[error("{from} is no log filter: {filter:?}: {problem}")]
    Filter {
        /// Where the filter comes from.
        from: &'static str,
        /// The filter.
        filter: String,
        /// What is wrong with it.
        problem: tracing_subscriber::filter::ParseError,
    },
    /// A word that is no level: as a filter it would be the name of a module, of which there is none.
    #[error(
        "--log-level has no level {word:?}; there are error, warn, info, debug, trace and off, and MODULE=LEVEL"
    )]
    Level {
        /// The word.
        word: String,
    },
    /// Another subscriber has been installed in this process.
    #[error("logging is set up already")]
    Installed(#[source] tracing_subscriber::util::TryInitError),
}

/// Sets logging up for this process. `level` is a level or a list of directives (`info,bgp=debug`); where it is
/// missing `$RUST_LOG` counts, and without that `info`.
///
/// # Errors
/// The filter can't be parsed, or logging is set up already.
pub fn init(level: Option<&str>, format: LogFormat) -> Result<(), TelemetryError> {
    use tracing_subscriber::util::SubscriberInitExt;

    let from_environment = std::env::var("RUST_LOG").ok();
    let filter = filter(level, from_environment.as_deref())?;
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour);
    match format {
        LogFormat::Text => builder.finish().try_init(),
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init(),
    }
    .map_err(TelemetryError::Installed)?;
    std::panic::set_hook(Box::new(|panic| {
        // A collector of JSON lines would lose the default hook's text.
        tracing::error!(place = panic.location().map(ToString::to_string), "{panic}");
    }));
    Ok(())
}

fn filter(level: Option<&str>, from_environment: Option<&str>) -> Result<EnvFilter, TelemetryError> {
    let words = level.into_iter().flat_map(|text| text.split(',')).map(str::trim);
    for word in words.filter(|word| !word.contains(['=', '['])) {
        // tracing takes nothing for `error`.
        if word.is_empty() || word.parse::<LevelFilter>().is_err() {
            return Err(TelemetryError::Level { word: word.to_owned() });
        }
    }
    let (from, text) = match (level, from_environment.filter(|text| !text.trim().is_empty())) {
        (Some(text), _) => ("--log-level", text),
        (None, Some(text)) => ("$RUST_LOG", text),
        (None, None) => ("the default", "info"),
    };
    // A list as people write it; its parser takes no blanks.
    let tight: Vec<&str> = text.split(',').map(str::trim).collect();
    EnvFilter::builder().parse(tight.join(",")).map_err(|problem| TelemetryError::Filter {
        from,
        filter: text.to_owned(),
        problem,
    })
}

/// An error with all its causes: `can't claim 10-244-7-0-24: permission denied`.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[derive(Debug, thiserror::Error)]
    #[error("can't {0}")]
    struct Wrapped(&'static str, #[source] Box<dyn Error + Send + Sync>);

    #[test]
    fn a_chain_names_every_cause_once() {
        let inner = Wrapped("write record", Box::new(io::Error::other("disk full")));
        let outer = Wrapped("publish", Box::new(inner));
        assert_eq!(chain(&outer), "can't publish: can't write record: disk full");
    }

    #[test]
    fn the_flag_comes_before_the_environment_and_info_is_the_default() {
        assert_eq!(filter(Some("debug"), Some("trace")).unwrap().to_string(), "debug");
        assert_eq!(filter(None, Some("bgp=trace")).unwrap().to_string(), "bgp=trace");
        assert_eq!(filter(None, Some(" ")).unwrap().to_string(), "info");
        assert_eq!(filter(None, None).unwrap().to_string(), "info");
    }

    #[test]
    fn a_word_that_is_no_level_is_refused() {
        for text in ["bogus", "info,bogus", "", "info,"] {
            let error = filter(Some(text), None).unwrap_err();
            assert!(error.to_string().contains("there are error, warn, info"), "{text:?}: {error}");
        }
        for text in ["off", "WARN", "info, bgp=debug", "bgp[session]=trace"] {
            filter(Some(text), None).unwrap();
        }
    }

    #[test]
    fn a_bad_filter_says_where_it_comes_from_and_what_is_wrong_once() {
        let error = filter(Some("info,bgp=loud"), None).unwrap_err();
        let text = chain(&error);
        assert_eq!(text.matches("expected").count(), 1, "{text}");
        assert!(error.to_string().starts_with("--log-level is no log filter: \"info,bgp=loud\""), "{error}");
    }
}
