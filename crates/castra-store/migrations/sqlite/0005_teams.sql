-- Teams: what their agents are, and which conversations they have. What was said is the sessions'.

-- `head` counts commits, and is what a commit compares: whoever decides from what it has read names it, and is refused
-- when somebody else was faster.
CREATE TABLE teams (
    no           INTEGER PRIMARY KEY,
    id           TEXT NOT NULL UNIQUE,
    name         TEXT,
    request_hash BLOB NOT NULL CHECK (length(request_hash) = 32),
    head         INTEGER NOT NULL,
    spec         TEXT NOT NULL,
    secrets      BLOB,
    view         TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX teams_by_name ON teams (name) WHERE name IS NOT NULL;
