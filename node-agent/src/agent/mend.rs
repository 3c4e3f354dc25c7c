//! What others take away of ours is put back at once, before anything else is looked at.
//!
//! A pass looks at everything, which takes a moment where there are thousands of peers. Where the kernel has told that
//! nothing but a few routes, FDB entries or neighbours went, and the last pass left all of them in place, those alone are
//! written again. That is no second way to reconcile: what is written is what the last pass wrote, a pass follows soon
//! and looks whether it is right, and whatever is in doubt is left to a pass at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use vxlan::{Change, Lost};

use super::repairs::{self, Object};
use super::{Agent, present};
use crate::dataplane::Gone;

/// A pass begins within this time, however much is put back meanwhile.
const LOOK_AFTER: Duration = Duration::from_millis(500);

/// After so many times in a row it is a pass's turn, whoever goes on to take things away.
const IN_A_ROW: usize = 8;

impl Agent {
    /// What was heard while a pass went on, of which `written` is what it wrote.
    pub(super) async fn catch_up(&mut self, written: Vec<Change>) -> Result<(), Gone> {
        if self.state.deaf.is_some() {
            return Ok(());
        }
        match self.kernel_events.hear() {
            Ok(false) => {}
            Ok(true) => self.heard(written).await?,
            Err(error) => {
                self.deafen(&error);
                self.pass_soon();
            }
        }
        Ok(())
    }

    /// The kernel has changed, perhaps while this was written: then nobody can say which was first, and only a look tells
    /// whether anything is to be repaired.
    pub(super) async fn heard(&mut self, mut written: Vec<Change>) -> Result<(), Gone> {
        self.state.known = None;
        for _ in 0..IN_A_ROW {
            let lost = self.kernel_events.lost().filter(|lost| !lost.written_by(&written));
            let Some(lost) = lost else { break };
            let Some(mended) = self.mend(&lost).await? else { break };
            written.extend(mended);
            match self.kernel_events.hear() {
                Ok(false) => return Ok(()),
                Ok(true) => {}
                Err(error) => {
                    self.deafen(&error);
                    break;
                }
            }
        }
        self.repair_soon();
        Ok(())
    }

    /// Puts back what was taken away, and says what it wrote. `None`: a pass has to look.
    async fn mend(&mut self, lost: &Lost) -> Result<Option<Vec<Change>>, Gone> {
        let now = Instant::now();
        let Some(asked) = self.state.asked.clone() else { return Ok(None) };
        let changes = lost.mend(&asked);
        let objects: Vec<Object> = changes.iter().map(Object::of).collect();
        // Somebody fights over it, or it was not there: then more is to be weighed.
        let known = |object: &Object| object.same(&asked, &self.state.present);
        if changes.len() != lost.len()
            || self.state.repairs.doubts(&objects, &asked)
            || !objects.iter().all(known)
        {
            return Ok(None);
        }
        let refused = self.dataplane.apply(changes.clone()).await?;
        // What failed is left to a pass: something stands in its place, or more is gone.
        let stands = changes.into_iter().enumerate().filter(|(position, _)| !refused.contains_key(position));
        let done: Vec<Change> = stands.map(|(_, change)| change).collect();
        self.count_mended(&done);
        let objects: Vec<Object> = done.iter().map(Object::of).collect();
        self.state.repairs.mended(&objects, &asked, now, self.limits.audit);
        let all = done.len() == lost.len() && !self.state.repairs.doubts(&objects, &asked);
        if all {
            self.state.wakes.push(now + LOOK_AFTER.saturating_sub(self.gather()));
        }
        self.publish();
        Ok(all.then_some(done))
    }

    fn count_mended(&mut self, changes: &[Change]) {
        let mended: Vec<&Change> = changes.iter().collect();
        repairs::log(&mended);
        for change in mended {
            let (object, operation) = present::kind(change);
            let counters = &mut self.state.counters;
            *counters.changes.entry((object.to_owned(), operation.to_owned())).or_default() += 1;
            *counters.repairs.entry(object.to_owned()).or_default() += 1;
        }
    }

    /// From now on the kernel is expected to hold this.
    pub(super) fn expect(&mut self, wanted: &Arc<vxlan::State>) {
        self.kernel_events.expect(wanted);
    }
}
