//! Which rule answers a request. Pure but for its counters; owns how often each rule was used and how many
//! calls each conversation has made, and refuses to remember more conversations than `CONVERSATIONS`.

use crate::request::Facts;
use crate::script::{Rule, Script, TextMatch, ToolResultMatch, When};
use std::collections::HashMap;

/// Beyond these, the conversation that was silent for longest starts counting anew.
const CONVERSATIONS: usize = 1024;

/// Counters beside a script.
#[derive(Debug)]
pub(crate) struct Engine {
    script: Script,
    uses: Vec<Uses>,
    calls: HashMap<String, Calls>,
    tick: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Uses {
    /// How often all but `nth` and `times` matched.
    matched: u64,
    used: u64,
}

#[derive(Debug, Clone, Default)]
struct Calls {
    count: u64,
    /// How often the newest request came in a row: the CLI repeats one that failed.
    attempt: u64,
    messages: usize,
    last_user: Option<String>,
    newest: u64,
}

/// What was decided for one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    /// The place of the rule in the script, if one matched.
    pub(crate) rule: Option<usize>,
    /// 1-based; side calls are not counted, and have 0.
    pub(crate) call: u64,
    pub(crate) tool_result: Option<usize>,
    pub(crate) captures: Vec<String>,
}

impl Engine {
    pub(crate) fn new(script: Script) -> Self {
        let uses = vec![Uses::default(); script.rules().len()];
        Self { script, uses, calls: HashMap::new(), tick: 0 }
    }

    pub(crate) fn script(&self) -> &Script {
        &self.script
    }

    /// Rules start unused; conversations keep their call numbers.
    pub(crate) fn replace(&mut self, script: Script) {
        self.uses = vec![Uses::default(); script.rules().len()];
        self.script = script;
    }

    /// Counts the call, and the rule that answers it as used.
    pub(crate) fn choose(&mut self, facts: &Facts) -> Choice {
        let (call, attempt) = if facts.side.is_some() { (0, 1) } else { self.count(facts) };
        let newest = facts.tool_results.len().checked_sub(1);
        for (n, (rule, uses)) in self.script.rules().iter().zip(&mut self.uses).enumerate() {
            let Rule { when, .. } = rule;
            let Some(found) = when.find(facts, call, attempt) else { continue };
            if when.times.is_some_and(|times| uses.used >= times) {
                continue;
            }
            uses.matched += 1;
            if when.nth.is_some_and(|nth| uses.matched != nth) {
                continue;
            }
            uses.used += 1;
            return Choice {
                rule: Some(n),
                call,
                tool_result: found.tool_result.or(newest),
                captures: found.captures,
            };
        }
        Choice { rule: None, call, tool_result: newest, captures: Vec::new() }
    }

    /// The number of this call in its conversation, and which attempt at the same request it is.
    fn count(&mut self, facts: &Facts) -> (u64, u64) {
        self.tick += 1;
        let name = facts.conversation.as_str();
        if self.calls.len() >= CONVERSATIONS && !self.calls.contains_key(name) {
            let oldest =
                self.calls.iter().min_by_key(|(_, calls)| calls.newest).map(|(name, _)| name.clone());
            oldest.map(|name| self.calls.remove(&name));
        }
        let calls = self.calls.entry(name.to_owned()).or_default();
        let again = calls.messages == facts.messages && calls.last_user == facts.last_user;
        *calls = Calls {
            count: calls.count + 1,
            attempt: if again { calls.attempt + 1 } else { 1 },
            messages: facts.messages,
            last_user: facts.last_user.clone(),
            newest: self.tick,
        };
        (calls.count, calls.attempt)
    }
}

#[derive(Debug, Default)]
struct Found {
    tool_result: Option<usize>,
    captures: Vec<String>,
}

impl When {
    /// All conditions but the rule's own counters.
    fn find(&self, facts: &Facts, call: u64, attempt: u64) -> Option<Found> {
        // A side call is answered only by a rule that asks for it: it must not use up the others.
        if self.side != facts.side || self.call.is_some_and(|n| n != call) {
            return None;
        }
        if self.first_attempts.is_some_and(|first| attempt > first) {
            return None;
        }
        let model = self.model.as_ref().is_none_or(|part| facts.model.contains(part));
        let system = self.system_contains.as_ref().is_none_or(|part| facts.system.contains(part));
        let tool = self.offers_tool.as_ref().is_none_or(|name| facts.tools.contains(name));
        let plan = self.plan_mode.is_none_or(|want| want == facts.plan_mode);
        if !(model && system && tool && plan) {
            return None;
        }
        let mut found = Found::default();
        if let Some(matcher) = &self.tool_result {
            let (index, captures) = matcher.find(facts)?;
            found = Found { tool_result: Some(index), captures };
        }
        if let Some(matcher) = &self.last_user {
            // Without this, a rule that calls a tool would match again at the tool's result, for ever.
            if !facts.fresh_user && self.tool_result.is_none() {
                return None;
            }
            let captures = matcher.find(facts.last_user.as_deref()?)?;
            if !captures.is_empty() {
                found.captures = captures;
            }
        }
        Some(found)
    }
}

impl TextMatch {
    /// The groups of a regex, or nothing for a substring.
    fn find(&self, text: &str) -> Option<Vec<String>> {
        match self {
            Self::Contains { needle, ignore_case: true } => {
                text.to_lowercase().contains(needle).then(Vec::new)
            }
            Self::Contains { needle, ignore_case: false } => text.contains(needle).then(Vec::new),
            Self::Regex(regex) => regex.captures(text).map(|groups| {
                let group = |group: Option<regex::Match<'_>>| {
                    group.map(|group| group.as_str().to_owned()).unwrap_or_default()
                };
                groups.iter().map(group).collect()
            }),
        }
    }
}

impl ToolResultMatch {
    /// The newest result that fits, and the groups.
    fn find(&self, facts: &Facts) -> Option<(usize, Vec<String>)> {
        facts.tool_results.iter().enumerate().rev().find_map(|(index, result)| {
            let tool = self.tool.is_none() || self.tool == result.tool;
            let error = self.is_error.is_none_or(|want| want == result.is_error);
            if !(tool && error) {
                return None;
            }
            match &self.text {
                Some(matcher) => matcher.find(&result.text).map(|captures| (index, captures)),
                None => Some((index, Vec::new())),
            }
        })
    }
}

#[cfg(test)]
#[path = "matching_tests.rs"]
mod tests;
