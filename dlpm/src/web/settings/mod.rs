//! The `web.config.file` that the exporters of Prometheus share: TLS, users and headers.
//!
//! Its keys are those of
//! <https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md>. A key that dlpm does not
//! support is an error, not ignored: a site that asks for a list of ciphers would otherwise get other ones.

use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Read},
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context, Result, anyhow};
use bcrypt::HashParts;
use hyper::header::HeaderValue;
use serde::{Deserialize, Serialize};

use crate::{
    files,
    web::settings::{
        tls::{ClientAuth, Version},
        yaml::Entry,
    },
};

mod tls;
mod yaml;

pub(in crate::web) use tls::{Pem, Tls};

/// Largest file: a chain of certificates has a few KiB.
const LARGEST_BYTES: u64 = 1 << 20;

/// Most users.
const MOST_USERS: usize = 1_000;

/// Costs of bcrypt that are accepted. Each step doubles the work, and 14 takes about a second.
const COSTS: std::ops::RangeInclusive<u32> = 4..=14;

const TOP: [&str; 3] = ["tls_server_config", "http_server_config", "basic_auth_users"];

const TLS: [&str; 9] = [
    "cert_file",
    "key_file",
    "cert",
    "key",
    "client_auth_type",
    "client_ca_file",
    "client_ca",
    "min_version",
    "max_version",
];

/// Keys that exporters know and dlpm does not, with what to do.
const NOT_SUPPORTED: [(&str, &str); 5] = [
    ("cipher_suites", "dlpm offers the suites that rustls considers secure"),
    (
        "prefer_server_cipher_suites",
        "rustls decides by the order of the client",
    ),
    (
        "curve_preferences",
        "dlpm offers the curves that rustls considers secure",
    ),
    (
        "client_allowed_sans",
        "give `client_ca_file` an authority that signs only the clients that may connect",
    ),
    (
        "rate_limit",
        "dlpm has limits of its own on connections and on checks of passwords",
    ),
];

const HEADERS: [&str; 5] = [
    "Content-Security-Policy",
    "X-Frame-Options",
    "X-Content-Type-Options",
    "X-XSS-Protection",
    "Strict-Transport-Security",
];

/// What the file says, checked: the network process can use it as it is.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(in crate::web) struct Settings {
    /// TLS, or none.
    pub(in crate::web) tls: Option<Tls>,
    /// Users with their passwords, hashed by bcrypt. Without any, everybody is let in.
    pub(in crate::web) users: BTreeMap<String, String>,
    /// Headers that every answer has.
    pub(in crate::web) headers: Vec<(String, String)>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Settings")
            .field("tls", &self.tls)
            .field("users", &self.users.len())
            .field("headers", &self.headers)
            .finish()
    }
}

impl Settings {
    /// Reads the file, and the certificates and keys that it names.
    ///
    /// # Errors
    ///
    /// Each names the file, the line and the key.
    pub(in crate::web) fn read(path: &Path) -> Result<Self> {
        let named = || format!("{}", path.display());
        let text = text_of(path)
            .map_err(|error| anyhow!("it cannot be read: {error}"))
            .with_context(named)?;
        // Names of files are relative to the file that has them.
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, folder).with_context(named)
    }

    /// Whether anybody may read what is served.
    pub(in crate::web) fn is_open(&self) -> bool {
        self.tls.is_none() && self.users.is_empty()
    }

    fn parse(text: &str, folder: &Path) -> Result<Self> {
        let mut settings = Self::default();
        let Some(document) = yaml::parse(text)? else {
            return Ok(settings);
        };
        for entry in yaml::entries(&document, "the file")? {
            match entry.key.as_str() {
                "tls_server_config" => settings.tls = tls_server(&entry, folder)?,
                "http_server_config" => settings.headers = http_server(&entry)?,
                "basic_auth_users" => settings.users = users(&entry)?,
                _ => return Err(unknown(&entry, "the file", &TOP)),
            }
        }
        Ok(settings)
    }
}

fn unknown(entry: &Entry<'_>, what: &str, known: &[&str]) -> anyhow::Error {
    match NOT_SUPPORTED.iter().find(|(key, _)| *key == entry.key) {
        Some((_, advice)) => entry.wrong(format!("dlpm does not support this; remove it: {advice}")),
        None => entry.unknown(what, known),
    }
}

/// What a file says that root configured.
///
/// # Errors
///
/// Any I/O error from the operating system; something else than a regular file, more than 1 MiB, or not UTF-8.
pub(in crate::web) fn text_of(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    files::open(path)?.take(LARGEST_BYTES + 1).read_to_end(&mut bytes)?;
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
    if bytes.len() as u64 > LARGEST_BYTES {
        return Err(invalid("it is larger than 1 MiB"));
    }
    String::from_utf8(bytes).map_err(|_| invalid("it is not text in UTF-8"))
}

/// What a key of the form `NAME` (the text itself) or `NAME_file` (where the text is) says.
fn pem(entry: &Entry<'_>, folder: &Path, already: &mut Option<Pem>) -> Result<()> {
    let Some(value) = entry.text()? else {
        return Ok(());
    };
    if already.is_some() {
        let name = entry.key.trim_end_matches("_file");
        return Err(entry.wrong(format!(
            "`{name}` and `{name}_file` cannot be given together; keep one of them"
        )));
    }
    *already = Some(if entry.key.ends_with("_file") {
        let path: PathBuf = folder.join(value);
        let origin = format!("{}: {}", entry.key, path.display());
        let text =
            text_of(&path).map_err(|error| entry.wrong(format!("{} cannot be read: {error}", path.display())))?;
        Pem { origin, text }
    } else {
        Pem {
            origin: entry.key.clone(),
            text: value,
        }
    });
    Ok(())
}

fn tls_server(section: &Entry<'_>, folder: &Path) -> Result<Option<Tls>> {
    let (mut certificate, mut key, mut client_ca) = (None, None, None);
    let (mut client_auth, mut lowest, mut highest) = (ClientAuth::None, Version::Tls12, Version::Tls13);
    let entries = section.entries()?;
    for entry in &entries {
        let version = |default| match entry.text()? {
            Some(word) => Version::from_word(&word).map_err(|why| entry.wrong(why)),
            None => Ok(default),
        };
        match entry.key.as_str() {
            "cert" | "cert_file" => pem(entry, folder, &mut certificate)?,
            "key" | "key_file" => pem(entry, folder, &mut key)?,
            "client_ca" | "client_ca_file" => pem(entry, folder, &mut client_ca)?,
            "client_auth_type" => client_auth = client_auth_type(entry)?,
            "min_version" => lowest = version(lowest)?,
            "max_version" => highest = version(highest)?,
            // Written out, as many files do, these ask for what dlpm does anyway.
            "cipher_suites" | "curve_preferences" | "client_allowed_sans" if !entry.is_set() => {}
            _ => return Err(unknown(entry, "`tls_server_config`", &TLS)),
        }
    }
    if entries.is_empty() {
        return Ok(None);
    }
    let (Some(certificate), Some(key)) = (certificate, key) else {
        return Err(section.wrong("TLS needs both `cert_file` and `key_file`"));
    };
    if lowest > highest {
        return Err(section.wrong("`min_version` is above `max_version`"));
    }
    match (client_auth, &client_ca) {
        (ClientAuth::None, Some(_)) => {
            return Err(section.wrong(
                "`client_ca_file` verifies nobody without `client_auth_type`; add `client_auth_type: \
                 RequireAndVerifyClientCert`",
            ));
        }
        (ClientAuth::IfGiven | ClientAuth::Required, None) => {
            return Err(section.wrong("`client_auth_type` needs `client_ca_file`, the authority of the clients"));
        }
        _ => {}
    }
    let tls = Tls {
        certificate,
        key,
        client_ca,
        client_auth,
        lowest,
        highest,
    };
    tls.server().map_err(|error| section.wrong(error))?;
    Ok(Some(tls))
}

fn client_auth_type(entry: &Entry<'_>) -> Result<ClientAuth> {
    match entry.text()?.as_deref() {
        None | Some("NoClientCert") => Ok(ClientAuth::None),
        Some("VerifyClientCertIfGiven") => Ok(ClientAuth::IfGiven),
        Some("RequireAndVerifyClientCert") => Ok(ClientAuth::Required),
        Some("RequestClientCert" | "RequireAnyClientCert") => Err(entry.wrong(
            "dlpm does not support this, since it lets in any client with any certificate; give \
             RequireAndVerifyClientCert",
        )),
        Some(_) => Err(entry.wrong("give NoClientCert, VerifyClientCertIfGiven or RequireAndVerifyClientCert")),
    }
}

fn http_server(section: &Entry<'_>) -> Result<Vec<(String, String)>> {
    let mut headers = Vec::new();
    for entry in section.entries()? {
        match entry.key.as_str() {
            "http2" if entry.is_set() && entry.flag()? => {
                return Err(entry.wrong("dlpm does not support HTTP/2; remove the key, or say false"));
            }
            "http2" => {}
            "headers" => {
                for header in entry.entries()? {
                    if !HEADERS.contains(&header.key.as_str()) {
                        return Err(header.unknown("`headers`", &HEADERS));
                    }
                    let Some(value) = header.text()? else { continue };
                    let accepted: &[&str] = match header.key.as_str() {
                        "X-Frame-Options" => &["deny", "sameorigin"],
                        "X-Content-Type-Options" => &["nosniff"],
                        _ => &[],
                    };
                    if !accepted.is_empty() && !accepted.contains(&value.to_lowercase().as_str()) {
                        return Err(header.wrong(format!("give {}", accepted.join(" or "))));
                    }
                    HeaderValue::from_str(&value)
                        .map_err(|_| header.wrong("it has a character that a header cannot have"))?;
                    headers.push((header.key, value));
                }
            }
            _ => return Err(unknown(&entry, "`http_server_config`", &["http2", "headers"])),
        }
    }
    Ok(headers)
}

fn users(section: &Entry<'_>) -> Result<BTreeMap<String, String>> {
    let mut users = BTreeMap::new();
    for entry in section.entries()? {
        if entry.key.is_empty()
            || entry
                .key
                .contains(|character: char| character == ':' || character.is_control())
        {
            return Err(
                entry.wrong("a user's name has at least one character, and neither a colon nor a control character")
            );
        }
        let advice = "give a hash of bcrypt, as `htpasswd -nBC 10 USER` prints it after the colon";
        let hash = entry
            .text()?
            .ok_or_else(|| entry.wrong(format!("there is no password; {advice}")))?;
        // The crate's own message is not shown: what is there may be a password in plain text.
        let parts =
            HashParts::from_str(&hash).map_err(|_| entry.wrong(format!("it is not a hash of bcrypt; {advice}")))?;
        if !COSTS.contains(&parts.get_cost()) {
            return Err(entry.wrong(format!(
                "a hash of cost {} is not accepted: each step doubles the work of a check. Give a cost from {} to {}; \
                 10 to 12 is usual",
                parts.get_cost(),
                COSTS.start(),
                COSTS.end()
            )));
        }
        users.insert(entry.key, hash);
    }
    if users.len() > MOST_USERS {
        return Err(section.wrong(format!("it has {} users, and {MOST_USERS} are the most", users.len())));
    }
    Ok(users)
}

#[cfg(test)]
mod tests;
