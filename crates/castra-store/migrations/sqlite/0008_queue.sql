-- What the queue looks at each time: what is at work, what is part of another task, what waits for others. Of the rest it
-- reads only as many as there is room for.
ALTER TABLE tasks ADD COLUMN waits INTEGER
    GENERATED ALWAYS AS (coalesce(json_array_length(view, '$.depends_on'), 0) > 0) VIRTUAL;

CREATE INDEX tasks_plain ON tasks (priority DESC, no) WHERE state = 'queued' AND parent IS NULL AND waits = 0;
CREATE INDEX tasks_entangled ON tasks (priority DESC, no)
    WHERE state NOT IN ('done', 'failed', 'cancelled') AND (state <> 'queued' OR parent IS NOT NULL OR waits = 1);

-- A content is in a file of its task alone: nobody asks any more who else has it.
DROP INDEX deliverables_by_content;
