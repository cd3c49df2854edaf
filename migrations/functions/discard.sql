-- Ends deliveries for good, without retry and without dead letter; the reason is kept among the attempts.
-- Returns the positions, from 1, of those that were still in flight under their lease.
create or replace function discard(
    p bigint, g int, lease_ids bigint[], offsets bigint[], reasons text[], details jsonb[])
returns int[]
language plpgsql as $$
#variable_conflict use_column
declare
    held int[] := held_by(p, g, lease_ids, offsets);
begin
    if cardinality(held) > 0 then
        perform take_back(p, g, array(select offsets[i] from unnest(held) i));
        update past_leases x set discarded = x.discarded + d.part
        from (select lease_ids[i] as id, range_agg(int8range(offsets[i], offsets[i] + 1)) as part
              from unnest(held) i group by 1) d
        where x.partition_id = p and x.group_id = g and x.id = d.id;
        perform record_attempts(p, g, clock_timestamp(), array_agg(offsets[i]),
                                array_agg(coalesce(d.attempt, 0) + 1), array_agg('discarded'::text),
                                array_agg(reasons[i]), array_agg(details[i]))
        from unnest(held) i
        left join deferred d on d.partition_id = p and d.group_id = g and d."offset" = offsets[i];
        delete from deferred d
        where d.partition_id = p and d.group_id = g and d."offset" in (select offsets[i] from unnest(held) i);
        update cursors c set discarded = c.discarded + cardinality(held)
        where c.partition_id = p and c.group_id = g;
    end if;
    return held;
end $$;
