-- What a log takes that is written in batches, and summed up by time.

-- The path with its ids taken out, so that requests for different items count as the same.
alter table mindia.request_logs add column route varchar(512);
alter table mindia.request_logs add column is_aborted boolean not null default false;

-- Each sum goes over a span of time, of one tenant or of all: these two would be written and not read.
drop index mindia.idx_request_logs_path;
drop index mindia.idx_request_logs_status;
create index idx_request_logs_created on mindia.request_logs using brin (created_at)
    with (pages_per_range = 32, autosummarize = on);
-- A batch locks the row of each of its tenants once; the key did so for every request.
alter table mindia.request_logs drop constraint request_logs_tenant_id_fkey;
