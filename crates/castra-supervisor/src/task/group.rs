//! Children of a task: what they are made from, what becomes of their parent by what became of them. Pure.

use super::view::TaskView;
use castra_proto::task::{ChildRule, Group, Order, ProgressRule};
use castra_proto::{SessionSpec, TaskSpec, TaskState};
use serde_json::Value;

/// Levels of children below a task, and children of all levels.
pub(crate) const MAX_DEPTH: usize = 8;
pub(crate) const MAX_CHILDREN: usize = 1000;

/// Whether it is nothing but its children.
pub(crate) fn is_group(spec: &TaskSpec) -> bool {
    !spec.children.is_empty() && spec.instructions.is_none()
}

/// The same task, with all that its children have from it in their places.
pub(crate) fn settled(mut spec: TaskSpec) -> Result<TaskSpec, serde_json::Error> {
    let children = std::mem::take(&mut spec.children);
    for mut child in children {
        child.session = inherited(&spec.session, &child.session)?;
        for (key, value) in &spec.labels {
            child.labels.entry(key.clone()).or_insert_with(|| value.clone());
        }
        if child.priority == 0 {
            child.priority = spec.priority;
        }
        child.client_id = child.client_id.or_else(|| spec.client_id.clone());
        spec.children.push(settled(child)?);
    }
    Ok(spec)
}

/// Each field that is as it is when nobody sets it, from the parent; its name and id are nobody else's.
fn inherited(parent: &SessionSpec, own: &SessionSpec) -> Result<SessionSpec, serde_json::Error> {
    let unset = serde_json::to_value(SessionSpec::default())?;
    let mut session = serde_json::to_value(own)?;
    if let (Value::Object(session), Value::Object(parent)) = (&mut session, serde_json::to_value(parent)?) {
        for (field, value) in parent {
            let is_set = session.get(&field).is_some_and(|own| unset.get(&field) != Some(own));
            if !is_set && !matches!(field.as_str(), "name" | "session_id") {
                session.insert(field, value);
            }
        }
    }
    serde_json::from_value(session)
}

/// How a child is called among its siblings.
pub(crate) fn name_of(children: &[TaskSpec], n: usize) -> String {
    let name = children.get(n).and_then(|child| child.name.clone());
    name.unwrap_or_else(|| format!("child-{}", n + 1))
}

/// Children that wait for each other, by name and in the order in which they do; the first comes again at the end.
pub(crate) fn cycle(spec: &TaskSpec) -> Option<Vec<String>> {
    let children = &spec.children;
    let index = |name: &String| children.iter().position(|child| child.name.as_ref() == Some(name));
    let mut before: Vec<Vec<usize>> =
        children.iter().map(|child| child.depends_on.iter().filter_map(index).collect()).collect();
    if spec.group.order == Order::Sequential {
        for (n, before) in before.iter_mut().enumerate().skip(1) {
            before.push(n - 1);
        }
    }
    // Depth first; `path` is where it stands, `done` what leads nowhere.
    let mut done = vec![false; children.len()];
    for start in 0..children.len() {
        let mut path = vec![(start, 0)];
        while let Some((at, next)) = path.pop() {
            if done.get(at).copied().unwrap_or(true) {
                continue;
            }
            let Some(to) = before.get(at).and_then(|before| before.get(next)).copied() else {
                if let Some(done) = done.get_mut(at) {
                    *done = true;
                }
                continue;
            };
            path.push((at, next + 1));
            if let Some(from) = path.iter().position(|(on_path, _)| *on_path == to) {
                let on_path = path.iter().skip(from).map(|(n, _)| *n).chain([to]);
                return Some(on_path.map(|n| name_of(children, n)).collect());
            }
            path.push((to, 0));
        }
    }
    None
}

/// What becomes of the parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Some are not over.
    Open,
    /// This one was not done, and how: the parent ends like it.
    Ends(usize, TaskState),
    /// All are over, and nothing stands against going on.
    Over,
}

pub(crate) fn verdict(group: &Group, states: &[TaskState]) -> Verdict {
    let by = |rule: ChildRule| {
        let counts = |state: &TaskState| match state {
            TaskState::Failed => group.on_failure == rule,
            TaskState::Cancelled => group.on_cancel == rule,
            _ => false,
        };
        let found = states.iter().enumerate().find(|(_, state)| counts(state));
        found.map(|(n, state)| Verdict::Ends(n, *state))
    };
    if let Some(ends) = by(ChildRule::Stop) {
        return ends;
    }
    if states.iter().any(|state| !state.is_final()) {
        return Verdict::Open;
    }
    by(ChildRule::Wait).unwrap_or(Verdict::Over)
}

pub(crate) fn progress_rule(spec: &TaskSpec) -> ProgressRule {
    spec.progress.unwrap_or(if is_group(spec) { ProgressRule::Average } else { ProgressRule::Own })
}

/// The parent's progress in percent, from its children's. None: they have nothing to do with it.
pub(crate) fn percent(spec: &TaskSpec, children: &[(TaskState, Option<u8>)]) -> Option<u8> {
    let of = |(state, percent): &(TaskState, Option<u8>)| match state {
        state if state.is_final() => 100,
        _ => u32::from(percent.unwrap_or(0)),
    };
    let n = u32::try_from(children.len()).ok().filter(|n| *n > 0)?;
    let percent = match progress_rule(spec) {
        ProgressRule::Own | ProgressRule::Todos => return None,
        ProgressRule::Average => children.iter().map(of).sum::<u32>() / n,
        ProgressRule::Sequential => {
            let open = children.iter().find(|(state, _)| !state.is_final());
            let over = children.iter().filter(|(state, _)| state.is_final()).count() as u32;
            (over * 100 + open.map_or(0, of)) / n
        }
        ProgressRule::Mapped => {
            let shares: Vec<Option<u32>> =
                spec.children.iter().map(|child| child.share.map(u32::from)).collect();
            let left = 100u32.saturating_sub(shares.iter().flatten().sum());
            let without = shares.iter().filter(|share| share.is_none()).count().max(1) as u32;
            // In hundredths of a percent, so that parts that do not divide are not lost.
            let part = |(child, share): (&(TaskState, Option<u8>), &Option<u32>)| {
                of(child) * share.map_or(left * 100 / without, |share| share * 100)
            };
            let whole = children.iter().all(|(state, _)| state.is_final()) && shares.contains(&None);
            if whole { 100 } else { children.iter().zip(&shares).map(part).sum::<u32>() / 10_000 }
        }
    };
    u8::try_from(percent.min(100)).ok()
}

impl TaskView {
    /// Its children are to run, or run.
    pub(crate) fn gathers(&self, spec: &TaskSpec) -> bool {
        !spec.children.is_empty() && !self.gathered
    }
}

#[cfg(test)]
#[path = "group_tests.rs"]
mod tests;
