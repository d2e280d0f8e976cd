-- Statements that bind their transaction by themselves: what comes of these functions is what they go on with, so that the
-- tenant is bound before any row of it is looked at. Sent apart from it, binding took a third of what writing a row takes.

-- Whether a tenant is there; with `binds`, the transaction is bound to it. Nobody removes it until the transaction ends.
create function mindia.enter(tenant uuid, binds boolean) returns boolean language plpgsql as $$
begin
    if tenant is null then
        return true;
    end if;
    if binds then
        perform mindia.set_tenant(tenant);
    end if;
    perform from mindia.tenants where id = tenant for key share;
    return found;
end
$$;

-- Takes bytes off the record of those without an item; with `binds`, the transaction is bound to the tenant.
create function mindia.take_staged(tenant uuid, object uuid, binds boolean)
returns table (tenant_id uuid, s3_bucket varchar(255)) language plpgsql rows 1 as $$
begin
    if binds then
        perform mindia.set_tenant(tenant);
    end if;
    return query delete from mindia.staged_objects s where s.tenant_id = tenant and s.id = object
        returning s.tenant_id, s.s3_bucket;
end
$$;
