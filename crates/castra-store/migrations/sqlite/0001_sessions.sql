-- Sessions, what they were told, what they said, and who may ask.
-- Times are microseconds since 1970. Ids are UUIDs in their usual spelling, so that a person can read the file.

CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- Whoever owns a host takes the next epoch from here, and shims refuse lower ones.
CREATE TABLE hosts (
    name        TEXT PRIMARY KEY,
    owner       TEXT NOT NULL,
    epoch       INTEGER NOT NULL,
    lease_until INTEGER,
    updated_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Small and often written; what is large or written once is in specs and views.
CREATE TABLE sessions (
    no          INTEGER PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE,
    name        TEXT,
    host        TEXT NOT NULL,
    owner       TEXT NOT NULL,
    epoch       INTEGER NOT NULL DEFAULT 0,
    lease_until INTEGER,
    mode        TEXT NOT NULL CHECK (mode IN ('stream', 'terminal')),
    state       TEXT NOT NULL CHECK (state IN ('queued', 'starting', 'idle', 'running', 'requires_action', 'ended', 'lost')),
    cwd         TEXT,
    head        INTEGER NOT NULL DEFAULT 0,
    newest_run  INTEGER NOT NULL DEFAULT 0,
    labels      TEXT NOT NULL,
    fork_of     TEXT,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    removed_at  INTEGER
) STRICT;

CREATE INDEX sessions_live ON sessions (no) WHERE removed_at IS NULL AND state NOT IN ('ended', 'lost');
CREATE INDEX sessions_removed ON sessions (no) WHERE removed_at IS NOT NULL;
CREATE INDEX sessions_by_name ON sessions (name) WHERE name IS NOT NULL;
CREATE INDEX sessions_by_cwd ON sessions (cwd, no) WHERE cwd IS NOT NULL;

CREATE TABLE specs (
    session_no INTEGER PRIMARY KEY REFERENCES sessions (no),
    spec       TEXT NOT NULL,
    secrets    BLOB
) STRICT;

CREATE TABLE views (
    session_no INTEGER PRIMARY KEY REFERENCES sessions (no),
    view       TEXT NOT NULL
) STRICT;

CREATE TABLE claude_sessions (
    session_no INTEGER NOT NULL REFERENCES sessions (no),
    n          INTEGER NOT NULL,
    id         TEXT NOT NULL,
    PRIMARY KEY (session_no, n)
) STRICT, WITHOUT ROWID;

CREATE INDEX claude_sessions_by_id ON claude_sessions (id);

CREATE TABLE runs (
    session_no INTEGER NOT NULL REFERENCES sessions (no),
    n          INTEGER NOT NULL,
    id         TEXT NOT NULL UNIQUE,
    state      TEXT NOT NULL CHECK (state IN ('queued', 'starting', 'idle', 'running', 'requires_action', 'ended', 'lost')),
    epoch      INTEGER NOT NULL,
    dir        TEXT NOT NULL,
    cursor     INTEGER NOT NULL DEFAULT 0,
    hold       INTEGER,
    meta       TEXT NOT NULL,
    exit       TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (session_no, n)
) STRICT, WITHOUT ROWID;

-- One row an event, and no second index: this table takes the flood. Where `bodies`
-- has what belongs here, `data` is null and `size` counts the bytes there.
CREATE TABLE events (
    session_no INTEGER NOT NULL REFERENCES sessions (no),
    seq        INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    run        INTEGER NOT NULL,
    turn       INTEGER NOT NULL,
    kind       TEXT NOT NULL,
    data       BLOB,
    size       INTEGER,
    PRIMARY KEY (session_no, seq)
) STRICT, WITHOUT ROWID;

-- What would make a page of events hold only a few: large data, and bytes that were not JSON.
CREATE TABLE bodies (
    session_no INTEGER NOT NULL REFERENCES sessions (no),
    seq        INTEGER NOT NULL,
    data       BLOB NOT NULL,
    raw        BLOB,
    UNIQUE (session_no, seq)
) STRICT;

CREATE TABLE messages (
    session_no    INTEGER NOT NULL REFERENCES sessions (no),
    id            TEXT NOT NULL,
    seq           INTEGER NOT NULL,
    state         TEXT NOT NULL CHECK (state IN ('queued', 'written', 'delivered', 'answered', 'interrupted', 'withdrawn')),
    if_busy       TEXT NOT NULL,
    priority      TEXT,
    body          TEXT NOT NULL,
    run           INTEGER,
    turn          INTEGER,
    delivered_seq INTEGER,
    result        TEXT,
    result_seq    INTEGER,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    PRIMARY KEY (session_no, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX messages_undelivered ON messages (session_no, seq) WHERE state IN ('queued', 'written');

CREATE TABLE commands (
    no         INTEGER PRIMARY KEY,
    id         TEXT NOT NULL UNIQUE,
    session_no INTEGER NOT NULL REFERENCES sessions (no),
    kind       TEXT NOT NULL,
    subject    TEXT,
    args       TEXT NOT NULL,
    given_by   TEXT NOT NULL,
    state      TEXT NOT NULL CHECK (state IN ('accepted', 'written', 'done', 'superseded')),
    result     TEXT,
    owner      TEXT,
    epoch      INTEGER,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

CREATE INDEX commands_open ON commands (session_no) WHERE state IN ('accepted', 'written');
CREATE INDEX commands_by_session ON commands (session_no);
-- A subject is decided once: the index holds what the commit has looked up.
CREATE UNIQUE INDEX commands_decided ON commands (session_no, kind, subject)
    WHERE subject IS NOT NULL AND state <> 'superseded';

-- AUTOINCREMENT: numbers of deleted entries are not given out again.
CREATE TABLE server_events (
    seq     INTEGER PRIMARY KEY AUTOINCREMENT,
    at      INTEGER NOT NULL,
    session TEXT NOT NULL,
    kind    TEXT NOT NULL,
    data    TEXT NOT NULL
) STRICT;

CREATE TABLE idempotency (
    scope        TEXT NOT NULL,
    key          TEXT NOT NULL,
    request_hash BLOB NOT NULL CHECK (length(request_hash) = 32),
    session      TEXT NOT NULL,
    message      TEXT,
    first_seq    INTEGER NOT NULL,
    last_seq     INTEGER NOT NULL,
    created_at   INTEGER NOT NULL,
    PRIMARY KEY (scope, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE tokens (
    id          TEXT PRIMARY KEY,
    name        TEXT,
    scope       TEXT NOT NULL CHECK (scope IN ('read', 'drive', 'approve', 'admin')),
    session     TEXT,
    secret_hash BLOB NOT NULL UNIQUE CHECK (length(secret_hash) = 32),
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER
) STRICT, WITHOUT ROWID;
