//! Contestants whose destination is in huge pages.

use crate::contest::Contestant;
use crate::copy::HUGE;
use crate::data::Huge;

/// A contestant that writes to memory of its own, in huge pages.
pub struct InHuge<C> {
    inner: C,
    own: Huge<u16>,
}

impl<C: Contestant> InHuge<C> {
    /// Gives it memory for so many weights; `None` where the system has none of that kind, or there are too few.
    pub fn new(inner: C, weights: usize) -> Option<Self> {
        Some(InHuge { inner, own: Huge::new(weights, 0x5555)? })
    }
}

impl<C: Contestant> Contestant for InHuge<C> {
    fn name(&self) -> String {
        self.inner.name() + HUGE
    }

    fn threads(&self) -> usize {
        self.inner.threads()
    }

    fn stored_bytes(&self) -> Option<usize> {
        self.inner.stored_bytes()
    }

    fn work(&mut self, _: &mut [u16]) -> Result<(), String> {
        self.inner.work(self.own.all())
    }

    fn answer(&mut self, dst: &mut [u16]) -> Result<(), String> {
        dst.copy_from_slice(self.own.all());
        // The next time must not find the right weights there already.
        self.own.all().iter_mut().step_by(1021).for_each(|w| *w = !*w);
        Ok(())
    }
}
