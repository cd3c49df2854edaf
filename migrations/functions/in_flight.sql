-- How many messages of a group are leased, over all its partitions and consumers.
create or replace function in_flight(g int, t timestamptz)
returns bigint
language plpgsql stable as $$
declare
    n bigint;
begin
    select coalesce(sum(upper(r.r) - lower(r.r)), 0) into n
    from leases l cross join lateral unnest(l.pending) r (r)
    where l.group_id = g and l.deadline > t;
    return n;
end $$;
