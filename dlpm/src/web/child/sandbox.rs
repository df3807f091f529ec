//! What the network process gives up before it looks at the network.

use std::io;

use anyhow::{Context, Result, bail};
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, NetPort, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetStatus, Scope, path_beneath_rules,
};
use rustix::{
    io::Errno,
    process::{
        DumpableBehavior, Gid, Resource, Rlimit, Signal, Uid, getppid, nice, set_dumpable_behavior,
        set_parent_process_death_signal, setrlimit,
    },
    thread::{
        CapabilitySet, CapabilitySets, capability_is_in_bounding_set, clear_ambient_capability_set,
        remove_capability_from_bounding_set, set_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid,
        set_thread_res_uid,
    },
};

/// The user and the group `nobody`, as Linux itself numbers them (`/proc/sys/kernel/overflowuid`).
const NOBODY: u32 = 65_534;

/// Descriptors: more than all connections, the listeners and what waits for them need.
const MOST_DESCRIPTORS: u64 = 512;

/// Address space: the program, its stacks, and a few renderings of the largest size.
const MOST_MEMORY_BYTES: u64 = 1 << 30;

/// So much more polite than others this process is, from 0 to 19.
const NICE: i32 = 10;

/// Closes every descriptor above the standard ones. All of the core's close themselves at `exec`; this is for what a
/// library forgot.
///
/// # Errors
///
/// Any I/O error from the operating system, but none where the kernel is older than the call (Linux 5.9).
pub(super) fn close_inherited() -> io::Result<()> {
    // SAFETY: the process has one thread and has opened nothing yet, so no descriptor above 2 belongs to anything.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32) };
    match closed {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
            error => Err(error),
        },
    }
}

/// Gives up rights, memory and priority. To be called while the process has one thread: credentials belong to
/// threads in Linux, and later threads inherit them.
///
/// # Errors
///
/// Where any of it is not possible: then this process must not serve.
pub(super) fn enter(parent: u32) -> Result<()> {
    let limits = [
        (Resource::Nofile, MOST_DESCRIPTORS),
        (Resource::As, MOST_MEMORY_BYTES),
        (Resource::Core, 0),
        (Resource::Fsize, 0),
    ];
    for (resource, most) in limits {
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        setrlimit(resource, limit).with_context(|| format!("{resource:?} cannot be limited"))?;
    }
    nice(NICE).context("the priority cannot be lowered")?;
    give_up_rights().context(
        "its rights cannot be given up, for which the agent needs CAP_SETUID, CAP_SETGID and CAP_SETPCAP; run it as root",
    )?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("its memory cannot be protected")?;
    // After the change of the user, which takes it away.
    set_parent_process_death_signal(Some(Signal::KILL)).context("the end of the core cannot be heard")?;
    let present = getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs());
    // 0 is a parent in another pid namespace.
    if present.is_some_and(|present| present != parent) {
        bail!("the core has ended");
    }
    Ok(())
}

fn give_up_rights() -> Result<()> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match capability_is_in_bounding_set(capability) {
            Ok(true) => remove_capability_from_bounding_set(capability).context("capabilities cannot be dropped")?,
            Ok(false) => {}
            // This kernel has no such capability, and none after it.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno).context("capabilities cannot be listed"),
        }
    }
    clear_ambient_capability_set().context("ambient capabilities cannot be dropped")?;
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    set_thread_groups(&[]).context("groups cannot be dropped")?;
    set_thread_res_gid(gid, gid, gid).context("the group cannot be changed")?;
    set_thread_res_uid(uid, uid, uid).context("the user cannot be changed")?;
    let none = CapabilitySet::empty();
    let sets = CapabilitySets {
        effective: none,
        permitted: none,
        inheritable: none,
    };
    set_capabilities(None, sets).context("capabilities cannot be dropped")?;
    set_no_new_privs(true).context("new rights cannot be ruled out")
}

/// What a network process still may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Confinement {
    /// Neither open files, nor make connections, nor reach other processes.
    Serving,
    /// Connect to this port, and read what the system's resolver needs for names of hosts.
    Pushing { port: u16 },
}

/// The port of name servers, where an answer is too long for a datagram (RFC 1035, section 4.2.2).
const DNS: u16 = 53;

/// Where the resolver's configuration, sockets and modules are. Some of them are links into others.
const RESOLVER: [&str; 9] = [
    "/etc",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/run/NetworkManager",
    "/run/nscd",
    "/run/resolvconf",
    "/run/systemd/resolve",
];

/// Gives up files, new connections and other processes, as far as this kernel's Landlock can forbid them. Called while the
/// process has one thread, like [`enter`].
///
/// # Errors
///
/// Landlock cannot be entered. An old kernel without it is not an error, since all else holds.
pub(super) fn confine(to: Confinement) -> Result<RulesetStatus> {
    confined(to).context("Landlock cannot be entered")
}

fn confined(to: Confinement) -> Result<RulesetStatus> {
    let abi = ABI::V6;
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?;
    if let Confinement::Pushing { port } = to {
        for port in [port, DNS] {
            ruleset = ruleset.add_rule(NetPort::new(port, AccessNet::ConnectTcp))?;
        }
        // Those that are not there are left out.
        let readable = path_beneath_rules(RESOLVER, AccessFs::ReadFile | AccessFs::ReadDir);
        ruleset = ruleset.add_rules(readable)?;
    }
    Ok(ruleset.restrict_self()?.ruleset)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        net::{TcpListener, TcpStream},
        thread,
    };

    use super::*;

    /// What a thread can still do, as Landlock is of threads; `None` where this kernel has no Landlock.
    fn confined_to<T: Send>(to: Confinement, then: impl FnOnce() -> T + Send) -> Option<T> {
        thread::scope(|scope| {
            let confined = scope.spawn(|| {
                let status = confine(to).unwrap();
                (status == RulesetStatus::FullyEnforced).then(then)
            });
            confined.join().unwrap()
        })
    }

    #[test]
    fn a_process_that_pushes_reaches_one_port_and_what_a_resolver_reads() {
        let [collector, other] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
        let listening = TcpListener::bind(collector).unwrap();
        let outside = tempfile::tempdir().unwrap();
        let secret = outside.path().join("secret");
        fs::write(&secret, "x").unwrap();
        let found = confined_to(Confinement::Pushing { port: collector.port() }, || {
            let refused = |error: io::Error| error.kind() == io::ErrorKind::PermissionDenied;
            [
                TcpStream::connect(collector).is_ok(),
                TcpStream::connect(other).is_err_and(refused),
                fs::read("/etc/passwd").is_ok(),
                fs::write("/etc/dlpm-test", "x").is_err_and(refused),
                fs::read(&secret).is_err_and(refused),
                TcpListener::bind("127.0.0.1:0").is_err_and(refused),
            ]
        });
        drop(listening);
        if let Some(found) = found {
            assert_eq!(found, [true; 6]);
        }
    }

    #[test]
    fn a_process_that_serves_reaches_nothing() {
        let listening = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listening.local_addr().unwrap();
        let found = confined_to(Confinement::Serving, || {
            [TcpStream::connect(address).is_err(), fs::read("/etc/passwd").is_err()]
        });
        if let Some(found) = found {
            assert_eq!(found, [true; 2]);
        }
    }
}
