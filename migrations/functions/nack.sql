-- Gives deliveries up as failed. Arrays run side by side; a delay of null means the backoff.
-- Returns the positions, from 1, of those that were still in flight under their lease, and how many are dead now.
create or replace function nack(
    p bigint, g int, lease_ids bigint[], offsets bigint[], delays bigint[], reasons text[], outcome text,
    details jsonb[], out held int[], out n_dead int)
language plpgsql as $$
begin
    held := held_by(p, g, lease_ids, offsets);
    n_dead := 0;
    if cardinality(held) > 0 then
        perform take_back(p, g, array(select offsets[i] from unnest(held) i));
        select fail(p, g, clock_timestamp(), array_agg(offsets[i]), array_agg(delays[i]), array_agg(reasons[i]),
                    outcome, array_agg(details[i]))
        into n_dead from unnest(held) i;
    end if;
end $$;
