-- In which trace a task was written: the spans of its attempts are linked to that.

alter table mindia.tasks add column trace_context jsonb;
