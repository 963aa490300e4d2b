//! Deferred work: operations wait in their streams until something needs them, and run in an order that the streams,
//! their events and the legacy stream allow, and no earlier than that.
//!
//! An operation depends on operations queued before it, by number: the one before it in its stream, the one of an event
//! that the stream waits for, and between the legacy stream and blocking ones each other's last. So the numbers are an
//! order in which everything can run, and whoever waits for an operation runs what it depends on, in that order, and
//! nothing else: work that nobody waited for has not happened, which is how a missing synchronisation shows.
//!
//! Operations run on the thread that waits, without the lock. Host functions run on threads of their own.

use std::collections::BTreeSet;
use std::time::Instant;

use super::codes::*;
use super::entry::{Call, host_function_thread};
use super::state::{DONE, Order, State};
use super::work::{Done, Work};

/// An operation that has not ended.
pub struct Op {
    pub context: usize,
    after: Vec<u64>,
    /// None while it runs.
    work: Option<Work>,
}

impl State {
    /// Queues work in a stream, after `also` besides what the stream itself asks for, and returns its number.
    pub fn queue(&mut self, stream: usize, work: Work, also: &[u64]) -> u64 {
        let (context, order, last) = {
            let stream = &self.streams[&stream];
            (stream.context, stream.order, stream.last)
        };
        let mut after: Vec<u64> = also.to_vec();
        after.push(last);
        match order {
            Order::NonBlocking => {}
            Order::Legacy => after.extend(self.blocking(context)),
            Order::Blocking | Order::PerThread => {
                let legacy = self.contexts[&context].legacy;
                after.push(self.streams[&legacy].last);
            }
        }
        let op = self.queue_apart(context, work, after);
        self.streams.get_mut(&stream).unwrap().last = op;
        op
    }

    /// Returns the operations that the legacy stream of a context comes after.
    pub fn blocking(&self, context: usize) -> Vec<u64> {
        let blocking = |s: &&super::state::Stream| s.context == context && s.order != Order::NonBlocking;
        let orphans = self.contexts[&context].orphans.iter().copied();
        self.streams.values().filter(blocking).map(|s| s.last).chain(orphans).collect()
    }

    /// Queues work after those operations and in no stream.
    pub fn queue_apart(&mut self, context: usize, work: Work, mut after: Vec<u64>) -> u64 {
        after.retain(|op| self.ops.contains_key(op));
        after.sort_unstable();
        after.dedup();
        self.last_op += 1;
        let op = self.last_op;
        self.ops.insert(op, Op { context, after, work: Some(work) });
        op
    }

    /// Returns whether that operation has not ended yet.
    pub fn pending(&self, op: u64) -> bool {
        self.ops.contains_key(&op)
    }

    /// Returns the operations of a context that have not ended.
    pub fn pending_in(&self, context: usize) -> Vec<u64> {
        self.ops.iter().filter(|(_, op)| op.context == context).map(|(&number, _)| number).collect()
    }

    /// Returns all that must run before the goals have ended, the goals included.
    fn needed(&self, goals: &[u64]) -> BTreeSet<u64> {
        let mut needed = BTreeSet::new();
        let mut open: Vec<u64> = goals.to_vec();
        while let Some(number) = open.pop() {
            if let Some(op) = self.ops.get(&number)
                && needed.insert(number)
            {
                open.extend(&op.after);
            }
        }
        needed
    }

    /// Adds other work that happens to run now as well, if `seed` asks for it.
    fn by_chance(&mut self, goals: &mut Vec<u64>) {
        if self.config.seed == 0 {
            return;
        }
        let mut random = if self.random == 0 { self.config.seed } else { self.random };
        for &op in self.ops.keys() {
            // xorshift64: all that is wanted are coins that fall the same way for the same seed.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            if random % 4 == 0 {
                goals.push(op);
            }
        }
        self.random = random;
    }

    /// Ends an operation.
    fn end(&mut self, number: u64, context: usize, done: Result<Done, (i32, String)>) {
        match done {
            Ok(Done::Nothing) => {}
            Ok(Done::Recorded(event)) => {
                if let Some(event) = self.events.get_mut(&event)
                    && event.op == number
                {
                    event.at = Some(Instant::now());
                }
            }
            Ok(Done::Freed(address)) => self.forget(address),
            Ok(Done::Ran(record)) => self.record(*record),
            Err((code, text)) => self.poison(context, code, text),
        }
        self.ops.remove(&number);
        DONE.notify_all();
    }
}

impl Call {
    /// Runs what the operations need until they have ended. Errors of the work are left with its context.
    pub fn drive(&mut self, goals: &[u64]) {
        self.advance(goals, true);
    }

    /// Does what [`Call::drive`] does, for all work of a context.
    pub fn drive_context(&mut self, context: usize) {
        let all = self.pending_in(context);
        self.drive(&all);
    }

    /// Does what [`Call::drive`] does, but never waits for another thread or for a host function, which it only starts.
    pub fn poke(&mut self, goals: &[u64]) {
        self.advance(goals, false);
    }

    fn advance(&mut self, goals: &[u64], patient: bool) {
        let mut goals = goals.to_vec();
        if patient {
            self.by_chance(&mut goals);
        }
        // In the order of the numbers, everything that an operation depends on has ended when its turn comes.
        for number in self.needed(&goals) {
            while let Some(op) = self.ops.get_mut(&number) {
                let Some(work) = op.work.take() else {
                    if !patient {
                        return;
                    }
                    self.wait();
                    continue;
                };
                let context = op.context;
                if self.sticky(context).is_err() {
                    // Nothing of a broken context runs any more; events of it count as done.
                    let done = if let Work::Record { event } = work { Done::Recorded(event) } else { Done::Nothing };
                    self.end(number, context, Ok(done));
                    continue;
                }
                if let Work::Host { function, user } = work {
                    start_host_function(number, context, function, user);
                    continue;
                }
                match work.prepare(self, context) {
                    Ok(job) => {
                        let done = self.unlocked(|| job.run());
                        self.end(number, context, done);
                    }
                    Err(error) => self.end(number, context, Err(error)),
                }
            }
        }
    }

    /// Runs work that was just queued at once, if the settings ask for that.
    pub fn queued(&mut self, op: u64) {
        if self.config.eager {
            self.drive(&[op]);
        }
    }

    /// Returns what a query says of operations: NOT_READY if any had not ended, and then they continue, so that whoever asks again
    /// and again gets there.
    pub fn query(&mut self, ops: &[u64]) -> Result {
        if ops.iter().any(|&op| self.pending(op)) {
            self.poke(ops);
            return Err(NOT_READY);
        }
        Ok(())
    }
}

fn start_host_function(number: u64, context: usize, function: usize, user: usize) {
    let run = move || {
        host_function_thread();
        // SAFETY: `function` came from a caller of cuLaunchHostFunc as a pointer to a function of this type, with
        // `user`.
        let function: unsafe extern "C" fn(usize) = unsafe { std::mem::transmute(function) };
        // SAFETY: `user` is the pointer that the same caller gave for this function, which runs once.
        unsafe { function(user) };
        Call::internal().end(number, context, Ok(Done::Nothing));
    };
    let thread = std::thread::Builder::new().name("df11-emulator-host-function".into()).spawn(run);
    thread.expect("a thread for a host function");
}
