//! `castra task tree`: a task and all that is below it, as lines. Refuses to change anything.

use crate::cli::Ctx;
use crate::cli::escape::one_line;
use crate::cli::failure::Failure;
use castra_proto::task::TaskTree;

pub(super) async fn tree(id: &str, ctx: Ctx) -> Result<(), Failure> {
    let tree = ctx.client().await?.task_tree(id).await?;
    ctx.out.either(&tree, || {
        let mut lines = Vec::new();
        draw(&tree, "", "", &mut lines);
        lines.join("\n")
    })
}

/// `first` stands before the task itself, `rest` before what is below it.
fn draw(tree: &TaskTree, first: &str, rest: &str, lines: &mut Vec<String>) {
    let task = &tree.task;
    let percent = task.progress.percent.map(|percent| format!(" {percent}%")).unwrap_or_default();
    let name = task.name.as_deref().map(|name| format!("{name} ")).unwrap_or_default();
    let what = task.reason.as_ref().map(|reason| reason.message.as_str()).or(task.result.as_deref());
    let what = what.map(|what| format!("  {what}")).unwrap_or_default();
    let line = format!("{first}{name}{} {}{percent}{what}", task.id, task.state);
    lines.push(one_line(&line, 160));
    for (n, child) in tree.children.iter().enumerate() {
        let (branch, below) = match n + 1 == tree.children.len() {
            true => ("└─ ", "   "),
            false => ("├─ ", "│  "),
        };
        draw(child, &format!("{rest}{branch}"), &format!("{rest}{below}"), lines);
    }
}
