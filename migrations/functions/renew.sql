-- Keeps leases for so many milliseconds from now where they would end before that. Only what still ends when it was last
-- made to (or anything, where that is null): what was extended, for longer or for less, is its consumer's own.
-- Returns the new deadlines. Parts of a lease that come to the same deadline become one row.
create or replace function renew(p bigint, g int, lease_ids bigint[], deadlines timestamptz[], timeouts_ms bigint[])
returns timestamptz[]
language plpgsql as $$
declare
    t timestamptz;
    wanted timestamptz[];
begin
    perform from cursors c where c.partition_id = p and c.group_id = g for no key update;
    perform from leases l
    where l.partition_id = p and l.group_id = g and l.id = any (lease_ids) order by l.id, l.deadline for update;
    t := clock_timestamp();
    wanted := array(
        select t + make_interval(secs => w.ms / 1000.0) from unnest(timeouts_ms) with ordinality w (ms, i) order by i);
    with early as (
        delete from leases l using unnest(lease_ids, deadlines, wanted) w (id, deadline, ends)
        where l.partition_id = p and l.group_id = g and l.id = w.id and l.deadline > t and l.deadline < w.ends
          and l.deadline = coalesce(w.deadline, l.deadline)
        returning l.*, w.ends)
    insert into leases (partition_id, group_id, id, deadline, owner, pending, offsets, keys, deferrals)
    select p, g, e.id, e.ends, min(e.owner), range_agg(r.r), min(e.offsets), min(e.keys),
           bool_or(e.deferrals)
    from early e cross join lateral unnest(e.pending) r (r)
    group by e.id, e.ends;
    return wanted;
end $$;
