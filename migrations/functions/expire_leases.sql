-- The same for whoever does not hold the cursor's row yet: the rescue of groups that nobody reads.
create or replace function expire_leases(p bigint, g int, out n int, out n_dead int)
language plpgsql as $$
begin
    perform from cursors c where c.partition_id = p and c.group_id = g for no key update;
    select e.n, e.n_dead into n, n_dead from expire(p, g, clock_timestamp()) e;
end $$;
