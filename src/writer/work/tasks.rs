//! The tasks of many files and groups, handed out to threads: the most urgent first, and new files only if nothing else is left to
//! do.

use crate::error::Error;
use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The kinds of tasks, the most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Verify,
    Encode,
    Copy,
    Count,
    Hash,
}

/// One task: number `number` of a group, or of a file for `Copy` and `Hash`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Task {
    pub kind: Kind,
    pub target: usize,
    pub number: usize,
}

/// The next thing for a thread to do.
#[derive(Debug)]
pub(super) enum Next {
    Task(Task),
    /// Begin this file: find out what its tasks are.
    Begin(usize),
    /// All is done.
    End,
}

/// Tasks of one kind and target: those from number `next` to `total`.
#[derive(Debug)]
struct Cursor {
    next: usize,
    total: usize,
}

struct Queue {
    /// Sorted by urgency.
    cursors: BTreeMap<(Kind, usize), Cursor>,
    next_file: usize,
    /// Files that are begun and not complete.
    open: usize,
    failed: Option<Error>,
}

/// All tasks, for all threads.
pub(super) struct Tasks {
    queue: Mutex<Queue>,
    wake: Condvar,
    files: usize,
    /// Files that may be open at a time.
    most_open: usize,
}

impl Tasks {
    pub fn new(files: usize, most_open: usize) -> Tasks {
        let queue = Queue { cursors: BTreeMap::new(), next_file: 0, open: 0, failed: None };
        Tasks { queue: Mutex::new(queue), wake: Condvar::new(), files, most_open }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds tasks 0 to `total` of a target; there is at least one.
    pub fn push(&self, kind: Kind, target: usize, total: usize) {
        self.lock().cursors.insert((kind, target), Cursor { next: 0, total });
        self.wake.notify_all();
    }

    /// Returns what to do next. Waits until there is something.
    pub fn next(&self) -> Next {
        let mut queue = self.lock();
        loop {
            if queue.failed.is_some() {
                return Next::End;
            }
            if let Some(mut first) = queue.cursors.first_entry() {
                let (kind, target) = *first.key();
                let cursor = first.get_mut();
                let task = Task { kind, target, number: cursor.next };
                cursor.next += 1;
                if cursor.next == cursor.total {
                    first.remove();
                }
                return Next::Task(task);
            }
            if queue.next_file < self.files && queue.open < self.most_open {
                queue.next_file += 1;
                queue.open += 1;
                return Next::Begin(queue.next_file - 1);
            }
            if queue.open == 0 {
                return Next::End;
            }
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Notes that a file that was begun is complete.
    pub fn complete(&self) {
        self.lock().open -= 1;
        self.wake.notify_all();
    }

    /// Notes that something has failed: no more tasks are handed out. The first error is kept.
    pub fn fail(&self, error: Error) {
        self.lock().failed.get_or_insert(error);
        self.wake.notify_all();
    }

    pub fn has_failed(&self) -> bool {
        self.lock().failed.is_some()
    }

    /// Returns the error that was kept.
    pub fn take_error(&self) -> Option<Error> {
        self.lock().failed.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(tasks: &Tasks) -> String {
        match tasks.next() {
            Next::Task(Task { kind, target, number }) => format!("{kind:?} {target}.{number}"),
            Next::Begin(file) => format!("begin {file}"),
            Next::End => "end".into(),
        }
    }

    #[test]
    fn the_most_urgent_comes_first_and_files_one_after_the_other() {
        let tasks = Tasks::new(3, 2);
        assert_eq!(taken(&tasks), "begin 0");
        tasks.push(Kind::Count, 0, 2);
        assert_eq!(taken(&tasks), "Count 0.0");
        tasks.push(Kind::Encode, 1, 1);
        tasks.push(Kind::Encode, 0, 1);
        let all: Vec<String> = (0..4).map(|_| taken(&tasks)).collect();
        assert_eq!(all, ["Encode 0.0", "Encode 1.0", "Count 0.1", "begin 1"]);
        tasks.complete();
        assert_eq!(taken(&tasks), "begin 2");
        tasks.complete();
        tasks.complete();
        assert_eq!(taken(&tasks), "end");
        assert!(tasks.take_error().is_none());
    }

    #[test]
    fn waiting_threads_hear_of_tasks_and_of_failure() {
        let tasks = Tasks::new(1, 1);
        assert_eq!(taken(&tasks), "begin 0");
        std::thread::scope(|scope| {
            let waiting = [scope.spawn(|| taken(&tasks)), scope.spawn(|| taken(&tasks))];
            tasks.push(Kind::Copy, 0, 1);
            while !waiting.iter().any(|w| w.is_finished()) {
                std::thread::yield_now();
            }
            tasks.fail(Error::Cancelled);
            let mut all = waiting.map(|w| w.join().unwrap());
            all.sort();
            assert_eq!(all, ["Copy 0.0", "end"]);
        });
        assert!(tasks.has_failed() && tasks.take_error().is_some());
    }
}
