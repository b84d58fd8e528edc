//! Teams: named agents that are asked, and that are given each other's answers. Every conversation with one is a session
//! of its own, and whatever is said goes through its durable messages. Refuses to touch a run.

pub(crate) mod flow;
pub(crate) mod held;
pub(crate) mod hub;
pub(crate) mod spec;
pub(crate) mod talk;
pub(crate) mod template;
pub(crate) mod view;
