-- The messages of one partition at these offsets; offsets that are no longer stored are simply absent.
-- Each batch is read once, however many of its messages are asked for.
create or replace function messages_at(p bigint, wanted bigint[])
returns table ("offset" bigint, published_at timestamptz, key text, meta jsonb, payload bytea)
language plpgsql stable rows 100 as $$
#variable_conflict use_column
begin
    return query
    with homes as materialized (
        select distinct (select b.base_offset from batches b
                         where b.partition_id = p and b.base_offset <= w.o
                         order by b.base_offset desc limit 1) as base_offset
        from unnest(wanted) w (o))
    select b.base_offset + m.i - 1, b.published_at, m.key, m.meta, m.payload
    from homes h
    join batches b on b.partition_id = p and b.base_offset = h.base_offset
    cross join lateral unnest(b.payloads, b.keys, b.meta) with ordinality m (payload, key, meta, i)
    join unnest(wanted) w (o) on w.o = b.base_offset + m.i - 1;
end $$;
