//! The worker's NOTIFY_SOCKET (sd_notify(3)): receives its messages and relays them to livelet's
//! own supervisor.

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
use super::message::Message;
use super::receive::{Datagram, receive};
use super::sender::{Facts, Refusal, judge};
use super::{Notified, Upstream};
use crate::close::Closer;
use crate::log;
use crate::peer::Peer;
use crate::runtime::{Source, task};
use crate::worker;

/// Maximum number of messages that are read before other tasks run, so that a flood does not delay
/// them.
const MESSAGES: usize = 16;

/// The worker's notify socket and its directory.
#[derive(Debug)]
pub(crate) struct NotifySocket {
    reader: Option<Reader>,
    /// Directory of the socket, removed on drop. `None` if the name is abstract.
    _directory: Option<Directory>,
    /// Value of the worker's NOTIFY_SOCKET.
    pub(crate) name: OsString,
}

impl NotifySocket {
    /// Opens the socket at a path, or under an abstract name if no directory can be written to.
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

    /// Starts a task that applies messages to the state and relays them to the supervisor.
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

/// Binds to an abstract name that the kernel chooses (unix(7), autobind). A name from the pid could
/// clash: two containers of one pod can have the same pid.
fn bind_abstract(socket: &OwnedFd) -> io::Result<OsString> {
    bind(socket, &SocketAddrUnix::new_unnamed())?;
    let address = SocketAddrUnix::try_from(getsockname(socket)?)?;
    let name = address.abstract_name().unwrap_or_default();
    Ok(OsString::from_vec([b"@", name].concat()))
}

#[derive(Debug)]
struct Reader {
    /// Socket that only the end of the process closes. Descriptors in unread messages are closed
    /// with it. SO_LINGER of such a descriptor has no effect at the end of a process.
    socket: ManuallyDrop<Source<OwnedFd>>,
    /// Set of refusals that have been logged, one bit for each.
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
                    // A signal, or an error of one message: the next call tells.
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

    /// Logs that a message is ignored. The first time for each reason counts as a notice, later
    /// ones as details.
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

/// Returns the message of a datagram.
///
/// # Errors
/// Returns an error if the message is malformed or its sender is not trusted.
fn message(datagram: &Datagram) -> Result<Message<'_>, Refusal> {
    let sender = datagram.sender.ok_or(Refusal::NoCredentials)?;
    judge(sender, &sender)?;
    let bytes = datagram.message.as_ref().ok_or(Refusal::TooLong)?;
    Message::parse(bytes).ok_or(Refusal::Malformed)
}

impl Facts for Peer {
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
