//! Which processes a recording is asked for.

use regex::{Regex, RegexBuilder};

use super::{
    feed::Root,
    peer::{self, Peer},
    recording::Sight,
    recordings::Refused,
    wire::{Follow, RecordingRequest},
};
use crate::{
    attribution::selection::Selection,
    interval::Trees,
    tenants::{Wanted, WantedError},
};

/// Room for a regular expression that is compiled, in bytes.
const REGEX_BYTES: usize = 64 << 10;

/// The processes that are listed.
///
/// # Errors
///
/// Where it makes no sense, or is not for this caller.
pub fn selection(request: &RecordingRequest, sight: Sight, tree: Option<u8>) -> Result<Selection, Refused> {
    let uids = match sight {
        Sight::All => request.uid.clone(),
        Sight::Own(uid) if request.uid.iter().all(|wanted| *wanted == uid) => vec![uid],
        Sight::Own(uid) => {
            return Err(Refused::Forbidden(format!(
                "user {uid} may measure processes of user {uid} only; root and the group {} may measure all",
                peer::GROUP
            )));
        }
    };
    let wrong = |error: WantedError| Refused::Wrong(error.to_string());
    let of = |values: &[String], parse: fn(&str) -> Result<Wanted, WantedError>| {
        values
            .iter()
            .map(|value| parse(value))
            .collect::<Result<Vec<_>, _>>()
            .map_err(wrong)
    };
    let tenants = [
        of(&request.job, Wanted::job)?,
        of(&request.container, Wanted::container)?,
        of(&request.pod, Wanted::pod)?,
        of(&request.unit, Wanted::unit)?,
        of(&request.tenant, Wanted::tenant)?,
    ];
    Ok(Selection {
        cgroups: request.cgroup.clone(),
        tenants: tenants.into_iter().filter(|wanted| !wanted.is_empty()).collect(),
        comm: request
            .comm
            .iter()
            .map(|text| pattern(text))
            .collect::<Result<_, _>>()?,
        uids,
        trees: tree.map_or_else(Trees::default, Trees::one),
    })
}

fn pattern(text: &str) -> Result<Regex, Refused> {
    let compiled = RegexBuilder::new(text)
        .size_limit(REGEX_BYTES)
        .dfa_size_limit(REGEX_BYTES)
        .build();
    compiled.map_err(|error| {
        Refused::Wrong(format!(
            "`{}` is not a regular expression that can be used: {error}",
            text.escape_debug()
        ))
    })
}

/// The roots of the tree that is asked for.
///
/// # Errors
///
/// Where the caller's own pid is not known.
pub fn roots(request: &RecordingRequest, peer: &Peer) -> Result<Vec<(u32, Root)>, Refused> {
    let caller = || {
        peer.pid.ok_or_else(|| {
            Refused::Wrong(
                "the caller is in a pid namespace that the agent does not see: give pids of the host instead"
                    .to_owned(),
            )
        })
    };
    let root = |follow: &Follow| match follow {
        Follow::Caller => Ok((caller()?, Root::Whole)),
        Follow::Children => Ok((caller()?, Root::Descendants)),
        Follow::Pid(pid) => Ok((*pid, Root::Whole)),
    };
    request.follow.iter().map(root).collect()
}
