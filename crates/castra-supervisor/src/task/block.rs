//! Launch blocks: which of them holds a task back. New tasks, and attempts that somebody asks for, are refused while one
//! holds; what was queued before, and what tries again by itself, waits.

use super::document;
use crate::engine::{Engine, now};
use crate::{Error, Result};
use castra_proto::task::{LaunchBlock, Reason, ReasonCode};
use castra_proto::{ErrorCode, TaskState, Timestamp};
use castra_store::TaskRow;
use serde_json::Value;

/// The oldest of those that hold now and mean this task. Pure.
pub(crate) fn holding<'a>(
    blocks: &'a [LaunchBlock],
    task: &Value,
    now: Timestamp,
) -> Option<&'a LaunchBlock> {
    let means = |block: &&LaunchBlock| match &block.filter {
        None => true,
        // One that is not understood any more holds everything: a block is lifted by a person, not by an upgrade.
        Some(filter) => document::understand(filter).map_or(true, |filter| filter.matches(task)),
    };
    blocks.iter().filter(|block| block.until.is_none_or(|until| until > now)).find(means)
}

/// Refuses what a block holds back.
pub(crate) async fn check(engine: &Engine, task: &Value) -> Result<()> {
    let blocks = engine.store.blocks().await?;
    match holding(&blocks, task, now()) {
        None => Ok(()),
        Some(block) => Err(Error::with_hint(
            ErrorCode::LaunchBlocked,
            format!("tasks like this one are held back: {}", block.reason),
            hint(block),
        )),
    }
}

fn hint(block: &LaunchBlock) -> String {
    let until = block.until.map(|until| format!(" until {until}")).unwrap_or_default();
    format!("by {}{until}; `castra task unblock {}` lifts it", block.by, block.id)
}

/// Whether a task of the queue is held back now.
pub(crate) fn holds(blocks: &[LaunchBlock], row: &TaskRow) -> bool {
    !blocks.is_empty() && holding(blocks, &document::to_begin(row), now()).is_some()
}

/// Why a task in the queue is not let go, when a block is the reason.
pub(crate) fn waits(blocks: &[LaunchBlock], row: &TaskRow) -> Option<Reason> {
    if row.state != TaskState::Queued || blocks.is_empty() {
        return None;
    }
    holding(blocks, &document::to_begin(row), now()).map(|block| Reason {
        code: ReasonCode::Blocked,
        message: format!("held back {}: {}", hint(block), block.reason),
        tail: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use castra_proto::BlockId;
    use serde_json::json;

    fn block(reason: &str, filter: Option<Value>, until: Option<i64>) -> LaunchBlock {
        LaunchBlock {
            id: BlockId::now(),
            filter,
            reason: reason.into(),
            until: until.map(Timestamp),
            by: "cli".into(),
            created_at: Timestamp(0),
        }
    }

    #[test]
    fn the_oldest_that_means_it_and_still_holds() {
        let blocks = [
            block("over", None, Some(10)),
            block("blue", Some(json!({"labels.team": "blue"})), None),
            block("later", Some(json!({"labels.team": {"exists": true}})), Some(20)),
        ];
        let held =
            |task: Value, now| holding(&blocks, &task, Timestamp(now)).map(|block| block.reason.as_str());
        let (blue, red) = (json!({"labels": {"team": "blue"}}), json!({"labels": {"team": "red"}}));
        for (task, now, expected) in [
            (&blue, 9, Some("over")),
            (&blue, 10, Some("blue")),
            (&red, 19, Some("later")),
            (&red, 20, None),
            (&json!({}), 10, None),
        ] {
            assert_eq!(held(task.clone(), now), expected, "{task} at {now}");
        }
    }

    #[test]
    fn one_that_is_not_understood_holds_everything() {
        let blocks = [block("odd", Some(json!({"colour": "blue"})), None)];
        assert!(holding(&blocks, &json!({}), Timestamp(0)).is_some());
    }
}
