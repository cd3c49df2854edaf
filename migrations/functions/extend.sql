-- Moves the deadline of deliveries to so many milliseconds from now. Where only a part of a lease moves, it gets a row
-- of its own under the same id, so that its ackIds stay good.
-- Returns the positions, from 1, of those that were still in flight under their lease.
create or replace function extend(p bigint, g int, lease_ids bigint[], offsets bigint[], timeouts_ms bigint[])
returns int[]
language plpgsql as $$
#variable_conflict use_column
declare
    held int[] := held_by(p, g, lease_ids, offsets);
    t timestamptz := clock_timestamp();
begin
    with moved as (
        select lease_ids[i] as id, t + make_interval(secs => timeouts_ms[i] / 1000.0) as ends,
               range_agg(int8range(offsets[i], offsets[i] + 1)) as part
        from unnest(held) i group by 1, 2),
    kept as (
        update leases l set pending = l.pending - m.part
        from (select id, range_agg(part) as part from moved group by id) m
        where l.partition_id = p and l.group_id = g and l.id = m.id and l.pending && m.part
        returning l.id, l.owner, l.offsets, l.keys, l.deferrals)
    insert into leases as x (partition_id, group_id, id, deadline, owner, pending, offsets, keys, deferrals)
    select distinct on (m.id, m.ends) p, g, m.id, m.ends, k.owner, m.part, k.offsets, k.keys, k.deferrals
    from moved m join kept k on k.id = m.id
    on conflict (partition_id, group_id, id, deadline) do update set pending = x.pending + excluded.pending;
    delete from leases l where l.partition_id = p and l.group_id = g and isempty(l.pending);
    return held;
end $$;
