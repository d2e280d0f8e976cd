-- Tasks are written many at a time: whoever writes some locks the row of their tenant once, as the check of the foreign
-- key did for each of them, which took as long as all else about writing it.

alter table mindia.tasks drop constraint tasks_tenant_id_fkey;
