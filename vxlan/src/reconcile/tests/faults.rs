//! Every call of every scenario fails once, in every way that it can.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::diff::{Change, diff};
use crate::fake::{Call, FakeKernel, Mishap, errno};
use crate::reconcile::{Dataplane, ObserveError, Refused, Report, reconcile};
use crate::state::{IpTunnel, Observed, State};

use super::invariants::{Course, foreign};
use super::scenarios::{self, Scenario};

/// So many passes after the last mishap, and all is as it should be: one may have to find out what the one before has
/// left.
const PASSES: usize = 2;

/// What may become of a call.
fn mishaps(call: Call) -> Vec<Mishap> {
    use errno::{EBUSY, EEXIST, EINTR, EINVAL, ENETUNREACH, ENOBUFS, ENODEV, ENOENT, ENOMEM, EPERM};
    let refused = |errnos: &[i32]| errnos.iter().map(|errno| Mishap::Refused(*errno)).collect::<Vec<_>>();
    if !call.changes() {
        return refused(&[EINTR, ENOBUFS, EPERM, ENOMEM]);
    }
    let mut all = refused(&[EEXIST, ENOENT, EBUSY, ENOMEM, EINVAL, EPERM, ENODEV, ENETUNREACH, ENOBUFS]);
    all.extend([Mishap::Unanswered, Mishap::Cut, Mishap::Deaf]);
    if call == Call::SetLink {
        all.push(Mishap::Half(ENOMEM));
    }
    all
}

/// Applies changes one by one and keeps what each has left.
struct Stepwise {
    kernel: FakeKernel,
    steps: Vec<State>,
}

impl Dataplane for Stepwise {
    fn observe(&mut self, watched: &[ipnet::IpNet]) -> Result<Observed, ObserveError> {
        self.kernel.observe(watched)
    }

    fn ip_tunnels(
        &mut self,
        asked: &std::collections::BTreeSet<IpTunnel>,
    ) -> Result<std::collections::BTreeSet<IpTunnel>, ObserveError> {
        self.kernel.ip_tunnels(asked)
    }

    fn apply(&mut self, changes: &[Change]) -> Refused {
        let one = |(position, change)| {
            let error = self.kernel.apply(std::slice::from_ref(change)).remove(&0);
            self.steps.push(self.kernel.observed(&[]).ours);
            Some((position, error?))
        };
        changes.iter().enumerate().filter_map(one).collect()
    }
}

fn pass(dataplane: &mut dyn Dataplane, wanted: &State) -> Result<Report, ObserveError> {
    let observed = dataplane.observe(&[])?;
    Ok(reconcile(dataplane, &observed, wanted))
}

/// Whether the kernel holds what is wanted; of `rp_filter` only what is wanted counts.
fn reached(kernel: &FakeKernel, wanted: &State) -> bool {
    let mut now = kernel.observed(&[]).ours;
    now.rp_filter.retain(|name, _| wanted.rp_filter.contains_key(name));
    now == *wanted && diff(&kernel.observed(&[]), wanted).changes.is_empty()
}

/// What a pass without a fault does.
struct Control<'a> {
    course: Course<'a>,
    end: State,
}

fn control(scenario: &Scenario) -> Control<'_> {
    let kernel = scenario.begin();
    let before = kernel.observed(&[]).ours;
    let mut stepwise = Stepwise { kernel: kernel.clone(), steps: Vec::new() };
    let report = pass(&mut stepwise, &scenario.to).unwrap();
    assert!(report.failures.is_empty(), "{}: {:#?}", scenario.name, report.failures);
    assert!(!report.applied.is_empty(), "{}: nothing to do", scenario.name);
    assert!(reached(&kernel, &scenario.to), "{}", scenario.name);
    Control { course: Course::of(before, &stepwise.steps, &scenario.to), end: kernel.observed(&[]).ours }
}

/// Runs a scenario with mishaps at these calls. What has happened; nothing if a call is beyond the end.
fn run(scenario: &Scenario, control: &Control<'_>, mishaps: &[(u64, Mishap)]) -> Vec<(Call, Mishap)> {
    let mut kernel = scenario.begin();
    let others = foreign(&kernel, &[&scenario.from, &scenario.to]);
    for (after, mishap) in mishaps {
        kernel.fail_call(*after, *mishap);
    }
    let told = |happened: &[(Call, Mishap)]| format!("{}: {mishaps:?}: {happened:?}", scenario.name);
    let mut happened = Vec::new();
    let mut good = 0;
    while good < PASSES {
        let outcome = pass(&mut kernel, &scenario.to);
        let new = kernel.mishaps();
        good = if new.is_empty() { good + 1 } else { 0 };
        happened.extend(new);
        let story = told(&happened);
        match outcome {
            Err(error) => {
                let (call, _) = happened.last().expect("a reason");
                assert_eq!(call.what(), Some(error.what), "{story}");
            }
            Ok(report) => {
                assert!(report.conflicts.is_empty(), "{story}: {:#?}", report.conflicts);
                if good == 0 {
                    // Whatever else waits for it: the cause is named first.
                    let first = report.failures.first().unwrap_or_else(|| panic!("{story}: no failure"));
                    let (call, mishap) = happened[happened.len() - 1];
                    assert!(
                        mishaps.len() > 1 || first.error.errno == mishap.errno(),
                        "{story}: {first:?} of {call:?}"
                    );
                } else {
                    assert!(good > 1 || report.failures.is_empty(), "{story}: {:#?}", report.failures);
                }
            }
        }
        assert_eq!(foreign(&kernel, &[&scenario.from, &scenario.to]), others, "{story}");
        if good > 0 {
            // Nothing new: what it comes to is looked at below.
            continue;
        }
        let now = kernel.observed(&[]).ours;
        // Of half a change the device itself is neither the old nor the new one.
        let half = happened.iter().any(|(_, mishap)| matches!(mishap, Mishap::Half(_)));
        if let Err(worse) = control.course.judge(&now) {
            assert!(half && worse.starts_with("link"), "{story}: {worse}");
        }
    }
    let story = told(&happened);
    assert!(reached(&kernel, &scenario.to), "{story}");
    assert_eq!(kernel.observed(&[]).ours, control.end, "{story}");
    happened
}

type Counts = BTreeMap<(Call, Mishap), usize>;

/// Fails each call of a scenario: the first of its kind with every error number, the others with one of them in turn, and
/// all of them in the other ways.
fn each_call(scenario: &Scenario) -> Counts {
    let control = control(scenario);
    let mut counts = Counts::new();
    for after in 0.. {
        let first = Mishap::Refused(errno::ENOMEM);
        let happened = run(scenario, &control, &[(after, first)]);
        let Some(&(call, _)) = happened.first() else {
            assert!(after > 0);
            break;
        };
        *counts.entry((call, first)).or_default() += 1;
        let refusal = |mishap: &Mishap| matches!(mishap, Mishap::Refused(_));
        let mut ways = mishaps(call);
        let again = counts.get(&(call, first)).is_some_and(|count| *count > 1);
        if again {
            let refusals: Vec<Mishap> = ways.iter().copied().filter(refusal).collect();
            let turn = refusals[usize::try_from(after).unwrap() % refusals.len()];
            ways.retain(|way| !refusal(way) || *way == turn);
        }
        for mishap in ways.into_iter().filter(|mishap| *mishap != first) {
            let happened = run(scenario, &control, &[(after, mishap)]);
            assert_eq!(happened, [(call, mishap)], "{}", scenario.name);
            *counts.entry((call, mishap)).or_default() += 1;
        }
    }
    counts
}

/// Whether a call belongs to a pass over the kernel; the others are the agent's.
fn of_a_pass(call: Call) -> bool {
    match call {
        Call::Probe | Call::Listen | Call::Hear => false,
        Call::Devices
        | Call::Addresses
        | Call::Neighbors
        | Call::Nexthops
        | Call::Routes
        | Call::Rules
        | Call::Settings
        | Call::Nftables
        | Call::Names
        | Call::AddLink
        | Call::SetLink
        | Call::DeleteLink
        | Call::SetRpFilter
        | Call::AddAddress
        | Call::DeleteAddress
        | Call::SetNeighbor
        | Call::DeleteNeighbor
        | Call::SetFdb
        | Call::DeleteFdb
        | Call::AddNexthop
        | Call::SetNexthop
        | Call::DeleteNexthop
        | Call::AddRoute
        | Call::SetRoute
        | Call::DeleteRoute
        | Call::AddRule
        | Call::DeleteRule
        | Call::SetFirewall
        | Call::ChangeSets
        | Call::DeleteFirewall => true,
    }
}

#[test]
fn whatever_fails_makes_nothing_worse_and_is_made_good() {
    let scenarios = scenarios::all();
    let mut counts = Counts::new();
    let found = std::thread::scope(|scope| {
        let running: Vec<_> =
            scenarios.iter().map(|scenario| scope.spawn(move || each_call(scenario))).collect();
        running.into_iter().map(|run| run.join()).collect::<Vec<_>>()
    });
    for found in found {
        for (what, count) in found.expect("a scenario has failed: see above") {
            *counts.entry(what).or_default() += count;
        }
    }
    // Every kind of call has failed in every way.
    for call in Call::ALL.into_iter().filter(|call| of_a_pass(*call)) {
        for mishap in mishaps(call) {
            assert!(counts.contains_key(&(call, mishap)), "{call:?} was never {mishap:?}");
        }
    }
    assert!(counts.keys().all(|(call, _)| of_a_pass(*call)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn so_do_two_faults(
        scenario in any::<prop::sample::Index>(),
        calls in (0u64..60, 0u64..60),
        ways in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
    ) {
        let scenarios = scenarios::all();
        let scenario = &scenarios[scenario.index(scenarios.len())];
        let all = mishaps(Call::SetLink);
        let mishaps = [(calls.0, ways.0), (calls.0 + 1 + calls.1, ways.1)];
        let mishaps = mishaps.map(|(after, way)| (after, all[way.index(all.len())]));
        run(scenario, &control(scenario), &mishaps);
    }
}
