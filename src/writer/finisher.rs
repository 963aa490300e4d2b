//! The thread that brings files to the disk and gives them their names, while others work: that is waiting and nothing else.

use crate::error::{Error, Result};
use crate::host::{panic_text, thread_builder};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a finisher is told, in the order in which it is told.
pub(super) struct Finisher<M> {
    /// `None` if there is no thread, or if nothing more comes.
    send: Mutex<Option<SyncSender<M>>>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<M: Send> Finisher<M> {
    pub fn new() -> Finisher<M> {
        Finisher { send: Mutex::new(None) }
    }

    /// Works, while another thread does `finish` for each message, until one fails. `waiting` messages may wait for it. Returns how
    /// the work ended, and how the finisher.
    pub fn run(
        &self,
        waiting: usize,
        finish: impl Fn(M) -> Result<()> + Send,
        work: impl FnOnce() -> Result<()>,
    ) -> (Result<()>, Result<()>) {
        let (send, receive) = sync_channel(waiting);
        let finish_all = move || {
            for message in &receive {
                if let Err(error) = finish(message) {
                    // Senders must not wait for somebody who has gone.
                    receive.iter().for_each(drop);
                    return Err(error);
                }
            }
            Ok(())
        };
        std::thread::scope(|scope| match thread_builder().spawn_scoped(scope, finish_all) {
            Ok(thread) => {
                *lock(&self.send) = Some(send);
                let worked = work();
                *lock(&self.send) = None;
                let finished = thread.join().unwrap_or_else(|panic| Err(Error::Internal(panic_text(&*panic))));
                (worked, finished)
            }
            Err(error) => {
                log::warn!("a thread could not be started ({error}): those that work bring the files to the disk, too");
                (work(), Ok(()))
            }
        })
    }

    /// Tells the finisher something. Without one the message is `finish`ed here.
    pub fn tell(&self, message: M, finish: impl FnOnce(M) -> Result<()>) -> Result<()> {
        let send = lock(&self.send).clone();
        match send {
            Some(send) => {
                // If the finisher has gone, it has left its error.
                let _ = send.send(message);
                Ok(())
            }
            None => finish(message),
        }
    }
}
