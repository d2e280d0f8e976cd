-- What the queue needs: lanes to claim from, tenants in turns, dependencies, schedules, rates, idle workers.

drop index mindia.idx_tasks_status;
create index idx_tasks_status on mindia.tasks (kind, priority, scheduled_for, id)
    where status = 'pending' and waiting_on = 0;
create index idx_tasks_fair on mindia.tasks (tenant_id, priority desc, scheduled_for, id)
    where status = 'pending' and waiting_on = 0;
create index idx_tasks_waiting on mindia.tasks (id) where status = 'pending' and waiting_on > 0;

drop index mindia.idx_tasks_running;
create index idx_tasks_running on mindia.tasks (worker_id, kind, tenant_id) where status = 'running';

-- Was in the hands of a worker that died, among more than it can have been at: it is run again without any in reserve.
alter table mindia.tasks add column is_suspect boolean not null default false;

alter table mindia.task_dependencies add column tenant_id uuid;
create index idx_task_dependencies_tenant on mindia.task_dependencies (tenant_id);
alter table mindia.task_errors add column tenant_id uuid;
create index idx_task_errors_tenant on mindia.task_errors (tenant_id);

alter table mindia.workers add column is_idle boolean not null default false;
alter table mindia.workers add column concurrency integer not null default 1;
alter table mindia.workers add column kinds text[] not null default '{}';

-- How much of its rate a type of task has left: a bucket of tokens.
create table mindia.task_rates (
    kind text not null,
    tokens double precision not null,
    updated_at timestamptz not null default now(),
    constraint task_rates_pkey primary key (kind)
);

-- Periodic tasks: the latest tick that has been fired, so that each is fired once whoever notices it.
create table mindia.task_schedules (
    name text not null,
    last_tick timestamptz not null,
    constraint task_schedules_pkey primary key (name)
);

create policy tenant_isolation on mindia.task_dependencies
    using (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid)
    with check (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid);
create policy tenant_isolation on mindia.task_errors
    using (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid)
    with check (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid);
alter table mindia.task_dependencies enable row level security;
alter table mindia.task_errors enable row level security;

update mindia.task_dependencies d set tenant_id = t.tenant_id from mindia.tasks t where t.id = d.task_id;
update mindia.task_errors e set tenant_id = t.tenant_id from mindia.tasks t where t.id = e.task_id;

-- Gives the roles on record what they need on the tables as they are now; a migration that adds some is followed by it.
create or replace function mindia.grant_roles() returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    granted mindia.database_roles;
    owned text;
    workers text;
begin
    delete from mindia.database_roles where name not in (select rolname from pg_catalog.pg_roles);
    for granted in select * from mindia.database_roles loop
        execute format('revoke all on all tables in schema mindia from %I', granted.name);
        execute format('grant usage on schema mindia to %I', granted.name);
        execute format('grant select on mindia.schema_migrations, mindia.media, mindia.all_media to %I', granted.name);
        execute format('grant usage on all sequences in schema mindia to %I', granted.name);
        execute format('grant execute on all functions in schema mindia to %I', granted.name);
        if granted.purpose = 'worker' then
            execute format(
                'grant select, insert, update, delete on mindia.workers, mindia.task_rates, mindia.task_schedules to %I',
                granted.name
            );
        else
            -- Who writes a task looks whether a worker waits for one.
            execute format('grant select on mindia.workers to %I', granted.name);
        end if;
    end loop;
    select string_agg(format('%I', name), ', ') into workers from mindia.database_roles where purpose = 'worker';
    for owned in
        select format('mindia.%I', relname) from pg_catalog.pg_class
        where relnamespace = 'mindia'::regnamespace and relrowsecurity
    loop
        for granted in select * from mindia.database_roles loop
            if granted.purpose = 'worker' or owned not in ('mindia.tenants', 'mindia.quotas') then
                execute format('grant select, insert, update, delete on %s to %I', owned, granted.name);
            end if;
        end loop;
        execute format('drop policy if exists across_tenants on %s', owned);
        if workers is not null then
            execute format('create policy across_tenants on %s to %s using (true) with check (true)', owned, workers);
        end if;
    end loop;
    for granted in select * from mindia.database_roles where purpose = 'application' loop
        -- The right to change something is what locking a row takes.
        execute format('grant select, update (updated_at) on mindia.tenants to %I', granted.name);
        execute format('grant select, update (item_count, total_bytes) on mindia.quotas to %I', granted.name);
    end loop;
end
$$;
