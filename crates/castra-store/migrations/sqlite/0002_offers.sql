-- What claude says it has (tools, commands, skills …): large, and the same from one turn to the next. Apart from the
-- view, which is written with nearly every commit.
ALTER TABLE views ADD COLUMN offers TEXT NOT NULL DEFAULT '{}';
