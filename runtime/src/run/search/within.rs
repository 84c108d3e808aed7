//! What a candidate's stages tell, as told by the search.

use crate::events::{Event, Observer};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Hands on what happens inside of a search under the search's name, and counts progress over all candidates.
pub(in super::super) struct Within<'a> {
    observer: &'a dyn Observer,
    stage: &'a str,
    before: AtomicUsize,
    total: AtomicUsize,
}

impl<'a> Within<'a> {
    pub fn new(observer: &'a dyn Observer, stage: &'a str) -> Within<'a> {
        Within { observer, stage, before: AtomicUsize::new(0), total: AtomicUsize::new(0) }
    }

    /// So many steps are ahead.
    pub fn begin(&self, total: usize) {
        self.before.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    /// So many steps are done, whoever did them.
    pub fn done(&self, steps: usize) {
        self.before.store(steps, Ordering::Relaxed);
        self.tell(0);
    }

    fn tell(&self, more: usize) {
        let total = self.total.load(Ordering::Relaxed);
        let done = (self.before.load(Ordering::Relaxed) + more).min(total);
        self.observer.observe(&Event::Progress { stage: self.stage, done, total });
    }
}

impl Observer for Within<'_> {
    fn observe(&self, event: &Event) {
        let stage = self.stage;
        match *event {
            Event::Progress { done, .. } => self.tell(done),
            Event::Planned { weights, lanes, scratch, .. } => {
                self.observer.observe(&Event::Planned { stage, weights, lanes, scratch });
            }
            Event::Saved { samples, .. } => self.observer.observe(&Event::Saved { stage, samples }),
            // The search tells what matters of many candidates.
            _ => {}
        }
    }
}
