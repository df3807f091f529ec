//! Who may read: basic authentication (RFC 7617) against hashes of bcrypt.
//!
//! A check of bcrypt is expensive on purpose, so it must not become a way to burn this machine's CPUs: one runs at a
//! time, a failed one is followed by a pause, and what was accepted is remembered for a while.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use base64::{Engine, prelude::BASE64_STANDARD};
use hyper::header::HeaderValue;
use rustix::rand::{GetRandomFlags, getrandom};
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

/// After a failed check there is no other one for so many times as long as it took.
const PAUSE: u32 = 4;

/// How long what was accepted is remembered, from its last use on.
const REMEMBERED: Duration = Duration::from_secs(600);

/// How much is remembered: scrapers are few.
const MOST_REMEMBERED: usize = 32;

/// Salt and hash of the check for a user that does not exist: of no password.
const NOBODY: &str = "abcdefghijklmnopqrstuu5Lo0MkUnRnWbXsJ1eKk3qYvcq9u5vYm";

/// The users.
#[derive(Debug)]
pub(super) struct Users {
    hashes: BTreeMap<String, String>,
    /// What takes as long to check as the most expensive user.
    nobody: String,
    /// Of this process alone: what is remembered tells nothing without it.
    key: [u8; 32],
    accepted: Mutex<Vec<(Accepted, Instant)>>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// A keyed hash of a name with its password.
type Accepted = [u8; 32];

impl Users {
    pub(super) fn new(hashes: BTreeMap<String, String>) -> Result<Self> {
        let mut key = [0; 32];
        getrandom(&mut key, GetRandomFlags::empty()).context("there are no random numbers")?;
        let cost = hashes.values().filter_map(|hash| hash.get(4..6)).max().unwrap_or("10");
        Ok(Self {
            nobody: format!("$2b${cost}${NOBODY}"),
            hashes,
            key,
            accepted: Mutex::default(),
            turn: Arc::default(),
        })
    }

    /// The user that this header proves; without users everybody is let in, and nobody has a name.
    pub(super) async fn check(&self, authorization: Option<&HeaderValue>) -> Option<String> {
        if self.hashes.is_empty() {
            return Some(String::new());
        }
        let (user, password) = credentials(authorization?.to_str().ok()?)?;
        let accepted = self.digest(&user, &password);
        if self.is_remembered(&accepted) {
            return Some(user);
        }
        let turn = Arc::clone(&self.turn).lock_owned().await;
        // Meanwhile another connection may have had the same check.
        if self.is_remembered(&accepted) {
            return Some(user);
        }
        let hash = self.hashes.get(&user).unwrap_or(&self.nobody).clone();
        let (sender, checked) = oneshot::channel();
        // Not cut off when the connection ends, so that there is only one at any time.
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let begun = Instant::now();
            let is_right = bcrypt::verify(password, &hash).unwrap_or(false);
            let pause = begun.elapsed() * PAUSE;
            let _ = sender.send(is_right);
            if !is_right {
                std::thread::sleep(pause);
            }
        });
        let is_right = checked.await.unwrap_or(false) && self.hashes.contains_key(&user);
        if !is_right {
            return None;
        }
        self.remember(accepted);
        Some(user)
    }

    fn digest(&self, user: &str, password: &[u8]) -> Accepted {
        let mut hash = Sha256::new();
        hash.update(self.key);
        hash.update(user.len().to_le_bytes());
        hash.update(user.as_bytes());
        hash.update(password);
        hash.finalize().into()
    }

    fn is_remembered(&self, wanted: &Accepted) -> bool {
        let now = Instant::now();
        let mut accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        accepted.retain(|(_, used)| now.saturating_duration_since(*used) < REMEMBERED);
        match accepted.iter_mut().find(|(known, _)| known == wanted) {
            Some((_, used)) => {
                *used = now;
                true
            }
            None => false,
        }
    }

    fn remember(&self, new: Accepted) {
        let mut accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        if accepted.len() >= MOST_REMEMBERED
            && let Some(oldest) = (0..accepted.len()).min_by_key(|index| accepted.get(*index).map(|(_, used)| *used))
        {
            accepted.swap_remove(oldest);
        }
        accepted.push((new, Instant::now()));
    }
}

fn credentials(authorization: &str) -> Option<(String, Vec<u8>)> {
    let (scheme, encoded) = authorization.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = BASE64_STANDARD.decode(encoded.trim()).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let (user, password) = decoded.split_at_checked(colon)?;
    let user = String::from_utf8(user.to_vec()).ok()?;
    Some((user, password.get(1..)?.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users() -> Users {
        let hash = |password: &str| bcrypt::hash(password, 4).unwrap();
        let hashes = [("alice", hash("secret")), ("bob", hash(":")), ("empty", hash(""))];
        Users::new(hashes.map(|(user, hash)| (user.to_owned(), hash)).into()).unwrap()
    }

    fn header(user: &str, password: &str) -> HeaderValue {
        let encoded = BASE64_STANDARD.encode(format!("{user}:{password}"));
        HeaderValue::from_str(&format!("Basic {encoded}")).unwrap()
    }

    #[tokio::test]
    async fn who_has_the_password_is_let_in() {
        let users = users();
        for (user, password) in [("alice", "secret"), ("bob", ":"), ("empty", ""), ("alice", "secret")] {
            let checked = users.check(Some(&header(user, password))).await;
            assert_eq!(checked.as_deref(), Some(user));
        }
        for (user, password) in [
            ("alice", ""),
            ("alice", "Secret"),
            ("bob", "secret"),
            ("mallory", "secret"),
            ("", ""),
        ] {
            assert_eq!(
                users.check(Some(&header(user, password))).await,
                None,
                "{user}:{password}"
            );
        }
        for other in [
            "",
            "Basic",
            "Basic ",
            "Basic !!!",
            "Basic YWxpY2U=",
            "Bearer YWxpY2U6c2VjcmV0",
            "basic",
        ] {
            assert_eq!(
                users.check(HeaderValue::from_str(other).ok().as_ref()).await,
                None,
                "{other}"
            );
        }
        assert_eq!(users.check(None).await, None);
    }

    #[tokio::test]
    async fn without_users_everybody_is_let_in() {
        let nobody = Users::new(BTreeMap::new()).unwrap();
        assert_eq!(nobody.check(None).await.as_deref(), Some(""));
    }

    #[tokio::test]
    async fn a_user_that_does_not_exist_costs_a_check() {
        let users = users();
        assert_eq!(users.nobody.parse::<bcrypt::HashParts>().unwrap().get_cost(), 4);
        assert!(bcrypt::verify("", &users.nobody).is_ok());
        // The pause after a failed check is the trace of it.
        assert!(users.check(Some(&header("mallory", "x"))).await.is_none());
        assert!(users.turn.try_lock().is_err());
    }

    #[tokio::test]
    async fn what_was_accepted_needs_no_turn_and_what_failed_makes_the_next_one_wait() {
        let users = users();
        assert!(users.check(Some(&header("alice", "secret"))).await.is_some());
        let busy = Arc::clone(&users.turn).lock_owned().await;
        assert!(users.check(Some(&header("alice", "secret"))).await.is_some());
        let wrong = header("alice", "wrong");
        let waits = tokio::time::timeout(Duration::from_millis(50), users.check(Some(&wrong)));
        assert!(waits.await.is_err());
        drop(busy);
    }

    #[test]
    fn what_is_remembered_has_a_limit() {
        let users = users();
        for number in 0..1_000_u32 {
            users.remember(users.digest("alice", &number.to_le_bytes()));
        }
        assert_eq!(users.accepted.lock().unwrap().len(), MOST_REMEMBERED);
        assert!(users.is_remembered(&users.digest("alice", &999_u32.to_le_bytes())));
    }
}
