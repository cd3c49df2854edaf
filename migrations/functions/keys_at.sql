-- The keys of the messages at these offsets, without touching their payloads. Keyless and vanished ones are absent.
create or replace function keys_at(p bigint, wanted bigint[])
returns table ("offset" bigint, key text)
language plpgsql stable rows 100 as $$
#variable_conflict use_column
begin
    return query
    with homes as materialized (
        select distinct (select b.base_offset from batches b
                         where b.partition_id = p and b.base_offset <= w.o
                         order by b.base_offset desc limit 1) as base_offset
        from unnest(wanted) w (o))
    select b.base_offset + m.i - 1, m.key
    from homes h
    join batches b on b.partition_id = p and b.base_offset = h.base_offset
    cross join lateral unnest(b.keys) with ordinality m (key, i)
    join unnest(wanted) w (o) on w.o = b.base_offset + m.i - 1
    where m.key is not null;
end $$;
