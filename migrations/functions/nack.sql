-- Gives deliveries up as failed. Arrays run side by side; a delay of null means the backoff.
-- Returns the positions, from 1, of those that were still in flight under their lease.
create or replace function nack(
    p bigint, g int, lease_ids bigint[], offsets bigint[], delays bigint[], reasons text[], outcome text,
    details jsonb[])
returns int[]
language plpgsql as $$
declare
    held int[] := held_by(p, g, lease_ids, offsets);
begin
    if cardinality(held) > 0 then
        perform take_back(p, g, array(select offsets[i] from unnest(held) i));
        perform fail(p, g, clock_timestamp(), array_agg(offsets[i]), array_agg(delays[i]), array_agg(reasons[i]),
                     outcome, array_agg(details[i]))
        from unnest(held) i;
    end if;
    return held;
end $$;
