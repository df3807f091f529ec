use std::fs;

use super::*;

#[test]
fn a_url_is_read_as_operators_write_it() {
    for (text, https, host, port, path) in [
        ("http://localhost:4318", false, "localhost", 4318, "/v1/metrics"),
        ("http://localhost:4318/", false, "localhost", 4318, "/v1/metrics"),
        ("HTTP://Collector", false, "Collector", 80, "/v1/metrics"),
        ("https://otlp.example.org", true, "otlp.example.org", 443, "/v1/metrics"),
        (
            "https://example.org/otlp/",
            true,
            "example.org",
            443,
            "/otlp/v1/metrics",
        ),
        ("https://example.org:1/a/b", true, "example.org", 1, "/a/b/v1/metrics"),
        ("http://[::1]:4318", false, "::1", 4318, "/v1/metrics"),
        ("http://192.0.2.1", false, "192.0.2.1", 80, "/v1/metrics"),
        (
            "http://otel_collector:65535",
            false,
            "otel_collector",
            65535,
            "/v1/metrics",
        ),
    ] {
        let read = Endpoint::parse(text).unwrap();
        let parts = (read.is_https(), read.host(), read.port(), read.path());
        assert_eq!(parts, (https, host, port, path), "{text}");
    }
    let shown = Endpoint::parse("https://[::1]:4318/x").unwrap().to_string();
    assert_eq!(shown, "https://[::1]:4318/x/v1/metrics");
}

#[test]
fn what_is_not_a_collector_is_told() {
    let long = format!("http://{}", "x".repeat(LONGEST_URL));
    for (text, part) in [
        ("", "does not begin with http://"),
        ("localhost:4318", "does not begin with http://"),
        ("collector", "does not begin with http://"),
        ("/v1/metrics", "does not begin with http://"),
        ("grpc://localhost:4317", "over HTTP"),
        ("ftp://localhost", "neither http:// nor https://"),
        ("unix:///run/x", "neither http:// nor https://"),
        ("://x", "neither http:// nor https://"),
        ("http://", "not a URL"),
        ("http:///x", "not a URL"),
        ("http://:4318", "no name or address"),
        ("http://a b", "not a URL"),
        ("http://host:0", "not from 1 to 65535"),
        ("http://host:65536", "not from 1 to 65535"),
        ("http://host:", "not from 1 to 65535"),
        ("http://host:x", "not"),
        ("http://host/?x=1", "a query"),
        ("http://host#x", "a fragment"),
        ("http://user:secret@host", "otlp_headers"),
        ("http://host/v1/metrics", "leave it out"),
        ("http://host/x/v1/metrics/", "leave it out"),
        ("http://-", "no name or address"),
        ("http://\u{1b}[31m", "not a URL"),
        (&long, "longer than 1000 bytes"),
    ] {
        let error = Endpoint::parse(text).unwrap_err();
        assert!(
            error.contains(part) && error.contains("http://collector:4318"),
            "{text}: {error}"
        );
        assert!(!error.contains('\u{1b}') && !error.contains("secret"), "{error}");
    }
}

#[test]
fn a_file_of_headers_is_read_and_not_shown() {
    let read = headers("# a token\n\nAuthorization: Bearer a:b \r\nX-Scope-OrgID:7\nX-Empty:").unwrap();
    let expected = [("Authorization", "Bearer a:b"), ("X-Scope-OrgID", "7"), ("X-Empty", "")];
    assert_eq!(read, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let many: String = (0..=MOST_HEADERS).map(|number| format!("X-{number}: 1\n")).collect();
    for (text, part) in [
        ("\nBearer secret", "line 2 has no colon"),
        ("secret secret: x", "line 1: what is before the colon"),
        (": secret", "line 1: what is before the colon"),
        ("a: secret\u{7f}", "line 1: the value has a character"),
        ("content-TYPE: secret", "line 1: dlpm sets content-type itself"),
        ("Host: secret", "dlpm sets host itself"),
        (&many, "32 are the most"),
    ] {
        let error = format!("{:#}", headers(text).unwrap_err());
        assert!(error.contains(part) && !error.contains("secret"), "{text}: {error}");
    }
}

fn config(url: &str, headers: Option<&Path>, authority: Option<&Path>) -> PushConfig {
    PushConfig {
        endpoint: Endpoint::parse(url).unwrap(),
        interval: Duration::from_secs(15),
        headers: headers.map(Path::to_owned),
        authority: authority.map(Path::to_owned),
    }
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let (nowhere, empty) = (folder.path().join("nowhere"), file("empty", ""));
    let told = |config: PushConfig| format!("{:#}", config.check().unwrap_err());
    let (http, https) = ("http://c", "https://c");
    assert!(told(config(http, Some(&nowhere), None)).contains("nowhere cannot be read"));
    assert!(told(config(http, Some(folder.path()), None)).contains("a folder"));
    assert!(told(config(http, Some(Path::new("/dev/zero")), None)).contains("a device"));
    assert!(told(config(http, Some(&file("bad", "x")), None)).contains("line 1 has no colon"));
    assert!(told(config(https, None, Some(&nowhere))).contains("nowhere cannot be read"));
    assert!(told(config(https, None, Some(&empty))).contains("no certificate in it"));
    let named = rcgen::generate_simple_self_signed(["c".to_owned()]).unwrap();
    let certificate = file("ca.pem", &named.cert.pem());
    assert!(told(config(http, None, Some(&certificate))).contains("otlp_ca is for https"));
    config(https, Some(&empty), Some(&certificate)).check().unwrap();
}

#[test]
fn the_operator_is_told_once_when_it_fails_and_once_when_it_works_again() {
    let mut progress = Progress::new(&config("http://c", None, None).target().unwrap());
    assert_eq!(progress.taken(), None);
    let said = progress.failed("no\nroom").unwrap();
    assert!(
        said.contains("http://c/v1/metrics") && said.contains("every 15s"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1);
    assert_eq!(progress.failed("other"), None);
    let said = progress.taken().unwrap();
    assert!(said.contains("again (pushes that failed: 2)"), "{said}");
    assert_eq!(progress.taken(), None);
    assert!(progress.failed("no").is_some());
    assert_eq!(progress.pushes(), Pushes { taken: 3, failed: 3 });
}
