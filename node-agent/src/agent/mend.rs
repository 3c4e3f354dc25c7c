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

/// A pass follows within this time, however much is put back meanwhile.
const LOOK_AFTER: Duration = Duration::from_millis(500);

impl Agent {
    /// Puts back what was taken away. `false`: a pass has to look.
    pub(super) async fn mend(&mut self, lost: &Lost) -> Result<bool, Gone> {
        let now = Instant::now();
        let Some(asked) = self.state.asked.clone() else { return Ok(false) };
        let changes = lost.mend(&asked);
        let objects: Vec<Object> = changes.iter().map(Object::of).collect();
        // Somebody fights over it, or it was not there: then more is to be weighed.
        let known = |object: &Object| object.same(&asked, &self.state.present);
        if changes.len() != lost.len()
            || self.state.repairs.doubts(&objects, &asked)
            || !objects.iter().all(known)
        {
            return Ok(false);
        }
        let outcomes = self.dataplane.apply(changes.clone()).await?;
        if outcomes.iter().any(Result::is_err) {
            // Something stands in its place, or more is gone: a pass finds out.
            return Ok(false);
        }
        self.count_mended(&changes);
        self.state.repairs.mended(&objects, &asked, now, self.limits.audit);
        let within = if self.state.repairs.doubts(&objects, &asked) { Duration::ZERO } else { LOOK_AFTER };
        self.state.wakes.push(now + within);
        self.publish();
        Ok(true)
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
