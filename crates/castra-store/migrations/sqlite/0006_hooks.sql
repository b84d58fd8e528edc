-- Up to where those hooks that are told of a task's events have been told.

-- `hook` is its place in the task's list. `tries` and `next_at` are of the event behind `seq`.
CREATE TABLE hook_places (
    task_no INTEGER NOT NULL REFERENCES tasks (no),
    hook    INTEGER NOT NULL,
    seq     INTEGER NOT NULL DEFAULT 0,
    tries   INTEGER NOT NULL DEFAULT 0,
    next_at INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (task_no, hook)
) STRICT, WITHOUT ROWID;
