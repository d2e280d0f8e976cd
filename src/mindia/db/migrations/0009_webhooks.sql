-- What delivery takes: what is in flight, how endpoints do, what waits for its turn.

alter table mindia.webhooks drop column failures_in_row;
alter table mindia.webhooks drop column first_failed_at;
alter table mindia.webhooks drop column open_until;
alter table mindia.webhooks add column description text not null default '';
alter table mindia.webhooks add column includes_url boolean not null default false;
alter table mindia.webhooks add column resumed_at timestamptz;
alter table mindia.webhooks add constraint webhooks_max_per_second_check check (max_per_second > 0::real);

alter table mindia.webhook_events drop column lease_token;
alter table mindia.webhook_events drop column leased_until;
alter table mindia.webhook_events add column attempt_count integer not null default 0;
alter table mindia.webhook_events add column held_until timestamptz;
-- A queue's dead rows are what slows it down.
alter table mindia.webhook_events set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
create index idx_webhook_events_ended on mindia.webhook_events (created_at) where delivery_status <> 'pending';
create index idx_webhook_events_failed on mindia.webhook_events (webhook_id, created_at)
    where delivery_status = 'failed';

create index idx_webhook_attempts_endpoint on mindia.webhook_attempts (webhook_id, started_at desc);

-- What a sender has in its hands. Apart from the events, so that a claim writes no row of theirs anew, and waits for no
-- transaction of the host's.
create table mindia.webhook_leases (
    tenant_id uuid not null,
    webhook_event_id bigint not null,
    webhook_id uuid not null,
    token uuid not null,
    leased_until timestamptz not null,
    constraint webhook_leases_pkey primary key (tenant_id, webhook_event_id)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

-- How an endpoint does. Written by senders alone: a transaction of the host's that changes the endpoint is in nobody's way.
create table mindia.webhook_states (
    tenant_id uuid not null,
    webhook_id uuid not null,
    failures_in_row integer not null default 0,
    failing_since timestamptz,
    failing_event_id uuid,
    has_failed_others boolean not null default false,
    times_opened integer not null default 0,
    open_until timestamptz,
    updated_at timestamptz not null default now(),
    tokens double precision,
    tokens_at timestamptz,
    constraint webhook_states_pkey primary key (tenant_id, webhook_id)
) with (fillfactor = 50);

alter table mindia.workers add column awaits_events boolean not null default false;

create policy tenant_isolation on mindia.webhook_leases
    using (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid)
    with check (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid);
create policy tenant_isolation on mindia.webhook_states
    using (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid)
    with check (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid);
alter table mindia.webhook_leases enable row level security;
alter table mindia.webhook_states enable row level security;
