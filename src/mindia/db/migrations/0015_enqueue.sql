-- Looks at the tenant's row once, where it looked once for its status and once more for locking it.
create or replace function mindia.enter(tenant uuid, binds boolean) returns boolean language plpgsql as $$
declare
    current_status mindia.tenant_status;
begin
    if tenant is null then
        return true;
    end if;
    if binds then
        perform set_config('mindia.tenant_id', tenant::text, true);
    end if;
    select status into current_status from mindia.tenants where id = tenant for key share;
    if binds and current_status is distinct from 'active' then
        perform mindia.set_tenant(tenant); -- refuses it
    end if;
    return current_status is not null;
end
$$;

-- Writes a task without a key: the parts of one statement, kept ready in turn, take less than setting up all of them.
-- It returns when the task was written and for when, and no row where its tenant is gone.
create function mindia.enqueue(
    id uuid, tenant_id uuid, binds boolean, task_type mindia.task_type, kind text, payload jsonb, priority integer,
    run_at timestamptz, delay interval, max_retries integer, initiated_by uuid, timeout_s double precision,
    waiting_on integer, trace_context jsonb, may_notify boolean
) returns table (created_at timestamptz, scheduled_for timestamptz) language plpgsql rows 1 as $$
begin
    if not mindia.enter(tenant_id, binds) then
        return;
    end if;
    insert into mindia.tasks as t
        (id, tenant_id, task_type, kind, payload, priority, scheduled_for, max_retries, initiated_by, timeout_s,
         waiting_on, trace_context)
    values
        (id, tenant_id, task_type, kind, payload, priority, coalesce(run_at, now() + delay), max_retries, initiated_by,
         timeout_s, waiting_on, trace_context)
    returning t.created_at, t.scheduled_for into created_at, scheduled_for;
    -- A commit that notifies takes a lock that all of them share: so only where a worker says that it waits.
    if may_notify and exists (select from mindia.workers where is_idle) then
        perform pg_notify('mindia_tasks', '');
    end if;
    return next;
end
$$;
