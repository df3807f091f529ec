//! What the two processes say to each other: messages with a length before them, over a stream socket pair.
//!
//! The first message goes to the network process and brings the listeners with it (`SCM_RIGHTS`). After that it asks
//! and the core answers, one question at a time. A message from the network process is taken for hostile: it has at
//! most [`LARGEST_REQUEST_BYTES`], and its tag says what follows.

use std::{
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

use super::{Format, listen::MOST_LISTENERS};

/// Largest message from the network process.
pub(super) const LARGEST_REQUEST_BYTES: usize = 1 << 10;

/// Largest message to it: a rendering of more series than any machine should have.
pub(super) const LARGEST_ANSWER_BYTES: usize = 64 << 20;

/// The length before a message: little endian, without itself.
const LENGTH_BYTES: usize = 4;

/// What the network process says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// It has given up its rights, and serves from now on.
    Serving,
    /// It cannot serve.
    Failed(String),
    /// It asks for `/metrics`. It has the rendering of that interval already.
    Metrics { format: Format, have_seq: Option<u64> },
    /// It asks for the state.
    Status,
    /// A client got `/metrics` whole, or a collector took a push. No answer.
    Fetched { scraper: u64, seq: u64 },
    /// A collector did not take a push: why. No answer.
    NotTaken(String),
}

/// What the core says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The rendering of an interval.
    Metrics { seq: u64, text: Vec<u8> },
    /// What the network process has is the newest.
    Unchanged,
    /// The state, as JSON.
    Status(Vec<u8>),
}

impl Request {
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Serving => vec![1],
            Self::Failed(text) => words(2, text),
            Self::Metrics { format, have_seq } => {
                let format = match format {
                    Format::OpenMetrics => 0,
                    Format::Text => 1,
                    Format::Otlp => 2,
                };
                let seq = have_seq.unwrap_or(0).to_le_bytes();
                [&[3, format, u8::from(have_seq.is_some())], &seq[..]].concat()
            }
            Self::Status => vec![4],
            Self::Fetched { scraper, seq } => [&[5][..], &scraper.to_le_bytes(), &seq.to_le_bytes()].concat(),
            Self::NotTaken(why) => words(6, why),
        }
    }

    /// `None` for what no network process of this program says.
    pub(super) fn decode(message: &[u8]) -> Option<Self> {
        let (tag, rest) = message.split_first()?;
        match (tag, rest) {
            (1, []) => Some(Self::Serving),
            (2, text) => Some(Self::Failed(String::from_utf8_lossy(text).into_owned())),
            (3, [format, has_seq, seq @ ..]) => {
                let format = match format {
                    0 => Format::OpenMetrics,
                    1 => Format::Text,
                    2 => Format::Otlp,
                    _ => return None,
                };
                let seq = u64::from_le_bytes(seq.try_into().ok()?);
                let have_seq = match has_seq {
                    0 => None,
                    1 => Some(seq),
                    _ => return None,
                };
                Some(Self::Metrics { format, have_seq })
            }
            (4, []) => Some(Self::Status),
            (5, rest) => {
                let (scraper, seq) = rest.split_first_chunk()?;
                Some(Self::Fetched {
                    scraper: u64::from_le_bytes(*scraper),
                    seq: u64::from_le_bytes(seq.try_into().ok()?),
                })
            }
            (6, why) => Some(Self::NotTaken(String::from_utf8_lossy(why).into_owned())),
            _ => None,
        }
    }
}

/// A request with a text, of which as much is said as there is room for.
fn words(tag: u8, text: &str) -> Vec<u8> {
    let most = text.floor_char_boundary(LARGEST_REQUEST_BYTES / 2);
    [&[tag], text.as_bytes().get(..most).unwrap_or_default()].concat()
}

impl Answer {
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Metrics { seq, text } => metrics(*seq, text),
            Self::Unchanged => vec![2],
            Self::Status(json) => [&[3], &json[..]].concat(),
        }
    }

    pub(super) fn decode(message: Vec<u8>) -> Option<Self> {
        let (tag, rest) = message.split_first()?;
        match (tag, rest) {
            (1, rest) => {
                let (seq, text) = rest.split_first_chunk()?;
                Some(Self::Metrics {
                    seq: u64::from_le_bytes(*seq),
                    text: text.to_vec(),
                })
            }
            (2, []) => Some(Self::Unchanged),
            (3, json) => Some(Self::Status(json.to_vec())),
            _ => None,
        }
    }
}

/// [`Answer::Metrics`] of a rendering that stays where it is.
pub(super) fn metrics(seq: u64, text: &[u8]) -> Vec<u8> {
    [&[1][..], &seq.to_le_bytes(), text].concat()
}

/// The length that goes before a message.
///
/// # Errors
///
/// `InvalidData` beyond `most`.
pub(super) fn length(message: &[u8], most: usize) -> io::Result<[u8; LENGTH_BYTES]> {
    match u32::try_from(message.len()) {
        Ok(length) if message.len() <= most => Ok(length.to_le_bytes()),
        _ => Err(too_long(message.len(), most)),
    }
}

/// How many bytes the message has that follows this length.
///
/// # Errors
///
/// `InvalidData` beyond `most`: nothing is read or allocated for it.
pub(super) fn announced(length: [u8; LENGTH_BYTES], most: usize) -> io::Result<usize> {
    match usize::try_from(u32::from_le_bytes(length)) {
        Ok(length) if length <= most => Ok(length),
        _ => Err(too_long(usize::MAX, most)),
    }
}

fn too_long(length: usize, most: usize) -> io::Error {
    let error = format!("a message of {length} bytes, and {most} are the most");
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Writes one message.
///
/// # Errors
///
/// Any I/O error from the operating system; `InvalidData` beyond `most`.
pub(super) fn write(mut stream: impl Write, message: &[u8], most: usize) -> io::Result<()> {
    stream.write_all(&length(message, most)?)?;
    stream.write_all(message)
}

/// Reads one message; `None` where the other side has closed the connection before it.
///
/// # Errors
///
/// Any I/O error from the operating system; `InvalidData` beyond `most`.
pub(super) fn read(mut stream: impl Read, most: usize) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; LENGTH_BYTES];
    match stream.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let mut message = vec![0; announced(length, most)?];
    stream.read_exact(&mut message)?;
    Ok(Some(message))
}

/// Room for the descriptors of all listeners.
const RIGHTS_BYTES: usize = rustix::cmsg_space!(ScmRights(MOST_LISTENERS));

/// Writes the first message, with the listeners.
///
/// # Errors
///
/// Any I/O error from the operating system; `InvalidData` for a message that is too long.
pub(super) fn write_with(mut stream: &UnixStream, message: &[u8], listeners: &[BorrowedFd<'_>]) -> io::Result<()> {
    let length = length(message, LARGEST_ANSWER_BYTES)?;
    let mut space = [MaybeUninit::uninit(); RIGHTS_BYTES];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(listeners)) {
        return Err(io::Error::other("there are too many listeners"));
    }
    let sent = sendmsg(stream, &[IoSlice::new(&length)], &mut control, SendFlags::NOSIGNAL)?;
    stream.write_all(length.get(sent..).unwrap_or_default())?;
    stream.write_all(message)
}

/// Reads the first message, and the listeners that come with it.
///
/// # Errors
///
/// Any I/O error from the operating system; `InvalidData` for a message that is too long.
pub(super) fn read_with(mut stream: &UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut length = [0; LENGTH_BYTES];
    let mut space = [MaybeUninit::uninit(); RIGHTS_BYTES];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        stream,
        &mut [IoSliceMut::new(&mut length)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut listeners = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            listeners.extend(rights);
        }
    }
    stream.read_exact(length.get_mut(received.bytes..).unwrap_or_default())?;
    let mut message = vec![0; announced(length, LARGEST_ANSWER_BYTES)?];
    stream.read_exact(&mut message)?;
    Ok((message, listeners))
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, os::fd::AsFd};

    use proptest::prelude::*;

    use super::*;

    fn requests() -> impl Strategy<Value = Request> {
        let format = proptest::sample::select(&Format::ALL[..]);
        prop_oneof![
            Just(Request::Serving),
            Just(Request::Status),
            ".{0,600}".prop_map(Request::Failed),
            ".{0,600}".prop_map(Request::NotTaken),
            (format, any::<Option<u64>>()).prop_map(|(format, have_seq)| Request::Metrics { format, have_seq }),
            any::<(u64, u64)>().prop_map(|(scraper, seq)| Request::Fetched { scraper, seq }),
        ]
    }

    proptest! {
        #[test]
        fn a_request_is_read_as_it_was_written(request in requests()) {
            let message = request.encode();
            prop_assert!(message.len() <= LARGEST_REQUEST_BYTES);
            match (Request::decode(&message).unwrap(), request) {
                (Request::Failed(read), Request::Failed(text)) | (Request::NotTaken(read), Request::NotTaken(text)) => {
                    prop_assert!(text.starts_with(&read));
                }
                (read, request) => prop_assert_eq!(read, request),
            }
        }

        #[test]
        fn any_bytes_are_a_request_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Some(request) = Request::decode(&bytes) {
                prop_assert!(matches!(request, Request::Failed(_) | Request::NotTaken(_)) || request.encode() == bytes);
            }
        }

        #[test]
        fn an_answer_is_read_as_it_was_written(seq: u64, text: Vec<u8>) {
            for answer in [Answer::Metrics { seq, text: text.clone() }, Answer::Unchanged, Answer::Status(text.clone())] {
                prop_assert_eq!(Answer::decode(answer.encode()).unwrap(), answer);
            }
        }
    }

    #[test]
    fn a_message_beyond_the_limit_is_not_read() {
        let mut stream = Vec::new();
        write(&mut stream, &[7; 11], 11).unwrap();
        assert_eq!(read(&stream[..], 11).unwrap().unwrap(), [7; 11]);
        assert_eq!(read(&stream[..], 10).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(
            read(&u32::MAX.to_le_bytes()[..], 10).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        assert!(write(Vec::new(), &[7; 11], 10).is_err());
        assert!(read(&[][..], 10).unwrap().is_none());
        assert!(read(&stream[..6], 11).is_err(), "cut off");
    }

    #[test]
    fn listeners_come_with_the_first_message() {
        let (one, other) = UnixStream::pair().unwrap();
        let listeners: Vec<TcpListener> = (0..MOST_LISTENERS)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let descriptors: Vec<BorrowedFd<'_>> = listeners.iter().map(AsFd::as_fd).collect();
        write_with(&one, b"setup", &descriptors).unwrap();
        let (message, received) = read_with(&other).unwrap();
        assert_eq!(message, b"setup");
        let address = |listener: &TcpListener| listener.local_addr().unwrap();
        let received: Vec<_> = received.into_iter().map(TcpListener::from).collect();
        assert_eq!(
            received.iter().map(address).collect::<Vec<_>>(),
            listeners.iter().map(address).collect::<Vec<_>>()
        );
    }
}
