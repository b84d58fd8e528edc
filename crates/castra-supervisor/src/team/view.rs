//! Which conversations a team has, and the sessions that they are. Pure.

use castra_proto::{SessionId, TeamId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Conversations that one agent may have. Each may be a process.
pub(crate) const MOST: usize = 1000;

/// By agent, then by key (`""`: none), how often the conversation was begun anew.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct TeamView {
    agents: BTreeMap<String, BTreeMap<String, u32>>,
}

/// The agent has as many conversations as it may.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the agent has {MOST} conversations")]
pub(crate) struct TooMany;

impl TeamView {
    /// None: nothing was said in it yet.
    pub(crate) fn generation(&self, agent: &str, key: &str) -> Option<u32> {
        self.agents.get(agent)?.get(key).copied()
    }

    /// There is such a conversation from now on.
    pub(crate) fn open(&mut self, agent: &str, key: &str) -> Result<(), TooMany> {
        let known = self.agents.entry(agent.to_owned()).or_default();
        if known.len() >= MOST && !known.contains_key(key) {
            return Err(TooMany);
        }
        known.entry(key.to_owned()).or_insert(0);
        Ok(())
    }

    /// What is said in it next is the first thing said.
    pub(crate) fn renew(&mut self, agent: &str, key: &str) {
        if let Some(generation) = self.agents.get_mut(agent).and_then(|known| known.get_mut(key)) {
            *generation += 1;
        }
    }

    /// The conversations of an agent, the one without a key first.
    pub(crate) fn conversations(&self, agent: &str) -> impl Iterator<Item = (&str, u32)> {
        self.agents.get(agent).into_iter().flatten().map(|(key, generation)| (key.as_str(), *generation))
    }

    /// Every session that an agent has, or has had.
    pub(crate) fn sessions(&self, team: TeamId, agent: &str) -> Vec<SessionId> {
        self.conversations(agent)
            .flat_map(|(key, newest)| (0..=newest).map(move |n| team.session(agent, key, n)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversations_are_opened_once_and_begun_anew_each_by_itself() {
        let (mut view, team) = (TeamView::default(), TeamId::now());
        view.renew("a", "x");
        assert_eq!(view.generation("a", "x"), None);
        for key in ["x", "", "x"] {
            view.open("a", key).unwrap();
        }
        view.renew("a", "x");
        view.open("a", "x").unwrap();
        view.open("b", "").unwrap();
        assert_eq!(view.conversations("a").collect::<Vec<_>>(), [("", 0), ("x", 1)]);
        assert_eq!(view.sessions(team, "b"), [team.session("b", "", 0)]);
        assert_eq!(
            view.sessions(team, "a"),
            [team.session("a", "", 0), team.session("a", "x", 0), team.session("a", "x", 1)]
        );
        let stored = serde_json::to_string(&view).unwrap();
        assert_eq!(serde_json::from_str::<TeamView>(&stored).unwrap(), view);
    }

    #[test]
    fn there_is_an_end_to_new_conversations_and_none_to_old_ones() {
        let mut view = TeamView::default();
        for n in 0..MOST {
            view.open("a", &n.to_string()).unwrap();
        }
        assert_eq!(view.open("a", "more"), Err(TooMany));
        assert_eq!((view.open("a", "7"), view.open("b", "")), (Ok(()), Ok(())));
    }
}
