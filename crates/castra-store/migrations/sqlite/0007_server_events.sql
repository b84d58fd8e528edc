-- Entries about tasks too. What was given out last is kept: a number is never given twice.
CREATE TABLE server_events_of_all (
    seq     INTEGER PRIMARY KEY AUTOINCREMENT,
    at      INTEGER NOT NULL,
    session TEXT,
    task    TEXT,
    kind    TEXT NOT NULL,
    data    TEXT NOT NULL,
    CHECK ((session IS NULL) <> (task IS NULL))
) STRICT;

INSERT INTO server_events_of_all (seq, at, session, kind, data) SELECT seq, at, session, kind, data FROM server_events;
DELETE FROM sqlite_sequence WHERE name = 'server_events_of_all';
INSERT INTO sqlite_sequence (name, seq)
    SELECT 'server_events_of_all', seq FROM sqlite_sequence WHERE name = 'server_events';
DROP TABLE server_events;
ALTER TABLE server_events_of_all RENAME TO server_events;
