-- The same for whoever does not hold the cursor's row yet: the rescue of groups that nobody reads.
create or replace function expire_leases(p bigint, g int)
returns int
language plpgsql as $$
begin
    perform from cursors c where c.partition_id = p and c.group_id = g for no key update;
    return expire(p, g, clock_timestamp());
end $$;
