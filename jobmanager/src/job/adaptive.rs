//! The job's side of the adaptive scheduler: offered slots become a layout, plans that are wanted, and moments to look again.

use thalweg_common::config::keys;

use super::message::{Action, Now};
use super::rescale::describe;
use super::{JobCore, JobSpec, Phase};
use crate::cluster::{JobRecord, Layout, RescaleKind};
use crate::scheduler::adaptive::{Adaptive, Advice, Situation};
use crate::scheduler::place::Offer;

impl JobCore {
    /// What the adaptive scheduler knows of a job at the beginning, if it is in charge. Jobs without a program are planned once, in the
    /// process that runs them.
    pub(super) fn adaptive(spec: &JobSpec, record: &JobRecord) -> Option<Adaptive> {
        spec.binary?;
        let mut adaptive = Adaptive::new(spec.patience.adaptive?);
        if let Some(wanted) = &record.layouts.wanted
            && let Some(parallelism) = record.configuration.get(keys::PARALLELISM_DEFAULT.name)
            && let Ok(parallelism) = parallelism.parse()
        {
            adaptive.planned(parallelism, wanted, Ok(record.layout()));
        }
        Some(adaptive)
    }

    /// Whether more slots would be of use to a job that runs. Without checkpoints it would begin anew in them.
    pub(super) fn may_scale_up(&self) -> bool {
        self.adaptive.is_some()
            && self.layouts.wanted.is_some()
            && self.rescaling.is_none()
            && self.asked.is_none()
            && self.coordinator.is_some()
            && !self.may_finish()
            && self.spec.graph.checkpointing.is_enabled()
    }

    /// Goes by the slots that are there. Whether the job is to be placed in them as it is.
    pub(super) fn adapt(&mut self, offers: &[Offer], now: Now, out: &mut Vec<Action>) -> bool {
        let is_running = self.phase == Phase::Running;
        let present = self.spec.layout();
        let wanted = self.wanted();
        let Some(adaptive) = &mut self.adaptive else { return !is_running };
        let slots = offers.iter().filter(|offer| !offer.draining).map(|offer| offer.free.len()).sum();
        let situation = Situation { present: &present, wanted: &wanted, slots, is_running };
        match adaptive.advise(situation, now.elapsed_ms) {
            Advice::Plan(parallelism) => out.push(Action::Plan { parallelism }),
            Advice::Wait(reason) if !is_running => self.waits_in_vain(reason, offers, out),
            Advice::Wait(_) => {}
            Advice::Run(layout) if layout == present => return !is_running,
            Advice::Run(layout) => {
                let reason = format!("{slots} slots are there: the job runs with {}", describe(&layout));
                if is_running {
                    let kind = RescaleKind::Adapted;
                    self.checkpoint_and_rescale(None, kind, layout, reason, now, out);
                } else {
                    self.replace_layout(RescaleKind::Adapted, layout, reason, now, out);
                }
            }
        }
        false
    }

    fn waits_in_vain(&mut self, reason: Option<String>, offers: &[Offer], out: &mut Vec<Action>) {
        let mut text = match crate::scheduler::place::place(
            &self.spec.graph,
            offers,
            &self.last_placement,
            &self.execution.placement(),
        ) {
            Err(shortage) => shortage.to_string(),
            Ok(_) => "waiting a moment for more slots".to_string(),
        };
        if let Some(reason) = reason {
            text.push_str(&format!("; it cannot run with fewer: {reason}"));
        }
        self.lacks(text, out);
    }

    /// A plan that was wanted.
    pub(super) fn planned(
        &mut self,
        parallelism: u32,
        planned: Result<Layout, String>,
        out: &mut Vec<Action>,
    ) {
        let wanted = self.wanted();
        if let Some(adaptive) = &mut self.adaptive {
            adaptive.planned(parallelism, &wanted, planned);
            out.push(Action::AllocateSlots);
        }
    }

    fn wanted(&self) -> Layout {
        self.layouts.wanted.clone().unwrap_or_else(|| self.spec.layout())
    }

    /// Slots may be of use now that were not before.
    pub(super) fn adaptive_tick(&mut self, now: Now, out: &mut Vec<Action>) {
        if self.adaptive.as_mut().is_some_and(|adaptive| adaptive.is_due(now.elapsed_ms)) {
            out.push(Action::AllocateSlots);
        }
    }
}
