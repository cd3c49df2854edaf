-- Which of these (lease, offset) pairs are still in flight under that lease: their positions in the arrays, from 1; of
-- a pair that is there several times, the first.
-- Locks the cursor and the leases, so that nothing of it changes before the caller commits.
create or replace function held_by(p bigint, g int, lease_ids bigint[], offsets bigint[])
returns int[]
language plpgsql as $$
declare
    t timestamptz;
    positions int[];
begin
    perform from cursors c where c.partition_id = p and c.group_id = g for no key update;
    perform from leases l where l.partition_id = p and l.group_id = g order by l.id, l.deadline for update;
    t := clock_timestamp();
    select array_agg(a.i) into positions
    from (select x.id, x.o, min(x.i)::int as i
          from unnest(lease_ids, offsets) with ordinality x (id, o, i) group by x.id, x.o) a
    where exists (select from leases l
                  where l.partition_id = p and l.group_id = g and l.id = a.id and l.deadline > t and l.pending @> a.o);
    return coalesce(positions, '{}');
end $$;
