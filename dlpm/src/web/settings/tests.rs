use std::fs;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::TempDir;

use super::*;

/// Of the password `secret`, with the lowest cost.
fn hash() -> String {
    bcrypt::hash("secret", 4).unwrap()
}

fn parsed(text: &str) -> Result<Settings> {
    Settings::parse(text, Path::new("/nowhere"))
}

fn error(text: &str) -> String {
    format!("{:#}", parsed(text).unwrap_err())
}

/// A folder with a certificate and its key in `cert.pem` and `key.pem`, and another key in `other.pem`.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    write("cert.pem", &cert.pem());
    write("key.pem", &signing_key.serialize_pem());
    let other = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    write("other.pem", &other.signing_key.serialize_pem());
    write("none.pem", "# nothing\n");
    write("torn.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n");
    write(
        "encrypted.pem",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    folder
}

#[test]
fn an_empty_file_asks_for_nothing() {
    for text in [
        "",
        "\n",
        "# a comment\n",
        "---\n",
        "~",
        "basic_auth_users:\ntls_server_config: {}\nhttp_server_config:\n",
    ] {
        assert!(parsed(text).unwrap().is_open(), "{text}");
    }
}

#[test]
fn users_and_headers_are_read() {
    let hash = hash();
    let text = format!(
        "basic_auth_users:\n  alice: {hash}\n  'b o b': \"{hash}\"\n  '12': {hash}\nhttp_server_config:\n  http2: false\n  \
         headers:\n    X-Frame-Options: deny\n    Strict-Transport-Security: max-age=1\n    X-XSS-Protection:\n"
    );
    let settings = parsed(&text).unwrap();
    assert!(!settings.is_open());
    assert_eq!(settings.users.keys().collect::<Vec<_>>(), ["12", "alice", "b o b"]);
    assert_eq!(settings.headers.len(), 2, "a blank one is not set");
    let shown = format!("{settings:?}");
    assert!(!shown.contains(&hash), "{shown}");
}

#[test]
fn an_unknown_key_suggests_the_nearest() {
    for (text, part) in [
        ("basic_auth_user:\n", "did you mean `basic_auth_users`?"),
        ("\n\ntls_server_confg:\n", "line 3: unknown key `tls_server_confg`"),
        (
            "tls_server_config:\n  cert_fil: x\n",
            "line 2: unknown key `cert_fil` in `tls_server_config`; did you mean `cert_file`?",
        ),
        ("tls_server_config: {Cert_File: x}", "did you mean `cert_file`?"),
        ("http_server_config:\n  header:\n", "did you mean `headers`?"),
        (
            "http_server_config:\n  headers:\n    x-frame-options: deny\n",
            "did you mean `X-Frame-Options`?",
        ),
        (
            "completely_different:\n",
            "known keys are tls_server_config, http_server_config, basic_auth_users",
        ),
        ("\"\\e[31m\": 1\n", "unknown key `?[31m`"),
    ] {
        let error = error(text);
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn what_exporters_know_and_dlpm_does_not_is_told() {
    for text in [
        "rate_limit:\n  burst: 5\n",
        "tls_server_config:\n  cipher_suites: [TLS_AES_128_GCM_SHA256]\n",
        "tls_server_config:\n  curve_preferences: [X25519]\n",
        "tls_server_config:\n  client_allowed_sans: [a]\n",
        "tls_server_config:\n  prefer_server_cipher_suites: true\n",
        "tls_server_config:\n  client_auth_type: RequireAnyClientCert\n",
        "tls_server_config:\n  client_auth_type: RequestClientCert\n",
        "http_server_config:\n  http2: true\n",
    ] {
        let error = error(text);
        assert!(
            error.contains("does not support") && error.contains("line "),
            "{text}: {error}"
        );
    }
    for text in [
        "tls_server_config:\n  min_version: TLS11\n",
        "tls_server_config:\n  max_version: TLS10\n",
    ] {
        assert!(error(text).contains("is not secure, and not supported"), "{text}");
    }
}

#[test]
fn what_is_not_a_value_is_told_with_its_line() {
    for (text, part) in [
        ("[1, 2]", "line 1: the file holds keys with values"),
        ("basic_auth_users: alice\n", "`basic_auth_users` holds keys with values"),
        (
            "basic_auth_users:\n  12: x\n",
            "line 2: a key of `basic_auth_users` is not a text; put quotes around it",
        ),
        ("basic_auth_users:\n  alice: 12\n", "line 2: alice: it is not a text"),
        ("basic_auth_users:\n  alice:\n", "there is no password"),
        ("basic_auth_users:\n  alice: plain\n", "it is not a hash of bcrypt"),
        ("basic_auth_users:\n  a:b: x\n", "line 2"),
        ("basic_auth_users:\n  'a:b': x\n", "neither a colon"),
        ("basic_auth_users:\n  alice: x\n  alice: y\n", "line 3"),
        ("http_server_config:\n  http2: 5\n", "neither true nor false"),
        (
            "http_server_config:\n  headers:\n    X-Frame-Options: allow\n",
            "give deny or sameorigin",
        ),
        (
            "http_server_config:\n  headers:\n    X-XSS-Protection: \"a\\nb\"\n",
            "a character that a header cannot have",
        ),
        ("a: [\n", "it is not YAML"),
        ("a: 1\n---\nb: 2\n", "2 YAML documents"),
        (
            "tls_server_config:\n  cert: x\n",
            "needs both `cert_file` and `key_file`",
        ),
        (
            "tls_server_config:\n  min_version: TLS12\n",
            "needs both `cert_file` and `key_file`",
        ),
        ("tls_server_config:\n  min_version: SSL3\n", "not a version of TLS"),
        (
            "tls_server_config:\n  client_auth_type: Always\n",
            "VerifyClientCertIfGiven",
        ),
        (
            "tls_server_config:\n  cert: x\n  cert_file: y\n",
            "cannot be given together",
        ),
    ] {
        let error = error(text);
        assert!(error.contains(part), "{text}: {error}");
    }
    // A password that somebody forgot to hash is in no message.
    assert!(!error("basic_auth_users:\n  alice: plain-password\n").contains("plain-password"));
}

#[test]
fn a_hash_that_takes_too_long_is_not_accepted() {
    let costly = hash().replacen("$04$", "$18$", 1);
    let error = error(&format!("basic_auth_users:\n  alice: {costly}\n"));
    assert!(
        error.contains("a hash of cost 18 is not accepted") && error.contains("from 4 to 14"),
        "{error}"
    );
}

#[test]
fn a_certificate_is_read_with_its_key() {
    let folder = folder();
    let read = |text: &str| Settings::parse(text, folder.path());
    let both = "tls_server_config:\n  cert_file: cert.pem\n  key_file: key.pem\n";
    let settings = read(both).unwrap();
    assert!(settings.tls.is_some() && !settings.is_open());
    assert!(!format!("{settings:?}").contains("PRIVATE"));
    let inline = |name: &str| {
        let text = fs::read_to_string(folder.path().join(name)).unwrap();
        text.lines().map(|line| format!("    {line}\n")).collect::<String>()
    };
    let text = format!(
        "tls_server_config:\n  cert: |\n{}  key: |\n{}",
        inline("cert.pem"),
        inline("key.pem")
    );
    assert!(read(&text).unwrap().tls.is_some());
    for (more, fits) in [
        ("  min_version: TLS13\n  cipher_suites: []\n", true),
        ("  min_version: TLS12\n  max_version: TLS12\n", true),
        ("  min_version: TLS13\n  max_version: TLS12\n", false),
        (
            "  client_ca_file: cert.pem\n  client_auth_type: RequireAndVerifyClientCert\n",
            true,
        ),
        (
            "  client_ca_file: cert.pem\n  client_auth_type: VerifyClientCertIfGiven\n",
            true,
        ),
        ("  client_ca_file: cert.pem\n", false),
        ("  client_auth_type: RequireAndVerifyClientCert\n", false),
        ("  client_auth_type: NoClientCert\n", true),
    ] {
        assert_eq!(read(&format!("{both}{more}")).is_ok(), fits, "{more}");
    }
}

#[test]
fn what_is_wrong_with_a_certificate_names_the_file() {
    let folder = folder();
    for (certificate, key, part) in [
        ("absent.pem", "key.pem", "absent.pem cannot be read: No such file"),
        (".", "key.pem", "it is a folder"),
        ("none.pem", "key.pem", "none.pem: there is no certificate in it"),
        ("key.pem", "key.pem", "there is no certificate in it"),
        ("torn.pem", "key.pem", "torn.pem: it is not PEM"),
        ("cert.pem", "absent.pem", "absent.pem cannot be read"),
        ("cert.pem", "none.pem", "none.pem: there is no private key in it"),
        ("cert.pem", "cert.pem", "there is no private key in it"),
        ("cert.pem", "encrypted.pem", "the key is encrypted"),
        (
            "cert.pem",
            "other.pem",
            "it is not the key of the certificate in cert_file",
        ),
    ] {
        let path = folder.path().join("web.yml");
        fs::write(
            &path,
            format!("tls_server_config:\n  cert_file: {certificate}\n  key_file: {key}\n"),
        )
        .unwrap();
        let error = format!("{:#}", Settings::read(&path).unwrap_err());
        assert!(
            error.contains(part) && error.contains("web.yml") && error.contains("line "),
            "{error}"
        );
    }
}

#[test]
fn a_file_that_is_not_a_small_text_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.yml");
    let refused = |part: &str| {
        let error = format!("{:#}", Settings::read(&path).unwrap_err());
        assert!(error.contains(part) && error.contains("web.yml"), "{error}");
    };
    refused("No such file");
    fs::write(&path, b"a: \xff\n").unwrap();
    refused("not text in UTF-8");
    fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
    refused("larger than 1 MiB");
    fs::write(&path, "[".repeat(100_000)).unwrap();
    assert!(Settings::read(&path).is_err());
    let laughs = "a: &a [1,1,1,1,1,1,1,1,1]\n".to_owned()
        + &(b'b'..b'i')
            .map(|c| {
                format!(
                    "{0}: &{0} [{1}]\n",
                    c as char,
                    vec![format!("*{}", (c - 1) as char); 9].join(",")
                )
            })
            .collect::<String>();
    fs::write(&path, laughs).unwrap();
    assert!(Settings::read(&path).is_err());
}
