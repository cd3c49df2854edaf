-- Offsets and keys of messages that have one: those of the straight line from low to before high, which are in the
-- record batches from first_base to last_base, and the deferred ones picked.
create or replace function keys_taken(
    p bigint, g int, first_base bigint, last_base bigint, low bigint, high bigint, picked bigint[])
returns table (offsets bigint[], keys text[])
language plpgsql stable rows 1 as $$
#variable_conflict use_column
begin
    offsets := '{}'; keys := '{}';
    if high > low then
        select coalesce(array_agg(x.base_offset + k.i - 1), '{}'), coalesce(array_agg(k.key), '{}') into offsets, keys
        from batches x
        cross join lateral unnest(x.keys) with ordinality k (key, i)
        where x.partition_id = p and x.base_offset between first_base and last_base and k.key is not null
          and x.base_offset + k.i - 1 >= low and x.base_offset + k.i - 1 < high;
    end if;
    if cardinality(picked) > 0 then
        select offsets || coalesce(array_agg(w.o), '{}'), keys || coalesce(array_agg(coalesce(d.key, e.key)), '{}')
        into offsets, keys
        from unnest(picked) w (o)
        left join envelopes_at(p, picked) e on e."offset" = w.o
        left join deferred d on d.partition_id = p and d.group_id = g and d."offset" = w.o
        where coalesce(d.key, e.key) is not null;
    end if;
    return next;
end $$;
