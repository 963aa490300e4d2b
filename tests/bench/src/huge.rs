//! Contestants whose destination is in huge pages.

use crate::contest::Contestant;
use crate::copy::HUGE;
use crate::data::{HUGE_PAGE, Lines};

/// A contestant that writes to memory of its own, in huge pages.
pub struct InHuge<C> {
    inner: C,
    own: Lines,
    weights: usize,
}

impl<C: Contestant> InHuge<C> {
    /// Gives it memory for so many weights; `None` if they do not fill a page.
    pub fn new(inner: C, weights: usize) -> Option<Self> {
        (2 * weights >= HUGE_PAGE).then(|| InHuge { inner, own: Lines::new(2 * weights, true), weights })
    }

    fn own(&mut self) -> &mut [u16] {
        // SAFETY: any bytes are weights.
        unsafe { &mut self.own.get_mut().align_to_mut().1[..self.weights] }
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
        // SAFETY: any bytes are weights.
        let own = unsafe { &mut self.own.get_mut().align_to_mut().1[..self.weights] };
        self.inner.work(own)
    }

    fn answer(&mut self, dst: &mut [u16]) -> Result<(), String> {
        dst.copy_from_slice(self.own());
        // The next time must not find the right weights there already.
        self.own().iter_mut().step_by(1021).for_each(|w| *w = !*w);
        Ok(())
    }
}
