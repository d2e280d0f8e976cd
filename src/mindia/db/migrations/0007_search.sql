-- What search needs: graphs of large tenants, words for queries that are misspelt, words of several kinds of media.

-- The index over the vectors of one space of one tenant, while there is one that can be used.
create table mindia.vector_indexes (
    tenant_id uuid not null,
    space_id smallint not null,
    row_count bigint not null,
    item_count bigint not null,
    typical_distance double precision not null,
    created_at timestamptz not null default now(),
    constraint vector_indexes_pkey primary key (tenant_id, space_id),
    constraint vector_indexes_tenant_id_fkey foreign key (tenant_id) references mindia.tenants (id)
);

-- Words of a tenant's media, in the form that they are indexed in. One that is not used any more may stay: it finds nothing.
create table mindia.search_vocabulary (
    tenant_id uuid not null,
    word text collate "C" not null,
    reversed text collate "C" generated always as (reverse(word)) stored,
    constraint search_vocabulary_pkey primary key (tenant_id, word),
    constraint search_vocabulary_tenant_id_fkey foreign key (tenant_id) references mindia.tenants (id)
);
create index idx_search_vocabulary_reversed on mindia.search_vocabulary (tenant_id, reversed);

create policy tenant_isolation on mindia.vector_indexes
    using (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid)
    with check (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid);
create policy tenant_isolation on mindia.search_vocabulary
    using (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid)
    with check (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid);
alter table mindia.vector_indexes enable row level security;
alter table mindia.search_vocabulary enable row level security;

drop function mindia.search_words(uuid, tsquery, mindia.entity_type);

-- The items whose words match, with how well they do; of some kinds, or of all where that is null. It belongs to the owner
-- for the reason that 0003 gives.
create function mindia.search_words(tenant uuid, query tsquery, kinds mindia.entity_type[])
returns table (entity_id uuid, text_score real)
language plpgsql stable security definer rows 100
set search_path = pg_catalog, pg_temp set plan_cache_mode = force_custom_plan as $$
begin
    if tenant is distinct from nullif(current_setting('mindia.tenant_id', true), '')::uuid then
        raise exception using errcode = '42501', message = format('tenant %s is not that of the transaction', tenant);
    end if;
    return query
        select d.entity_id, ts_rank_cd(d.tsv, query) from mindia.search_documents d
        where d.tenant_id = tenant and d.tsv @@ query and (kinds is null or d.entity_type = any(kinds));
end
$$;

-- The vectors nearest to one, by the index of the space; nearly all of them, in no order. `breadth` is how far the graph is
-- searched, at most 1000. The plan is made anew each time, since only one for the tenant at hand can use its index; and a
-- search of an index goes on where it meets rows that are not wanted.
create function mindia.nearest_by_index(
    tenant uuid, space smallint, question {vector}.vector, kinds mindia.entity_type[], most integer, breadth integer
)
returns table (entity_id uuid, passage integer, distance double precision)
language plpgsql stable rows 100
set plan_cache_mode = force_custom_plan set enable_sort = off set enable_seqscan = off set enable_bitmapscan = off
set jit = off set max_parallel_workers_per_gather = 0
set hnsw.ef_search = 100 set hnsw.iterative_scan = relaxed_order as $$
begin
    perform set_config('hnsw.ef_search', breadth::text, true);
    if kinds is null then
        return query
            select e.entity_id, e.passage, e.embedding operator({vector}.<=>) question from mindia.embeddings e
            where e.tenant_id = tenant and e.space_id = space
            order by e.embedding::{vector}.halfvec(768) operator({vector}.<=>) question::{vector}.halfvec(768) limit most;
    else
        return query
            select e.entity_id, e.passage, e.embedding operator({vector}.<=>) question from mindia.embeddings e
            where e.tenant_id = tenant and e.space_id = space and e.entity_type = any(kinds)
            order by e.embedding::{vector}.halfvec(768) operator({vector}.<=>) question::{vector}.halfvec(768) limit most;
    end if;
end
$$;
