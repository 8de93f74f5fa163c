//! The socket that the worker's NOTIFY_SOCKET names (sd_notify(3)). livelet receives the worker's
//! messages from the socket and relays them to its own supervisor, such as systemd.

use std::cell::{Cell, RefCell};
use std::ffi::OsString;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::rc::Rc;
use std::time::Instant;

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt,
};
use rustix::pipe::fcntl_getpipe_size;
use smol::LocalExecutor;

use super::directory::Directory;
use super::message::Notification;
use super::receive::{Datagram, receive};
use super::sender::{Refusal, SenderFacts, judge};
use super::{Notified, Upstream};
use crate::close::Closer;
use crate::log;
use crate::peer::Peer;
use crate::runtime::{Source, task};
use crate::worker;

/// Maximum number of sd_notify messages that are read before other tasks run, so that a flood of
/// messages does not delay the tasks.
const MESSAGES: usize = 16;

/// The socket to which the worker sends sd_notify messages, and the directory of the socket.
#[derive(Debug)]
pub(crate) struct NotifySocket {
    reader: Option<Reader>,
    /// Directory of the socket, removed on drop. `None` if the socket has an abstract name
    /// (unix(7)).
    _directory: Option<Directory>,
    /// Value of the variable NOTIFY_SOCKET in the worker's environment.
    pub(crate) name: OsString,
}

impl NotifySocket {
    /// Opens the socket at a path in a new directory, or under an abstract name (unix(7)) if
    /// livelet can make no such directory.
    ///
    /// # Errors
    /// Returns the error of socket(2) or bind(2).
    pub(crate) fn open() -> io::Result<NotifySocket> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        sockopt::set_socket_passcred(&socket, true)?;
        let directory = Directory::bind(&socket);
        let name = match &directory {
            Some(directory) => directory.socket.clone().into_os_string(),
            None => bind_abstract(&socket)?,
        };
        Ok(NotifySocket {
            reader: Some(Reader {
                socket: ManuallyDrop::new(Source::new(socket)),
                refused: Cell::new(0),
            }),
            _directory: directory,
            name,
        })
    }

    /// Starts a task that reads the socket. The task applies each message from a trusted sender to
    /// `notified`, the state of the worker, and relays the message to `upstream`, livelet's own
    /// supervisor. Only the first call does this.
    pub(crate) fn listen(
        &mut self,
        executor: &Rc<LocalExecutor<'static>>,
        notified: Rc<RefCell<Notified>>,
        upstream: Rc<Upstream>,
    ) {
        if let Some(reader) = self.reader.take() {
            let read = reader.run(Closer::new(Rc::clone(executor)), notified, upstream);
            task::spawn(executor, read);
        }
    }
}

/// Binds `socket` to an abstract name that the kernel chooses (unix(7), autobind). Returns `@` and
/// the name, as a value of NOTIFY_SOCKET. A name made from livelet's pid could clash: livelets in
/// two containers of one pod can have the same pid.
fn bind_abstract(socket: &OwnedFd) -> io::Result<OsString> {
    bind(socket, &SocketAddrUnix::new_unnamed())?;
    let address = SocketAddrUnix::try_from(getsockname(socket)?)?;
    let name = address.abstract_name().unwrap_or_default();
    Ok(OsString::from_vec([b"@", name].concat()))
}

#[derive(Debug)]
struct Reader {
    /// The notify socket. livelet never closes it, because that would also close the descriptors in
    /// unread messages, and the close of a descriptor may block (SO_LINGER). When the process ends,
    /// the kernel closes all of them without blocking.
    socket: ManuallyDrop<Source<OwnedFd>>,
    /// Set of the reasons, one bit each, for which an ignored message has been logged (see
    /// [`Refusal::bit`]).
    refused: Cell<u32>,
}

impl Reader {
    async fn run(
        self,
        closer: Rc<Closer>,
        notified: Rc<RefCell<Notified>>,
        upstream: Rc<Upstream>,
    ) {
        loop {
            if let Err(cause) = self.socket.readable().await {
                let cause = log::Cause(&cause);
                return log::notice(format_args!("notify: socket: cannot be read: {cause}"));
            }
            for _ in 0..MESSAGES {
                closer.below_limit().await;
                match receive(self.socket.get_ref()) {
                    Ok(mut datagram) => {
                        self.handle(&datagram, &notified, &upstream);
                        // A pipe, as `BARRIER=1` has one, is closed at once: that never waits.
                        // SO_PASSRIGHTS stays on: without it, `BARRIER=1` can't be sent.
                        let descriptors = &mut datagram.descriptors;
                        descriptors.retain(|one| fcntl_getpipe_size(one).is_err());
                        closer.close(datagram.descriptors);
                    }
                    // No message is left, or this one can't be received. `readable` reports further
                    // ones.
                    Err(_) => break,
                }
            }
        }
    }

    fn handle(&self, datagram: &Datagram, notified: &RefCell<Notified>, upstream: &Upstream) {
        match message(datagram) {
            Ok(message) => {
                notified.borrow_mut().receive(message, Instant::now());
                let relayed = message.relayed();
                if !relayed.is_empty() {
                    upstream.send(&relayed);
                }
            }
            Err(refusal) => self.refuse(datagram.sender, refusal),
        }
    }

    /// Logs that a message of `sender` is ignored for the reason `refusal`. Each reason is logged
    /// as a notice the first time, and as a detail later.
    fn refuse(&self, sender: Option<Peer>, refusal: Refusal) {
        let bit = 1 << refusal.bit();
        let refused = self.refused.get();
        self.refused.set(refused | bit);
        let Peer { pid, uid } = sender.unwrap_or(Peer { pid: 0, uid: 0 });
        let is_new = refused & bit == 0;
        let log = if is_new { log::notice } else { log::detail };
        log(format_args!(
            "notify: message of pid {pid}, uid {uid}: ignored: {refusal}"
        ));
    }
}

/// Returns the sd_notify message in a datagram.
///
/// # Errors
/// Returns the reason if livelet must ignore the datagram: its sender is unknown or not trusted, or
/// the message is too long or malformed.
fn message(datagram: &Datagram) -> Result<Notification<'_>, Refusal> {
    let sender = datagram.sender.ok_or(Refusal::NoCredentials)?;
    judge(sender, &sender)?;
    let bytes = datagram.message.as_ref().ok_or(Refusal::TooLong)?;
    Notification::parse(bytes).ok_or(Refusal::Malformed)
}

impl SenderFacts for Peer {
    fn is_of_own_user(&self) -> bool {
        Peer::is_of_own_user(*self)
    }

    fn shares_pid_namespace(&self) -> bool {
        Peer::shares_pid_namespace(*self)
    }

    fn is_descendant(&self) -> bool {
        worker::is_descendant(self.pid) == Some(true)
    }
}
