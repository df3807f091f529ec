//! Which form of an answer a client wants (RFC 9110, sections 12.5.1 and 12.5.3).

use crate::web::Format;

/// What may be chosen: a format, and its media type as it is answered.
type Choice = (Format, &'static str);
const OPEN_METRICS: Choice = (
    Format::OpenMetrics,
    "application/openmetrics-text; version=1.0.0; charset=utf-8",
);
const TEXT: Choice = (Format::Text, "text/plain; version=0.0.4; charset=utf-8");

/// The format that an `Accept` prefers; the older one where it accepts neither, as exporters do.
pub(super) fn format(accept: &str) -> Choice {
    let mut best = (TEXT, 0);
    for range in accept.split(',') {
        let (media, parameters) = range.split_once(';').unwrap_or((range, ""));
        let version = parameter(parameters, "version");
        let format = match media.trim().to_ascii_lowercase().as_str() {
            "application/openmetrics-text" if matches!(version, None | Some("1.0.0" | "0.0.1")) => OPEN_METRICS,
            "text/plain" if matches!(version, None | Some("0.0.4")) => TEXT,
            "text/*" | "*/*" => TEXT,
            _ => continue,
        };
        let quality = quality(parameters);
        if quality > best.1 {
            best = (format, quality);
        }
    }
    best.0
}

/// Whether an `Accept-Encoding` allows gzip.
pub(super) fn gzip(accept: &str) -> bool {
    let coding = |range: &str| {
        let (name, parameters) = range.split_once(';').unwrap_or((range, ""));
        (name.trim().to_ascii_lowercase(), quality(parameters) > 0)
    };
    let codings: Vec<(String, bool)> = accept.split(',').map(coding).collect();
    let wanted = |wanted: &str| {
        codings
            .iter()
            .find(|(name, _)| name == wanted)
            .map(|(_, wanted)| *wanted)
    };
    wanted("gzip").or_else(|| wanted("*")).unwrap_or(false)
}

fn parameter<'a>(parameters: &'a str, name: &str) -> Option<&'a str> {
    parameters.split(';').find_map(|parameter| {
        let (found, value) = parameter.split_once('=')?;
        found
            .trim()
            .eq_ignore_ascii_case(name)
            .then(|| value.trim().trim_matches('"'))
    })
}

/// The weight `q` in thousandths; 0 for what is not one.
fn quality(parameters: &str) -> u32 {
    let Some(text) = parameter(parameters, "q") else {
        return 1_000;
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() != 1 || fraction.len() > 3 || !digits(whole) || !digits(fraction) {
        return 0;
    }
    let thousandths: u32 = format!("{whole}{fraction:0<3}").parse().unwrap_or(0);
    if thousandths > 1_000 { 0 } else { thousandths }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preferred_format_is_chosen() {
        // What Prometheus 2.42, 3.x and VictoriaMetrics send, and curl.
        let prometheus_2 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                            text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                            application/openmetrics-text;version=0.0.1;q=0.4,\
                            text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,/;q=0.1";
        let victoria_metrics = "text/plain;version=0.0.4;q=1,*/*;q=0.1";
        for (accept, chosen) in [
            (prometheus_2, Format::OpenMetrics),
            (prometheus_3, Format::OpenMetrics),
            (victoria_metrics, Format::Text),
            ("*/*", Format::Text),
            ("", Format::Text),
            ("application/json", Format::Text),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("Application/OpenMetrics-Text ; Version=\"1.0.0\"", Format::OpenMetrics),
            ("application/openmetrics-text; version=2.0.0", Format::Text),
            ("application/openmetrics-text;q=0.2, text/plain;q=0.3", Format::Text),
            ("application/openmetrics-text;q=0, */*;q=0", Format::Text),
            ("application/openmetrics-text;q=7", Format::Text),
            (",;=,;q=;", Format::Text),
            ("application/x-protobuf", Format::Text),
        ] {
            assert_eq!(format(accept).0, chosen, "{accept}");
        }
    }

    #[test]
    fn gzip_is_used_where_it_is_wanted() {
        for wants in ["gzip", "deflate, gzip;q=0.5", "GZIP", "*", "gzip;q=0.001, *;q=0"] {
            assert!(gzip(wants), "{wants}");
        }
        for refuses in ["", "identity", "gzip;q=0", "gzip;q=0, *", "zstd", "gzip;q=x", "*;q=0"] {
            assert!(!gzip(refuses), "{refuses}");
        }
    }
}
