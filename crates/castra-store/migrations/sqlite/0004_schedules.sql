-- What makes tasks, and what holds them back.

CREATE TABLE launch_blocks (
    id         TEXT PRIMARY KEY,
    filter     TEXT,
    reason     TEXT NOT NULL,
    until      INTEGER,
    given_by   TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- `next_at` is also what is compared: whoever moves it on has seen to that firing, and nobody else does.
CREATE TABLE schedules (
    no         INTEGER PRIMARY KEY,
    id         TEXT NOT NULL UNIQUE,
    name       TEXT NOT NULL UNIQUE,
    enabled    INTEGER NOT NULL,
    next_at    INTEGER,
    given_by   TEXT NOT NULL,
    scope      TEXT NOT NULL CHECK (scope IN ('read', 'drive', 'approve', 'admin')),
    spec       TEXT NOT NULL,
    secrets    BLOB,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

CREATE INDEX schedules_due ON schedules (next_at) WHERE enabled AND next_at IS NOT NULL;

CREATE TABLE firings (
    schedule_no INTEGER NOT NULL REFERENCES schedules (no),
    n           INTEGER NOT NULL,
    at          INTEGER NOT NULL,
    seen_at     INTEGER NOT NULL,
    outcome     TEXT NOT NULL,
    task        TEXT,
    message     TEXT,
    PRIMARY KEY (schedule_no, n)
) STRICT, WITHOUT ROWID;

CREATE TABLE definitions (
    name       TEXT PRIMARY KEY,
    definition TEXT NOT NULL,
    secrets    BLOB,
    given_by   TEXT NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
