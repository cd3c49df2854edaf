-- Keeps leases for so many milliseconds from now where they would end before that, and nothing of them that was
-- extended beyond it. Parts of a lease that come to the same deadline become one row.
create or replace function renew(p bigint, g int, lease_ids bigint[], timeouts_ms bigint[])
returns void
language plpgsql as $$
declare
    t timestamptz;
begin
    perform from cursors c where c.partition_id = p and c.group_id = g for no key update;
    perform from leases l
    where l.partition_id = p and l.group_id = g and l.id = any (lease_ids) order by l.id, l.deadline for update;
    t := clock_timestamp();
    with wanted as (
        select w.id, t + make_interval(secs => w.ms / 1000.0) as ends from unnest(lease_ids, timeouts_ms) w (id, ms)),
    early as (
        delete from leases l using wanted w
        where l.partition_id = p and l.group_id = g and l.id = w.id and l.deadline > t and l.deadline < w.ends
        returning l.*, w.ends)
    insert into leases (partition_id, group_id, id, deadline, owner, pending, offsets, keys, deferrals)
    select p, g, e.id, e.ends, min(e.owner), range_agg(r.r), min(e.offsets), min(e.keys),
           bool_or(e.deferrals)
    from early e cross join lateral unnest(e.pending) r (r)
    group by e.id, e.ends;
end $$;
