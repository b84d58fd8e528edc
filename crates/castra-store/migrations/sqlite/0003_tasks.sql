-- Tasks, what became of them, and what they handed over.

-- `head` is the number of the newest event, and at the same time what a commit compares: whoever decides from what it
-- has read names it, and is refused when somebody else was faster.
CREATE TABLE tasks (
    no           INTEGER PRIMARY KEY,
    id           TEXT NOT NULL UNIQUE,
    name         TEXT,
    request_hash BLOB NOT NULL CHECK (length(request_hash) = 32),
    state        TEXT NOT NULL CHECK (state IN ('queued', 'starting', 'running', 'needs_input', 'done', 'failed', 'cancelled')),
    priority     INTEGER NOT NULL,
    parent       TEXT,
    session      TEXT,
    head         INTEGER NOT NULL DEFAULT 0,
    labels       TEXT NOT NULL,
    metadata     TEXT NOT NULL,
    spec         TEXT NOT NULL,
    secrets      BLOB,
    view         TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL
) STRICT;

CREATE INDEX tasks_live ON tasks (no) WHERE state NOT IN ('done', 'failed', 'cancelled');
CREATE INDEX tasks_by_name ON tasks (name) WHERE name IS NOT NULL;
CREATE INDEX tasks_by_parent ON tasks (parent) WHERE parent IS NOT NULL;
CREATE INDEX tasks_by_session ON tasks (session) WHERE session IS NOT NULL;

CREATE TABLE task_events (
    task_no INTEGER NOT NULL REFERENCES tasks (no),
    seq     INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    kind    TEXT NOT NULL,
    level   TEXT NOT NULL,
    message TEXT NOT NULL,
    data    TEXT NOT NULL,
    PRIMARY KEY (task_no, seq)
) STRICT, WITHOUT ROWID;

-- The bytes are in a file that the SHA-256 names (`blobs/`).
CREATE TABLE deliverables (
    task_no    INTEGER NOT NULL REFERENCES tasks (no),
    path       TEXT NOT NULL,
    version    INTEGER NOT NULL,
    size       INTEGER NOT NULL,
    sha256     TEXT NOT NULL,
    media_type TEXT NOT NULL,
    at         INTEGER NOT NULL,
    attempt    INTEGER NOT NULL,
    PRIMARY KEY (task_no, path, version)
) STRICT, WITHOUT ROWID;

CREATE INDEX deliverables_by_content ON deliverables (sha256);
