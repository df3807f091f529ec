//! A network process: without rights, it parses what comes from the network and asks the core what to answer.
//!
//! One serves, and one pushes if the agent is to: what serves cannot make connections, and what pushes takes none.

mod auth;
mod connections;
mod core;
mod http;
mod negotiation;
mod push;
mod sandbox;
mod watched;

use std::{
    net::TcpListener,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::{io::fcntl_dupfd_cloexec, net::sockopt, stdio};
use signal_hook::consts::signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

use self::{
    auth::Users,
    connections::{Connections, Slot},
    core::Core,
    http::Site,
    push::Collector,
    sandbox::Confinement,
};
use super::{
    protocol::{self, LARGEST_REQUEST_BYTES, Request},
    push::Target,
    role::{Setup, Task},
    server::SUBCOMMAND,
    settings::Settings,
};
use crate::sinks::terminal::say;

/// How long no connection is taken after one could not be, for want of a descriptor for example.
const REST: Duration = Duration::from_millis(20);

/// The whole life of the network process, `dlpm agent-web`, which the core alone starts.
pub fn run() -> ExitCode {
    let connection = match inherited() {
        Ok(connection) => connection,
        Err(error) => {
            say(&format!("{error:#}"));
            return ExitCode::FAILURE;
        }
    };
    match stay().and_then(|()| work(&connection)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let failed = Request::Failed(format!("{error:#}")).encode();
            let _ = protocol::write(&connection, &failed, LARGEST_REQUEST_BYTES);
            ExitCode::FAILURE
        }
    }
}

/// The connection to the core, which is standard input, as the only descriptor beside the standard ones.
fn inherited() -> Result<UnixStream> {
    let stdin = stdio::stdin();
    let is_ours = sockopt::socket_domain(stdin).is_ok_and(|domain| domain == rustix::net::AddressFamily::UNIX);
    if !is_ours {
        bail!("`dlpm {SUBCOMMAND}` is started by `dlpm agent`, and by nobody else");
    }
    sandbox::close_inherited()?;
    let connection = fcntl_dupfd_cloexec(stdin, 3).context("the connection to the core cannot be kept")?;
    let null = std::fs::File::open("/dev/null").context("/dev/null cannot be opened")?;
    stdio::dup2_stdin(&null).context("standard input cannot be closed")?;
    Ok(UnixStream::from(connection))
}

/// Signals that ask to end are for the core: a terminal sends Ctrl-C, and a service manager SIGTERM, to all processes at
/// once. This one ends when the core closes the connection, or by SIGKILL when the core is gone.
fn stay() -> Result<()> {
    let asked = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&asked)).context("signals cannot be listened to")?;
    }
    Ok(())
}

fn work(connection: &UnixStream) -> Result<()> {
    let (setup, listeners) = protocol::read_with(connection).context("the core said nothing")?;
    let Setup { parent, task } = serde_json::from_slice(&setup).context("the core said what is not understood")?;
    sandbox::enter(parent)?;
    match task {
        Task::Serve(settings) => serve(connection, &settings, listeners),
        Task::Push(target) => push(connection, &target),
    }
}

fn serve(connection: &UnixStream, settings: &Settings, listeners: Vec<OwnedFd>) -> Result<()> {
    sandbox::confine(Confinement::Serving)?;
    let tls = settings.tls.as_ref().map(|tls| tls.server()).transpose()?;
    let site = Site::new(Users::new(settings.users.clone())?, &settings.headers)?;
    // One to check passwords and one to compress.
    let runtime = runtime(2)?;
    runtime.block_on(serve_until_closed(
        begin(connection)?,
        listeners,
        tls.map(|tls| TlsAcceptor::from(Arc::new(tls))),
        site,
    ))
}

fn push(connection: &UnixStream, target: &Target) -> Result<()> {
    // Reads the system's certificates, as the user that it is now.
    let collector = Collector::new(target)?;
    let port = target.endpoint.port();
    sandbox::confine(Confinement::Pushing { port })?;
    // One to compress, and some that wait for the resolver.
    let runtime = runtime(4)?;
    let connection = begin(connection)?;
    runtime.block_on(async {
        let (core, talk) = Core::new(connection)?;
        tokio::select! {
            // It ends when the core closes the connection.
            ended = talk => ended,
            never = push::run(&core, &collector, target) => match never {},
        }
    })
}

fn runtime(blocking_threads: usize) -> Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(blocking_threads)
        .build()
        .context("the network cannot be waited for")
}

/// Tells the core that all is ready. From then on the connection is for questions.
fn begin(connection: &UnixStream) -> Result<UnixStream> {
    protocol::write(connection, &Request::Serving.encode(), LARGEST_REQUEST_BYTES)?;
    connection
        .try_clone()
        .context("the connection to the core cannot be kept")
}

async fn serve_until_closed(
    connection: UnixStream,
    listeners: Vec<OwnedFd>,
    tls: Option<TlsAcceptor>,
    site: Site,
) -> Result<()> {
    let (core, talk) = Core::new(connection)?;
    let shared = Arc::new(Shared {
        connections: Connections::default(),
        tls,
        site,
        core,
    });
    for listener in listeners {
        let descriptor = listener.as_raw_fd();
        let listener = TcpListener::from(listener);
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)
            .with_context(|| format!("the descriptor {descriptor} is not a listener"))?;
        tokio::spawn(accept(listener, Arc::clone(&shared)));
    }
    // It ends when the core closes the connection. All that is still being written ends with it.
    talk.await
}

/// What every connection needs.
struct Shared {
    connections: Connections,
    tls: Option<TlsAcceptor>,
    site: Site,
    core: Core,
}

async fn accept(listener: tokio::net::TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            tokio::time::sleep(REST).await;
            continue;
        };
        let slot = shared.connections.admit(peer.ip());
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let watched = slot.activity();
            tokio::select! {
                () = connection(stream, &shared, &slot) => {}
                () = watched.over() => {}
            }
        });
        // A thousand connections at once wait for those that already have one.
        tokio::task::yield_now().await;
    }
}

async fn connection(stream: tokio::net::TcpStream, shared: &Arc<Shared>, slot: &Slot) {
    // The end of an answer is not held back until the client has confirmed what went before.
    let _ = stream.set_nodelay(true);
    match &shared.tls {
        Some(tls) => {
            if let Ok(stream) = tls.accept(stream).await {
                http::serve(stream, shared, slot).await;
            }
        }
        None => http::serve(stream, shared, slot).await,
    }
}
