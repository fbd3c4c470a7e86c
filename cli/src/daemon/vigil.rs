//! One snapshot and its witness, on a thread of their own: whoever asks about it waits for nobody
//! who asks about another.
//!
//! The thread empties the kernel's queue whenever something happens, and looks at files when it is
//! asked, or when it is told that a build has ended.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use maestro_executor::workspace::snapshot::witness::{Folders, Hindrance, Witness};
use maestro_executor::workspace::snapshot::{SnapshotError, SnapshotName};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use super::message::{Answer, Told};

/// Orders that wait for a thread that is busy.
const ORDERS_MAX: usize = 16;

/// Most folders of which the kernel does not tell. Beyond, whoever asks looks sooner by itself.
const UNTOLD_MAX: usize = 1000;

/// What a vigil is about.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The workspace's root.
    pub workspace: PathBuf,
    /// Where its state is kept.
    pub state_dir: PathBuf,
    /// The build of Maestro that asks and answers.
    pub build: String,
    /// The options of the request.
    pub options: Vec<String>,
}

/// The handle of a vigil; the thread ends with it.
#[derive(Debug)]
pub struct Vigil {
    orders: Option<SyncSender<Order>>,
    wake: Arc<OwnedFd>,
    folders: Arc<Mutex<Folders>>,
}

#[derive(Debug)]
enum Order {
    /// Look at what happened, so that the next look is short.
    Prepare,
    /// Say what changed.
    Tell(SyncSender<Answer>),
}

impl Vigil {
    /// Starts the thread. It looks at nothing before it is told to.
    pub fn start(subject: Subject) -> Result<Self> {
        let (orders, receiver) = sync_channel(ORDERS_MAX);
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let wake = Arc::new(wake.context("the kernel gives no event")?);
        let folders = Arc::default();
        let keeper = Keeper {
            subject,
            orders: receiver,
            wake: Arc::clone(&wake),
            folders: Arc::clone(&folders),
            witness: None,
            noted: false,
            futile: None,
        };
        std::thread::Builder::new()
            .name("vigil".to_owned())
            .spawn(move || keeper.run())
            .context("cannot start a thread")?;
        Ok(Self { orders: Some(orders), wake, folders })
    }

    /// Has the thread look at what happened.
    pub fn prepare(&self) {
        self.order(Order::Prepare);
    }

    /// Asks what changed, and waits for the answer so long at most.
    pub fn ask(&self) -> impl FnOnce(Duration) -> Option<Answer> + use<> {
        let (reply, answer) = sync_channel(1);
        self.order(Order::Tell(reply));
        move |wait| answer.recv_timeout(wait).ok()
    }

    /// How many folders it looks after.
    pub fn folders(&self) -> Folders {
        *self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn order(&self, order: Order) {
        // Where too many orders wait, the asker gets no answer and does without.
        if self.orders.as_ref().is_some_and(|orders| orders.try_send(order).is_ok()) {
            self.wake();
        }
    }

    fn wake(&self) {
        // It fails only where the thread was woken very often, and then it is awake.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

impl Drop for Vigil {
    fn drop(&mut self) {
        self.orders = None;
        self.wake();
    }
}

/// The thread.
struct Keeper {
    subject: Subject,
    orders: Receiver<Order>,
    wake: Arc<OwnedFd>,
    folders: Arc<Mutex<Folders>>,
    witness: Option<Witness>,
    /// Whether the user was told what stands in the way.
    noted: bool,
    /// Why there is no point in looking.
    futile: Option<String>,
}

impl Keeper {
    fn run(mut self) {
        loop {
            match self.orders.try_recv() {
                Ok(order) => self.obey(order),
                Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) => {
                    if self.wait().is_err() {
                        // What happened is no longer known.
                        self.witness = None;
                    }
                }
            }
        }
    }

    /// Waits for an order, and takes note of what happens until then.
    fn wait(&mut self) -> Result<()> {
        let queues = self.witness.iter().flat_map(Witness::queues);
        let queues = std::iter::once(self.wake.as_fd()).chain(queues);
        let mut ready: Vec<PollFd<'_>> =
            queues.map(|queue| PollFd::from_borrowed_fd(queue, PollFlags::IN)).collect();
        match poll(&mut ready, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        // The number of times it was woken does not matter.
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        if let Some(witness) = &mut self.witness {
            witness.drain()?;
        }
        Ok(())
    }

    fn obey(&mut self, order: Order) {
        let looked = match &self.futile {
            Some(why) => Err(Ignorance::Lasting(why.clone())),
            None => self.look(),
        };
        let Order::Tell(reply) = order else { return };
        let answer = match looked {
            Ok(told) => {
                let note = told.note.filter(|_| !self.noted);
                self.noted |= note.is_some();
                Answer::Told(Told { note, ..told })
            }
            Err(Ignorance::Lasting(why)) if !self.noted => {
                self.noted = true;
                Answer::Unable(why)
            }
            Err(Ignorance::Passing(why) | Ignorance::Lasting(why)) => Answer::Unknown(why),
        };
        // Whoever asked may have gone on without an answer.
        let _ = reply.try_send(answer);
    }

    fn look(&mut self) -> Result<Told, Ignorance> {
        let looked = self.look_by_witness().map_err(|error| {
            self.witness = None;
            Ignorance::Lasting(crate::exit::chain(&error))
        });
        let told = looked?
            .ok_or_else(|| Ignorance::Passing("there is no snapshot of the request".to_owned()))?;
        let folders = self.witness.as_ref().map(Witness::folders).unwrap_or_default();
        *self.folders.lock().unwrap_or_else(PoisonError::into_inner) = folders;
        if folders.untold > UNTOLD_MAX {
            self.witness = None;
            let text = format!("the kernel does not tell of {} folders", folders.untold);
            let why = told.note.unwrap_or(text);
            return Err(Ignorance::Lasting(self.futile.insert(why).clone()));
        }
        Ok(told)
    }

    fn look_by_witness(&mut self) -> Result<Option<Told>, SnapshotError> {
        let Subject { workspace, state_dir, build, options } = &self.subject;
        let name = SnapshotName { state_dir, options, maestro_build: build };
        let held = match &mut self.witness {
            Some(witness) => witness.refresh(&name)?,
            None => false,
        };
        if !held {
            self.witness = Witness::open(&name, workspace)?;
        }
        let Some(witness) = &mut self.witness else { return Ok(None) };
        let changes = witness.look()?;
        let snapshot = witness.snapshot();
        let done = snapshot
            .requests()
            .last()
            .filter(|record| record.complete && changes.is_empty() && snapshot.is_current());
        Ok(Some(Told {
            head: *snapshot.identity(),
            done: done.map(|record| record.payload.clone()),
            changes,
            note: witness.hindrance().as_ref().map(note_of),
        }))
    }
}

/// Why it is not known what changed.
enum Ignorance {
    /// It may be known the next time.
    Passing(String),
    /// It will not.
    Lasting(String),
}

/// What the user should know of a hindrance.
fn note_of(hindrance: &Hindrance) -> String {
    match hindrance {
        Hindrance::Watches => "the daemon may watch no more folders, and files in the others are \
             looked at each time; raise the limit: `sysctl fs.inotify.max_user_watches=1048576`"
            .to_owned(),
        Hindrance::FileSystem(folder) => format!(
            "files in `{}` are looked at each time, since the kernel does not tell what others \
             change in that file system",
            folder.display()
        ),
    }
}
