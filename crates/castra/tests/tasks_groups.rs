//! Tasks that are made of tasks, on the real CLI: sequences, parallel groups, what is carried up and down.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod task;

use castra_proto::TaskState;
use castra_proto::task::{ReasonCode, Task as Shown, TaskEventKind, TaskTree};
use castra_testkit::{DEADLINE, Task, World, each, wait_for, wait_until};
use serde_json::{Value, json};
use std::path::PathBuf;
use task::{CASTRA, SCRIPT, instructed, work};

fn child(name: &str, run: &str) -> Value {
    let mut child = instructed(run);
    child["name"] = name.into();
    child.as_object_mut().unwrap().remove("session");
    child
}

fn group(order: &str, children: &[Value]) -> Value {
    json!({
        "group": {"order": order},
        "session": {"allowed_tools": ["Bash", "Read"]},
        "children": children,
    })
}

/// A folder that all agents of a group may write to.
fn shared(world: &World) -> PathBuf {
    let folder = world.folder().join("shared");
    std::fs::create_dir(&folder).unwrap();
    folder
}

/// The children as their parent shows them, by name.
fn states(shown: &Shown) -> Vec<(&str, TaskState)> {
    shown.children.iter().map(|child| (child.name.as_deref().unwrap_or("-"), child.state)).collect()
}

#[test]
fn a_sequence_runs_in_order_and_its_results_go_up() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let shared = shared(world);
        let log = shared.join("order");
        let note = |name: &str| {
            let log = log.display();
            format!(
                "echo {name} begins >> {log}; sleep 1; echo {name} ends >> {log}; echo 'DONE: {name}!' >> optio.log"
            )
        };
        let mut body = group(
            "sequential",
            &[child("one", &note("one")), child("two", &note("two")), child("three", &note("three"))],
        );
        body["session"]["add_dirs"] = json!([shared]);
        let task = daemon.task(body);
        let shown = task.wait();
        assert_eq!(shown.state, TaskState::Done, "{cli}: {:?}", task.log());
        assert_eq!(shown.progress.message.as_deref(), Some("3 of 3 children are over"), "{cli}");
        let lines = std::fs::read_to_string(&log).unwrap();
        let expected = ["one begins", "one ends", "two begins", "two ends", "three begins", "three ends"];
        assert_eq!(lines.lines().collect::<Vec<_>>(), expected, "{cli}");
        let result: Value = serde_json::from_str(shown.result.as_deref().expect("a result")).unwrap();
        for name in ["one", "two", "three"] {
            assert_eq!(result[name]["result"], json!(format!("{name}!")), "{cli}: {result}");
        }
        assert_eq!(task.said(TaskEventKind::Child), ["one is done", "two is done", "three is done"], "{cli}");
        assert_eq!(task.said(TaskEventKind::State), ["queued", "starting", "running", "done"], "{cli}");
        assert_eq!((shown.progress.percent, shown.session_id), (Some(100), None), "{cli}");
        // By its name among its siblings; whoever is needed is not removed.
        let id = shown.children[1].id;
        let two: Shown = task.http.get(&task.path("%2Ftwo")).expect(200);
        assert_eq!((two.id, two.parent.map(|id| id.to_string())), (id, Some(task.id.clone())), "{cli}");
        let tree: TaskTree = task.http.get(&task.path("/tree")).expect(200);
        assert_eq!(tree.children.len(), 3, "{cli}");
        assert_eq!(task.http.delete(&task.path("")).status, 204, "{cli}");
        assert_eq!(task.http.get(&Task::of(&task.http, id).path("")).status, 404, "{cli}");
    });
}

#[test]
fn a_parallel_group_keeps_its_limit_and_names_wait_for_names() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let shared = shared(world);
        let count = shared.join("count");
        std::fs::create_dir(&count).unwrap();
        let work = |name: &str, pause: &str| {
            let at = count.display();
            child(
                name,
                &format!(
                    "mkdir {at}/{name}; ls {at} | wc -l >> {at}.log; {pause}; rmdir {at}/{name}; echo DONE >> optio.log"
                ),
            )
        };
        // The first two until there are two.
        let meet = format!("until grep -q 2 {}.log; do sleep 0.1; done", count.display());
        let mut last = work("last", "sleep 1");
        last["depends_on"] = json!(["a", "b"]);
        let mut body = group("parallel", &[last, work("a", &meet), work("b", &meet), work("c", "sleep 1")]);
        body["group"]["limit"] = 2.into();
        body["session"]["add_dirs"] = json!([shared]);
        let task = daemon.task(body);
        let shown = task.wait();
        assert_eq!(shown.state, TaskState::Done, "{cli}: {:?}", task.log());
        let seen = std::fs::read_to_string(shared.join("count.log")).unwrap();
        let seen: Vec<usize> = seen.lines().map(|line| line.trim().parse().unwrap()).collect();
        assert!(seen.len() == 4 && seen.iter().all(|n| *n <= 2) && seen.contains(&2), "{cli}: {seen:?}");
        let of =
            |name: &str| shown.children.iter().find(|child| child.name.as_deref() == Some(name)).unwrap().id;
        let began = |name: &str| Task::of(&task.http, of(name)).show().attempts[0].started_at;
        let ended = |name: &str| Task::of(&task.http, of(name)).show().attempts[0].ended_at.unwrap();
        assert!(began("last") > ended("a") && began("last") > ended("b"), "{cli}");
    });
}

/// Optio's scenario 19, and what it leaves open: who ends with whom.
#[test]
fn scenario_19_a_failure_goes_up_and_the_others_are_cancelled() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let bystander = daemon.task(instructed("sleep 300"));
        let stubborn = "trap '' INT TERM; echo 'STATUS: stays' >> optio.log; sleep 300";
        let mut spec = group(
            "parallel",
            &[child("stays", stubborn), child("fails", "sleep 4; echo 'ERROR: no coffee' >> optio.log")],
        );
        let told = world.root().join("told");
        spec["hooks"] =
            json!([{"on": "after", "command": ["sh", "-c", format!("cat > {}", told.display())]}]);
        let task = daemon.task(spec);
        let shown = task.wait();
        // What runs after it runs after all below it.
        let told: Value = serde_json::from_slice(&std::fs::read(&told).unwrap()).unwrap();
        let seen: Vec<_> =
            told["task"]["children"].as_array().unwrap().iter().map(|one| &one["state"]).collect();
        assert_eq!(seen, ["cancelled", "failed"], "{cli}");
        assert_eq!(states(&shown), [("stays", TaskState::Cancelled), ("fails", TaskState::Failed)], "{cli}");
        let reason = shown.reason.clone().expect("a reason");
        assert_eq!(
            (shown.state, reason.code, reason.message.as_str()),
            (TaskState::Failed, ReasonCode::Child, "its child fails was failed: no coffee"),
            "{cli}"
        );
        let stays = Task::of(&task.http, shown.children[0].id).show();
        assert_eq!(stays.reason.map(|reason| reason.code), Some(ReasonCode::Cancelled), "{cli}");
        assert_eq!(bystander.show().state, TaskState::Running, "{cli}");
        bystander.cancel();

        // Down: the whole tree, and nothing of it fails because it took long.
        let mut inner = group("parallel", &[child("leaf", stubborn), child("other", stubborn)]);
        inner["name"] = "inner".into();
        let task = daemon.task(group("parallel", &[inner, child("flat", stubborn)]));
        let tree = || -> TaskTree { task.http.get(&task.path("/tree")).expect(200) };
        let leaves = || {
            let tree = tree();
            let inner = tree.children.first().map(|inner| inner.children.clone()).unwrap_or_default();
            inner
                .into_iter()
                .chain(tree.children.into_iter().skip(1))
                .map(|tree| tree.task)
                .collect::<Vec<_>>()
        };
        wait_until(
            "three leaves at work",
            || {
                let leaves = leaves();
                leaves.len() == 3 && leaves.iter().all(|leaf| leaf.progress.message.is_some())
            },
            DEADLINE,
        );
        task.cancel();
        assert_eq!(task.wait().state, TaskState::Cancelled, "{cli}");
        for leaf in leaves() {
            assert_eq!(leaf.state, TaskState::Cancelled, "{cli}: {leaf:?}");
        }
        assert_eq!(tree().children[0].task.state, TaskState::Cancelled, "{cli}");
    });
}

#[test]
fn what_is_ignored_does_not_stop_the_others_and_the_parent_works_with_what_they_left() {
    each(CASTRA, SCRIPT, |cli, _, daemon| {
        let deliver = "echo facts > deliverables/facts.md; echo 'DONE: found' >> optio.log";
        let mut body =
            group("parallel", &[child("finds", deliver), child("fails", "echo ERROR >> optio.log")]);
        body["group"]["on_failure"] = "ignore".into();
        body["protocol"] = "log".into();
        body["instructions"] = "RUN: cat uploads/children/finds/facts.md > deliverables/report.md; \
            cp uploads/children.json deliverables/; echo 'DONE: written' >> optio.log"
            .into();
        let task = daemon.task(body);
        let shown = task.wait();
        assert_eq!((shown.state, shown.result.as_deref()), (TaskState::Done, Some("written")), "{cli}");
        let report = task.http.get(&task.path("/deliverables/report.md"));
        assert_eq!(report.text(), "facts\n", "{cli}: {:?}", task.log());
        let results: Value =
            serde_json::from_str(&task.http.get(&task.path("/deliverables/children.json")).text()).unwrap();
        assert_eq!(results["finds"]["result"], "found", "{cli}");
        assert_eq!(results["fails"]["state"], "failed", "{cli}");
        let told = std::fs::read_to_string(work(&task).join("CLAUDE.md")).unwrap();
        assert!(told.contains("uploads/children.json"), "{cli}: {told}");
    });
}

#[test]
fn resumed_it_tries_again_only_what_was_not_done() {
    each(CASTRA, SCRIPT, |cli, world, daemon| {
        let shared = shared(world);
        let flag = shared.join("flag");
        let once = format!(
            "test -e {0} && echo DONE >> optio.log || echo 'ERROR: not yet' >> optio.log",
            flag.display()
        );
        let mut body =
            group("sequential", &[child("first", "echo DONE >> optio.log"), child("second", &once)]);
        body["session"]["add_dirs"] = json!([shared]);
        let task = daemon.task(body);
        let before = task.wait();
        assert_eq!(before.state, TaskState::Failed, "{cli}");
        std::fs::write(&flag, "").unwrap();
        assert_eq!(task.act("resume").status, 200, "{cli}");
        let shown = wait_for(
            "its end",
            || Some(task.show()).filter(|shown| shown.state == TaskState::Done),
            DEADLINE,
        );
        let ids = |shown: &Shown| shown.children.iter().map(|child| child.id).collect::<Vec<_>>();
        assert_eq!((shown.attempt, ids(&shown)), (2, ids(&before)), "{cli}");
        let attempts: Vec<u32> =
            ids(&shown).into_iter().map(|id| Task::of(&task.http, id).show().attempt).collect();
        assert_eq!(attempts, [1, 2], "{cli}");
        // Begun anew it has others.
        assert_eq!(task.act("retry").status, 200, "{cli}");
        let anew = wait_for(
            "its end",
            || Some(task.show()).filter(|shown| shown.attempt == 3 && shown.state.is_final()),
            DEADLINE,
        );
        assert_eq!(anew.state, TaskState::Done, "{cli}");
        assert!(ids(&anew).iter().all(|id| !ids(&shown).contains(id)), "{cli}");
    });
}

/// What becomes of the parent when one child is not done, by each rule; the other waits to be told.
#[test]
fn each_rule_carries_a_childs_end_up_as_it_says() {
    let cli = castra_testkit::clis().remove(0);
    let world = World::new(CASTRA, &cli.path, SCRIPT);
    let daemon = world.daemon();
    let waits = "echo 'STATUS: on' >> optio.log; until [ -e go ]; do sleep 0.1; done; echo DONE >> optio.log";
    let fails =
        "echo 'STATUS: on' >> optio.log; until [ -e go ]; do sleep 0.1; done; echo ERROR >> optio.log";
    use TaskState::{Cancelled, Done, Failed};
    for (field, rule, state, other) in [
        ("on_cancel", "stop", Cancelled, Cancelled),
        ("on_cancel", "wait", Cancelled, Done),
        ("on_cancel", "ignore", Done, Done),
        ("on_failure", "wait", Failed, Done),
    ] {
        let case = format!("{field}: {rule}");
        let first = if field == "on_cancel" { waits } else { fails };
        let mut body = group("parallel", &[child("first", first), child("other", waits)]);
        body["group"][field] = rule.into();
        let task = daemon.task(body);
        let children =
            wait_for("two children", || Some(task.show().children).filter(|all| all.len() == 2), DEADLINE);
        let [first, second] = [0, 1].map(|n| Task::of(&task.http, children[n].id));
        for one in [&first, &second] {
            one.wait_said(TaskEventKind::Progress);
        }
        match field {
            "on_cancel" => drop(first.cancel()),
            _ => std::fs::write(work(&first).join("go"), "").unwrap(),
        }
        let ended = first.wait().state;
        assert_eq!(ended, if field == "on_cancel" { Cancelled } else { Failed }, "{case}");
        if rule != "stop" {
            // The parent has seen it, and goes on.
            wait_until(
                "the parent to have seen it",
                || !task.said(TaskEventKind::Child).is_empty(),
                DEADLINE,
            );
            let running = TaskState::Running;
            assert_eq!((task.show().state, second.show().state), (running, running), "{case}");
            std::fs::write(work(&second).join("go"), "").unwrap();
        }
        let shown = task.wait();
        assert_eq!((shown.state, second.show().state), (state, other), "{case}: {:?}", task.log());
        let reason =
            shown.reason.map(|reason| (reason.code, reason.message.starts_with("its child first was ")));
        let code = match state {
            Cancelled => Some((ReasonCode::Cancelled, true)),
            Failed => Some((ReasonCode::Child, true)),
            _ => None,
        };
        assert_eq!(reason, code, "{case}: {:?}", task.log());
    }
}

/// One that an agent, or anybody, makes for a task that is at work.
#[test]
fn a_task_that_is_made_for_another_ends_with_it() {
    each(CASTRA, SCRIPT, |cli, _, daemon| {
        let parent = daemon.task(instructed("echo 'STATUS: here' >> optio.log; sleep 300"));
        parent.wait_said(TaskEventKind::Progress);
        let mut body = instructed("echo 'STATUS: too' >> optio.log; sleep 300");
        body["parent"] = json!(parent.id);
        let made = daemon.task(body.clone());
        made.wait_said(TaskEventKind::Progress);
        assert_eq!(parent.show().children.len(), 1, "{cli}");
        let listed = daemon.http().get(&format!("/api/v1/tasks?parent={}", parent.id)).text();
        assert!(listed.contains(&made.id), "{cli}: {listed}");
        std::fs::write(work(&parent).join("optio.log"), "STATUS: here\nDONE\n").unwrap();
        assert_eq!(parent.wait().state, TaskState::Done, "{cli}");
        let shown = made.show();
        assert_eq!(
            (shown.state, shown.reason.map(|reason| reason.message)),
            (TaskState::Cancelled, Some(format!("by task:{}: its parent is done", parent.id))),
            "{cli}"
        );
        // Nothing is made for what is over.
        let refused = daemon.http().post("/api/v1/tasks", &body);
        assert_eq!(refused.status, 409, "{cli}: {}", refused.text());
    });
}

#[test]
fn what_cannot_work_is_said_of_the_child_that_it_is_about() {
    let cli = &castra_testkit::clis()[0];
    let world = castra_testkit::World::new(CASTRA, &cli.path, SCRIPT);
    let daemon = world.daemon();
    for (body, said) in [
        (
            json!({"children": [
                {"name": "a", "instructions": "x", "depends_on": ["b"]},
                {"name": "b", "instructions": "x", "depends_on": ["a"]},
            ]}),
            "children wait for each other: a → b → a",
        ),
        (json!({"children": [{"instructions": " "}]}), "child-1: `instructions` are empty"),
        (
            json!({"children": [{"name": "in", "children": [{"instructions": "x", "ephemeral": true}]}]}),
            "in: child-1: `ephemeral` is not a child's own",
        ),
        (
            json!({"children": [{"instructions": "x", "depends_on": ["nobody"]}]}),
            "child-1: there is no task \"nobody\"",
        ),
        (
            json!({"name": "top", "children": [{"instructions": "x", "depends_on": ["top"]}]}),
            "child-1: it would wait for top",
        ),
        (
            json!({"children": [{"name": "a", "instructions": "x"}, {"name": "a", "instructions": "x"}]}),
            "two children have the name \"a\"",
        ),
        (json!({"instructions": "x", "progress": "average"}), "a rule of children"),
        (json!({"children": [{"instructions": "x", "colour": 1}]}), "colour"),
        (json!({"instructions": "x", "parent": "01928f6e-7b5a-7000-8000-000000000001"}), "there is no task"),
    ] {
        let reply = daemon.http().post("/api/v1/tasks", &body);
        let problem: Value = serde_json::from_slice(&reply.body).unwrap();
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(reply.status >= 400 && detail.contains(said), "{said}: {problem}");
    }
    let page: castra_proto::api::Page<Shown> = daemon.http().get("/api/v1/tasks?all=true").expect(200);
    assert_eq!(page.items, []);
}

const PLANS: &str = r#"
[[rule]]
when.last_user.contains = "read CLAUDE.md in this folder"
reply.blocks = [
    { tool_use = { name = "TaskCreate", input = { subject = "look", description = "Look around" } } },
    { tool_use = { name = "TaskCreate", input = { subject = "leap", description = "Leap" } } },
]
[[rule]]
when.tool_result = { tool = "TaskCreate" }
reply.blocks = [{ tool_use = { name = "TaskUpdate", input = { taskId = "1", status = "completed" } } }]
[[rule]]
when.tool_result = { tool = "TaskUpdate" }
reply.text = "the rest another day"
"#;

#[test]
fn progress_may_be_what_the_agent_has_on_its_list() {
    each(CASTRA, PLANS, |cli, _, daemon| {
        let task = daemon.task(json!({"instructions": "x", "protocol": "none", "progress": "todos"}));
        let shown = task.wait();
        assert_eq!(shown.state, TaskState::Done, "{cli}: {:?}", task.log());
        assert_eq!(
            task.said(TaskEventKind::Progress).last().map(String::as_str),
            Some("1 of 2 done"),
            "{cli}"
        );
        assert_eq!(shown.progress.percent, Some(50), "{cli}");
    });
}
